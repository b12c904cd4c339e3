//! Which files are done: a map in memory, and a file of JSON lines that is longer-lived memory
//! of it.
//!
//! The ledger file is appended and fsynced before a position names the new length, and the
//! position is the truth: what stands after the length it names was written for an epoch that
//! never came to be, and is cut at the next start. In memory a file costs about 170 bytes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use levada_core::ReadError;
use levada_disk::{Disk, OpenMode};

use crate::position::{Done, Mark, Next};

/// Entries that stand in the position itself before they move to the ledger together.
const INLINE_ENTRIES: usize = 256;
const FILE: &str = "done.jsonl";

/// What is remembered of a file under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub size: u64,
    pub modified_ns: i64,
    pub hash: [u8; 32],
    pub next: Option<Next>,
    pub held: bool,
    pub again: bool,
    pub refused: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    disk: Arc<dyn Disk>,
    dir: String,
    seen: HashMap<[u8; 16], Seen>,
    mark: Mark,
    inline: Vec<Done>,
}

impl Ledger {
    pub fn new(disk: Arc<dyn Disk>, dir: String) -> Self {
        Self { disk, dir, seen: HashMap::new(), mark: Mark::default(), inline: Vec::new() }
    }

    pub fn get(&self, name: &str) -> Option<Seen> {
        self.seen.get(&key(name)).copied()
    }

    /// The ledger's part of the position.
    pub fn position(&self) -> (Mark, &[Done]) {
        (self.mark, &self.inline)
    }

    /// Goes back to a position: reads the ledger up to its mark and forgets the rest.
    pub fn restore(&mut self, mark: Mark, inline: &[Done]) -> Result<(), ReadError> {
        self.seen.clear();
        self.inline = inline.to_vec();
        self.mark = mark;
        if !mark.is_empty() {
            let text = self.read(mark).map_err(|error| damaged(&self.path(), &error.to_string()))?;
            for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let done = serde_json::from_slice(line)
                    .map_err(|error| damaged(&self.path(), &error.to_string()))?;
                self.remember(&done)?;
            }
        }
        for done in inline {
            self.remember(done)?;
        }
        Ok(())
    }

    /// Adds a finished file.
    pub fn add(&mut self, done: Done) -> Result<(), ReadError> {
        self.remember(&done)?;
        self.inline.push(done);
        Ok(())
    }

    /// Moves the inline entries to the ledger file once they are many.
    pub fn tidy(&mut self) -> Result<(), ReadError> {
        if self.inline.len() < INLINE_ENTRIES {
            return Ok(());
        }
        self.fold().map_err(|error| ReadError {
            message: format!("cannot write {}: {error}", self.path()),
            retryable: true,
        })
    }

    fn remember(&mut self, done: &Done) -> Result<(), ReadError> {
        let hash = blake3::Hash::from_hex(&done.blake3)
            .map_err(|error| damaged(&self.path(), &format!("`{}`: {error}", done.name)))?;
        let Done { size, modified_ns, next, held, again, refused, .. } = *done;
        let seen = Seen { size, modified_ns, hash: *hash.as_bytes(), next, held, again, refused };
        self.seen.insert(key(&done.name), seen);
        Ok(())
    }

    /// Moves the inline entries to the file. On an error nothing has changed.
    fn fold(&mut self) -> io::Result<()> {
        let mut text = Vec::with_capacity(self.inline.len() * 192);
        for done in &self.inline {
            serde_json::to_writer(&mut text, done)?;
            text.push(b'\n');
        }
        levada_disk::create_dir_durable(self.disk.as_ref(), &self.dir)?;
        let file = self.disk.open(&self.path(), OpenMode::Write)?;
        file.set_len(self.mark.bytes)?;
        file.write_at(self.mark.bytes, &text)?;
        file.sync_all()?;
        if self.mark.is_empty() {
            self.disk.sync_dir(&self.dir)?;
        }
        self.mark = Mark {
            bytes: self.mark.bytes + text.len() as u64,
            entries: self.mark.entries + self.inline.len() as u64,
            crc32c: crc32c::crc32c_append(self.mark.crc32c, &text),
        };
        self.inline.clear();
        Ok(())
    }

    fn read(&self, mark: Mark) -> io::Result<Vec<u8>> {
        let file = self.disk.open(&self.path(), OpenMode::Read)?;
        let mut text = vec![0; usize::try_from(mark.bytes).map_err(io::Error::other)?];
        let mut read = 0;
        while read < text.len() {
            match file.read_at(read as u64, &mut text[read..])? {
                0 => return Err(io::Error::other("it is shorter than the position says")),
                n => read += n,
            }
        }
        if crc32c::crc32c(&text) != mark.crc32c {
            return Err(io::Error::other("its checksum is wrong"));
        }
        Ok(text)
    }

    fn path(&self) -> String {
        format!("{}/{FILE}", self.dir)
    }
}

fn key(name: &str) -> [u8; 16] {
    let hash = blake3::hash(name.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

fn damaged(path: &str, reason: &str) -> ReadError {
    ReadError {
        message: format!(
            "the ledger of finished files `{path}` is damaged: {reason}; restore it from a backup"
        ),
        retryable: false,
    }
}
