//! The keys that deduplication remembers: bounded by age and by number, persisted as deltas.
//!
//! A key is a 128-bit BLAKE3 hash of the tenant and the key's values, so that an entry costs
//! the same whatever the values are and no tenant can make a key that meets another's. Times
//! are those of the records, not of the machine, so that a replay decides as the first run did.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashSet;

/// Hash of a tenant and key values.
pub type Key = u128;

/// Bytes of one stored entry.
const ENTRY_BYTES: usize = 24;

/// A key and when it was seen, without the padding that a pair of the two would have.
#[derive(Debug, Clone, Copy)]
struct Entry {
    high: u64,
    low: u64,
    at_ms: i64,
}

impl Entry {
    fn new(key: Key, at_ms: i64) -> Self {
        Self { high: (key >> 64) as u64, low: key as u64, at_ms }
    }

    fn key(self) -> Key {
        (Key::from(self.high) << 64) | Key::from(self.low)
    }
}

/// A bounded set of recently seen keys.
#[derive(Debug)]
pub struct Window {
    span_ms: i64,
    max_keys: usize,
    keys: AHashSet<Key>,
    /// In the order of insertion, which is roughly that of time.
    order: VecDeque<Entry>,
    /// Entries since the last [`Window::take_delta`].
    delta: Vec<Entry>,
}

impl Window {
    pub fn new(span: Duration, max_keys: u64) -> Self {
        Self {
            span_ms: i64::try_from(span.as_millis()).unwrap_or(i64::MAX),
            max_keys: usize::try_from(max_keys).unwrap_or(usize::MAX).max(1),
            keys: AHashSet::new(),
            order: VecDeque::new(),
            delta: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes held, by what the collections have room for.
    pub fn bytes(&self) -> usize {
        let listed = (self.order.capacity() + self.delta.capacity()) * size_of::<Entry>();
        // A set has a byte of control a place and is at most seven eighths full.
        self.keys.capacity() * (size_of::<Key>() + 1) * 8 / 7 + listed
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// Remembers a key seen at `at_ms`, and forgets the oldest beyond the bound.
    pub fn insert(&mut self, key: Key, at_ms: i64) {
        self.remember(key, at_ms);
        self.delta.push(Entry::new(key, at_ms));
    }

    fn remember(&mut self, key: Key, at_ms: i64) {
        if self.keys.insert(key) {
            self.order.push_back(Entry::new(key, at_ms));
        }
        while self.order.len() > self.max_keys {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.order.pop_front() {
            self.keys.remove(&entry.key());
        }
    }

    /// Forgets what is older than the window at `now_ms`.
    pub fn expire(&mut self, now_ms: i64) {
        let oldest = now_ms.saturating_sub(self.span_ms);
        while self.order.front().is_some_and(|entry| entry.at_ms < oldest) {
            self.forget_oldest();
        }
    }

    /// What was inserted since the last call, encoded for a manifest.
    pub fn take_delta(&mut self) -> Vec<u8> {
        encode(std::mem::take(&mut self.delta).into_iter())
    }

    /// Everything remembered, encoded for a snapshot.
    pub fn snapshot(&self) -> Vec<u8> {
        encode(self.order.iter().copied())
    }

    /// Takes back what [`Window::snapshot`] or [`Window::take_delta`] encoded; `None` when the
    /// bytes are not entries.
    pub fn restore(&mut self, encoded: &[u8]) -> Option<()> {
        if !encoded.len().is_multiple_of(ENTRY_BYTES) {
            return None;
        }
        for entry in encoded.chunks_exact(ENTRY_BYTES) {
            let key = Key::from_le_bytes(entry[..16].try_into().ok()?);
            self.remember(key, i64::from_le_bytes(entry[16..].try_into().ok()?));
        }
        Some(())
    }
}

fn encode(entries: impl ExactSizeIterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.key().to_le_bytes());
        bytes.extend_from_slice(&entry.at_ms.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_by_age_and_by_number() {
        let mut w = Window::new(Duration::from_secs(10), 3);
        (0..3).for_each(|k| w.insert(k, i64::try_from(k).expect("small") * 1000));
        w.insert(1, 9000);
        assert_eq!(w.len(), 3, "a key seen again is one key");
        w.insert(7, 3000);
        assert!(!w.contains(0) && w.contains(1), "the oldest makes room");
        w.expire(11_500);
        assert!(!w.contains(1) && w.contains(2) && w.contains(7));
    }

    #[test]
    fn a_snapshot_and_the_deltas_after_it_make_the_same_window() {
        let mut w = Window::new(Duration::from_secs(1000), 50);
        (0..40).for_each(|k| w.insert(k, 1));
        w.take_delta();
        let snapshot = w.snapshot();
        (40..80).for_each(|k| w.insert(k, 2));
        let delta = w.take_delta();
        assert!(w.take_delta().is_empty());
        let mut back = Window::new(Duration::from_secs(1000), 50);
        back.restore(&snapshot).expect("entries");
        back.restore(&delta).expect("entries");
        assert_eq!(back.snapshot(), w.snapshot());
        assert!(back.take_delta().is_empty(), "what was restored is not new");
        assert!(back.restore(&snapshot[1..]).is_none());
    }
}
