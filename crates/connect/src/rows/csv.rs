//! CSV with a header: RFC 4180 by `csv-core`, which reports exactly what it consumed.
//!
//! A quote that is never closed would swallow the rest of the file. So a record that spans
//! lines and does not have the header's number of fields, or whose quotes are not in order,
//! costs its first line only, and reading goes on at the next line.

use std::io;

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::cursor::Cursor;
use super::{BadRow, KEPT_OF_FILE_BYTES, Layout, Outcome, Row, header, trim_line_end};

const MAX_COLUMNS: usize = 4096;

pub(super) struct CsvRows {
    /// For each column what precedes its value: `{"a":` for the first, then `,"b":`.
    keys: Vec<String>,
    records: Records,
}

/// Finds records; keeps the cells of the last one.
struct Records {
    reader: Reader,
    delimiter: u8,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

/// One record as found: how much it consumed and how many fields it has.
struct Raw {
    length: usize,
    fields: usize,
    quotes: Quotes,
    /// The end of the file ended it.
    open: bool,
}

enum Found {
    Record(Raw),
    TooLong,
    End,
}

/// What a file begins with.
pub(super) enum Head {
    Rows(Box<CsvRows>),
    /// There is nothing but blank lines, or a header without a line end.
    Empty,
    /// The header may still be written.
    Held,
    /// The header cannot be used.
    Refused(BadRow),
}

impl CsvRows {
    /// Reads the header.
    pub fn begin(cursor: &mut Cursor, layout: &Layout) -> io::Result<Head> {
        if !cursor.skip(is_line_end)? {
            return Ok(Head::Empty);
        }
        let mut records = Records::new(layout);
        let refused = match records.find(cursor)? {
            Found::End => return Ok(Head::Empty),
            Found::Record(raw) if raw.open && !cursor.complete => return Ok(Head::Held),
            Found::TooLong => format!("the header is longer than {} bytes", cursor.record_bytes),
            Found::Record(raw) => match judge(&records, &raw, &cursor.window.bytes()[..raw.length], layout) {
                Ok(names) => {
                    cursor.consume(raw.length);
                    if raw.open {
                        // No row follows, and more names may.
                        return Ok(Head::Empty);
                    }
                    return Ok(Head::Rows(Box::new(Self { keys: keys(&names), records })));
                }
                Err(reason) => reason,
            },
        };
        let line = cursor.line;
        let text = cursor.see(KEPT_OF_FILE_BYTES)?;
        let text = &text[..text.len().min(KEPT_OF_FILE_BYTES)];
        Ok(Head::Refused(BadRow::new(line, "csv-header", refused, text)))
    }

    /// The rows of a part whose file begins with this header.
    pub fn of_header(header: &str, layout: &Layout) -> Self {
        let mut records = Records::new(layout);
        let fields = records.split(header.as_bytes());
        let names = records.names(fields);
        Self { keys: keys(&names), records }
    }

    pub fn next(&mut self, cursor: &mut Cursor) -> io::Result<Outcome> {
        if !cursor.skip(is_line_end)? {
            return Ok(Outcome::End);
        }
        let line = cursor.line;
        let raw = match self.records.find(cursor)? {
            Found::End => return Ok(Outcome::End),
            Found::TooLong => {
                let reason = format!("the row is longer than {} bytes", cursor.record_bytes);
                return cursor.reject_line("line-too-long", reason).map(Outcome::Bad);
            }
            Found::Record(raw) if raw.open && !cursor.complete => return Ok(Outcome::Held),
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
        let (outcome, row_bytes) = if raw.fields != wanted {
            let reason = format!("the row has {} fields, the header has {wanted}", raw.fields);
            (Outcome::Bad(BadRow::new(line, "csv-ragged-row", reason, bytes)), 0)
        } else if std::str::from_utf8(bytes).is_err() {
            (Outcome::Bad(BadRow::new(line, "invalid-utf8", "the row is not UTF-8", bytes)), 0)
        } else if memchr::memchr(0, bytes).is_some() {
            (Outcome::Bad(BadRow::new(line, "csv-nul", "the row holds a NUL byte", bytes)), 0)
        } else {
            let original = Some(Bytes::copy_from_slice(bytes));
            let body = self.object(raw.fields);
            (Outcome::Row(Row { line, body, original }), bytes.len())
        };
        if raw.open {
            cursor.open_end(row_bytes);
        }
        cursor.consume(raw.length);
        Ok(outcome)
    }

    /// The record as a JSON object of strings.
    fn object(&self, fields: usize) -> Bytes {
        let mut json = String::with_capacity(self.records.ends[fields - 1] + fields * 16);
        for (i, key) in self.keys.iter().enumerate() {
            json.push_str(key);
            push_text(&mut json, &String::from_utf8_lossy(self.records.field(i)));
        }
        json.push('}');
        json.into()
    }
}

/// The names of a header that can be used.
fn judge(records: &Records, raw: &Raw, bytes: &[u8], layout: &Layout) -> Result<Vec<String>, String> {
    if raw.quotes == Quotes::Open {
        return Err("a quoted name in the header is never closed".to_owned());
    }
    let line = std::str::from_utf8(bytes).map_err(|_| "the header is not UTF-8".to_owned())?;
    if raw.fields > MAX_COLUMNS {
        return Err(format!("the header has more than {MAX_COLUMNS} columns"));
    }
    let names = records.names(raw.fields);
    header::judge(&names, line, layout.delimiter, &layout.columns)?;
    Ok(names)
}

/// The header line that begins at the cursor or after blank lines; `None` where there is none.
pub(super) fn header_line(cursor: &mut Cursor, layout: &Layout) -> io::Result<Option<String>> {
    if !cursor.skip(is_line_end)? {
        return Ok(None);
    }
    match Records::new(layout).find(cursor)? {
        Found::Record(raw) => {
            let bytes = trim_line_end(&cursor.window.bytes()[..raw.length]);
            Ok(std::str::from_utf8(bytes).ok().map(str::to_owned))
        }
        Found::TooLong | Found::End => Ok(None),
    }
}

impl Records {
    fn new(layout: &Layout) -> Self {
        let delimiter = layout.delimiter.byte();
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        Self { reader, delimiter, fields: vec![0; 4096], ends: vec![0; 64] }
    }

    /// Finds the record that begins at the cursor, without consuming it.
    fn find(&mut self, cursor: &mut Cursor) -> io::Result<Found> {
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
                    let last = cursor.window.bytes()[..length].last().copied();
                    if last == Some(b'\r') {
                        // Whether a line feed belongs to it shows in the next byte.
                        cursor.see(length + 1)?;
                    }
                    let bytes = cursor.window.bytes();
                    let quotes = quotes(&bytes[..length], self.delimiter);
                    let at_end = length == bytes.len() && cursor.window.is_at_end();
                    let open = at_end && (last != Some(b'\n') || quotes == Quotes::Open);
                    return Ok(Found::Record(Raw { length, fields, quotes, open }));
                }
                ReadRecordResult::End => return Ok(Found::End),
            }
        }
    }

    /// The number of cells of one whole record.
    fn split(&mut self, record: &[u8]) -> usize {
        self.reader.reset();
        self.fields.resize(record.len().max(1), 0);
        self.ends.resize(MAX_COLUMNS + 1, 0);
        let (_, read, text, fields) = self.reader.read_record(record, &mut self.fields, &mut self.ends);
        let rest = &record[read..];
        let (_, _, _, last) =
            self.reader.read_record(rest, &mut self.fields[text..], &mut self.ends[fields..]);
        fields + last
    }

    fn names(&self, fields: usize) -> Vec<String> {
        (0..fields).map(|i| String::from_utf8_lossy(self.field(i)).trim().to_owned()).collect()
    }

    fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.fields[start..self.ends[i]]
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
    /// A closing quote is followed by something other than the delimiter or a line end.
    Stray,
    /// The text ends inside a quoted field.
    Open,
}

fn quotes(record: &[u8], delimiter: u8) -> Quotes {
    let (mut quoted, mut closed, mut at_start) = (false, false, true);
    let mut stray = false;
    for byte in record {
        let ends_field = *byte == delimiter || matches!(*byte, b'\n' | b'\r');
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
