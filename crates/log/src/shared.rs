//! What the threads of a log have in common.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use levada_core::Clock;
use levada_disk::Disk;
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::Mark;
use crate::error::LogError;
use crate::files::{OpenFiles, SegmentKey};
use crate::quarantine::Quarantine;
use crate::registry::Registry;
use crate::scrub::Scrubber;
use crate::stats::Counters;
use crate::topic::Topic;
use crate::{LogConfig, TopicId};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: String,
    pub(crate) config: LogConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    /// By topic id; only ever grows.
    pub(crate) topics: RwLock<Vec<Arc<Topic>>>,
    pub(crate) files: OpenFiles,
    pub(crate) counters: Counters,
    /// Freed commit files, to be used again.
    pub(crate) spares: Mutex<Vec<String>>,
    /// Number of the first commit file that is still needed.
    pub(crate) first_needed_file: AtomicU64,
    /// Segments cannot be written for want of space; appends are refused meanwhile.
    pub(crate) segments_full: AtomicBool,
    /// The marks of the last finished checkpoint: retention leaves what they name.
    pub(crate) marks: Mutex<BTreeMap<TopicId, Mark>>,
    /// Segments whose index is held in memory, the oldest first.
    pub(crate) loaded_indexes: Mutex<VecDeque<SegmentKey>>,
    pub(crate) quarantine: Quarantine,
    pub(crate) scrubber: Mutex<Scrubber>,
    /// A checkpoint found no space; appends are refused until one succeeds.
    pub(crate) checkpoint_full: AtomicBool,
    pub(crate) closing: AtomicBool,
    poison: OnceLock<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &str,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        registry: Registry,
    ) -> Self {
        let files = OpenFiles::new(disk.clone(), config.open_files);
        let topics =
            registry.topics().into_iter().map(|(id, name)| Arc::new(Topic::new(id, name, dir))).collect();
        Self {
            disk,
            dir: dir.to_owned(),
            config,
            clock,
            registry,
            topics: RwLock::new(topics),
            files,
            counters: Counters::default(),
            spares: Mutex::default(),
            first_needed_file: AtomicU64::new(1),
            segments_full: AtomicBool::new(false),
            marks: Mutex::default(),
            loaded_indexes: Mutex::default(),
            quarantine: Quarantine::default(),
            scrubber: Mutex::default(),
            checkpoint_full: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            poison: OnceLock::new(),
        }
    }

    pub(crate) fn commit_dir(&self) -> String {
        format!("{}/commit", self.dir)
    }

    pub(crate) fn commit_path(&self, seq: u64) -> String {
        commit_path(&self.dir, seq)
    }

    pub(crate) fn topic(&self, id: TopicId) -> Result<Arc<Topic>, LogError> {
        self.topics.read().get(id.0 as usize).cloned().ok_or(LogError::UnknownTopic(id))
    }

    /// Makes the log refuse appends from here on, and gives the error to answer with.
    pub(crate) fn poison(&self, what: &str, error: &dyn std::fmt::Display) -> LogError {
        let reason: Arc<str> = format!("{what} failed: {error}").into();
        if self.poison.set(reason).is_ok() {
            tracing::error!(what, %error, "the log is poisoned: restart it once the disk is sound");
        }
        self.poisoned().unwrap_or(LogError::Closed)
    }

    pub(crate) fn poisoned(&self) -> Option<LogError> {
        self.poison.get().map(|reason| LogError::Poisoned { reason: reason.clone() })
    }

    /// Fails when appends are not accepted.
    pub(crate) fn check_accepts(&self) -> Result<(), LogError> {
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        if self.segments_full.load(Ordering::Acquire) || self.checkpoint_full.load(Ordering::Acquire) {
            return Err(LogError::Full);
        }
        Ok(())
    }

    /// A failed write: a full disk is answered, anything else poisons.
    pub(crate) fn write_failed(&self, what: &str, error: &std::io::Error) -> LogError {
        if levada_disk::is_disk_full(error) { LogError::Full } else { self.poison(what, error) }
    }
}

/// Where a commit file lies, in the log's folder.
pub(crate) fn commit_path(dir: &str, seq: u64) -> String {
    format!("{dir}/commit/{seq:016}.log")
}
