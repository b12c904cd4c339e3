//! A subscription over the log: leases messages, waits for them, keeps its place.
//!
//! At least once: what is acknowledged is saved every second or so and at close; after a
//! crash, messages acknowledged since the last save come again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use levada_core::TopicName;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::bus::{Bus, Delivered};
use crate::config::BusError;
use crate::dead::DeadLetter;
use crate::lanes::Waiting;
use crate::subscription::{AckError, Lease, Settled, State, SubscriptionConfig};

const SCAN_RECORDS: usize = 4_096;
const SCAN_BYTES: usize = 8 << 20;

/// A message on lease.
#[derive(Debug, Clone)]
pub struct Leased {
    pub ack_id: u64,
    /// 1 at the first delivery.
    pub attempt: u32,
    pub delivered: Delivered,
}

pub(crate) struct Shared {
    name: String,
    topic: TopicName,
    state: Mutex<State>,
    end: watch::Receiver<u64>,
    changed: tokio::sync::Notify,
    dirty: AtomicBool,
}

/// A handle on a subscription; clones share its leases.
#[derive(Clone)]
pub struct Subscription {
    bus: Bus,
    shared: Arc<Shared>,
}

/// Open subscriptions by name.
pub(crate) type Registry = Mutex<HashMap<String, Arc<Shared>>>;

impl Bus {
    /// Opens a subscription by name, where it left off; a new one starts at the end of the topic.
    /// Opening one that is open gives another handle on it, with the first one's settings.
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`]; [`BusError::Store`] when its saved place cannot be read.
    pub fn subscribe(
        &self,
        name: &str,
        topic: &TopicName,
        config: SubscriptionConfig,
    ) -> Result<Subscription, BusError> {
        let mut open = self.inner.subscriptions.lock();
        if let Some(shared) = open.get(name) {
            return Ok(Subscription { bus: self.clone(), shared: shared.clone() });
        }
        let saved: Option<Settled> = self.inner.store.get(&document(name))?;
        let settled = match saved {
            Some(settled) => settled,
            None => {
                let fresh = Settled { floor: self.bounds(topic)?.next, ..Settled::default() };
                self.inner.store.put(&document(name), &fresh)?;
                fresh
            }
        };
        // Ids of an earlier run lie below: a millisecond leaves room for a million leases.
        let first_ack_id = u64::try_from(self.inner.clock.now_ms()).unwrap_or(0) << 20;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            topic: topic.clone(),
            state: Mutex::new(State::new(config, settled, first_ack_id)),
            end: self.end(topic)?,
            changed: tokio::sync::Notify::new(),
            dirty: AtomicBool::new(false),
        });
        open.insert(name.to_owned(), shared.clone());
        Ok(Subscription { bus: self.clone(), shared })
    }

    pub(crate) fn save_subscriptions(&self) -> Result<(), BusError> {
        let open: Vec<_> = self.inner.subscriptions.lock().values().cloned().collect();
        for shared in open {
            if shared.dirty.swap(false, Ordering::AcqRel) {
                let settled = shared.state.lock().settled().clone();
                if let Err(error) = self.inner.store.put(&document(&shared.name), &settled) {
                    shared.dirty.store(true, Ordering::Release);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

fn document(name: &str) -> String {
    format!("subscription-{name}")
}

impl Subscription {
    fn now(&self) -> Duration {
        self.bus.inner.clock.monotonic()
    }

    /// Leases up to `max` messages, waiting up to `wait` for the first. Dropping the future
    /// leaves no lease behind that its deadline would not end.
    ///
    /// # Errors
    /// [`BusError::Log`] for damage on disk.
    pub async fn pull(&self, max: usize, wait: Duration) -> Result<Vec<Leased>, BusError> {
        let give_up = tokio::time::Instant::now() + wait;
        let mut end = self.shared.end.clone();
        loop {
            let more = self.scan(&mut end)?;
            let (spent, leases, next) = {
                let mut state = self.shared.state.lock();
                let now = self.now();
                let spent = state.expire(now);
                (spent, state.lease(max, now), state.next_event())
            };
            self.bury(spent).await?;
            if !leases.is_empty() {
                return self.fetch(leases);
            }
            if more {
                continue;
            }
            if tokio::time::Instant::now() >= give_up {
                return Ok(Vec::new());
            }
            let until = next.map_or(give_up, |at| {
                give_up.min(tokio::time::Instant::now() + at.saturating_sub(self.now()))
            });
            tokio::select! {
                moved = end.changed() => if moved.is_err() { return Err(BusError::Closed) },
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Looks at the next records of the topic. True while more are there to look at.
    fn scan(&self, end: &mut watch::Receiver<u64>) -> Result<bool, BusError> {
        let mut state = self.shared.state.lock();
        let Some(from) = state.wants_scan() else { return Ok(false) };
        let visible = *end.borrow_and_update();
        if from >= visible {
            return Ok(false);
        }
        let records = self.bus.read(&self.shared.topic, from, SCAN_RECORDS, SCAN_BYTES)?;
        let tenant = state.config().tenant.clone();
        for record in &records {
            let message = &record.message;
            let bytes =
                u32::try_from(message.body.len() + message.attributes.packed().len()).unwrap_or(u32::MAX);
            let wanted = tenant.as_ref().is_none_or(|t| *t == message.tenant);
            state.scanned(record.lane, Waiting { offset: record.offset, bytes }, wanted);
        }
        Ok(records.last().is_some_and(|last| last.offset + 1 < visible))
    }

    fn fetch(&self, leases: Vec<Lease>) -> Result<Vec<Leased>, BusError> {
        let mut messages = Vec::with_capacity(leases.len());
        for lease in leases {
            let read = self.bus.read(&self.shared.topic, lease.offset, 1, 1)?;
            match read.into_iter().find(|d| d.offset == lease.offset) {
                Some(delivered) => {
                    messages.push(Leased { ack_id: lease.ack_id, attempt: lease.attempt, delivered });
                }
                // Retention removed it meanwhile: there is nothing left to deliver.
                None => self.settle(lease.offset),
            }
        }
        Ok(messages)
    }

    fn settle(&self, offset: u64) {
        self.shared.state.lock().settle(offset);
        self.shared.dirty.store(true, Ordering::Release);
    }

    /// Acknowledges messages; the results are in the order of the ids.
    pub fn ack(&self, ack_ids: &[u64]) -> Vec<Result<(), AckError>> {
        let mut state = self.shared.state.lock();
        self.shared.dirty.store(true, Ordering::Release);
        ack_ids.iter().map(|id| state.ack(*id)).collect()
    }

    /// Gives messages back for a later attempt; a message whose attempts are used up goes to
    /// the dead letter.
    ///
    /// # Errors
    /// [`BusError`] when the dead letter cannot be written; the message stays and comes again.
    pub async fn nack(&self, ack_ids: &[u64]) -> Result<Vec<Result<(), AckError>>, BusError> {
        let (results, spent) = {
            let mut state = self.shared.state.lock();
            let now = self.now();
            let mut spent = Vec::new();
            let results =
                ack_ids.iter().map(|id| state.nack(*id, now).map(|lease| spent.extend(lease))).collect();
            (results, spent)
        };
        self.shared.dirty.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
        self.bury(spent).await?;
        Ok(results)
    }

    /// Moves the deadline of leases to `by` from now.
    pub fn extend(&self, ack_ids: &[u64], by: Duration) -> Vec<Result<(), AckError>> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        ack_ids.iter().map(|id| state.extend(*id, by, now)).collect()
    }

    /// Messages on lease now.
    pub fn leased(&self) -> usize {
        self.shared.state.lock().leased()
    }

    /// Writes spent messages to the dead letter, then settles them.
    async fn bury(&self, spent: Vec<Lease>) -> Result<(), BusError> {
        for lease in spent {
            let read = self.bus.read(&self.shared.topic, lease.offset, 1, 1)?;
            let Some(delivered) = read.into_iter().find(|d| d.offset == lease.offset) else {
                self.settle(lease.offset);
                continue;
            };
            let bytes = u32::try_from(delivered.message.body.len()).unwrap_or(u32::MAX);
            let lane = delivered.lane;
            let letter = self.letter(&lease, delivered);
            if let Err(error) = self.bus.dead_letter(&self.shared.topic, vec![letter]).await {
                self.shared.state.lock().put_back(lease, lane, bytes, self.now());
                return Err(error);
            }
            self.settle(lease.offset);
        }
        Ok(())
    }

    fn letter(&self, lease: &Lease, delivered: Delivered) -> DeadLetter {
        let Delivered { offset, message, .. } = delivered;
        DeadLetter {
            tenant: message.tenant,
            code: "delivery-attempts-exhausted".to_owned(),
            reason: format!("not acknowledged in {} attempts", lease.attempt),
            stage: "delivery".to_owned(),
            attempts: lease.attempt,
            pipeline: self.shared.name.clone(),
            position: offset.to_string(),
            attributes: message.attributes,
            ordering_key: message.ordering_key,
            body: message.body,
            idempotency_key: format!("{}:{offset}:delivery", self.shared.name),
            resendable: true,
        }
    }
}
