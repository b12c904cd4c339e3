//! What can go wrong, as few kinds as a caller can act on.

use std::io;
use std::sync::Arc;

use crate::TopicId;

/// Damaged bytes found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub topic: TopicId,
    /// The first offset that cannot be read.
    pub offset: u64,
    /// The next offset from which reading can go on.
    pub resume: u64,
    pub file: String,
    /// Byte position in the file.
    pub position: u64,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "topic {} offset {} is damaged at byte {} of {}; reading can go on from offset {}",
            self.topic, self.offset, self.position, self.file, self.resume
        )
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A write or sync failed in a way that leaves unknown what is on disk. Nothing more
    /// is accepted until the process starts anew and recovers; reads go on.
    #[error("the log takes no more appends: {reason}")]
    Poisoned { reason: Arc<str> },
    /// No space. Nothing was appended; appends work again once there is space.
    #[error("the disk is full")]
    Full,
    #[error("{bytes} bytes in one append, at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the log is closed")]
    Closed,
    #[error("there is no topic {0} in this log")]
    UnknownTopic(TopicId),
    /// Bytes that were once confirmed do not match their checksum. They stay where they
    /// are, with a copy in the quarantine folder.
    #[error("{0}")]
    Corrupt(Damage),
    /// A file that the log cannot do without is damaged.
    #[error("{file} is damaged: {reason}")]
    CorruptFile { file: String, reason: String },
    #[error("cannot {action}: {source}")]
    Io { action: String, source: Arc<io::Error> },
}

impl LogError {
    /// Whether the same call can succeed later without a restart.
    pub fn is_retryable(&self) -> bool {
        matches!(self, LogError::Full)
    }
}

/// Wraps an IO error with what was tried; a full disk keeps its own kind.
pub(crate) fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> LogError {
    move |source| {
        if levada_disk::is_disk_full(&source) {
            LogError::Full
        } else {
            LogError::Io { action: action.into(), source: Arc::new(source) }
        }
    }
}
