//! Rows of a file, one at a time, each with its line, and each bad one on its own.
//!
//! Every parser yields [`Outcome`]s, holds at most one record in memory and can be started
//! again at any offset that it reported between two of them.

mod array;
mod csv;
mod lines;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use levada_config::model::FileFormat;
use levada_disk::DiskFile;

use crate::gzip::{self, Bounds, Gunzip};
use crate::spool::FileRead;
use crate::window::Window;

/// A rejected record keeps at most this much of its original.
const KEPT_BYTES: usize = 1 << 20;

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
    End,
}

/// What the parsers share: the unread text and the line of its first byte.
pub(crate) struct Cursor {
    pub window: Window,
    pub line: u64,
    pub record_bytes: usize,
}

impl Cursor {
    /// Consumes `n` bytes and counts their lines.
    fn consume(&mut self, n: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.window.bytes()[..n]).count() as u64;
        self.window.consume(n);
    }

    /// Consumes blanks; false at the end of the file.
    fn skip(&mut self, blank: fn(&u8) -> bool) -> io::Result<bool> {
        loop {
            let blanks = self.window.bytes().iter().take_while(|b| blank(b)).count();
            self.consume(blanks);
            if !self.window.bytes().is_empty() {
                return Ok(true);
            }
            if !self.window.more()? {
                return Ok(false);
            }
        }
    }

    /// Length of the line that begins here, with its line feed, or `None` when it is longer
    /// than a record may be. The last line may lack the line feed.
    fn line_length(&mut self) -> io::Result<Option<usize>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.window.bytes()[searched..]) {
                return Ok(Some(searched + at + 1).filter(|n| *n <= self.record_bytes + 2));
            }
            searched = self.window.bytes().len();
            if searched > self.record_bytes + 2 {
                return Ok(None);
            }
            if !self.window.more()? {
                return Ok(Some(searched));
            }
        }
    }

    /// Consumes the line that begins here, however long, and rejects it.
    fn reject_line(&mut self, code: &'static str, reason: String) -> io::Result<BadRow> {
        let line = self.line;
        let mut kept = Vec::new();
        loop {
            let bytes = self.window.bytes();
            let end = memchr::memchr(b'\n', bytes).map(|at| at + 1);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            kept.extend_from_slice(&part[..part.len().min(KEPT_BYTES - kept.len())]);
            let n = part.len();
            self.consume(n);
            if end.is_some() || !self.window.more()? {
                return Ok(BadRow::new(line, code, reason, trim_line_end(&kept)));
            }
        }
    }
}

fn trim_line_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = line {
        line = rest;
    }
    line
}

enum Parser {
    Csv(Box<csv::CsvRows>),
    Lines,
    Array(array::ArrayRows),
}

/// Where to begin: the offset and line of the next unread byte. Offset 0 is the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub offset: u64,
    pub line: u64,
    /// Behind the end of a JSON array.
    pub closed: bool,
}

/// How to read the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub format: FileFormat,
    pub gzip: bool,
    pub record_bytes: usize,
    pub bounds: Bounds,
}

pub(crate) struct Rows {
    cursor: Cursor,
    parser: Parser,
    gzip: bool,
    /// A fault that ends the file, told once.
    fault: Option<BadRow>,
    ended: bool,
}

impl Rows {
    /// Opens the file and goes to `start`. A file whose head cannot be understood opens too: its
    /// first outcome says why.
    pub fn open(file: Arc<dyn DiskFile>, layout: Layout, start: Start) -> io::Result<Self> {
        let source: Box<dyn Read + Send + Sync> = if layout.gzip {
            Box::new(Gunzip::new(FileRead::new(file), layout.bounds))
        } else {
            Box::new(FileRead::new(file))
        };
        let cursor = Cursor { window: Window::new(source), line: 1, record_bytes: layout.record_bytes };
        let mut rows = Self { cursor, parser: Parser::Lines, gzip: layout.gzip, fault: None, ended: false };
        match rows.begin(layout.format, start) {
            Ok(()) => Ok(rows),
            Err(error) if gzip::is_content_fault(&error) => {
                rows.fault = Some(rows.broken(&error));
                Ok(rows)
            }
            Err(error) => Err(error),
        }
    }

    fn begin(&mut self, format: FileFormat, start: Start) -> io::Result<()> {
        let cursor = &mut self.cursor;
        while cursor.window.bytes().len() < 3 && cursor.window.more()? {}
        match cursor.window.bytes() {
            [0xEF, 0xBB, 0xBF, ..] => cursor.window.consume(3),
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
                self.fault =
                    Some(BadRow::new(1, "file-encoding", "the file is UTF-16; save it as UTF-8", b""));
                return Ok(());
            }
            _ => {}
        }
        match format {
            FileFormat::Csv => match csv::CsvRows::begin(cursor)? {
                Ok(parser) => self.parser = Parser::Csv(Box::new(parser)),
                Err(bad) => self.fault = bad,
            },
            FileFormat::Json => {
                if cursor.skip(u8::is_ascii_whitespace)? && cursor.window.bytes()[0] == b'[' {
                    cursor.consume(1);
                    self.parser = Parser::Array(array::ArrayRows::default());
                }
            }
        }
        if start.offset > self.cursor.window.offset() {
            self.cursor.window.skip_to(start.offset)?;
            self.cursor.line = start.line;
            if let Parser::Array(parser) = &mut self.parser {
                parser.closed = start.closed;
            }
        }
        Ok(())
    }

    /// The next row. An error is one of the disk.
    pub fn next(&mut self) -> io::Result<Outcome> {
        if self.ended {
            return Ok(Outcome::End);
        }
        if let Some(bad) = self.fault.take() {
            self.ended = true;
            return Ok(Outcome::Bad(bad));
        }
        let outcome = match &mut self.parser {
            Parser::Csv(parser) => parser.next(&mut self.cursor),
            Parser::Lines => lines::next(&mut self.cursor),
            Parser::Array(parser) => parser.next(&mut self.cursor),
        };
        match outcome {
            Err(error) if gzip::is_content_fault(&error) => {
                self.ended = true;
                Ok(Outcome::Bad(self.broken(&error)))
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
        let closed = matches!(&self.parser, Parser::Array(parser) if parser.closed);
        Start { offset: self.cursor.window.offset(), line: self.cursor.line, closed }
    }

    /// Whether a fault has ended the file: there is nothing after it to go back to.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    fn broken(&self, error: &io::Error) -> BadRow {
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
