//! Who has how much of the window, and what goes first.
//!
//! Each tenant's keys are a queue of their own. A tenant is bounded by its quota, and when all
//! together have too many, the tenant that adds more than an equal share loses its own oldest;
//! while it has less, the oldest of one that has more goes. So a tenant with fewer keys than an
//! equal share loses none before their time, however many others publish.

use std::collections::{HashMap, VecDeque};

use super::{KeyHash, LaneUse};

#[derive(Debug, Default)]
pub(super) struct Shares {
    max: usize,
    total: usize,
    /// Lanes that have keys.
    active: usize,
    lanes: HashMap<u32, Lane, ahash::RandomState>,
    /// Who added since the last eviction.
    added: Vec<u32>,
    /// Who had most when that was looked for last.
    largest: Option<u32>,
    /// The cutoff up to which every lane was looked at.
    swept_ms: i64,
}

#[derive(Debug)]
struct Lane {
    bound: usize,
    /// The oldest first.
    keys: VecDeque<(KeyHash, i64)>,
    forgotten: u64,
}

impl Default for Lane {
    fn default() -> Self {
        Self { bound: usize::MAX, keys: VecDeque::new(), forgotten: 0 }
    }
}

/// Lanes that add nothing are looked at once in this time for what is outside the window.
const SWEEP_MS: i64 = 1_000;

impl Shares {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), ..Self::default() }
    }

    pub fn bound(&mut self, lane: u32, keys: usize) {
        self.lanes.entry(lane).or_default().bound = keys.max(1);
    }

    pub fn add(&mut self, lane: u32, key: KeyHash, at_ms: i64) {
        let keys = &mut self.lanes.entry(lane).or_default().keys;
        self.active += usize::from(keys.is_empty());
        keys.push_back((key, at_ms));
        self.total += 1;
        if self.added.last() != Some(&lane) {
            self.added.push(lane);
        }
    }

    /// Forgets what lies before the cutoff, and what is too much.
    pub fn evict(&mut self, cutoff_ms: i64, mut forget: impl FnMut(KeyHash, i64)) {
        let added = std::mem::take(&mut self.added);
        let sweep = cutoff_ms.saturating_sub(self.swept_ms) >= SWEEP_MS;
        let looked_at: Vec<u32> = if sweep { self.lanes.keys().copied().collect() } else { added.clone() };
        if sweep {
            self.swept_ms = cutoff_ms;
        }
        for number in looked_at {
            while self.pop(number, &mut forget, |_, at_ms| at_ms < cutoff_ms) {}
        }
        for number in added {
            let (max, total, share) = (self.max, self.total, self.share());
            let mut gone = 0;
            let mut early = |lane: &Lane, _| {
                let is_early =
                    lane.keys.len() > lane.bound || (total - gone > max && lane.keys.len() > share);
                gone += usize::from(is_early);
                is_early
            };
            while self.pop(number, &mut forget, &mut early) {
                self.forgot(number);
            }
        }
        while self.total > self.max {
            let Some(number) = self.largest() else { break };
            if !self.pop(number, &mut forget, |_, _| true) {
                break;
            }
            self.forgot(number);
        }
    }

    /// Forgets the oldest key of a lane, if it shall go.
    fn pop(
        &mut self,
        number: u32,
        forget: &mut impl FnMut(KeyHash, i64),
        mut goes: impl FnMut(&Lane, i64) -> bool,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else { return false };
        let Some((key, at_ms)) = lane.keys.front().copied().filter(|(_, at_ms)| goes(lane, *at_ms)) else {
            return false;
        };
        lane.keys.pop_front();
        self.active -= usize::from(lane.keys.is_empty());
        self.total -= 1;
        forget(key, at_ms);
        true
    }

    fn forgot(&mut self, number: u32) {
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.forgotten += 1;
        }
    }

    /// An equal share of those who have keys.
    fn share(&self) -> usize {
        (self.max / self.active.max(1)).max(1)
    }

    /// A lane with more than an equal share: the one of last time while it has, else the largest.
    fn largest(&mut self) -> Option<u32> {
        let share = self.share();
        let known = self.largest.and_then(|number| self.lanes.get(&number));
        if known.is_none_or(|lane| lane.keys.len() <= share) {
            let by_size = |(_, lane): &(&u32, &Lane)| lane.keys.len();
            self.largest = self.lanes.iter().max_by_key(by_size).map(|(number, _)| *number);
        }
        self.largest
    }

    pub fn usage(&mut self) -> Vec<LaneUse> {
        let usage = self.lanes.iter_mut().map(|(number, lane)| LaneUse {
            lane: *number,
            keys: lane.keys.len(),
            forgotten: std::mem::take(&mut lane.forgotten),
        });
        usage.collect()
    }
}

#[cfg(test)]
mod tests {
    use levada_core::{TenantId, TopicName};

    use super::*;

    fn key(n: usize) -> KeyHash {
        let topic = TopicName::new("topic").expect("a name");
        KeyHash::new(&topic, &TenantId::default_tenant(), &n.to_string())
    }

    struct World {
        shares: Shares,
        gone: Vec<KeyHash>,
    }

    impl World {
        fn add(&mut self, lane: u32, n: usize, at_ms: i64) {
            self.shares.add(lane, key(n), at_ms);
            self.shares.evict(at_ms - 600_000, |key, _| self.gone.push(key));
        }

        fn keys(&mut self, lane: u32) -> usize {
            self.shares.usage().into_iter().find(|of| of.lane == lane).map_or(0, |of| of.keys)
        }
    }

    fn world(max: usize) -> World {
        World { shares: Shares::new(max), gone: Vec::new() }
    }

    #[test]
    fn a_flood_of_one_tenant_forgets_its_own_keys_only() {
        let mut world = world(100);
        world.add(1, 0, 0);
        for n in 1..1_001 {
            world.add(2, n, 1);
        }
        assert_eq!((world.keys(1), world.keys(2)), (1, 99));
        assert!(!world.gone.contains(&key(0)), "the key of the other");
        assert_eq!(world.gone[..3], [key(1), key(2), key(3)], "the oldest first");
    }

    #[test]
    fn who_has_less_than_an_equal_share_makes_the_largest_give_way() {
        let mut world = world(90);
        for n in 0..90 {
            world.add(1, n, 0);
        }
        for n in 100..200 {
            world.add(2, n, 1);
        }
        for n in 200..230 {
            world.add(3, n, 2);
        }
        assert_eq!([1, 2, 3].map(|lane| world.keys(lane)), [30, 30, 30]);
        world.add(4, 300, 3);
        assert_eq!(world.keys(4), 1);
        assert_eq!(world.shares.total, 90);
    }

    #[test]
    fn a_tenant_is_held_to_its_quota_and_time_frees_idle_ones() {
        let mut world = world(100);
        world.shares.bound(1, 5);
        for n in 0..20 {
            world.add(1, n, 0);
        }
        assert_eq!(world.keys(1), 5);
        let forgotten = |world: &mut World| world.shares.usage().iter().map(|of| of.forgotten).sum::<u64>();
        world.add(1, 20, 0);
        assert_eq!((forgotten(&mut world), forgotten(&mut world)), (1, 0), "told once");
        world.add(2, 100, 700_000);
        assert_eq!((world.keys(1), world.keys(2), forgotten(&mut world)), (0, 1, 0));
        assert_eq!((world.shares.total, world.shares.active), (1, 1));
    }
}
