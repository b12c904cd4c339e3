//! Counters of topics and lanes, kept without locks on the publish path.

use std::sync::atomic::{AtomicU64, Ordering};

use levada_core::{TenantId, TopicName};
use serde::Serialize;

/// What is known of a topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicInfo {
    pub name: TopicName,
    /// First offset kept.
    pub first: u64,
    /// Offset that the next record will get.
    pub next: u64,
    pub bytes: u64,
    /// Since the program started.
    pub published: u64,
    pub duplicates: u64,
    pub lanes: Vec<LaneStats>,
}

/// A tenant's share of a topic, since the program started.
#[derive(Debug, Clone, Serialize)]
pub struct LaneStats {
    pub tenant: TenantId,
    pub published: u64,
    pub published_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub published: AtomicU64,
    pub duplicates: AtomicU64,
}

impl TopicCounters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
