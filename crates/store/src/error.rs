//! What can go wrong with a document.

use std::io;
use std::sync::Arc;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error(
        "`{name}` is not a document name: use parts of letters, digits and - _ . ~ joined by '/', \
         none beginning with a dot, 200 bytes at most"
    )]
    BadName { name: String },
    /// The bytes are not those that were put. The file is left as it is.
    #[error("document {name} is damaged: {reason}")]
    Corrupt { name: String, reason: &'static str },
    /// The document is sound, but not of the type asked for (or the type is not JSON).
    #[error("document {name} does not fit its type: {reason}")]
    Unfit { name: String, reason: String },
    #[error("the disk is full: cannot write document {name}")]
    Full { name: String },
    #[error("cannot {action} {name}: {source}")]
    Io { action: &'static str, name: String, source: Arc<io::Error> },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, name: &str, source: io::Error) -> Self {
        if levada_disk::is_disk_full(&source) {
            Self::Full { name: name.to_owned() }
        } else {
            Self::Io { action, name: name.to_owned(), source: Arc::new(source) }
        }
    }

    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
}
