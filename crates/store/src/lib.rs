//! Small durable documents: each a file that is replaced as a whole, versioned and
//! checksummed.
//!
//! For state that has one writer and fits in memory: keys, marks, places, manifests. A
//! document is either the last one that `put` answered for or, after a crash in the middle
//! of a `put`, the new one; never a mixture, and never silently empty.

use std::io;
use std::sync::Arc;

use levada_disk::{Disk, create_dir_durable, read_all, write_atomic};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First line of a document: format, then the CRC32C of the body in hex.
const MAGIC: &str = "levada-document 1";
const SUFFIX: &str = ".doc";
const NAME_BYTES: usize = 200;

/// Why a document could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("`{0}` cannot name a document: use 1 to 200 letters, digits and - _ . @ =")]
    Name(String),
    /// The file is there and is not what was written.
    #[error(
        "document {path} is damaged: {reason}; restore it from a backup, or remove it to start without it"
    )]
    Damaged { path: String, reason: String },
    #[error("document {path} cannot be encoded: {reason}")]
    Encode { path: String, reason: String },
    #[error("cannot {action} document {path}: {source}")]
    Io { action: &'static str, path: String, source: Arc<io::Error> },
}

impl StoreError {
    /// Whether the same call may succeed later: the disk was full.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if levada_disk::is_disk_full(source))
    }
}

/// Documents of one folder. Clones share it; writes are one at a time.
#[derive(Debug, Clone)]
pub struct DocumentStore {
    disk: Arc<dyn Disk>,
    dir: Arc<str>,
    writing: Arc<Mutex<()>>,
}

impl DocumentStore {
    /// Opens the folder, making it durably when it is absent.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self, StoreError> {
        create_dir_durable(&*disk, dir).map_err(failed("make the folder of", dir))?;
        Ok(Self { disk, dir: dir.into(), writing: Arc::default() })
    }

    /// Replaces the document; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`] leaves the old document or the new one, never a mixture.
    pub fn put<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let body = serde_json::to_vec(value)
            .map_err(|e| StoreError::Encode { path: path.clone(), reason: e.to_string() })?;
        let mut bytes = format!("{MAGIC} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        let _alone = self.writing.lock();
        write_atomic(&*self.disk, &path, &bytes).map_err(failed("write", &path))
    }

    /// The document, or `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names a file whose checksum or shape is wrong.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.path(name)?;
        let bytes = match read_all(&*self.disk, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let body = body(&bytes).map_err(|reason| StoreError::Damaged { path: path.clone(), reason })?;
        serde_json::from_slice(body).map(Some).map_err(|e| StoreError::Damaged {
            path: path.clone(),
            reason: format!("not the expected shape: {e}"),
        })
    }

    /// Removes the document durably; true when there was one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.path(name)?;
        let _alone = self.writing.lock();
        match self.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("remove", &path)(error)),
        }
        self.disk.sync_dir(&self.dir).map_err(failed("remove", &path))?;
        Ok(true)
    }

    /// Names of the documents that begin with a prefix, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let entries = self.disk.list(&self.dir).map_err(failed("list", &self.dir))?;
        let names = entries.iter().filter_map(|e| e.name.strip_suffix(SUFFIX));
        let mut names: Vec<String> = names.filter(|n| n.starts_with(prefix)).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> Result<String, StoreError> {
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b'=' | b'~');
        let valid =
            (1..=NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed);
        if valid {
            Ok(format!("{}/{name}{SUFFIX}", self.dir))
        } else {
            Err(StoreError::Name(name.to_owned()))
        }
    }
}

fn body(bytes: &[u8]) -> Result<&[u8], String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no header")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "its header is not text")?;
    let body = &bytes[end + 1..];
    let crc = header
        .strip_prefix(MAGIC)
        .and_then(|rest| u32::from_str_radix(rest.trim(), 16).ok())
        .ok_or_else(|| format!("its header is `{header}`, this program reads `{MAGIC}`"))?;
    if crc32c::crc32c(body) == crc { Ok(body) } else { Err("its checksum does not match".to_owned()) }
}

fn failed(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use levada_disk::{OpenMode, SimDisk, SimRng, SyncKind};

    use super::*;

    fn put_and_crash(seed: u64, prepare: impl Fn(&SimDisk)) -> Result<Option<u64>, StoreError> {
        let disk = SimDisk::new(seed);
        let store = DocumentStore::open(Arc::new(disk.clone()), "docs")?;
        store.put("a", &1u64)?;
        prepare(&disk);
        store.put("a", &2u64)?;
        let survived = disk.crash();
        DocumentStore::open(Arc::new(survived), "docs")?.get("a")
    }

    #[test]
    fn an_answered_put_survives_power_loss() {
        for seed in 0..500 {
            let found = put_and_crash(seed, |_| ()).expect("readable");
            assert_eq!(found, Some(2), "seed {seed}");
        }
    }

    #[test]
    fn each_fsync_of_a_put_is_needed() {
        for kind in [SyncKind::File, SyncKind::Dir] {
            let lost = (0..2_000).any(|seed| {
                let found = put_and_crash(seed, |disk| disk.skip_syncs(kind, "docs*"));
                !matches!(found, Ok(Some(2)))
            });
            assert!(lost, "without {kind:?} syncs no seed lost a document");
        }
    }

    #[test]
    fn a_crash_in_the_middle_leaves_the_old_or_the_new() {
        for seed in 0..500 {
            let disk = SimDisk::new(seed);
            let store = DocumentStore::open(Arc::new(disk.clone()), "docs").expect("opens");
            store.put("a", &1u64).expect("kept");
            disk.crash_after(SimRng::new(seed).below(8));
            let answered = store.put("a", &2u64).is_ok();
            let store = DocumentStore::open(Arc::new(disk.crash()), "docs").expect("opens");
            let found: u64 = store.get("a").expect("not damaged").expect("there");
            assert!(found == 2 || (found == 1 && !answered), "seed {seed}: found {found}");
        }
    }

    #[test]
    fn damage_is_named_and_never_read_as_empty() {
        let disk = SimDisk::new(1);
        let store = DocumentStore::open(Arc::new(disk.clone()), "docs").expect("opens");
        store.put("a", &vec![7u64; 100]).expect("kept");
        let len = disk.open("docs/a.doc", OpenMode::Read).and_then(|f| f.len()).expect("length");
        for at in 0..len {
            disk.flip_bit("docs/a.doc", at, (at % 8) as u8).expect("flips");
            let error = store.get::<Vec<u64>>("a").expect_err("damaged").to_string();
            assert!(error.contains("docs/a.doc"), "byte {at}: {error}");
            disk.flip_bit("docs/a.doc", at, (at % 8) as u8).expect("flips back");
        }
        assert_eq!(store.get::<Vec<u64>>("a").expect("whole again"), Some(vec![7; 100]));
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let store = DocumentStore::open(Arc::new(SimDisk::new(1)), "docs").expect("opens");
        for bad in ["", "..", ".hidden", "a/b", "a b", "ä"] {
            assert!(matches!(store.put(bad, &1), Err(StoreError::Name(_))), "{bad:?}");
        }
        store.put("b-1", &1).expect("kept");
        store.put("a-1", &1).expect("kept");
        assert_eq!(store.list("").expect("listed"), ["a-1", "b-1"]);
        assert_eq!(store.list("b").expect("listed"), ["b-1"]);
        assert!(store.remove("b-1").expect("removed"));
        assert!(!store.remove("b-1").expect("gone"));
        assert_eq!(store.get::<u64>("b-1").expect("readable"), None);
    }
}
