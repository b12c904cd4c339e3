//! CSV with a header: RFC 4180 by `csv-core`, which reports exactly what it consumed.
//!
//! A quote that is never closed would swallow the rest of the file. So a record that spans
//! lines and does not have the header's number of fields, or whose quotes are not in order,
//! costs its first line only, and reading goes on at the next line.

use std::io;

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader};

use super::{BadRow, Cursor, Outcome, Row, trim_line_end};

const MAX_COLUMNS: usize = 4096;

pub(super) struct CsvRows {
    /// For each column what precedes its value: `{"a":` for the first, then `,"b":`.
    keys: Vec<String>,
    reader: Reader,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

/// One record as found: how much it consumed and how many fields it has.
struct Raw {
    length: usize,
    fields: usize,
    quotes: Quotes,
}

enum Found {
    Record(Raw),
    TooLong,
    End,
}

impl CsvRows {
    /// Reads the header. `Err(None)` is an empty file, `Err(Some)` a header that cannot be used.
    pub fn begin(cursor: &mut Cursor) -> io::Result<Result<Self, Option<BadRow>>> {
        let mut rows =
            Self { keys: Vec::new(), reader: Reader::new(), fields: vec![0; 4096], ends: vec![0; 64] };
        if !cursor.skip(is_line_end)? {
            return Ok(Err(None));
        }
        let line = cursor.line;
        let refuse = |reason: String, bytes: &[u8]| {
            Ok(Err(Some(BadRow::new(line, "csv-header", reason, trim_line_end(bytes)))))
        };
        match rows.record(cursor)? {
            Found::End => Ok(Err(None)),
            Found::TooLong => refuse(
                format!("the header is longer than {} bytes", cursor.record_bytes),
                cursor.window.bytes(),
            ),
            Found::Record(raw) => {
                let bytes = &cursor.window.bytes()[..raw.length];
                if raw.quotes == Quotes::Open {
                    return refuse("a quoted name in the header is never closed".to_owned(), bytes);
                }
                if std::str::from_utf8(bytes).is_err() {
                    return refuse("the header is not UTF-8".to_owned(), bytes);
                }
                if raw.fields > MAX_COLUMNS {
                    return refuse(format!("the header has more than {MAX_COLUMNS} columns"), bytes);
                }
                rows.keys = keys(&rows.names(raw.fields));
                cursor.consume(raw.length);
                Ok(Ok(rows))
            }
        }
    }

    pub fn next(&mut self, cursor: &mut Cursor) -> io::Result<Outcome> {
        if !cursor.skip(is_line_end)? {
            return Ok(Outcome::End);
        }
        let line = cursor.line;
        let raw = match self.record(cursor)? {
            Found::End => return Ok(Outcome::End),
            Found::TooLong => {
                let reason = format!("the row is longer than {} bytes", cursor.record_bytes);
                return cursor.reject_line("line-too-long", reason).map(Outcome::Bad);
            }
            Found::Record(raw) => raw,
        };
        let bytes = trim_line_end(&cursor.window.bytes()[..raw.length]);
        let spans_lines = memchr::memchr(b'\n', bytes).is_some();
        let wanted = self.keys.len();
        let suspect = raw.fields != wanted || raw.quotes == Quotes::Stray;
        if raw.quotes == Quotes::Open || (spans_lines && suspect) {
            let reason = "a quoted field that begins in this row is not closed where it should be";
            return cursor.reject_line("csv-open-quote", reason.to_owned()).map(Outcome::Bad);
        }
        let outcome = if raw.fields != wanted {
            let reason = format!("the row has {} fields, the header has {wanted}", raw.fields);
            Outcome::Bad(BadRow::new(line, "csv-ragged-row", reason, bytes))
        } else if std::str::from_utf8(bytes).is_err() {
            Outcome::Bad(BadRow::new(line, "invalid-utf8", "the row is not UTF-8", bytes))
        } else {
            let original = Some(Bytes::copy_from_slice(bytes));
            Outcome::Row(Row { line, body: self.object(raw.fields), original })
        };
        cursor.consume(raw.length);
        Ok(outcome)
    }

    /// Finds the record that begins at the cursor, without consuming it.
    fn record(&mut self, cursor: &mut Cursor) -> io::Result<Found> {
        self.reader.reset();
        let (mut length, mut text, mut fields) = (0, 0, 0);
        let mut at_end = false;
        loop {
            if length == cursor.window.bytes().len() && !at_end {
                if length > cursor.record_bytes {
                    return Ok(Found::TooLong);
                }
                at_end = !cursor.window.more()?;
            }
            let input = &cursor.window.bytes()[length..];
            let (result, read, written, ended) =
                self.reader.read_record(input, &mut self.fields[text..], &mut self.ends[fields..]);
            length += read;
            text += written;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if fields > MAX_COLUMNS => return Ok(Found::TooLong),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record if length > cursor.record_bytes + 2 => return Ok(Found::TooLong),
                ReadRecordResult::Record => {
                    let quotes = quotes(&cursor.window.bytes()[..length]);
                    return Ok(Found::Record(Raw { length, fields, quotes }));
                }
                ReadRecordResult::End => return Ok(Found::End),
            }
        }
    }

    fn names(&self, fields: usize) -> Vec<String> {
        (0..fields).map(|i| String::from_utf8_lossy(self.field(i)).trim().to_owned()).collect()
    }

    fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.fields[start..self.ends[i]]
    }

    /// The record as a JSON object of strings.
    fn object(&self, fields: usize) -> Bytes {
        let mut json = String::with_capacity(self.ends[fields - 1] + fields * 16);
        for (i, key) in self.keys.iter().enumerate() {
            json.push_str(key);
            push_text(&mut json, &String::from_utf8_lossy(self.field(i)));
        }
        json.push('}');
        json.into()
    }
}

/// Names made usable as keys: an empty one is called by its place, a repeated one numbered.
fn keys(names: &[String]) -> Vec<String> {
    let mut used = std::collections::HashSet::new();
    let mut keys = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let base = if name.is_empty() { format!("column_{}", i + 1) } else { name.clone() };
        let mut unique = base.clone();
        let mut n = 2;
        while !used.insert(unique.clone()) {
            unique = format!("{base}_{n}");
            n += 1;
        }
        let mut key = String::from(if i == 0 { "{" } else { "," });
        push_text(&mut key, &unique);
        key.push(':');
        keys.push(key);
    }
    keys
}

/// Appends a JSON string.
fn push_text(json: &mut String, text: &str) {
    json.push('"');
    let plain = |b: &u8| *b >= 0x20 && *b != b'"' && *b != b'\\';
    if text.as_bytes().iter().all(plain) {
        json.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => json.push(c),
            }
        }
    }
    json.push('"');
}

/// How a record's quotes stand, by RFC 4180.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Sound,
    /// A closing quote is followed by something other than a comma or a line end.
    Stray,
    /// The text ends inside a quoted field.
    Open,
}

fn quotes(record: &[u8]) -> Quotes {
    let (mut quoted, mut closed, mut at_start) = (false, false, true);
    let mut stray = false;
    for byte in record {
        let ends_field = matches!(*byte, b',' | b'\n' | b'\r');
        match *byte {
            b'"' if quoted => (quoted, closed) = (false, true),
            _ if quoted => {}
            // A doubled quote closes and opens again.
            b'"' if at_start || closed => (quoted, closed) = (true, false),
            _ => {
                stray |= closed && !ends_field;
                closed = false;
            }
        }
        at_start = !quoted && ends_field;
    }
    match (quoted, stray) {
        (true, _) => Quotes::Open,
        (false, true) => Quotes::Stray,
        (false, false) => Quotes::Sound,
    }
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}
