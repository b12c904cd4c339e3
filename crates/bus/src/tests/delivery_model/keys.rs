//! What the model knows of ordering keys, and the acknowledgements that go by it.

use super::{BYTES, Held, Message, Owner, Run};
use crate::delivery::{Lease, Outcome};
use crate::port::Consumer;

impl Run {
    /// Whether messages of its key come in order.
    pub(super) fn is_keyed(&self, offset: u64) -> bool {
        self.rules.ordered && self.messages[&offset].key != 0
    }

    /// The other messages of a message's key that are not settled, with their offsets.
    pub(super) fn open_of_key(&self, offset: u64) -> impl Iterator<Item = (u64, &Message)> {
        let of = self.messages[&offset];
        let is_open = move |m: &Message| m.wanted && !m.settled && m.lane == of.lane && m.key == of.key;
        let keyed = self.is_keyed(offset);
        self.messages.iter().map(|(o, m)| (*o, m)).filter(move |(o, m)| keyed && *o != offset && is_open(m))
    }

    pub(super) fn is_behind(&self, offset: u64) -> bool {
        self.open_of_key(offset).any(|(o, _)| o < offset)
    }

    /// Whether a message could be delivered now, by the words of the specification.
    pub(super) fn is_due(&self, offset: u64, consumer: Consumer) -> bool {
        let m = self.messages[&offset];
        let earlier_waits = self.open_of_key(offset).any(|(o, e)| o < offset && !e.out);
        let later_is_out = self.open_of_key(offset).any(|(o, e)| o > offset && e.out);
        let out = self.open_of_key(offset).filter(|(_, e)| e.out).count();
        let bounds = self.rules.key_bounds;
        let has_room = out < bounds.messages && (out as u64 + 1).saturating_mul(BYTES) <= bounds.bytes;
        let owner = self.owners.get(&(m.lane, m.key));
        let has_key = match consumer {
            Consumer::Stream(n) => owner == Some(&Owner::Stream(n)) && has_room,
            Consumer::Call => owner == Some(&Owner::Call(self.calls)) && has_room,
            Consumer::Single => false,
        };
        m.wanted
            && !m.settled
            && !m.out
            && !earlier_waits
            && !later_is_out
            && (out == 0 || has_key)
            && m.not_before <= self.now.at
            && m.scheduled_ms <= self.now.wall_ms
    }

    /// What is under way behind a message comes again after it.
    pub(super) fn bring_back_behind(&mut self, offset: u64) {
        let later: Vec<u64> =
            self.open_of_key(offset).filter(|(o, m)| *o > offset && m.out).map(|(o, _)| o).collect();
        for later in later {
            let held = self.held.values().find(|h| h.lease.offset == later).copied();
            if held.is_some_and(|held| held.confirming) {
                continue;
            }
            if let Some(held) = held {
                self.held.remove(&held.lease.ack_id);
                self.lost.push(held.lease);
            }
            let message = self.messages.get_mut(&later).expect("known");
            (message.out, message.acknowledged) = (false, false);
        }
    }

    /// The journal has an acknowledgement, or it failed.
    pub(super) fn end_confirm(&mut self, held: Held) {
        let (seed, Lease { ack_id: id, offset, .. }) = (self.seed, held.lease);
        if !self.rng.one_in(4) {
            self.state.confirm(id, Ok(()));
            self.settle(offset);
            assert_eq!(self.state.begin_confirm(id, self.now), Outcome::Known, "seed {seed}");
            return;
        }
        self.state.confirm(id, Err(()));
        self.held.get_mut(&id).expect("held").confirming = false;
        if self.open_of_key(offset).any(|(o, m)| o < offset && !m.out) {
            // One before it failed meanwhile.
            self.held.remove(&id);
            self.lost.push(held.lease);
            self.messages.get_mut(&offset).expect("known").out = false;
        }
    }

    /// An ack for a lease that has ended.
    pub(super) fn late_ack(&mut self) {
        let Some(lease) = self.lost.pop() else { return };
        let (seed, offset) = (self.seed, lease.offset);
        if self.rules.exactly_once {
            let outcome = self.state.begin_confirm(lease.ack_id, self.now);
            assert_eq!(outcome, Outcome::Invalid, "seed {seed}: {lease:?} has ended");
        } else if self.messages[&offset].settled || self.is_behind(offset) {
            assert_eq!(self.state.ack(lease.ack_id), Outcome::Known, "seed {seed}");
        } else {
            assert_eq!(self.state.ack(lease.ack_id), Outcome::Settled(offset), "seed {seed}");
            self.settle(offset);
        }
    }
}
