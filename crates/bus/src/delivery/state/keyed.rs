//! Messages of ordering keys: how the machine and [`Keys`] move together.
//!
//! [`Keys`]: super::super::keys::Keys

use super::super::keys::{Blocked, Next, Turn};
use super::super::lanes::SHARED_LANE;
use super::super::live::{Live, Place};
use super::{Now, Offer, State};

impl State {
    /// Offers keys that were kept for the stream of a call, so many at most; false when there are none.
    pub(super) fn offer_kept_keys(&mut self, turn: Turn, limit: usize) -> bool {
        let recalled = self.keys.recall(turn, limit);
        for (hash, lane, bytes) in &recalled {
            self.lanes.push_ready(*lane, Offer::Key(*hash), *bytes);
        }
        !recalled.is_empty()
    }

    /// Takes the next message of a key that its lane offered; `None` when nothing comes of it.
    pub(super) fn next_of_key(&mut self, lane: u32, hash: u64, turn: Turn, now: Now) -> Option<u64> {
        let settled = &self.progress.settled;
        match self.keys.next(hash, turn, now.wall_ms, |offset| !settled.contains(offset)) {
            Ok((message, true)) => Some(message.offset),
            Ok((message, false)) => self.start(lane, message, now),
            Err(bytes) => {
                self.lanes.refund(lane, bytes);
                None
            }
        }
    }

    /// The call that took from a key may have more of it.
    pub(super) fn go_on_with_key(&mut self, hash: u64, turn: Turn) {
        if let Some((lane, bytes)) = self.keys.go_on(hash, turn) {
            self.lanes.push_ready(lane, Offer::Key(hash), bytes);
        }
    }

    pub(super) fn offer_key(&mut self, hash: u64) {
        if let Some((lane, bytes)) = self.keys.stand(hash) {
            self.lanes.push_ready(lane, Offer::Key(hash), bytes);
        }
    }

    /// A message cannot be delivered now, and nothing of its key before it is.
    pub(super) fn stop_key(&mut self, live: &Live, offset: u64) {
        if live.key != 0 {
            self.keys.put_back(live.key, offset, live.bytes, Next::Stuck);
            self.keys.set(live.key, offset, Next::Stuck);
            self.offer_key(live.key);
        }
    }

    /// A message that stopped its key can be delivered.
    pub(super) fn free_key(&mut self, hash: u64, offset: u64) {
        self.keys.set(hash, offset, Next::Due);
        self.offer_key(hash);
    }

    /// What is under way behind a message comes again after it. Acknowledgements that are being
    /// made durable are waited for.
    pub(super) fn bring_back_behind(&mut self, hash: u64, offset: u64) {
        for later in self.keys.out_behind(hash, offset) {
            let Some(live) = self.live.get(later).copied() else { continue };
            match live.place {
                Place::Leased { confirming: 1.., .. } => continue,
                Place::Leased { ack_id, .. } => {
                    self.end_lease(ack_id);
                    if !self.rules.exactly_once {
                        self.remember(ack_id, later, hash);
                    }
                }
                _ => {}
            }
            self.counts.redelivered += 1;
            self.forget_delivery(&live, later);
        }
    }

    /// A delivery that did not fail counts as none: its message waits in its key again.
    pub(super) fn forget_delivery(&mut self, live: &Live, offset: u64) {
        let attempt = live.attempt.saturating_sub(1);
        if attempt > 0 {
            self.progress.attempts.insert(offset, attempt);
        }
        self.live.remove(offset);
        self.keys.put_back(live.key, offset, live.bytes, Next::Fresh);
    }

    /// The acknowledgement of a lease was not made durable. When an earlier message of its key
    /// failed meanwhile, this one comes again after it.
    pub(super) fn come_again_if_overtaken(&mut self, ack_id: u64, offset: u64) {
        let Some(live) = self.live.get(offset).copied() else { return };
        if live.key == 0 || !self.keys.is_overtaken(live.key, offset) {
            return;
        }
        self.end_lease(ack_id);
        self.counts.redelivered += 1;
        self.forget_delivery(&live, offset);
        self.offer_key(live.key);
    }

    /// A message of a key is settled: what was acknowledged behind it may be, too.
    pub(super) fn leave_key(&mut self, hash: u64, offset: u64, bytes: u32) {
        self.keys.settled(hash, offset, bytes);
        while let Some(first) = self.keys.first_out(hash) {
            let Some(live) = self.live.get(first).filter(|l| l.place == Place::Acknowledged).copied() else {
                break;
            };
            self.progress.settled.insert(first);
            self.live.remove(first);
            self.keys.settled(hash, first, live.bytes);
            self.counts.acknowledged += 1;
            self.released.push(first);
        }
        self.offer_key(hash);
    }

    /// Messages that were settled because those before them in their keys were; each once.
    pub fn take_released(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.released)
    }

    /// Counts a delivery in the shared lane for the tenant whose message it is.
    pub fn count_for(&mut self, offset: u64, lane: u32) {
        let Some(live) = self.live.get(offset).filter(|live| live.lane == SHARED_LANE) else { return };
        let bytes = u64::from(live.bytes);
        if let Some(shared) = self.by_lane.get_mut(u64::from(SHARED_LANE)) {
            *shared = (shared.0.saturating_sub(1), shared.1.saturating_sub(bytes));
        }
        let (count, total) = self.by_lane.get(u64::from(lane)).copied().unwrap_or_default();
        self.by_lane.insert(u64::from(lane), (count + 1, total + bytes));
    }

    /// Keys that others wait for, or whose message has failed, with its deliveries so far.
    pub fn blocked(&self, limit: usize) -> Vec<(Blocked, u32)> {
        let attempt = |offset| self.live.get(offset).map_or(0, |l: &Live| l.attempt);
        let blocked = self.keys.blocked(limit, |offset, waiting| waiting > 0 || attempt(offset) > 1);
        blocked.into_iter().map(|b| (b, attempt(b.offset))).collect()
    }

    /// The message that holds a key, and those that are open behind it in order.
    pub fn chain(&self, key: u64) -> Option<(u64, Vec<u64>)> {
        let (holder, mut others) = self.keys.chain(key)?;
        let is_acknowledged = |offset: u64| {
            self.progress.settled.contains(offset)
                || self.live.get(offset).is_some_and(|l| l.place == Place::Acknowledged)
        };
        others.retain(|offset| !is_acknowledged(*offset));
        Some((holder, others))
    }
}
