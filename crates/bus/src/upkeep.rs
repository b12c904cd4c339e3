//! What the bus does every few seconds, and at its close.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use levada_core::{Quota, QuotaOwner};

use crate::bus::{Bus, Inner, WINDOW_DIR};
use crate::config::BusError;
use crate::metrics as names;

/// The window is saved once this many keys are unsaved.
const SAVE_EVERY_KEYS: usize = 100_000;
/// Tenants that metrics tell apart: those that came first.
const MAX_TENANT_LABELS: u32 = 1_000;
const OTHERS: &str = "_other";

/// Work of an adapter that rides on the bus's own upkeep. Blocks on the disk.
pub(crate) trait Upkeep: Send + Sync {
    fn maintain(&self) -> Result<(), BusError>;
    fn close(&self) -> Result<(), BusError>;
}

impl Bus {
    /// Applies retention, saves the idempotency window where that is due, and checks a few
    /// of the old messages for damage. Call it every few seconds.
    ///
    /// # Errors
    /// The first [`BusError`]; the rest of the work was still tried.
    pub async fn maintain(&self) -> Result<(), BusError> {
        let saved =
            if self.inner.window.unsaved() >= SAVE_EVERY_KEYS { self.save_window().await } else { Ok(()) };
        let inner = self.inner.clone();
        let retained = tokio::task::spawn_blocking(move || {
            let kept = inner.upkeep_each(|adapter| adapter.maintain());
            let kept = kept.and(inner.keep_deduplication(false));
            let kept = kept.and(inner.retain());
            // What it finds is in quarantine, counted and logged: the upkeep did not fail by it.
            inner.log.scrub(inner.config.scrub_bytes);
            kept
        })
        .await
        .map_err(|_| BusError::Closed)?;
        saved.and(retained)
    }

    /// Applies retention only. It waits for nothing that a full disk can hold up, so call it
    /// beside [`Bus::maintain`], which may: retention is what frees the space.
    ///
    /// # Errors
    /// The first [`BusError`]; the other topics were still tried.
    pub async fn retain(&self) -> Result<(), BusError> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.retain()).await.map_err(|_| BusError::Closed)?
    }

    async fn save_window(&self) -> Result<(), BusError> {
        let alone = self.inner.publishing.write().await;
        let covered: Vec<(u32, u64)> = self
            .inner
            .topics
            .read()
            .values()
            .map(|t| {
                let end = self.inner.log.bounds(t.id).next;
                // What was answered early and is not durable yet is left for later.
                let is_durable = *t.durability.lock() == levada_log::Durability::Fsync;
                (t.id.0, if is_durable { end.max(t.committed.load(Ordering::Acquire)) } else { end })
            })
            .collect();
        drop(alone);
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            let now_ms = inner.clock.now_ms();
            inner.window.save(&*inner.disk, WINDOW_DIR, &covered, now_ms)
        })
        .await
        .map_err(|_| BusError::Closed)?
        .map_err(|e| BusError::Store(format!("cannot save the idempotency window: {e}")))
    }

    /// Saves the window and closes the log: later publishes fail, everything answered is on disk.
    ///
    /// # Errors
    /// [`BusError::Store`] or [`BusError::Log`] when the last writes fail.
    pub async fn close(&self) -> Result<(), BusError> {
        let saved = self.save_window().await;
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || {
            let kept = inner.upkeep_each(|adapter| adapter.close());
            let kept = kept.and(inner.keep_deduplication(true));
            kept.and(inner.log.close().map_err(BusError::from))
        });
        saved.and(closed.await.map_err(|_| BusError::Closed)?)
    }
}

impl Inner {
    fn upkeep_each(&self, work: impl Fn(&dyn Upkeep) -> Result<(), BusError>) -> Result<(), BusError> {
        let adapters: Vec<_> = self.upkeep.lock().iter().filter_map(std::sync::Weak::upgrade).collect();
        // Each gets its turn, also when one before it failed.
        let results: Vec<_> = adapters.iter().map(|adapter| work(&**adapter)).collect();
        results.into_iter().collect()
    }

    /// Says how many keys each tenant has in the window, and which went before their time.
    fn meter_window(&self) {
        ::metrics::gauge!(names::IDEMPOTENCY_KEYS).set(self.window.len() as f64);
        let mut counts = HashMap::new();
        for of in self.window.usage() {
            let Some(tenant) = self.log.lane_name(of.lane) else { continue };
            if of.forgotten > 0 {
                let label = if of.lane < MAX_TENANT_LABELS { tenant.to_string() } else { OTHERS.to_owned() };
                ::metrics::counter!(names::IDEMPOTENCY_FORGOTTEN, "tenant" => label).increment(of.forgotten);
                tracing::warn!(
                    %tenant,
                    forgotten = of.forgotten,
                    "idempotency keys were forgotten before their window ended: the tenant sends more than the \
                     window holds for it, and what it sends again later is kept twice"
                );
            }
            if of.keys > 0 {
                counts.insert(QuotaOwner::Tenant(tenant), of.keys as u64);
            }
        }
        self.config.quotas.note(Quota::IdempotencyKeys, &counts);
    }

    fn retain(&self) -> Result<(), BusError> {
        // Before the adapter is open it is not known what its subscriptions need.
        if self.has_subscriptions && self.upkeep.lock().is_empty() {
            return Ok(());
        }
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        self.meter_window();
        let mut first_error = Ok(());
        for topic in topics {
            let retention = *topic.retention.lock();
            let needed = *topic.needed_age.lock();
            let max_age = retention.max_age.map(|age| age.max(needed));
            let retention = levada_log::Retention {
                max_age_ms: max_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
                max_bytes: retention.max_bytes,
                needed_from: None,
                keep_from: *topic.needed_from.lock(),
            };
            if let Err(error) = self.log.retain(topic.id, retention) {
                first_error = first_error.and(Err(error.into()));
            }
        }
        first_error
    }
}
