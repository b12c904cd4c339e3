//! Tables of what is numbered in the order in which it comes: offsets, lease ids.
//!
//! Consecutive numbers lie beside one another, so that who works through thousands of them in
//! about their order finds the next one where the last one was. In a hash table each is
//! somewhere else, and waiting for memory is then most of the work.

use std::collections::{BTreeMap, HashMap};

/// Numbers of a block.
const BLOCK: u64 = 64;

/// A map from numbers. What is far apart costs a block of 64 values each.
#[derive(Debug, Clone)]
pub struct NumberMap<V> {
    /// By number / [`BLOCK`]; none is empty.
    blocks: HashMap<u64, Box<Block<V>>, ahash::RandomState>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Block<V> {
    /// A bit for each value that is there.
    used: u64,
    values: [V; BLOCK as usize],
}

fn place(number: u64) -> (u64, usize, u64) {
    let at = number % BLOCK;
    (number / BLOCK, at as usize, 1 << at)
}

impl<V> Default for NumberMap<V> {
    fn default() -> Self {
        Self { blocks: HashMap::default(), len: 0 }
    }
}

impl<V: Copy> NumberMap<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, number: u64) -> Option<&V> {
        let (block, at, bit) = place(number);
        self.blocks.get(&block).filter(|block| block.used & bit != 0).map(|block| &block.values[at])
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut V> {
        let (block, at, bit) = place(number);
        self.blocks.get_mut(&block).filter(|block| block.used & bit != 0).map(|block| &mut block.values[at])
    }

    /// Sets a value and answers the one before.
    pub fn insert(&mut self, number: u64, value: V) -> Option<V> {
        let (block, at, bit) = place(number);
        let unused = || Box::new(Block { used: 0, values: [value; BLOCK as usize] });
        let block = self.blocks.entry(block).or_insert_with(unused);
        let before = std::mem::replace(&mut block.values[at], value);
        let was_there = block.used & bit != 0;
        block.used |= bit;
        self.len += usize::from(!was_there);
        was_there.then_some(before)
    }

    pub fn remove(&mut self, number: u64) -> Option<V> {
        let (number, at, bit) = place(number);
        let block = self.blocks.get_mut(&number).filter(|block| block.used & bit != 0)?;
        block.used &= !bit;
        let value = block.values[at];
        if block.used == 0 {
            self.blocks.remove(&number);
        }
        self.len -= 1;
        Some(value)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.blocks.iter().flat_map(|(number, block)| {
            let there = (0..BLOCK).filter(|at| block.used & (1 << at) != 0);
            there.map(move |at| (number * BLOCK + at, &block.values[at as usize]))
        })
    }
}

/// Numbers by a time at which something is due; those of one time lie together.
#[derive(Debug, Clone)]
pub struct DeadlineSet<T> {
    /// By time and number / [`BLOCK`], a bit for each number; none is zero.
    due: BTreeMap<(T, u64), u64>,
    len: usize,
}

impl<T> Default for DeadlineSet<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), len: 0 }
    }
}

impl<T: Ord + Copy> DeadlineSet<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// False when it was there.
    pub fn insert(&mut self, at: T, number: u64) -> bool {
        let (block, _, bit) = place(number);
        let due = self.due.entry((at, block)).or_default();
        let is_new = *due & bit == 0;
        *due |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// False when it was not there.
    pub fn remove(&mut self, at: T, number: u64) -> bool {
        let (block, _, bit) = place(number);
        let Some(due) = self.due.get_mut(&(at, block)).filter(|due| **due & bit != 0) else { return false };
        *due &= !bit;
        if *due == 0 {
            self.due.remove(&(at, block));
        }
        self.len -= 1;
        true
    }

    /// The one that is due first; of one time the lowest number.
    pub fn first(&self) -> Option<(T, u64)> {
        let ((at, block), due) = self.due.first_key_value()?;
        Some((*at, block * BLOCK + u64::from(due.trailing_zeros())))
    }

    /// All of them, the earliest first.
    pub fn into_numbers(self) -> impl Iterator<Item = u64> {
        self.due.into_iter().flat_map(|((_, block), due)| {
            (0..BLOCK).filter(move |at| due & (1 << at) != 0).map(move |at| block * BLOCK + at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Numbers of a sequence that does not end soon. Source: Marsaglia, "Xorshift RNGs", 2003.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn a_number_map_is_the_map_that_a_plain_one_is() {
        for seed in 1..50 {
            let (mut map, mut plain) = (NumberMap::default(), BTreeMap::new());
            let mut state = seed;
            for _ in 0..500 {
                let number = random(&mut state) % 300;
                let value = random(&mut state);
                match value % 3 {
                    0 => assert_eq!(map.remove(number), plain.remove(&number), "seed {seed}"),
                    1 => assert_eq!(map.insert(number, value), plain.insert(number, value), "seed {seed}"),
                    _ => assert_eq!(map.get_mut(number), plain.get_mut(&number), "seed {seed}"),
                }
                assert_eq!(map.get(number), plain.get(&number), "seed {seed}");
                assert_eq!(map.len(), plain.len(), "seed {seed}");
            }
            let all: BTreeMap<u64, u64> = map.iter().map(|(number, value)| (number, *value)).collect();
            assert_eq!(all, plain, "seed {seed}");
        }
    }

    #[test]
    fn a_deadline_set_is_the_set_that_a_plain_one_is() {
        for seed in 1..50 {
            let (mut set, mut plain) = (DeadlineSet::default(), BTreeSet::new());
            let mut state = seed;
            for _ in 0..500 {
                let (at, number) = (random(&mut state) % 5, random(&mut state) % 200);
                if random(&mut state).is_multiple_of(3) {
                    assert_eq!(set.remove(at, number), plain.remove(&(at, number)), "seed {seed}");
                } else {
                    assert_eq!(set.insert(at, number), plain.insert((at, number)), "seed {seed}");
                }
                assert_eq!(set.first(), plain.first().copied(), "seed {seed}");
                assert_eq!(set.len(), plain.len(), "seed {seed}");
            }
            let all: Vec<u64> = set.into_numbers().collect();
            assert_eq!(all, plain.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
