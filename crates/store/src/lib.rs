//! Small documents, each in a file of its own that is replaced as a whole: pipeline
//! manifests, API keys, idempotency windows.
//!
//! A document is durable when `put` returns, and after a crash it is the old or the new
//! one, never a mixture. A damaged document is an error that names it, never an empty
//! answer. Names are paths of safe parts, as in `keys/abc`.

mod error;
mod format;

use std::io;
use std::sync::Arc;

use levada_disk::{Disk, create_dir_durable, parent, read_all, write_atomic};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::StoreError;

const EXTENSION: &str = ".doc";
const MAX_NAME_BYTES: usize = 200;

/// Documents in one folder. Clones share it. One process at a time may write to a folder.
#[derive(Debug, Clone)]
pub struct DocumentStore {
    disk: Arc<dyn Disk>,
    dir: String,
    /// Writers take turns: a replacement goes through a temporary file.
    writing: Arc<Mutex<()>>,
}

impl DocumentStore {
    /// Opens the folder, creating it when absent. What a killed process had put without
    /// its last sync becomes durable here, before anybody acts on it.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self, StoreError> {
        create_dir_durable(&*disk, dir).map_err(|e| StoreError::io("open", dir, e))?;
        let store = Self { disk, dir: dir.to_owned(), writing: Arc::default() };
        store.walk(|folder, _| store.disk.sync_dir(folder))?;
        Ok(store)
    }

    /// Stores a document, replacing one of this name; durable when this returns.
    pub fn put<T: Serialize>(&self, name: &str, document: &T) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let json = serde_json::to_vec(document)
            .map_err(|e| StoreError::Unfit { name: name.to_owned(), reason: e.to_string() })?;
        let bytes = format::encode(name, &json);
        let _turn = self.writing.lock();
        let folder = parent(&path);
        let put = || {
            if folder != self.dir {
                create_dir_durable(&*self.disk, folder)?;
            }
            write_atomic(&*self.disk, &path, &bytes)
        };
        put().map_err(|e| StoreError::io("write", name, e))
    }

    /// The document of this name; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when the file does not match its checksum, `Unfit` when it does but is
    /// not a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let bytes = match read_all(&*self.disk, &self.path(name)?) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", name, error)),
        };
        let json = format::decode(name, &bytes)
            .map_err(|reason| StoreError::Corrupt { name: name.to_owned(), reason })?;
        let document = serde_json::from_slice(json)
            .map_err(|e| StoreError::Unfit { name: name.to_owned(), reason: e.to_string() })?;
        Ok(Some(document))
    }

    /// Removes a document, durably; answers whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.path(name)?;
        let _turn = self.writing.lock();
        match self.disk.remove(&path).and_then(|()| self.disk.sync_dir(parent(&path))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", name, error)),
        }
    }

    /// The names that begin with `prefix`, sorted.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        self.walk(|folder, files| {
            let below = folder.strip_prefix(&self.dir).unwrap_or_default().trim_start_matches('/');
            for file in files {
                let Some(last) = file.strip_suffix(EXTENSION) else { continue };
                let name = if below.is_empty() { last.to_owned() } else { format!("{below}/{last}") };
                if name.starts_with(prefix) {
                    names.push(name);
                }
            }
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// Visits the folders with the names of their files, upper ones first.
    fn walk(&self, mut visit: impl FnMut(&str, &[String]) -> io::Result<()>) -> Result<(), StoreError> {
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            let entries = self.disk.list(&folder).map_err(|e| StoreError::io("list", &folder, e))?;
            let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.is_dir);
            folders.extend(dirs.into_iter().map(|d| format!("{folder}/{}", d.name)));
            let files: Vec<String> = files.into_iter().map(|f| f.name).collect();
            visit(&folder, &files).map_err(|e| StoreError::io("sync", &folder, e))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<String, StoreError> {
        let is_safe = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
        };
        if name.len() > MAX_NAME_BYTES || !name.split('/').all(is_safe) {
            return Err(StoreError::BadName { name: name.chars().take(64).collect() });
        }
        Ok(format!("{}/{name}{EXTENSION}", self.dir))
    }
}
