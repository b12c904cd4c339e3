//! Partial answers: `?fields=name,topics(name,labels/team)` leaves everything else out.
//!
//! The grammar is that of Google's APIs: names with `,` between them, `/` or `.` before a field
//! of a field, `(…)` around several of one, and `*` for all. A selection is checked against the
//! shape of the answer before the call is made, so that a call whose answer cannot be written
//! does nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::{Kind, Shape, camel};
use crate::error::ApiError;
use crate::names::shown;

/// A selection that is longer is refused.
const MAX_BYTES: usize = 4 << 10;
/// Nesting beyond which a selection is refused; no answer is so deep.
const MAX_DEPTH: usize = 16;

/// Which fields of an object are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Selection {
    /// The whole value.
    #[default]
    All,
    /// These, by the name of the answer; `*` stands for any name.
    Some(BTreeMap<String, Selection>),
}

impl Selection {
    /// Reads a selection of an answer of that shape.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a text that is not of the grammar and for a field that no answer has.
    pub(super) fn parse(text: &str, shape: &'static Shape) -> Result<Self, ApiError> {
        let mut reader = Reader { text, at: 0 };
        let selection = match text.len() > MAX_BYTES {
            true => None,
            false => reader.list(0).filter(|_| reader.at == text.len()),
        };
        let selection = selection.ok_or_else(|| refused(text, "The selection cannot be read"))?;
        let selection = Self::Some(selection);
        selection.check(Part::Message(shape), "")?;
        Ok(selection)
    }

    fn check(&self, part: Part, path: &str) -> Result<(), ApiError> {
        let Self::Some(fields) = self else { return Ok(()) };
        for (name, inner) in fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let found = match part {
                Part::Message(_) | Part::Map if name == "*" => {
                    // Whatever is below it must be there in one of them at least.
                    let below = part.below();
                    match below.iter().any(|part| inner.check(*part, &path).is_ok()) {
                        true => continue,
                        false => None,
                    }
                }
                Part::Message(shape) => shape.field(name).map(|field| Part::of(field.kind)),
                Part::Map => Some(Part::Value),
                Part::Value => None,
            };
            let found = found.ok_or_else(|| {
                refused(&path, &format!("Cannot find matching fields for path '{}'", shown(&path)))
            })?;
            inner.check(found, &path)?;
        }
        Ok(())
    }

    /// Takes everything else away. A list is what is left of each of its items.
    pub(super) fn apply(&self, value: &mut Value) {
        let Self::Some(fields) = self else { return };
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item)),
            Value::Object(object) => object.retain(|name, value| {
                let wanted = fields.get(name).or_else(|| fields.get("*"));
                wanted.inspect(|inner| inner.apply(value)).is_some()
            }),
            _ => {}
        }
    }

    /// Both this and the other.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Some(mut all), Self::Some(more)) => {
                for (name, inner) in more {
                    add(&mut all, name, inner);
                }
                Self::Some(all)
            }
            _ => Self::All,
        }
    }
}

/// What a name can stand in.
#[derive(Debug, Clone, Copy)]
enum Part {
    Message(&'static Shape),
    Map,
    Value,
}

impl Part {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Message(shape) => Self::Message(shape),
            Kind::Map => Self::Map,
            _ => Self::Value,
        }
    }

    fn below(self) -> Vec<Self> {
        match self {
            Self::Message(shape) => shape.fields.iter().map(|field| Self::of(field.kind)).collect(),
            Self::Map => vec![Self::Value],
            Self::Value => Vec::new(),
        }
    }
}

fn add(fields: &mut BTreeMap<String, Selection>, name: String, inner: Selection) {
    let joined = match fields.remove(&name) {
        Some(before) => before.join(inner),
        None => inner,
    };
    fields.insert(name, joined);
}

fn refused(field: &str, why: &str) -> ApiError {
    let text = format!("Error expanding 'fields' parameter. {why}.");
    ApiError::invalid_field(shown(field), text)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn eat(&mut self, c: u8) -> bool {
        let found = self.text.as_bytes().get(self.at) == Some(&c);
        self.at += usize::from(found);
        found
    }

    fn list(&mut self, depth: usize) -> Option<BTreeMap<String, Selection>> {
        let mut fields = BTreeMap::new();
        loop {
            let (name, inner) = self.path(depth)?;
            add(&mut fields, name, inner);
            if !self.eat(b',') {
                return Some(fields);
            }
        }
    }

    fn path(&mut self, depth: usize) -> Option<(String, Selection)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| ",/.()".contains(c)).unwrap_or(rest.len());
        let name = rest[..len].trim();
        self.at += len;
        if name.is_empty() {
            return None;
        }
        let inner = if self.eat(b'/') || self.eat(b'.') {
            let (name, inner) = self.path(depth + 1)?;
            Selection::Some([(name, inner)].into())
        } else if self.eat(b'(') {
            let inner = self.list(depth + 1)?;
            if !self.eat(b')') {
                return None;
            }
            Selection::Some(inner)
        } else {
            Selection::All
        };
        // Answers have the names of JSON; keys of maps have no other form either way.
        let name = if name.contains('_') { camel(name) } else { name.to_owned() };
        Some((name, inner))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema;
    use super::*;

    fn cut(text: &str, shape: &'static Shape, value: Value) -> Result<Value, String> {
        let selection = Selection::parse(text, shape).map_err(|error| error.message)?;
        let mut value = value;
        selection.apply(&mut value);
        Ok(value)
    }

    #[test]
    fn what_is_not_selected_is_left_out() {
        let topics = json!({
            "topics": [
                {"name": "a", "labels": {"team": "x", "cost": "y"}, "state": "ACTIVE"},
                {"name": "b", "messageRetentionDuration": "600s"},
            ],
            "nextPageToken": "t",
        });
        for (text, expected) in [
            ("nextPageToken", json!({"nextPageToken": "t"})),
            ("next_page_token", json!({"nextPageToken": "t"})),
            ("topics.name", json!({"topics": [{"name": "a"}, {"name": "b"}]})),
            ("topics/name", json!({"topics": [{"name": "a"}, {"name": "b"}]})),
            ("topics(name,state)", json!({"topics": [{"name": "a", "state": "ACTIVE"}, {"name": "b"}]})),
            ("topics/labels/team", json!({"topics": [{"labels": {"team": "x"}}, {}]})),
            (
                "topics(labels(cost)),nextPageToken",
                json!({"topics": [{"labels": {"cost": "y"}}, {}], "nextPageToken": "t"}),
            ),
            (
                "topics/name,topics/state",
                json!({"topics": [{"name": "a", "state": "ACTIVE"}, {"name": "b"}]}),
            ),
            ("*/name", json!({"topics": [{"name": "a"}, {"name": "b"}], "nextPageToken": "t"})),
            ("*", topics.clone()),
            ("topics, topics/name", json!({"topics": topics["topics"]})),
        ] {
            assert_eq!(cut(text, &schema::TOPICS, topics.clone()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_selection_that_no_answer_fits_is_refused_by_its_path() {
        for (text, words) in [
            ("nonsense", "path 'nonsense'"),
            ("topics/nonsense", "path 'topics.nonsense'"),
            ("topics/name/deeper", "path 'topics.name.deeper'"),
            ("*/nonsense", "path '*'"),
            ("topics(name", "cannot be read"),
            ("topics)", "cannot be read"),
            ("topics//name", "cannot be read"),
            (",", "cannot be read"),
            ("topics,", "cannot be read"),
            ("", "cannot be read"),
        ] {
            let error = cut(text, &schema::TOPICS, json!({})).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        let deep = "topics(".repeat(500);
        assert!(cut(&deep, &schema::TOPICS, json!({})).is_err());
        assert!(cut(&"a".repeat(5_000), &schema::TOPICS, json!({})).is_err());
    }
}
