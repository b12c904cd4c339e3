//! Rows of a file, one at a time, each with its line, and each bad one on its own.
//!
//! Every parser yields [`Outcome`]s, holds at most one record in memory and can be started
//! again at any offset that it reported between two of them. What stands at the end of a file
//! that may still be written, and has no end of its own, is held back: nothing is consumed of it.

mod array;
mod csv;
mod cursor;
mod header;
mod json;
pub(crate) mod sniff;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use levada_config::model::{Delimiter, FileFormat};
use levada_disk::DiskFile;

use crate::gzip::{self, Bounds, Gunzip};
use crate::spool::FileRead;
use crate::window::Window;
use cursor::Cursor;
pub use header::Column;
use sniff::Kind;

/// A rejected record keeps at most this much of its original.
const KEPT_BYTES: usize = 1 << 20;
/// A file that is refused whole keeps at most this much of its text in the dead letter.
pub(crate) const KEPT_OF_FILE_BYTES: usize = 64 << 10;

/// A row that could be read.
#[derive(Debug)]
pub(crate) struct Row {
    pub line: u64,
    /// JSON text.
    pub body: Bytes,
    /// The bytes as they stand in the file, where `body` differs.
    pub original: Option<Bytes>,
}

/// A row that could not.
#[derive(Debug)]
pub(crate) struct BadRow {
    pub line: u64,
    pub code: &'static str,
    pub reason: String,
    pub original: Bytes,
}

impl BadRow {
    fn new(line: u64, code: &'static str, reason: impl Into<String>, original: &[u8]) -> Self {
        let kept = &original[..original.len().min(KEPT_BYTES)];
        Self { line, code, reason: reason.into(), original: Bytes::copy_from_slice(kept) }
    }
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Row(Row),
    Bad(BadRow),
    /// What follows may still be written.
    Held,
    End,
}

fn trim_line_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = line {
        line = rest;
    }
    line
}

enum Parser {
    Csv(Box<csv::CsvRows>),
    Json,
    Array(array::ArrayRows),
}

/// Where to begin: the offset and line of the next unread byte. Offset 0 is the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub offset: u64,
    pub line: u64,
    /// Inside a JSON array or behind it.
    pub array: bool,
    /// Behind the end of the JSON array.
    pub closed: bool,
}

impl Start {
    pub const BEGINNING: Self = Self { offset: 0, line: 1, array: false, closed: false };
}

/// What of the file is read, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub start: Start,
    /// The text is a later part of its file: it begins with no header.
    pub is_part: bool,
    /// The header of the file, where its text begins without it.
    pub header: Option<String>,
    /// So many bytes at the start were read before, as a row without a line end.
    pub tail: u64,
}

/// Where reading goes on, when all that can be read was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resume {
    pub start: Start,
    pub tail: u64,
    /// Everything was read, up to a proper end.
    pub at_end: bool,
}

/// How to read the file.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub format: FileFormat,
    pub delimiter: Delimiter,
    /// What a header must have; empty: nothing is known.
    pub columns: Arc<[Column]>,
    pub gzip: bool,
    /// The end of the file is its end.
    pub complete: bool,
    pub record_bytes: usize,
    pub bounds: Bounds,
}

pub(crate) struct Rows {
    cursor: Cursor,
    parser: Parser,
    gzip: bool,
    /// A fault that ends the file, told once.
    fault: Option<BadRow>,
    /// Not a row was looked for: the file is refused whole.
    refused: bool,
    /// Its head was not understood yet.
    headless: bool,
    broken: bool,
    ended: bool,
    tail: u64,
}

impl Rows {
    /// Opens the file and goes to its start. A file whose head cannot be understood opens too:
    /// its first outcome says why.
    pub fn open(file: Arc<dyn DiskFile>, layout: &Layout, origin: &Origin) -> io::Result<Self> {
        let mut head = vec![0; sniff::HEAD_BYTES];
        let n = file.read_at(0, &mut head)?;
        let kind = sniff::kind(&head[..n]);
        let source: Box<dyn Read + Send + Sync> = if layout.gzip {
            Box::new(Gunzip::new(FileRead::new(file), layout.bounds))
        } else {
            Box::new(FileRead::new(file))
        };
        let mut cursor = Cursor::new(Window::new(source), layout.record_bytes, layout.complete);
        cursor.cr_ends_lines = layout.format == FileFormat::Csv;
        let mut rows = Self {
            cursor,
            parser: Parser::Json,
            gzip: layout.gzip,
            fault: None,
            refused: false,
            headless: !origin.is_part,
            broken: false,
            ended: false,
            tail: origin.tail,
        };
        if !origin.is_part && matches!(kind, Kind::Other(_)) {
            rows.refuse(kind, &head[..n], layout.format);
            return Ok(rows);
        }
        match rows.begin(layout, origin) {
            Ok(()) => Ok(rows),
            Err(error) if gzip::is_content_fault(&error) => {
                rows.broken = true;
                rows.fault = Some(rows.break_off(&error));
                Ok(rows)
            }
            Err(error) => Err(error),
        }
    }

    fn begin(&mut self, layout: &Layout, origin: &Origin) -> io::Result<()> {
        let start = origin.start;
        if origin.is_part {
            self.parser = match (layout.format, &origin.header) {
                (FileFormat::Csv, header) => {
                    let header = header.as_deref().unwrap_or_default();
                    Parser::Csv(Box::new(csv::CsvRows::of_header(header, layout)))
                }
                (FileFormat::Json, _) if start.array => Parser::Array(array::ArrayRows::default()),
                (FileFormat::Json, _) => Parser::Json,
            };
        } else {
            self.read_head(layout)?;
            if self.fault.is_some() || self.headless {
                return Ok(());
            }
        }
        if origin.is_part || start.offset > self.cursor.window.offset() {
            self.cursor.window.skip_to(start.offset)?;
            self.cursor.line = start.line;
            if let Parser::Array(parser) = &mut self.parser {
                parser.closed = start.closed;
            }
        }
        Ok(())
    }

    /// Judges the first bytes and reads what stands before the first row.
    fn read_head(&mut self, layout: &Layout) -> io::Result<()> {
        let cursor = &mut self.cursor;
        let head = cursor.see(sniff::HEAD_BYTES)?;
        let kind = sniff::kind(head);
        if kind != Kind::Text {
            let head = cursor.see(KEPT_OF_FILE_BYTES)?.to_vec();
            self.refuse(kind, &head, layout.format);
            return Ok(());
        }
        if head.starts_with(b"\xEF\xBB\xBF") {
            cursor.consume(3);
        }
        match layout.format {
            FileFormat::Csv => match csv::CsvRows::begin(cursor, layout)? {
                csv::Head::Rows(parser) => {
                    self.parser = Parser::Csv(parser);
                    self.headless = false;
                }
                csv::Head::Refused(bad) => {
                    self.refused = true;
                    self.fault = Some(bad);
                }
                csv::Head::Held | csv::Head::Empty => {}
            },
            FileFormat::Json => {
                if cursor.skip(u8::is_ascii_whitespace)? {
                    self.headless = false;
                    if cursor.window.bytes()[0] == b'[' {
                        cursor.consume(1);
                        self.parser = Parser::Array(array::ArrayRows::default());
                    }
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, kind: Kind, head: &[u8], format: FileFormat) {
        let wanted = if format == FileFormat::Csv { "CSV" } else { "JSON" };
        let head = &head[..head.len().min(KEPT_OF_FILE_BYTES)];
        self.refused = true;
        self.fault = Some(match kind {
            Kind::Encoded(what) => {
                BadRow::new(1, "file-encoding", format!("the file is {what}; save it as UTF-8"), head)
            }
            Kind::Gzip => BadRow::new(
                1,
                "file-format",
                "the file is compressed with gzip twice; compress it once",
                head,
            ),
            Kind::Other(what) => {
                let reason =
                    format!("the file is {what}, not {wanted}; deliver plain text, or compress it with gzip");
                BadRow::new(1, "file-format", reason, head)
            }
            Kind::Text => return,
        });
    }

    /// The next row. An error is one of the disk.
    pub fn next(&mut self) -> io::Result<Outcome> {
        loop {
            let outcome = self.read()?;
            if self.tail == 0 {
                return Ok(outcome);
            }
            if let Some(outcome) = self.compare(outcome) {
                return Ok(outcome);
            }
        }
    }

    /// The first record is one that was read before, when it had no line end. `None`: it is still
    /// the same.
    fn compare(&mut self, outcome: Outcome) -> Option<Outcome> {
        let (line, text) = match &outcome {
            Outcome::Row(row) => (row.line, row.original.as_ref().unwrap_or(&row.body).clone()),
            Outcome::Bad(bad) => (bad.line, bad.original.clone()),
            Outcome::Held | Outcome::End => return Some(outcome),
        };
        let before = std::mem::take(&mut self.tail);
        if text.len() as u64 == before {
            return None;
        }
        let reason = format!(
            "the row had {before} bytes and no line end when the file counted as finished, and was read so; \
             now it has {}: the row that was read from this line is cut short",
            text.len()
        );
        Some(Outcome::Bad(BadRow::new(line, "row-grew", reason, &text)))
    }

    fn read(&mut self) -> io::Result<Outcome> {
        if let Some(bad) = self.fault.take() {
            self.ended = true;
            return Ok(Outcome::Bad(bad));
        }
        if self.ended {
            return Ok(Outcome::End);
        }
        if self.headless {
            let at_end = self.cursor.window.bytes().is_empty();
            return Ok(if at_end { Outcome::End } else { Outcome::Held });
        }
        let outcome = match &mut self.parser {
            Parser::Csv(parser) => parser.next(&mut self.cursor),
            Parser::Json => json::next(&mut self.cursor),
            Parser::Array(parser) => parser.next(&mut self.cursor),
        };
        match outcome {
            Err(error) if gzip::is_content_fault(&error) => {
                self.ended = true;
                self.broken = true;
                Ok(Outcome::Bad(self.break_off(&error)))
            }
            Ok(outcome) => {
                let cut_short = matches!(&outcome, Outcome::Bad(bad) if bad.code == array::OPEN);
                self.ended = cut_short || matches!(outcome, Outcome::End);
                Ok(outcome)
            }
            other => other,
        }
    }

    /// Where to start again for what `next` has not yielded.
    pub fn place(&self) -> Start {
        let (array, closed) = match &self.parser {
            Parser::Array(parser) => (true, parser.closed),
            Parser::Csv(_) | Parser::Json => (false, false),
        };
        Start { offset: self.cursor.window.offset(), line: self.cursor.line, array, closed }
    }

    /// Where to go on once the file has grown, after the last outcome.
    pub fn resume(&self) -> Resume {
        if self.headless {
            return Resume { start: Start::BEGINNING, tail: 0, at_end: false };
        }
        let place = self.place();
        match self.cursor.open {
            Some(open) => Resume {
                start: Start { offset: open.offset, line: open.line, ..place },
                tail: open.row_bytes,
                at_end: false,
            },
            None => {
                Resume { start: place, tail: self.tail, at_end: self.tail == 0 && self.ended && !self.broken }
            }
        }
    }

    /// As [`Origin::tail`], for a reader that starts at [`Rows::place`].
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether nothing follows the last outcome: a fault has ended the file, or its end has ended
    /// a record, which only this reader remembers.
    pub fn is_over(&self) -> bool {
        self.ended || self.cursor.open.is_some()
    }

    /// Whether the file was refused whole.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    fn break_off(&self, error: &io::Error) -> BadRow {
        let Cursor { window, line, .. } = &self.cursor;
        let at = window.offset() + window.bytes().len() as u64;
        let (code, reason) = if self.gzip {
            ("gzip-broken", format!("the gzip stream breaks after {at} decompressed bytes: {error}"))
        } else {
            ("file-broken", format!("the file cannot be read on after {at} bytes: {error}"))
        };
        BadRow::new(*line, code, reason, window.bytes())
    }
}

/// The header line of a CSV file, from its first bytes as they lie in the folder; `None` where
/// they hold none.
pub(crate) fn header_of(head: Bytes, layout: &Layout) -> io::Result<Option<String>> {
    let source: Box<dyn Read + Send + Sync> = if layout.gzip {
        Box::new(Gunzip::new(io::Cursor::new(head), layout.bounds))
    } else {
        Box::new(io::Cursor::new(head))
    };
    let mut cursor = Cursor::new(Window::new(source), layout.record_bytes, true);
    cursor.cr_ends_lines = true;
    if cursor.see(3)?.starts_with(b"\xEF\xBB\xBF") {
        cursor.consume(3);
    }
    csv::header_line(&mut cursor, layout)
}
