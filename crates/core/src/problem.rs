//! The one shape of an answer that says no: a stable code, a sentence, a mend.
//!
//! Rendered as problem+json (RFC 9457) over HTTP and as a diagnostic on the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an API answers when it refuses. `code` is stable; `docs/errors/<code>.md` explains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable, lower-case, hyphenated.
    pub code: String,
    /// One sentence: what is wrong, with the offending value where that is safe to repeat.
    pub detail: String,
    /// What mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Where in the text of the caller (a query), when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TextPosition>,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPosition {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Problem {
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            detail: detail.into(),
            hint: None,
            retry_after_s: None,
            at: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[must_use]
    pub fn at(mut self, place: Option<TextPosition>) -> Self {
        self.at = self.at.or(place);
        self
    }

    /// Whether the same request may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.code)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
