//! Messages that failed too often, and those that an operator takes away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, SecondsFormat};
use levada_core::{Message, TopicName, attr};
use levada_log::{Append, Stored};

use crate::bus::TopicState;
use crate::codec;
use crate::config::BusError;
use crate::delivery::Lease;
use crate::embedded::Embedded;
use crate::embedded::schedule;
use crate::embedded::subscription::Subscription;
use crate::metrics as names;
use crate::port::{PortError, SubscriptionSpec};
use crate::shared_names;
use crate::stats::TopicCounters;

/// Codes of dead letters: deliveries used up, and parked with its key.
const TOO_OFTEN: &str = "delivery-attempts-exhausted";
const PARKED: &str = "delivery-parked";
/// Moved in one commit group at most.
const GROUP_BYTES: usize = 8 << 20;
/// Read at once: each may have 10 MB.
const PART_RECORDS: usize = 32;

impl Embedded {
    /// Moves messages that have failed too often to the dead-letter topic. What cannot be
    /// moved is delivered again. Blocks on the disk.
    pub fn bury(&self, subscription: &Subscription, spent: Vec<Lease>) {
        if spent.is_empty() {
            return;
        }
        let attempts: Vec<(u64, u32)> = spent.iter().map(|lease| (lease.offset, lease.attempt)).collect();
        if let Err(error) = self.move_to_dead_letter(subscription, &attempts, None) {
            let name = &subscription.spec().name;
            tracing::warn!(%error, subscription = %name, "no dead letter was written; the messages come again");
        }
        let now = self.now();
        let mut machine = subscription.machine.lock();
        // Those that were moved are settled, and this leaves them alone.
        attempts.iter().for_each(|(offset, _)| machine.state.put_back(*offset, now));
        drop(machine);
        subscription.ready.notify_waiters();
    }

    /// Moves messages of one lane to the dead letter because an operator wants it.
    pub fn park(&self, subscription: &Subscription, lane: u32, offsets: Vec<u64>) -> Result<(), PortError> {
        let attempts: Vec<(u64, u32)> = offsets.iter().map(|offset| (*offset, 0)).collect();
        let moved = self.move_to_dead_letter(subscription, &attempts, Some(lane));
        let now = self.now();
        let mut machine = subscription.machine.lock();
        // What was not moved goes on as before.
        offsets.iter().for_each(|offset| machine.state.put_back(*offset, now));
        drop(machine);
        subscription.ready.notify_waiters();
        moved
    }

    /// Acknowledges a message because an operator wants it. Blocks on the disk.
    pub fn skip(&self, subscription: &Subscription, offset: u64) -> Result<(), PortError> {
        let _writing = self.journal.writing.blocking_read();
        let now_ms = self.bus.inner.clock.now_ms();
        let generation = subscription.machine.lock().generation;
        let record = self.journal.acknowledged(subscription.number, generation, &mut [offset], now_ms);
        self.bus.inner.log.append_blocking(vec![record])?;
        let mut machine = subscription.machine.lock();
        if machine.generation == generation {
            machine.state.settle(offset);
        }
        drop(machine);
        self.flush_released(subscription);
        subscription.ready.notify_waiters();
        Ok(())
    }

    /// `lane`: only what is of this tenant.
    fn move_to_dead_letter(
        &self,
        subscription: &Subscription,
        messages: &[(u64, u32)],
        lane: Option<u32>,
    ) -> Result<(), PortError> {
        let spec = subscription.spec();
        let policy = spec.dead_letter.as_ref().ok_or_else(|| {
            PortError::FailedPrecondition(format!("the subscription {} has no dead-letter policy", spec.name))
        })?;
        let target = self.topic(&policy.topic)?.log;
        let _alone = subscription.burying.lock();
        let generation = subscription.machine.lock().generation;
        for part in messages.chunks(PART_RECORDS) {
            self.move_part(subscription, part, lane, generation, &spec, &target)?;
        }
        Ok(())
    }

    /// Few at a time: they are read as a whole.
    fn move_part(
        &self,
        subscription: &Subscription,
        messages: &[(u64, u32)],
        lane: Option<u32>,
        generation: u32,
        spec: &SubscriptionSpec,
        target: &Arc<TopicState>,
    ) -> Result<(), PortError> {
        let open = |offset: &u64| {
            let machine = subscription.machine.lock();
            machine.generation == generation && !machine.state.settled().contains(*offset)
        };
        let messages: Vec<_> = messages.iter().filter(|(offset, _)| open(offset)).collect();
        let offsets: Vec<u64> = messages.iter().map(|(offset, _)| *offset).collect();
        let records = self.load(subscription, &offsets)?;
        let mut group: Vec<(u64, Append)> = Vec::new();
        let mut bytes = 0;
        for ((offset, attempt), record) in messages.into_iter().zip(records) {
            let copy = match record {
                Some(record) if lane.is_some_and(|lane| lane != record.lane) => continue,
                Some(record) => self.copy(spec, record, *attempt, &subscription.log.name, target)?,
                None => {
                    // Retention took it: there is nothing left to move.
                    self.skip(subscription, *offset)?;
                    continue;
                }
            };
            bytes += copy.head.len() + copy.body.len();
            group.push((*offset, copy));
            if bytes >= GROUP_BYTES {
                self.move_group(subscription, target, generation, std::mem::take(&mut group))?;
                bytes = 0;
            }
        }
        self.move_group(subscription, target, generation, group)
    }

    /// The dead letter of a message.
    fn copy(
        &self,
        spec: &SubscriptionSpec,
        record: Stored,
        attempt: u32,
        source: &TopicName,
        target: &TopicState,
    ) -> Result<Append, BusError> {
        let (lane, published_at_ms, key_id) = (record.lane, record.timestamp_ms, record.key_id);
        let offset = record.offset;
        // Only topics of the project folder have a name that can be sent to again.
        let source = if source.is_internal() { String::new() } else { source.to_string() };
        let mut message: Message = self.bus.inner.deliver(&target.name, record)?.message;
        if !self.bus.inner.owners.admit(&target.name, &message.tenant) {
            return Err(BusError::UnknownTopic(target.name.clone()));
        }
        name_owner(spec, &mut message);
        let published = DateTime::from_timestamp_millis(published_at_ms).unwrap_or_default();
        let (code, reason) = match attempt {
            0 => (PARKED, "an operator took it away".to_owned()),
            _ => (TOO_OFTEN, format!("{attempt} deliveries failed")),
        };
        let from = match &spec.tenant {
            Some(tenant) => shared_names::shown_to(&spec.name, tenant),
            None => spec.name.clone(),
        };
        // It shall be seen now.
        message.attributes.remove(schedule::DELIVER_AT);
        message.attributes.remove(schedule::DELAY_MS);
        for (name, value) in [
            (attr::DEAD_CODE, code.to_owned()),
            (attr::DEAD_REASON, reason),
            (attr::DEAD_STAGE, format!("subscription {from}")),
            (attr::DEAD_ATTEMPTS, attempt.to_string()),
            (attr::DEAD_POSITION, offset.to_string()),
            (attr::DEAD_TOPIC, source),
            ("CloudPubSubDeadLetterSourceDeliveryCount", attempt.to_string()),
            ("CloudPubSubDeadLetterSourceSubscription", from.id.to_string()),
            ("CloudPubSubDeadLetterSourceSubscriptionProject", spec.name.project.to_string()),
            (
                "CloudPubSubDeadLetterSourceTopicPublishTime",
                published.to_rfc3339_opts(SecondsFormat::Millis, true),
            ),
        ] {
            message.attributes.set(name, &value);
        }
        Ok(Append {
            topic: target.id,
            lane,
            key_id,
            timestamp_ms: self.bus.inner.clock.now_ms(),
            head: codec::encode(&message),
            body: message.body,
        })
    }

    /// Copies and acknowledgements are one commit group: after a crash both are there or none.
    fn move_group(
        &self,
        subscription: &Subscription,
        target: &Arc<TopicState>,
        generation: u32,
        group: Vec<(u64, Append)>,
    ) -> Result<(), PortError> {
        let _writing = self.journal.writing.blocking_read();
        let group: Vec<(u64, Append)> = {
            let mut machine = subscription.machine.lock();
            // A seek came in between, and gave everything back.
            if machine.generation != generation {
                return Ok(());
            }
            // From here on no late acknowledgement counts: it would be in both places.
            group.into_iter().filter(|(offset, _)| machine.state.begin_move(*offset)).collect()
        };
        if group.is_empty() {
            return Ok(());
        }
        let (mut offsets, mut appends): (Vec<u64>, Vec<Append>) = group.into_iter().unzip();
        let lanes: Vec<(u32, usize)> =
            appends.iter().map(|a| (a.lane, a.head.len() + a.body.len())).collect();
        let now_ms = self.bus.inner.clock.now_ms();
        appends.push(self.journal.acknowledged(subscription.number, generation, &mut offsets, now_ms));
        let written = self.bus.inner.log.append_blocking(appends)?;
        if let Some(last) = written[..lanes.len()].iter().max() {
            target.committed.fetch_max(last + 1, Ordering::AcqRel);
        }
        for (lane, bytes) in &lanes {
            if let Some(tenant) = self.bus.inner.log.lane_name(*lane) {
                let counters = target.lane_counters(*lane, &tenant);
                TopicCounters::add(&counters.published, 1);
                TopicCounters::add(&counters.published_bytes, *bytes as u64);
            }
        }
        TopicCounters::add(&target.counters.published, lanes.len() as u64);
        let name = subscription.log.label();
        ::metrics::counter!(names::DEAD_LETTERS, "topic" => name, "code" => TOO_OFTEN)
            .increment(lanes.len() as u64);
        let mut machine = subscription.machine.lock();
        machine.dead_lettered += lanes.len() as u64;
        if machine.generation == generation {
            for offset in offsets {
                machine.state.settle(offset);
            }
        }
        drop(machine);
        self.flush_released(subscription);
        Ok(())
    }
}

/// In a tenant's own project its messages need not say whose they are, and may say anything.
/// Readers of another project rely on it.
fn name_owner(spec: &SubscriptionSpec, message: &mut Message) {
    let from = spec.topic.as_ref().map(|topic| &topic.project);
    let to = spec.dead_letter.as_ref().map(|policy| &policy.topic.project);
    if from == to { message.correct_owner() } else { message.name_owner() }
}
