//! What the parsers share: the unread text, the line of its first byte, and what is known of
//! the end.

use std::io;

use super::{BadRow, KEPT_BYTES, trim_line_end};
use crate::gzip::is_content_fault;
use crate::window::Window;

/// A record that the end of the file ended: it has no line end of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub offset: u64,
    pub line: u64,
    /// Its bytes, where it was read as a row; 0 where it was rejected.
    pub row_bytes: u64,
}

pub(crate) struct Cursor {
    pub window: Window,
    pub line: u64,
    pub record_bytes: usize,
    /// The end of the file is its end. Otherwise a record without an end is held back.
    pub complete: bool,
    /// A carriage return alone ends a line, as in CSV.
    pub cr_ends_lines: bool,
    pub(super) open: Option<Open>,
    /// The last consumed byte was a carriage return that is not counted yet.
    cr: bool,
}

impl Cursor {
    pub fn new(window: Window, record_bytes: usize, complete: bool) -> Self {
        Self { window, line: 1, record_bytes, complete, cr_ends_lines: false, open: None, cr: false }
    }

    /// Consumes `n` bytes and counts their lines.
    pub fn consume(&mut self, n: usize) {
        let bytes = &self.window.bytes()[..n];
        self.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
        if self.cr_ends_lines && n > 0 {
            let next = |at: usize| bytes.get(at + 1);
            let alone = memchr::memchr_iter(b'\r', bytes).filter(|at| next(*at).is_some_and(|b| *b != b'\n'));
            self.line += alone.count() as u64;
            self.line += u64::from(self.cr && bytes[0] != b'\n');
            self.cr = bytes[n - 1] == b'\r';
        }
        self.window.consume(n);
        self.settle_cr();
    }

    /// Counts a carriage return once the byte after it is seen.
    fn settle_cr(&mut self) {
        if self.cr
            && let Some(next) = self.window.bytes().first()
        {
            self.line += u64::from(*next != b'\n');
            self.cr = false;
        }
    }

    /// Sees at least `n` bytes, or all that there are before the end or a break.
    pub fn see(&mut self, n: usize) -> io::Result<&[u8]> {
        while self.window.bytes().len() < n {
            match self.window.more() {
                Ok(true) => {}
                Ok(false) => break,
                // The break is told when what stands before it has been read.
                Err(error) if is_content_fault(&error) && !self.window.bytes().is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.window.bytes())
    }

    /// Consumes blanks; false at the end of the file.
    pub fn skip(&mut self, blank: fn(&u8) -> bool) -> io::Result<bool> {
        loop {
            let blanks = self.window.bytes().iter().take_while(|b| blank(b)).count();
            self.consume(blanks);
            if !self.window.bytes().is_empty() {
                return Ok(true);
            }
            if !self.window.more()? {
                return Ok(false);
            }
            self.settle_cr();
        }
    }

    /// Length of the line that begins here, with its line feed, or `None` when it is longer
    /// than a record may be. The last line may lack the line feed.
    pub fn line_length(&mut self) -> io::Result<Option<usize>> {
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

    /// Notes that the end of the file ends the record that begins here, of so many bytes.
    pub fn open_end(&mut self, row_bytes: usize) {
        self.open = Some(Open { offset: self.window.offset(), line: self.line, row_bytes: row_bytes as u64 });
    }

    /// Consumes the line that begins here, however long, and rejects it.
    pub fn reject_line(&mut self, code: &'static str, reason: String) -> io::Result<BadRow> {
        let (line, offset) = (self.line, self.window.offset());
        let mut kept = Vec::new();
        loop {
            let bytes = self.window.bytes();
            let end = if self.cr_ends_lines {
                memchr::memchr2(b'\n', b'\r', bytes)
            } else {
                memchr::memchr(b'\n', bytes)
            };
            let part = &bytes[..end.map_or(bytes.len(), |at| at + 1)];
            kept.extend_from_slice(&part[..part.len().min(KEPT_BYTES - kept.len())]);
            let n = part.len();
            self.consume(n);
            if end.is_some() {
                break;
            }
            if !self.window.more()? {
                self.open = Some(Open { offset, line, row_bytes: 0 });
                break;
            }
        }
        Ok(BadRow::new(line, code, reason, trim_line_end(&kept)))
    }
}
