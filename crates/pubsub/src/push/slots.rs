//! Who may post now.
//!
//! An owner has a pool of posts (its quota `push_posts`), and each of its subscriptions a few of
//! its own besides. So an endpoint that does not answer takes the pool at most: the other
//! subscriptions of its owner go on with their own, and other owners are not touched.

use std::collections::HashMap;
use std::sync::Arc;

use levada_core::{Quota, QuotaOwner, QuotaPlace, Quotas};
use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Posts that each subscription has for itself.
pub(super) const OWN_POSTS: usize = 4;
/// Posts that all subscriptions of one owner have for themselves, together.
const OWN_POSTS_OF_ALL: usize = 256;
/// Owners that post nothing are forgotten when there are more than this.
const MAX_IDLE: usize = 1_000;

pub(super) struct Slots {
    all: Arc<Semaphore>,
    quotas: Quotas,
    owners: Mutex<HashMap<QuotaOwner, Arc<Owner>>>,
}

struct Owner {
    pool: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// A post under way; dropping it lets another begin.
pub(super) struct Slot {
    _permits: Vec<OwnedSemaphorePermit>,
    /// What the quota shows. The pool has as many permits as the quota.
    _place: Option<QuotaPlace>,
}

impl Slots {
    pub(super) fn new(max: usize, quotas: Quotas) -> Self {
        Self { all: Arc::new(Semaphore::new(max.max(1))), quotas, owners: Mutex::default() }
    }

    /// The most that one subscription of an owner can post at the same time.
    pub(super) fn most(&self, owner: &QuotaOwner) -> usize {
        self.pool_of(owner) + OWN_POSTS
    }

    /// Waits for a slot. `own` has the subscription's own [`OWN_POSTS`].
    pub(super) async fn take(&self, owner: &QuotaOwner, own: &Arc<Semaphore>) -> Result<Slot, AcquireError> {
        let of = self.owner(owner);
        let reserved = async {
            let subscription = own.clone().acquire_owned().await?;
            Ok((subscription, of.own.clone().acquire_owned().await?))
        };
        let (mut permits, place) = tokio::select! {
            biased;
            both = reserved => both.map(|(a, b)| (vec![a, b], None))?,
            pooled = of.pool.clone().acquire_owned() => {
                (vec![pooled?], self.quotas.take(owner, Quota::PushPosts).ok())
            }
        };
        permits.push(self.all.clone().acquire_owned().await?);
        Ok(Slot { _permits: permits, _place: place })
    }

    fn owner(&self, owner: &QuotaOwner) -> Arc<Owner> {
        let mut owners = self.owners.lock();
        if owners.len() >= MAX_IDLE && !owners.contains_key(owner) {
            owners.retain(|_, of| Arc::strong_count(&of.pool) + Arc::strong_count(&of.own) > 2);
        }
        let make = || {
            let (pool, own) = (Semaphore::new(self.pool_of(owner)), Semaphore::new(OWN_POSTS_OF_ALL));
            Arc::new(Owner { pool: Arc::new(pool), own: Arc::new(own) })
        };
        owners.entry(owner.clone()).or_insert_with(make).clone()
    }

    fn pool_of(&self, owner: &QuotaOwner) -> usize {
        usize::try_from(self.quotas.limit(owner, Quota::PushPosts))
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use levada_core::TenantQuotas;

    use super::*;

    #[test]
    fn hanging_endpoints_hold_their_own_posts_and_the_pool_of_their_owner_and_no_more() {
        let slots = Slots::new(100, Quotas::new(&[(Quota::PushPosts, 3)], &TenantQuotas::new()));
        let (a, b) = (QuotaOwner::Principal("a".into()), QuotaOwner::Principal("b".into()));
        let subscription = || Arc::new(Semaphore::new(OWN_POSTS));
        let now = |owner: &QuotaOwner, own: &Arc<Semaphore>| slots.take(owner, own).now_or_never();
        let (hanging, other, foreign) = (subscription(), subscription(), subscription());
        let mut held = Vec::new();
        while let Some(slot) = now(&a, &hanging) {
            held.push(slot.expect("a slot"));
        }
        assert_eq!((held.len(), slots.most(&a)), (OWN_POSTS + 3, OWN_POSTS + 3));
        let own: Vec<_> = (0..OWN_POSTS).filter_map(|_| now(&a, &other)).collect();
        assert_eq!(own.len(), OWN_POSTS, "another subscription goes on with its own");
        assert!(now(&a, &other).is_none());
        let theirs: Vec<_> = (0..OWN_POSTS + 3).filter_map(|_| now(&b, &foreign)).collect();
        assert_eq!(theirs.len(), OWN_POSTS + 3, "another owner is not touched");
        let shown: Vec<_> = slots.quotas.usage().into_iter().map(|u| (u.owner, u.held)).collect();
        assert_eq!(shown, [(a.clone(), 3), (b, 3)]);
        held.pop();
        assert!(now(&a, &other).is_some(), "what ends is free for the owner's others");
    }
}
