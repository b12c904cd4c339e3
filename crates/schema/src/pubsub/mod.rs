//! Schemas of Pub/Sub's SchemaService: definitions in Avro and Protocol Buffers, and
//! messages checked by them, in JSON and in binary.
//!
//! A [`Definition`] is a definition that was understood, ready to check messages: checking
//! neither compiles nor builds rows. What Google's documentation leaves open follows what its
//! service was seen to do: a binary message with a field that the schema lacks is refused,
//! a JSON record of Avro may have more fields than the schema but never fewer, and a revision
//! must be compatible with every other one that is kept.

mod avro;
mod proto;
mod registry;

use thiserror::Error;

pub use registry::{Checker, Page, RegistryError, Revision, SchemaRegistry};

/// The longest definition, as documented.
pub const MAX_DEFINITION_BYTES: usize = 300 << 10;

/// How deep the values of a message may lie within each other.
const MAX_DEPTH: usize = 100;

/// The language of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    Avro,
    ProtocolBuffer,
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Binary,
}

/// What is wrong with a definition, a message or a pair of definitions: one sentence that
/// names the place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Flaw(String);

impl Flaw {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A definition ready to check messages. Cheap to share, by `Arc`.
#[derive(Debug)]
pub struct Definition {
    compiled: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Avro(avro::Schema),
    Proto(proto::Schema),
}

impl Definition {
    /// Understands a definition.
    ///
    /// # Errors
    /// What is wrong in it, with the place where that is known.
    pub fn parse(language: Language, text: &str) -> Result<Self, Flaw> {
        if text.len() > MAX_DEFINITION_BYTES {
            return Err(Flaw::new(format!(
                "the definition has {} bytes, more than {MAX_DEFINITION_BYTES}: split the schema",
                text.len()
            )));
        }
        let compiled = match language {
            Language::Avro => Compiled::Avro(avro::Schema::parse(text)?),
            Language::ProtocolBuffer => Compiled::Proto(proto::Schema::parse(text)?),
        };
        Ok(Self { compiled })
    }

    /// Checks the bytes of one message, all of them.
    ///
    /// # Errors
    /// The first thing that does not fit, with its place in the message.
    pub fn check(&self, encoding: Encoding, message: &[u8]) -> Result<(), Flaw> {
        match (&self.compiled, encoding) {
            (Compiled::Avro(schema), Encoding::Json) => schema.check_json(message),
            (Compiled::Avro(schema), Encoding::Binary) => schema.check_binary(message),
            (Compiled::Proto(schema), Encoding::Json) => schema.check_json(message),
            (Compiled::Proto(schema), Encoding::Binary) => schema.check_binary(message),
        }
    }

    /// Whether messages of either definition can be read by the other, so that both may be
    /// revisions of one schema. `self` is the newer one.
    ///
    /// # Errors
    /// The first place where they part.
    pub fn compatible_with(&self, earlier: &Self) -> Result<(), Flaw> {
        match (&self.compiled, &earlier.compiled) {
            (Compiled::Avro(newer), Compiled::Avro(earlier)) => newer.compatible_with(earlier),
            (Compiled::Proto(newer), Compiled::Proto(earlier)) => newer.compatible_with(earlier),
            _ => Err(Flaw::new("a schema keeps its type: Avro and Protocol Buffers cannot be mixed")),
        }
    }
}

/// A flaw and the way to it, gathered from the inside out so that messages without one cost
/// nothing.
#[derive(Debug)]
struct Fault {
    reason: String,
    /// Innermost first.
    path: Vec<String>,
}

impl Fault {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), path: Vec::new() }
    }

    fn at_field(mut self, name: &str) -> Self {
        self.path.push(format!(".{name}"));
        self
    }

    fn at_index(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }

    fn at_key(mut self, key: &str) -> Self {
        self.path.push(format!("[{:?}]", shown(key)));
        self
    }
}

impl From<Fault> for Flaw {
    fn from(fault: Fault) -> Self {
        if fault.path.is_empty() {
            return Self(fault.reason);
        }
        let path: String = fault.path.iter().rev().map(String::as_str).collect();
        Self(format!("${path}: {}", fault.reason))
    }
}

/// At most 64 characters of a text that somebody else chose.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(64).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
