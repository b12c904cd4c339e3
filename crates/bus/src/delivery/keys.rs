//! Ordering keys of a subscription: one message of a key is under way at a time.

use std::collections::{HashMap, VecDeque};

use super::lanes::Waiting;

/// A key with a message under way, and what waits behind it in order.
#[derive(Debug, Default)]
struct Key {
    lane: u32,
    /// `None`: free, and offered to its lane.
    blocker: Option<u64>,
    since_ms: i64,
    waiting: VecDeque<(u64, u32)>,
}

/// A key that waits, as shown to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub lane: u32,
    pub offset: u64,
    pub waiting: u64,
    pub since_ms: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: HashMap<u64, Key, ahash::RandomState>,
    waiting: u64,
}

impl Keys {
    /// Messages that wait for their key.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Takes the key for a message; false when it is taken, and then the message waits.
    pub fn take_or_wait(&mut self, lane: u32, message: Waiting, now_ms: i64) -> bool {
        if let Some(key) = self.keys.get_mut(&message.key) {
            key.waiting.push_back((message.offset, message.bytes));
            self.waiting += 1;
            return false;
        }
        let key = Key { lane, blocker: Some(message.offset), since_ms: now_ms, waiting: VecDeque::new() };
        self.keys.insert(message.key, key);
        true
    }

    /// Ends the turn of `offset`. The lane and size of the next message when there is one.
    pub fn free(&mut self, hash: u64, offset: u64) -> Option<(u32, u32)> {
        let key = self.keys.get_mut(&hash).filter(|k| k.blocker == Some(offset))?;
        key.blocker = None;
        let next = key.waiting.front().map(|(_, bytes)| (key.lane, *bytes));
        if next.is_none() {
            self.keys.remove(&hash);
        }
        next
    }

    /// Gives a free key to the first message that waits for it and is `wanted`.
    pub fn next(&mut self, hash: u64, now_ms: i64, wanted: impl Fn(u64) -> bool) -> Option<Waiting> {
        let key = self.keys.get_mut(&hash).filter(|k| k.blocker.is_none())?;
        while let Some((offset, bytes)) = key.waiting.pop_front() {
            self.waiting -= 1;
            if wanted(offset) {
                key.blocker = Some(offset);
                key.since_ms = now_ms;
                return Some(Waiting { offset, bytes, key: hash });
            }
        }
        self.keys.remove(&hash);
        None
    }

    /// The message that holds a key.
    pub fn blocker(&self, hash: u64) -> Option<u64> {
        self.keys.get(&hash)?.blocker
    }

    /// The messages that wait for a key, in order.
    pub fn queue(&self, hash: u64) -> Vec<u64> {
        self.keys.get(&hash).map(|k| k.waiting.iter().map(|(o, _)| *o).collect()).unwrap_or_default()
    }

    /// Messages that wait for their keys, by lane; a lane may come more than once.
    pub fn waiting_by_lane(&self) -> impl Iterator<Item = (u32, u64)> {
        self.keys.values().map(|key| (key.lane, key.waiting.len() as u64))
    }

    /// Drops waiting messages below an offset.
    pub fn drop_below(&mut self, offset: u64) {
        for key in self.keys.values_mut() {
            while key.waiting.front().is_some_and(|(o, _)| *o < offset) {
                key.waiting.pop_front();
                self.waiting -= 1;
            }
        }
    }

    /// Every key with a holder, the longest held first; at most `limit`. `wanted` says by its
    /// holder and the number that waits whether a key is shown.
    pub fn blocked(&self, limit: usize, wanted: impl Fn(u64, u64) -> bool) -> Vec<Blocked> {
        let mut found: Vec<Blocked> = self
            .keys
            .values()
            .filter_map(|k| {
                let (offset, waiting) = (k.blocker?, k.waiting.len() as u64);
                let blocked = Blocked { lane: k.lane, offset, waiting, since_ms: k.since_ms };
                wanted(offset, waiting).then_some(blocked)
            })
            .collect();
        found.sort_by_key(|b| (b.since_ms, b.offset));
        found.truncate(limit);
        found
    }
}
