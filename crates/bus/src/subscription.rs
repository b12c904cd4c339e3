//! The state of a subscription: what is leased, what waits for a retry, what is acknowledged.
//!
//! Pure and synchronous: offsets and times go in, decisions come out, so that a model test
//! can drive it through any schedule. `pull.rs` feeds it from the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use levada_core::{Backoff, TenantId};
use serde::{Deserialize, Serialize};

use crate::lanes::{Lanes, Waiting};

/// How a subscription delivers.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionConfig {
    /// Only this tenant's lane; `None`: every lane.
    pub tenant: Option<TenantId>,
    /// A lease that is neither acknowledged nor extended in this time is a failed attempt.
    pub ack_deadline: Duration,
    pub backoff: Backoff,
    /// Failed attempts after which a message goes to the dead letter.
    pub max_attempts: u32,
    /// Messages leased at once.
    pub max_leased: usize,
    /// Messages looked ahead of the first unacknowledged one, so that every lane gets its turn.
    pub look_ahead: u64,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            tenant: None,
            ack_deadline: Duration::from_secs(10),
            backoff: Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(600) },
            max_attempts: 5,
            max_leased: 1_000,
            look_ahead: 4_000_000,
        }
    }
}

/// Why an acknowledgement changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The lease ended, was acknowledged before, or never was.
    #[error("the ack id is not of a current lease")]
    Expired,
}

/// A lease on one message. The ack id changes with each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub ack_id: u64,
    pub offset: u64,
    /// 1 at the first delivery.
    pub attempt: u32,
}

#[derive(Debug)]
struct Held {
    offset: u64,
    lane: u32,
    bytes: u32,
    attempt: u32,
    deadline: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    lane: u32,
    bytes: u32,
    attempt: u32,
}

/// What survives a restart: everything below `floor` is settled, and so are the offsets above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settled {
    pub floor: u64,
    pub above: BTreeSet<u64>,
    /// Failed attempts of unsettled messages.
    pub attempts: BTreeMap<u64, u32>,
}

impl Settled {
    fn settle(&mut self, offset: u64) {
        if offset >= self.floor {
            self.above.insert(offset);
            self.attempts.remove(&offset);
            while self.above.remove(&self.floor) {
                self.floor += 1;
            }
        }
    }

    fn contains(&self, offset: u64) -> bool {
        offset < self.floor || self.above.contains(&offset)
    }
}

/// The state machine. Times are of a monotonic clock.
#[derive(Debug)]
pub(crate) struct State {
    config: SubscriptionConfig,
    settled: Settled,
    /// The next offset to look at.
    scanned: u64,
    lanes: Lanes,
    held: HashMap<u64, Held>,
    deadlines: BTreeSet<(Duration, u64)>,
    retries: BTreeMap<(Duration, u64), Retry>,
    next_ack_id: u64,
}

impl State {
    /// `first_ack_id` must lie above every id that an earlier incarnation gave out.
    pub fn new(config: SubscriptionConfig, settled: Settled, first_ack_id: u64) -> Self {
        let scanned = settled.floor;
        Self {
            config,
            settled,
            scanned,
            lanes: Lanes::default(),
            held: HashMap::new(),
            deadlines: BTreeSet::new(),
            retries: BTreeMap::new(),
            next_ack_id: first_ack_id,
        }
    }

    pub fn config(&self) -> &SubscriptionConfig {
        &self.config
    }

    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// The offset to scan from, or `None` while enough is known ahead.
    pub fn wants_scan(&self) -> Option<u64> {
        (self.scanned - self.settled.floor < self.config.look_ahead).then_some(self.scanned)
    }

    /// Tells of a record in the topic, in ascending order of offsets. `wanted` is false for
    /// a record that the subscription does not deliver: it counts as acknowledged.
    pub fn scanned(&mut self, lane: u32, record: Waiting, wanted: bool) {
        self.skip_to(record.offset);
        self.scanned = record.offset + 1;
        if self.settled.contains(record.offset) {
            return;
        }
        if wanted {
            self.lanes.push(lane, record);
        } else {
            self.settled.settle(record.offset);
        }
    }

    /// Offsets below were removed by retention.
    fn skip_to(&mut self, offset: u64) {
        for gone in self.scanned..offset {
            self.settled.settle(gone);
        }
    }

    /// Leases up to `max` messages: due retries first, then by fair choice among lanes.
    pub fn lease(&mut self, max: usize, now: Duration) -> Vec<Lease> {
        let room = self.config.max_leased.saturating_sub(self.held.len()).min(max);
        let mut leases = Vec::new();
        while leases.len() < room {
            let due = self.retries.first_key_value().filter(|((at, _), _)| *at <= now).map(|(k, r)| (*k, *r));
            if let Some((key, retry)) = due {
                self.retries.remove(&key);
                leases.push(self.hold(key.1, retry.lane, retry.bytes, retry.attempt + 1, now));
            } else if let Some((lane, record)) = self.lanes.pop() {
                let failed = self.settled.attempts.get(&record.offset).copied().unwrap_or(0);
                leases.push(self.hold(record.offset, lane, record.bytes, failed + 1, now));
            } else {
                break;
            }
        }
        leases
    }

    fn hold(&mut self, offset: u64, lane: u32, bytes: u32, attempt: u32, now: Duration) -> Lease {
        let ack_id = self.next_ack_id;
        self.next_ack_id += 1;
        let deadline = now + self.config.ack_deadline;
        self.held.insert(ack_id, Held { offset, lane, bytes, attempt, deadline });
        self.deadlines.insert((deadline, ack_id));
        Lease { ack_id, offset, attempt }
    }

    fn release(&mut self, ack_id: u64) -> Result<Held, AckError> {
        let held = self.held.remove(&ack_id).ok_or(AckError::Expired)?;
        self.deadlines.remove(&(held.deadline, ack_id));
        Ok(held)
    }

    pub fn ack(&mut self, ack_id: u64) -> Result<(), AckError> {
        let held = self.release(ack_id)?;
        self.settled.settle(held.offset);
        Ok(())
    }

    /// Gives a message back: it comes again after the backoff, or is spent.
    /// Returns the lease as spent when its attempts are used up: the caller dead-letters it
    /// and then calls [`State::settle`].
    pub fn nack(&mut self, ack_id: u64, now: Duration) -> Result<Option<Lease>, AckError> {
        let held = self.release(ack_id)?;
        Ok(self.fail(held, ack_id, now))
    }

    fn fail(&mut self, held: Held, ack_id: u64, now: Duration) -> Option<Lease> {
        self.settled.attempts.insert(held.offset, held.attempt);
        if held.attempt >= self.config.max_attempts {
            return Some(Lease { ack_id, offset: held.offset, attempt: held.attempt });
        }
        let at = now + self.config.backoff.ceiling(held.attempt - 1);
        let retry = Retry { lane: held.lane, bytes: held.bytes, attempt: held.attempt };
        self.retries.insert((at, held.offset), retry);
        None
    }

    /// A dead letter could not be written: the message is tried again after the backoff.
    pub fn put_back(&mut self, spent: Lease, lane: u32, bytes: u32, now: Duration) {
        let at = now + self.config.backoff.ceiling(spent.attempt.saturating_sub(1));
        let retry = Retry { lane, bytes, attempt: spent.attempt.saturating_sub(1) };
        self.retries.insert((at, spent.offset), retry);
    }

    pub fn extend(&mut self, ack_id: u64, by: Duration, now: Duration) -> Result<(), AckError> {
        let held = self.held.get_mut(&ack_id).ok_or(AckError::Expired)?;
        self.deadlines.remove(&(held.deadline, ack_id));
        held.deadline = now + by;
        self.deadlines.insert((held.deadline, ack_id));
        Ok(())
    }

    /// Ends leases past their deadline; returns those whose attempts are used up.
    pub fn expire(&mut self, now: Duration) -> Vec<Lease> {
        let mut spent = Vec::new();
        while let Some(&(deadline, ack_id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            if let Ok(held) = self.release(ack_id) {
                spent.extend(self.fail(held, ack_id, now));
            }
        }
        spent
    }

    /// Ends a message for good.
    pub fn settle(&mut self, offset: u64) {
        self.settled.settle(offset);
    }

    /// When something happens next without a call: a retry falls due or a lease expires.
    pub fn next_event(&self) -> Option<Duration> {
        let retry = self.retries.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        retry.into_iter().chain(deadline).min()
    }

    pub fn leased(&self) -> usize {
        self.held.len()
    }
}
