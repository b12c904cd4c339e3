//! The private copy of the file at hand. Copying and hashing are one pass, and the copy is what
//! is archived and read: what happens to the landing file afterwards cannot tear a row.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use levada_disk::{Disk, DiskFile, OpenMode};

use crate::listing::Found;

const CHUNK_BYTES: usize = 256 << 10;
static COPIES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    dir: String,
}

impl Spool {
    pub fn new(disk: Arc<dyn Disk>, dir: String) -> Self {
        Self { disk, dir }
    }

    /// Copies the file as it was found from `want.from` on, durably, and hashes all of it. `None`
    /// when it is gone or was written to meanwhile: the next look decides.
    pub fn take(&self, found: &Found, want: Want) -> io::Result<Option<Copied>> {
        levada_disk::create_dir_durable(self.disk.as_ref(), &self.dir)?;
        // A reader that was dropped may still end its last step beside its successor.
        let incoming = format!("{}/incoming-{}", self.dir, COPIES.fetch_add(1, Ordering::Relaxed));
        let copy = self.disk.open(&incoming, OpenMode::Write)?;
        copy.set_len(0)?;
        let Some((copied, size)) = Self::copy(found, want, copy.as_ref())? else { return Ok(None) };
        let after = Found::stat(found.name.clone(), found.path.clone());
        let untouched = size == found.size && after.is_ok_and(|after| after.is_same(found));
        if !untouched {
            return Ok(None);
        }
        copy.sync_all()?;
        self.disk.rename(&incoming, &self.path(&copied.part))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Some(copied))
    }

    fn copy(found: &Found, want: Want, into: &dyn DiskFile) -> io::Result<Option<(Copied, u64)>> {
        let unreadable = |error: io::Error| {
            tracing::warn!(file = %found.path.display(), %error, "skipped for now: the landing file cannot be read");
            Ok(None)
        };
        let mut from = match File::open(&found.path) {
            Ok(file) => file,
            Err(error) => return unreadable(error),
        };
        let mut hashes = Hashes::new(want);
        let mut head = Vec::new();
        let mut size = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        // A file that grows while it is copied ends the copy one chunk later.
        while size <= found.size {
            let bytes = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => &chunk[..n],
                Err(error) => return unreadable(error),
            };
            hashes.update(size, bytes);
            head.extend_from_slice(&bytes[..bytes.len().min(want.head_bytes.saturating_sub(head.len()))]);
            let before = usize::try_from(want.from.saturating_sub(size)).unwrap_or(usize::MAX);
            if let Some(wanted) = bytes.get(before..).filter(|wanted| !wanted.is_empty()) {
                into.write_at((size + before as u64) - want.from, wanted)?;
            }
            size += bytes.len() as u64;
        }
        Ok(Some((hashes.finish(head), size)))
    }

    /// Puts back a copy from bytes kept elsewhere; false when they are not that content.
    pub fn refill(&self, hash: &blake3::Hash, bytes: &[u8]) -> io::Result<bool> {
        if blake3::hash(bytes) != *hash {
            return Ok(false);
        }
        levada_disk::create_dir_durable(self.disk.as_ref(), &self.dir)?;
        levada_disk::write_atomic(self.disk.as_ref(), &self.path(hash), bytes)?;
        Ok(true)
    }

    /// The copy of that content, if it is here whole.
    pub fn open(&self, hash: &blake3::Hash, size: u64) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match self.disk.open(&self.path(hash), OpenMode::Read) {
            Ok(file) if file.len()? == size => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Drops every copy but that of the file at hand.
    pub fn keep_only(&self, hash: Option<&blake3::Hash>) -> io::Result<()> {
        let keep = hash.map(|hash| hash.to_hex().to_string());
        let entries = match self.disk.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.iter().filter(|entry| keep.as_deref() != Some(entry.name.as_str())) {
            self.disk.remove(&format!("{}/{}", self.dir, entry.name))?;
        }
        Ok(())
    }

    fn path(&self, hash: &blake3::Hash) -> String {
        format!("{}/{}", self.dir, hash.to_hex())
    }
}

/// What of a file is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    /// Copied from this byte on.
    pub from: u64,
    /// The hash of the first so many bytes is asked for too.
    pub prefix: Option<u64>,
    /// So many of its first bytes are kept in memory.
    pub head_bytes: usize,
}

/// A file that was copied.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Of all of it.
    pub whole: blake3::Hash,
    /// Of what was copied.
    pub part: blake3::Hash,
    /// Of the prefix that was asked for.
    pub prefix: Option<blake3::Hash>,
    pub head: Vec<u8>,
}

/// The hashes of one pass over a file.
struct Hashes {
    want: Want,
    whole: blake3::Hasher,
    part: blake3::Hasher,
    prefix: Option<blake3::Hash>,
}

impl Hashes {
    fn new(want: Want) -> Self {
        let nothing = (want.prefix == Some(0)).then(|| blake3::hash(b""));
        Self { want, whole: blake3::Hasher::new(), part: blake3::Hasher::new(), prefix: nothing }
    }

    /// Adds the bytes at this offset.
    fn update(&mut self, offset: u64, bytes: &[u8]) {
        let inside =
            |at: u64| usize::try_from(at.saturating_sub(offset)).map_or(bytes.len(), |n| n.min(bytes.len()));
        let end = offset + bytes.len() as u64;
        match self.want.prefix.filter(|length| (offset + 1..=end).contains(length)) {
            Some(length) => {
                let (first, rest) = bytes.split_at(inside(length));
                self.whole.update(first);
                self.prefix = Some(self.whole.finalize());
                self.whole.update(rest);
            }
            None => {
                self.whole.update(bytes);
            }
        }
        if self.want.from > 0 {
            self.part.update(&bytes[inside(self.want.from)..]);
        }
    }

    fn finish(self, head: Vec<u8>) -> Copied {
        let whole = self.whole.finalize();
        let part = if self.want.from > 0 { self.part.finalize() } else { whole };
        Copied { whole, part, prefix: self.prefix, head }
    }
}

/// Reads a disk file from its beginning.
pub(crate) struct FileRead {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl FileRead {
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for FileRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(self.offset, into)?;
        self.offset += n as u64;
        Ok(n)
    }
}
