//! Messages that a subscription has begun with and is not done with.

use std::time::Duration;

use levada_core::NumberMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Leased {
        ack_id: u64,
        deadline: Duration,
        confirming: u32,
    },
    /// Acknowledged before one that comes before it in its key: settled after that one.
    Acknowledged,
    Retry(Duration),
    /// Scheduled for this wall time.
    Delayed(i64),
    /// Offered to its lane.
    Due,
    /// Attempts used up: the dead letter takes it.
    Spent,
    /// On its way to the dead letter: no acknowledgement counts any more.
    Moving,
}

/// A message that was taken from its lane and is not settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub lane: u32,
    pub bytes: u32,
    pub key: u64,
    pub attempt: u32,
    pub place: Place,
}

/// A table of more rows is given back when it is empty.
pub(super) const SMALL_ROWS: usize = 1_024;

/// Those messages by their offsets. Room that one leaves is taken by the next, so that it is
/// still at hand.
#[derive(Debug, Default)]
pub(super) struct LiveTable {
    /// Offset to place in `rows`.
    index: NumberMap<u32>,
    rows: Vec<Live>,
    free: Vec<u32>,
}

impl LiveTable {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn contains(&self, offset: u64) -> bool {
        self.index.get(offset).is_some()
    }

    pub fn get(&self, offset: u64) -> Option<&Live> {
        self.rows.get(*self.index.get(offset)? as usize)
    }

    pub fn get_mut(&mut self, offset: u64) -> Option<&mut Live> {
        self.rows.get_mut(*self.index.get(offset)? as usize)
    }

    pub fn insert(&mut self, offset: u64, live: Live) {
        if let Some(row) = self.get_mut(offset) {
            *row = live;
            return;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.rows.push(live);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(row) = self.rows.get_mut(at as usize) {
            *row = live;
            self.index.insert(offset, at);
        }
    }

    pub fn remove(&mut self, offset: u64) {
        if let Some(at) = self.index.remove(offset) {
            self.free.push(at);
        }
        if self.index.is_empty() && self.rows.len() > SMALL_ROWS {
            (self.rows, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Live)> {
        self.index.iter().filter_map(|(offset, at)| Some((offset, self.rows.get(*at as usize)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use levada_disk::SimRng;

    use super::*;

    fn live(key: u64) -> Live {
        Live { lane: 1, bytes: 1, key, attempt: 0, place: Place::Due }
    }

    #[test]
    fn it_is_the_map_that_a_plain_one_is_also_when_it_was_large_and_emptied() {
        for seed in 0..20 {
            let mut rng = SimRng::new(seed);
            let (mut table, mut plain) = (LiveTable::default(), BTreeMap::new());
            for round in 0..6u64 {
                for _ in 0..1 + rng.below(3_000) {
                    let (offset, key) = (rng.below(20_000), rng.below(1_000));
                    match rng.below(4) {
                        0 => {
                            table.remove(offset);
                            plain.remove(&offset);
                        }
                        _ => {
                            table.insert(offset, live(key));
                            plain.insert(offset, key);
                        }
                    }
                }
                assert_eq!(table.len(), plain.len(), "seed {seed}");
                let all: BTreeMap<u64, u64> = table.iter().map(|(offset, live)| (offset, live.key)).collect();
                assert_eq!(all, plain, "seed {seed}");
                if round % 2 == 1 {
                    let offsets: Vec<u64> = std::mem::take(&mut plain).into_keys().collect();
                    for offset in offsets {
                        assert!(table.contains(offset), "seed {seed}");
                        table.remove(offset);
                    }
                    assert!(table.rows.len() <= SMALL_ROWS, "seed {seed}: its room is given back");
                }
            }
        }
    }
}
