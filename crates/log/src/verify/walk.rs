//! Walks encoded records in a byte range of a file and checks both checksums of each, with
//! one buffer whatever a record's size.

use std::io;

use levada_disk::DiskFile;

use crate::format::{RECORD_HEADER, RecordHeader};
use crate::scan::Window;

/// A payload is checked in pieces of so many bytes.
const PIECE: u64 = 128 << 10;

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    Record {
        position: u64,
        header: RecordHeader,
        payload_is_sound: bool,
    },
    /// No header is there; the walk stays until it is moved by [`Walk::seek`].
    NoHeader,
    /// The range ends inside the record that begins here.
    Short {
        position: u64,
    },
    End,
}

pub(crate) struct Walk<'a> {
    window: Window<'a>,
    at: u64,
    end: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, from: u64, end: u64) -> Self {
        Self { window: Window::new(file, end), at: from, end }
    }

    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn seek(&mut self, position: u64) {
        self.at = position;
    }

    /// The next record, and where it is. After an error the walk stays where it was.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let position = self.at;
        if position >= self.end {
            return Ok(Step::End);
        }
        if self.end - position < RECORD_HEADER as u64 {
            return Ok(Step::Short { position });
        }
        let bytes = self.window.get(position, RECORD_HEADER)?;
        if bytes.len() < RECORD_HEADER {
            return Ok(Step::Short { position });
        }
        let Some(header) = RecordHeader::parse(bytes) else { return Ok(Step::NoHeader) };
        let len = header.record_len() as u64;
        if len > self.end - position {
            return Ok(Step::Short { position });
        }
        let crc = crc(&mut self.window, position + RECORD_HEADER as u64, position + len)?;
        self.at = position + len;
        Ok(Step::Record { position, header, payload_is_sound: crc == Some(header.body_crc) })
    }
}

/// The checksum of a byte range; `None` when the file ends before it.
pub(crate) fn crc(window: &mut Window<'_>, from: u64, to: u64) -> io::Result<Option<u32>> {
    let (mut at, mut crc) = (from, 0);
    while at < to {
        let want = PIECE.min(to - at) as usize;
        let piece = window.get(at, want)?;
        if piece.len() < want {
            return Ok(None);
        }
        crc = crc32c::crc32c_append(crc, piece);
        at += want as u64;
    }
    Ok(Some(crc))
}
