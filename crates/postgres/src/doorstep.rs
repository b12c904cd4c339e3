//! Connections that have not logged in: they hold no place of those who have, and are few.
//!
//! At a bound the oldest of an address makes room: at the address's own bound one of that
//! address, at the bound of all one of the address that has most. So a login gets through however
//! many others begin one and never end it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use levada_core::admission::network;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::metrics;

#[derive(Debug)]
pub(crate) struct Doorstep {
    max: usize,
    per_peer: usize,
    /// The oldest first.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    all: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    peer: IpAddr,
    leave: CancellationToken,
}

/// A connection on the doorstep, until it is dropped.
#[derive(Debug)]
pub(crate) struct Stay {
    doorstep: Arc<Doorstep>,
    number: u64,
    /// Cancelled when it has to make room.
    pub leave: CancellationToken,
}

impl Doorstep {
    pub fn new(max: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), per_peer: per_peer.max(1), waiting: Mutex::default() })
    }

    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Stay {
        let peer = network(peer);
        let mut waiting = self.waiting.lock();
        if waiting.all.iter().filter(|waiter| waiter.peer == peer).count() >= self.per_peer {
            waiting.send_away(peer);
        }
        if waiting.all.len() >= self.max
            && let Some(busiest) = waiting.busiest()
        {
            waiting.send_away(busiest);
        }
        let (number, leave) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.all.push_back(Waiter { number, peer, leave: leave.clone() });
        Stay { doorstep: self.clone(), number, leave }
    }
}

impl Waiting {
    fn busiest(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for waiter in &self.all {
            *counts.entry(waiter.peer).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer)
    }

    fn send_away(&mut self, peer: IpAddr) {
        let oldest = self.all.iter().position(|waiter| waiter.peer == peer);
        if let Some(waiter) = oldest.and_then(|at| self.all.remove(at)) {
            waiter.leave.cancel();
            metrics::login("sent_away");
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.doorstep.waiting.lock().all.retain(|waiter| waiter.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_newcomer_gets_in_and_the_oldest_of_the_busiest_goes() {
        let doorstep = Doorstep::new(4, 3);
        let many: Vec<Stay> = (0..3).map(|_| doorstep.enter(peer(1))).collect();
        let other = doorstep.enter(peer(2));
        let newcomer = doorstep.enter(peer(3));
        let gone = |stays: &[Stay]| stays.iter().map(|s| s.leave.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(gone(&many), [true, false, false]);
        assert!(!other.leave.is_cancelled() && !newcomer.leave.is_cancelled());
        drop((many, other, newcomer));
        assert!(doorstep.waiting.lock().all.is_empty());
    }

    #[test]
    fn an_address_at_its_bound_loses_its_own_oldest() {
        let doorstep = Doorstep::new(100, 2);
        let other = doorstep.enter(peer(2));
        let stays: Vec<Stay> = (0..3).map(|_| doorstep.enter(peer(1))).collect();
        assert!(stays[0].leave.is_cancelled() && !stays[1].leave.is_cancelled());
        assert!(!other.leave.is_cancelled());
        assert_eq!(doorstep.waiting.lock().all.len(), 3);
    }
}
