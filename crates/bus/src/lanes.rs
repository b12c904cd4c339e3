//! Fair choice among tenant lanes: which record a subscription delivers next.
//!
//! Deficit round robin over lanes. Source: M. Shreedhar and G. Varghese, "Efficient Fair
//! Queueing using Deficit Round Robin", SIGCOMM 1995. The cost of a record is its size.

use std::collections::{HashMap, VecDeque};

/// Bytes that a lane may send a round.
const QUANTUM_BYTES: i64 = 64 << 10;

/// A waiting record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub offset: u64,
    pub bytes: u32,
}

#[derive(Debug, Default)]
struct Lane {
    /// Runs of consecutive offsets of equal size share one entry.
    runs: VecDeque<Run>,
    deficit: i64,
    active: bool,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    count: u32,
    bytes: u32,
}

/// The lanes of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: HashMap<u32, Lane, ahash::RandomState>,
    round: VecDeque<u32>,
    waiting: u64,
}

impl Lanes {
    /// Adds a record behind those of its lane. Offsets of a lane come in ascending order.
    pub fn push(&mut self, lane: u32, record: Waiting) {
        let state = self.lanes.entry(lane).or_default();
        match state.runs.back_mut() {
            Some(run)
                if run.first + u64::from(run.count) == record.offset
                    && run.bytes == record.bytes
                    && run.count < u32::MAX =>
            {
                run.count += 1;
            }
            _ => state.runs.push_back(Run { first: record.offset, count: 1, bytes: record.bytes }),
        }
        if !state.active {
            state.active = true;
            state.deficit = QUANTUM_BYTES;
            self.round.push_back(lane);
        }
        self.waiting += 1;
    }

    /// Takes the next record by deficit round robin.
    pub fn pop(&mut self) -> Option<(u32, Waiting)> {
        loop {
            let lane = *self.round.front()?;
            let state = self.lanes.get_mut(&lane)?;
            let Some(run) = state.runs.front_mut() else {
                self.round.pop_front();
                self.lanes.remove(&lane);
                continue;
            };
            let cost = i64::from(run.bytes.max(1));
            if state.deficit < cost {
                state.deficit += QUANTUM_BYTES.max(cost);
                self.round.rotate_left(1);
                continue;
            }
            state.deficit -= cost;
            let record = Waiting { offset: run.first, bytes: run.bytes };
            run.first += 1;
            run.count -= 1;
            if run.count == 0 {
                state.runs.pop_front();
            }
            if state.runs.is_empty() {
                self.round.pop_front();
                self.lanes.remove(&lane);
            }
            self.waiting -= 1;
            return Some((lane, record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_small_lane_is_served_within_one_round_of_a_large_one() {
        let mut lanes = Lanes::default();
        for offset in 0..100_000 {
            lanes.push(1, Waiting { offset, bytes: 1024 });
        }
        for _ in 0..100 {
            assert_eq!(lanes.pop().map(|(lane, _)| lane), Some(1));
        }
        lanes.push(2, Waiting { offset: 100_000, bytes: 1024 });
        let before = (0..1000).take_while(|_| lanes.pop().is_some_and(|(lane, _)| lane == 1)).count();
        assert!(before <= (QUANTUM_BYTES / 1024) as usize, "lane 2 waited for {before} records of lane 1");
    }

    #[test]
    fn lanes_share_bytes_not_records_and_keep_their_order() {
        let mut lanes = Lanes::default();
        for i in 0..4_000 {
            lanes.push(1, Waiting { offset: i, bytes: 4096 });
            lanes.push(2, Waiting { offset: 10_000 + i, bytes: 1024 });
        }
        let mut bytes = [0u64; 3];
        let mut last = [None::<u64>; 3];
        for _ in 0..2_000 {
            let (lane, record) = lanes.pop().expect("records wait");
            assert!(last[lane as usize].is_none_or(|l| l < record.offset), "order within the lane");
            last[lane as usize] = Some(record.offset);
            bytes[lane as usize] += u64::from(record.bytes);
        }
        let ratio = bytes[1] as f64 / bytes[2] as f64;
        assert!((0.8..1.25).contains(&ratio), "bytes of the lanes: {bytes:?}");
        assert_eq!(lanes.waiting, 6_000);
    }
}
