//! A sliding view of a file's text: the unread bytes from an offset on, as many as are needed
//! to see one whole record. Grows only on request, so its owner bounds it.

use std::io::{self, Read};

const CHUNK_BYTES: usize = 64 << 10;

pub(crate) struct Window {
    source: Box<dyn Read + Send + Sync>,
    buffer: Vec<u8>,
    start: usize,
    /// Offset of `buffer[start]` in the (decompressed) file.
    offset: u64,
    ended: bool,
    /// Why nothing more can be seen: a decompressor tells it only once.
    failed: Option<(io::ErrorKind, String)>,
}

impl Window {
    /// `source` is read from its own beginning.
    pub fn new(source: Box<dyn Read + Send + Sync>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, offset: 0, ended: false, failed: None }
    }

    /// The unread bytes seen so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Offset of the first unread byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the end of the file was seen: nothing follows the seen bytes.
    pub fn is_at_end(&self) -> bool {
        self.ended
    }

    /// Marks the first `n` bytes as read.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.bytes().len(), "only seen bytes can be consumed");
        self.start += n;
        self.offset += n as u64;
    }

    /// Sees more bytes; false at the end of the file.
    pub fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if let Some((kind, reason)) = &self.failed {
            return Err(io::Error::new(*kind, reason.clone()));
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK_BYTES, 0);
        let outcome = loop {
            match self.source.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(length + *outcome.as_ref().unwrap_or(&0));
        self.ended = matches!(outcome, Ok(0));
        self.failed = outcome.as_ref().err().map(|error| (error.kind(), error.to_string()));
        outcome.map(|n| n > 0)
    }

    /// Reads on to an offset that lies ahead.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        while self.offset < offset {
            let ahead = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
            let step = ahead.min(self.bytes().len());
            self.consume(step);
            if self.offset < offset && !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
