//! Which messages of a topic a subscription is done with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A set of offsets: everything below `floor`, and disjoint ranges above it that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settled {
    floor: u64,
    /// First offset to the offset after the last.
    above: BTreeMap<u64, u64>,
}

impl Settled {
    pub fn below(floor: u64) -> Self {
        Self { floor, above: BTreeMap::new() }
    }

    /// The first offset that is not settled.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn contains(&self, offset: u64) -> bool {
        offset < self.floor || self.above.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// Settled offsets above the floor.
    #[cfg(test)]
    pub fn count_above(&self) -> u64 {
        self.above.iter().map(|(first, end)| end - first).sum()
    }

    /// Adds one offset; false when it was there.
    pub fn insert(&mut self, offset: u64) -> bool {
        if self.contains(offset) {
            return false;
        }
        self.insert_range(offset, offset + 1);
        true
    }

    /// Adds `first..end`.
    pub fn insert_range(&mut self, first: u64, end: u64) {
        let (mut first, mut end) = (first.max(self.floor), end);
        if first >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.above.range(..=first).next_back()
            && before_end >= first
        {
            first = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.above.range(first..=end).next() {
            end = end.max(next_end);
            self.above.remove(&next);
        }
        if first == self.floor {
            self.floor = end;
        } else {
            self.above.insert(first, end);
        }
    }

    /// Adds everything below an offset.
    pub fn raise(&mut self, floor: u64) {
        self.insert_range(self.floor, floor);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use levada_disk::SimRng;

    use super::*;

    #[test]
    fn it_is_the_set_that_a_plain_set_is() {
        for seed in 0..200 {
            let mut rng = SimRng::new(seed);
            let (mut settled, mut plain) = (Settled::below(5), (0..5).collect::<BTreeSet<u64>>());
            for _ in 0..60 {
                let first = rng.below(80);
                match rng.below(8) {
                    0 => {
                        let end = first + rng.below(10);
                        settled.insert_range(first, end);
                        plain.extend(first..end);
                    }
                    1 => {
                        settled.raise(first / 4);
                        plain.extend(0..first / 4);
                    }
                    _ => assert_eq!(settled.insert(first), plain.insert(first), "seed {seed}"),
                }
                for offset in 0..100 {
                    assert_eq!(settled.contains(offset), plain.contains(&offset), "seed {seed}: {offset}");
                }
                let floor = (0..).find(|o| !plain.contains(o)).expect("a first one");
                assert_eq!(settled.floor(), floor, "seed {seed}");
                assert_eq!(settled.count_above(), plain.iter().filter(|o| **o > floor).count() as u64);
            }
        }
    }
}
