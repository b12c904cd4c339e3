//! Ordering keys of a subscription: what of a key is under way, and what comes next.
//!
//! Messages of a key are delivered in the order of their offsets. Several may be under way: they are
//! `out`. What comes after them is in the key's `queue`. A message that failed goes back to the
//! front of the queue, and the machine brings back what is out behind it, so that all of it comes
//! again in order.
//!
//! While something of a key is out, the key belongs to the consumer that has it. Another one
//! would overtake it. A key whose next message only its stream may take is kept for that stream;
//! any other key with something to deliver is offered to its lane.

mod key;

use std::collections::{BTreeMap, HashMap};

use key::{Key, Owner, Queued, Standing};
pub(crate) use key::{KeyBounds, Next, Turn};

use super::lanes::Waiting;
use crate::port::Consumer;

/// Rows of keys that ended, kept for the next ones.
const SPARE_KEYS: usize = 1_024;
/// A row with more room than this is not kept.
const SPARE_ROOM: usize = 64;

/// A key that waits, as shown to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub lane: u32,
    pub offset: u64,
    pub waiting: u64,
    pub since_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Keys {
    keys: HashMap<u64, Key, ahash::RandomState>,
    spare: Vec<Key>,
    bounds: KeyBounds,
    /// Queued messages about which the machine keeps nothing.
    waiting: u64,
    /// Keys that only their streams can go on with: by stream and number, the key.
    kept: BTreeMap<(u64, u64), u64>,
    next_kept: u64,
    /// Calls so far.
    calls: u64,
    /// Something was kept for a stream.
    kept_some: bool,
}

impl Keys {
    pub fn new(bounds: KeyBounds) -> Self {
        Self {
            keys: HashMap::default(),
            spare: Vec::new(),
            bounds,
            waiting: 0,
            kept: BTreeMap::new(),
            next_kept: 0,
            calls: 0,
            kept_some: false,
        }
    }

    /// Messages that wait for their key and that the machine has not begun with.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Begins a call.
    pub fn turn(&mut self, consumer: Consumer) -> Turn {
        self.calls += 1;
        match consumer {
            Consumer::Stream(number) => Turn { owner: Owner::Stream(number), single: false },
            Consumer::Call => Turn { owner: Owner::Call(self.calls), single: false },
            Consumer::Single => Turn { owner: Owner::Call(self.calls), single: true },
        }
    }

    /// Whether something was kept for a stream since the last time.
    pub fn kept_some(&mut self) -> bool {
        std::mem::take(&mut self.kept_some)
    }

    /// Keys that were kept for the stream of a call, at most `limit`: they are offered now, with
    /// the lane and the size of the next message.
    pub fn recall(&mut self, turn: Turn, limit: usize) -> Vec<(u64, u32, u32)> {
        let Owner::Stream(stream) = turn.owner else { return Vec::new() };
        if self.kept.is_empty() {
            return Vec::new();
        }
        let found: Vec<((u64, u64), u64)> = self
            .kept
            .range((stream, 0)..=(stream, u64::MAX))
            .take(limit)
            .map(|(place, hash)| (*place, *hash))
            .collect();
        let mut recalled = Vec::with_capacity(found.len());
        for (place, hash) in found {
            self.kept.remove(&place);
            let Some(key) = self.keys.get_mut(&hash) else { continue };
            key.standing = Standing::Offered;
            recalled.push((hash, key.lane, key.queue.front().map_or(0, |next| next.bytes)));
        }
        recalled
    }

    /// Takes a message of a key that comes out of its lane; false when it waits for its turn.
    pub fn admit(&mut self, lane: u32, message: Waiting, turn: Turn, now_ms: i64) -> bool {
        let Waiting { offset, bytes, key: hash } = message;
        let spare = &mut self.spare;
        let key = self.keys.entry(hash).or_insert_with(|| match spare.pop() {
            Some(key) => Key { lane, ..key },
            None => Key::new(lane),
        });
        if key.queue.is_empty() && key.may_take(turn, offset, bytes, self.bounds) {
            key.take(turn, offset, bytes, now_ms);
            return true;
        }
        let is_next = key.queue.is_empty();
        key.queue.push_back(Queued { offset, bytes, state: Next::Fresh });
        key.fresh += 1;
        self.waiting += 1;
        if is_next {
            // Something is out, so it is kept for its stream at most.
            self.stand(hash);
        }
        false
    }

    /// Takes the next message of a key that was offered, where the call may have it: the message
    /// and whether the machine has begun with it before. Fresh messages that are not `wanted` are
    /// dropped.
    ///
    /// # Errors
    /// The size of the message that it may not have now, 0 when there is none.
    pub fn next(
        &mut self,
        hash: u64,
        turn: Turn,
        now_ms: i64,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(Waiting, bool), u32> {
        let key = self.keys.get_mut(&hash).ok_or(0u32)?;
        if key.standing == Standing::Offered {
            key.standing = Standing::Nowhere;
        }
        while let Some(first) = key.queue.front()
            && first.state == Next::Fresh
            && !wanted(first.offset)
        {
            key.pop();
            self.waiting -= 1;
        }
        let next = key.queue.front().filter(|next| next.state != Next::Stuck);
        let Some(next) =
            next.filter(|next| key.may_take(turn, next.offset, next.bytes, self.bounds)).copied()
        else {
            let bytes = key.queue.front().map_or(0, |next| next.bytes);
            self.stand(hash);
            return Err(bytes);
        };
        key.pop();
        self.waiting -= u64::from(next.state == Next::Fresh);
        let Queued { offset, bytes, state } = next;
        key.take(turn, offset, bytes, now_ms);
        Ok((Waiting { offset, bytes, key: hash }, state == Next::Due))
    }

    /// Offers a key again within a call that may have its next message too: the lane and size.
    pub fn go_on(&mut self, hash: u64, turn: Turn) -> Option<(u32, u32)> {
        let key = self.keys.get_mut(&hash)?;
        if let Some(next) = key.queue.front()
            && key.standing == Standing::Nowhere
            && next.state != Next::Stuck
            && key.may_take(turn, next.offset, next.bytes, self.bounds)
        {
            key.standing = Standing::Offered;
            return Some((key.lane, next.bytes));
        }
        self.stand(hash)
    }

    /// Looks where a key belongs after a change. Answers lane and size when it is to be offered.
    pub fn stand(&mut self, hash: u64) -> Option<(u32, u32)> {
        let key = self.keys.get_mut(&hash)?;
        if key.out.is_empty()
            && let (Standing::Kept(number), Owner::Stream(stream)) = (key.standing, key.owner)
        {
            self.kept.remove(&(stream, number));
            key.standing = Standing::Nowhere;
        }
        let Some(next) = key.queue.front() else {
            if key.out.is_empty() {
                self.forget(hash);
            }
            return None;
        };
        if key.standing != Standing::Nowhere || next.state == Next::Stuck {
            return None;
        }
        if key.out.is_empty() {
            key.standing = Standing::Offered;
            return Some((key.lane, next.bytes));
        }
        let turn = Turn { owner: key.owner, single: false };
        if let Owner::Stream(stream) = key.owner
            && key.may_take(turn, next.offset, next.bytes, self.bounds)
        {
            key.standing = Standing::Kept(self.next_kept);
            self.kept.insert((stream, self.next_kept), hash);
            self.next_kept += 1;
            self.kept_some = true;
        }
        None
    }

    fn forget(&mut self, hash: u64) {
        let Some(key) = self.keys.remove(&hash) else { return };
        if self.spare.len() < SPARE_KEYS && key.out.capacity().max(key.queue.capacity()) <= SPARE_ROOM {
            let Key { out, queue, .. } = key;
            self.spare.push(Key { out, queue, ..Key::new(0) });
        }
        if self.keys.is_empty() && self.keys.capacity() > 16 * SPARE_KEYS {
            self.keys = HashMap::default();
        }
    }

    /// Ends a message of a key. [`Keys::stand`] comes after it.
    pub fn settled(&mut self, hash: u64, offset: u64, bytes: u32) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let was_holder = key.holder().is_some_and(|(first, _)| first == offset);
        if !key.leave(offset, bytes)
            && let Some(at) = key.queued(offset)
            && let Some(gone) = key.queue.remove(at)
            && gone.state == Next::Fresh
        {
            key.fresh -= 1;
            self.waiting -= 1;
        }
        if was_holder {
            key.since_ms = key.out.front().map_or(0, |out| out.at_ms);
        }
    }

    /// Puts a message that is out back into the queue.
    pub fn put_back(&mut self, hash: u64, offset: u64, bytes: u32, state: Next) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        if key.leave(offset, bytes) {
            key.insert(Queued { offset, bytes, state });
            self.waiting += u64::from(state == Next::Fresh);
        }
    }

    /// Says whether a queued message that the machine has begun with can be delivered.
    pub fn set(&mut self, hash: u64, offset: u64, state: Next) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        if let Some(at) = key.queued(offset)
            && let Some(queued) = key.queue.get_mut(at)
            && queued.state != Next::Fresh
        {
            queued.state = state;
        }
    }

    /// What is out behind a message, the last first.
    pub fn out_behind(&self, hash: u64, offset: u64) -> Vec<u64> {
        let Some(key) = self.keys.get(&hash) else { return Vec::new() };
        key.out.iter().rev().map(|out| out.offset).take_while(|later| *later > offset).collect()
    }

    /// Whether a message before this one is not settled.
    pub fn is_behind(&self, hash: u64, offset: u64) -> bool {
        let Some(key) = self.keys.get(&hash) else { return false };
        key.out.front().is_some_and(|first| first.offset < offset) || self.is_overtaken(hash, offset)
    }

    /// Whether a message before this one is to be delivered.
    pub fn is_overtaken(&self, hash: u64, offset: u64) -> bool {
        self.keys.get(&hash).and_then(|key| key.queue.front()).is_some_and(|next| next.offset < offset)
    }

    /// The first message that is out, where nothing before it is to be delivered.
    pub fn first_out(&self, hash: u64) -> Option<u64> {
        let first = self.keys.get(&hash)?.out.front()?.offset;
        (!self.is_overtaken(hash, first)).then_some(first)
    }

    /// The message that holds a key, and all others of it that are not settled, in order.
    pub fn chain(&self, hash: u64) -> Option<(u64, Vec<u64>)> {
        let key = self.keys.get(&hash)?;
        let (holder, _) = key.holder()?;
        let out = key.out.iter().map(|out| out.offset);
        let mut others: Vec<u64> = out.chain(key.queue.iter().map(|next| next.offset)).collect();
        others.retain(|offset| *offset != holder);
        others.sort_unstable();
        Some((holder, others))
    }

    /// Messages that [`Keys::waiting`] counts, by lane; a lane may come more than once.
    pub fn waiting_by_lane(&self) -> impl Iterator<Item = (u32, u64)> {
        self.keys.values().map(|key| (key.lane, key.fresh))
    }

    /// Drops fresh messages below an offset. Answers their keys; [`Keys::stand`] comes after it.
    pub fn drop_below(&mut self, offset: u64) -> Vec<u64> {
        let mut changed = Vec::new();
        for (hash, key) in &mut self.keys {
            let before = key.fresh;
            while key.queue.front().is_some_and(|next| next.offset < offset && next.state == Next::Fresh) {
                key.pop();
            }
            if key.fresh < before {
                self.waiting -= before - key.fresh;
                changed.push(*hash);
            }
        }
        changed
    }

    /// Every key with a message that is begun, the longest held first; at most `limit`.
    /// `wanted` says by its holder and the number that waits whether a key is shown.
    pub fn blocked(&self, limit: usize, wanted: impl Fn(u64, u64) -> bool) -> Vec<Blocked> {
        let mut found: Vec<Blocked> = self
            .keys
            .values()
            .filter_map(|key| {
                let (offset, is_queued) = key.holder()?;
                let waiting = key.queue.len() as u64 - u64::from(is_queued);
                let blocked = Blocked { lane: key.lane, offset, waiting, since_ms: key.since_ms };
                wanted(offset, waiting).then_some(blocked)
            })
            .collect();
        found.sort_by_key(|b| (b.since_ms, b.offset));
        found.truncate(limit);
        found
    }
}
