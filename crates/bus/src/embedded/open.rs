//! Opening: documents, the last checkpoint, and the journal after it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use levada_core::{ProjectId, TenantId};
use levada_log::{Log, LogError};
use parking_lot::{Mutex, RwLock};

use crate::bus::{Bus, TopicState};
use crate::config::BusError;
use crate::embedded::cache::Cache;
use crate::embedded::catalog::{Catalog, Snapshot, Topic};
use crate::embedded::checkpoint::{Checkpoint, Kept, Last};
use crate::embedded::documents::{
    Documents, Kind, SnapshotDocument, StoredTopic, SubscriptionDocument, TopicDocument,
};
use crate::embedded::journal::{self, Journal, Said};
use crate::embedded::subscription::{Start, Subscription};
use crate::embedded::topics::set_durability;
use crate::embedded::{Embedded, EmbeddedBus};
use crate::filter::Filter;
use crate::port::{Deduplication, SubscriptionSpec};
use crate::upkeep::Upkeep;

/// Ack ids of one start; so many are never given out.
const ACK_IDS_A_RUN: u64 = 1 << 40;
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;

impl EmbeddedBus {
    /// Opens what the port keeps in the bus's log and documents. `home` is the project whose
    /// topics are those of the project folder. Blocks on the disk.
    ///
    /// # Errors
    /// [`BusError::Store`] for a damaged document, [`BusError::Log`] when the journal of
    /// acknowledgements cannot be read.
    pub fn open(bus: Bus, home: ProjectId) -> Result<Self, BusError> {
        let documents = Documents::open(bus.inner.store.clone())?;
        let journal = Journal::open(&bus.inner.log)?;
        let checkpoint: Checkpoint = documents.get_checkpoint()?.unwrap_or_default();
        let last = Last { covered: checkpoint.covered, at_ms: bus.inner.clock.now_ms() };
        let kept: Vec<SubscriptionDocument> = documents.all(Kind::Subscription)?;
        let mut states: BTreeMap<u64, Kept> = kept
            .iter()
            .map(|document| {
                let first = Kept { generation: 0, progress: document.start.clone() };
                let saved = checkpoint.subscriptions.get(&document.number).cloned();
                let Kept { generation, progress } = saved.unwrap_or(first);
                (document.number, Kept { generation, progress: progress.made_at(last.at_ms) })
            })
            .collect();
        replay(&bus.inner.log, &journal, checkpoint.covered, &mut states)?;
        let first_ack_id = documents.run() * ACK_IDS_A_RUN;
        let cache_bytes = i64::try_from(bus.inner.config.cache_bytes).unwrap_or(i64::MAX);
        let inner = Arc::new(Embedded {
            first_ack_id: first_ack_id.into(),
            bus,
            home,
            documents,
            journal,
            catalog: RwLock::default(),
            changing: Arc::default(),
            cache_left: Arc::new(cache_bytes.into()),
            queued: Mutex::default(),
            flush_turn: Mutex::default(),
            flushing: false.into(),
            last_checkpoint: Mutex::new(last),
            meters: Default::default(),
        });
        inner.load_topics()?;
        for document in kept {
            let state = states.remove(&document.number);
            inner.load_subscription(document, state)?;
        }
        inner.load_snapshots()?;
        inner.keep_what_is_needed();
        let weak: Weak<Embedded> = Arc::downgrade(&inner);
        let upkeep: Weak<dyn Upkeep> = weak;
        inner.bus.inner.upkeep.lock().push(upkeep);
        Ok(Self { inner })
    }
}

/// Brings states up to what the journal says after a checkpoint.
fn replay(log: &Log, journal: &Journal, from: u64, states: &mut BTreeMap<u64, Kept>) -> Result<(), BusError> {
    let mut at = from;
    loop {
        let records = match log.read(journal.topic, at, READ_RECORDS, READ_BYTES) {
            Ok(records) => records,
            Err(LogError::Corrupt(damage)) => {
                tracing::error!(
                    from = at,
                    resume = damage.resume,
                    "the journal of acknowledgements is damaged: some messages will be delivered again"
                );
                at = damage.resume;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(last) = records.last() else { return Ok(()) };
        at = last.offset + 1;
        for record in &records {
            let Some(entry) = journal::decode(record) else {
                tracing::error!(offset = record.offset, "the journal has a record that cannot be read");
                continue;
            };
            let Some(state) = states.get_mut(&entry.subscription) else { continue };
            match entry.said {
                Said::Acknowledged(offsets) if entry.generation == state.generation => {
                    for offset in offsets {
                        state.progress.settled.insert(offset);
                        state.progress.attempts.remove(&offset);
                    }
                }
                Said::Seek(progress) if entry.generation > state.generation => {
                    state.generation = entry.generation;
                    state.progress = progress.made_at(record.timestamp_ms);
                }
                Said::Acknowledged(_) | Said::Seek(_) => {}
            }
        }
    }
}

impl Embedded {
    fn log_topic(&self, name: &StoredTopic) -> Result<Arc<TopicState>, BusError> {
        self.bus.inner.topic(&name.0)
    }

    fn load_topics(&self) -> Result<(), BusError> {
        let mut catalog = self.catalog.write();
        for document in self.documents.all::<TopicDocument>(Kind::Topic)? {
            let TopicDocument { number, spec, log, deduplicated_from } = document;
            let configured = log.is_none();
            if !configured && self.configured(&spec.name).is_some() {
                tracing::warn!(
                    topic = %spec.name,
                    "the project folder names a topic that the API had made: the folder's is used, and the \
                     messages of the API's are seen by its subscriptions only; give one of them another name"
                );
            }
            let log = match log {
                Some(log) => self.log_topic(&log)?,
                // Settings of a topic that the folder may name no more: kept until it does again.
                None => match levada_core::TopicName::new(spec.name.id.as_str()) {
                    Ok(name) => match self.bus.inner.topic(&name) {
                        Ok(log) => log,
                        Err(_) => continue,
                    },
                    Err(_) => continue,
                },
            };
            set_durability(&log, spec.durability);
            *log.ordering.lock() = spec.ordering;
            if let Some(Deduplication { attribute, window }) = &spec.deduplication {
                self.bus.inner.restore_deduplication(&log, attribute, *window, deduplicated_from)?;
            }
            catalog.topics.insert(spec.name.clone(), Topic { number, spec, log, configured });
        }
        Ok(())
    }

    fn load_subscription(&self, document: SubscriptionDocument, kept: Option<Kept>) -> Result<(), BusError> {
        let SubscriptionDocument { number, mut spec, log, start, made_ms } = document;
        let log = self.log_topic(&log)?;
        // The topic may have been deleted just before the last stop.
        let topic = spec.topic.as_ref().and_then(|name| self.topic(name).ok());
        if topic.is_none_or(|topic| topic.log.id != log.id) {
            spec.topic = None;
        }
        let kept = kept.unwrap_or(Kept { generation: 0, progress: start });
        // Time during which nobody could use it does not count.
        let subscription = self.make(number, spec, log, kept, made_ms)?;
        self.catalog.write().subscriptions.insert(subscription.spec().name.clone(), subscription);
        Ok(())
    }

    /// A subscription at work, from its settings and where it stands.
    pub fn make(
        &self,
        number: u64,
        spec: SubscriptionSpec,
        log: Arc<TopicState>,
        kept: Kept,
        made_ms: i64,
    ) -> Result<Arc<Subscription>, BusError> {
        let filter = Filter::parse(&spec.filter).map_err(|error| BusError::Store(error.to_string()))?;
        let lane = spec.tenant.as_ref().map(|tenant| self.bus.inner.log.lane(tenant)).transpose()?;
        let Kept { generation, progress } = kept;
        let first_ack_id = self.first_ack_id.load(Ordering::Acquire);
        let active_at = self.bus.inner.clock.monotonic();
        let ordering = self.bus.inner.config.ordering;
        let start = Start { progress, generation, first_ack_id, active_at, made_ms, ordering };
        let cache = Cache::new(self.cache_left.clone());
        let subscription = Arc::new(Subscription::new(number, spec, log, lane, filter, start, cache));
        self.weigh(&subscription);
        Ok(subscription)
    }

    /// Gives tenants their shares.
    pub fn weigh(&self, subscription: &Subscription) {
        let spec = subscription.spec();
        let tenants: Vec<TenantId> = spec.weights.keys().cloned().collect();
        match self.bus.inner.log.ensure_lanes(&tenants) {
            Ok(lanes) => subscription.set_weights(lanes.into_iter().zip(spec.weights.values().copied())),
            Err(error) => tracing::warn!(%error, subscription = %spec.name, "shares of tenants are not kept"),
        }
    }

    fn load_snapshots(&self) -> Result<(), BusError> {
        for document in self.documents.all::<SnapshotDocument>(Kind::Snapshot)? {
            let SnapshotDocument { number, mut spec, log, .. } = document;
            let log = self.log_topic(&log)?;
            let topic = spec.topic.as_ref().and_then(|name| self.topic(name).ok());
            if topic.is_none_or(|topic| topic.log.id != log.id) {
                spec.topic = None;
            }
            let mut catalog: parking_lot::RwLockWriteGuard<'_, Catalog> = self.catalog.write();
            catalog.snapshots.insert(spec.name.clone(), Snapshot { number, spec, log });
        }
        Ok(())
    }
}
