//! Seeks and snapshots: other states of acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_core::ResourceName;

use crate::delivery::{Progress, Settled};
use crate::embedded::Embedded;
use crate::embedded::catalog::{Snapshot, already_exists};
use crate::embedded::documents::{Kind, SnapshotDocument, StoredTopic};
use crate::embedded::scan::{Left, Reach};
use crate::embedded::subscription::Subscription;
use crate::port::{PortError, SeekTo, SnapshotSpec, bounds};

/// A snapshot lives this long, less the age of the oldest message that it keeps.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// One that would live shorter is not made.
const SNAPSHOT_MIN_LIFE: Duration = Duration::from_secs(3600);
const MAX_SNAPSHOTS: usize = 5_000;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Embedded {
    /// Blocks on the disk.
    pub fn seek(&self, name: &ResourceName, to: &SeekTo) -> Result<(), PortError> {
        let subscription = self.subscription(name)?;
        if subscription.spec().detached {
            return Err(PortError::FailedPrecondition(format!("the subscription {name} is detached")));
        }
        // Alone: what is confirmed meanwhile would be missing from the new progress.
        let _alone = self.journal.writing.blocking_write();
        let progress = match to {
            SeekTo::TimeMs(at_ms) => self.progress_at(&subscription, *at_ms)?,
            SeekTo::Snapshot(snapshot) => {
                Progress { settled: self.snapshot_of(&subscription, snapshot)?, ..Progress::default() }
            }
        };
        self.reset(&subscription, progress)
    }

    /// The state that a snapshot of the subscription's topic keeps.
    pub fn snapshot_of(
        &self,
        subscription: &Subscription,
        name: &ResourceName,
    ) -> Result<Settled, PortError> {
        let snapshot = self.snapshot(name)?;
        if snapshot.log.id != subscription.log.id {
            return Err(PortError::FailedPrecondition(
                "the snapshot and the subscription are not of the same topic".to_owned(),
            ));
        }
        self.snapshot_state(&snapshot)
    }

    /// Everything published before the time is acknowledged, and nothing at or after it, as
    /// far as it is kept: acknowledged messages come back only where the subscription retains
    /// them or the topic has a retention of its own. It is about what was published when the seek
    /// is made: after one into the future, what is published later is delivered.
    fn progress_at(&self, subscription: &Subscription, at_ms: i64) -> Result<Progress, PortError> {
        let (log, spec) = (&self.bus.inner.log, subscription.spec());
        let now_ms = self.bus.inner.clock.now_ms();
        // What was answered before the seek is in the log before a time is looked up in it.
        let end = self.bus.inner.durable_end_of(&subscription.log)?;
        let below = |ms: i64| log.offset_at(subscription.log.id, ms).map(Settled::below);
        let topic = spec.topic.as_ref().and_then(|topic| self.topic(topic).ok());
        let of_topic = topic.and_then(|topic| topic.spec.retention);
        let of_subscription = spec.retain_acked.then_some(spec.retention);
        let kept = of_topic.into_iter().chain(of_subscription).max();
        let settled = match kept {
            Some(age) => below(at_ms.max(now_ms.saturating_sub(millis(age))))?,
            None => {
                let mut settled = subscription.machine.lock().state.settled().clone();
                settled.raise(log.offset_at(subscription.log.id, at_ms)?);
                settled
            }
        };
        // Messages that say an earlier time may follow one that says a later: a clock was set back.
        let is_to_come = at_ms > now_ms && settled.floor() < end;
        let (discard_before_ms, discard_below) = match is_to_come {
            true => (Some(at_ms), Some(end)),
            false => (None, None),
        };
        Ok(Progress { settled, discard_before_ms, discard_below, ..Progress::default() })
    }

    /// Begins a new generation with another progress, durably. All leases end. The caller holds
    /// the journal alone.
    pub fn reset(&self, subscription: &Subscription, progress: Progress) -> Result<(), PortError> {
        let generation = subscription.machine.lock().generation + 1;
        let now_ms = self.bus.inner.clock.now_ms();
        let record = self.journal.seek(subscription.number, generation, &progress, now_ms)?;
        self.bus.inner.log.append_blocking(vec![record])?;
        let mut machine = subscription.machine.lock();
        machine.state.reset(progress);
        machine.generation = generation;
        machine.pending.clear();
        subscription.cache.lock().clear();
        drop(machine);
        self.weigh(subscription);
        subscription.ready.notify_waiters();
        Ok(())
    }

    pub fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> Result<SnapshotSpec, PortError> {
        if self.snapshot(&name).is_ok() {
            return Err(already_exists("snapshot", &name));
        }
        if self.catalog.read().snapshots.len() >= MAX_SNAPSHOTS {
            return Err(PortError::ResourceExhausted(format!(
                "there are {MAX_SNAPSHOTS} snapshots, the maximum: delete some"
            )));
        }
        let subscription = self.subscription(subscription)?;
        let spec = subscription.spec();
        // What the subscription filtered out must not come to one that seeks here: settled is
        // everything that it has seen and does not want.
        while self.scan(&subscription, usize::MAX, Reach::Far)? != Left::Nothing {}
        let settled = subscription.machine.lock().state.settled().clone();
        let now_ms = self.bus.inner.clock.now_ms();
        let oldest = self.bus.inner.log.read(subscription.log.id, settled.floor(), 1, 1).unwrap_or_default();
        let oldest_ms = oldest.first().map_or(now_ms, |record| record.timestamp_ms);
        let life_ms = millis(SNAPSHOT_LIFE) - (now_ms - oldest_ms).max(0);
        if life_ms < millis(SNAPSHOT_MIN_LIFE) {
            return Err(PortError::FailedPrecondition(
                "the oldest unacknowledged message is too old: the snapshot would expire within an hour"
                    .to_owned(),
            ));
        }
        let snapshot_spec = SnapshotSpec {
            name: name.clone(),
            topic: spec.topic.clone(),
            tenant: spec.tenant.clone(),
            expires_at_ms: now_ms + life_ms,
            labels,
        };
        bounds::snapshot(&snapshot_spec, None)?;
        let number = self.documents.number()?;
        let log = StoredTopic(subscription.log.name.clone());
        let document = SnapshotDocument { number, spec: snapshot_spec.clone(), log, settled };
        self.documents.put(Kind::Snapshot, number, &document)?;
        let snapshot = Snapshot { number, spec: snapshot_spec.clone(), log: subscription.log.clone() };
        let replaced = self.catalog.write().snapshots.insert(name, snapshot);
        if let Some(expired) = replaced {
            self.documents.remove(Kind::Snapshot, expired.number)?;
        }
        self.keep_what_is_needed();
        Ok(snapshot_spec)
    }

    fn snapshot_state(&self, snapshot: &Snapshot) -> Result<Settled, PortError> {
        let document: Option<SnapshotDocument> = self.documents.get(Kind::Snapshot, snapshot.number)?;
        document
            .map(|document| document.settled)
            .ok_or_else(|| PortError::Internal(format!("the snapshot {} is gone", snapshot.spec.name)))
    }

    pub fn update_snapshot(&self, spec: SnapshotSpec) -> Result<SnapshotSpec, PortError> {
        let kept = self.snapshot(&spec.name)?;
        let updated =
            SnapshotSpec { labels: spec.labels, expires_at_ms: spec.expires_at_ms, ..kept.spec.clone() };
        bounds::snapshot(&updated, Some(&kept.spec))?;
        let settled = self.snapshot_state(&kept)?;
        let log = StoredTopic(kept.log.name.clone());
        let document = SnapshotDocument { number: kept.number, spec: updated.clone(), log, settled };
        self.documents.put(Kind::Snapshot, kept.number, &document)?;
        let snapshot = Snapshot { spec: updated.clone(), ..kept };
        self.catalog.write().snapshots.insert(updated.name.clone(), snapshot);
        self.keep_what_is_needed();
        Ok(updated)
    }

    pub fn delete_snapshot(&self, name: &ResourceName) -> Result<(), PortError> {
        let snapshot = self.snapshot(name)?;
        self.documents.remove(Kind::Snapshot, snapshot.number)?;
        self.catalog.write().snapshots.remove(name);
        self.keep_what_is_needed();
        Ok(())
    }
}
