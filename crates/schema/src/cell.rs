//! One value: from its JSON text to the type that its column wants.
//!
//! Numbers are taken from their text, not through a lossy intermediate, so that 9007199254740993
//! stays itself and a decimal becomes the nearest double.

use std::borrow::Cow;

use levada_config::model::FieldType;

use crate::time;

/// A value of a column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    /// A string, or JSON as its text.
    Text(Cow<'a, str>),
    Int(i64),
    /// Always finite.
    Float(f64),
    Bool(bool),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Micros(i64),
    /// Days since 1970-01-01.
    Days(i32),
}

impl Cell<'_> {
    pub fn is_null(&self) -> bool {
        *self == Cell::Null
    }

    pub fn into_owned(self) -> Cell<'static> {
        match self {
            Cell::Null => Cell::Null,
            Cell::Text(t) => Cell::Text(Cow::Owned(t.into_owned())),
            Cell::Int(v) => Cell::Int(v),
            Cell::Float(v) => Cell::Float(v),
            Cell::Bool(v) => Cell::Bool(v),
            Cell::Micros(v) => Cell::Micros(v),
            Cell::Days(v) => Cell::Days(v),
        }
    }
}

/// How far a value may be from the declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coercion {
    /// Types must match; any JSON number fits a float.
    Strict,
    /// Whatever converts without losing anything.
    Lenient,
    /// Everything came as text (CSV): as lenient, and some texts mean null.
    Textual,
}

/// The type that a field wanted and the value did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch(pub &'static str);

/// Converts the JSON text of one value, as [`crate::extract`] found it.
pub(crate) fn convert(raw: &str, kind: FieldType, how: Coercion) -> Result<Cell<'_>, Mismatch> {
    let wanted = Mismatch(wanted(kind));
    match (raw.as_bytes().first(), kind) {
        (Some(b'n'), _) => Ok(Cell::Null),
        (Some(b'"'), FieldType::Json) if how != Coercion::Textual => Ok(Cell::Text(Cow::Borrowed(raw))),
        (Some(b'"'), _) => convert_text(unquote(raw).ok_or(wanted)?, kind, how).ok_or(wanted),
        (_, FieldType::Json) => Ok(Cell::Text(Cow::Borrowed(raw))),
        (Some(b't' | b'f'), FieldType::Bool) => Ok(Cell::Bool(raw == "true")),
        (Some(b'{' | b'[' | b't' | b'f'), _) => match (kind, how) {
            (FieldType::String, Coercion::Lenient | Coercion::Textual) => Ok(Cell::Text(Cow::Borrowed(raw))),
            _ => Err(wanted),
        },
        _ => convert_number(raw, kind, how).ok_or(wanted),
    }
}

fn wanted(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "a string",
        FieldType::Int64 => "a 64-bit integer",
        FieldType::Float64 => "a finite number",
        FieldType::Bool => "true or false",
        FieldType::Timestamp => "an RFC 3339 timestamp",
        FieldType::Date => "a date as YYYY-MM-DD",
        FieldType::Json => "JSON",
    }
}

/// The text of a JSON string; `None` where its escapes make no Unicode text.
fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.get(1..raw.len().checked_sub(1)?)?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Converts a plain text: of a JSON string, of a CSV field or of an attribute.
pub(crate) fn convert_text(text: Cow<'_, str>, kind: FieldType, how: Coercion) -> Option<Cell<'_>> {
    let loose = how != Coercion::Strict;
    match kind {
        FieldType::String => Some(Cell::Text(text)),
        FieldType::Timestamp => {
            let text = if loose { text.trim() } else { &text };
            let number = || loose.then(|| text.parse().ok().and_then(time::epoch_number)).flatten();
            time::timestamp(text, loose).or_else(number).map(Cell::Micros)
        }
        FieldType::Date => {
            let midnight = || {
                let micros = loose.then(|| time::timestamp(text.trim(), true)).flatten()?;
                (micros.rem_euclid(86_400_000_000) == 0).then_some(())?;
                i32::try_from(micros.div_euclid(86_400_000_000)).ok()
            };
            time::parse_date(&text).or_else(midnight).map(Cell::Days)
        }
        FieldType::Json => {
            serde_json::from_str::<serde::de::IgnoredAny>(&text).ok()?;
            Some(Cell::Text(text))
        }
        FieldType::Int64 if loose => integer(text.trim(), how).map(Cell::Int),
        FieldType::Float64 if loose => finite(text.trim()).map(Cell::Float),
        FieldType::Bool if loose => boolean(text.trim()).map(Cell::Bool),
        _ => None,
    }
}

/// Converts a JSON number from its text.
fn convert_number(raw: &str, kind: FieldType, how: Coercion) -> Option<Cell<'_>> {
    let loose = how != Coercion::Strict;
    match kind {
        FieldType::Int64 => integer(raw, how).map(Cell::Int),
        FieldType::Float64 => finite(raw).map(Cell::Float),
        FieldType::String if loose => Some(Cell::Text(Cow::Borrowed(raw))),
        FieldType::Bool if loose => boolean(raw).map(Cell::Bool),
        FieldType::Timestamp if loose => raw.parse().ok().and_then(time::epoch_number).map(Cell::Micros),
        _ => None,
    }
}

fn integer(text: &str, how: Coercion) -> Option<i64> {
    let exact = text.parse().ok();
    if exact.is_some() || how == Coercion::Strict {
        return exact;
    }
    // `12.0` and `1e3` are whole; beyond 2^53 a double no longer tells neighbours apart.
    finite(text).filter(|v| v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0).map(|v| v as i64)
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|v: &f64| v.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
