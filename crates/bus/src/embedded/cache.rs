//! Messages that were read and wait for their delivery, as far as there is room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use levada_log::Stored;

/// A record takes this much beside its bytes: its slot, and its header in the buffer.
const RECORD_BYTES: i64 = 160;
/// What comes in smaller pieces is put together, up to so many records a chunk and so far apart.
const JOINED_RECORDS: usize = 1_024;
const GAP_RECORDS: u64 = 16;

/// Records by offset, in chunks as they were read.
///
/// A record is a slice of the buffer that a whole read went into, and that goes when the last
/// of its records does. So room is counted by chunk. A chunk most of which is delivered makes
/// way for another, and the last few records of one get buffers of their own.
pub(crate) struct Cache {
    /// Their ranges of offsets are disjoint and ascend.
    chunks: VecDeque<Chunk>,
    /// Chunks without records.
    empty: usize,
    /// Shared by all subscriptions.
    left: Arc<AtomicI64>,
}

/// With one slot at least, also when its records are gone.
struct Chunk {
    first: u64,
    last: u64,
    slots: Vec<Slot>,
    /// Slots that hold their record.
    held: usize,
    cost: i64,
}

struct Slot {
    offset: u64,
    record: Option<Stored>,
}

impl Chunk {
    fn slot(&mut self, offset: u64) -> Option<&mut Slot> {
        // Most topics are without gaps here.
        let at = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        let at = match self.slots.get(at) {
            Some(slot) if slot.offset == offset => at,
            _ => self.slots.binary_search_by_key(&offset, |slot| slot.offset).ok()?,
        };
        self.slots.get_mut(at)
    }

    fn is_mostly_gone(&self) -> bool {
        self.held * 4 <= self.slots.len()
    }

    /// Gives up what is delivered. Answers how much less it takes now.
    fn shrink(&mut self) -> i64 {
        self.slots.retain(|slot| slot.record.is_some());
        self.slots.iter_mut().for_each(|slot| slot.record = slot.record.as_ref().map(copy));
        self.slots.shrink_to_fit();
        // Its range stays as it was, so that chunks stay apart.
        let cost = self.slots.iter().map(cost).sum::<i64>();
        std::mem::replace(&mut self.cost, cost) - cost
    }
}

fn bytes(record: &Stored) -> i64 {
    i64::try_from(record.head.len() + record.body.len()).unwrap_or(i64::MAX / 4)
}

fn cost(slot: &Slot) -> i64 {
    RECORD_BYTES + slot.record.as_ref().map_or(0, bytes)
}

/// With a buffer of its own.
fn copy(record: &Stored) -> Stored {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    Stored { head: copy(&record.head), body: copy(&record.body), ..record.clone() }
}

impl Cache {
    pub fn new(left: Arc<AtomicI64>) -> Self {
        Self { chunks: VecDeque::new(), empty: 0, left }
    }

    /// Keeps the `wanted` ones of records that were read at once, in ascending order, unless
    /// there is no room.
    pub fn keep_read(&mut self, records: Vec<Stored>, wanted: impl Fn(&Stored) -> bool) {
        let read: i64 = records.iter().map(bytes).sum();
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        // Most reads are of what no chunk holds a part of.
        let next = self.chunks.get(self.position(first.offset));
        let is_new = next.is_none_or(|chunk| chunk.first > last.offset);
        let mut slots: Vec<Slot> = Vec::with_capacity(records.len());
        let mut kept = 0;
        for record in records {
            if wanted(&record) && (is_new || !self.covers(record.offset)) {
                kept += bytes(&record);
                slots.push(Slot { offset: record.offset, record: Some(record) });
            }
        }
        if slots.is_empty() {
            return;
        }
        if !self.make_room(kept + RECORD_BYTES * i64::try_from(slots.len()).unwrap_or(i64::MAX >> 8)) {
            return;
        }
        // Few records would hold the buffer of all.
        let is_shared = kept >= read / 2;
        if !is_shared {
            slots.iter_mut().for_each(|slot| slot.record = slot.record.as_ref().map(copy));
        }
        let mut unused = if is_shared { read - kept } else { 0 };
        let mut rest = slots.into_iter().peekable();
        while let Some(first) = rest.peek().map(|slot| slot.offset) {
            let end = self.chunks.get(self.position(first)).map_or(u64::MAX, |chunk| chunk.first);
            let mut part = Vec::with_capacity(rest.len());
            while let Some(slot) = rest.next_if(|slot| slot.offset < end) {
                part.push(slot);
            }
            if self.insert(part, unused) {
                unused = 0;
            }
        }
    }

    /// Keeps one record, with a buffer of its own.
    pub fn keep(&mut self, record: &Stored) {
        let at = self.position(record.offset);
        match self.chunks.get_mut(at).filter(|chunk| chunk.first <= record.offset) {
            None => {
                self.insert(vec![Slot { offset: record.offset, record: Some(copy(record)) }], 0);
            }
            // Its bytes are still counted, unless all of the chunk went.
            Some(chunk) if chunk.held > 0 => {
                let Some(slot) = chunk.slot(record.offset) else { return };
                if slot.record.replace(copy(record)).is_none() {
                    chunk.held += 1;
                }
            }
            Some(_) => {}
        }
    }

    /// The first chunk that does not end before an offset.
    fn position(&self, offset: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.last < offset)
    }

    /// Whether an offset lies in the range of a chunk.
    fn covers(&self, offset: u64) -> bool {
        self.chunks.get(self.position(offset)).is_some_and(|chunk| chunk.first <= offset)
    }

    /// Puts slots, none of which lies within a chunk, where they belong.
    /// False when there is no room.
    fn insert(&mut self, slots: Vec<Slot>, unused: i64) -> bool {
        let cost = unused + slots.iter().map(cost).sum::<i64>();
        let (Some(first), Some(last)) = (slots.first(), slots.last()) else { return false };
        let (first, last) = (first.offset, last.offset);
        if !self.make_room(cost) {
            return false;
        }
        self.left.fetch_sub(cost, Ordering::Relaxed);
        let at = self.position(first);
        if let Some(before) = at.checked_sub(1).and_then(|before| self.chunks.get_mut(before))
            && before.held > 0
            && first - before.last <= GAP_RECORDS
            && before.slots.len() + slots.len() <= JOINED_RECORDS
        {
            before.last = last;
            before.held += slots.len();
            before.cost += cost;
            before.slots.extend(slots);
            return true;
        }
        self.chunks.insert(at, Chunk { first, last, held: slots.len(), cost, slots });
        true
    }

    /// Whether so much is free, if need be by dropping what is mostly delivered.
    fn make_room(&mut self, cost: i64) -> bool {
        let has_room = |left: &AtomicI64| left.load(Ordering::Relaxed) >= cost;
        if !has_room(&self.left) {
            let (left, empty) = (&self.left, &mut self.empty);
            self.chunks.retain(|chunk| {
                let goes = !has_room(left) && chunk.is_mostly_gone();
                if goes {
                    left.fetch_add(chunk.cost, Ordering::Relaxed);
                    *empty -= usize::from(chunk.held == 0);
                }
                !goes
            });
        }
        has_room(&self.left)
    }

    pub fn make_room_for(&mut self, bytes: usize) -> bool {
        self.make_room(i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    pub fn take(&mut self, offset: u64) -> Option<Stored> {
        let at = self.position(offset);
        let chunk = self.chunks.get_mut(at)?;
        let record = chunk.slot(offset)?.record.take()?;
        chunk.held -= 1;
        if chunk.held == 0 {
            self.left.fetch_add(std::mem::take(&mut chunk.cost), Ordering::Relaxed);
            chunk.last = chunk.first;
            chunk.slots = vec![Slot { offset: chunk.first, record: None }];
            self.empty += 1;
            self.drop_empty();
        } else if chunk.held * 16 <= chunk.slots.len() {
            self.left.fetch_add(chunk.shrink(), Ordering::Relaxed);
        }
        Some(record)
    }

    /// Chunks leave from the front, or many at once: those behind one would move up.
    fn drop_empty(&mut self) {
        while self.chunks.pop_front_if(|chunk| chunk.held == 0).is_some() {
            self.empty -= 1;
        }
        if self.empty > self.chunks.len() / 2 {
            self.chunks.retain(|chunk| chunk.held > 0);
            self.empty = 0;
        }
    }

    /// Drops what lies below an offset.
    pub fn drop_below(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.last < offset) {
            self.left.fetch_add(chunk.cost, Ordering::Relaxed);
            self.empty -= usize::from(chunk.held == 0);
        }
        let Some(chunk) = self.chunks.front() else { return };
        let below = chunk.slots.iter().filter(|slot| slot.offset < offset && slot.record.is_some());
        for offset in below.map(|slot| slot.offset).collect::<Vec<u64>>() {
            self.take(offset);
        }
    }

    pub fn clear(&mut self) {
        self.drop_below(u64::MAX);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use levada_disk::SimRng;

    use super::*;

    const ROOM: i64 = 20_000;

    fn cache() -> (Cache, Arc<AtomicI64>) {
        let left = Arc::new(AtomicI64::new(ROOM));
        (Cache::new(left.clone()), left)
    }

    /// Slices of one buffer, as a read answers them; the body says which it is.
    fn read(offsets: impl Iterator<Item = u64>) -> Vec<Stored> {
        let offsets: Vec<u64> = offsets.collect();
        let buffer: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let buffer = Bytes::from(buffer);
        let record = |(at, offset): (usize, u64)| Stored {
            offset,
            lane: 0,
            key_id: 0,
            timestamp_ms: 0,
            head: Bytes::new(),
            body: buffer.slice(at * 8..at * 8 + 8),
        };
        offsets.into_iter().enumerate().map(record).collect()
    }

    #[test]
    fn it_gives_what_was_kept_once_and_counts_its_room() {
        for seed in 0..300 {
            let mut rng = SimRng::new(seed);
            let ((mut cache, left), mut may_be) = (cache(), BTreeSet::new());
            for _ in 0..200 {
                let first = rng.below(2_000);
                match rng.below(8) {
                    0 | 1 => {
                        let (end, step) = (first + 1 + rng.below(60), 1 + rng.below(4));
                        let records = read((first..end).step_by(step as usize));
                        let modulus = 1 + rng.below(3);
                        let wanted = |record: &Stored| record.offset.is_multiple_of(modulus);
                        may_be.extend(records.iter().filter(|r| wanted(r)).map(|r| r.offset));
                        cache.keep_read(records, wanted);
                    }
                    2 => {
                        cache.keep(&read(first..=first).remove(0));
                        may_be.insert(first);
                    }
                    3 if rng.below(10) == 0 => {
                        cache.drop_below(first);
                        may_be = may_be.split_off(&first);
                    }
                    _ => {
                        if let Some(record) = cache.take(first) {
                            assert_eq!(record.offset, first, "seed {seed}");
                            assert_eq!(*record.body, first.to_le_bytes(), "seed {seed}");
                            assert!(may_be.remove(&first), "seed {seed}: {first} was taken twice");
                        }
                    }
                }
                let used: i64 = cache.chunks.iter().map(|chunk| chunk.cost).sum();
                assert_eq!(left.load(Ordering::Relaxed), ROOM - used, "seed {seed}");
                assert!(used <= ROOM, "seed {seed}");
                for chunk in &cache.chunks {
                    let held = chunk.slots.iter().filter(|slot| slot.record.is_some());
                    assert_eq!(held.clone().count(), chunk.held, "seed {seed}");
                    assert!(held.map(cost).sum::<i64>() <= chunk.cost, "seed {seed}");
                }
                let empty = cache.chunks.iter().filter(|chunk| chunk.held == 0).count();
                assert_eq!(cache.empty, empty, "seed {seed}");
                assert!(cache.chunks.iter().all(|chunk| chunk.first <= chunk.last), "seed {seed}");
                let is_apart = |(a, b): (&Chunk, &Chunk)| a.last < b.first;
                assert!(cache.chunks.iter().zip(cache.chunks.iter().skip(1)).all(is_apart), "seed {seed}");
            }
            drop(cache);
            assert_eq!(left.load(Ordering::Relaxed), ROOM, "seed {seed}");
        }
    }

    #[test]
    fn all_of_a_read_is_there_in_whatever_order() {
        let (mut cache, _) = cache();
        cache.keep_read(read(10..60), |_| true);
        for offset in (10..60).rev() {
            assert!(cache.take(offset).is_some(), "{offset}");
            assert!(cache.take(offset).is_none(), "{offset} again");
        }
    }

    #[test]
    fn few_records_do_not_hold_the_buffer_of_many() {
        let (mut cache, _) = cache();
        let records = read(0..100);
        let buffer = records[0].body.as_ptr_range().start;
        cache.keep_read(records.clone(), |record| record.offset % 50 == 7);
        let kept = cache.take(57).expect("kept").body;
        assert_ne!(kept.as_ptr(), buffer.wrapping_add(57 * 8), "it is a copy");
        cache.clear();
        cache.keep_read(records, |record| record.offset > 20);
        let kept = cache.take(30).expect("kept").body;
        assert_eq!(kept.as_ptr(), buffer.wrapping_add(30 * 8), "it is a slice");
    }

    #[test]
    fn the_last_records_do_not_hold_the_buffer_of_those_before() {
        let (mut cache, left) = cache();
        let records = read(0..100);
        let buffer = records[0].body.as_ptr_range().start;
        cache.keep_read(records, |_| true);
        (0..95).for_each(|offset| drop(cache.take(offset)));
        assert_eq!(left.load(Ordering::Relaxed), ROOM - 6 * (RECORD_BYTES + 8), "what six take");
        let last = cache.take(97).expect("kept");
        assert_eq!(*last.body, 97u64.to_le_bytes());
        assert_ne!(last.body.as_ptr(), buffer.wrapping_add(97 * 8), "it is a copy");
    }

    #[test]
    fn what_is_mostly_delivered_makes_way() {
        let (mut cache, _) = cache();
        let many = ROOM as u64 / (RECORD_BYTES as u64 + 8);
        cache.keep_read(read(0..many), |_| true);
        cache.keep_read(read(1_000..1_010), |_| true);
        assert!(cache.take(1_005).is_none(), "there is no room");
        for offset in 0..many - 2 {
            cache.take(offset);
        }
        cache.keep_read(read(1_000..1_010), |_| true);
        assert!(cache.take(1_005).is_some());
    }
}
