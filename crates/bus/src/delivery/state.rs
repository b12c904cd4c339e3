//! The state machine of a subscription.

mod ending;
mod keyed;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use levada_core::{DeadlineSet, NumberMap};
use serde::{Deserialize, Serialize};

use super::keys::{KeyBounds, Keys, Turn};
use super::lanes::{Lanes, Offer, Waiting};
use super::live::{Live, LiveTable, Place};
use super::settled::Settled;
use crate::port::{Consumer, RetryPolicy};

/// Messages that wait for their time.
const MAX_SCHEDULED: usize = 1_000_000;
/// Messages that wait behind others of their keys; 16 bytes each.
const MAX_KEYED: u64 = 2_000_000;
/// Messages that one call looks at beyond those that it may lease.
const MAX_LOOKS: usize = 10_000;

/// How a subscription delivers.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Messages of a key come in order.
    pub ordered: bool,
    /// How much of a key may be under way.
    pub key_bounds: KeyBounds,
    /// Only the newest, unexpired ack id counts.
    pub exactly_once: bool,
    pub ack_deadline: Duration,
    /// `None`: a message that failed is due at once.
    pub retry: Option<RetryPolicy>,
    /// Deliveries after which a failed message is spent; `None`: never.
    pub max_attempts: Option<u32>,
    /// Messages leased at once; a lane may hold three quarters of them.
    pub max_leased: usize,
    /// Entries kept of messages that are not settled.
    pub look_ahead: usize,
}

/// The two clocks: leases and retries go by the monotonic one, schedules by the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub at: Duration,
    pub wall_ms: i64,
}

/// A message that the scan met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub lane: u32,
    pub message: Waiting,
    /// Not to be delivered before; milliseconds since the epoch.
    pub not_before_ms: Option<i64>,
}

/// A lease on one message. The ack id changes with each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub ack_id: u64,
    pub offset: u64,
    /// 1 at the first delivery.
    pub attempt: u32,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The message is settled by this call.
    Settled(u64),
    /// The message is settled once those before it in its key are.
    Kept,
    /// Nothing is left to do.
    Known,
    Invalid,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub settled: Settled,
    /// Failed deliveries of unsettled messages.
    #[serde(default)]
    pub attempts: BTreeMap<u64, u32>,
    /// Messages published before count as acknowledged: a seek to a time that had not come.
    #[serde(default)]
    pub discard_before_ms: Option<i64>,
    /// Only those below this offset: a seek is about what there is when it is made. `None` is what
    /// older programs wrote.
    #[serde(default)]
    pub discard_below: Option<u64>,
}

impl Progress {
    /// A seek that an older program made then drops nothing that was published later.
    pub fn made_at(self, made_ms: i64) -> Self {
        let before = self.discard_before_ms;
        let discard_before_ms = match self.discard_below {
            Some(_) => before,
            None => before.map(|before| before.min(made_ms)),
        };
        Self { discard_before_ms, ..self }
    }

    /// Whether a seek acknowledged a message.
    pub fn discards(&self, offset: u64, published_at_ms: i64) -> bool {
        self.discard_before_ms.is_some_and(|before| published_at_ms < before)
            && self.discard_below.is_none_or(|below| offset < below)
    }
}

/// Events since the machine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    pub expired: u64,
}

/// The machine. Methods that end leases answer the messages that are spent, for the dead letter.
#[derive(Debug)]
pub(crate) struct State {
    rules: Rules,
    progress: Progress,
    /// The next offset to look at.
    scanned: u64,
    lanes: Lanes,
    keys: Keys,
    live: LiveTable,
    /// Ack id to offset.
    held: NumberMap<u64>,
    deadlines: DeadlineSet<Duration>,
    retries: BTreeSet<(Duration, u64)>,
    delayed: BTreeSet<(i64, u64)>,
    not_before: HashMap<u64, i64, ahash::RandomState>,
    /// Leases that ended without an ack, or (exactly once) with one: ack id to offset and key.
    ended: HashMap<u64, (u64, u64), ahash::RandomState>,
    ended_order: VecDeque<u64>,
    first_ack_id: u64,
    next_ack_id: u64,
    cut_short: bool,
    kept_for_others: bool,
    /// Settled by what settled before them in their keys, and not yet told.
    released: Vec<u64>,
    counts: Counts,
    by_lane: NumberMap<(u64, u64)>,
}

impl State {
    /// `first_ack_id` lies above every id that was given out before.
    pub fn new(rules: Rules, progress: Progress, first_ack_id: u64) -> Self {
        Self {
            scanned: progress.settled.floor(),
            lanes: Lanes::new(rules.max_leased - rules.max_leased / 4),
            keys: Keys::new(rules.key_bounds),
            rules,
            progress,
            live: LiveTable::default(),
            held: NumberMap::default(),
            deadlines: DeadlineSet::default(),
            retries: BTreeSet::new(),
            delayed: BTreeSet::new(),
            not_before: HashMap::default(),
            ended: HashMap::default(),
            ended_order: VecDeque::new(),
            first_ack_id,
            next_ack_id: first_ack_id,
            cut_short: false,
            kept_for_others: false,
            released: Vec::new(),
            counts: Counts::default(),
            by_lane: NumberMap::default(),
        }
    }

    /// Starts anew from another progress: a seek. All leases end.
    pub fn reset(&mut self, progress: Progress) {
        let fresh = Self::new(self.rules.clone(), progress, self.next_ack_id);
        let (counts, by_lane, first) = (self.counts, std::mem::take(&mut self.by_lane), self.first_ack_id);
        *self = Self { counts, by_lane, first_ack_id: first, ..fresh };
    }

    /// Takes other rules for everything that happens from here on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = Rules { ordered: self.rules.ordered, ..rules };
    }

    pub fn set_weights(&mut self, weights: impl Iterator<Item = (u32, u32)>) {
        self.lanes.clear_weights();
        weights.for_each(|(lane, weight)| self.lanes.set_weight(lane, weight));
    }

    pub fn settled(&self) -> &Settled {
        &self.progress.settled
    }

    /// Whether a seek acknowledged a message that the scan meets.
    pub fn discards(&self, offset: u64, published_at_ms: i64) -> bool {
        self.progress.discards(offset, published_at_ms)
    }

    /// What to save: deliveries under way count as failed ones.
    pub fn progress(&self) -> Progress {
        let mut progress = self.progress.clone();
        // What was acknowledged, too early for its key, has not failed.
        let failed = |l: &Live| l.attempt - u32::from(l.place == Place::Acknowledged && l.attempt > 0);
        let live = self.live.iter().map(|(offset, l)| (offset, failed(l))).filter(|(_, failed)| *failed > 0);
        progress.attempts.extend(live);
        progress
    }

    /// Messages in memory that are not settled, without those that count apart.
    fn entries(&self) -> usize {
        self.lanes.runs() + (self.live.len() - self.delayed.len())
    }

    /// The offset to scan from, or `None` while enough is known ahead.
    pub fn wants_scan(&self) -> Option<u64> {
        // What is scheduled for later, or waits for its key, counts apart: it must not stop
        // what could be delivered.
        let scheduled = self.delayed.len() + self.not_before.len();
        let is_room = self.entries() < self.rules.look_ahead
            && scheduled < MAX_SCHEDULED
            && self.keys.waiting() < MAX_KEYED;
        is_room.then_some(self.scanned)
    }

    /// The next offset that the scan has not met.
    pub fn scan_position(&self) -> u64 {
        self.scanned
    }

    /// Whether a message waits for its first delivery.
    pub fn is_expected(&self, offset: u64) -> bool {
        offset < self.scanned && !self.progress.settled.contains(offset) && !self.live.contains(offset)
    }

    /// Whether most messages from here on wait for their first delivery.
    pub fn expects_after(&self, offset: u64) -> bool {
        const LOOK: u64 = 16;
        (offset..offset + LOOK).filter(|offset| self.is_expected(*offset)).count() as u64 > LOOK / 2
    }

    /// Messages that could be delivered now, roughly.
    pub fn waiting(&self) -> u64 {
        self.lanes.waiting()
    }

    /// Runs of consecutive offsets of one tenant and key that [`State::waiting`] counts.
    pub fn waiting_runs(&self) -> usize {
        self.lanes.runs()
    }

    /// Tells of a message in the topic, in ascending order of offsets.
    pub fn scanned(&mut self, seen: Seen) {
        let offset = seen.message.offset;
        self.pass(offset);
        self.scanned = offset + 1;
        if self.progress.settled.contains(offset) {
            return;
        }
        if let Some(at) = seen.not_before_ms {
            self.not_before.insert(offset, at);
        }
        let key = if self.rules.ordered { seen.message.key } else { 0 };
        self.lanes.push(seen.lane, Waiting { key, ..seen.message });
    }

    /// What lies between the scan and `end` is not for this subscription, or is gone.
    pub fn pass(&mut self, end: u64) {
        if end > self.scanned {
            self.progress.settled.insert_range(self.scanned, end);
            self.scanned = end;
        }
    }

    /// Leases up to `max` messages of at most `max_bytes` in all to a consumer, for `deadline`
    /// each. The first always fits.
    pub fn lease(
        &mut self,
        consumer: Consumer,
        max: usize,
        max_bytes: usize,
        deadline: Option<Duration>,
        now: Now,
    ) -> Vec<Lease> {
        self.wake(now);
        let room = self.rules.max_leased.saturating_sub(self.held.len()).min(max);
        let mut leases: Vec<Lease> = Vec::new();
        let (mut bytes, mut looks) = (0usize, 0);
        (self.cut_short, self.kept_for_others) = (false, false);
        let turn = self.keys.turn(consumer);
        self.offer_kept_keys(turn, room);
        while leases.len() < room && (leases.is_empty() || bytes < max_bytes) {
            // Scheduled and blocked messages are taken up one by one, of runs of any length.
            looks += 1;
            if looks > max.saturating_add(MAX_LOOKS) {
                self.cut_short = true;
                break;
            }
            let Some((lane, offer)) = self.pop(turn, room) else { break };
            let offset = match offer {
                Offer::Again(offset) => Some(offset),
                Offer::Fresh(message) => self.admit(lane, message, turn, now),
                Offer::Key(hash) => self.next_of_key(lane, hash, turn, now),
            };
            let lease = offset.and_then(|offset| self.hold(offset, deadline, now));
            if let Offer::Key(hash) = offer {
                self.go_on_with_key(hash, turn);
            }
            let Some(lease) = lease else { continue };
            let size = self.live.get(lease.offset).map_or(0, |l| l.bytes as usize);
            if !leases.is_empty() && bytes.saturating_add(size) > max_bytes {
                self.give_back(&lease);
                break;
            }
            bytes += size;
            leases.push(lease);
        }
        self.kept_for_others = self.keys.kept_some();
        leases
    }

    /// The next offer. Of what was kept for a stream, some may have turned out to be stuck: then
    /// there may be more.
    fn pop(&mut self, turn: Turn, room: usize) -> Option<(u32, Offer)> {
        loop {
            let next = self.lanes.pop();
            if next.is_some() || !self.offer_kept_keys(turn, room) {
                return next;
            }
        }
    }

    /// A message comes out of its lane for the first time; `None` when it is not its turn.
    fn admit(&mut self, lane: u32, message: Waiting, turn: Turn, now: Now) -> Option<u64> {
        if self.progress.settled.contains(message.offset) {
            return None;
        }
        if message.key != 0 && !self.keys.admit(lane, message, turn, now.wall_ms) {
            self.lanes.refund(lane, message.bytes);
            return None;
        }
        self.start(lane, message, now)
    }

    /// `None` for a message that is scheduled for later.
    fn start(&mut self, lane: u32, message: Waiting, now: Now) -> Option<u64> {
        let attempt = self.progress.attempts.remove(&message.offset).unwrap_or(0);
        let scheduled = self.not_before.remove(&message.offset).filter(|at| *at > now.wall_ms);
        let place = scheduled.map_or(Place::Due, Place::Delayed);
        let live = Live { lane, bytes: message.bytes, key: message.key, attempt, place };
        self.live.insert(message.offset, live);
        let Some(at) = scheduled else { return Some(message.offset) };
        self.delayed.insert((at, message.offset));
        self.lanes.refund(lane, message.bytes);
        self.stop_key(&live, message.offset);
        None
    }

    fn hold(&mut self, offset: u64, deadline: Option<Duration>, now: Now) -> Option<Lease> {
        let live = self.live.get_mut(offset).filter(|l| l.place == Place::Due)?;
        let ack_id = self.next_ack_id;
        self.next_ack_id += 1;
        let deadline = now.at + deadline.unwrap_or(self.rules.ack_deadline);
        live.attempt = live.attempt.saturating_add(1);
        live.place = Place::Leased { ack_id, deadline, confirming: 0 };
        self.held.insert(ack_id, offset);
        self.deadlines.insert(deadline, ack_id);
        self.lanes.lease(live.lane);
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(live.attempt > 1);
        let lane = u64::from(live.lane);
        let (count, bytes) = self.by_lane.get(lane).copied().unwrap_or_default();
        self.by_lane.insert(lane, (count + 1, bytes + u64::from(live.bytes)));
        Some(Lease { ack_id, offset, attempt: live.attempt })
    }

    /// Offers what has fallen due.
    fn wake(&mut self, now: Now) {
        while let Some(&(at, offset)) = self.retries.first().filter(|(at, _)| *at <= now.at) {
            self.retries.remove(&(at, offset));
            self.offer(offset);
        }
        while let Some(&(at, offset)) = self.delayed.first().filter(|(at, _)| *at <= now.wall_ms) {
            self.delayed.remove(&(at, offset));
            self.offer(offset);
        }
    }

    fn offer(&mut self, offset: u64) {
        let Some(live) = self.live.get_mut(offset) else { return };
        live.place = Place::Due;
        let live = *live;
        match live.key {
            0 => self.lanes.push_ready(live.lane, Offer::Again(offset), live.bytes),
            key => self.free_key(key, offset),
        }
    }

    /// When something happens next without a call, as the time from now.
    pub fn next_event(&self, now: Now) -> Option<Duration> {
        let retry = self.retries.first().map(|(at, _)| at.saturating_sub(now.at));
        let deadline = self.deadlines.first().map(|(at, _)| at.saturating_sub(now.at));
        let scheduled = self
            .delayed
            .first()
            .map(|(at, _)| Duration::from_millis(u64::try_from(at.saturating_sub(now.wall_ms)).unwrap_or(0)));
        retry.into_iter().chain(deadline).chain(scheduled).min()
    }

    /// Whether the last [`State::lease`] ended by what it looked at, not by what there was.
    pub fn was_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Whether the last [`State::lease`] found something that only another stream may have.
    pub fn kept_for_others(&self) -> bool {
        self.kept_for_others
    }

    pub fn next_ack_id(&self) -> u64 {
        self.next_ack_id
    }

    pub fn leased(&self) -> usize {
        self.held.len()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Messages and bytes delivered, by lane.
    pub fn by_lane(&self) -> impl Iterator<Item = (u32, (u64, u64))> {
        self.by_lane.iter().map(|(lane, total)| (u32::try_from(lane).unwrap_or(u32::MAX), *total))
    }

    /// Messages that are known and not settled.
    pub fn known_backlog(&self) -> u64 {
        self.lanes.waiting() + self.keys.waiting() + self.live.len() as u64
    }

    /// Messages that are known and not settled, by lane.
    pub fn backlog_by_lane(&self) -> BTreeMap<u32, u64> {
        let mut backlog = BTreeMap::new();
        let live = self.live.iter().map(|(_, live)| (live.lane, 1));
        for (lane, count) in self.lanes.waiting_by_lane().chain(self.keys.waiting_by_lane()).chain(live) {
            *backlog.entry(lane).or_default() += count;
        }
        backlog
    }
}
