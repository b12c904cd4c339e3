//! Small documents, each in a file of its own that is replaced as a whole: pipeline
//! manifests, API keys, idempotency windows.
//!
//! A document is durable when `put` returns, and after a crash it is the old or the new
//! one, never a mixture. Beside it lies a copy: a document that is damaged or has vanished
//! comes back from there, and [`DocumentStore::damage`] tells of it. Where the copy is no
//! good either, a damaged document is an error that names it, never an empty answer. Names
//! are paths of safe parts, as in `keys/abc`.

mod copy;
mod error;
mod format;

#[cfg(test)]
extern crate self as levada_store;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use levada_disk::{Disk, create_dir_durable, parent, write_atomic};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use copy::DocumentDamage;
pub use error::StoreError;

const EXTENSION: &str = ".doc";
/// The extension of a document's copy. Programs of before take no notice of it.
const COPY: &str = ".copy";
const MAX_NAME_BYTES: usize = 200;

/// Documents in one folder. Clones share it. One process at a time may write to a folder.
#[derive(Debug, Clone)]
pub struct DocumentStore {
    disk: Arc<dyn Disk>,
    dir: String,
    /// Writers take turns: a replacement goes through a temporary file.
    writing: Arc<Mutex<()>>,
    damage: Arc<Mutex<Vec<DocumentDamage>>>,
}

impl DocumentStore {
    /// Opens the folder, creating it when absent. What a killed process had put without
    /// its last sync becomes durable here, before anybody acts on it. Documents are compared with
    /// their copies, and the one that is no good is made anew from the other.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self, StoreError> {
        create_dir_durable(&*disk, dir).map_err(|e| StoreError::io("open", dir, e))?;
        let store = Self { disk, dir: dir.to_owned(), writing: Arc::default(), damage: Arc::default() };
        store.walk(|folder, _| store.disk.sync_dir(folder))?;
        store.compare_copies()?;
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
        put().map_err(|e| StoreError::io("write", name, e))?;
        self.write_copy(name, &path, &bytes);
        Ok(())
    }

    /// The document of this name; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when neither the file nor its copy match their checksum, `Unfit` when it does but is
    /// not a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.sound(name, &self.path(name)?)? else { return Ok(None) };
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
        // Before the document: a copy without one would be taken for what is left of it.
        self.remove_copy(name, &path)?;
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
                let Some(last) = file.strip_suffix(EXTENSION).or_else(|| vanished(file, files)) else {
                    continue;
                };
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

    /// The documents that were damaged or gone since the store was opened.
    pub fn damage(&self) -> Vec<DocumentDamage> {
        self.damage.lock().clone()
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

/// The name of a document of which only the copy is left.
fn vanished<'a>(file: &'a str, files: &[String]) -> Option<&'a str> {
    let name = file.strip_suffix(COPY)?;
    let has_document = files.iter().any(|other| other.strip_suffix(EXTENSION) == Some(name));
    (!has_document).then_some(name)
}
