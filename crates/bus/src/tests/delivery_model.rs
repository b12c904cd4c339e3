//! The delivery machine against a model that is too simple to be wrong.
//!
//! The model is a list of messages, each with what happened to it. Random schedules of
//! arrival, lease, ack, nack, extension, expiry, seek, snapshot and restart must agree with it,
//! in every combination of ordering, exactly-once, retry policy and dead letters. Besides what
//! may be delivered it checks that what can be delivered is.
//!
//! Of an ordering key the model knows which messages are under way and who has them. The next one
//! comes only when all before it are under way or settled, and only to who has those; one that
//! fails brings back all that is under way behind it.

mod keys;

use std::collections::BTreeMap;
use std::time::Duration;

use levada_disk::SimRng;

use crate::delivery::{KeyBounds, Lease, Now, Outcome, Progress, Rules, Seen, Settled, State, Waiting};
use crate::port::{Consumer, RetryPolicy};

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_LEASED: usize = 16;
const LANE_LEASES: usize = 12;
/// Of a message, where keys are bounded by bytes.
const BYTES: u64 = 100;

#[derive(Debug, Default, Clone, Copy)]
struct Message {
    lane: u32,
    key: u64,
    wanted: bool,
    failed: u32,
    settled: bool,
    /// Delivered and not brought back.
    out: bool,
    /// Acknowledged while one before it in its key was open.
    acknowledged: bool,
    /// Waits for a retry.
    not_before: Duration,
    scheduled_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    deadline: Duration,
    /// Its acknowledgement is being made durable.
    confirming: bool,
}

/// Who has what is under way of a key: a stream, or a call that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Stream(u64),
    Call(u64),
}

struct Run {
    rng: SimRng,
    state: State,
    rules: Rules,
    messages: BTreeMap<u64, Message>,
    held: BTreeMap<u64, Held>,
    /// Leases that ended without an ack.
    lost: Vec<Lease>,
    snapshot: Option<(Progress, BTreeMap<u64, Message>)>,
    /// By lane and key.
    owners: BTreeMap<(u32, u64), Owner>,
    calls: u64,
    now: Now,
    next_offset: u64,
    seed: u64,
}

fn rules(rng: &mut SimRng) -> Rules {
    Rules {
        ordered: !rng.one_in(3),
        key_bounds: KeyBounds {
            messages: 1 + rng.below(6) as usize,
            bytes: if rng.one_in(3) { 2 * BYTES } else { u64::MAX },
        },
        exactly_once: rng.one_in(2),
        ack_deadline: DEADLINE,
        retry: rng.one_in(2).then(|| RetryPolicy {
            minimum_backoff: Duration::from_secs(rng.below(20)),
            maximum_backoff: Duration::from_secs(60),
        }),
        max_attempts: rng.one_in(2).then_some(5),
        max_leased: MAX_LEASED,
        look_ahead: 1_000_000,
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let rules = rules(&mut rng);
        Self {
            rng,
            state: State::new(rules.clone(), Progress::default(), 1),
            rules,
            messages: BTreeMap::new(),
            held: BTreeMap::new(),
            lost: Vec::new(),
            snapshot: None,
            owners: BTreeMap::new(),
            calls: 0,
            now: Now { at: Duration::ZERO, wall_ms: 0 },
            next_offset: 0,
            seed,
        }
    }

    fn arrive(&mut self) {
        for _ in 0..1 + self.rng.below(6) {
            // Gaps are what retention removed.
            self.next_offset += u64::from(self.rng.one_in(10));
            let message = Message {
                lane: self.rng.below(3) as u32,
                key: self.rng.below(4),
                wanted: !self.rng.one_in(6),
                scheduled_ms: if self.rng.one_in(12) {
                    self.now.wall_ms + self.rng.below(90_000) as i64
                } else {
                    0
                },
                ..Message::default()
            };
            self.messages.insert(self.next_offset, message);
            self.next_offset += 1;
        }
        self.scan();
    }

    /// Feeds the machine what it has not met.
    fn scan(&mut self) {
        let from = self.state.wants_scan().expect("the look-ahead is not full");
        for (offset, m) in self.messages.range(from..) {
            if m.wanted {
                // Keys belong to their lanes.
                let key = if m.key == 0 { 0 } else { u64::from(m.lane) * 10 + m.key };
                let more = if self.rules.key_bounds.bytes == u64::MAX { *offset % 7 } else { 0 };
                self.state.scanned(Seen {
                    lane: m.lane,
                    message: Waiting { offset: *offset, bytes: (BYTES + more) as u32, key },
                    not_before_ms: (m.scheduled_ms > 0).then_some(m.scheduled_ms),
                });
            }
        }
        self.state.pass(self.next_offset);
    }

    fn lane_is_full(&self, lane: u32) -> bool {
        let held = self.held.values().filter(|h| self.messages[&h.lease.offset].lane == lane);
        held.count() >= LANE_LEASES
    }

    fn deliver(&mut self, lease: &Lease, consumer: Consumer) {
        let seed = self.seed;
        assert!(self.is_due(lease.offset, consumer), "seed {seed}: {lease:?} is not due for {consumer:?}");
        let message = self.messages[&lease.offset];
        assert_eq!(lease.attempt, message.failed + 1, "seed {seed}: {lease:?}");
        assert!(!self.lane_is_full(message.lane), "seed {seed}: too many leases in a lane");
        let owner = match consumer {
            Consumer::Stream(n) => Owner::Stream(n),
            Consumer::Call | Consumer::Single => Owner::Call(self.calls),
        };
        self.owners.insert((message.lane, message.key), owner);
        self.messages.get_mut(&lease.offset).expect("known").out = true;
        let held = Held { lease: *lease, deadline: self.now.at + DEADLINE, confirming: false };
        self.held.insert(lease.ack_id, held);
    }

    fn lease(&mut self) {
        let seed = self.seed;
        let max = 1 + self.rng.below(6) as usize;
        let max_bytes = if self.rng.one_in(5) { 250 } else { usize::MAX };
        let consumer = match self.rng.below(6) {
            0 => Consumer::Single,
            1 | 2 => Consumer::Call,
            _ => Consumer::Stream(self.rng.below(2)),
        };
        self.calls += 1;
        let leases = self.state.lease(consumer, max, max_bytes, None, self.now);
        for lease in &leases {
            self.deliver(lease, consumer);
        }
        // The last first, as the reading of records does it; and in any order.
        let back: Vec<Lease> = leases.iter().rev().filter(|_| self.rng.one_in(30)).copied().collect();
        for lease in back {
            self.state.give_back(&lease);
            if self.held.remove(&lease.ack_id).is_some() {
                self.bring_back_behind(lease.offset);
                self.messages.get_mut(&lease.offset).expect("known").out = false;
            }
        }
        assert!(self.held.len() <= MAX_LEASED, "seed {seed}");
        assert_eq!(self.state.leased(), self.held.len(), "seed {seed}");
        if leases.len() < max && self.held.len() < MAX_LEASED {
            self.calls += 1;
            // A message that was given back may be due.
            let again = self.state.lease(consumer, 1, usize::MAX, None, self.now);
            again.iter().for_each(|lease| self.state.give_back(lease));
            if again.is_empty() {
                let due = self
                    .messages
                    .keys()
                    .copied()
                    .find(|o| self.is_due(*o, consumer) && !self.lane_is_full(self.messages[o].lane));
                assert_eq!(due, None, "seed {seed}: a due message was not delivered to {consumer:?}");
            }
        }
    }

    fn pick(&mut self) -> Option<Held> {
        let ids: Vec<u64> = self.held.keys().copied().collect();
        (!ids.is_empty()).then(|| self.held[&ids[self.rng.below(ids.len() as u64) as usize]])
    }

    fn settle(&mut self, offset: u64) {
        let message = self.messages.get_mut(&offset).expect("known");
        (message.settled, message.out) = (true, false);
        self.held.retain(|_, h| h.lease.offset != offset);
        // Acknowledgements that waited for it.
        let first = self.open_of_key(offset).next().filter(|(_, m)| m.acknowledged).map(|(o, _)| o);
        if let Some(first) = first {
            self.settle(first);
        }
    }

    /// Whether the message has failed too often.
    fn fail(&mut self, held: Held) -> bool {
        self.held.remove(&held.lease.ack_id);
        self.lost.push(held.lease);
        let retry = self.rules.retry;
        let message = self.messages.get_mut(&held.lease.offset).expect("known");
        message.failed += 1;
        message.out = false;
        let delay = retry.map_or(Duration::ZERO, |r| {
            r.maximum_backoff.min(r.minimum_backoff * 2u32.pow((message.failed - 1).min(20)))
        });
        message.not_before = self.now.at + delay;
        let is_spent = self.rules.max_attempts.is_some_and(|max| message.failed >= max);
        if !is_spent {
            self.bring_back_behind(held.lease.offset);
        }
        is_spent
    }

    /// The dead letter takes a spent message, or there is none and the message comes again.
    fn bury(&mut self, lease: Lease) {
        let seed = self.seed;
        if self.rng.one_in(3) {
            // It is tried, and fails.
            assert!(!self.rng.one_in(2) || self.state.begin_move(lease.offset), "seed {seed}");
            self.state.put_back(lease.offset, self.now);
            self.bring_back_behind(lease.offset);
        } else {
            assert!(self.state.settle(lease.offset), "seed {}", self.seed);
            self.settle(lease.offset);
        }
    }

    fn ack(&mut self) {
        let seed = self.seed;
        let Some(held) = self.pick() else { return };
        let (id, offset) = (held.lease.ack_id, held.lease.offset);
        if !self.rules.exactly_once {
            if self.is_behind(offset) {
                assert_eq!(self.state.ack(id), Outcome::Kept, "seed {seed}");
                self.held.remove(&id);
                self.messages.get_mut(&offset).expect("known").acknowledged = true;
            } else {
                assert_eq!(self.state.ack(id), Outcome::Settled(offset), "seed {seed}");
                self.settle(offset);
            }
            assert_eq!(self.state.ack(id), Outcome::Known, "seed {seed}: a second ack is fine");
            return;
        }
        let valid = held.confirming || held.deadline > self.now.at;
        if held.confirming {
            self.end_confirm(held);
            return;
        }
        let begun = self.state.begin_confirm(id, self.now);
        assert_eq!(begun == Outcome::Settled(offset), valid, "seed {seed}: {begun:?}");
        if !valid {
            return;
        }
        self.held.get_mut(&id).expect("held").confirming = true;
        if self.rng.one_in(2) {
            self.end_confirm(held);
        }
    }

    fn modify(&mut self) {
        let seed = self.seed;
        let Some(held) = self.pick().filter(|held| !held.confirming) else { return };
        let by = Duration::from_secs(self.rng.below(4) * 15);
        let (outcome, spent) = self.state.modify(held.lease.ack_id, by, self.now);
        if held.deadline <= self.now.at {
            let late = if self.rules.exactly_once { Outcome::Invalid } else { Outcome::Known };
            assert_eq!((outcome, spent), (late, None), "seed {seed}");
        } else if by.is_zero() {
            assert_eq!(self.fail(held), spent.is_some(), "seed {seed}");
            spent.into_iter().for_each(|lease| self.bury(lease));
        } else {
            assert_eq!((outcome, spent), (Outcome::Known, None), "seed {seed}");
            self.held.get_mut(&held.lease.ack_id).expect("held").deadline = self.now.at + by;
        }
    }

    fn advance(&mut self) {
        let by = Duration::from_secs(self.rng.below(40));
        self.now = Now { at: self.now.at + by, wall_ms: self.now.wall_ms + by.as_millis() as i64 };
        if self.rng.one_in(4) {
            return;
        }
        let spent = self.state.expire(self.now);
        let over = |h: &&Held| !h.confirming && h.deadline <= self.now.at;
        let mut expired: Vec<Held> = self.held.values().filter(over).copied().collect();
        expired.sort_by_key(|held| (held.deadline, held.lease.ack_id));
        for held in expired {
            // One before it in its key may have brought it back.
            if self.held.contains_key(&held.lease.ack_id) {
                let used_up = self.fail(held);
                let found = spent.iter().any(|l| l.ack_id == held.lease.ack_id);
                assert_eq!(found, used_up, "seed {}", self.seed);
            }
        }
        spent.into_iter().for_each(|lease| self.bury(lease));
        assert_eq!(self.state.leased(), self.held.len(), "seed {}", self.seed);
    }

    fn forget_leases(&mut self) {
        self.held.clear();
        self.lost.clear();
        self.owners.clear();
        for message in self.messages.values_mut() {
            message.not_before = Duration::ZERO;
            (message.out, message.acknowledged) = (false, false);
        }
    }

    /// A stop: leases end and count, settled messages stay settled.
    fn restart(&mut self) {
        let saved = serde_json::to_string(&self.state.progress()).expect("serialises");
        let progress = serde_json::from_str(&saved).expect("deserialises");
        for held in std::mem::take(&mut self.held).into_values() {
            self.messages.get_mut(&held.lease.offset).expect("known").failed += 1;
        }
        self.forget_leases();
        self.state = State::new(self.rules.clone(), progress, 1_000_000 + self.next_offset * 1000);
        self.scan();
    }

    /// A seek to an offset: what is before it is settled, what is after it is not.
    fn seek(&mut self) {
        let to = self.rng.below(self.next_offset + 1);
        self.state.reset(Progress { settled: Settled::below(to), ..Progress::default() });
        for (offset, message) in &mut self.messages {
            message.settled = *offset < to;
            message.failed = 0;
        }
        self.forget_leases();
        self.scan();
    }

    fn snapshot(&mut self) {
        if let Some((progress, messages)) = self.snapshot.take() {
            self.state.reset(progress);
            for (offset, message) in &mut self.messages {
                let then = messages.get(offset);
                message.settled = then.is_some_and(|m| m.settled);
                message.failed = 0;
            }
            self.forget_leases();
            self.scan();
        } else {
            let settled = self.state.settled().clone();
            self.snapshot = Some((Progress { settled, ..Progress::default() }, self.messages.clone()));
        }
    }

    /// Retention takes everything below an offset.
    fn retain(&mut self) {
        let below = self.next_offset.saturating_sub(self.rng.below(60));
        self.state.drop_below(below);
        let gone: Vec<u64> = self.messages.range(..below).map(|(o, _)| *o).collect();
        gone.into_iter().for_each(|o| self.settle(o));
        self.lost.retain(|l| l.offset >= below);
    }

    fn step(&mut self) {
        match self.rng.below(40) {
            0..=5 => self.arrive(),
            6..=17 => self.lease(),
            18..=25 => self.ack(),
            26..=28 => self.late_ack(),
            29..=33 => self.modify(),
            34..=36 => self.advance(),
            37 => self.retain(),
            38 if self.rng.one_in(4) => self.restart(),
            39 if self.rng.one_in(4) => self.seek(),
            39 if self.rng.one_in(4) => self.snapshot(),
            _ => {}
        }
    }

    /// Acknowledges everything until nothing is left.
    fn drain(&mut self) {
        let confirming: Vec<Held> = self.held.values().filter(|h| h.confirming).copied().collect();
        confirming.into_iter().for_each(|held| self.state.confirm(held.lease.ack_id, Err(())));
        for _ in 0..3_000 {
            let by = Duration::from_secs(601);
            self.now = Now { at: self.now.at + by, wall_ms: self.now.wall_ms + by.as_millis() as i64 };
            for lease in self.state.expire(self.now) {
                self.state.settle(lease.offset);
            }
            for lease in self.state.lease(Consumer::Call, MAX_LEASED, usize::MAX, None, self.now) {
                assert!(self.state.settle(lease.offset), "seed {}", self.seed);
            }
            if self.state.known_backlog() == 0 {
                break;
            }
        }
        let progress = self.state.progress();
        assert_eq!(progress.settled, Settled::below(self.next_offset), "seed {}", self.seed);
        assert!(progress.attempts.is_empty(), "seed {}", self.seed);
        assert!(self.state.blocked(10).is_empty(), "seed {}", self.seed);
        assert_eq!(self.state.next_event(self.now), None, "seed {}", self.seed);
    }
}

#[test]
fn random_schedules_agree_with_the_model() {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (first, cases) = (number("LEVADA_SEED", 0), number("LEVADA_CASES", 2_000));
    println!("seeds {first}..{}", first + cases);
    for seed in first..first + cases {
        let mut run = Run::new(seed);
        for _ in 0..150 {
            run.step();
        }
        run.drain();
    }
}

#[test]
fn a_message_that_always_fails_does_not_stop_those_behind_it() {
    let mut rng = SimRng::new(1);
    let rules =
        Rules { ordered: false, exactly_once: false, retry: None, max_attempts: None, ..rules(&mut rng) };
    let mut state = State::new(rules, Progress::default(), 1);
    for offset in 0..10 {
        let message = Waiting { offset, bytes: 10, key: 0 };
        state.scanned(Seen { lane: 0, message, not_before_ms: None });
    }
    let now = Now { at: Duration::ZERO, wall_ms: 0 };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..25 {
        let lease = state.lease(Consumer::Call, 1, usize::MAX, None, now)[0];
        seen.insert(lease.offset);
        state.modify(lease.ack_id, Duration::ZERO, now);
    }
    assert_eq!(seen.len(), 10);
}
