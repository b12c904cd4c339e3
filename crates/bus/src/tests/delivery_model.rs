//! The delivery machine against a model that is too simple to be wrong.
//!
//! The model is a list of messages, each with what happened to it. Random schedules of
//! arrival, lease, ack, nack, extension, expiry, seek, snapshot and restart must agree with it,
//! in every combination of ordering, exactly-once, retry policy and dead letters. Besides what
//! may be delivered it checks that what can be delivered is.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_disk::SimRng;

use crate::delivery::{Lease, Now, Outcome, Progress, Rules, Seen, Settled, State, Waiting};
use crate::port::RetryPolicy;

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_LEASED: usize = 16;
const LANE_LEASES: usize = 12;

#[derive(Debug, Default, Clone, Copy)]
struct Message {
    lane: u32,
    key: u64,
    wanted: bool,
    failed: u32,
    settled: bool,
    /// Waits for a retry.
    not_before: Duration,
    scheduled_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    deadline: Duration,
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
    now: Now,
    next_offset: u64,
    seed: u64,
}

fn rules(rng: &mut SimRng) -> Rules {
    Rules {
        ordered: rng.one_in(2),
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
                self.state.scanned(Seen {
                    lane: m.lane,
                    message: Waiting { offset: *offset, bytes: 100 + (*offset % 7) as u32, key },
                    not_before_ms: (m.scheduled_ms > 0).then_some(m.scheduled_ms),
                });
            }
        }
        self.state.pass(self.next_offset);
    }

    fn is_held(&self, offset: u64) -> bool {
        self.held.values().any(|h| h.lease.offset == offset)
    }

    /// Whether a message could be delivered now, by the words of the specification.
    fn is_due(&self, offset: u64) -> bool {
        let m = self.messages[&offset];
        let earlier_open = |(o, e): (&u64, &Message)| {
            *o < offset && e.wanted && !e.settled && e.lane == m.lane && e.key == m.key
        };
        let blocked = self.rules.ordered && m.key != 0 && self.messages.iter().any(earlier_open);
        m.wanted
            && !m.settled
            && !self.is_held(offset)
            && !blocked
            && m.not_before <= self.now.at
            && m.scheduled_ms <= self.now.wall_ms
    }

    fn lane_is_full(&self, lane: u32) -> bool {
        let held = self.held.values().filter(|h| self.messages[&h.lease.offset].lane == lane);
        held.count() >= LANE_LEASES
    }

    fn lease(&mut self) {
        let seed = self.seed;
        let max = 1 + self.rng.below(6) as usize;
        let leases = self.state.lease(max, usize::MAX, None, self.now);
        for lease in &leases {
            assert!(self.is_due(lease.offset), "seed {seed}: {lease:?} is not due");
            let message = self.messages[&lease.offset];
            assert_eq!(lease.attempt, message.failed + 1, "seed {seed}: {lease:?}");
            assert!(!self.lane_is_full(message.lane), "seed {seed}: too many leases in a lane");
            if self.rng.one_in(30) {
                self.state.give_back(lease);
            } else {
                self.held.insert(lease.ack_id, Held { lease: *lease, deadline: self.now.at + DEADLINE });
            }
        }
        assert!(self.held.len() <= MAX_LEASED, "seed {seed}");
        if leases.len() < max && self.held.len() < MAX_LEASED {
            // A message that was given back may be due.
            let again = self.state.lease(1, usize::MAX, None, self.now);
            again.iter().for_each(|lease| self.state.give_back(lease));
            if again.is_empty() {
                let due = self
                    .messages
                    .keys()
                    .copied()
                    .find(|o| self.is_due(*o) && !self.lane_is_full(self.messages[o].lane));
                assert_eq!(due, None, "seed {seed}: a due message was not delivered");
            }
        }
    }

    fn pick(&mut self) -> Option<Held> {
        let ids: Vec<u64> = self.held.keys().copied().collect();
        (!ids.is_empty()).then(|| self.held[&ids[self.rng.below(ids.len() as u64) as usize]])
    }

    fn settle(&mut self, offset: u64) {
        self.messages.get_mut(&offset).expect("known").settled = true;
        self.held.retain(|_, h| h.lease.offset != offset);
    }

    fn fail(&mut self, held: Held) -> bool {
        self.held.remove(&held.lease.ack_id);
        self.lost.push(held.lease);
        let retry = self.rules.retry;
        let message = self.messages.get_mut(&held.lease.offset).expect("known");
        message.failed += 1;
        let delay = retry.map_or(Duration::ZERO, |r| {
            r.maximum_backoff.min(r.minimum_backoff * 2u32.pow((message.failed - 1).min(20)))
        });
        message.not_before = self.now.at + delay;
        self.rules.max_attempts.is_some_and(|max| message.failed >= max)
    }

    /// The dead letter takes a spent message, or there is none and the message comes again.
    fn bury(&mut self, lease: Lease) {
        if self.rng.one_in(3) {
            self.state.put_back(lease.offset, self.now);
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
            assert_eq!(self.state.ack(id), Outcome::Settled(offset), "seed {seed}");
            assert_eq!(self.state.ack(id), Outcome::Known, "seed {seed}: a second ack is fine");
            self.settle(offset);
            return;
        }
        let valid = held.deadline > self.now.at;
        let begun = self.state.begin_confirm(id, self.now);
        assert_eq!(begun == Outcome::Settled(offset), valid, "seed {seed}: {begun:?}");
        if !valid {
            return;
        }
        if self.rng.one_in(5) {
            self.state.confirm(id, Err(()));
        } else {
            self.state.confirm(id, Ok(()));
            self.settle(offset);
            assert_eq!(self.state.begin_confirm(id, self.now), Outcome::Known, "seed {seed}");
        }
    }

    /// An ack for a lease that has ended.
    fn late_ack(&mut self) {
        let Some(lease) = self.lost.pop() else { return };
        let seed = self.seed;
        if self.rules.exactly_once {
            let outcome = self.state.begin_confirm(lease.ack_id, self.now);
            assert_eq!(outcome, Outcome::Invalid, "seed {seed}: {lease:?} has ended");
        } else if self.messages[&lease.offset].settled {
            assert_eq!(self.state.ack(lease.ack_id), Outcome::Known, "seed {seed}");
        } else {
            assert_eq!(self.state.ack(lease.ack_id), Outcome::Settled(lease.offset), "seed {seed}");
            self.settle(lease.offset);
        }
    }

    fn modify(&mut self) {
        let seed = self.seed;
        let Some(held) = self.pick() else { return };
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
        let expired: Vec<Held> = self.held.values().copied().filter(|h| h.deadline <= self.now.at).collect();
        for held in expired {
            let used_up = self.fail(held);
            let found = spent.iter().any(|l| l.ack_id == held.lease.ack_id);
            assert_eq!(found, used_up, "seed {}", self.seed);
        }
        spent.into_iter().for_each(|lease| self.bury(lease));
        assert_eq!(self.state.leased(), self.held.len(), "seed {}", self.seed);
    }

    fn forget_leases(&mut self) {
        self.held.clear();
        self.lost.clear();
        for message in self.messages.values_mut() {
            message.not_before = Duration::ZERO;
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
        for _ in 0..3_000 {
            let by = Duration::from_secs(601);
            self.now = Now { at: self.now.at + by, wall_ms: self.now.wall_ms + by.as_millis() as i64 };
            for lease in self.state.expire(self.now) {
                self.state.settle(lease.offset);
            }
            for lease in self.state.lease(MAX_LEASED, usize::MAX, None, self.now) {
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
        let lease = state.lease(1, usize::MAX, None, now)[0];
        seen.insert(lease.offset);
        state.modify(lease.ack_id, Duration::ZERO, now);
    }
    assert_eq!(seen.len(), 10);
}
