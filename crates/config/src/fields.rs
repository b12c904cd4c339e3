//! Reading a tree: typed getters that report what is wrong and go on, so that one run
//! finds every error.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use levada_core::NameError;

use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Sink};
use crate::model::Inactive;
use crate::quantity;
use crate::source::{SourceFile, Span};
use crate::suggest;
use crate::tree::{self, Key, Node, Value};

/// Whether a file is Levada's own or written in the connector dialect of the platform
/// document, in which an unknown field is only a warning and a missing part only waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Own,
    Connector,
}

/// What reading a file needs: the file, the dialect and where findings go.
pub(crate) struct Cx<'a> {
    pub file: &'a SourceFile,
    pub sink: &'a mut Sink,
    pub dialect: Dialect,
    /// Parts that parse and do not run.
    pub inactive: &'a mut Vec<Inactive>,
}

impl Cx<'_> {
    pub fn report(
        &mut self,
        code: &'static Code,
        span: &Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.sink.push(Diagnostic::at(self.file, code, span, message))
    }

    /// Notes a part that is parsed only.
    pub fn inactive(&mut self, span: &Span, part: impl Into<String>, reason: &str) {
        let line = self.file.line_of(span.start);
        self.inactive.push(Inactive {
            file: self.file.path.clone(),
            line,
            part: part.into(),
            reason: reason.into(),
        });
    }

    fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str) -> &mut Diagnostic {
        self.report(codes::WRONG_TYPE, &node.span, format!("`{what}` must be {wanted}, not {}", node.kind()))
    }

    /// A text. A plain number or truth value is refused: it was probably meant as such.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if node.kind() == "a text" => Some(text),
            Value::Scalar { .. } if !node.is_null() => {
                self.wrong_type(node, what, "a text").hint("put it in quotes");
                None
            }
            _ => {
                self.wrong_type(node, what, "a text");
                None
            }
        }
    }

    /// A text, also where it looks like a number: `version: 1.0`.
    pub fn loose_text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                self.wrong_type(node, what, "a text");
                None
            }
        }
    }

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let value = match &node.value {
            Value::Scalar { text, plain: true } => tree::boolean(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(node, what, "true or false");
        }
        value
    }

    pub fn number(&mut self, node: &Node, what: &str) -> Option<f64> {
        let value = match &node.value {
            Value::Scalar { text, plain: true } => tree::number(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(node, what, "a number");
        }
        value
    }

    pub fn integer(&mut self, node: &Node, what: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let number = self.number(node, what)?;
        let text = match &node.value {
            Value::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        match text.parse::<u64>().ok().filter(|n| allowed.contains(n)) {
            Some(n) => Some(n),
            None => {
                let message = format!(
                    "`{what}` must be a whole number from {} to {}, not {number}",
                    allowed.start(),
                    allowed.end()
                );
                self.report(codes::BAD_VALUE, &node.span, message);
                None
            }
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => {
                self.wrong_type(node, what, "a list");
                None
            }
        }
    }

    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(node, what, "a map");
                None
            }
        }
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Option<Vec<(&'n Node, &'n str)>> {
        match &node.value {
            Value::List(items) => {
                let read: Vec<_> = items.iter().filter_map(|n| Some((n, self.text(n, what)?))).collect();
                (read.len() == items.len()).then_some(read)
            }
            Value::Scalar { .. } => Some(vec![(node, self.text(node, what)?)]),
            Value::Map(_) => {
                self.wrong_type(node, what, "a list of texts");
                None
            }
        }
    }

    pub fn duration(
        &mut self,
        node: &Node,
        what: &str,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.loose_text(node, what)?;
        let Some(read) = quantity::duration(text) else {
            self.report(
                codes::BAD_QUANTITY,
                &node.span,
                format!("`{what}` is not a duration: `{}`", cut(text)),
            )
            .hint("write a number with its unit: 500ms, 60s, 5m, 24h or 7d");
            return None;
        };
        if !allowed.contains(&read) {
            let (from, to) =
                (quantity::show_duration(*allowed.start()), quantity::show_duration(*allowed.end()));
            self.report(codes::BAD_VALUE, &node.span, format!("`{what}` must lie between {from} and {to}"));
            return None;
        }
        Some(read)
    }

    pub fn size(&mut self, node: &Node, what: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let text = self.loose_text(node, what)?;
        let Some(read) = quantity::size(text) else {
            self.report(codes::BAD_QUANTITY, &node.span, format!("`{what}` is not a size: `{}`", cut(text)))
                .hint("write a number with its unit: 512KiB, 64MiB or 2GiB");
            return None;
        };
        if !allowed.contains(&read) {
            let (from, to) = (quantity::show_size(*allowed.start()), quantity::show_size(*allowed.end()));
            self.report(codes::BAD_VALUE, &node.span, format!("`{what}` must lie between {from} and {to}"));
            return None;
        }
        Some(read)
    }

    pub fn name<T: FromStr<Err = NameError>>(&mut self, node: &Node, what: &str) -> Option<T> {
        let text = self.text(node, what)?;
        self.parse_name(text, &node.span)
    }

    pub fn parse_name<T: FromStr<Err = NameError>>(&mut self, text: &str, span: &Span) -> Option<T> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.report(codes::BAD_NAME, span, error.to_string());
                None
            }
        }
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.loose_text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let hint = suggest::hint(text, words.iter().map(|(w, _)| *w), "allowed");
        self.report(codes::BAD_VALUE, &node.span, format!("`{}` is not a value of `{what}`", cut(text)))
            .hint(hint);
        None
    }

    /// A cron expression of five fields.
    pub fn cron(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        match check_cron(text) {
            Ok(()) => Some(text.trim().to_owned()),
            Err(why) => {
                self.report(codes::BAD_CRON, &node.span, format!("`{}` is not a cron expression: {why}", cut(text)))
                    .hint("write minute, hour, day of month, month and day of week, such as \"0 3 * * *\" for 03:00 UTC");
                None
            }
        }
    }
}

/// # Errors
/// Why it is no cron expression of five fields.
pub(crate) fn check_cron(text: &str) -> Result<(), String> {
    let fields = text.split_whitespace().count();
    if fields != 5 {
        return Err(format!("it has {fields} fields, not 5"));
    }
    text.parse::<croner::Cron>().map(|_| ()).map_err(|e| {
        let all = e.to_string();
        all.trim_start_matches("Component error: ").trim_end_matches('.').to_lowercase()
    })
}

/// A text short enough for a message.
pub(crate) fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The fields of one map: what is never asked for is unknown.
pub(crate) struct Fields<'n> {
    what: &'static str,
    entries: &'n [(Key, Node)],
    taken: Vec<bool>,
    known: Vec<&'static str>,
    /// Where a missing field is reported.
    place: Span,
}

impl<'n> Fields<'n> {
    /// The fields of `node`; `what` names it in messages, as in "a pipeline".
    pub fn of(cx: &mut Cx<'_>, node: &'n Node, what: &'static str) -> Option<Self> {
        let entries = cx.map(node, what)?;
        let place = entries.first().map_or(node.span.clone(), |(k, _)| k.span.clone());
        Some(Self { what, entries, taken: vec![false; entries.len()], known: Vec::new(), place })
    }

    /// The field, unless it is absent or null.
    pub fn get(&mut self, name: &'static str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The field with its key.
    pub fn entry(&mut self, name: &'static str) -> Option<(&'n Key, &'n Node)> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let at = self.entries.iter().position(|(k, _)| k.text == name)?;
        self.taken[at] = true;
        let (key, node) = &self.entries[at];
        (!node.is_null()).then_some((key, node))
    }

    pub fn need(&mut self, cx: &mut Cx<'_>, name: &'static str) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            cx.report(codes::MISSING_FIELD, &self.place, format!("{} needs `{name}`", self.what))
                .hint(format!("add `{name}: ...`"));
        }
        found
    }

    pub fn place(&self) -> &Span {
        &self.place
    }

    /// Reports what was not asked for.
    pub fn finish(self, cx: &mut Cx<'_>) {
        for ((key, _), taken) in self.entries.iter().zip(&self.taken) {
            // A duplicate of a known key was reported already.
            if *taken || self.known.contains(&key.text.as_str()) {
                continue;
            }
            let code = match cx.dialect {
                Dialect::Own => codes::UNKNOWN_FIELD,
                Dialect::Connector => codes::CONNECTOR_FIELD,
            };
            if cx.sink.is_full() {
                cx.sink.count(code);
                continue;
            }
            let hint = suggest::hint(&key.text, self.known.iter().copied(), "known fields");
            cx.report(code, &key.span, format!("{} has no field `{}`", self.what, cut(&key.text))).hint(hint);
        }
    }
}
