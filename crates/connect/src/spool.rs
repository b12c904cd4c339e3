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

    /// Copies the file as it was found, durably, and returns its hash. `None` when it is gone or
    /// was written to meanwhile: the next look decides.
    pub fn take(&self, found: &Found) -> io::Result<Option<blake3::Hash>> {
        levada_disk::create_dir_durable(self.disk.as_ref(), &self.dir)?;
        // A reader that was dropped may still end its last step beside its successor.
        let incoming = format!("{}/incoming-{}", self.dir, COPIES.fetch_add(1, Ordering::Relaxed));
        let copy = self.disk.open(&incoming, OpenMode::Write)?;
        copy.set_len(0)?;
        let Some((hash, size)) = Self::copy(found, copy.as_ref())? else { return Ok(None) };
        let after = Found::stat(found.name.clone(), found.path.clone());
        let untouched = size == found.size && after.is_ok_and(|after| after.is_same(found));
        if !untouched {
            return Ok(None);
        }
        copy.sync_all()?;
        self.disk.rename(&incoming, &self.path(&hash))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Some(hash))
    }

    fn copy(found: &Found, into: &dyn DiskFile) -> io::Result<Option<(blake3::Hash, u64)>> {
        let unreadable = |error: io::Error| {
            tracing::warn!(file = %found.path.display(), %error, "skipped for now: the landing file cannot be read");
            Ok(None)
        };
        let mut from = match File::open(&found.path) {
            Ok(file) => file,
            Err(error) => return unreadable(error),
        };
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        // A file that grows while it is copied ends the copy one chunk later.
        while size <= found.size {
            let n = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return unreadable(error),
            };
            hasher.update(&chunk[..n]);
            into.write_at(size, &chunk[..n])?;
            size += n as u64;
        }
        Ok(Some((hasher.finalize(), size)))
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
