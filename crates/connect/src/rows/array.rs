//! One JSON array of objects, streamed: elements are found by their brackets, so that an
//! element that is no JSON inside costs itself only.

use std::io;

use super::cursor::Cursor;
use super::{BadRow, KEPT_BYTES, Outcome, json};

/// The file ends before its array does.
pub(super) const OPEN: &str = "json-array-open";

/// Stands between two elements, or after the last.
#[derive(Debug, Default)]
pub(super) struct ArrayRows {
    /// The closing bracket was seen.
    pub closed: bool,
}

/// Where an element ends, found byte by byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    depth: u32,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the object or array that the scan began with ends at this byte.
    pub fn closes_at(&mut self, byte: u8) -> bool {
        let before = self.depth;
        self.ends_before(byte);
        before == 1 && self.depth == 0
    }

    /// Whether the element ends before this byte.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

fn is_between(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == b','
}

impl ArrayRows {
    pub fn next(&mut self, cursor: &mut Cursor) -> io::Result<Outcome> {
        if self.closed {
            return trailing(cursor);
        }
        if !cursor.skip(is_between)? {
            if !cursor.complete {
                return Ok(Outcome::Held);
            }
            let reason = "the file ends before the array is closed";
            return Ok(Outcome::Bad(BadRow::new(cursor.line, OPEN, reason, b"")));
        }
        if cursor.window.bytes()[0] == b']' {
            cursor.consume(1);
            self.closed = true;
            return trailing(cursor);
        }
        self.element(cursor)
    }

    fn element(&self, cursor: &mut Cursor) -> io::Result<Outcome> {
        let line = cursor.line;
        let mut scan = Scan::default();
        let mut scanned = 0;
        loop {
            let fresh = &cursor.window.bytes()[scanned..];
            if let Some(at) = fresh.iter().position(|byte| scan.ends_before(*byte)) {
                let text = cursor.window.bytes()[..scanned + at].trim_ascii_end();
                let outcome = json::value(text, line);
                cursor.consume(scanned + at);
                return Ok(outcome);
            }
            scanned = cursor.window.bytes().len();
            if scanned > cursor.record_bytes {
                return skip_element(cursor, scan, line).map(Outcome::Bad);
            }
            if !cursor.window.more()? {
                if !cursor.complete {
                    return Ok(Outcome::Held);
                }
                let reason = "the file ends inside this element";
                let bad = BadRow::new(line, OPEN, reason, cursor.window.bytes());
                cursor.open_end(0);
                cursor.consume(scanned);
                return Ok(Outcome::Bad(bad));
            }
        }
    }
}

/// Consumes the rest of an element that is too long to be one; all seen bytes are scanned.
fn skip_element(cursor: &mut Cursor, mut scan: Scan, line: u64) -> io::Result<BadRow> {
    let seen = cursor.window.bytes();
    let reason = format!("the element is longer than {} bytes", cursor.record_bytes);
    let bad = BadRow::new(line, "line-too-long", reason, &seen[..seen.len().min(KEPT_BYTES)]);
    let mut scanned = seen.len();
    loop {
        cursor.consume(scanned);
        if !cursor.window.more()? {
            return Ok(bad);
        }
        let fresh = cursor.window.bytes();
        if let Some(at) = fresh.iter().position(|byte| scan.ends_before(*byte)) {
            cursor.consume(at);
            return Ok(bad);
        }
        scanned = fresh.len();
    }
}

fn trailing(cursor: &mut Cursor) -> io::Result<Outcome> {
    if !cursor.skip(u8::is_ascii_whitespace)? {
        return Ok(Outcome::End);
    }
    // What follows the array is told line by line, so that none of it is lost unseen.
    let bad = cursor.reject_line("json-trailing", "it stands after the end of the array".to_owned())?;
    Ok(Outcome::Bad(bad))
}
