//! How leases and messages end: ack, nack, expiry, dead letter, retention.

use std::time::Duration;

use levada_core::Backoff;

use super::super::live::{Live, Place};
use super::{Lease, Now, Offer, Outcome, State};

/// Ended leases whose late acknowledgement is still understood.
const REMEMBERED_LEASES: usize = 65_536;

impl State {
    /// Undoes a lease that reached nobody.
    pub fn give_back(&mut self, lease: &Lease) {
        if self.end_lease(lease.ack_id).is_none() {
            return;
        }
        self.counts.delivered -= 1;
        self.counts.redelivered -= u64::from(lease.attempt > 1);
        let Some(live) = self.live.get_mut(lease.offset) else { return };
        if let Some((count, bytes)) = self.by_lane.get_mut(u64::from(live.lane)) {
            (*count, *bytes) = (*count - 1, *bytes - u64::from(live.bytes));
        }
        if live.key == 0 {
            live.attempt -= 1;
            live.place = Place::Due;
            self.lanes.push_back(live.lane, Offer::Again(lease.offset), live.bytes);
            return;
        }
        let live = *live;
        self.bring_back_behind(live.key, lease.offset);
        self.forget_delivery(&live, lease.offset);
        match self.keys.stand(live.key) {
            Some((lane, bytes)) => self.lanes.push_back(lane, Offer::Key(live.key), bytes),
            None => self.lanes.refund(live.lane, live.bytes),
        }
    }

    /// Takes a lease out of the tables; its message is then without a place.
    pub(super) fn end_lease(&mut self, ack_id: u64) -> Option<u64> {
        let offset = self.held.remove(ack_id)?;
        if let Some(live) = self.live.get_mut(offset) {
            if let Place::Leased { deadline, .. } = live.place {
                self.deadlines.remove(deadline, ack_id);
            }
            live.place = Place::Spent;
            self.lanes.release(live.lane);
        }
        Some(offset)
    }

    pub(super) fn remember(&mut self, ack_id: u64, offset: u64, key: u64) {
        self.ended.insert(ack_id, (offset, key));
        self.ended_order.push_back(ack_id);
        if self.ended_order.len() > REMEMBERED_LEASES
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    fn deadline_of(&self, ack_id: u64) -> Option<(u64, Duration)> {
        let offset = *self.held.get(ack_id)?;
        match self.live.get(offset)?.place {
            Place::Leased { deadline, .. } => Some((offset, deadline)),
            _ => None,
        }
    }

    /// Acknowledges without exactly-once. A late ack counts while its message is not settled. One
    /// of an ordering key counts once nothing before it in the key is open.
    pub fn ack(&mut self, ack_id: u64) -> Outcome {
        if let Some(&offset) = self.held.get(ack_id) {
            let key = self.live.get(offset).map_or(0, |l| l.key);
            if key != 0 && self.keys.is_behind(key, offset) {
                self.end_lease(ack_id);
                self.remember(ack_id, offset, key);
                if let Some(live) = self.live.get_mut(offset) {
                    live.place = Place::Acknowledged;
                }
                return Outcome::Kept;
            }
            return self.acknowledge(offset, key);
        }
        match self.ended.get(&ack_id).copied() {
            // It comes again after one that failed.
            Some((offset, key)) if key != 0 && self.keys.is_behind(key, offset) => Outcome::Known,
            Some((offset, key)) => match self.live.get(offset).map(|l| l.place) {
                Some(Place::Moving | Place::Acknowledged) => Outcome::Known,
                _ => self.acknowledge(offset, key),
            },
            None if ack_id >= self.next_ack_id => Outcome::Invalid,
            None => Outcome::Known,
        }
    }

    fn acknowledge(&mut self, offset: u64, key: u64) -> Outcome {
        if !self.settle_in(offset, key) {
            return Outcome::Known;
        }
        self.counts.acknowledged += 1;
        Outcome::Settled(offset)
    }

    /// The first half of an exactly-once ack: the lease is kept until [`State::confirm`].
    /// [`Outcome::Settled`] says that the message would be settled.
    pub fn begin_confirm(&mut self, ack_id: u64, now: Now) -> Outcome {
        let Some((offset, deadline)) = self.deadline_of(ack_id) else {
            let known = self.ended.get(&ack_id).is_some_and(|(o, _)| self.progress.settled.contains(*o));
            return if known { Outcome::Known } else { Outcome::Invalid };
        };
        let Some(Live { place: Place::Leased { confirming, .. }, .. }) = self.live.get_mut(offset) else {
            return Outcome::Invalid;
        };
        if *confirming == 0 && deadline <= now.at {
            return Outcome::Invalid;
        }
        *confirming += 1;
        self.deadlines.remove(deadline, ack_id);
        Outcome::Settled(offset)
    }

    /// The second half: the acknowledgement is on disk, or it failed and the lease goes on.
    pub fn confirm(&mut self, ack_id: u64, durable: Result<(), ()>) {
        let Some(&offset) = self.held.get(ack_id) else { return };
        if durable.is_ok() {
            if self.settle(offset) {
                self.counts.acknowledged += 1;
            }
            self.remember(ack_id, offset, 0);
        } else if let Some(Live { place: Place::Leased { confirming, deadline, .. }, .. }) =
            self.live.get_mut(offset)
        {
            *confirming = confirming.saturating_sub(1);
            let (is_last, deadline) = (*confirming == 0, *deadline);
            if is_last {
                self.deadlines.insert(deadline, ack_id);
                self.come_again_if_overtaken(ack_id, offset);
            }
        }
    }

    /// Moves a deadline to `by` from now; zero gives the message back.
    pub fn modify(&mut self, ack_id: u64, by: Duration, now: Now) -> (Outcome, Option<Lease>) {
        let current = self.deadline_of(ack_id).filter(|(_, deadline)| *deadline > now.at);
        let Some((offset, deadline)) = current else {
            let late = !self.rules.exactly_once && ack_id < self.next_ack_id;
            return (if late { Outcome::Known } else { Outcome::Invalid }, None);
        };
        let Some(Live { place: Place::Leased { confirming, deadline: held, .. }, .. }) =
            self.live.get_mut(offset)
        else {
            return (Outcome::Invalid, None);
        };
        if *confirming > 0 {
            return (Outcome::Known, None);
        }
        if by.is_zero() {
            return (Outcome::Known, self.fail(ack_id, now));
        }
        *held = now.at + by;
        self.deadlines.remove(deadline, ack_id);
        self.deadlines.insert(now.at + by, ack_id);
        (Outcome::Known, None)
    }

    /// A delivery failed: its message comes again, or it is spent.
    fn fail(&mut self, ack_id: u64, now: Now) -> Option<Lease> {
        let offset = self.end_lease(ack_id)?;
        let live = self.live.get(offset).copied()?;
        if !self.rules.exactly_once {
            self.remember(ack_id, offset, live.key);
        }
        let attempt = live.attempt;
        self.stop_key(&live, offset);
        if self.rules.max_attempts.is_some_and(|max| attempt >= max) {
            return Some(Lease { ack_id, offset, attempt });
        }
        self.put_back(offset, now);
        None
    }

    /// Schedules a message again that has no place: it failed, or the dead letter did not take it.
    pub fn put_back(&mut self, offset: u64, now: Now) {
        let has_no_place = |l: &&Live| matches!(l.place, Place::Spent | Place::Moving);
        let Some(live) = self.live.get(offset).filter(has_no_place).copied() else { return };
        if live.key != 0 {
            self.bring_back_behind(live.key, offset);
        }
        let delay = self.rules.retry.map_or(Duration::ZERO, |policy| {
            let backoff = Backoff { base: policy.minimum_backoff, cap: policy.maximum_backoff };
            backoff.ceiling(live.attempt.saturating_sub(1))
        });
        if delay.is_zero() {
            self.offer(offset);
        } else if let Some(live) = self.live.get_mut(offset) {
            live.place = Place::Retry(now.at + delay);
            self.retries.insert((now.at + delay, offset));
        }
    }

    /// Takes a message out of delivery while it is moved to the dead letter; false when it is
    /// settled or about to be. It ends with [`State::settle`] or [`State::put_back`].
    pub fn begin_move(&mut self, offset: u64) -> bool {
        if self.progress.settled.contains(offset) {
            return false;
        }
        match self.live.get(offset).map(|live| live.place) {
            Some(Place::Leased { confirming: 1.., .. } | Place::Acknowledged) => return false,
            Some(Place::Leased { ack_id, .. }) => {
                self.end_lease(ack_id);
            }
            Some(Place::Retry(at)) => {
                self.retries.remove(&(at, offset));
            }
            Some(Place::Delayed(at)) => {
                self.delayed.remove(&(at, offset));
            }
            Some(Place::Due | Place::Spent | Place::Moving) | None => {}
        }
        if let Some(live) = self.live.get_mut(offset) {
            live.place = Place::Moving;
            let live = *live;
            self.stop_key(&live, offset);
        }
        true
    }

    /// Ends leases past their deadline; answers the spent ones.
    pub fn expire(&mut self, now: Now) -> Vec<Lease> {
        let mut spent = Vec::new();
        while let Some((deadline, ack_id)) = self.deadlines.first() {
            if deadline > now.at {
                break;
            }
            self.counts.expired += 1;
            self.deadlines.remove(deadline, ack_id);
            spent.extend(self.fail(ack_id, now));
        }
        spent
    }

    /// Ends a message for good; false when it was.
    pub fn settle(&mut self, offset: u64) -> bool {
        self.settle_in(offset, 0)
    }

    /// As [`State::settle`], of a message of which the key is known although it is not begun.
    fn settle_in(&mut self, offset: u64, key: u64) -> bool {
        if !self.progress.settled.insert(offset) {
            return false;
        }
        self.progress.attempts.remove(&offset);
        self.not_before.remove(&offset);
        let Some(live) = self.live.get(offset).copied() else {
            if key != 0 {
                self.leave_key(key, offset, 0);
            }
            return true;
        };
        match live.place {
            Place::Leased { ack_id, .. } => {
                self.end_lease(ack_id);
            }
            Place::Retry(at) => {
                self.retries.remove(&(at, offset));
            }
            Place::Delayed(at) => {
                self.delayed.remove(&(at, offset));
            }
            Place::Due | Place::Spent | Place::Moving | Place::Acknowledged => {}
        }
        self.live.remove(offset);
        if live.key != 0 {
            self.leave_key(live.key, offset, live.bytes);
        }
        true
    }

    /// Drops everything below an offset: retention took it.
    pub fn drop_below(&mut self, offset: u64) {
        if offset <= self.progress.settled.floor() {
            return;
        }
        let gone: Vec<u64> = self.live.iter().map(|(o, _)| o).filter(|o| *o < offset).collect();
        for offset in gone {
            self.settle(offset);
        }
        self.progress.settled.raise(offset);
        self.progress.attempts.retain(|o, _| *o >= offset);
        self.not_before.retain(|o, _| *o >= offset);
        self.lanes.drop_below(offset);
        for hash in self.keys.drop_below(offset) {
            self.offer_key(hash);
        }
        self.scanned = self.scanned.max(offset);
    }
}
