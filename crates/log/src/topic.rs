//! A topic's segments in memory: what readers look up and the demultiplexer extends.

use std::collections::VecDeque;
use std::sync::Arc;

use levada_core::TopicName;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::index::SparseIndex;
use crate::{Bounds, TopicId};

/// The index of a segment, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) enum Index {
    /// Everything from `known_from` on; before it lies what an earlier process wrote.
    Partial {
        index: SparseIndex,
        known_from: u64,
    },
    Complete(Arc<SparseIndex>),
    /// In the `.idx` file, or to be rebuilt.
    OnDisk,
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    /// Bytes that hold confirmed records, with the segment's header.
    pub(crate) len: u64,
    pub(crate) index: Index,
}

#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// By base offset; the last one is written to.
    pub(crate) list: VecDeque<Segment>,
    /// The offset after the last record.
    pub(crate) next: u64,
    /// Set after damage: the last segment takes no more records.
    pub(crate) closed: bool,
}

impl Segments {
    /// Index in the list of the segment that holds an offset.
    pub(crate) fn holding(&self, offset: u64) -> Option<usize> {
        let after = self.list.partition_point(|s| s.base <= offset);
        if self.list.is_empty() { None } else { Some(after.saturating_sub(1)) }
    }

    pub(crate) fn is_active(&self, base: u64) -> bool {
        self.list.back().is_some_and(|s| s.base == base)
    }
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    /// The folder of its segments.
    pub(crate) dir: String,
    pub(crate) segments: RwLock<Segments>,
    pub(crate) visible: watch::Sender<u64>,
    /// Where recent reads ended, so that the next one starts there without a search.
    hints: Mutex<VecDeque<Hint>>,
}

/// The record with `offset` (or the next one behind it) begins at `position`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hint {
    pub(crate) base: u64,
    pub(crate) offset: u64,
    pub(crate) position: u64,
}

const MAX_HINTS: usize = 16;

impl Topic {
    pub(crate) fn new(id: TopicId, name: TopicName, log_dir: &str) -> Self {
        let dir = format!("{log_dir}/topics/{id}");
        let visible = watch::Sender::new(0);
        Self { id, name, dir, segments: RwLock::default(), visible, hints: Mutex::default() }
    }

    pub(crate) fn segment_path(&self, base: u64) -> String {
        format!("{}/{base:020}.seg", self.dir)
    }

    pub(crate) fn index_path(&self, base: u64) -> String {
        format!("{}/{base:020}.idx", self.dir)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let segments = self.segments.read();
        Bounds {
            first: segments.list.front().map_or(segments.next, |s| s.base),
            next: segments.next,
            bytes: segments.list.iter().map(|s| s.len).sum(),
        }
    }

    pub(crate) fn hint(&self, base: u64, offset: u64) -> Option<u64> {
        let hints = self.hints.lock();
        hints.iter().rev().find(|h| h.base == base && h.offset == offset).map(|h| h.position)
    }

    pub(crate) fn add_hint(&self, hint: Hint) {
        let mut hints = self.hints.lock();
        if hints.len() >= MAX_HINTS {
            hints.pop_front();
        }
        hints.push_back(hint);
    }

    /// Lets readers and watchers see the end.
    pub(crate) fn publish_end(&self) {
        let next = self.segments.read().next;
        self.visible.send_if_modified(|end| std::mem::replace(end, next) != next);
    }
}
