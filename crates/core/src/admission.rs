//! How many requests are in flight, and whose they are.
//!
//! A request enters by its peer's address and counts against that address until it has said who
//! calls; from then on it counts against the caller's [`Quota::Requests`]. So one address without
//! a credential, or one caller with many addresses, takes its share and no more. A request that
//! only waits gives its place up and holds one of another quota: see [`RequestPlace::wait`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::principal::Principal;
use crate::problem::Problem;
use crate::quota::{Quota, QuotaOwner, QuotaPlace, Quotas};

/// Requests in flight. Cheap to clone; clones are one.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    per_peer: usize,
    quotas: Quotas,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    peers: HashMap<IpAddr, usize, ahash::RandomState>,
}

impl Admission {
    /// At most `total` requests, and at most `per_peer` of one address that have not yet said who
    /// calls.
    pub fn new(total: usize, per_peer: usize, quotas: Quotas) -> Self {
        let (total, per_peer) = (total.max(1), per_peer.max(1));
        Self(Arc::new(Inner { total, per_peer, quotas, counts: Mutex::default() }))
    }

    /// Takes a place for a request. `None`: the peer is not known and not bounded.
    ///
    /// # Errors
    /// `overloaded` (503) where all places are taken, `quota-exceeded` (429) where the address
    /// holds its share.
    pub fn enter(&self, peer: Option<IpAddr>) -> Result<RequestPlace, Problem> {
        let peer = peer.map(network);
        let mut counts = self.0.lock();
        if counts.total >= self.0.total {
            return Err(Problem::new(503, "overloaded", "the server answers as many requests as it may")
                .hint("send the request again in a moment")
                .retry_after_s(1));
        }
        if let Some(peer) = peer {
            let most = self.0.per_peer;
            let held = counts.peers.entry(peer).or_insert(0);
            if *held >= most {
                let detail = format!("{held} requests of this address have not yet said who calls");
                return Err(Problem::new(429, "quota-exceeded", detail)
                    .hint("send the request again in a moment, with a credential")
                    .retry_after_s(1));
            }
            *held += 1;
        }
        counts.total += 1;
        drop(counts);
        let held = Held { in_total: true, peer, owner: None };
        Ok(RequestPlace { admission: self.clone(), held: Mutex::new(held) })
    }

    /// Requests that hold a place now.
    pub fn in_flight(&self) -> usize {
        self.0.lock().total
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_peer(&self, peer: IpAddr) {
        let mut counts = self.lock();
        if let Some(held) = counts.peers.get_mut(&peer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                counts.peers.remove(&peer);
            }
        }
    }
}

/// The address that a bound counts: of IPv6 the network of 64 bits, which one host has to itself.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

/// The place of one request, given back when it is dropped.
#[derive(Debug)]
pub struct RequestPlace {
    admission: Admission,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    in_total: bool,
    peer: Option<IpAddr>,
    owner: Option<(QuotaOwner, Option<QuotaPlace>)>,
}

impl RequestPlace {
    /// From now on the request counts against its caller and no longer against its address.
    ///
    /// # Errors
    /// `quota-exceeded` (429) where the caller has as many requests in flight as it may.
    pub fn identify(&self, principal: &Principal) -> Result<(), Problem> {
        let mut held = self.lock();
        if held.owner.is_some() {
            return Ok(());
        }
        let owner = QuotaOwner::of(principal);
        let place = self.admission.0.quotas.take(&owner, Quota::Requests)?;
        held.owner = Some((owner, Some(place)));
        if let Some(peer) = held.peer.take() {
            self.admission.0.leave_peer(peer);
        }
        Ok(())
    }

    /// Whose request it is, once it has said so.
    pub fn owner(&self) -> Option<QuotaOwner> {
        self.lock().owner.as_ref().map(|(owner, _)| owner.clone())
    }

    /// Takes a place of `quota` for a request that now waits and gives its own place up: who
    /// waits does not keep others from being answered.
    ///
    /// # Errors
    /// `quota-exceeded` (429); the request keeps its place then.
    pub fn wait(&self, principal: &Principal, quota: Quota) -> Result<QuotaPlace, Problem> {
        let place = self.admission.0.quotas.take(&QuotaOwner::of(principal), quota)?;
        let mut held = self.lock();
        self.release(&mut held);
        Ok(place)
    }

    fn release(&self, held: &mut Held) {
        if let Some((_, place)) = &mut held.owner {
            *place = None;
        }
        if let Some(peer) = held.peer.take() {
            self.admission.0.leave_peer(peer);
        }
        if std::mem::take(&mut held.in_total) {
            let mut counts = self.admission.0.lock();
            counts.total = counts.total.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RequestPlace {
    fn drop(&mut self) {
        let mut held = self.lock();
        self.release(&mut held);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{TenantId, TenantQuotas, TenantSet};

    fn admission() -> Admission {
        let quotas = Quotas::new(&[(Quota::Requests, 2), (Quota::WaitingReads, 1)], &TenantQuotas::new());
        Admission::new(5, 3, quotas)
    }

    fn principal(tenant: &str) -> Principal {
        let tenant = TenantId::new(tenant).expect("a valid id");
        let tenants = TenantSet::Only([tenant].into());
        Principal { id: "k".into(), name: "k".into(), tenants, roles: Default::default() }
    }

    const PEER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    #[test]
    fn an_address_without_a_credential_holds_its_share_and_others_get_in() {
        let admission = admission();
        let held: Vec<_> = (0..3).map(|_| admission.enter(PEER).expect("there is room")).collect();
        assert_eq!(admission.enter(PEER).map(drop).map_err(|p| p.status), Err(429));
        let other = admission.enter(Some(IpAddr::V6(Ipv6Addr::LOCALHOST))).expect("another address");
        held[0].identify(&principal("a")).expect("one of two");
        let again = admission.enter(PEER).expect("who has said who calls counts no longer");
        assert_eq!(admission.enter(None).map(drop).map_err(|p| p.code), Err("overloaded".to_owned()));
        drop((held, other, again));
        assert_eq!(admission.in_flight(), 0);
        assert!(admission.0.lock().peers.is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn a_caller_holds_its_share_from_whatever_address() {
        let admission = admission();
        let places: Vec<_> = (0..4).map(|_| admission.enter(None).expect("there is room")).collect();
        assert!(places[..2].iter().all(|place| place.identify(&principal("a")).is_ok()));
        assert_eq!(places[2].identify(&principal("a")).map_err(|p| p.code), Err("quota-exceeded".into()));
        places[2].identify(&principal("b")).expect("another caller is not touched");
        let waiting = places[0].wait(&principal("a"), Quota::WaitingReads).expect("one may wait");
        assert_eq!(admission.in_flight(), 3, "who waits holds no place");
        places[3].identify(&principal("a")).expect("its place is free");
        assert!(places[1].wait(&principal("a"), Quota::WaitingReads).is_err(), "one waits already");
        drop(waiting);
        assert!(places[1].wait(&principal("a"), Quota::WaitingReads).is_ok());
        drop(places);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
