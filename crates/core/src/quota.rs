//! What one tenant may take of what all share: the list of quotas, and who holds how much.
//!
//! A quota bounds a number of things at the same time: queries that run, streams that wait,
//! topics that exist. Rates are another matter ([`crate::TokenBucket`]), and so is memory
//! ([`crate::MemoryBudget`]). Every quota stands in one list with its default, so that
//! documentation, `levada.yaml`, metrics and answers cannot differ.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};

use crate::names::TenantId;
use crate::principal::Principal;
use crate::problem::Problem;

/// Something of which an owner may hold so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quota {
    ConsoleSessions,
    IdempotencyKeys,
    Keys,
    Policies,
    PostgresSessions,
    PushPosts,
    Queries,
    Requests,
    Schemas,
    Snapshots,
    Streams,
    Subscriptions,
    Topics,
    WaitingReads,
}

impl Quota {
    pub const ALL: [Quota; 14] = [
        Quota::ConsoleSessions,
        Quota::IdempotencyKeys,
        Quota::Keys,
        Quota::Policies,
        Quota::PostgresSessions,
        Quota::PushPosts,
        Quota::Queries,
        Quota::Requests,
        Quota::Schemas,
        Quota::Snapshots,
        Quota::Streams,
        Quota::Subscriptions,
        Quota::Topics,
        Quota::WaitingReads,
    ];

    /// The name in `levada.yaml`, metrics and answers.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// How many an owner may hold unless `levada.yaml` says otherwise.
    pub fn default_limit(self) -> u64 {
        self.row().1
    }

    /// What is counted, for people.
    pub fn what(self) -> &'static str {
        self.row().2
    }

    /// Whether waiting a moment can help: the things end by themselves.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Quota::PostgresSessions
                | Quota::PushPosts
                | Quota::Queries
                | Quota::Requests
                | Quota::Streams
                | Quota::WaitingReads
                | Quota::IdempotencyKeys
        )
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }

    fn row(self) -> (&'static str, u64, &'static str) {
        match self {
            Quota::ConsoleSessions => ("console_sessions", 100, "people signed in to the console"),
            Quota::IdempotencyKeys => ("idempotency_keys", 1_000_000, "idempotency keys remembered"),
            Quota::Keys => ("keys", 1_000, "API keys"),
            Quota::Policies => ("policies", 1_000, "IAM policies"),
            Quota::PostgresSessions => ("postgres_sessions", 32, "PostgreSQL sessions"),
            Quota::PushPosts => ("push_posts", 64, "pushed messages that an endpoint has not answered"),
            Quota::Queries => ("queries", 4, "SQL queries that run"),
            Quota::Requests => ("requests", 1_024, "requests that are being answered"),
            Quota::Schemas => ("schemas", 1_000, "schemas of the Pub/Sub API"),
            Quota::Snapshots => ("snapshots", 100, "snapshots"),
            Quota::Streams => ("streams", 500, "open streams"),
            Quota::Subscriptions => ("subscriptions", 5_000, "subscriptions"),
            Quota::Topics => ("topics", 2_000, "topics made by the Pub/Sub API"),
            Quota::WaitingReads => ("waiting_reads", 500, "reads that wait for messages"),
        }
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose share it is. A key of several tenants has a share of its own, so that a service which
/// acts for many neither uses up theirs nor gets all of theirs together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaOwner {
    Tenant(TenantId),
    /// By the id of its credential.
    Principal(String),
}

impl QuotaOwner {
    pub fn of(principal: &Principal) -> Self {
        match principal.tenants.single() {
            Some(tenant) => QuotaOwner::Tenant(tenant.clone()),
            None => QuotaOwner::Principal(principal.id.clone()),
        }
    }

    /// For metrics and lists.
    pub fn as_str(&self) -> &str {
        match self {
            QuotaOwner::Tenant(tenant) => tenant.as_str(),
            QuotaOwner::Principal(id) => id,
        }
    }
}

/// Limits of single tenants, where they differ from the defaults.
pub type TenantQuotas = HashMap<TenantId, Vec<(Quota, u64)>>;

/// Who holds how much. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    defaults: HashMap<Quota, u64>,
    by_tenant: HashMap<(TenantId, Quota), u64>,
    held: Mutex<HashMap<(QuotaOwner, Quota), Held>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    now: u64,
    refused: u64,
}

/// One line of [`Quotas::usage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    pub owner: QuotaOwner,
    pub quota: Quota,
    pub held: u64,
    pub limit: u64,
    /// Refusals since the start.
    pub refused: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self::new(&[], &TenantQuotas::new())
    }
}

impl Quotas {
    /// Owners whose figures are kept although they hold nothing.
    const MAX_IDLE: usize = 10_000;

    /// `defaults` replace those of the list; `by_tenant` goes before both.
    pub fn new(defaults: &[(Quota, u64)], by_tenant: &TenantQuotas) -> Self {
        let by_tenant = by_tenant.iter().flat_map(|(tenant, quotas)| {
            quotas.iter().map(|(quota, limit)| ((tenant.clone(), *quota), *limit))
        });
        Self(Arc::new(Inner {
            defaults: defaults.iter().copied().collect(),
            by_tenant: by_tenant.collect(),
            held: Mutex::default(),
        }))
    }

    pub fn limit(&self, owner: &QuotaOwner, quota: Quota) -> u64 {
        let own = match owner {
            QuotaOwner::Tenant(tenant) => self.0.by_tenant.get(&(tenant.clone(), quota)),
            QuotaOwner::Principal(_) => None,
        };
        let set = own.or_else(|| self.0.defaults.get(&quota));
        set.copied().unwrap_or_else(|| quota.default_limit())
    }

    /// Takes one place until it is dropped: for what runs.
    ///
    /// # Errors
    /// `quota-exceeded` (429) where the owner holds as many as it may.
    pub fn take(&self, owner: &QuotaOwner, quota: Quota) -> Result<QuotaPlace, Problem> {
        let limit = self.limit(owner, quota);
        let mut all = self.lock();
        if all.len() >= Self::MAX_IDLE {
            all.retain(|_, held| held.now > 0);
        }
        let held = all.entry((owner.clone(), quota)).or_default();
        if held.now >= limit {
            held.refused += 1;
            return Err(exceeded(quota, limit));
        }
        held.now += 1;
        Ok(QuotaPlace { quotas: self.clone(), owner: owner.clone(), quota })
    }

    /// How many the owner holds now.
    pub fn held(&self, owner: &QuotaOwner, quota: Quota) -> u64 {
        self.lock().get(&(owner.clone(), quota)).map_or(0, |held| held.now)
    }

    /// Whether an owner that has `existing` may have one more: for what is stored, where the
    /// store knows the number.
    ///
    /// # Errors
    /// As [`Quotas::take`].
    pub fn admit(&self, owner: &QuotaOwner, quota: Quota, existing: u64) -> Result<(), Problem> {
        let limit = self.limit(owner, quota);
        let mut all = self.lock();
        let held = all.entry((owner.clone(), quota)).or_default();
        if existing < limit {
            held.now = existing + 1;
            return Ok(());
        }
        held.now = existing;
        held.refused += 1;
        Err(exceeded(quota, limit))
    }

    /// Says how many of a stored thing each owner has now; who is not named has none. Their
    /// stores count them again and again, for lists and metrics.
    pub fn note(&self, quota: Quota, counts: &HashMap<QuotaOwner, u64>) {
        let mut all = self.lock();
        for ((_, _), held) in
            all.iter_mut().filter(|((owner, of), _)| *of == quota && !counts.contains_key(owner))
        {
            held.now = 0;
        }
        for (owner, count) in counts {
            all.entry((owner.clone(), quota)).or_default().now = *count;
        }
    }

    /// What is held or was refused, in order of owner and quota.
    pub fn usage(&self) -> Vec<QuotaUse> {
        let held: Vec<_> = self.lock().iter().map(|(key, held)| (key.clone(), *held)).collect();
        let mut usage: Vec<QuotaUse> = held
            .into_iter()
            .map(|((owner, quota), held)| QuotaUse {
                limit: self.limit(&owner, quota),
                held: held.now,
                refused: held.refused,
                owner,
                quota,
            })
            .collect();
        usage.sort_by(|a, b| (&a.owner, a.quota).cmp(&(&b.owner, b.quota)));
        usage
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(QuotaOwner, Quota), Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("held", &self.lock().len()).finish_non_exhaustive()
    }
}

fn exceeded(quota: Quota, limit: u64) -> Problem {
    let problem = Problem::new(
        429,
        "quota-exceeded",
        format!("the quota `{quota}` is used up: {limit} {} at the same time", quota.what()),
    );
    match quota.passes() {
        true => problem
            .hint(format!("try again in a moment, or raise `quotas.{quota}` in levada.yaml"))
            .retry_after_s(1),
        false => {
            problem.hint(format!("remove what is no longer used, or raise `quotas.{quota}` in levada.yaml"))
        }
    }
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub struct QuotaPlace {
    quotas: Quotas,
    owner: QuotaOwner,
    quota: Quota,
}

impl Drop for QuotaPlace {
    fn drop(&mut self) {
        let mut all = self.quotas.lock();
        if let Some(held) = all.get_mut(&(self.owner.clone(), self.quota)) {
            held.now = held.now.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> QuotaOwner {
        QuotaOwner::Tenant(TenantId::new(name).expect("a valid id"))
    }

    #[test]
    fn an_owner_holds_its_share_and_no_more_and_no_other_is_touched() {
        let id = TenantId::new("big").expect("a valid id");
        let by_tenant = TenantQuotas::from([(id, vec![(Quota::Queries, 3)])]);
        let quotas = Quotas::new(&[(Quota::Queries, 1)], &by_tenant);
        let small = quotas.take(&tenant("small"), Quota::Queries).expect("there is room");
        let refused = quotas.take(&tenant("small"), Quota::Queries).expect_err("one is all");
        assert_eq!(
            (refused.status, refused.code.as_str(), refused.retry_after_s),
            (429, "quota-exceeded", Some(1))
        );
        let big: Vec<_> = (0..3).map(|_| quotas.take(&tenant("big"), Quota::Queries)).collect();
        assert!(big.iter().all(Result::is_ok) && quotas.take(&tenant("big"), Quota::Queries).is_err());
        drop(small);
        assert!(quotas.take(&tenant("small"), Quota::Queries).is_ok());
        let usage = quotas.usage();
        assert_eq!(
            usage.iter().map(|u| (u.held, u.limit, u.refused)).collect::<Vec<_>>(),
            [(3, 3, 1), (0, 1, 1)]
        );
    }

    #[test]
    fn what_is_stored_is_counted_by_its_store() {
        let quotas = Quotas::new(&[(Quota::Topics, 2)], &TenantQuotas::new());
        assert!(quotas.admit(&tenant("a"), Quota::Topics, 1).is_ok());
        let refused = quotas.admit(&tenant("a"), Quota::Topics, 2).expect_err("two are all");
        assert_eq!((refused.retry_after_s, refused.is_retryable()), (None, true));
        quotas.note(Quota::Topics, &HashMap::from([(tenant("b"), 7)]));
        let usage = quotas.usage();
        let held: Vec<_> = usage.iter().map(|u| (u.owner.as_str(), u.held, u.refused)).collect();
        assert_eq!(held, [("a", 0, 1), ("b", 7, 0)], "who is not named has none");
    }

    #[test]
    fn the_page_of_limits_lists_every_quota_as_it_is() {
        let page = include_str!("../../../docs/limits.md");
        for quota in Quota::ALL {
            let row = format!("| `{quota}` | {} | {} |", quota.default_limit(), quota.what());
            assert!(page.contains(&row), "docs/limits.md lacks: {row}");
        }
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for quota in Quota::ALL {
            assert_eq!(Quota::from_name(quota.name()), Some(quota));
        }
        assert_eq!(Quota::from_name("nonsense"), None);
    }
}
