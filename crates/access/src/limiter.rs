//! Rate limits: one token bucket a tenant, in memory, bounded in number.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use levada_core::{Clock, Decision, Problem, TenantId, TokenBucket};
use parking_lot::Mutex;

/// A sustained rate and how far above it a burst may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second.
    pub per_s: f64,
    /// Tokens that a full bucket holds.
    pub burst: f64,
}

impl Rate {
    /// A rate whose burst is two seconds of it, or one token where that is more.
    pub fn per_second(per_s: f64) -> Self {
        Self { per_s, burst: (per_s * 2.0).max(1.0) }
    }

    /// Longer than this idle, and a bucket is full again: its state says nothing.
    fn refill(self) -> Duration {
        Duration::from_secs_f64((self.burst / self.per_s).clamp(0.0, 86_400.0))
    }
}

struct Entry {
    bucket: TokenBucket,
    rate: Rate,
    used: Duration,
}

struct Inner {
    default: Option<Rate>,
    /// `None`: that tenant is not limited.
    by_tenant: HashMap<TenantId, Option<Rate>>,
    buckets: HashMap<TenantId, Entry>,
}

/// Limits by tenant. Cheap to ask: one lock, one look-up.
pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    max_tenants: usize,
    inner: Mutex<Inner>,
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("tenants", &self.len()).finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// Buckets kept at the same time unless told otherwise.
    pub const MAX_TENANTS: usize = 10_000;

    /// `default` is the rate of a tenant without one of its own; `None` does not limit.
    pub fn new(default: Option<Rate>, clock: Arc<dyn Clock>) -> Self {
        Self::with_capacity(default, clock, Self::MAX_TENANTS)
    }

    /// As [`RateLimiter::new`], remembering at most `max_tenants` buckets (at least one).
    pub fn with_capacity(default: Option<Rate>, clock: Arc<dyn Clock>, max_tenants: usize) -> Self {
        let inner = Inner { default, by_tenant: HashMap::new(), buckets: HashMap::new() };
        Self { clock, max_tenants: max_tenants.max(1), inner: Mutex::new(inner) }
    }

    /// Gives a tenant a rate of its own; `None` frees it of limits. Takes effect at once,
    /// with a full bucket.
    pub fn set(&self, tenant: TenantId, rate: Option<Rate>) {
        let mut inner = self.inner.lock();
        inner.buckets.remove(&tenant);
        inner.by_tenant.insert(tenant, rate);
    }

    /// Takes `cost` tokens of the tenant, all or none. `None`: the tenant is not limited.
    pub fn take(&self, tenant: &TenantId, cost: u64) -> Option<Decision> {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let rate = inner.by_tenant.get(tenant).copied().unwrap_or(inner.default)?;
        if !inner.buckets.contains_key(tenant) {
            if inner.buckets.len() >= self.max_tenants {
                make_room(&mut inner.buckets, now);
            }
            let bucket = TokenBucket::new(rate.per_s, rate.burst, now);
            inner.buckets.insert(tenant.clone(), Entry { bucket, rate, used: now });
        }
        let entry = inner.buckets.get_mut(tenant)?;
        entry.used = now;
        Some(entry.bucket.take(cost as f64, now))
    }

    /// As [`RateLimiter::take`], for who only wants to know whether it may go on.
    ///
    /// # Errors
    /// `rate-limited` (429) with the time to wait.
    pub fn admit(&self, tenant: &TenantId, cost: u64) -> Result<(), Problem> {
        match self.take(tenant, cost) {
            Some(decision) if !decision.allowed => Err(exceeded(&decision)),
            _ => Ok(()),
        }
    }

    /// Buckets held now.
    pub fn len(&self) -> usize {
        self.inner.lock().buckets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to a request that a limit does not let through.
pub fn exceeded(decision: &Decision) -> Problem {
    let wait_s = decision.reset.as_secs() + u64::from(decision.reset.subsec_nanos() > 0);
    Problem::new(429, "rate-limited", format!("the tenant's limit of {} is used up", decision.limit))
        .hint("wait as long as Retry-After says; spread the load, or ask for a higher limit in levada.yaml")
        .retry_after_s(wait_s.max(1))
}

/// Forgets buckets that are full again; where none is, the one used longest ago. That one
/// tenant gains at most one burst, and only while more tenants than the map holds are active.
fn make_room(buckets: &mut HashMap<TenantId, Entry>, now: Duration) {
    let before = buckets.len();
    buckets.retain(|_, e| now.saturating_sub(e.used) < e.rate.refill());
    if buckets.len() == before {
        let oldest = buckets.iter().min_by_key(|(_, e)| e.used).map(|(t, _)| t.clone());
        if let Some(tenant) = oldest {
            buckets.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_core::ManualClock;

    use super::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).expect("a valid id")
    }

    #[test]
    fn each_tenant_has_a_bucket_of_its_own_that_refills_with_time() {
        let clock = Arc::new(ManualClock::new(0));
        let limits = RateLimiter::new(Some(Rate { per_s: 10.0, burst: 20.0 }), clock.clone());
        let first = limits.take(&tenant(1), 20).expect("limited");
        assert!(first.allowed);
        assert_eq!((first.limit, first.remaining), (20, 0));
        let refused = limits.take(&tenant(1), 1).expect("limited");
        assert!(!refused.allowed);
        assert_eq!(refused.reset, Duration::from_millis(100));
        assert!(limits.take(&tenant(2), 20).expect("limited").allowed, "another tenant is not touched");
        clock.advance(Duration::from_millis(100));
        assert!(limits.take(&tenant(1), 1).expect("limited").allowed);
    }

    #[test]
    fn a_tenant_can_have_its_own_rate_or_none() {
        let clock = Arc::new(ManualClock::new(0));
        let limits = RateLimiter::new(Some(Rate { per_s: 1.0, burst: 1.0 }), clock);
        limits.set(tenant(1), Some(Rate { per_s: 5.0, burst: 5.0 }));
        limits.set(tenant(2), None);
        assert_eq!(limits.take(&tenant(1), 1).map(|d| d.limit), Some(5));
        assert_eq!(limits.take(&tenant(2), 1_000_000), None);
        assert_eq!(limits.take(&tenant(3), 1).map(|d| d.limit), Some(1));
        limits.set(tenant(1), Some(Rate { per_s: 7.0, burst: 7.0 }));
        assert_eq!(limits.take(&tenant(1), 1).map(|d| d.limit), Some(7), "a change takes effect at once");
    }

    #[test]
    fn remembers_no_more_tenants_than_it_may() {
        let clock = Arc::new(ManualClock::new(0));
        let limits = RateLimiter::with_capacity(Some(Rate { per_s: 1.0, burst: 5.0 }), clock.clone(), 3);
        for n in 0..3 {
            clock.advance(Duration::from_millis(1));
            assert!(limits.take(&tenant(n), 5).expect("limited").allowed);
        }
        limits.take(&tenant(3), 5);
        assert_eq!(limits.len(), 3);
        assert!(!limits.take(&tenant(2), 5).expect("limited").allowed, "a recently used bucket was kept");
        clock.advance(Duration::from_secs(60));
        limits.take(&tenant(4), 1);
        assert_eq!(limits.len(), 1, "buckets that are full again go first");
    }
}
