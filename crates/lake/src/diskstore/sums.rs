//! Checksums of the log's own files.
//!
//! The checksums of data files lie in the log (see `blocks`); those of the log lie beside the
//! tables, each in a small file of the same path below [`SUMS`]. A flipped bit in the statistics of
//! a commit would otherwise hide rows from queries. A new file gets its checksums before its name,
//! so that no crash leaves a file with those of another; a file that is replaced loses the old ones
//! before. A file without checksums (written by another program, or before there were any) is read
//! as it is.

use std::io;
use std::sync::Arc;

use levada_disk::{DiskFile, OpenMode, parent, read_all};
use object_store::path::Path;
use xxhash_rust::xxh3::xxh3_64;

use super::Inner;
use super::operations::each_block;
use crate::blocks::Blocks;

/// Where they lie, relative to the store's directory.
pub(super) const SUMS: &str = ".sums";

/// Whether an object is a file of a table's log that is written once. The pointer to the last
/// checkpoint is a hint that is written over and over.
pub(crate) fn is_log(location: &Path) -> bool {
    location.as_ref().contains("/_delta_log/") && location.filename() != Some("_last_checkpoint")
}

impl Inner {
    fn sums_path(&self, location: &Path) -> String {
        self.full(&format!("{SUMS}/{location}"))
    }

    /// The checksums that were kept for an object, if they can be read.
    pub(super) fn kept_sums(&self, location: &Path) -> Option<Blocks> {
        let text = read_all(&*self.disk, &self.sums_path(location)).ok()?;
        let found = decode(&text);
        if found.is_none() {
            tracing::warn!(%location, "the checksums of a log file cannot be read: it is read without them");
        }
        found
    }

    /// Keeps the checksums of a temporary file that is about to get a new name.
    pub(super) fn keep_sums(&self, temporary: &str, location: &Path) -> io::Result<Arc<Blocks>> {
        let file = self.disk.open(temporary, OpenMode::Read)?;
        let blocks = blocks_of(&*file)?;
        let (written, path) = (self.temporary(), self.sums_path(location));
        let document = self.disk.open(&written, OpenMode::Write)?;
        document.set_len(0)?;
        document.write_at(0, encode(&blocks).as_bytes())?;
        self.synced(document.sync_all())?;
        self.ensure_dir(parent(&path))?;
        self.disk.rename(&written, &path)?;
        self.sync_dir(parent(&path))?;
        Ok(Arc::new(blocks))
    }

    /// The object is about to be another one.
    pub(super) fn drop_sums(&self, location: &Path) -> io::Result<()> {
        let path = self.sums_path(location);
        match self.disk.remove(&path) {
            Ok(()) => self.sync_dir(parent(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The object is gone. Should its checksums come back with a power cut, they are those of
    /// nothing, and a new object replaces them.
    pub(super) fn forget_sums(&self, location: &Path) {
        let _ = self.disk.remove(&self.sums_path(location));
    }
}

fn blocks_of(file: &dyn DiskFile) -> io::Result<Blocks> {
    let mut blocks = Blocks::default();
    each_block(file, |_, block| {
        blocks.push(block);
        Ok(())
    })?;
    Ok(blocks)
}

/// Length and checksums, and a checksum of both.
fn encode(blocks: &Blocks) -> String {
    let line = format!("{} {}", blocks.len(), blocks.to_tag());
    format!("{line}\n{:016x}\n", xxh3_64(line.as_bytes()))
}

fn decode(bytes: &[u8]) -> Option<Blocks> {
    let (line, sum) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once('\n')?;
    if u64::from_str_radix(sum, 16).ok()? != xxh3_64(line.as_bytes()) {
        return None;
    }
    let (len, tag) = line.split_once(' ')?;
    Blocks::parse(tag, len.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_what_was_damaged_is_not() {
        let blocks = Blocks::of(&vec![7; 3 << 20 | 5]);
        let text = encode(&blocks).into_bytes();
        assert_eq!(decode(&text), Some(blocks));
        for at in 0..text.len() {
            let mut flipped = text.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "byte {at}");
        }
        assert_eq!(decode(&text[..text.len() - 2]), None);
    }

    #[test]
    fn files_of_the_log_are_told_from_others() {
        for (path, is) in [
            ("tenant=a/silver/table=t/_delta_log/00000000000000000001.json", true),
            ("tenant=a/silver/table=t/_delta_log/00000000000000000010.checkpoint.parquet", true),
            ("tenant=a/silver/table=t/_delta_log/_last_checkpoint", false),
            ("tenant=a/silver/table=t/part-1.parquet", false),
        ] {
            assert_eq!(is_log(&Path::from(path)), is, "{path}");
        }
    }
}
