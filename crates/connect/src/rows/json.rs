//! JSON values one after another: one a line (JSONL), or one over many lines (pretty-printed).
//!
//! A line that is one value is the common case and is read as such. A line that ends inside an
//! object or array begins a value of many lines. Where that breaks, the lines that belong to it
//! by their look go with it, so that no inner object is taken for a row; a line of JSONL that is
//! no JSON costs itself only.

use std::fmt;
use std::io;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::array::Scan;
use super::cursor::Cursor;
use super::{BadRow, KEPT_BYTES, Outcome, Row, trim_line_end};

/// What a text begins with.
enum First {
    /// A value of so many bytes.
    Value(usize),
    /// A value that goes on behind the text.
    Unfinished,
    Broken(serde_json::Error),
}

fn first<'de, T: Deserialize<'de>>(text: &'de [u8]) -> First {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<T>();
    match values.next() {
        Some(Ok(_)) => First::Value(values.byte_offset()),
        Some(Err(error)) if error.is_eof() => First::Unfinished,
        Some(Err(error)) => First::Broken(error),
        None => First::Unfinished,
    }
}

/// The next value.
pub(super) fn next(cursor: &mut Cursor) -> io::Result<Outcome> {
    if !cursor.skip(u8::is_ascii_whitespace)? {
        return Ok(Outcome::End);
    }
    let line = cursor.line;
    let Some(length) = cursor.line_length()? else {
        let reason = format!("the line is longer than {} bytes", cursor.record_bytes);
        return cursor.reject_line("line-too-long", reason).map(Outcome::Bad);
    };
    let whole = &cursor.window.bytes()[..length];
    let has_end = whole.last() == Some(&b'\n');
    let text = trim_line_end(whole);
    let opens = matches!(text.first(), Some(b'{' | b'['));
    let (outcome, row_bytes) = match first::<IgnoredAny>(text) {
        First::Unfinished if opens && std::str::from_utf8(text).is_ok() => return spanning(cursor, length),
        // Brackets are their own end; a number may go on.
        First::Value(n) if text[n..].trim_ascii_start().is_empty() && (has_end || opens) => {
            (value(text, line), text.len())
        }
        First::Value(n) if opens && text[n..].trim_ascii_start().starts_with(b"{") => {
            let outcome = value(&text[..n], line);
            cursor.consume(n);
            return Ok(outcome);
        }
        _ if !has_end && !cursor.complete => return Ok(Outcome::Held),
        _ => (value(text, line), text.len()),
    };
    let closed = has_end || (opens && matches!(outcome, Outcome::Row(_)));
    if !closed {
        let is_row = matches!(outcome, Outcome::Row(_));
        cursor.open_end(if is_row { row_bytes } else { 0 });
    }
    cursor.consume(length);
    Ok(outcome)
}

/// A row from the text of one JSON value.
pub(super) fn value(text: &[u8], line: u64) -> Outcome {
    let Ok(utf8) = std::str::from_utf8(text) else {
        return Outcome::Bad(BadRow::new(line, "invalid-utf8", "the record is not UTF-8", text));
    };
    match serde_json::from_str::<IgnoredAny>(utf8) {
        Ok(_) => Outcome::Row(Row { line, body: Bytes::copy_from_slice(text), original: None }),
        Err(error) => {
            Outcome::Bad(BadRow::new(line, "json-syntax", format!("the record is not JSON: {error}"), text))
        }
    }
}

/// The value that begins at the cursor and goes on behind its first line.
fn spanning(cursor: &mut Cursor, first_line: usize) -> io::Result<Outcome> {
    let line = cursor.line;
    loop {
        match first::<Nested>(cursor.window.bytes()) {
            First::Value(n) => {
                let outcome = value(&cursor.window.bytes()[..n], line);
                cursor.consume(n);
                return Ok(outcome);
            }
            First::Broken(error) => {
                let reason = format!("the record is not JSON: {error}");
                return broken(cursor, first_line, reason).map(Outcome::Bad);
            }
            First::Unfinished => {}
        }
        if cursor.window.bytes().len() > cursor.record_bytes {
            return skip_value(cursor).map(Outcome::Bad);
        }
        if !cursor.window.more()? {
            break;
        }
    }
    if !cursor.complete {
        return Ok(Outcome::Held);
    }
    let bytes = cursor.window.bytes();
    let n = bytes.len();
    let bad = BadRow::new(line, "json-syntax", "the file ends inside this value", trim_line_end(bytes));
    cursor.open_end(0);
    cursor.consume(n);
    Ok(Outcome::Bad(bad))
}

/// Rejects the first line with the lines that go on with it: those that are indented, begin with
/// a key or close a bracket.
fn broken(cursor: &mut Cursor, first_line: usize, reason: String) -> io::Result<BadRow> {
    let line = cursor.line;
    let mut length = first_line;
    loop {
        let rest = cursor.see(length + 1)?.get(length..).unwrap_or_default();
        let goes_on = matches!(rest.first(), Some(b' ' | b'\t' | b'"' | b'}' | b']'));
        let closes = matches!(rest.first(), Some(b'}'));
        if !goes_on || length > cursor.record_bytes {
            break;
        }
        let Some(end) = line_end(cursor, length)? else { break };
        length = end;
        if closes {
            break;
        }
    }
    let bytes = &cursor.window.bytes()[..length];
    let bad = BadRow::new(line, "json-syntax", reason, trim_line_end(bytes));
    if bytes.last() != Some(&b'\n') {
        cursor.open_end(0);
    }
    cursor.consume(length);
    Ok(bad)
}

/// Where the line that begins at `from` ends; `None` when it is longer than a record may be.
fn line_end(cursor: &mut Cursor, from: usize) -> io::Result<Option<usize>> {
    let mut searched = from;
    loop {
        if let Some(at) = memchr::memchr(b'\n', &cursor.window.bytes()[searched..]) {
            return Ok(Some(searched + at + 1));
        }
        searched = cursor.window.bytes().len();
        if searched > from + cursor.record_bytes {
            return Ok(None);
        }
        if !cursor.window.more()? {
            return Ok(Some(searched));
        }
    }
}

/// Consumes a value that is longer than a record may be.
fn skip_value(cursor: &mut Cursor) -> io::Result<BadRow> {
    let reason = format!("the value is longer than {} bytes", cursor.record_bytes);
    let seen = cursor.window.bytes();
    let bad = BadRow::new(cursor.line, "line-too-long", reason, &seen[..seen.len().min(KEPT_BYTES)]);
    let mut scan = Scan::default();
    loop {
        let bytes = cursor.window.bytes();
        let end = bytes.iter().position(|byte| scan.closes_at(*byte));
        let n = end.map_or(bytes.len(), |at| at + 1);
        cursor.consume(n);
        if end.is_some() || !cursor.window.more()? {
            return Ok(bad);
        }
    }
}

/// Any JSON value, read to its end within serde's bound on depth.
struct Nested;

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nested)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}
