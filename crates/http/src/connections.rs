//! Who is connected, and who has to make room.
//!
//! An address has a share of the connections. At a bound the connection that has been idle for
//! longest makes room: at the address's own bound one of that address, at the bound of all one of
//! the address that holds most. So whoever comes gets in, however many others only hold on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use levada_core::admission::network;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::{self, OpenConnection};

/// The connections of one listener.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    per_peer: usize,
    /// Counts requests as they begin and end: "idle for longest" without a clock.
    turns: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    total: usize,
    peers: HashMap<IpAddr, Vec<Arc<Activity>>>,
}

/// Requests of one connection, and whether it has to make room.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    total: AtomicU64,
    /// The turn at which it was last in use.
    used: AtomicU64,
    evicted: AtomicBool,
    told: Notify,
}

impl Activity {
    /// Requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Ends when the connection has to make room.
    pub(crate) async fn evicted(&self) {
        // A notice that comes first is kept.
        while !self.evicted.load(Ordering::Acquire) {
            self.told.notified().await;
        }
    }

    /// Tells the connection to close.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.told.notify_one();
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    connections: Arc<Connections>,
    peer: IpAddr,
    pub activity: Arc<Activity>,
    _open: OpenConnection,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    connections: Arc<Connections>,
    activity: Arc<Activity>,
}

impl Connections {
    pub(crate) fn new(max: usize, per_peer: usize) -> Arc<Self> {
        let (max, per_peer) = (max.max(1), per_peer.max(1));
        Arc::new(Self { max, per_peer, turns: AtomicU64::new(1), table: Mutex::default() })
    }

    /// Seats a connection, another of which may have to go for it. `None`: the address holds its
    /// share, and all of it is in use.
    pub(crate) fn seat(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let peer = network(peer);
        let mut table = self.table.lock();
        let own = table.peers.get(&peer).map_or(0, Vec::len);
        if own >= self.per_peer && !table.evict_idle(peer) {
            metrics::connection_refused();
            return None;
        }
        if table.total >= self.max && !table.make_room(own) {
            metrics::connection_refused();
            return None;
        }
        let activity = Arc::new(Activity::default());
        activity.used.store(self.turn(), Ordering::Relaxed);
        table.peers.entry(peer).or_default().push(activity.clone());
        table.total += 1;
        Some(Seat { connections: self.clone(), peer, activity, _open: OpenConnection::new() })
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

impl Table {
    /// The connection of the address that has been idle for longest goes.
    fn evict_idle(&mut self, peer: IpAddr) -> bool {
        let idle = |activity: &&Arc<Activity>| !activity.is_busy();
        let of_peer = self.peers.get(&peer).into_iter().flatten();
        let oldest = of_peer.filter(idle).min_by_key(|a| a.used.load(Ordering::Relaxed)).cloned();
        oldest.is_some_and(|activity| self.evict(peer, &activity))
    }

    /// An idle connection of the address that holds most goes; where none is idle, the oldest of
    /// an address that holds more than the newcomer's, which has `own`.
    fn make_room(&mut self, own: usize) -> bool {
        let mut peers: Vec<(usize, IpAddr)> =
            self.peers.iter().map(|(peer, all)| (all.len(), *peer)).collect();
        peers.sort_unstable_by(|a, b| b.cmp(a));
        if peers.iter().any(|(_, peer)| self.evict_idle(*peer)) {
            return true;
        }
        let Some((most, peer)) = peers.first().copied().filter(|(most, _)| *most > own + 1) else {
            return false;
        };
        tracing::warn!(%peer, connections = most, "a connection in use makes room for another address");
        let oldest = self.peers.get(&peer).and_then(|all| all.first()).cloned();
        oldest.is_some_and(|activity| self.evict(peer, &activity))
    }

    fn evict(&mut self, peer: IpAddr, activity: &Arc<Activity>) -> bool {
        let known = self.remove(peer, activity);
        if known {
            activity.evict();
            metrics::connection_evicted();
        }
        known
    }

    fn remove(&mut self, peer: IpAddr, activity: &Arc<Activity>) -> bool {
        let Some(all) = self.peers.get_mut(&peer) else { return false };
        let Some(at) = all.iter().position(|other| Arc::ptr_eq(other, activity)) else { return false };
        all.remove(at);
        if all.is_empty() {
            self.peers.remove(&peer);
        }
        self.total -= 1;
        true
    }
}

impl Seat {
    /// A request begins.
    pub(crate) fn request(&self) -> InFlight {
        let (connections, activity) = (self.connections.clone(), self.activity.clone());
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.total.fetch_add(1, Ordering::Relaxed);
        activity.used.store(connections.turn(), Ordering::Relaxed);
        InFlight { connections, activity }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // One that made room is no longer in the table.
        self.connections.table.lock().remove(self.peer, &self.activity);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity.used.store(self.connections.turn(), Ordering::Relaxed);
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn at_the_bound_of_all_the_busiest_address_makes_room_with_what_is_idle_longest() {
        let connections = Connections::new(4, 4);
        let held: Vec<Seat> = (0..4).map(|_| connections.seat(peer(1)).expect("a seat")).collect();
        let busy = held[0].request();
        drop(held[1].request());
        let newcomer = connections.seat(peer(2)).expect("a newcomer gets in");
        let gone: Vec<bool> = held.iter().map(|seat| seat.activity.evicted.load(Ordering::Relaxed)).collect();
        assert_eq!(gone, [false, false, true, false], "in use, used later, idle longest, idle");
        assert!(!newcomer.activity.evicted.load(Ordering::Relaxed));
        drop((busy, held, newcomer));
        assert_eq!(connections.table.lock().total, 0);
        assert!(connections.table.lock().peers.is_empty());
    }

    #[test]
    fn an_address_holds_its_share_and_only_its_own_make_room() {
        let connections = Connections::new(100, 2);
        let (one, two) =
            (connections.seat(peer(1)).expect("a seat"), connections.seat(peer(1)).expect("a seat"));
        let (first, other) = (one.request(), connections.seat(peer(2)).expect("a seat"));
        let three = connections.seat(peer(1)).expect("the idle one makes room");
        assert!(two.activity.evicted.load(Ordering::Relaxed));
        let second = three.request();
        assert!(connections.seat(peer(1)).is_none(), "all are in use");
        assert!(!other.activity.evicted.load(Ordering::Relaxed));
        drop((first, second));
        assert!(connections.seat(peer(1)).is_some());
    }

    #[test]
    fn connections_in_use_do_not_keep_another_address_out() {
        let connections = Connections::new(3, 3);
        let held: Vec<Seat> = (0..3).map(|_| connections.seat(peer(1)).expect("a seat")).collect();
        let busy: Vec<InFlight> = held.iter().map(Seat::request).collect();
        let two = connections.seat(peer(2)).expect("the oldest of the busiest goes");
        assert!(held[0].activity.evicted.load(Ordering::Relaxed));
        let used = two.request();
        assert!(connections.seat(peer(2)).is_none(), "two and one is as even as it gets");
        drop((busy, used));
    }
}
