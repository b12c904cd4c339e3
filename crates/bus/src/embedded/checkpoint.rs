//! From memory to the journal, and from the journal to the checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::BusError;
use crate::delivery::Progress;
use crate::embedded::Embedded;
use crate::embedded::subscription::Subscription;
use crate::upkeep::Upkeep;

/// How long an acknowledgement without exactly-once may wait for its record.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Records of the journal after which a checkpoint is made, and how long fewer may wait.
const CHECKPOINT_RECORDS: u64 = 20_000;
const CHECKPOINT_MS: i64 = 60_000;

/// The state of every subscription, as of an end of the journal.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Records below this offset are contained.
    pub covered: u64,
    /// By the number of the subscription.
    pub subscriptions: BTreeMap<u64, Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub generation: u32,
    pub progress: Progress,
}

/// The last checkpoint of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Last {
    pub covered: u64,
    pub at_ms: i64,
}

impl Embedded {
    /// Has the acknowledgements of a subscription written soon, together with those of others.
    pub fn flush_soon(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if !subscription.queued.swap(true, Ordering::AcqRel) {
            self.queued.lock().push(subscription.clone());
        }
        if self.flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        let embedded = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FLUSH_AFTER).await;
            embedded.flushing.store(false, Ordering::Release);
            let flushed = tokio::task::spawn_blocking(move || embedded.flush());
            if let Ok(Err(error)) = flushed.await {
                tracing::warn!(%error, "acknowledgements wait in memory; they are written with the next ones");
            }
        });
    }

    /// Writes the acknowledgements that wait. Blocks on the disk.
    pub fn flush(&self) -> Result<(), BusError> {
        // One after the other: who flushes finds what an earlier one could not write.
        let _turn = self.flush_turn.lock();
        let queued = std::mem::take(&mut *self.queued.lock());
        let _writing = self.journal.writing.blocking_read();
        let now_ms = self.bus.inner.clock.now_ms();
        let (mut taken, mut records) = (Vec::new(), Vec::new());
        for subscription in queued {
            subscription.queued.store(false, Ordering::Release);
            let (generation, mut offsets) = {
                let mut machine = subscription.machine.lock();
                let mut offsets = std::mem::take(&mut machine.pending);
                offsets.append(&mut machine.state.take_released());
                (machine.generation, offsets)
            };
            if !offsets.is_empty() && !subscription.is_deleted() {
                records.push(self.journal.acknowledged(
                    subscription.number,
                    generation,
                    &mut offsets,
                    now_ms,
                ));
                taken.push((subscription, generation, offsets));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let Err(error) = self.bus.inner.log.append_blocking(records) else { return Ok(()) };
        for (subscription, generation, offsets) in taken {
            let mut machine = subscription.machine.lock();
            if machine.generation == generation {
                machine.pending.extend(offsets);
            }
            drop(machine);
            if !subscription.queued.swap(true, Ordering::AcqRel) {
                self.queued.lock().push(subscription);
            }
        }
        Err(error.into())
    }

    /// Writes the acknowledgements that came to count because another message of their key was
    /// settled. Blocks on the disk; the caller holds the journal.
    pub fn flush_released(&self, subscription: &Subscription) {
        let (generation, mut offsets) = {
            let mut machine = subscription.machine.lock();
            (machine.generation, machine.state.take_released())
        };
        if offsets.is_empty() {
            return;
        }
        let now_ms = self.bus.inner.clock.now_ms();
        let record = self.journal.acknowledged(subscription.number, generation, &mut offsets, now_ms);
        if let Err(error) = self.bus.inner.log.append_blocking(vec![record]) {
            tracing::warn!(%error, "acknowledgements wait in memory; they are written with the next ones");
            let mut machine = subscription.machine.lock();
            if machine.generation == generation {
                machine.pending.extend(offsets);
            }
        }
    }

    /// Writes down where every subscription stands and frees the journal before it. Blocks.
    pub fn checkpoint(&self) -> Result<(), BusError> {
        let log = &self.bus.inner.log;
        let covered = {
            let _alone = self.journal.writing.blocking_write();
            log.bounds(self.journal.topic).next
        };
        let subscriptions: Vec<Arc<Subscription>> =
            self.catalog.read().subscriptions.values().cloned().collect();
        let kept = |subscription: &Arc<Subscription>| {
            let machine = subscription.machine.lock();
            let progress = machine.state.progress();
            let kept = Kept { generation: machine.generation, progress };
            (subscription.number, kept)
        };
        let checkpoint = Checkpoint { covered, subscriptions: subscriptions.iter().map(kept).collect() };
        self.documents.put_checkpoint(&checkpoint)?;
        *self.last_checkpoint.lock() = Last { covered, at_ms: self.bus.inner.clock.now_ms() };
        let unneeded =
            levada_log::Retention { needed_from: Some(covered), ..levada_log::Retention::default() };
        log.retain(self.journal.topic, unneeded)?;
        Ok(())
    }

    /// What was published before an upkeep is there for it to see: the age of messages is known
    /// to readers only. Blocks as long as one publish takes to become visible, at most.
    fn settle_all(&self) {
        let lags = |s: &&Arc<Subscription>| {
            *self.bus.inner.log.watch(s.log.id).borrow() < s.log.committed.load(Ordering::Acquire)
        };
        let lagging: Vec<Arc<Subscription>> =
            self.catalog.read().subscriptions.values().filter(lags).cloned().collect();
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !lagging.is_empty()
        {
            let visible = futures::future::join_all(lagging.iter().map(|s| self.settle_publishes(s)));
            runtime.block_on(visible);
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let last = *self.last_checkpoint.lock();
        let records = self.bus.inner.log.bounds(self.journal.topic).next.saturating_sub(last.covered);
        let waited_ms = self.bus.inner.clock.now_ms().saturating_sub(last.at_ms);
        records >= CHECKPOINT_RECORDS || records > 0 && waited_ms >= CHECKPOINT_MS
    }
}

impl Upkeep for Embedded {
    fn maintain(&self) -> Result<(), BusError> {
        self.settle_all();
        let turn = self.changing.blocking_lock();
        self.end_by_age();
        drop(turn);
        self.meter();
        let flushed = self.flush();
        let kept = if self.checkpoint_is_due() { self.checkpoint() } else { Ok(()) };
        flushed.and(kept)
    }

    fn close(&self) -> Result<(), BusError> {
        let flushed = self.flush();
        flushed.and(self.checkpoint())
    }
}
