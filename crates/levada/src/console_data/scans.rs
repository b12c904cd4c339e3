//! Reads of the log for pages. A page may look through many large records: that is done off the
//! threads that answer requests, once at a time for an owner, and few at a time for all.

use std::collections::HashMap;
use std::sync::Arc;

use levada_bus::{Bus, BusError};
use levada_core::{Message, Principal, Problem, QuotaOwner, TenantSet, TopicName};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Reads of all owners that run at once.
const AT_ONCE: usize = 4;
/// Owners that read nothing are forgotten when there are more than this.
const MAX_IDLE: usize = 1_000;

/// Records of a topic that one look goes back, and how many are read at a time.
const RECORDS: u64 = 200_000;
const STEP_RECORDS: u64 = 256;
/// Bytes of records that are held at a time,
const HELD_BYTES: usize = 1 << 20;
/// that are read of a topic,
const TOPIC_BYTES: usize = 64 << 20;
/// and of all topics.
const ALL_BYTES: usize = 256 << 20;

/// The places of reads.
pub(super) struct Scans {
    all: Arc<Semaphore>,
    owners: Mutex<HashMap<QuotaOwner, Arc<Semaphore>>>,
}

impl Default for Scans {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), owners: Mutex::default() }
    }
}

impl Scans {
    /// Reads when there is a place. Who waits in vain and leaves takes none.
    ///
    /// # Errors
    /// What the read answers.
    pub async fn run<T: Send + 'static>(
        &self,
        principal: &Principal,
        read: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let own = self.of(QuotaOwner::of(principal)).acquire_owned().await;
        let all = Arc::clone(&self.all).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _places = (own, all);
            read()
        });
        done.await.unwrap_or_else(|_| Err(Problem::new(500, "internal", "the read failed")))
    }

    fn of(&self, owner: QuotaOwner) -> Arc<Semaphore> {
        let mut owners = self.owners.lock();
        if owners.len() > MAX_IDLE {
            owners.retain(|_, places| Arc::strong_count(places) > 1);
        }
        Arc::clone(owners.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

/// Tells of the newest dead letters of some tenants, a topic after the other, until `tell` has
/// taken `most` of a topic. Few are held at a time, whatever they weigh.
///
/// # Errors
/// [`BusError::Log`] for damage on disk.
pub(super) fn newest_letters(
    bus: &Bus,
    tenants: &TenantSet,
    most: usize,
    mut tell: impl FnMut(&TopicName, &Message) -> bool,
) -> Result<(), BusError> {
    let topics = bus.topics().into_iter().map(|topic| topic.name).filter(TopicName::is_dead_letter);
    let mut left_bytes = ALL_BYTES;
    for topic in topics {
        let bounds = bus.bounds(&topic)?;
        let floor = bounds.first.max(bounds.next.saturating_sub(RECORDS));
        let (mut high, mut taken, mut bytes) = (bounds.next, 0, 0_usize);
        while high > floor && taken < most && bytes < TOPIC_BYTES.min(left_bytes) {
            let low = floor.max(high.saturating_sub(STEP_RECORDS));
            let mut at = low;
            while at < high {
                let chunk = bus.read(&topic, at, (high - at) as usize, HELD_BYTES)?;
                let Some(last) = chunk.last() else { break };
                at = last.offset + 1;
                for letter in chunk.iter().filter(|letter| letter.offset < high) {
                    bytes = bytes.saturating_add(letter.message.body.len());
                    if tenants.contains(&letter.message.tenant) {
                        taken += usize::from(tell(&topic, &letter.message));
                    }
                }
            }
            high = low;
        }
        left_bytes = left_bytes.saturating_sub(bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use levada_core::TenantId;

    use super::*;

    fn principal(tenant: &str) -> Principal {
        let tenants = TenantSet::Only([TenantId::new(tenant).expect("a tenant")].into());
        Principal { id: tenant.to_owned(), name: tenant.to_owned(), tenants, roles: BTreeSet::new() }
    }

    #[tokio::test]
    async fn an_owner_reads_once_at_a_time_and_others_do_not_wait_for_it() {
        let scans = Arc::new(Scans::default());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = scans.clone();
        let first =
            tokio::spawn(async move { first.run(&principal("busy"), move || Ok(held.recv().is_ok())).await });
        while scans.all.available_permits() == AT_ONCE {
            tokio::task::yield_now().await;
        }
        let busy = principal("busy");
        let second = scans.run(&busy, || Ok(()));
        assert!(tokio::time::timeout(Duration::from_millis(20), second).await.is_err(), "it waits");
        assert_eq!(scans.run(&principal("other"), || Ok(7)).await, Ok(7));
        release.send(()).expect("the first reads");
        assert_eq!(first.await.expect("it ends"), Ok(true));
        assert_eq!(scans.run(&busy, || Ok(())).await, Ok(()));
    }
}
