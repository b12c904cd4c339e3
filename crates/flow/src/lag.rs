//! How many records of each tenant a shared pipeline has yet to commit.
//!
//! The bus counts what each tenant published since the process started, and a pipeline counts
//! which of those records it has committed; the difference waits. Of records that are older than
//! the process nobody knows whose they are before they are read: until the pipeline has passed
//! them, a tenant's share is not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_bus::TopicInfo;
use levada_core::TenantId;

/// Tenants whose commits are counted; the share of others is not known.
const TENANTS: usize = 1_000;

/// What a pipeline has committed of its topic since counting began.
#[derive(Debug, Clone)]
pub struct Lag {
    /// End of the topic when counting began.
    from: u64,
    /// What the bus had counted by then.
    before: Arc<BTreeMap<TenantId, u64>>,
    /// Committed records from `from` on.
    done: Arc<BTreeMap<TenantId, u64>>,
    /// Whether some tenant found no room in `done`.
    full: bool,
    /// The first record that is in no committed epoch.
    next: u64,
}

impl Lag {
    /// Begins to count at what the topic is now.
    pub fn begin(topic: &TopicInfo) -> Self {
        let before = topic.lanes.iter().map(|l| (l.tenant.clone(), l.published)).collect();
        Self { from: topic.next, before: Arc::new(before), done: Arc::default(), full: false, next: 0 }
    }

    /// Records before this offset are not counted.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Where the pipeline stands after a restart.
    pub fn stands_at(&mut self, next: u64) {
        self.next = next;
    }

    /// Notes an epoch: the first offset after it, and its records from [`Lag::from`] on.
    pub fn committed(&mut self, next: u64, records: BTreeMap<TenantId, u64>) {
        self.next = next;
        let done = Arc::make_mut(&mut self.done);
        for (tenant, count) in records {
            if done.len() >= TENANTS && !done.contains_key(&tenant) {
                self.full = true;
                continue;
            }
            *done.entry(tenant).or_default() += count;
        }
    }

    /// Records of a tenant that wait, of which the bus has counted `published`. `None` where
    /// that is not known.
    pub fn of(&self, tenant: &TenantId, published: u64, end: u64) -> Option<u64> {
        let done = self.done.get(tenant);
        if self.next < self.from || (self.full && done.is_none()) {
            return None;
        }
        let before = self.before.get(tenant).copied().unwrap_or(0);
        let waiting = published.saturating_sub(before).saturating_sub(done.copied().unwrap_or(0));
        // What damage took is counted as published and never read; it does not wait for ever.
        Some(waiting.min(end.saturating_sub(self.next)))
    }
}

#[cfg(test)]
mod tests {
    use levada_bus::LaneStats;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a tenant")
    }

    #[test]
    fn a_tenants_share_is_known_once_the_records_of_earlier_processes_are_read() {
        let (a, b) = (tenant("a"), tenant("b"));
        let lane = LaneStats { tenant: a.clone(), published: 3, published_bytes: 0 };
        let topic = TopicInfo {
            name: levada_core::TopicName::new("events").expect("a topic"),
            first: 0,
            next: 10,
            bytes: 0,
            published: 3,
            duplicates: 0,
            durability: "fsync",
            commit_us_p50: 0,
            commit_us_p99: 0,
            lanes: vec![lane],
        };
        let mut lag = Lag::begin(&topic);
        lag.stands_at(4);
        assert_eq!(lag.of(&a, 5, 14), None, "six records of nobody knows whom wait too");
        lag.committed(12, [(a.clone(), 1), (b.clone(), 1)].into());
        assert_eq!((lag.of(&a, 5, 14), lag.of(&b, 2, 14)), (Some(1), Some(1)));
        lag.committed(14, [(a.clone(), 1)].into());
        assert_eq!((lag.of(&a, 5, 14), lag.of(&b, 2, 14)), (Some(0), Some(0)), "nothing waits at the end");
        assert_eq!(lag.of(&tenant("c"), 1, 15), Some(1), "a tenant that nothing was committed of");
    }
}
