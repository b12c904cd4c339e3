//! The index in memory, in parts, so that the growth of one is a short stop.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

const SHARDS: usize = 64;

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
}

impl Default for Shards {
    fn default() -> Self {
        Self { parts: (0..SHARDS).map(|_| Part::default()).collect(), len: AtomicUsize::new(0) }
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
        is_new
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Answers how many have gone.
    pub(super) fn drop_below(&self, floor: u64) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = part.lock();
            let before = part.len();
            part.retain(|_, offset| *offset >= floor);
            gone += before - part.len();
            if part.capacity() > 4 * part.len().max(1_024) {
                part.shrink_to_fit();
            }
        }
        self.len.fetch_sub(gone, Ordering::Relaxed);
        gone
    }
}
