//! Finds the declared values in a JSON text in one pass, without building a tree of it.
//!
//! The paths of all fields form a prefix tree. A visitor walks the text beside it and keeps,
//! for each field, the slice of the text that holds its value; everything else is skipped.
//! Nothing recurses deeper than the longest declared path.

use std::borrow::Cow;
use std::fmt;

use levada_config::model::Field;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::cell::{Cell, Coercion, Unfit, convert, convert_text};

/// The slices of one record: reused from row to row.
#[derive(Debug, Default)]
pub struct Row<'a> {
    values: Vec<Option<&'a str>>,
    /// The first key at the top that no path begins with.
    unknown: Option<Cow<'a, str>>,
    /// A declared key was given twice; the last one counts.
    duplicate: Option<String>,
}

impl<'a> Row<'a> {
    /// The JSON text of a field's value, where the record has it.
    pub fn value(&self, field: usize) -> Option<&'a str> {
        self.values.get(field).copied().flatten()
    }

    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    pub fn duplicate(&self) -> Option<&str> {
        self.duplicate.as_deref()
    }

    fn clear(&mut self, fields: usize) {
        self.values.clear();
        self.values.resize(fields, None);
        self.unknown = None;
        self.duplicate = None;
    }
}

/// Why a text yields no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("the text is not valid UTF-8 after byte {0}")]
    NotUtf8(usize),
    #[error("the text is not valid JSON: {0}")]
    Malformed(String),
    #[error("the text is valid JSON but not an object")]
    NotAnObject,
}

#[derive(Debug, Default)]
struct Node {
    /// Fields whose path ends here.
    fields: Vec<usize>,
    children: Vec<(Box<str>, Node)>,
}

impl Node {
    fn insert(&mut self, path: &[String], field: usize) {
        let Some((first, rest)) = path.split_first() else {
            self.fields.push(field);
            return;
        };
        let at = match self.children.iter().position(|(key, _)| **key == **first) {
            Some(at) => at,
            None => {
                self.children.push((first.as_str().into(), Node::default()));
                self.children.len() - 1
            }
        };
        self.children[at].1.insert(rest, field);
    }

    fn forget(&self, row: &mut Row<'_>) {
        for field in &self.fields {
            row.values[*field] = None;
        }
        for (_, child) in &self.children {
            child.forget(row);
        }
    }
}

/// Reads the declared fields out of JSON texts.
#[derive(Debug)]
pub struct Extractor {
    fields: Vec<Field>,
    root: Node,
    null_texts: Vec<String>,
}

impl Extractor {
    /// A field without a path takes the whole text. One whose path begins with `@` lies in the
    /// envelope and is not looked for here.
    pub fn new(fields: &[Field]) -> Self {
        let mut root = Node::default();
        for (at, field) in fields.iter().enumerate() {
            if field.path.first().is_some_and(|p| p == "@") {
                continue;
            }
            root.insert(&field.path, at);
        }
        Self { fields: fields.to_vec(), root, null_texts: vec!["NA".to_owned()] }
    }

    /// The texts that mean null where every value came as text; the empty one always does.
    #[must_use]
    pub fn null_texts(mut self, texts: &[String]) -> Self {
        self.null_texts = texts.to_vec();
        self
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Fills `row` with the slices of `body`.
    ///
    /// # Errors
    /// When the body is not one JSON object in UTF-8.
    pub fn scan<'a>(&self, body: &'a [u8], row: &mut Row<'a>) -> Result<(), ScanError> {
        row.clear(self.fields.len());
        let text = std::str::from_utf8(body).map_err(|e| ScanError::NotUtf8(e.valid_up_to()))?;
        if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
            let whole = serde_json::from_str::<IgnoredAny>(text);
            return Err(
                whole.map_or_else(|e| ScanError::Malformed(e.to_string()), |_| ScanError::NotAnObject)
            );
        }
        for field in &self.root.fields {
            row.values[*field] = Some(text.trim_ascii());
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let result =
            Branch { node: &self.root, row, top: self.root.fields.is_empty() }.deserialize(&mut deserializer);
        result.and_then(|()| deserializer.end()).map_err(|e| ScanError::Malformed(e.to_string()))
    }

    /// The typed cell of a field after [`Extractor::scan`]; an absent value is null.
    ///
    /// # Errors
    /// [`Unfit`]: a code, and a sentence that says what the value should have been.
    pub fn cell<'a>(&self, row: &Row<'a>, field: usize, how: Coercion) -> Result<Cell<'a>, Unfit> {
        let Some(raw) = row.value(field) else { return Ok(Cell::Null) };
        if how == Coercion::Textual && self.means_null(raw) {
            return Ok(Cell::Null);
        }
        let field = &self.fields[field];
        convert(raw, field, how).map_err(|fault| fault.of(field, raw))
    }

    fn means_null(&self, raw: &str) -> bool {
        let inner = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
        inner.is_some_and(|text| text.is_empty() || self.null_texts.iter().any(|n| n == text))
    }

    /// The typed cell of a text that lies outside the body, such as an attribute.
    pub(crate) fn outside_cell<'a>(&self, text: &'a str, field: usize) -> Result<Cell<'a>, Unfit> {
        let field = &self.fields[field];
        convert_text(Cow::Borrowed(text), field, Coercion::Lenient).map_err(|fault| fault.of(field, text))
    }
}

/// At most 60 characters of a value, for a sentence.
pub(crate) fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((at, _)) => Cow::Owned(format!("{}...", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Reads one value at a node of the tree.
struct Value<'s, 'de> {
    node: &'s Node,
    row: &'s mut Row<'de>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.fields.is_empty() {
            return Branch { node: self.node, row: self.row, top: false }.deserialize(deserializer);
        }
        let raw: &'de RawValue = serde::Deserialize::deserialize(deserializer)?;
        for field in &self.node.fields {
            self.row.values[*field] = Some(raw.get());
        }
        if !self.node.children.is_empty() {
            let mut inner = serde_json::Deserializer::from_str(raw.get());
            Branch { node: self.node, row: self.row, top: false }
                .deserialize(&mut inner)
                .map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// Goes into an object or array where longer paths lead; other values hold none of them.
struct Branch<'s, 'de> {
    node: &'s Node,
    row: &'s mut Row<'de>,
    top: bool,
}

impl<'de> DeserializeSeed<'de> for Branch<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branch<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0u64;
        let mut next = 0;
        while let Some(key) = map.next_key_seed(Key { node: self.node, next, keep: self.top })? {
            let at = match key {
                Found::Child(at) => at,
                Found::Other(name) => {
                    if self.top && self.row.unknown.is_none() {
                        self.row.unknown = name;
                    }
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (name, child) = &self.node.children[at];
            let bit = 1u64.checked_shl(at as u32).unwrap_or(0);
            if seen & bit != 0 {
                self.row.duplicate = Some(name.to_string());
                child.forget(self.row);
            }
            seen |= bit;
            next = at + 1;
            map.next_value_seed(Value { node: child, row: self.row })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for at in 0usize.. {
            let child =
                self.node.children.iter().find(|(key, _)| key.parse() == Ok(at)).map(|(_, child)| child);
            let more = match child {
                Some(node) => seq.next_element_seed(Value { node, row: self.row })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

enum Found<'de> {
    Child(usize),
    /// The name is kept only where it is wanted.
    Other(Option<Cow<'de, str>>),
}

/// Matches a key against the children, the one after the last match first: records tend to
/// keep the order of their schema.
struct Key<'s> {
    node: &'s Node,
    next: usize,
    keep: bool,
}

impl Key<'_> {
    fn find(&self, key: &str) -> Option<usize> {
        let children = &self.node.children;
        if children.get(self.next).is_some_and(|(name, _)| **name == *key) {
            return Some(self.next);
        }
        children.iter().position(|(name, _)| **name == *key)
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Found<'de>, E> {
        let other = || Found::Other(self.keep.then_some(Cow::Borrowed(key)));
        Ok(self.find(key).map_or_else(other, Found::Child))
    }

    fn visit_str<E>(self, key: &str) -> Result<Found<'de>, E> {
        let other = || Found::Other(self.keep.then(|| Cow::Owned(key.to_owned())));
        Ok(self.find(key).map_or_else(other, Found::Child))
    }
}
