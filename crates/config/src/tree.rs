//! A YAML or JSON document as a tree in which every key and value knows its place.
//!
//! Scalars keep their text: what a plain `1.0` means is decided by the field that reads it.
//! Aliases are copied and merge keys (`<<`) resolved here, under a bound, so that readers
//! see plain maps.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::source::{SourceFile, Span};

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;
/// The texts that anchors keep and aliases repeat, together.
const MAX_COPIED_BYTES: usize = 16 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `plain`: not quoted, so it may mean a number, a truth value or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub span: Span,
    pub text: String,
}

impl Node {
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { plain: false, .. } => "a text",
            Value::Scalar { text, .. } if self.is_null() => {
                if text.is_empty() {
                    "nothing"
                } else {
                    "null"
                }
            }
            Value::Scalar { text, .. } if boolean(text).is_some() => "a truth value",
            Value::Scalar { text, .. } if number(text).is_some() => "a number",
            Value::Scalar { .. } => "a text",
        }
    }
}

/// A plain scalar's meaning as a truth value, by the YAML core schema.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A plain scalar's meaning as a finite number.
pub(crate) fn number(text: &str) -> Option<f64> {
    let first = text.bytes().find(|b| !matches!(b, b'+' | b'-'))?;
    if !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// Reads a document by the file's ending. `None`: it has no tree; the sink says why.
/// An empty document is an empty map.
pub(crate) fn parse(file: &SourceFile, sink: &mut Sink) -> Option<Node> {
    if file.path.extension().is_some_and(|e| e == "json") {
        parse_json(file, sink)
    } else {
        parse_yaml(file, sink)
    }
}

fn parse_yaml(file: &SourceFile, sink: &mut Sink) -> Option<Node> {
    let offsets = (!file.text.is_ascii())
        .then(|| file.text.char_indices().map(|(i, _)| i).chain([file.text.len()]).collect::<Vec<_>>());
    let mut builder = Builder {
        file,
        sink,
        offsets,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        copied_bytes: 0,
        failed: false,
    };
    let mut parser = Parser::new_from_str(&file.text);
    while let Some(step) = parser.next_event() {
        match step {
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
            Ok((event, span)) => {
                let span = builder.byte(span.start.index())..builder.byte(span.end.index());
                builder.event(event, span);
                if builder.failed {
                    return None;
                }
            }
        }
    }
    Some(builder.root.take().unwrap_or(Node { span: 0..0, value: Value::Map(Vec::new()) }))
}

enum Frame {
    List { start: usize, items: Vec<Node>, anchor: usize },
    Map { start: usize, entries: Vec<(Key, Node)>, seen: HashSet<String>, key: Option<Key>, anchor: usize },
}

struct Builder<'a> {
    file: &'a SourceFile,
    sink: &'a mut Sink,
    /// Byte of each character, unless the text is ASCII.
    offsets: Option<Vec<usize>>,
    stack: Vec<Frame>,
    root: Option<Node>,
    /// Finished anchors with what a copy costs.
    anchors: HashMap<usize, (Node, Cost)>,
    nodes: usize,
    copied_bytes: usize,
    failed: bool,
}

impl Builder<'_> {
    fn byte(&self, index: usize) -> usize {
        let len = self.file.text.len();
        match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(len),
            None => index.min(len),
        }
    }

    fn report(
        &mut self,
        code: &'static codes::Code,
        span: &Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.sink.push(Diagnostic::at(self.file, code, span, message))
    }

    fn syntax(&mut self, error: &ScanError) {
        let found = self.byte(error.marker().index());
        // Where the text ends too early, its last character is shown and not the void after it.
        let before = self.file.text[..self.file.text.floor_char_boundary(found)].trim_end();
        let void = self.file.line_around(&(found..found)).0.trim().is_empty();
        let at = if void { before.char_indices().next_back().map_or(0, |(i, _)| i) } else { found };
        let message = format!("not valid YAML: {}", error.info());
        let line = self.file.line_around(&(at..at)).0;
        let tab = line.trim_start_matches(' ').starts_with('\t');
        let diagnostic = self.report(codes::SYNTAX, &(at..at + 1), message);
        if tab {
            diagnostic.hint("indent with spaces; YAML refuses tabs");
        }
    }

    fn fail(&mut self, code: &'static codes::Code, span: &Span, message: &str) {
        self.report(code, span, message);
        self.failed = true;
    }

    fn event(&mut self, event: Event<'_>, span: Span) {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.fail(codes::SYNTAX, &span, "a second YAML document in one file");
            }
            Event::Scalar(text, style, anchor, _) => {
                let node = Node {
                    span,
                    value: Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain },
                };
                self.place(node, anchor);
            }
            Event::SequenceStart(anchor, _) => {
                self.open(Frame::List { start: span.start, items: Vec::new(), anchor }, &span)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, seen) = (Vec::new(), HashSet::new());
                self.open(Frame::Map { start: span.start, entries, seen, key: None, anchor }, &span);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span),
            Event::Alias(id) => match self.anchors.get(&id).map(|(_, cost)| *cost) {
                Some(cost) if self.may_copy(cost, &span) => {
                    let Some((node, _)) = self.anchors.get(&id) else { return };
                    let copy = Node { span, value: node.value.clone() };
                    self.place(copy, 0);
                }
                Some(_) => {}
                None => self.fail(codes::SYNTAX, &span, "an alias inside of its own anchor"),
            },
            _ => {}
        }
    }

    fn open(&mut self, frame: Frame, span: &Span) {
        if self.stack.len() >= MAX_DEPTH {
            self.fail(codes::TOO_LARGE, span, "the document is nested deeper than 64 levels");
            return;
        }
        // A map or list may stand as a key in YAML; nothing here has such keys.
        if let Some(Frame::Map { key: None, .. }) = self.stack.last() {
            self.fail(codes::SYNTAX, span, "a key must be a text, not a map or list");
            return;
        }
        self.stack.push(frame);
    }

    fn close(&mut self, span: &Span) {
        let (node, anchor) = match self.stack.pop() {
            Some(Frame::List { start, items, anchor }) => {
                let end = items.last().map_or(span.end, |n| n.span.end).max(start);
                (Node { span: start..end, value: Value::List(items) }, anchor)
            }
            Some(Frame::Map { start, entries, anchor, .. }) => {
                let end = entries.last().map_or(span.end, |(_, n)| n.span.end).max(start);
                (Node { span: start..end, value: Value::Map(merge(entries)) }, anchor)
            }
            None => return,
        };
        self.place(node, anchor);
    }

    /// Counts a copy before it is made.
    fn may_copy(&mut self, cost: Cost, span: &Span) -> bool {
        self.nodes += cost.nodes;
        self.copied_bytes += cost.bytes;
        if self.nodes > MAX_NODES || self.copied_bytes > MAX_COPIED_BYTES {
            self.fail(
                codes::TOO_LARGE,
                span,
                "the aliases of the document expand to more than 200,000 values or 16 MiB",
            );
            return false;
        }
        true
    }

    fn place(&mut self, node: Node, anchor: usize) {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let span = node.span.clone();
            self.fail(codes::TOO_LARGE, &span, "the document expands to more than 200,000 values");
            return;
        }
        if anchor != 0 {
            let cost = cost_of(&node);
            if !self.may_copy(cost, &node.span) {
                return;
            }
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let mut duplicate = None;
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, seen, key, .. }) => match key.take() {
                Some(key) => {
                    if key.text != "<<" && !seen.insert(key.text.clone()) {
                        duplicate = Some(key.clone());
                    }
                    entries.push((key, node));
                }
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some(Key { span: node.span, text }),
                    _ => {
                        let span = node.span.clone();
                        self.fail(codes::SYNTAX, &span, "a key must be a text, not a map or list");
                    }
                },
            },
        }
        if let Some(key) = duplicate {
            report_duplicate(self.file, self.sink, &key);
        }
    }
}

fn report_duplicate(file: &SourceFile, sink: &mut Sink, key: &Key) {
    if sink.is_full() {
        sink.count(codes::DUPLICATE_KEY);
        return;
    }
    sink.push(Diagnostic::at(
        file,
        codes::DUPLICATE_KEY,
        &key.span,
        format!("`{}` is written twice", key.text),
    ))
    .hint("keep one of the two; the first is used");
}

/// What a copy of a node costs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

fn cost_of(node: &Node) -> Cost {
    fn add(node: &Node, cost: &mut Cost) {
        cost.nodes += 1;
        match &node.value {
            Value::Scalar { text, .. } => cost.bytes += text.len(),
            Value::List(items) => items.iter().for_each(|n| add(n, cost)),
            Value::Map(entries) => entries.iter().for_each(|(key, n)| {
                cost.bytes += key.text.len();
                add(n, cost);
            }),
        }
    }
    let mut cost = Cost::default();
    add(node, &mut cost);
    cost
}

/// Replaces `<<: {..}` by the entries of the map (or maps) that are not there already.
fn merge(entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    if !entries.iter().any(|(k, _)| k.text == "<<") {
        return entries;
    }
    let (merged, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(k, _)| k.text == "<<");
    for (key, node) in merged {
        let maps = match node.value {
            Value::List(items) if items.iter().all(|n| matches!(n.value, Value::Map(_))) => items,
            Value::Map(_) => vec![node],
            _ => {
                own.push((key, node));
                continue;
            }
        };
        let mut seen: HashSet<String> = own.iter().map(|(key, _)| key.text.clone()).collect();
        for map in maps {
            if let Value::Map(entries) = map.value {
                own.extend(entries.into_iter().filter(|(key, _)| seen.insert(key.text.clone())));
            }
        }
    }
    own
}

fn parse_json(file: &SourceFile, sink: &mut Sink) -> Option<Node> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&file.text) {
        json_syntax(file, sink, &error);
        return None;
    }
    let mut scan = JsonScan { file, bytes: file.text.as_bytes(), at: 0, nodes: 0 };
    match scan.value(0, sink) {
        Ok(node) => Some(node),
        Err((code, span, message)) => {
            sink.push(Diagnostic::at(file, code, &span, message));
            None
        }
    }
}

fn json_syntax(file: &SourceFile, sink: &mut Sink, error: &serde_json::Error) {
    let line_start: usize =
        file.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = line_start + error.column().saturating_sub(1);
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    sink.push(Diagnostic::at(file, codes::SYNTAX, &(at..at + 1), format!("not valid JSON: {what}")));
}

/// Walks a text that serde_json has already accepted, to learn where things are.
struct JsonScan<'a> {
    file: &'a SourceFile,
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
}

type JsonResult<T> = Result<T, (&'static codes::Code, Span, &'static str)>;

impl JsonScan<'_> {
    fn space(&mut self) {
        while self.bytes.get(self.at).is_some_and(|b| b" \t\r\n,:".contains(b)) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize, sink: &mut Sink) -> JsonResult<Node> {
        self.space();
        let start = self.at;
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err((codes::TOO_LARGE, start..start + 1, "the document is nested deeper than 64 levels"));
        }
        if self.nodes > MAX_NODES {
            return Err((codes::TOO_LARGE, start..start + 1, "the document has more than 200,000 values"));
        }
        let value = match self.bytes.get(self.at) {
            Some(b'{') => self.map(depth, sink)?,
            Some(b'[') => self.list(depth, sink)?,
            Some(b'"') => Value::Scalar { text: self.string()?, plain: false },
            _ => {
                while self.bytes.get(self.at).is_some_and(|b| !b" \t\r\n,]}".contains(b)) {
                    self.at += 1;
                }
                Value::Scalar { text: self.file.text[start..self.at].to_owned(), plain: true }
            }
        };
        Ok(Node { span: start..self.at, value })
    }

    fn list(&mut self, depth: usize, sink: &mut Sink) -> JsonResult<Value> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space();
            if matches!(self.bytes.get(self.at), Some(b']') | None) {
                self.at += 1;
                return Ok(Value::List(items));
            }
            items.push(self.value(depth + 1, sink)?);
        }
    }

    fn map(&mut self, depth: usize, sink: &mut Sink) -> JsonResult<Value> {
        self.at += 1;
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = HashSet::new();
        loop {
            self.space();
            if matches!(self.bytes.get(self.at), Some(b'}') | None) {
                self.at += 1;
                return Ok(Value::Map(entries));
            }
            let start = self.at;
            let text = self.string()?;
            let key = Key { span: start..self.at, text };
            if !seen.insert(key.text.clone()) {
                report_duplicate(self.file, sink, &key);
            }
            entries.push((key, self.value(depth + 1, sink)?));
        }
    }

    fn string(&mut self) -> JsonResult<String> {
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let span = start..self.at;
        serde_json::from_str(&self.file.text[span.clone()])
            .map_err(|_| (codes::SYNTAX, span, "not valid JSON: a broken escape in a text"))
    }
}
