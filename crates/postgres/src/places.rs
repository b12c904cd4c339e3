//! Places of those who have logged in: so many for all, some of them for administrators of the
//! platform alone, and of those for all so many for each owner.

use levada_core::{Principal, Problem, Quota, QuotaOwner, QuotaPlace, Quotas};
use tokio::sync::{Semaphore, SemaphorePermit};

#[derive(Debug)]
pub(crate) struct Places {
    all: Semaphore,
    reserved: Semaphore,
    quotas: Quotas,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_owner: QuotaPlace,
}

impl Places {
    /// `reserved` of `max` places are for administrators; they never are more than a quarter.
    pub fn new(max: usize, reserved: usize, quotas: Quotas) -> Self {
        let max = max.max(1);
        let reserved = reserved.min(max / 4);
        Self { all: Semaphore::new(max - reserved), reserved: Semaphore::new(reserved), quotas }
    }

    /// # Errors
    /// `quota-exceeded` (429) where the owner has as many sessions as it may, `overloaded` (503)
    /// where all together have.
    pub fn take(&self, principal: &Principal) -> Result<Place<'_>, Problem> {
        let of_owner = self.quotas.take(&QuotaOwner::of(principal), Quota::PostgresSessions)?;
        let own = || self.reserved.try_acquire().ok().filter(|_| principal.is_platform_admin());
        let of_all = self.all.try_acquire().ok().or_else(own).ok_or_else(|| {
            Problem::new(503, "overloaded", "too many clients are connected")
                .hint("close idle ones, or try again in a moment")
                .retry_after_s(1)
        })?;
        Ok(Place { _of_all: of_all, _of_owner: of_owner })
    }
}

#[cfg(test)]
mod tests {
    use levada_core::{Role, TenantId, TenantQuotas, TenantSet};

    use super::*;

    fn principal(tenant: &str) -> Principal {
        let tenants = match tenant {
            "" => TenantSet::All,
            tenant => TenantSet::Only([TenantId::new(tenant).expect("a tenant")].into()),
        };
        Principal { id: "k".into(), name: "k".into(), tenants, roles: [Role::Admin].into() }
    }

    #[test]
    fn an_owner_has_its_share_and_an_administrator_always_gets_in() {
        let quotas = Quotas::new(&[(Quota::PostgresSessions, 2)], &TenantQuotas::new());
        let places = Places::new(4, 4, quotas);
        let held: Vec<_> = (0..2).map(|_| places.take(&principal("a")).expect("a place")).collect();
        assert_eq!(places.take(&principal("a")).map(drop).map_err(|p| p.code), Err("quota-exceeded".into()));
        let other = places.take(&principal("b")).expect("another owner is not touched");
        assert_eq!(places.take(&principal("c")).map(drop).map_err(|p| p.code), Err("overloaded".into()));
        let admin = places.take(&principal("")).expect("one place is the administrators'");
        assert!(places.take(&principal("")).is_err());
        drop((held, other, admin));
        assert!(places.take(&principal("c")).is_ok(), "what was refused holds nothing");
    }
}
