//! Counters of topics and lanes, kept without locks on the publish path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// When a publish is answered: `fsync`, `interval` or `memory`.
    pub durability: &'static str,
    /// From a publish until it was answered by the log, in microseconds; upper bounds, 0 without
    /// any.
    pub commit_us_p50: u64,
    pub commit_us_p99: u64,
    pub lanes: Vec<LaneStats>,
}

/// A tenant's share of a topic, since the program started.
#[derive(Debug, Clone, Serialize)]
pub struct LaneStats {
    pub tenant: TenantId,
    pub published: u64,
    pub published_bytes: u64,
}

/// Buckets of commit latency; their upper bounds double from 32 microseconds.
const BUCKETS: usize = 24;
const FIRST_BOUND_US: u64 = 32;

#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub published: AtomicU64,
    pub duplicates: AtomicU64,
    commit_us: [AtomicU64; BUCKETS],
}

impl TopicCounters {
    /// Notes how long the log took for a publish.
    pub fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = us.div_ceil(FIRST_BOUND_US).max(1).next_power_of_two().trailing_zeros() as usize;
        Self::add(&self.commit_us[bucket.min(BUCKETS - 1)], 1);
    }

    /// The upper bound of the bucket that holds a percentile, in microseconds.
    pub fn commit_us(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.commit_us.iter().map(Self::get).collect();
        let total: u64 = counts.iter().sum();
        let mut seen = 0;
        let found = counts.iter().position(|count| {
            seen += count;
            *count > 0 && seen * 100 >= total * percent
        });
        found.map_or(0, |bucket| FIRST_BOUND_US << bucket)
    }

    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_known_within_a_factor_of_two() {
        let counters = TopicCounters::default();
        assert_eq!(counters.commit_us(99), 0);
        (1..=100).for_each(|ms| counters.committed(Duration::from_millis(ms)));
        assert_eq!((counters.commit_us(50), counters.commit_us(99)), (65_536, 131_072));
        counters.committed(Duration::from_secs(1_000_000));
        assert_eq!(counters.commit_us(100), FIRST_BOUND_US << (BUCKETS - 1));
    }
}
