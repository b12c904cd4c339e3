//! The subscription's state machine against a model that is too simple to be wrong.
//!
//! The model keeps, per message, how often it failed and whether it is settled. Random
//! schedules of lease, ack, nack, extend, expiry and restart must agree with it.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_disk::SimRng;

use crate::lanes::Waiting;
use crate::subscription::{Lease, State, SubscriptionConfig};

#[derive(Debug, Default, Clone, Copy)]
struct Model {
    failed: u32,
    settled: bool,
    not_before: Duration,
}

struct Run {
    rng: SimRng,
    state: State,
    messages: BTreeMap<u64, Model>,
    leases: BTreeMap<u64, (Lease, Duration)>,
    now: Duration,
    next_offset: u64,
    seed: u64,
}

const DEADLINE: Duration = Duration::from_secs(10);

impl Run {
    fn new(seed: u64) -> Self {
        let config = SubscriptionConfig { max_leased: 16, ..SubscriptionConfig::default() };
        Self {
            rng: SimRng::new(seed),
            state: State::new(config, Default::default(), 1),
            messages: BTreeMap::new(),
            leases: BTreeMap::new(),
            now: Duration::ZERO,
            next_offset: 0,
            seed,
        }
    }

    fn arrive(&mut self) {
        for _ in 0..1 + self.rng.below(5) {
            // Gaps are what retention removed.
            self.next_offset += u64::from(self.rng.one_in(10));
            let wanted = !self.rng.one_in(6);
            let lane = self.rng.below(3) as u32;
            self.state.scanned(lane, Waiting { offset: self.next_offset, bytes: 100 }, wanted);
            if wanted {
                self.messages.insert(self.next_offset, Model::default());
            }
            self.next_offset += 1;
        }
    }

    fn lease(&mut self) {
        for lease in self.state.lease(1 + self.rng.below(6) as usize, self.now) {
            let seed = self.seed;
            let model = self.messages[&lease.offset];
            assert!(!model.settled, "seed {seed}: a settled message came again");
            assert!(self.now >= model.not_before, "seed {seed}: came before its backoff");
            assert_eq!(lease.attempt, model.failed + 1, "seed {seed}");
            let held = self.leases.values().any(|(l, _)| l.offset == lease.offset);
            assert!(!held, "seed {seed}: two leases on one message");
            self.leases.insert(lease.ack_id, (lease, self.now + DEADLINE));
        }
        assert!(self.leases.len() <= 16);
    }

    fn pick(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.leases.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.rng.below(ids.len() as u64) as usize])
    }

    fn fail(&mut self, lease: Lease) -> bool {
        let backoff = self.state.config().backoff;
        let model = self.messages.get_mut(&lease.offset).expect("known");
        model.failed += 1;
        model.not_before = self.now + backoff.ceiling(model.failed - 1);
        model.failed >= 5
    }

    fn bury(&mut self, lease: Lease) {
        assert!(self.messages[&lease.offset].failed >= 5, "seed {}: buried early", self.seed);
        self.messages.get_mut(&lease.offset).expect("known").settled = true;
        self.state.settle(lease.offset);
    }

    fn step(&mut self) {
        match self.rng.below(8) {
            0 => self.arrive(),
            1 | 2 => self.lease(),
            3 => {
                if let Some(id) = self.pick() {
                    assert_eq!(self.state.ack(id), Ok(()));
                    assert!(self.state.ack(id).is_err(), "a second ack changes nothing");
                    let (lease, _) = self.leases.remove(&id).expect("held");
                    self.messages.get_mut(&lease.offset).expect("known").settled = true;
                }
            }
            4 => {
                if let Some(id) = self.pick() {
                    let spent = self.state.nack(id, self.now).expect("held");
                    let (lease, _) = self.leases.remove(&id).expect("held");
                    assert_eq!(self.fail(lease), spent.is_some(), "seed {}", self.seed);
                    spent.into_iter().for_each(|lease| self.bury(lease));
                }
            }
            5 => {
                if let Some(id) = self.pick() {
                    let by = Duration::from_secs(self.rng.below(60));
                    assert_eq!(self.state.extend(id, by, self.now), Ok(()));
                    self.leases.get_mut(&id).expect("held").1 = self.now + by;
                }
            }
            6 => self.advance(),
            _ => {
                if self.rng.one_in(20) {
                    self.restart();
                }
            }
        }
    }

    fn advance(&mut self) {
        self.now += Duration::from_secs(self.rng.below(40));
        let mut spent = self.state.expire(self.now);
        let expired: Vec<u64> =
            self.leases.iter().filter(|(_, (_, at))| *at <= self.now).map(|(id, _)| *id).collect();
        for id in expired {
            let (lease, _) = self.leases.remove(&id).expect("held");
            let used_up = self.fail(lease);
            assert_eq!(spent.iter().any(|l| l.offset == lease.offset), used_up, "seed {}", self.seed);
        }
        spent.drain(..).for_each(|lease| self.bury(lease));
        assert_eq!(self.state.leased(), self.leases.len(), "seed {}", self.seed);
    }

    /// A clean stop: leases end without counting, settled messages stay settled.
    fn restart(&mut self) {
        let saved = serde_json::to_string(self.state.settled()).expect("serialises");
        let settled = serde_json::from_str(&saved).expect("deserialises");
        self.state = State::new(self.state.config().clone(), settled, 1_000_000 + self.next_offset * 1000);
        self.leases.clear();
        let unsettled: Vec<u64> = self.messages.keys().copied().collect();
        for offset in unsettled {
            self.messages.get_mut(&offset).expect("known").not_before = Duration::ZERO;
            self.state.scanned(0, Waiting { offset, bytes: 100 }, true);
        }
    }
}

#[test]
fn random_schedules_agree_with_the_model() {
    let cases = std::env::var("LEVADA_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(2_000);
    for seed in 0..cases {
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.step();
        }
        // In the end everything is settled, and the floor is past it all.
        for _ in 0..2_000 {
            run.now += Duration::from_secs(601);
            let spent = run.state.expire(run.now);
            assert!(spent.is_empty() || !run.leases.is_empty());
            spent.into_iter().for_each(|lease| run.state.settle(lease.offset));
            run.leases.clear();
            let leases = run.state.lease(16, run.now);
            if leases.is_empty() && run.state.leased() == 0 && run.state.next_event().is_none() {
                break;
            }
            for lease in leases {
                run.state.ack(lease.ack_id).expect("held");
            }
        }
        assert_eq!(run.state.settled().above.len(), 0, "seed {seed}");
        assert_eq!(run.state.settled().floor, run.next_offset, "seed {seed}");
        assert!(run.state.settled().attempts.is_empty(), "seed {seed}");
    }
}
