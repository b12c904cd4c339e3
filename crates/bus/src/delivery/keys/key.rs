//! One ordering key: what of it is out, what is queued, and who may take the next message.

use std::collections::VecDeque;

/// How much of one key may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyBounds {
    pub messages: usize,
    /// The first message always fits.
    pub bytes: u64,
}

/// One call that takes messages, as far as keys go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(super) owner: Owner,
    /// It takes one message of a key at most.
    pub(super) single: bool,
}

/// Who has what is out of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// One call. Nobody can go on with its keys.
    Call(u64),
    /// A stream, which goes on with its keys in later calls.
    Stream(u64),
}

/// A message that was delivered and is not settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub offset: u64,
    pub at_ms: i64,
}

/// A message that is to be delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub offset: u64,
    pub bytes: u32,
    pub state: Next,
}

/// Whether a queued message can be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The machine keeps nothing about it but its attempts.
    Fresh,
    /// It failed or was scheduled, and is due.
    Due,
    /// It waits for its time, or for the dead letter.
    Stuck,
}

/// Where a key is found when its next message can be delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    Nowhere,
    /// In its lane.
    Offered,
    /// With its stream, under this number.
    Kept(u64),
}

#[derive(Debug)]
pub(super) struct Key {
    pub lane: u32,
    /// Of what is out; means nothing while nothing is.
    pub owner: Owner,
    /// Ascending.
    pub out: VecDeque<Out>,
    pub out_bytes: u64,
    /// Ascending.
    pub queue: VecDeque<Queued>,
    /// How many of the queue are [`Next::Fresh`].
    pub fresh: u64,
    pub standing: Standing,
    pub since_ms: i64,
}

impl Key {
    pub fn new(lane: u32) -> Self {
        Self {
            lane,
            owner: Owner::Call(0),
            out: VecDeque::new(),
            out_bytes: 0,
            queue: VecDeque::new(),
            fresh: 0,
            standing: Standing::Nowhere,
            since_ms: 0,
        }
    }

    pub fn may_take(&self, turn: Turn, offset: u64, bytes: u32, bounds: KeyBounds) -> bool {
        let Some(last) = self.out.back() else { return true };
        self.owner == turn.owner
            && !turn.single
            // What is out behind it is about to be settled or to come back.
            && last.offset < offset
            && self.out.len() < bounds.messages
            && self.out_bytes + u64::from(bytes) <= bounds.bytes
    }

    pub fn take(&mut self, turn: Turn, offset: u64, bytes: u32, now_ms: i64) {
        if self.out.is_empty() {
            self.owner = turn.owner;
            // A message that failed holds its key since its first delivery.
            if self.since_ms == 0 {
                self.since_ms = now_ms;
            }
        }
        self.out.push_back(Out { offset, at_ms: now_ms });
        self.out_bytes += u64::from(bytes);
    }

    /// Takes a message out of what is under way; false when it is not.
    pub fn leave(&mut self, offset: u64, bytes: u32) -> bool {
        let at = match self.out.front() {
            Some(first) if first.offset == offset => Ok(0),
            _ => self.out.binary_search_by_key(&offset, |out| out.offset),
        };
        let Ok(at) = at else { return false };
        self.out.remove(at);
        self.out_bytes -= u64::from(bytes);
        true
    }

    pub fn pop(&mut self) -> Option<Queued> {
        let next = self.queue.pop_front()?;
        self.fresh -= u64::from(next.state == Next::Fresh);
        Some(next)
    }

    pub fn insert(&mut self, next: Queued) {
        self.fresh += u64::from(next.state == Next::Fresh);
        match self.queue.front() {
            Some(first) if first.offset < next.offset => {
                let at = self.queue.partition_point(|queued| queued.offset < next.offset);
                self.queue.insert(at, next);
            }
            _ => self.queue.push_front(next),
        }
    }

    pub fn queued(&mut self, offset: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&offset, |queued| queued.offset).ok()
    }

    /// The first message that is begun and not settled, and whether it is queued.
    pub fn holder(&self) -> Option<(u64, bool)> {
        let queued = self.queue.front().filter(|next| next.state != Next::Fresh).map(|next| next.offset);
        match (self.out.front().map(|out| out.offset), queued) {
            (Some(out), Some(queued)) if queued < out => Some((queued, true)),
            (Some(out), _) => Some((out, false)),
            (None, queued) => queued.map(|queued| (queued, true)),
        }
    }
}
