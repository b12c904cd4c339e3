//! How long messages stay, and what ends by its age.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use levada_core::ResourceName;
use levada_log::TopicId;

use crate::config::Retention;
use crate::embedded::Embedded;
use crate::embedded::documents::Kind;
use crate::embedded::scan::Left;
use crate::embedded::subscription::Subscription;

/// A topic that nobody needs keeps its messages this long all the same.
const MIN_AGE: Duration = Duration::from_secs(600);
/// Scanned ahead by one round, of all subscriptions together.
const SCAN_TIME: Duration = Duration::from_millis(500);
/// A replay keeps what it has still to deliver so long after it was made.
const MAX_REPLAY_MS: i64 = 31 * 24 * 3600 * 1000;
/// The longest that anything may be kept by the API.
const LOST_AGE: Duration = Duration::from_secs(31 * 24 * 3600);
const SNAPSHOT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Embedded {
    /// Tells the log how long each topic's messages are needed.
    pub fn keep_what_is_needed(&self) {
        let now_ms = self.bus.inner.clock.now_ms();
        let catalog = self.catalog.read();
        let mut needed: HashMap<TopicId, Duration> = HashMap::new();
        let mut replayed: HashMap<TopicId, u64> = HashMap::new();
        let mut need = |topic: TopicId, age: Duration| {
            let kept = needed.entry(topic).or_default();
            *kept = (*kept).max(age);
        };
        for subscription in catalog.subscriptions.values() {
            let spec = subscription.spec();
            if spec.detached {
                continue;
            }
            if spec.replay.is_some() {
                // Not for ever: it may be a tenant's, and the topic everybody's.
                if now_ms.saturating_sub(subscription.made_ms) > MAX_REPLAY_MS {
                    continue;
                }
                let floor = subscription.machine.lock().state.settled().floor();
                if floor < subscription.until {
                    let first = replayed.entry(subscription.log.id).or_insert(floor);
                    *first = (*first).min(floor);
                }
            } else {
                need(subscription.log.id, spec.retention);
            }
        }
        for snapshot in catalog.snapshots.values() {
            need(snapshot.log.id, SNAPSHOT_AGE);
        }
        let made: HashMap<TopicId, Option<Duration>> = catalog
            .topics
            .values()
            .filter(|topic| !topic.configured)
            .map(|topic| (topic.log.id, topic.spec.retention))
            .collect();
        let lost = self.documents.has_lost();
        for topic in self.bus.inner.topics.read().values() {
            *topic.needed_from.lock() = replayed.get(&topic.id).copied();
            let age = needed.get(&topic.id).copied().unwrap_or_default();
            // A resource whose document is damaged may need any message.
            let age = age.max(topic.deduplication_window()).max(if lost { LOST_AGE } else { Duration::ZERO });
            if !topic.name.is_internal() {
                *topic.needed_age.lock() = age;
                continue;
            }
            let own = made.get(&topic.id);
            topic.deleted.store(own.is_none() && !lost, Ordering::Release);
            let least = if own.is_some() { MIN_AGE } else { Duration::ZERO };
            let age = own.copied().flatten().unwrap_or_default().max(age).max(least);
            *topic.retention.lock() = Retention { max_age: Some(age), max_bytes: None };
        }
    }

    /// Ends what has become too old. Blocks on the disk.
    pub fn end_by_age(&self) {
        let began = Instant::now();
        // How long nobody asked goes by the clock that nobody sets.
        let (now, now_ms) = (self.bus.inner.clock.monotonic(), self.bus.inner.clock.now_ms());
        let subscriptions: Vec<Arc<Subscription>> =
            self.catalog.read().subscriptions.values().cloned().collect();
        for subscription in subscriptions {
            let spec = subscription.spec();
            let idle = now.saturating_sub(subscription.machine.lock().active_at);
            if spec.expires_after.is_some_and(|after| idle > after) {
                tracing::info!(subscription = %spec.name, "nobody used the subscription: it has expired");
                if let Err(error) = self.delete_subscription(&spec.name) {
                    tracing::warn!(%error, subscription = %spec.name, "an expired subscription stays");
                }
                continue;
            }
            self.expire(&subscription);
            // Who asks has the topic scanned at his own pace.
            if !subscription.machine.lock().is_used(now) {
                subscription.cache.lock().clear();
                // Known before somebody asks: a tenant behind another's backlog is found at once.
                let more = || matches!(self.scan_if_free(&subscription), Ok(Left::More));
                while began.elapsed() < SCAN_TIME && more() {}
            }
            // A replay goes back as far as the topic does.
            if spec.replay.is_some() {
                continue;
            }
            // A seek may have brought back what only the topic retains.
            let topic = spec.topic.as_ref().and_then(|topic| self.topic(topic).ok());
            let age = topic.and_then(|t| t.spec.retention).unwrap_or_default().max(spec.retention);
            let oldest_ms = now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            let floor = subscription.machine.lock().state.settled().floor();
            let first = match self.bus.inner.log.offset_at(subscription.log.id, oldest_ms) {
                Ok(first) => first,
                Err(error) => {
                    tracing::warn!(%error, subscription = %spec.name, "nothing is aged out: no offset for a time");
                    continue;
                }
            };
            if first > floor {
                subscription.machine.lock().state.drop_below(first);
                subscription.cache.lock().drop_below(first);
            }
        }
        let expired: Vec<(ResourceName, u64)> = {
            let catalog = self.catalog.read();
            let old = catalog.snapshots.iter().filter(|(_, s)| s.spec.expires_at_ms <= now_ms);
            old.map(|(name, s)| (name.clone(), s.number)).collect()
        };
        for (name, number) in expired {
            match self.documents.remove(Kind::Snapshot, number) {
                Ok(()) => drop(self.catalog.write().snapshots.remove(&name)),
                Err(error) => tracing::warn!(%error, snapshot = %name, "an expired snapshot stays"),
            }
        }
        self.keep_what_is_needed();
    }
}
