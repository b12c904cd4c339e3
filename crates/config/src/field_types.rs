//! The types of fields: their words, the digits of decimals, and what numbers mean as times.

use crate::codes;
use crate::fields::{Cx, cut};
use crate::model::{FieldType, TimeNumber};
use crate::suggest;
use crate::tree::Node;

/// NUMERIC as BigQuery has it: 29 digits before the point and 9 after it.
const NUMERIC: FieldType = FieldType::Decimal { precision: MAX_DIGITS, scale: 9 };
/// The most digits of a decimal that tables hold.
const MAX_DIGITS: u8 = 38;
/// The most digits that a BIGNUMERIC may be declared with; values beyond 38 are dead letters.
const BIG_DIGITS: u8 = 76;

const TYPES: &[(&str, FieldType)] = &[
    ("STRING", FieldType::String),
    ("INT64", FieldType::Int64),
    ("INTEGER", FieldType::Int64),
    ("FLOAT64", FieldType::Float64),
    ("FLOAT", FieldType::Float64),
    ("DECIMAL", NUMERIC),
    ("NUMERIC", NUMERIC),
    ("BOOL", FieldType::Bool),
    ("BOOLEAN", FieldType::Bool),
    ("TIMESTAMP", FieldType::Timestamp),
    ("DATETIME", FieldType::Timestamp),
    ("DATE", FieldType::Date),
    ("JSON", FieldType::Json),
    ("RECORD", FieldType::Json),
    ("BIGNUMERIC", NUMERIC),
    ("BIGDECIMAL", NUMERIC),
];

const UNITS: &[(&[&str], TimeNumber)] = &[
    (&["s", "sec", "second", "seconds"], TimeNumber::Seconds),
    (&["ms", "milli", "millis", "millisecond", "milliseconds"], TimeNumber::Millis),
    (&["us", "µs", "micro", "micros", "microsecond", "microseconds"], TimeNumber::Micros),
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], TimeNumber::Nanos),
    (&["d", "day", "days"], TimeNumber::Days),
];

/// Digits without anything between them, as people and `strftime` write the pattern.
const PATTERNS: &[(&[&str], u8)] = &[
    (&["yyyy", "%y"], 4),
    (&["yyyymm", "%y%m"], 6),
    (&["yyyymmdd", "%y%m%d"], 8),
    (&["yyyymmddhh", "yyyymmddhh24", "%y%m%d%h"], 10),
    (&["yyyymmddhhmm", "yyyymmddhhmi", "yyyymmddhh24mi", "%y%m%d%h%m"], 12),
    (&["yyyymmddhhmmss", "yyyymmddhhmiss", "yyyymmddhh24miss", "%y%m%d%h%m%s"], 14),
];

/// Formats that are read anyway.
const TEXTS: [&str; 6] = ["rfc3339", "rfc 3339", "iso8601", "iso 8601", "date-time", "date"];

/// The keys of a field that say more about its type.
#[derive(Default)]
pub(crate) struct Details<'n> {
    pub precision: Option<&'n Node>,
    pub scale: Option<&'n Node>,
    pub unit: Option<&'n Node>,
    pub format: Option<&'n Node>,
}

/// The type that `node` names, such as `DECIMAL(12,2)`, with the keys beside it.
pub(crate) fn read(
    cx: &mut Cx<'_>,
    node: &Node,
    details: &Details<'_>,
) -> Option<(FieldType, Option<TimeNumber>)> {
    let text = cx.text(node, "type")?;
    let upper = text.to_ascii_uppercase();
    let (word, digits) = match upper.split_once('(') {
        Some((word, rest)) => (word.trim(), Some(rest.trim_end())),
        None => (upper.trim(), None),
    };
    let Some((_, kind)) = TYPES.iter().find(|(known, _)| *known == word) else {
        let hint = suggest::hint(word, TYPES.iter().map(|(w, _)| *w), "types");
        cx.report(codes::FIELD_TYPE, &node.span, format!("`{}` is not a field type", cut(text))).hint(hint);
        return None;
    };
    let kind = match (kind, digits) {
        (FieldType::Decimal { .. }, digits) => decimal(cx, node, word, digits, details)?,
        (_, Some(_)) => {
            cx.report(codes::FIELD_TYPE, &node.span, format!("`{word}` takes nothing in parentheses"))
                .hint(format!("write {word}"));
            return None;
        }
        (kind, None) => {
            for (key, node) in [("precision", details.precision), ("scale", details.scale)] {
                without_effect(cx, key, node, "DECIMAL and NUMERIC");
            }
            *kind
        }
    };
    let numbers = numbers(cx, kind, details)?;
    Some((kind, numbers))
}

fn without_effect(cx: &mut Cx<'_>, key: &str, node: Option<&Node>, types: &str) {
    if let Some(node) = node {
        cx.report(codes::CONNECTOR_FIELD, &node.span, format!("`{key}` has no effect here"))
            .hint(format!("it belongs to {types}"));
    }
}

/// A decimal with the digits of the parentheses, or of the keys `precision` and `scale`.
fn decimal(
    cx: &mut Cx<'_>,
    node: &Node,
    word: &str,
    digits: Option<&str>,
    details: &Details<'_>,
) -> Option<FieldType> {
    let wrong = |cx: &mut Cx<'_>, node: &Node| {
        let message = "a decimal has 1 to 38 digits, and no more of them after the point";
        cx.report(codes::FIELD_TYPE, &node.span, message)
            .hint(format!("write {word}(12,2): twelve digits, two of them after the point"));
    };
    let key = |cx: &mut Cx<'_>, node: Option<&Node>, name: &str| -> Option<Option<u8>> {
        let Some(node) = node else { return Some(None) };
        let read = cx.loose_text(node, name)?.trim().parse().ok();
        if read.is_none() {
            wrong(cx, node);
        }
        read.map(Some)
    };
    let keys = (key(cx, details.precision, "precision")?, key(cx, details.scale, "scale")?);
    let (precision, scale) = match (digits, keys) {
        (None, (None, None)) => return Some(NUMERIC),
        (None, (Some(precision), scale)) => (precision, scale.unwrap_or(0)),
        (Some(_), (Some(_), _) | (_, Some(_))) => {
            cx.report(codes::FIELD_TYPE, &node.span, "the digits are written twice")
                .hint("keep the parentheses or the keys `precision` and `scale`");
            return None;
        }
        (None, (None, Some(_))) => {
            cx.report(codes::FIELD_TYPE, &node.span, "`scale` needs `precision` beside it")
                .hint(format!("write {word}(12,2): twelve digits, two of them after the point"));
            return None;
        }
        (Some(digits), _) => match parenthesised(digits) {
            Some(read) => read,
            None => {
                wrong(cx, node);
                return None;
            }
        },
    };
    let big = word.starts_with("BIG");
    let most = if big { BIG_DIGITS } else { MAX_DIGITS };
    if !(1..=most).contains(&precision) || scale > precision.min(MAX_DIGITS) {
        wrong(cx, node);
        return None;
    }
    Some(FieldType::Decimal { precision: precision.min(MAX_DIGITS), scale })
}

/// `12,2)` or `12)`.
fn parenthesised(digits: &str) -> Option<(u8, u8)> {
    let inner = digits.strip_suffix(')')?;
    match inner.split_once(',') {
        Some((precision, scale)) => Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?)),
        None => Some((inner.trim().parse().ok()?, 0)),
    }
}

/// What numbers mean by `unit` or `format`. The outer `None`: it cannot be.
pub(crate) fn numbers(cx: &mut Cx<'_>, kind: FieldType, details: &Details<'_>) -> Option<Option<TimeNumber>> {
    if !matches!(kind, FieldType::Timestamp | FieldType::Date) {
        without_effect(cx, "unit", details.unit, "TIMESTAMP and DATE");
        without_effect(cx, "format", details.format, "TIMESTAMP and DATE");
        return Some(None);
    }
    let read = match (details.unit, details.format) {
        (None, None) => return Some(None),
        (Some(node), None) => cx.loose_text(node, "unit").map(|text| (node, unit(text).map(Some))),
        (None, Some(node)) => cx.loose_text(node, "format").map(|text| (node, format(text))),
        (Some(node), Some(_)) => {
            cx.report(codes::BAD_VALUE, &node.span, "`unit` and `format` both say what a number means")
                .hint("keep one of the two");
            return None;
        }
    };
    let (node, found) = read?;
    let fits = |form: &Option<TimeNumber>| match form {
        None => true,
        Some(TimeNumber::Digits(n)) => kind == FieldType::Timestamp || *n <= 8,
        Some(TimeNumber::Days) => true,
        Some(_) => kind == FieldType::Timestamp,
    };
    let found = found.filter(fits);
    if found.is_none() {
        let hint = match kind {
            FieldType::Date => {
                "write \"format\": \"YYYYMMDD\", or \"unit\": \"days\" for days since 1970-01-01"
            }
            _ => {
                "write \"unit\": \"s\", \"ms\", \"us\" or \"ns\" for an epoch, or \"format\": \"YYYYMMDD\" (up to \
                 YYYYMMDDHHMMSS) for the digits of a date"
            }
        };
        cx.report(codes::BAD_VALUE, &node.span, "this does not say what a number means here").hint(hint);
    }
    found
}

fn unit(text: &str) -> Option<TimeNumber> {
    let lower = text.trim().to_lowercase();
    UNITS.iter().find(|(words, _)| words.contains(&lower.as_str())).map(|(_, unit)| *unit)
}

/// `epoch_ms`, `unix`, `YYYYMMDD`, `%Y%m%d`. The inner `None`: a format of texts, which are read anyway.
fn format(text: &str) -> Option<Option<TimeNumber>> {
    let lower = text.trim().to_lowercase();
    if TEXTS.contains(&lower.as_str()) {
        return Some(None);
    }
    if let Some((_, digits)) = PATTERNS.iter().find(|(words, _)| words.contains(&lower.as_str())) {
        return Some(Some(TimeNumber::Digits(*digits)));
    }
    let epoch = lower.strip_prefix("epoch").or_else(|| lower.strip_prefix("unix"))?;
    match epoch.trim_start_matches(['_', '-', ' ']) {
        "" => Some(Some(TimeNumber::Seconds)),
        word => unit(word).map(Some),
    }
}
