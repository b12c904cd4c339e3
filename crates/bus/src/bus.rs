//! The bus handle: topics, publish, read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use levada_core::{Clock, Message, Problem, TenantContext, TenantId, TopicName, attr};
use levada_disk::Disk;
use levada_log::{Append, Log, Stored, TopicId};
use levada_store::DocumentStore;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use crate::codec;
use crate::config::{BusConfig, BusError, Retention, TopicConfig};
use crate::idempotency::{Entry, KeyHash, Outcome, Reservation, SharedWindow, Window, fingerprint};
use crate::metrics as names;
use crate::stats::{LaneStats, TopicCounters, TopicInfo};

const LOG_DIR: &str = "log";
const WINDOW_DIR: &str = "bus/window";
const STORE_DIR: &str = "bus/state";
/// The window is saved once this many keys are unsaved.
const SAVE_EVERY_KEYS: usize = 100_000;
/// How long a duplicate waits for the first's record to be readable.
const VISIBLE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);
/// A permit of the in-flight cap stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

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
    pub counters: TopicCounters,
    pub lanes: RwLock<BTreeMap<TenantId, Arc<LaneCounters>>>,
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
    lanes: RwLock<HashMap<TenantId, Lane>>,
    window: SharedWindow,
    /// Publishes hold it shared; the saver holds it alone to read a consistent cut.
    publishing: tokio::sync::RwLock<()>,
    pub dead: Mutex<HashMap<TopicName, Arc<Mutex<crate::dead::Resent>>>>,
    pub subscriptions: crate::pull::Registry,
}

#[derive(Clone)]
struct Lane {
    id: u32,
    in_flight: Arc<Semaphore>,
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
        let topics = log
            .topics()
            .into_iter()
            .map(|(id, name)| (name.clone(), Arc::new(TopicState::new(id, name, config.default_retention))))
            .collect();
        let inner = Arc::new(Inner {
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
            subscriptions: Mutex::default(),
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
        if let Ok(topic) = self.inner.topic(name) {
            *topic.retention.lock() = retention;
            return Ok(());
        }
        if self.inner.topics.read().len() >= self.inner.config.max_topics {
            return Err(BusError::TooManyTopics(self.inner.config.max_topics));
        }
        let id = self.inner.log.topic(name)?;
        let state = Arc::new(TopicState::new(id, name.clone(), retention));
        self.inner.topics.write().entry(name.clone()).or_insert(state);
        Ok(())
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
        Ok(self.inner.log.offset_at(self.inner.topic(topic)?.id, timestamp_ms))
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<TopicInfo> {
        let mut topics: Vec<_> = self.inner.topics.read().values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.iter().map(|topic| self.inner.info(topic)).collect()
    }

    pub fn log_stats(&self) -> levada_log::LogStats {
        self.inner.log.stats()
    }

    /// Applies retention and saves the idempotency window where that is due. Call it every
    /// few seconds.
    ///
    /// # Errors
    /// The first [`BusError`]; the rest of the work was still tried.
    pub async fn maintain(&self) -> Result<(), BusError> {
        let saved =
            if self.inner.window.unsaved() >= SAVE_EVERY_KEYS { self.save_window().await } else { Ok(()) };
        let inner = self.inner.clone();
        let retained =
            tokio::task::spawn_blocking(move || inner.retain()).await.map_err(|_| BusError::Closed)?;
        saved.and(self.save_subscriptions()).and(retained)
    }

    async fn save_window(&self) -> Result<(), BusError> {
        let alone = self.inner.publishing.write().await;
        let covered: Vec<(u32, u64)> =
            self.inner.topics.read().values().map(|t| (t.id.0, self.inner.log.bounds(t.id).next)).collect();
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
        let subscriptions = self.save_subscriptions();
        let log = self.inner.log.clone();
        let closed = tokio::task::spawn_blocking(move || log.close()).await.map_err(|_| BusError::Closed)?;
        saved.and(subscriptions).and(closed.map_err(BusError::from))
    }
}

impl TopicState {
    fn new(id: TopicId, name: TopicName, retention: Retention) -> Self {
        Self {
            id,
            name,
            retention: Mutex::new(retention),
            counters: TopicCounters::default(),
            lanes: RwLock::default(),
        }
    }

    fn lane_counters(&self, tenant: &TenantId) -> Arc<LaneCounters> {
        if let Some(counters) = self.lanes.read().get(tenant) {
            return counters.clone();
        }
        self.lanes.write().entry(tenant.clone()).or_default().clone()
    }
}

/// What becomes of one message of a publish.
enum Admitted {
    Refused(Problem),
    Append { index: usize, id: Option<String>, key: Option<(KeyHash, u64)> },
    Known(u64),
    Wait(watch::Receiver<Outcome>),
}

impl Inner {
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

    async fn publish(
        &self,
        topic: &TopicState,
        items: Vec<Publish>,
    ) -> Result<Vec<Result<Published, Problem>>, BusError> {
        let _shared = self.publishing.read().await;
        let now_ms = self.clock.now_ms();
        let mut appends = Vec::with_capacity(items.len());
        let mut admitted = Vec::with_capacity(items.len());
        let mut weights: BTreeMap<TenantId, (usize, u64)> = BTreeMap::new();
        for item in items {
            let lane = self.lane(&item.message.tenant).await;
            let outcome =
                lane.and_then(|lane| self.admit(topic, item, lane.id, now_ms, &mut appends, &mut weights));
            match outcome {
                Ok(outcome) => admitted.push(outcome),
                Err(error) => {
                    self.window.release(&reserved(&admitted));
                    return Err(error);
                }
            }
        }
        let offsets = match self.append(appends, &weights).await {
            Ok(offsets) => offsets,
            Err(error) => {
                self.window.release(&reserved(&admitted));
                return Err(error);
            }
        };
        self.remember(topic, &admitted, &offsets, now_ms);
        self.count(topic, &admitted, &weights);
        let mut results = Vec::with_capacity(admitted.len());
        for outcome in admitted {
            results.push(self.settle(topic, outcome, &offsets).await);
        }
        Ok(results)
    }

    async fn append(
        &self,
        appends: Vec<Append>,
        weights: &BTreeMap<TenantId, (usize, u64)>,
    ) -> Result<Vec<u64>, BusError> {
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of tenants, so that two publishes cannot wait for each other.
        let mut permits = Vec::with_capacity(weights.len());
        for (tenant, (bytes, _)) in weights {
            let lane = self.lane(tenant).await?;
            let wanted = bytes.div_ceil(PERMIT_BYTES).min(self.permits_per_lane());
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            permits.push(lane.in_flight.acquire_many_owned(wanted).await.map_err(|_| BusError::Closed)?);
        }
        Ok(self.log.append(appends).await?)
    }

    fn permits_per_lane(&self) -> usize {
        (self.config.tenant_in_flight_bytes / PERMIT_BYTES).clamp(1, u32::MAX as usize)
    }

    fn admit(
        &self,
        topic: &TopicState,
        item: Publish,
        lane: u32,
        now_ms: i64,
        appends: &mut Vec<Append>,
        weights: &mut BTreeMap<TenantId, (usize, u64)>,
    ) -> Result<Admitted, BusError> {
        let Publish { context, mut message, idempotency_key } = item;
        if *context.tenant() != message.tenant {
            return Ok(Admitted::Refused(Problem::new(
                403,
                "tenant-mismatch",
                "the message belongs to another tenant than its publisher acts for",
            )));
        }
        let mut key = None;
        if let Some(text) = idempotency_key {
            let hash = KeyHash::new(&topic.name, &message.tenant, &text);
            let print = fingerprint(&message.body);
            match self.window.reserve(hash, print, now_ms) {
                Reservation::New => key = Some((hash, print)),
                Reservation::Duplicate(offset) => return Ok(Admitted::Known(offset)),
                Reservation::Wait(outcome) => return Ok(Admitted::Wait(outcome)),
                Reservation::Conflict => return Ok(Admitted::Refused(conflict(&text))),
            }
            if message.attributes.get(attr::IDEMPOTENCY_KEY) != Some(&*text) {
                message.attributes.set(attr::IDEMPOTENCY_KEY, &text);
            }
        }
        let head = codec::encode(&message);
        let bytes = head.len() + message.body.len();
        if bytes > self.config.max_message_bytes {
            if let Some((hash, _)) = key {
                self.window.release(&[hash]);
            }
            return Ok(Admitted::Refused(too_large(bytes, self.config.max_message_bytes)));
        }
        let id = message.attributes.get(attr::EVENT_ID).map(str::to_owned);
        let weight = weights.entry(message.tenant).or_default();
        *weight = (weight.0 + bytes, weight.1 + 1);
        let index = appends.len();
        appends.push(Append {
            topic: topic.id,
            lane,
            key_id: 0,
            timestamp_ms: now_ms,
            head,
            body: message.body,
        });
        Ok(Admitted::Append { index, id, key })
    }

    fn remember(&self, topic: &TopicState, admitted: &[Admitted], offsets: &[u64], now_ms: i64) {
        let entries: Vec<Entry> = admitted
            .iter()
            .filter_map(|outcome| match outcome {
                Admitted::Append { index, key: Some((key, fingerprint)), .. } => Some(Entry {
                    key: *key,
                    fingerprint: *fingerprint,
                    topic: topic.id.0,
                    offset: offsets[*index],
                    at_ms: now_ms,
                }),
                _ => None,
            })
            .collect();
        self.window.complete(&entries);
    }

    async fn settle(
        &self,
        topic: &TopicState,
        outcome: Admitted,
        offsets: &[u64],
    ) -> Result<Published, Problem> {
        match outcome {
            Admitted::Refused(problem) => Err(problem),
            Admitted::Append { index, id, .. } => {
                let offset = offsets[index];
                let id = id.unwrap_or_else(|| format!("{}/{offset}", topic.name));
                Ok(Published { id, offset, duplicate: false })
            }
            Admitted::Known(offset) => Ok(self.known(topic, offset).await),
            Admitted::Wait(mut outcome) => {
                let settled = outcome.wait_for(|o| *o != Outcome::Pending).await.map(|o| *o);
                match settled {
                    Ok(Outcome::At(offset)) => Ok(self.known(topic, offset).await),
                    _ => Err(Problem::new(
                        503,
                        "publish-failed",
                        "the first publish of this idempotency key failed",
                    )
                    .hint("send it again")
                    .retry_after_s(1)),
                }
            }
        }
    }

    /// The answer to a duplicate: the first's event id, read from its record. A record that
    /// retention removed is named by its place.
    async fn known(&self, topic: &TopicState, offset: u64) -> Published {
        // Committed, but maybe not yet demultiplexed: readers see it in a moment.
        let mut end = self.log.watch(topic.id);
        let visible = end.wait_for(|end| *end > offset);
        let _ = tokio::time::timeout(VISIBLE_WITHIN, visible).await;
        let record = self.log.read(topic.id, offset, 1, 1).ok().and_then(|mut r| r.pop());
        let id = record
            .filter(|r| r.offset == offset)
            .and_then(|r| codec::decode(&r.head).ok())
            .and_then(|(_, attributes)| attributes.get(attr::EVENT_ID).map(str::to_owned))
            .unwrap_or_else(|| format!("{}/{offset}", topic.name));
        Published { id, offset, duplicate: true }
    }

    fn count(&self, topic: &TopicState, admitted: &[Admitted], weights: &BTreeMap<TenantId, (usize, u64)>) {
        let name = topic.name.to_string();
        let (mut published, mut bytes) = (0, 0);
        for (tenant, (lane_bytes, lane_count)) in weights {
            let lane = topic.lane_counters(tenant);
            TopicCounters::add(&lane.published, *lane_count);
            TopicCounters::add(&lane.published_bytes, *lane_bytes as u64);
            published += lane_count;
            bytes += *lane_bytes as u64;
        }
        let duplicates =
            admitted.iter().filter(|a| matches!(a, Admitted::Known(_) | Admitted::Wait(_))).count() as u64;
        let conflicts = admitted
            .iter()
            .filter(|a| matches!(a, Admitted::Refused(p) if p.code == "idempotency-conflict"))
            .count() as u64;
        TopicCounters::add(&topic.counters.published, published);
        TopicCounters::add(&topic.counters.duplicates, duplicates);
        ::metrics::counter!(names::PUBLISHED, "topic" => name.clone()).increment(published);
        ::metrics::counter!(names::PUBLISHED_BYTES, "topic" => name.clone()).increment(bytes);
        if duplicates > 0 {
            ::metrics::counter!(names::DUPLICATES, "topic" => name.clone()).increment(duplicates);
        }
        if conflicts > 0 {
            ::metrics::counter!(names::CONFLICTS, "topic" => name).increment(conflicts);
        }
    }

    async fn lane(&self, tenant: &TenantId) -> Result<Lane, BusError> {
        if let Some(lane) = self.lanes.read().get(tenant) {
            return Ok(lane.clone());
        }
        let log = self.log.clone();
        let name = tenant.clone();
        let id =
            tokio::task::spawn_blocking(move || log.lane(&name)).await.map_err(|_| BusError::Closed)??;
        let lane = Lane { id, in_flight: Arc::new(Semaphore::new(self.permits_per_lane())) };
        Ok(self.lanes.write().entry(tenant.clone()).or_insert(lane).clone())
    }

    fn info(&self, topic: &TopicState) -> TopicInfo {
        let bounds = self.log.bounds(topic.id);
        ::metrics::gauge!(names::TOPIC_BYTES, "topic" => topic.name.to_string()).set(bounds.bytes as f64);
        let lanes = topic.lanes.read();
        TopicInfo {
            name: topic.name.clone(),
            first: bounds.first,
            next: bounds.next,
            bytes: bounds.bytes,
            published: TopicCounters::get(&topic.counters.published),
            duplicates: TopicCounters::get(&topic.counters.duplicates),
            lanes: lanes
                .iter()
                .map(|(tenant, lane)| LaneStats {
                    tenant: tenant.clone(),
                    published: TopicCounters::get(&lane.published),
                    published_bytes: TopicCounters::get(&lane.published_bytes),
                })
                .collect(),
        }
    }

    fn retain(&self) -> Result<(), BusError> {
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        ::metrics::gauge!(names::IDEMPOTENCY_KEYS).set(self.window.len() as f64);
        let mut first_error = Ok(());
        for topic in topics {
            let retention = *topic.retention.lock();
            let retention = levada_log::Retention {
                max_age_ms: retention.max_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
                max_bytes: retention.max_bytes,
            };
            if let Err(error) = self.log.retain(topic.id, retention) {
                first_error = first_error.and(Err(error.into()));
            }
        }
        first_error
    }

    /// Loads the saved window, then reads the records published after it was saved.
    fn restore_window(&self) -> Result<u64, BusError> {
        let now_ms = self.clock.now_ms();
        let covered = self
            .window
            .load(&*self.disk, WINDOW_DIR, now_ms)
            .map_err(|e| BusError::Store(format!("cannot load the idempotency window: {e}")))?;
        let window_ms = i64::try_from(self.config.idempotency_window.as_millis()).unwrap_or(i64::MAX);
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        let mut scanned = 0;
        for topic in topics {
            let next = self.log.bounds(topic.id).next;
            let mut at = match covered.get(&topic.id.0) {
                Some(&saved) => saved,
                None => self.window_start(&topic, next, window_ms)?,
            };
            while at < next {
                let records = self.log.read(topic.id, at, 4096, 4 << 20)?;
                let Some(last) = records.last() else { break };
                at = last.offset + 1;
                scanned += records.len() as u64;
                for record in records {
                    self.restore_record(&topic, record, now_ms)?;
                }
            }
        }
        Ok(scanned)
    }

    /// Where the window of a topic began when its last record was written.
    fn window_start(&self, topic: &TopicState, next: u64, window_ms: i64) -> Result<u64, BusError> {
        let last = self.log.read(topic.id, next.saturating_sub(1), 1, 1)?;
        let newest_ms = last.first().map_or(0, |record| record.timestamp_ms);
        Ok(self.log.offset_at(topic.id, newest_ms.saturating_sub(window_ms)))
    }

    fn restore_record(&self, topic: &TopicState, record: Stored, now_ms: i64) -> Result<(), BusError> {
        let delivered = self.deliver(&topic.name, record)?;
        if let Some(text) = delivered.message.attributes.get(attr::IDEMPOTENCY_KEY) {
            let entry = Entry {
                key: KeyHash::new(&topic.name, &delivered.message.tenant, text),
                fingerprint: fingerprint(&delivered.message.body),
                topic: topic.id.0,
                offset: delivered.offset,
                at_ms: delivered.published_at_ms,
            };
            self.window.restore(entry, now_ms);
        }
        Ok(())
    }
}

fn reserved(admitted: &[Admitted]) -> Vec<KeyHash> {
    admitted
        .iter()
        .filter_map(|outcome| match outcome {
            Admitted::Append { key: Some((hash, _)), .. } => Some(*hash),
            _ => None,
        })
        .collect()
}

fn conflict(key: &str) -> Problem {
    let key: String = key.chars().take(80).collect();
    Problem::new(
        409,
        "idempotency-conflict",
        format!("idempotency key `{key}` was used with another payload"),
    )
    .hint("give a corrected event a new event_id or idempotency_key")
}

fn too_large(bytes: usize, limit: usize) -> Problem {
    Problem::new(413, "message-too-large", format!("the message has {bytes} bytes, the limit is {limit}"))
        .hint("store large payloads as objects and publish a reference")
}
