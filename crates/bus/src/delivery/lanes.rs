//! Fair choice among tenant lanes: which message a subscription delivers next.
//!
//! Deficit round robin over lanes. Source: M. Shreedhar and G. Varghese, "Efficient Fair
//! Queueing using Deficit Round Robin", SIGCOMM 1995. The cost of a message is its size and a
//! little more, so that a round of small ones has an end as well. A lane that holds too many
//! leases sits out, so that it cannot take those of the others.

use std::collections::{HashMap, VecDeque};

use levada_core::NumberMap;

use super::live::SMALL_ROWS;

/// Bytes that a lane of weight 1 may send a round. Small, so that many lanes together are
/// delivered nearly in the order of the topic, which is read in that order.
const QUANTUM_BYTES: i64 = 4 << 10;
/// What a message costs beside its bytes: a turn has at most 64 messages, however small. By
/// bytes alone a turn of tiny ones would be several hundred, each with the work of one.
const MESSAGE_BYTES: i64 = 64;
/// Larger messages are known one by one, so that an average does not hide them.
const MAX_RUN_BYTES: u32 = 64 << 10;
/// A deficit never grows beyond this: a lane that waited long must not take over.
const MAX_WEIGHT: u32 = 1_000;

/// The lane of messages whose ordering keys are those of all tenants: within a lane the order is
/// that of the topic. No tenant has this number.
pub(crate) const SHARED_LANE: u32 = u32::MAX;

/// What a message of this size takes of its lane's share.
fn cost(bytes: u32) -> i64 {
    i64::from(bytes) + MESSAGE_BYTES
}

/// A message that waits for its first delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub offset: u64,
    pub bytes: u32,
    /// Hash of lane and ordering key; 0 without one.
    pub key: u64,
}

/// Consecutive offsets of one key; `total` bytes in all.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    count: u32,
    key: u64,
    total: u64,
}

impl Run {
    fn bytes(&self) -> u32 {
        u32::try_from(self.total / u64::from(self.count.max(1))).unwrap_or(u32::MAX)
    }
}

/// What a lane offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Fresh(Waiting),
    /// A message that was delivered before and is due.
    Again(u64),
    /// The first message that waits for this key, which is free.
    Key(u64),
}

#[derive(Debug, Default)]
struct Lane {
    number: u32,
    /// Messages that are due again and keys that have become free, with their sizes.
    ready: VecDeque<(Offer, u32)>,
    runs: VecDeque<Run>,
    deficit: i64,
    leased: usize,
    /// Whether it stands in the round.
    active: bool,
    /// Ready and fresh messages take turns, so that a message that always fails does not
    /// stop those behind it.
    ready_last: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.runs.is_empty()
    }

    fn is_idle(&self) -> bool {
        !self.active && self.is_empty() && self.leased == 0
    }

    fn prefers_ready(&self) -> bool {
        !self.ready.is_empty() && (self.runs.is_empty() || !self.ready_last)
    }

    fn cost(&self) -> i64 {
        let bytes = if self.prefers_ready() {
            self.ready.front().map_or(0, |(_, bytes)| *bytes)
        } else {
            self.runs.front().map_or(0, Run::bytes)
        };
        cost(bytes)
    }

    fn take(&mut self) -> Option<Offer> {
        self.ready_last = self.prefers_ready();
        if self.ready_last {
            return self.ready.pop_front().map(|(offer, _)| offer);
        }
        let run = self.runs.front_mut()?;
        let waiting = Waiting { offset: run.first, bytes: run.bytes(), key: run.key };
        run.first += 1;
        run.count -= 1;
        run.total -= u64::from(waiting.bytes);
        if run.count == 0 {
            self.runs.pop_front();
        }
        Some(Offer::Fresh(waiting))
    }
}

/// The lanes of one subscription.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Row of a lane by its number.
    index: NumberMap<u32>,
    /// Lanes in the order in which they came, which is about that in which they are asked for.
    rows: Vec<Lane>,
    /// Rows that no lane has.
    free: Vec<u32>,
    /// Rows of the lanes that have something to send.
    round: VecDeque<u32>,
    /// Shares that are not 1.
    weights: HashMap<u32, u32, ahash::RandomState>,
    /// Fresh messages.
    waiting: u64,
    /// Runs in all lanes: what the memory goes by.
    runs: usize,
    /// Leases that one lane may hold.
    lane_leases: usize,
}

impl Lanes {
    pub fn new(lane_leases: usize) -> Self {
        Self {
            index: NumberMap::default(),
            rows: Vec::new(),
            free: Vec::new(),
            round: VecDeque::new(),
            weights: HashMap::default(),
            waiting: 0,
            runs: 0,
            lane_leases: lane_leases.max(1),
        }
    }

    pub fn set_weight(&mut self, lane: u32, weight: u32) {
        self.weights.insert(lane, weight.clamp(1, MAX_WEIGHT));
    }

    pub fn clear_weights(&mut self) {
        self.weights.clear();
    }

    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Fresh messages by lane; a lane may come more than once.
    pub fn waiting_by_lane(&self) -> impl Iterator<Item = (u32, u64)> {
        self.rows.iter().flat_map(|lane| lane.runs.iter().map(|run| (lane.number, u64::from(run.count))))
    }

    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Adds a message behind those of its lane. Offsets of a lane come in ascending order.
    pub fn push(&mut self, lane: u32, message: Waiting) {
        let row = self.row_or_new(lane);
        let state = &mut self.rows[row as usize];
        match state.runs.back_mut() {
            Some(run)
                if run.first + u64::from(run.count) == message.offset
                    && run.key == message.key
                    && run.bytes().max(message.bytes) <= MAX_RUN_BYTES
                    && run.count < u32::MAX =>
            {
                run.count += 1;
                run.total += u64::from(message.bytes);
            }
            _ => {
                self.runs += 1;
                let Waiting { offset, bytes, key } = message;
                state.runs.push_back(Run { first: offset, count: 1, key, total: u64::from(bytes) });
            }
        }
        self.waiting += 1;
        self.activate(row);
    }

    /// Adds a message that is due again, or a key that is free.
    pub fn push_ready(&mut self, lane: u32, offer: Offer, bytes: u32) {
        let row = self.row_or_new(lane);
        self.rows[row as usize].ready.push_back((offer, bytes));
        self.activate(row);
    }

    /// As [`Lanes::push_ready`], before all others: what could not be delivered after all.
    pub fn push_back(&mut self, lane: u32, offer: Offer, bytes: u32) {
        let row = self.row_or_new(lane);
        let state = &mut self.rows[row as usize];
        state.ready.push_front((offer, bytes));
        state.ready_last = false;
        state.deficit += cost(bytes);
        self.activate(row);
    }

    /// Gives back what an offer cost that led to no delivery.
    pub fn refund(&mut self, lane: u32, bytes: u32) {
        if let Some(row) = self.index.get(u64::from(lane)) {
            self.rows[*row as usize].deficit += cost(bytes);
        }
    }

    /// Counts a lease of the lane; it sits out once it has too many.
    pub fn lease(&mut self, lane: u32) {
        let row = self.row_or_new(lane);
        self.rows[row as usize].leased += 1;
    }

    /// The end of a lease.
    pub fn release(&mut self, lane: u32) {
        let Some(&row) = self.index.get(u64::from(lane)) else { return };
        let state = &mut self.rows[row as usize];
        state.leased = state.leased.saturating_sub(1);
        self.activate(row);
        self.forget_if_idle(row);
    }

    fn row_or_new(&mut self, lane: u32) -> u32 {
        if let Some(row) = self.index.get(u64::from(lane)) {
            return *row;
        }
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Lane::default());
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        self.rows[row as usize].number = lane;
        self.index.insert(u64::from(lane), row);
        row
    }

    fn activate(&mut self, row: u32) {
        let state = &self.rows[row as usize];
        if state.active || state.is_empty() || state.leased >= self.lane_leases {
            return;
        }
        let quantum = self.quantum(state.number);
        let state = &mut self.rows[row as usize];
        state.active = true;
        state.deficit = state.deficit.clamp(quantum, 2 * quantum);
        self.round.push_back(row);
    }

    fn quantum(&self, lane: u32) -> i64 {
        QUANTUM_BYTES * i64::from(self.weights.get(&lane).copied().unwrap_or(1))
    }

    fn forget_if_idle(&mut self, row: u32) {
        let state = &mut self.rows[row as usize];
        if state.is_idle() {
            self.index.remove(u64::from(state.number));
            *state = Lane::default();
            self.free.push(row);
        }
        if self.index.is_empty() && self.rows.len() > SMALL_ROWS {
            (self.rows, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// Takes the next offer by deficit round robin.
    pub fn pop(&mut self) -> Option<(u32, Offer)> {
        let mut turned = 0;
        loop {
            let row = *self.round.front()?;
            let state = &mut self.rows[row as usize];
            if state.is_empty() || state.leased >= self.lane_leases {
                state.active = false;
                if state.is_empty() {
                    state.deficit = 0;
                }
                self.round.pop_front();
                self.forget_if_idle(row);
                continue;
            }
            let (lane, cost) = (state.number, state.cost());
            if state.deficit < cost {
                let quantum = self.quantum(lane);
                self.rows[row as usize].deficit += quantum;
                self.round.rotate_left(1);
                turned += 1;
                if turned > self.round.len() {
                    self.skip_rounds();
                    turned = 0;
                }
                continue;
            }
            state.deficit -= cost;
            let runs_before = state.runs.len();
            let offer = state.take()?;
            self.runs -= runs_before - state.runs.len();
            if matches!(offer, Offer::Fresh(_)) {
                self.waiting -= 1;
            }
            return Some((lane, offer));
        }
    }

    /// Passes at once over the rounds in which no lane could send: all have large messages.
    fn skip_rounds(&mut self) {
        let rounds = |row: &u32| {
            let state = &self.rows[*row as usize];
            (state.cost() - state.deficit).max(0) / self.quantum(state.number)
        };
        let rounds = self.round.iter().map(rounds).min().unwrap_or(0);
        for row in &self.round {
            let bytes = rounds * self.quantum(self.rows[*row as usize].number);
            self.rows[*row as usize].deficit += bytes;
        }
    }

    /// Drops fresh messages below an offset.
    pub fn drop_below(&mut self, offset: u64) {
        for state in &mut self.rows {
            while let Some(run) = state.runs.front_mut().filter(|r| r.first < offset) {
                let gone = u32::try_from(offset - run.first).unwrap_or(u32::MAX).min(run.count);
                let bytes = u64::from(run.bytes()) * u64::from(gone);
                run.first += u64::from(gone);
                run.count -= gone;
                run.total -= bytes;
                self.waiting -= u64::from(gone);
                if run.count > 0 {
                    break;
                }
                state.runs.pop_front();
                self.runs -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(offset: u64, bytes: u32) -> Waiting {
        Waiting { offset, bytes, key: 0 }
    }

    fn pop(lanes: &mut Lanes) -> (u32, Waiting) {
        match lanes.pop() {
            Some((lane, Offer::Fresh(waiting))) => (lane, waiting),
            other => panic!("a fresh message, not {other:?}"),
        }
    }

    #[test]
    fn a_late_small_lane_is_served_within_one_round_of_a_large_one() {
        let mut lanes = Lanes::new(usize::MAX);
        for offset in 0..1_000_000 {
            lanes.push(1, fresh(offset, 1000 + (offset % 3) as u32));
        }
        assert_eq!(lanes.runs(), 1, "a backlog of one lane is one run");
        for _ in 0..100 {
            assert_eq!(pop(&mut lanes).0, 1);
        }
        lanes.push(2, fresh(1_000_000, 1024));
        let before = (0..1000).take_while(|_| pop(&mut lanes).0 == 1).count();
        assert!(before <= (QUANTUM_BYTES / 1000) as usize, "lane 2 waited for {before} messages of lane 1");
    }

    #[test]
    fn a_turn_of_tiny_messages_ends_too() {
        let mut lanes = Lanes::new(usize::MAX);
        for offset in 0..20_000 {
            lanes.push(1, fresh(offset, 8));
        }
        for _ in 0..10 {
            assert_eq!(pop(&mut lanes).0, 1);
        }
        lanes.push(2, fresh(20_000, 8));
        let before = (0..20_000).take_while(|_| pop(&mut lanes).0 == 1).count();
        assert!(before <= 64, "lane 2 waited for {before} messages of lane 1");
    }

    #[test]
    fn lanes_share_bytes_by_weight_and_keep_their_order() {
        let mut lanes = Lanes::new(usize::MAX);
        lanes.set_weight(2, 3);
        for i in 0..40_000 {
            lanes.push(1, fresh(i, 4096));
            lanes.push(2, fresh(100_000 + i, 1024));
        }
        let mut bytes = [0u64; 3];
        let mut last = [None::<u64>; 3];
        for _ in 0..8_000 {
            let (lane, message) = pop(&mut lanes);
            assert!(last[lane as usize].is_none_or(|l| l < message.offset), "order within the lane");
            last[lane as usize] = Some(message.offset);
            bytes[lane as usize] += u64::from(message.bytes);
        }
        let ratio = bytes[2] as f64 / bytes[1] as f64;
        assert!((2.5..3.6).contains(&ratio), "bytes of the lanes: {bytes:?}");
        assert_eq!(lanes.waiting(), 72_000);
    }

    #[test]
    fn a_lane_with_too_many_leases_sits_out_until_one_ends() {
        let mut lanes = Lanes::new(2);
        for i in 0..5 {
            lanes.push(1, fresh(i, 10));
        }
        lanes.push(2, fresh(5, 10));
        let mut order = Vec::new();
        while let Some((lane, _)) = lanes.pop() {
            lanes.lease(lane);
            order.push(lane);
        }
        order.sort_unstable();
        assert_eq!(order, [1, 1, 2]);
        lanes.release(1);
        assert_eq!(lanes.pop().map(|(lane, _)| lane), Some(1));
    }

    #[test]
    fn thousands_of_lanes_come_and_go_and_each_message_comes_under_its_own() {
        const LANES: u32 = 2_000;
        let mut lanes = Lanes::new(10);
        for round in 0..3u64 {
            let offsets = round * 100_000..round * 100_000 + u64::from(LANES) * 3;
            let lane_of = |offset: u64| (offset * 7 + round) as u32 % LANES;
            for offset in offsets.clone() {
                lanes.push(lane_of(offset), fresh(offset, 1_000));
            }
            let (mut held, mut seen) = (VecDeque::new(), std::collections::BTreeSet::new());
            while lanes.waiting() > 0 {
                let (lane, message) = pop(&mut lanes);
                assert_eq!(lane, lane_of(message.offset));
                assert!(seen.insert(message.offset), "{} came twice", message.offset);
                lanes.lease(lane);
                held.push_back(lane);
                if held.len() > 500 {
                    held.pop_front().into_iter().for_each(|lane| lanes.release(lane));
                }
            }
            assert!(seen.into_iter().eq(offsets));
            held.into_iter().for_each(|lane| lanes.release(lane));
            assert!(lanes.pop().is_none());
            assert_eq!((lanes.runs(), lanes.waiting_by_lane().count()), (0, 0));
            assert!(lanes.rows.len() <= SMALL_ROWS, "idle lanes take no room");
        }
    }
}
