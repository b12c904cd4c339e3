//! The bus handle: topics, publish, read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use levada_core::{Clock, Message, Problem, Quota, QuotaOwner, TenantContext, TenantId, TopicName};
use levada_disk::Disk;
use levada_log::{Log, Stored, TopicId};
use levada_store::DocumentStore;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use crate::codec;
use crate::config::{BusConfig, BusError, Retention, TopicConfig};
use crate::deduplication::{Budget, Deduplicator};
use crate::idempotency::{SharedWindow, Window};
use crate::metrics::{self as names, PublishMeters};
use crate::publish::Submission;
use crate::stats::{LaneStats, TopicCounters, TopicInfo};

const LOG_DIR: &str = "log";
pub(crate) const WINDOW_DIR: &str = "bus/window";
pub(crate) const STORE_DIR: &str = "bus/state";
/// A permit of the in-flight cap stands for this many bytes.
pub(crate) const PERMIT_BYTES: usize = 1024;

/// A message with the proof that its publisher may act for its tenant.
#[derive(Debug, Clone)]
pub struct Publish {
    pub context: TenantContext,
    pub message: Message,
    /// Two publishes of one key, topic and tenant inside the window are one.
    pub idempotency_key: Option<String>,
}

/// Where a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The event id, or `<topic>/<offset>` where the message has none.
    pub id: String,
    pub offset: u64,
    /// An earlier publish of the same key already stands at that offset.
    pub duplicate: bool,
}

/// A committed message.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub offset: u64,
    pub published_at_ms: i64,
    /// Number of the tenant's lane, stable on this disk.
    pub lane: u32,
    pub message: Message,
}

/// What opening the bus found.
#[derive(Debug)]
pub struct Recovery {
    pub log: levada_log::Recovery,
    pub idempotency_keys: usize,
    /// Records read to complete the idempotency window.
    pub scanned_records: u64,
}

pub(crate) struct TopicState {
    pub id: TopicId,
    pub name: TopicName,
    pub retention: Mutex<Retention>,
    /// What subscriptions and snapshots need beyond the topic's own retention.
    pub needed_age: Mutex<std::time::Duration>,
    /// A replay has still to deliver what is from here on: it stays at any age.
    pub needed_from: Mutex<Option<u64>>,
    /// When a publish is answered.
    pub durability: Mutex<levada_log::Durability>,
    /// The scope of ordering keys; `None`: the default of the bus.
    pub ordering: Mutex<Option<crate::port::KeyScope>>,
    /// Publish-side deduplication, where it is switched on.
    pub deduplicator: RwLock<Option<Arc<Deduplicator>>>,
    /// Deleted through the port: kept for the subscriptions that it left behind, if any.
    pub deleted: AtomicBool,
    pub counters: TopicCounters,
    meters: OnceLock<PublishMeters>,
    /// The offset after the last record that this process appended: committed, and perhaps
    /// not yet visible to readers.
    pub committed: AtomicU64,
    /// The end when subscriptions were last told of it.
    pub told: AtomicU64,
    /// By the number of the lane.
    pub lanes: RwLock<HashMap<u32, (TenantId, Arc<LaneCounters>), ahash::RandomState>>,
}

#[derive(Debug, Default)]
pub(crate) struct LaneCounters {
    pub published: AtomicU64,
    pub published_bytes: AtomicU64,
}

pub(crate) struct Inner {
    pub config: BusConfig,
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    pub log: Log,
    pub store: DocumentStore,
    pub topics: RwLock<HashMap<TopicName, Arc<TopicState>>>,
    lanes: RwLock<HashMap<TenantId, Lane, ahash::RandomState>>,
    pub window: SharedWindow,
    /// Of the deduplication of all topics.
    pub deduplication: Arc<Budget>,
    /// Publishes hold it shared; the saver holds it alone to read a consistent cut.
    pub publishing: tokio::sync::RwLock<()>,
    pub dead: Mutex<HashMap<TopicName, Arc<Mutex<crate::dead::Resent>>>>,
    pub owners: crate::owners::Owners,
    /// Of messages that are sent again.
    pub rate: std::sync::OnceLock<crate::rate::TakeTokens>,
    /// Who has something to save before the log closes.
    pub upkeep: Mutex<Vec<std::sync::Weak<dyn crate::upkeep::Upkeep>>>,
    /// An adapter has kept subscriptions here: only with it is it known what they need.
    pub has_subscriptions: bool,
}

#[derive(Clone)]
pub(crate) struct Lane {
    pub id: u32,
    pub in_flight: Arc<Semaphore>,
}

/// Cheap to clone; all clones are one bus.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("topics", &self.inner.topics.read().len()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Opens the bus on a disk, recovering the log and the idempotency window.
    ///
    /// # Errors
    /// [`BusError::Log`] when the log cannot be recovered, [`BusError::Store`] for state documents.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: BusConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), BusError> {
        let (log, log_recovery) = Log::open(disk.clone(), LOG_DIR, config.log.clone(), clock.clone())?;
        let store = DocumentStore::open(disk.clone(), STORE_DIR)?;
        let window = Arc::new(Window::new(config.idempotency_window, config.idempotency_keys));
        let is_journal = |name: &TopicName| name.as_str() == crate::embedded::JOURNAL_TOPIC;
        let has_subscriptions = log.topics().iter().any(|(_, name)| is_journal(name));
        let topics = log
            .topics()
            .into_iter()
            .filter(|(_, name)| !is_journal(name))
            .map(|(id, name)| (name.clone(), Arc::new(TopicState::new(id, name, config.default_retention))))
            .collect();
        let inner = Arc::new(Inner {
            deduplication: Budget::new(config.deduplication_keys),
            config,
            clock,
            disk,
            log,
            store,
            topics: RwLock::new(topics),
            lanes: RwLock::default(),
            window,
            publishing: tokio::sync::RwLock::default(),
            dead: Mutex::default(),
            owners: crate::owners::Owners::default(),
            rate: std::sync::OnceLock::new(),
            upkeep: Mutex::default(),
            has_subscriptions,
        });
        let scanned_records = inner.restore_window()?;
        let recovery = Recovery { log: log_recovery, idempotency_keys: inner.window.len(), scanned_records };
        Ok((Self { inner }, recovery))
    }

    /// Creates the topic durably, or changes the settings of an existing one.
    ///
    /// # Errors
    /// [`BusError::TooManyTopics`], or [`BusError::Log`] when the registry cannot be written.
    pub fn ensure_topic(&self, name: &TopicName, config: TopicConfig) -> Result<(), BusError> {
        let retention = config.retention.unwrap_or(self.inner.config.default_retention);
        self.inner.ensure(name, retention)?;
        Ok(())
    }

    /// The store of what the bus and its adapters keep beside messages.
    pub fn documents(&self) -> DocumentStore {
        self.inner.store.clone()
    }

    pub fn has_topic(&self, name: &TopicName) -> bool {
        self.inner.topics.read().contains_key(name)
    }

    /// Publishes to one topic and answers once everything accepted is on disk. All accepted
    /// messages are one commit group: after a crash all of them are there or none.
    ///
    /// The outer error is of the whole call (nothing is known to be kept); an inner one is of
    /// that message alone. Dropping the future does not stop a publish that has begun.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`]; [`BusError::Log`] when the log is full, poisoned or closed.
    pub async fn publish(
        &self,
        topic: &TopicName,
        items: Vec<Publish>,
    ) -> Result<Vec<Result<Published, Problem>>, BusError> {
        let submit = |publish| Submission { publish, deduplicate: true };
        self.submit(topic, items.into_iter().map(submit).collect()).await
    }

    /// As [`Bus::publish`], of messages that may be known to the topic on purpose.
    pub(crate) async fn submit(
        &self,
        topic: &TopicName,
        items: Vec<Submission>,
    ) -> Result<Vec<Result<Published, Problem>>, BusError> {
        let state = self.inner.topic(topic)?;
        let inner = self.inner.clone();
        tokio::spawn(async move { inner.publish(&state, items).await }).await.map_err(|_| BusError::Closed)?
    }

    /// Committed messages from an offset on: at most `max_records` and roughly `max_bytes`,
    /// empty at the end. Below the first kept offset it starts at the first kept.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`], [`BusError::Log`] for damage on disk.
    pub fn read(
        &self,
        topic: &TopicName,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivered>, BusError> {
        let state = self.inner.topic(topic)?;
        let stored = self.inner.log.read(state.id, from, max_records, max_bytes)?;
        stored.into_iter().map(|record| self.inner.deliver(topic, record)).collect()
    }

    /// The end visible to readers, as it moves.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`].
    pub fn end(&self, topic: &TopicName) -> Result<watch::Receiver<u64>, BusError> {
        Ok(self.inner.log.watch(self.inner.topic(topic)?.id))
    }

    /// First kept and next offset of a topic.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`].
    pub fn bounds(&self, topic: &TopicName) -> Result<levada_log::Bounds, BusError> {
        Ok(self.inner.log.bounds(self.inner.topic(topic)?.id))
    }

    /// The first offset published at or after a time.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`].
    pub fn offset_at(&self, topic: &TopicName, timestamp_ms: i64) -> Result<u64, BusError> {
        Ok(self.inner.log.offset_at(self.inner.topic(topic)?.id, timestamp_ms)?)
    }

    /// Every topic that has a name in the project folder, by name.
    pub fn topics(&self) -> Vec<TopicInfo> {
        let is_shown = |t: &&Arc<TopicState>| !t.name.is_internal();
        let mut topics: Vec<_> = self.inner.topics.read().values().filter(is_shown).cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.iter().map(|topic| self.inner.info(topic)).collect()
    }

    pub fn log_stats(&self) -> levada_log::LogStats {
        self.inner.log.stats()
    }
}

impl TopicState {
    fn new(id: TopicId, name: TopicName, retention: Retention) -> Self {
        Self {
            id,
            name,
            retention: Mutex::new(retention),
            needed_age: Mutex::default(),
            needed_from: Mutex::default(),
            durability: Mutex::default(),
            ordering: Mutex::default(),
            deduplicator: RwLock::default(),
            deleted: AtomicBool::new(false),
            counters: TopicCounters::default(),
            meters: OnceLock::new(),
            committed: AtomicU64::new(0),
            told: AtomicU64::new(0),
            lanes: RwLock::default(),
        }
    }

    /// What metrics call it: a topic that is made again goes on with the figures of before.
    pub fn label(&self) -> String {
        let name = self.name.as_str();
        match name.rsplit_once('.') {
            Some((label, _)) if self.name.is_internal() => label.to_owned(),
            _ => name.to_owned(),
        }
    }

    pub fn meters(&self) -> &PublishMeters {
        self.meters.get_or_init(|| PublishMeters::of(&self.label()))
    }

    pub fn lane_counters(&self, lane: u32, tenant: &TenantId) -> Arc<LaneCounters> {
        if let Some((_, counters)) = self.lanes.read().get(&lane) {
            return counters.clone();
        }
        self.lanes.write().entry(lane).or_insert_with(|| (tenant.clone(), Arc::default())).1.clone()
    }
}

impl Inner {
    /// The topic with this retention, made when there is none.
    pub fn ensure(&self, name: &TopicName, retention: Retention) -> Result<Arc<TopicState>, BusError> {
        if let Ok(topic) = self.topic(name) {
            *topic.retention.lock() = retention;
            return Ok(topic);
        }
        // Those of the port and those of the folder are counted apart: who makes many of the one
        // must not keep a server from starting with the other.
        let is_there = |t: &&Arc<TopicState>| {
            t.name.is_internal() == name.is_internal() && !t.deleted.load(Ordering::Acquire)
        };
        if self.topics.read().values().filter(is_there).count() >= self.config.max_topics {
            return Err(BusError::TooManyTopics(self.config.max_topics));
        }
        let id = self.log.topic(name)?;
        let state = Arc::new(TopicState::new(id, name.clone(), retention));
        Ok(self.topics.write().entry(name.clone()).or_insert(state).clone())
    }

    /// The offset that the next record will get, as far as this process knows: readers may
    /// see the end a moment later.
    pub fn end_of(&self, topic: &TopicState) -> u64 {
        self.log.bounds(topic.id).next.max(topic.committed.load(Ordering::Acquire))
    }

    /// The offset behind the last record, which is durable when this answers: what is kept
    /// elsewhere must not point behind what a power loss leaves. Blocks on the disk.
    pub fn durable_end_of(&self, topic: &TopicState) -> Result<u64, BusError> {
        let visible = self.log.bounds(topic.id).next;
        let known = topic.committed.load(Ordering::Acquire);
        if known <= visible {
            return Ok(visible);
        }
        let end = self.log.durable_end(topic.id)?;
        if end < known {
            // What a topic in memory answered and could not write is gone, its offsets are free.
            let _ = topic.committed.compare_exchange(known, end, Ordering::AcqRel, Ordering::Acquire);
        }
        Ok(end)
    }

    pub fn topic(&self, name: &TopicName) -> Result<Arc<TopicState>, BusError> {
        self.topics.read().get(name).cloned().ok_or_else(|| BusError::UnknownTopic(name.clone()))
    }

    pub fn deliver(&self, topic: &TopicName, record: Stored) -> Result<Delivered, BusError> {
        let unreadable =
            |reason: String| BusError::Record { topic: topic.clone(), offset: record.offset, reason };
        let (ordering_key, attributes) =
            codec::decode(&record.head).map_err(|e| unreadable(e.to_string()))?;
        let tenant = self
            .log
            .lane_name(record.lane)
            .ok_or_else(|| unreadable(format!("lane {} has no tenant", record.lane)))?;
        let message = Message { tenant, attributes, ordering_key, body: record.body };
        Ok(Delivered {
            offset: record.offset,
            published_at_ms: record.timestamp_ms,
            lane: record.lane,
            message,
        })
    }

    pub fn permits_per_lane(&self) -> usize {
        (self.config.tenant_in_flight_bytes / PERMIT_BYTES).clamp(1, u32::MAX as usize)
    }

    pub async fn lane(&self, tenant: &TenantId) -> Result<Lane, BusError> {
        if let Some(lane) = self.lanes.read().get(tenant) {
            return Ok(lane.clone());
        }
        let log = self.log.clone();
        let name = tenant.clone();
        let id =
            tokio::task::spawn_blocking(move || log.lane(&name)).await.map_err(|_| BusError::Closed)??;
        let owner = QuotaOwner::Tenant(tenant.clone());
        self.window.bound(id, self.config.quotas.limit(&owner, Quota::IdempotencyKeys));
        let lane = Lane { id, in_flight: Arc::new(Semaphore::new(self.permits_per_lane())) };
        Ok(self.lanes.write().entry(tenant.clone()).or_insert(lane).clone())
    }

    fn info(&self, topic: &TopicState) -> TopicInfo {
        let bounds = self.log.bounds(topic.id);
        ::metrics::gauge!(names::TOPIC_BYTES, "topic" => topic.label()).set(bounds.bytes as f64);
        let shown = |(tenant, lane): &(TenantId, Arc<LaneCounters>)| LaneStats {
            tenant: tenant.clone(),
            published: TopicCounters::get(&lane.published),
            published_bytes: TopicCounters::get(&lane.published_bytes),
        };
        let mut lanes: Vec<LaneStats> = topic.lanes.read().values().map(shown).collect();
        lanes.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        TopicInfo {
            name: topic.name.clone(),
            first: bounds.first,
            next: bounds.next,
            bytes: bounds.bytes,
            published: TopicCounters::get(&topic.counters.published),
            duplicates: TopicCounters::get(&topic.counters.duplicates),
            durability: crate::port::Durability::from(*topic.durability.lock()).as_str(),
            commit_us_p50: topic.counters.commit_us(50),
            commit_us_p99: topic.counters.commit_us(99),
            lanes,
        }
    }
}
