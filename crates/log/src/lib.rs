//! The durable log: one commit log for all topics, demultiplexed into segments per topic.
//!
//! ```text
//! append ──► queue ──► commit thread: one group, one write, one fdatasync ──► answer
//!                          │ group (in memory)
//!                          ▼
//!                      demux thread: segments per topic, sparse index ──► visible to readers
//!                          │ every few commit files, when idle, at close
//!                          ▼
//!                      checkpoint thread: sync segments, write the checkpoint, free commit files
//! ```
//!
//! An append is answered when its group is durable in the commit log. Segments are synced
//! only at checkpoints; what lies between the checkpoint and the end of the commit log is
//! replayed at start, so the time to start depends on that distance and on the number of
//! topics, never on the bytes kept. `Engine` is the same log without threads.

mod checkpoint;
mod commit;
mod commit_thread;
mod config;
mod demux;
mod engine;
mod error;
mod files;
mod format;
mod index;
mod metrics;
mod quarantine;
mod queue;
mod read;
mod recover;
mod registry;
mod retain;
mod scan;
mod scrub;
mod service;
mod shared;
mod stats;
mod tail;
mod topic;
mod verify;

#[cfg(test)]
extern crate self as levada_log;
#[cfg(test)]
mod tests;

pub use config::LogConfig;
pub use engine::Engine;
pub use error::{Damage, LogError};
pub use metrics::describe_metrics;
pub use quarantine::Quarantined;
pub use recover::Recovery;
pub use retain::Retention;
pub use scrub::Scrubbed;
pub use service::Log;
pub use stats::LogStats;
pub use verify::{CommitReport, Fault, Finding, Progress, TopicReport, TornTail, VerifyReport, verify};

use bytes::Bytes;

/// A topic's number in one log; given out once and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// When an append is answered. Whatever it says, readers see a record only once it is
/// durable, so that no position of a reader can lie behind what a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the fsync of its group.
    #[default]
    Fsync,
    /// After its write; the fsync follows within [`LogConfig::sync_interval_ms`]. A power loss
    /// may take the last of them, a crash of the process none.
    Interval,
    /// Before its write. A crash may take the last of them.
    Memory,
}

/// One record to append. The log does not look into `head` and `body`.
#[derive(Debug, Clone)]
pub struct Append {
    pub topic: TopicId,
    /// The tenant's number, from [`Log::lane`].
    pub lane: u32,
    /// The key that the payload is encrypted with; 0 when it is not.
    pub key_id: u32,
    /// Milliseconds since the Unix epoch, stamped by the caller.
    pub timestamp_ms: i64,
    pub head: Bytes,
    pub body: Bytes,
}

/// One record as read. `head` and `body` are slices of a buffer that the whole answer shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub offset: u64,
    pub lane: u32,
    pub key_id: u32,
    pub timestamp_ms: i64,
    pub head: Bytes,
    pub body: Bytes,
}

/// What a topic holds: offsets from `first` up to, not including, `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    pub first: u64,
    /// The end visible to readers.
    pub next: u64,
    /// Bytes in the topic's segments.
    pub bytes: u64,
}
