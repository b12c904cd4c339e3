//! Which messages of a topic a subscription is done with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Offsets of a block, and the words of bits that hold them.
const BLOCK: u64 = 4_096;
const WORDS: usize = BLOCK as usize / 64;
/// A block that lacks so few has a list of those.
const FEW: u64 = 32;

/// A set of offsets: everything below `floor`, and what is above it as bits in blocks.
///
/// Many tenants that take turns settle a topic in no order, and then a set of ranges is a tree
/// as large as the messages under way; bits cost the same in any order. Blocks that are full
/// or nearly so have none: a subscription that wants one message in thousands has such.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Ranges", into = "Ranges")]
pub(crate) struct Settled {
    floor: u64,
    /// By offset / [`BLOCK`]. Offsets of such a block that are below the floor are set.
    blocks: BTreeMap<u64, Block>,
}

#[derive(Debug, Clone)]
enum Block {
    Full,
    /// All but these places, which ascend.
    But(Vec<u16>),
    Part {
        count: u64,
        bits: Box<[u64; WORDS]>,
    },
}

/// As it is kept: disjoint ranges that do not touch.
#[derive(Serialize, Deserialize)]
struct Ranges {
    floor: u64,
    /// First offset to the offset after the last.
    above: BTreeMap<u64, u64>,
}

impl Block {
    fn new() -> Self {
        Block::Part { count: 0, bits: Box::new([0; WORDS]) }
    }

    fn contains(&self, at: u64) -> bool {
        match self {
            Block::Full => true,
            Block::But(holes) => holes.binary_search(&(at as u16)).is_err(),
            Block::Part { bits, .. } => bits[at as usize / 64] & (1 << (at % 64)) != 0,
        }
    }

    /// Sets `first..end`, places within the block.
    fn set(&mut self, first: u64, end: u64) {
        let (count, bits) = match self {
            Block::Full => return,
            Block::But(holes) => {
                holes.retain(|hole| !(first..end).contains(&u64::from(*hole)));
                if holes.is_empty() {
                    *self = Block::Full;
                }
                return;
            }
            Block::Part { count, bits } => (count, bits),
        };
        for word in first / 64..end.div_ceil(64) {
            let (low, high) = (first.max(word * 64) % 64, end - word * 64);
            let below_end = if high >= 64 { u64::MAX } else { (1 << high) - 1 };
            let mask = below_end & (u64::MAX << low);
            let bits = &mut bits[word as usize];
            *count += u64::from((mask & !*bits).count_ones());
            *bits |= mask;
        }
        let left = BLOCK - *count;
        if left == 0 {
            *self = Block::Full;
        } else if left <= FEW {
            *self = Block::But((0..BLOCK).filter(|at| !self.contains(*at)).map(|at| at as u16).collect());
        }
    }

    /// The first place from `at` on that is (not) set; [`BLOCK`] when there is none.
    fn next(&self, at: u64, is_set: bool) -> u64 {
        let bits = match self {
            Block::Full if is_set => return at,
            Block::Full => return BLOCK,
            Block::But(_) if is_set => return (at..BLOCK).find(|at| self.contains(*at)).unwrap_or(BLOCK),
            Block::But(holes) => {
                let mut holes = holes.iter().map(|hole| u64::from(*hole));
                return holes.find(|hole| *hole >= at).unwrap_or(BLOCK);
            }
            Block::Part { bits, .. } => bits,
        };
        let mut at = at;
        while at < BLOCK {
            let word = bits[at as usize / 64];
            let wanted = (if is_set { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                return at + u64::from(wanted.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        BLOCK
    }
}

impl Settled {
    pub fn below(floor: u64) -> Self {
        Self { floor, blocks: BTreeMap::new() }
    }

    /// The first offset that is not settled.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn contains(&self, offset: u64) -> bool {
        offset < self.floor
            || self.blocks.get(&(offset / BLOCK)).is_some_and(|block| block.contains(offset % BLOCK))
    }

    /// Settled offsets above the floor.
    #[cfg(test)]
    pub fn count_above(&self) -> u64 {
        self.above().iter().map(|(first, end)| end - first).sum()
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
        let first = first.max(self.floor);
        if first >= end {
            return;
        }
        if first == self.floor {
            self.floor = end;
            while let Some(below) = self.blocks.first_entry().filter(|entry| *entry.key() < end / BLOCK) {
                below.remove();
            }
            if let Some(block) = self.blocks.get_mut(&(end / BLOCK)) {
                block.set(0, end % BLOCK);
            }
            self.advance();
            return;
        }
        for number in first / BLOCK..end.div_ceil(BLOCK) {
            let begin = number * BLOCK;
            let (from, to) = (first.max(begin) - begin, (end - begin).min(BLOCK));
            if to - from == BLOCK {
                self.blocks.insert(number, Block::Full);
                continue;
            }
            let below_floor = self.floor.saturating_sub(begin);
            let block = self.blocks.entry(number).or_insert_with(|| {
                let mut block = Block::new();
                block.set(0, below_floor);
                block
            });
            block.set(from, to);
        }
    }

    /// Moves the floor over what is settled above it.
    fn advance(&mut self) {
        while let Some(block) = self.blocks.get(&(self.floor / BLOCK)) {
            let (begin, at) = (self.floor - self.floor % BLOCK, self.floor % BLOCK);
            let free = block.next(at, false);
            self.floor = begin + free;
            if free < BLOCK {
                break;
            }
            self.blocks.remove(&(begin / BLOCK));
        }
    }

    /// Adds everything below an offset.
    pub fn raise(&mut self, floor: u64) {
        self.insert_range(self.floor, floor);
    }

    /// What is settled above the floor, as ranges.
    fn above(&self) -> BTreeMap<u64, u64> {
        let mut above = BTreeMap::new();
        let mut open: Option<(u64, u64)> = None;
        for (number, block) in &self.blocks {
            let begin = number * BLOCK;
            let mut at = self.floor.saturating_sub(begin);
            while at < BLOCK {
                let first = block.next(at, true);
                if first == BLOCK {
                    break;
                }
                at = block.next(first, false);
                let (first, end) = (begin + first, begin + at);
                match &mut open {
                    Some((_, before)) if *before == first => *before = end,
                    _ => {
                        above.extend(open.replace((first, end)));
                    }
                }
            }
        }
        above.extend(open);
        above
    }
}

impl PartialEq for Settled {
    fn eq(&self, other: &Self) -> bool {
        self.floor == other.floor && self.above() == other.above()
    }
}

impl Eq for Settled {}

impl From<Ranges> for Settled {
    fn from(ranges: Ranges) -> Self {
        let mut settled = Settled::below(ranges.floor);
        ranges.above.into_iter().for_each(|(first, end)| settled.insert_range(first, end));
        settled
    }
}

impl From<Settled> for Ranges {
    fn from(settled: Settled) -> Self {
        Ranges { floor: settled.floor, above: settled.above() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use levada_disk::SimRng;

    use super::*;

    fn is_the_set_that_a_plain_set_is(seed: u64, span: u64, step: usize) {
        let mut rng = SimRng::new(seed);
        let (mut settled, mut plain) = (Settled::below(5), (0..5).collect::<BTreeSet<u64>>());
        // In some histories most is settled at once, and what is left then lies far apart.
        for _ in 0..rng.below(2) * rng.below(12) {
            let first = rng.below(span);
            let end = first + rng.below(span / 4);
            settled.insert_range(first, end);
            plain.extend(first..end);
        }
        for _ in 0..60 {
            let first = rng.below(span);
            match rng.below(8) {
                0 => {
                    let end = first + rng.below(span / 8);
                    settled.insert_range(first, end);
                    plain.extend(first..end);
                }
                1 => {
                    settled.raise(first / 4);
                    plain.extend(0..first / 4);
                }
                _ => assert_eq!(settled.insert(first), plain.insert(first), "seed {seed}"),
            }
            for offset in (rng.below(step as u64)..span + span / 4).step_by(step) {
                assert_eq!(settled.contains(offset), plain.contains(&offset), "seed {seed}: {offset}");
            }
            let floor = (0..).find(|o| !plain.contains(o)).expect("a first one");
            assert_eq!(settled.floor(), floor, "seed {seed}");
            assert_eq!(settled.count_above(), plain.iter().filter(|o| **o > floor).count() as u64);
        }
        let kept = serde_json::to_vec(&settled).expect("written");
        assert_eq!(serde_json::from_slice::<Settled>(&kept).expect("read"), settled, "seed {seed}");
    }

    #[test]
    fn within_a_block_it_is_the_set_that_a_plain_set_is() {
        (0..200).for_each(|seed| is_the_set_that_a_plain_set_is(seed, 80, 1));
    }

    #[test]
    fn over_blocks_it_is_the_set_that_a_plain_set_is() {
        (0..20).for_each(|seed| is_the_set_that_a_plain_set_is(seed, 5 * BLOCK, 37));
    }

    #[test]
    fn what_is_wanted_far_apart_takes_no_bits() {
        let mut settled = Settled::default();
        for wanted in (0..50 * BLOCK).step_by(BLOCK as usize / 4) {
            settled.insert_range(wanted + 1, wanted + BLOCK / 4);
        }
        assert!(settled.blocks.values().all(|block| matches!(block, Block::But(holes) if holes.len() == 4)));
        assert_eq!((settled.floor(), settled.contains(BLOCK), settled.contains(BLOCK + 1)), (0, false, true));
        assert_eq!(settled.above().len(), 200);
        for wanted in (0..200).rev().map(|n| n * BLOCK / 4) {
            assert!(settled.insert(wanted), "{wanted}");
        }
        assert_eq!(settled, Settled::below(50 * BLOCK));
        assert!(settled.blocks.is_empty());
    }

    #[test]
    fn it_is_kept_as_ranges() {
        let mut settled = Settled::below(7);
        settled.insert_range(9, 12);
        settled.insert_range(BLOCK - 1, 3 * BLOCK + 1);
        let kept = serde_json::to_value(&settled).expect("written");
        let above = serde_json::json!({"9": 12, (BLOCK - 1).to_string(): 3 * BLOCK + 1});
        assert_eq!(kept, serde_json::json!({"floor": 7, "above": above}));
    }
}
