//! JSONL: one value a line. A line that is no JSON costs itself only.

use std::io;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{BadRow, Cursor, Outcome, Row, trim_line_end};

/// The next line that is not blank.
pub(super) fn next(cursor: &mut Cursor) -> io::Result<Outcome> {
    if !cursor.skip(u8::is_ascii_whitespace)? {
        return Ok(Outcome::End);
    }
    let line = cursor.line;
    let Some(length) = cursor.line_length()? else {
        let reason = format!("the line is longer than {} bytes", cursor.record_bytes);
        return cursor.reject_line("line-too-long", reason).map(Outcome::Bad);
    };
    let text = trim_line_end(&cursor.window.bytes()[..length]);
    let outcome = value(text, line);
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
