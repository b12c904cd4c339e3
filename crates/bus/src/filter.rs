//! The filter of a subscription: which messages it wants, by their attributes.
//!
//! The language is the one that Google documents for Pub/Sub:
//!
//! ```text
//! filter     = [ expression ]
//! expression = term { "AND" term } | term { "OR" term }     both in one: with parentheses
//! term       = { "NOT" | "-" } ( condition | "(" expression ")" )
//! condition  = "attributes" ":" key
//!            | "attributes" "." key ( "=" | "!=" ) string
//!            | "hasPrefix" "(" "attributes" "." key "," string ")"
//! key        = letters, digits, "-" and "_", or a string
//! string     = '"' characters and escapes '"'
//! ```
//!
//! Operators are in capitals, white space between tokens is free, and a text has at most
//! 256 bytes. A message without the attribute is unequal to every value and has no prefix.

mod parse;
#[cfg(test)]
mod tests;

use levada_core::Attributes;

/// Longest text of a filter, in bytes.
pub const MAX_FILTER_BYTES: usize = 256;

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the filter is wrong at character {column}: {problem}; {mend}")]
pub struct FilterError {
    /// Character of the text, counted from 1.
    pub column: usize,
    pub problem: String,
    pub mend: String,
}

/// A filter, parsed once and then asked per message. Without conditions it wants everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    text: Box<str>,
    root: Option<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Has(Box<str>),
    Equals(Box<str>, Box<str>),
    Prefix(Box<str>, Box<str>),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Filter {
    /// Parses a filter; an empty text wants everything.
    ///
    /// # Errors
    /// A [`FilterError`] with the place of the first mistake and what mends it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { root: parse::parse(text)?, text: text.into() })
    }

    /// Whether a message with these attributes is wanted.
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.root.as_ref().is_none_or(|root| root.matches(attributes))
    }

    /// Whether every message is wanted, so that attributes need not be read.
    pub fn is_everything(&self) -> bool {
        self.root.is_none()
    }

    /// The text as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Node {
    fn matches(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Has(key) => attributes.get(key).is_some(),
            Self::Equals(key, value) => attributes.get(key) == Some(value),
            Self::Prefix(key, prefix) => attributes.get(key).is_some_and(|v| v.starts_with(&**prefix)),
            Self::Not(node) => !node.matches(attributes),
            Self::All(nodes) => nodes.iter().all(|n| n.matches(attributes)),
            Self::Any(nodes) => nodes.iter().any(|n| n.matches(attributes)),
        }
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}
