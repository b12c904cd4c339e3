//! What one tenant may take of what all share: the list of quotas, and who holds how much.
//!
//! A quota bounds a number of things at the same time: queries that run, streams that wait,
//! topics that exist. Rates are another matter ([`crate::TokenBucket`]), and so is memory
//! ([`crate::MemoryBudget`]). Every quota stands in one list with its default, so that
//! documentation, `levada.yaml`, metrics and answers cannot differ.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    defaults: [u64; COUNT],
    by_tenant: HashMap<TenantId, [Option<u64>; COUNT]>,
    owners: RwLock<Owners>,
}

const COUNT: usize = Quota::ALL.len();

type Owners = HashMap<QuotaOwner, Arc<Account>, ahash::RandomState>;

/// What one owner holds of each quota. It is counted without a lock: every request does.
#[derive(Default)]
struct Account([Held; COUNT]);

#[derive(Default)]
struct Held {
    now: AtomicU64,
    refused: AtomicU64,
    /// It is listed from its first use on, also when nothing is held any more.
    listed: AtomicBool,
}

impl Account {
    fn of(&self, quota: Quota) -> &Held {
        &self.0[quota as usize]
    }

    fn is_idle(&self) -> bool {
        self.0.iter().all(|held| held.now.load(Ordering::Relaxed) == 0)
    }
}

impl Held {
    /// Takes one more, below a limit.
    fn take(&self, limit: u64) -> bool {
        self.list();
        let one_more = |now: u64| (now < limit).then_some(now + 1);
        let taken = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !taken {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn set(&self, now: u64) {
        self.list();
        self.now.store(now, Ordering::Relaxed);
    }

    fn list(&self) {
        if !self.listed.load(Ordering::Relaxed) {
            self.listed.store(true, Ordering::Relaxed);
        }
    }
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
        let mut limits = Quota::ALL.map(Quota::default_limit);
        for (quota, limit) in defaults {
            limits[*quota as usize] = *limit;
        }
        let own = by_tenant.iter().map(|(tenant, quotas)| {
            let mut limits = [None; COUNT];
            for (quota, limit) in quotas {
                limits[*quota as usize] = Some(*limit);
            }
            (tenant.clone(), limits)
        });
        Self(Arc::new(Inner { defaults: limits, by_tenant: own.collect(), owners: RwLock::default() }))
    }

    pub fn limit(&self, owner: &QuotaOwner, quota: Quota) -> u64 {
        let own = match owner {
            QuotaOwner::Tenant(tenant) => self.0.by_tenant.get(tenant),
            QuotaOwner::Principal(_) => None,
        };
        own.and_then(|limits| limits[quota as usize]).unwrap_or(self.0.defaults[quota as usize])
    }

    /// Takes one place until it is dropped: for what runs.
    ///
    /// # Errors
    /// `quota-exceeded` (429) where the owner holds as many as it may.
    pub fn take(&self, owner: &QuotaOwner, quota: Quota) -> Result<QuotaPlace, Problem> {
        let (limit, account) = (self.limit(owner, quota), self.account(owner));
        match account.of(quota).take(limit) {
            true => Ok(QuotaPlace { account, quota }),
            false => Err(exceeded(quota, limit)),
        }
    }

    /// How many the owner holds now.
    pub fn held(&self, owner: &QuotaOwner, quota: Quota) -> u64 {
        self.read().get(owner).map_or(0, |account| account.of(quota).now.load(Ordering::Relaxed))
    }

    /// Whether an owner that has `existing` may have one more: for what is stored, where the
    /// store knows the number.
    ///
    /// # Errors
    /// As [`Quotas::take`].
    pub fn admit(&self, owner: &QuotaOwner, quota: Quota, existing: u64) -> Result<(), Problem> {
        let (limit, account) = (self.limit(owner, quota), self.account(owner));
        let held = account.of(quota);
        held.set(existing);
        match held.take(limit) {
            true => Ok(()),
            false => Err(exceeded(quota, limit)),
        }
    }

    /// Says how many of a stored thing each owner has now; who is not named has none. Their
    /// stores count them again and again, for lists and metrics.
    pub fn note(&self, quota: Quota, counts: &HashMap<QuotaOwner, u64>) {
        for (_, account) in self.read().iter().filter(|(owner, _)| !counts.contains_key(owner)) {
            account.of(quota).now.store(0, Ordering::Relaxed);
        }
        for (owner, count) in counts {
            self.account(owner).of(quota).set(*count);
        }
    }

    /// What is or was held or refused, in order of owner and quota.
    pub fn usage(&self) -> Vec<QuotaUse> {
        let owners: Vec<_> =
            self.read().iter().map(|(owner, account)| (owner.clone(), account.clone())).collect();
        let mut usage = Vec::new();
        for (owner, account) in owners {
            for quota in Quota::ALL {
                let held = account.of(quota);
                if held.listed.load(Ordering::Relaxed) {
                    usage.push(QuotaUse {
                        owner: owner.clone(),
                        quota,
                        held: held.now.load(Ordering::Relaxed),
                        limit: self.limit(&owner, quota),
                        refused: held.refused.load(Ordering::Relaxed),
                    });
                }
            }
        }
        usage.sort_by(|a, b| (&a.owner, a.quota).cmp(&(&b.owner, b.quota)));
        usage
    }

    /// The account of an owner, opened where there is none yet.
    fn account(&self, owner: &QuotaOwner) -> Arc<Account> {
        if let Some(account) = self.read().get(owner) {
            return account.clone();
        }
        let mut owners = self.write();
        if owners.len() >= Self::MAX_IDLE && !owners.contains_key(owner) {
            // An account that somebody is about to count in is not let go.
            owners.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_idle());
        }
        owners.entry(owner.clone()).or_default().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Owners> {
        self.0.owners.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Owners> {
        self.0.owners.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("owners", &self.read().len()).finish_non_exhaustive()
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
pub struct QuotaPlace {
    account: Arc<Account>,
    quota: Quota,
}

impl fmt::Debug for QuotaPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuotaPlace({})", self.quota)
    }
}

impl Drop for QuotaPlace {
    fn drop(&mut self) {
        let less = |now: u64| now.checked_sub(1);
        // Below zero only where the thing is stored and was counted anew meanwhile.
        let _ = self.account.of(self.quota).now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
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
            assert_eq!(Quota::ALL[quota as usize], quota, "accounts and limits are kept by this number");
        }
        assert_eq!(Quota::from_name("nonsense"), None);
    }
}
