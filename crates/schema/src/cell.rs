//! One value: from its JSON text to the type that its column wants.
//!
//! Numbers are taken from their text, not through a lossy intermediate, so that 9007199254740993
//! stays itself, a decimal keeps every digit, and only a FLOAT64 becomes the nearest double.

use std::borrow::Cow;

use levada_config::model::{Field, FieldType, TimeNumber};
use levada_core::{Exact, Misfit};

use crate::extract::short;
use crate::time::{self, TimeFault};

/// A value of a column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    /// A string, or JSON as its text.
    Text(Cow<'a, str>),
    Int(i64),
    /// Always finite.
    Float(f64),
    /// Units of ten to the power of minus the column's scale.
    Decimal(i128),
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
            Cell::Decimal(v) => Cell::Decimal(v),
            Cell::Bool(v) => Cell::Bool(v),
            Cell::Micros(v) => Cell::Micros(v),
            Cell::Days(v) => Cell::Days(v),
        }
    }
}

/// How far a value may be from the declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coercion {
    /// Types must match; any JSON number fits a float, and a decimal may be quoted, since many
    /// programs write an exact number only so.
    Strict,
    /// Whatever converts without losing anything.
    Lenient,
    /// Everything came as text (CSV): as lenient, and some texts mean null.
    Textual,
}

/// Why a value does not become a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Stable code, such as `schema-type`.
    pub code: &'static str,
    /// One sentence for a person.
    pub reason: String,
}

/// What is wrong with a value; a sentence is made of it only where somebody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has another type than the field.
    Type,
    /// It does not fit the digits of a decimal.
    Decimal(Misfit),
    /// It is a number, and the schema does not say what numbers mean as a time.
    Unit,
    Time(TimeFault),
}

impl Fault {
    /// The sentence about a value of this text.
    pub fn of(self, field: &Field, text: &str) -> Unfit {
        let (name, value) = (&field.name, short(text));
        let unfit = |code, reason| Unfit { code, reason };
        let digits = match field.kind {
            FieldType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            _ => String::new(),
        };
        match self {
            Self::Type => {
                unfit("schema-type", format!("`{name}` should be {}, not {value}", wanted(field.kind)))
            }
            Self::Time(TimeFault::Shape) => {
                let why = TimeFault::Shape.says();
                let why = if field.kind == FieldType::Timestamp { format!("; {why}") } else { String::new() };
                unfit("schema-type", format!("`{name}` should be {}, not {value}{why}", wanted(field.kind)))
            }
            Self::Time(fault) => {
                let reason =
                    format!("`{name}` should be {}, not {value}: {}", wanted(field.kind), fault.says());
                unfit("schema-type", reason)
            }
            Self::Unit => {
                let mend = match field.kind {
                    FieldType::Date => "give the field \"format\": \"YYYYMMDD\" or \"unit\": \"days\"",
                    _ => {
                        "give the field \"unit\": \"s\", \"ms\", \"us\" or \"ns\" for an epoch, or \"format\": \
                         \"YYYYMMDD\" for the digits of a date"
                    }
                };
                let reason = format!(
                    "`{name}` is the number {value}, and the schema does not say what a number means there; {mend}"
                );
                unfit("schema-timestamp-unit", reason)
            }
            Self::Decimal(Misfit::Range) => {
                let reason =
                    format!("`{name}` is {value}, with more digits before the point than {digits} holds");
                unfit("schema-decimal-range", reason)
            }
            Self::Decimal(Misfit::Scale) => {
                let reason = format!(
                    "`{name}` is {value}, with more digits after the point than {digits} holds; nothing is rounded"
                );
                unfit("schema-decimal-scale", reason)
            }
        }
    }
}

fn wanted(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "a string",
        FieldType::Int64 => "a 64-bit integer",
        FieldType::Float64 => "a finite number",
        FieldType::Decimal { .. } => "a decimal number",
        FieldType::Bool => "true or false",
        FieldType::Timestamp => "a timestamp",
        FieldType::Date => "a date as YYYY-MM-DD",
        FieldType::Json => "JSON",
    }
}

/// Converts the JSON text of one value, as [`crate::extract`] found it.
pub(crate) fn convert<'a>(raw: &'a str, field: &Field, how: Coercion) -> Result<Cell<'a>, Fault> {
    let kind = field.kind;
    match (raw.as_bytes().first(), kind) {
        (Some(b'n'), _) => Ok(Cell::Null),
        (Some(b'"'), FieldType::Json) if how != Coercion::Textual => Ok(Cell::Text(Cow::Borrowed(raw))),
        (Some(b'"'), _) => convert_text(unquote(raw).ok_or(Fault::Type)?, field, how),
        (_, FieldType::Json) => Ok(Cell::Text(Cow::Borrowed(raw))),
        (Some(b't' | b'f'), FieldType::Bool) => Ok(Cell::Bool(raw == "true")),
        (Some(b'{' | b'[' | b't' | b'f'), _) => match (kind, how) {
            (FieldType::String, Coercion::Lenient | Coercion::Textual) => Ok(Cell::Text(Cow::Borrowed(raw))),
            _ => Err(Fault::Type),
        },
        _ => convert_number(raw, field, how),
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
pub(crate) fn convert_text<'a>(text: Cow<'a, str>, field: &Field, how: Coercion) -> Result<Cell<'a>, Fault> {
    let loose = how != Coercion::Strict;
    let bare = if loose { text.trim() } else { &text };
    match field.kind {
        FieldType::String => Ok(Cell::Text(text)),
        FieldType::Decimal { precision, scale } => decimal(bare, precision, scale),
        FieldType::Timestamp => match time::timestamp(bare, loose) {
            Err(TimeFault::Shape) if is_number(bare) => match field.numbers {
                Some(form @ TimeNumber::Digits(_)) => micros(bare, form),
                Some(form) if loose => micros(bare, form),
                Some(_) => Err(Fault::Type),
                None => Err(Fault::Unit),
            },
            read => read.map(Cell::Micros).map_err(Fault::Time),
        },
        FieldType::Date => match time::day(bare, loose) {
            Err(TimeFault::Shape) if is_number(bare) => match field.numbers {
                Some(form @ TimeNumber::Digits(_)) => days(bare, form),
                Some(form) if loose => days(bare, form),
                Some(_) => Err(Fault::Type),
                None => Err(Fault::Unit),
            },
            read => read.map(Cell::Days).map_err(Fault::Time),
        },
        FieldType::Json => match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Ok(Cell::Text(text)),
            Err(_) => Err(Fault::Type),
        },
        FieldType::Int64 if loose => integer(bare, how).map(Cell::Int).ok_or(Fault::Type),
        FieldType::Float64 if loose => finite(bare).map(Cell::Float).ok_or(Fault::Type),
        FieldType::Bool if loose => boolean(bare).map(Cell::Bool).ok_or(Fault::Type),
        _ => Err(Fault::Type),
    }
}

/// Converts a JSON number from its text.
fn convert_number<'a>(raw: &'a str, field: &Field, how: Coercion) -> Result<Cell<'a>, Fault> {
    let loose = how != Coercion::Strict;
    match field.kind {
        FieldType::Int64 => integer(raw, how).map(Cell::Int).ok_or(Fault::Type),
        FieldType::Float64 => finite(raw).map(Cell::Float).ok_or(Fault::Type),
        FieldType::Decimal { precision, scale } => decimal(raw, precision, scale),
        FieldType::String if loose => Ok(Cell::Text(Cow::Borrowed(raw))),
        FieldType::Bool if loose => number_boolean(raw).map(Cell::Bool).ok_or(Fault::Type),
        FieldType::Timestamp => field.numbers.ok_or(Fault::Unit).and_then(|form| micros(raw, form)),
        FieldType::Date => field.numbers.ok_or(Fault::Unit).and_then(|form| days(raw, form)),
        _ => Err(Fault::Type),
    }
}

fn is_number(text: &str) -> bool {
    Exact::parse(text).is_some()
}

fn micros(text: &str, form: TimeNumber) -> Result<Cell<'static>, Fault> {
    time::number(text, form).map(Cell::Micros).map_err(Fault::Time)
}

fn days(text: &str, form: TimeNumber) -> Result<Cell<'static>, Fault> {
    const DAY_MICROS: i64 = 86_400_000_000;
    let at = time::number(text, form).map_err(Fault::Time)?;
    i32::try_from(at.div_euclid(DAY_MICROS)).map(Cell::Days).map_err(|_| Fault::Time(TimeFault::Range))
}

fn decimal(text: &str, precision: u8, scale: u8) -> Result<Cell<'static>, Fault> {
    let number = Exact::parse(text).ok_or(Fault::Type)?;
    number.unscaled(precision, scale).map(Cell::Decimal).map_err(Fault::Decimal)
}

fn integer(text: &str, how: Coercion) -> Option<i64> {
    let exact = text.parse().ok();
    if exact.is_some() || how == Coercion::Strict {
        return exact;
    }
    // `12.0` and `1e3` are whole.
    Exact::parse(text).and_then(|number| number.integer())
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|v: &f64| v.is_finite())
}

fn number_boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

/// The words that PostgreSQL reads and writes.
fn boolean(text: &str) -> Option<bool> {
    const WORDS: [(&str, bool); 10] = [
        ("true", true),
        ("false", false),
        ("t", true),
        ("f", false),
        ("yes", true),
        ("no", false),
        ("y", true),
        ("n", false),
        ("on", true),
        ("off", false),
    ];
    let word = || WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, value)| *value);
    number_boolean(text).or_else(word)
}
