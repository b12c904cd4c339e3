//! The index in memory, in parts, so that the growth of one is a short stop.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

const SHARDS: usize = 64;
/// Tenants are told apart by ten bits of a tag: those that neither choose the part nor a place in
/// its map. Two tenants of one group make room together.
const GROUPS: usize = 1 << 10;
const GROUP_SHIFT: u32 = 46;
pub(super) const GROUP_MASK: u64 = (GROUPS as u64 - 1) << GROUP_SHIFT;

/// The bits of a tenant's tags, by a hash of its name.
pub(super) fn group_bits(hash: u64) -> u64 {
    (hash % GROUPS as u64) << GROUP_SHIFT
}

fn group_of(tag: u64) -> usize {
    ((tag & GROUP_MASK) >> GROUP_SHIFT) as usize
}

/// Tags are hashes already.
#[derive(Debug, Default)]
struct Tag(u64);

impl Hasher for Tag {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, tag: u64) {
        self.0 = tag;
    }
}

type Part = Mutex<HashMap<u64, u64, BuildHasherDefault<Tag>>>;

/// From tags to offsets.
#[derive(Debug)]
pub(super) struct Shards {
    parts: Vec<Part>,
    len: AtomicUsize,
    /// How many each group has.
    groups: Vec<AtomicUsize>,
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            parts: (0..SHARDS).map(|_| Part::default()).collect(),
            len: AtomicUsize::new(0),
            groups: (0..GROUPS).map(|_| AtomicUsize::new(0)).collect(),
        }
    }
}

impl Shards {
    /// By bits that the map inside does not begin with.
    fn part(&self, tag: u64) -> &Part {
        &self.parts[(tag >> 40) as usize % SHARDS]
    }

    pub(super) fn get(&self, tag: u64) -> Option<u64> {
        self.part(tag).lock().get(&tag).copied()
    }

    /// Answers whether the tag is new.
    pub(super) fn insert(&self, tag: u64, offset: u64) -> bool {
        let is_new = self.part(tag).lock().insert(tag, offset).is_none();
        self.len.fetch_add(usize::from(is_new), Ordering::Relaxed);
        self.groups[group_of(tag)].fetch_add(usize::from(is_new), Ordering::Relaxed);
        is_new
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The group that has most.
    pub(super) fn largest_group(&self) -> usize {
        let sizes = self.groups.iter().map(|group| group.load(Ordering::Relaxed)).enumerate();
        sizes.max_by_key(|(_, size)| *size).map_or(0, |(group, _)| group)
    }

    /// Answers how many have gone.
    pub(super) fn drop_below(&self, floor: u64) -> usize {
        self.drop_where(|_, offset| offset < floor)
    }

    /// Of one group only.
    pub(super) fn drop_group_below(&self, group: usize, floor: u64) -> usize {
        self.drop_where(|tag, offset| group_of(tag) == group && offset < floor)
    }

    fn drop_where(&self, goes: impl Fn(u64, u64) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = part.lock();
            part.retain(|tag, offset| {
                let goes = goes(*tag, *offset);
                if goes {
                    gone += 1;
                    self.groups[group_of(*tag)].fetch_sub(1, Ordering::Relaxed);
                }
                !goes
            });
            if part.capacity() > 4 * part.len().max(1_024) {
                part.shrink_to_fit();
            }
        }
        self.len.fetch_sub(gone, Ordering::Relaxed);
        gone
    }
}
