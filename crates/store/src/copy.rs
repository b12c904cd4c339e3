//! The copy that lies beside each document, and what happens when the two differ.
//!
//! The document is written first and the copy after it, so a copy is never newer; a removal
//! takes the copy first. A crash between the two leaves an old copy or none, which opening
//! mends. So a copy is asked only where the document is damaged or gone, and then it is what
//! was put last.

use std::io;

use levada_disk::{read_all, write_atomic};

use crate::{COPY, DocumentStore, EXTENSION, StoreError, format};

/// Copies that one opening makes for documents that have none: a folder of an older program
/// gets them in a few starts.
const MADE_AT_OPEN: usize = 1_000;

/// A document whose file was damaged or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentDamage {
    pub name: String,
    pub reason: &'static str,
    /// Whether the copy was good: then nothing is lost.
    pub restored: bool,
}

impl DocumentStore {
    /// The bytes of a document that match its checksum, from its copy where that is the good
    /// one. Where neither is good these are the damaged ones. `None`: there is no document.
    pub(crate) fn sound(&self, name: &str, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |path: &str| match read_all(&*self.disk, path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", name, error)),
        };
        let bytes = read(path)?;
        let reason = match bytes.as_deref().map(|bytes| format::decode(name, bytes)) {
            Some(Ok(_)) => return Ok(bytes),
            Some(Err(reason)) => reason,
            None => "it is gone",
        };
        let copy = read(&copy_path(path))?.filter(|copy| format::decode(name, copy).is_ok());
        if copy.is_none() && bytes.is_none() {
            return Ok(None);
        }
        self.note(DocumentDamage { name: name.to_owned(), reason, restored: copy.is_some() });
        if let Some(copy) = &copy {
            let _turn = self.writing.lock();
            if let Err(error) = write_atomic(&*self.disk, path, copy) {
                tracing::warn!(%name, %error, "the document stays damaged on disk; its copy is used");
            }
        }
        Ok(copy.or(bytes))
    }

    /// Keeps a copy of what was just put. The document is durable already: without a copy it
    /// only lacks the second chance, so an error is told and not returned.
    pub(crate) fn write_copy(&self, name: &str, path: &str, bytes: &[u8]) {
        let copy = copy_path(path);
        if let Err(error) = write_atomic(&*self.disk, &copy, bytes) {
            // An old copy must not pass for the document.
            let _ = self.disk.remove(&copy);
            tracing::warn!(%name, %error, "the document has no copy");
        }
    }

    /// Its removal becomes durable with that of the document, in the same folder.
    pub(crate) fn remove_copy(&self, name: &str, path: &str) -> Result<(), StoreError> {
        match self.disk.remove(&copy_path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", name, error))
            }
            _ => Ok(()),
        }
    }

    /// Looks at every document once, and brings old and missing copies up to date.
    pub(crate) fn compare_copies(&self) -> Result<(), StoreError> {
        let mut made = 0;
        for name in self.list("")? {
            let Ok(path) = self.path(&name) else { continue };
            let Some(bytes) = self.sound(&name, &path)? else { continue };
            let good = format::decode(&name, &bytes).is_ok();
            let copy = read_all(&*self.disk, &copy_path(&path));
            if good && copy.is_ok_and(|copy| copy == bytes) {
                continue;
            }
            if good && made < MADE_AT_OPEN {
                made += 1;
                let _turn = self.writing.lock();
                self.write_copy(&name, &path, &bytes);
            }
        }
        Ok(())
    }

    fn note(&self, damage: DocumentDamage) {
        let mut all = self.damage.lock();
        if all.iter().any(|known| known.name == damage.name && known.restored == damage.restored) {
            return;
        }
        let DocumentDamage { name, reason, restored } = &damage;
        let dir = &self.dir;
        match restored {
            true => {
                tracing::error!(%dir, %name, %reason, "a document was damaged and is restored from its copy")
            }
            false => tracing::error!(%dir, %name, %reason, "a document is damaged, and so is its copy"),
        }
        all.push(damage);
    }
}

fn copy_path(path: &str) -> String {
    format!("{}{COPY}", path.strip_suffix(EXTENSION).unwrap_or(path))
}
