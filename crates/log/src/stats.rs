//! Counters of one log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the sync latency buckets grow by a quarter each from 50 microseconds.
const BUCKETS: usize = 64;

fn bound_us(bucket: usize) -> u64 {
    (50.0 * 1.25f64.powi(bucket as i32)) as u64
}

/// Figures of a log since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    pub groups: u64,
    pub records: u64,
    /// Encoded bytes of the records.
    pub bytes: u64,
    /// Records in the largest group.
    pub largest_group_records: u64,
    /// Time of an fdatasync of the commit log, in microseconds, upper bounds of a bucket.
    pub sync_us_p50: u64,
    pub sync_us_p99: u64,
    pub checkpoints: u64,
    pub index_rebuilds: u64,
    /// Damaged ranges found since the log was opened.
    pub quarantined: u64,
    /// Bytes of full segments that were checked in the background.
    pub scrubbed_bytes: u64,
    /// Times that all full segments were checked.
    pub scrub_rounds: u64,
    /// Bytes that wait to be committed.
    pub queued_bytes: u64,
    /// Records of topics without fsync that were answered and could not be written then.
    pub lost_records: u64,
    /// Appends are refused for want of space in the segments.
    pub full: bool,
    /// Why appends are refused for good.
    pub poisoned: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Counters {
    groups: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    largest_group_records: AtomicU64,
    sync_us: [AtomicU64; BUCKETS],
    pub(crate) checkpoints: AtomicU64,
    pub(crate) index_rebuilds: AtomicU64,
    quarantined: AtomicU64,
    scrubbed_bytes: AtomicU64,
    scrub_rounds: AtomicU64,
    lost_records: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            groups: AtomicU64::default(),
            records: AtomicU64::default(),
            bytes: AtomicU64::default(),
            largest_group_records: AtomicU64::default(),
            sync_us: [const { AtomicU64::new(0) }; BUCKETS],
            checkpoints: AtomicU64::default(),
            index_rebuilds: AtomicU64::default(),
            quarantined: AtomicU64::default(),
            scrubbed_bytes: AtomicU64::default(),
            scrub_rounds: AtomicU64::default(),
            lost_records: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// Notes a group that was written.
    pub(crate) fn group(&self, records: u64, bytes: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.largest_group_records.fetch_max(records, Ordering::Relaxed);
        crate::metrics::group(records, bytes);
    }

    /// Notes a sync of the commit log.
    pub(crate) fn synced(&self, sync: Duration) {
        let us = u64::try_from(sync.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS - 1).find(|b| us <= bound_us(*b)).unwrap_or(BUCKETS - 1);
        self.sync_us[bucket].fetch_add(1, Ordering::Relaxed);
        crate::metrics::synced(sync);
    }

    /// Notes records that were answered from memory and could not be written then.
    pub(crate) fn lost(&self, records: u64) {
        self.lost_records.fetch_add(records, Ordering::Relaxed);
        crate::metrics::lost(records);
    }

    /// Notes a damaged range that was not known.
    pub(crate) fn damaged(&self) {
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        crate::metrics::damaged();
    }

    pub(crate) fn scrubbed(&self, bytes: u64, ended_round: bool) {
        self.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.scrub_rounds.fetch_add(u64::from(ended_round), Ordering::Relaxed);
        crate::metrics::scrubbed(bytes, ended_round);
    }

    pub(crate) fn snapshot(&self) -> LogStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts: Vec<u64> = self.sync_us.iter().map(load).collect();
        LogStats {
            groups: load(&self.groups),
            records: load(&self.records),
            bytes: load(&self.bytes),
            largest_group_records: load(&self.largest_group_records),
            sync_us_p50: percentile(&counts, 50),
            sync_us_p99: percentile(&counts, 99),
            checkpoints: load(&self.checkpoints),
            index_rebuilds: load(&self.index_rebuilds),
            quarantined: load(&self.quarantined),
            scrubbed_bytes: load(&self.scrubbed_bytes),
            scrub_rounds: load(&self.scrub_rounds),
            lost_records: load(&self.lost_records),
            ..LogStats::default()
        }
    }
}

/// The upper bound of the bucket that holds a percentile; 0 without any counts.
fn percentile(counts: &[u64], percent: u64) -> u64 {
    let total: u64 = counts.iter().sum();
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if *count > 0 && seen * 100 >= total * percent {
            return bound_us(bucket);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_within_a_quarter() {
        let counters = Counters::default();
        for ms in 1..=100 {
            counters.synced(Duration::from_millis(ms));
        }
        let stats = counters.snapshot();
        assert!((50_000..=62_500).contains(&stats.sync_us_p50), "{stats:?}");
        assert!((99_000..=125_000).contains(&stats.sync_us_p99), "{stats:?}");
        assert_eq!(Counters::default().snapshot().sync_us_p50, 0);
    }
}
