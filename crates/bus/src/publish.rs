//! The publish path: admit, append as one group, remember, answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use levada_core::{Message, Problem, TenantId, attr};
use levada_log::{Append, LogError};
use tokio::sync::watch;

use crate::bus::{Inner, Lane, PERMIT_BYTES, Publish, Published, TopicState};
use crate::codec;
use crate::config::BusError;
use crate::deduplication::{Deduplicator, Reserved, ValueHash};
use crate::idempotency::{Entry, KeyHash, Outcome, Reservation, fingerprint};
use crate::key;
use crate::metrics as names;
use crate::owners;
use crate::stats::TopicCounters;

/// How long a duplicate waits for the first's record to be readable.
const VISIBLE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Of a large publish so many are admitted before others have their turn on the thread.
const MESSAGES_AT_ONCE: usize = 128;

/// What one tenant has in a publish. Kept by the number of its lane.
struct Weight {
    tenant: TenantId,
    lane: Lane,
    bytes: usize,
    count: u64,
}

type Weights = BTreeMap<u32, Weight>;

/// A message on its way in.
pub(crate) struct Submission {
    pub publish: Publish,
    /// Whether the topic's deduplication looks at it.
    pub deduplicate: bool,
}

/// What was reserved for one message.
#[derive(Default, Clone, Copy)]
struct Keys {
    /// With the fingerprint of the body and the lane of the tenant.
    idempotency: Option<(KeyHash, u64, u32)>,
    value: Option<ValueHash>,
}

/// What becomes of one message of a publish.
enum Admitted {
    Refused(Problem),
    Append { index: usize, id: Option<String>, keys: Keys },
    Known(u64),
    Wait(watch::Receiver<Outcome>),
}

/// One call of publish: the topic, and what it had when the call began.
struct Call<'a> {
    topic: &'a TopicState,
    deduplicator: Option<Arc<Deduplicator>>,
    now_ms: i64,
}

impl Inner {
    pub async fn publish(
        &self,
        topic: &TopicState,
        items: Vec<Submission>,
    ) -> Result<Vec<Result<Published, Problem>>, BusError> {
        let _shared = self.publishing.read().await;
        let now_ms = self.clock.now_ms();
        let call = Call { topic, deduplicator: topic.deduplicator.read().clone(), now_ms };
        let mut appends = Vec::with_capacity(items.len());
        let mut admitted = Vec::with_capacity(items.len());
        let mut weights = Weights::new();
        for (nth, item) in items.into_iter().enumerate() {
            if nth % MESSAGES_AT_ONCE == MESSAGES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let lane = self.lane(&item.publish.message.tenant).await;
            let outcome = match lane {
                Ok(lane) => self.admit(&call, item, lane, &mut appends, &mut weights).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(outcome) => admitted.push(outcome),
                Err(error) => {
                    self.release(&call, &admitted);
                    return Err(error);
                }
            }
        }
        let offsets = match self.append(topic, appends, &weights).await {
            Ok(offsets) => offsets,
            Err(error) => {
                self.release(&call, &admitted);
                return Err(error);
            }
        };
        if let Some(last) = offsets.iter().max() {
            topic.committed.fetch_max(last + 1, std::sync::atomic::Ordering::AcqRel);
        }
        self.remember(&call, &admitted, &offsets);
        self.count(topic, &admitted, &weights);
        let mut results = Vec::with_capacity(admitted.len());
        for outcome in admitted {
            results.push(self.settle(topic, outcome, &offsets).await);
        }
        Ok(results)
    }

    async fn append(
        &self,
        topic: &TopicState,
        appends: Vec<Append>,
        weights: &Weights,
    ) -> Result<Vec<u64>, BusError> {
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of lanes, so that two publishes cannot wait for each other.
        let mut permits = Vec::with_capacity(weights.len());
        for Weight { lane, bytes, .. } in weights.values() {
            let wanted = bytes.div_ceil(PERMIT_BYTES).min(self.permits_per_lane());
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            permits.push(lane.in_flight.acquire_many(wanted).await.map_err(|_| BusError::Closed)?);
        }
        let (durability, begun) = (*topic.durability.lock(), Instant::now());
        let offsets = self.log.append_as(appends, durability).await?;
        topic.counters.committed(begun.elapsed());
        topic.meters().commit_seconds.record(begun.elapsed());
        Ok(offsets)
    }

    async fn admit(
        &self,
        call: &Call<'_>,
        item: Submission,
        lane: Lane,
        appends: &mut Vec<Append>,
        weights: &mut Weights,
    ) -> Result<Admitted, BusError> {
        let Submission { publish: Publish { context, mut message, idempotency_key }, deduplicate } = item;
        if *context.tenant() != message.tenant {
            return Ok(Admitted::Refused(Problem::new(
                403,
                "tenant-mismatch",
                "the message belongs to another tenant than its publisher acts for",
            )));
        }
        if !self.owners.admit(&call.topic.name, &message.tenant) {
            return Ok(Admitted::Refused(owners::unknown(&call.topic.name)));
        }
        message.correct_owner();
        let mut keys = Keys::default();
        if let Some(text) = idempotency_key {
            let hash = KeyHash::new(&call.topic.name, &message.tenant, &text);
            let print = fingerprint(&message.body);
            match self.window.reserve(hash, print, call.now_ms) {
                Reservation::New => keys.idempotency = Some((hash, print, lane.id)),
                Reservation::Duplicate(offset) => return Ok(Admitted::Known(offset)),
                Reservation::Wait(outcome) => return Ok(Admitted::Wait(outcome)),
                Reservation::Conflict => return Ok(Admitted::Refused(conflict(&text))),
            }
            key::carry(&mut message.attributes, &text);
        }
        if let Some(deduplicator) = call.deduplicator.as_deref().filter(|_| deduplicate) {
            match self.reserve_value(call, deduplicator, &message).await {
                Ok(value) => keys.value = value,
                Err(other) => {
                    self.release_keys(call, [keys].iter());
                    return other;
                }
            }
        }
        let head = codec::encode(&message);
        let bytes = head.len() + message.body.len();
        if bytes > self.config.max_message_bytes {
            self.release_keys(call, [keys].iter());
            return Ok(Admitted::Refused(too_large(bytes, self.config.max_message_bytes)));
        }
        let id = message.attributes.get(attr::EVENT_ID).map(str::to_owned);
        let lane_id = lane.id;
        let weight = weights.entry(lane_id).or_insert_with(|| Weight {
            tenant: message.tenant,
            lane,
            bytes: 0,
            count: 0,
        });
        weight.bytes += bytes;
        weight.count += 1;
        let index = appends.len();
        appends.push(Append {
            topic: call.topic.id,
            lane: lane_id,
            key_id: 0,
            timestamp_ms: call.now_ms,
            head,
            body: message.body,
        });
        Ok(Admitted::Append { index, id, keys })
    }

    /// Reserves the message's value of the topic's attribute, where it has one; else what
    /// becomes of the message.
    async fn reserve_value(
        &self,
        call: &Call<'_>,
        deduplicator: &Deduplicator,
        message: &Message,
    ) -> Result<Option<ValueHash>, Result<Admitted, BusError>> {
        let Some(text) = message.attributes.get(&deduplicator.attribute) else { return Ok(None) };
        let value = ValueHash::new(&message.tenant, text);
        let mut looked_at = deduplicator.look_up(value);
        loop {
            if let Some(offset) = looked_at {
                match self.is_same(call, deduplicator, message, offset).await {
                    Ok(true) => return Err(Ok(Admitted::Known(offset))),
                    Ok(false) => {}
                    Err(error) => return Err(Err(error)),
                }
            }
            match deduplicator.reserve(value, looked_at) {
                Reserved::New => return Ok(Some(value)),
                Reserved::Wait(outcome) => return Err(Ok(Admitted::Wait(outcome))),
                Reserved::Look(offset) => looked_at = Some(offset),
            }
        }
    }

    /// Whether the record at an offset is of the message's tenant and value, and in the window.
    /// What was damaged on disk is no message any more.
    async fn is_same(
        &self,
        call: &Call<'_>,
        deduplicator: &Deduplicator,
        message: &Message,
        offset: u64,
    ) -> Result<bool, BusError> {
        // Readers do not see it yet: it was published a moment ago.
        if offset >= self.log.bounds(call.topic.id).next {
            return Ok(true);
        }
        let (log, topic) = (self.log.clone(), call.topic.id);
        // It may be old, and its segment cold.
        let read = tokio::task::spawn_blocking(move || log.read(topic, offset, 1, 1));
        let records = match read.await.map_err(|_| BusError::Closed)? {
            Err(LogError::Corrupt(_)) => return Ok(false),
            records => records?,
        };
        let Some(record) = records.into_iter().find(|r| r.offset == offset) else { return Ok(false) };
        if record.timestamp_ms < call.now_ms.saturating_sub(deduplicator.window_ms()) {
            return Ok(false);
        }
        let attribute = &deduplicator.attribute;
        Ok(self.deliver(&call.topic.name, record).is_ok_and(|first| {
            first.message.tenant == message.tenant
                && first.message.attributes.get(attribute) == message.attributes.get(attribute)
        }))
    }

    fn remember(&self, call: &Call<'_>, admitted: &[Admitted], offsets: &[u64]) {
        let (mut entries, mut values) = (Vec::new(), Vec::new());
        for outcome in admitted {
            let Admitted::Append { index, keys, .. } = outcome else { continue };
            let offset = offsets[*index];
            entries.extend(keys.idempotency.map(|(key, fingerprint, lane)| Entry {
                key,
                fingerprint,
                topic: call.topic.id.0,
                lane,
                offset,
                at_ms: call.now_ms,
            }));
            values.extend(keys.value.map(|value| (value, offset)));
        }
        if !entries.is_empty() {
            self.window.complete(&entries);
        }
        if let Some(deduplicator) = call.deduplicator.as_deref().filter(|_| !values.is_empty()) {
            deduplicator.complete(&values);
        }
    }

    /// Ends the reservations of messages that were not kept.
    fn release(&self, call: &Call<'_>, admitted: &[Admitted]) {
        let keys = admitted.iter().filter_map(|outcome| match outcome {
            Admitted::Append { keys, .. } => Some(keys),
            _ => None,
        });
        self.release_keys(call, keys);
    }

    fn release_keys<'k>(&self, call: &Call<'_>, keys: impl Iterator<Item = &'k Keys>) {
        let (mut hashes, mut values) = (Vec::new(), Vec::new());
        for keys in keys {
            hashes.extend(keys.idempotency.map(|(hash, _, _)| hash));
            values.extend(keys.value);
        }
        if !hashes.is_empty() {
            self.window.release(&hashes);
        }
        if let Some(deduplicator) = call.deduplicator.as_deref().filter(|_| !values.is_empty()) {
            deduplicator.release(&values);
        }
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
        let (log, topic_id) = (self.log.clone(), topic.id);
        let read = tokio::task::spawn_blocking(move || log.read(topic_id, offset, 1, 1));
        let record = read.await.ok().and_then(Result::ok).and_then(|mut r| r.pop());
        let id = record
            .filter(|r| r.offset == offset)
            .and_then(|r| codec::decode(&r.head).ok())
            .and_then(|(_, attributes)| attributes.get(attr::EVENT_ID).map(str::to_owned))
            .unwrap_or_else(|| format!("{}/{offset}", topic.name));
        Published { id, offset, duplicate: true }
    }

    fn count(&self, topic: &TopicState, admitted: &[Admitted], weights: &Weights) {
        let (mut published, mut bytes) = (0, 0);
        for (id, weight) in weights {
            let lane = topic.lane_counters(*id, &weight.tenant);
            TopicCounters::add(&lane.published, weight.count);
            TopicCounters::add(&lane.published_bytes, weight.bytes as u64);
            published += weight.count;
            bytes += weight.bytes as u64;
        }
        let duplicates =
            admitted.iter().filter(|a| matches!(a, Admitted::Known(_) | Admitted::Wait(_))).count() as u64;
        let conflicts = admitted
            .iter()
            .filter(|a| matches!(a, Admitted::Refused(p) if p.code == "idempotency-conflict"))
            .count() as u64;
        TopicCounters::add(&topic.counters.published, published);
        TopicCounters::add(&topic.counters.duplicates, duplicates);
        let meters = topic.meters();
        meters.published.increment(published);
        meters.published_bytes.increment(bytes);
        if duplicates > 0 {
            ::metrics::counter!(names::DUPLICATES, "topic" => topic.label()).increment(duplicates);
        }
        if conflicts > 0 {
            ::metrics::counter!(names::CONFLICTS, "topic" => topic.label()).increment(conflicts);
        }
    }
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
