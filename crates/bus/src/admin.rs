//! Operating subscriptions: who may see which, how they stand, and what an operator can do.
//!
//! Gateway, command line and console all work through this one place, so that a rule of
//! visibility is written once. It is the rule of the Pub/Sub edge: in a tenant's project
//! everything is that tenant's; in the platform's projects a caller for all tenants sees
//! everything and any other caller the subscriptions of its tenants. What a caller may not
//! see answers as what does not exist.
//!
//! Whether the caller has a role to operate anything is for the edge to check.

mod browse;
mod change;
mod redrive;
mod replay;
mod resend;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_core::{Principal, Problem, ProjectId, ResourceName, TenantId, TenantSet};

use crate::port::{
    BlockedKey, BusPort, LaneDelivery, Page, PageRequest, PortError, SubscriptionPort, SubscriptionSpec,
    SubscriptionStats, Unblock,
};
use crate::rate::TakeTokens;
use crate::shared_names;

pub use browse::{Browsed, MAX_BROWSE};
pub use change::{MAX_RATE_PER_S, MAX_WEIGHED_TENANTS, MAX_WEIGHT, SubscriptionChange, Weighing};
pub use redrive::{MAX_REDRIVE, Redrive, Redriven, Refused};
pub use replay::NewReplay;
pub use resend::{Edit, MessageRule, Resent};
pub use topics::{TopicAdmin, TopicChange, TopicReport};

/// The most blocked keys of one answer.
pub const MAX_BLOCKED_KEYS: usize = 1_000;
/// The most subscriptions of one answer.
pub const MAX_LIST: usize = 1_000;

/// Whose a project is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectOwner {
    Platform,
    Tenant(TenantId),
}

/// Says whose a project is; `None`: nobody declares it.
pub type OwnerOf = Arc<dyn Fn(&ProjectId) -> Option<ProjectOwner> + Send + Sync>;

/// Operates the subscriptions of a bus. Cheap to clone. Methods that are not async may read
/// a few records from the disk: call them where blocking is allowed.
#[derive(Clone)]
pub struct SubscriptionAdmin {
    port: Arc<dyn BusPort>,
    owner_of: OwnerOf,
    /// Changes of settings take turns.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// What edited messages are held to.
    rule: Option<Arc<dyn MessageRule>>,
    /// What is sent again counts against its tenant's rate.
    rate: Option<TakeTokens>,
}

impl std::fmt::Debug for SubscriptionAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriptionAdmin").finish_non_exhaustive()
    }
}

/// How a subscription stands, as far as its reader may know.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionReport {
    pub spec: Arc<SubscriptionSpec>,
    /// The one tenant that it belongs to; `None`: the platform's.
    pub tenant: Option<TenantId>,
    /// Weights of tenants that its reader sees; others count 1.
    pub weights: BTreeMap<TenantId, u32>,
    pub stats: SubscriptionStats,
    /// Whether `stats.backlog_messages` is exact. If not, it is too low for a reader that does
    /// not see all tenants of the topic, and too high for one that does.
    pub backlog_is_exact: bool,
}

/// How a subscription does, for a look from afar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Messages come and go.
    Healthy,
    /// Nothing has been delivered yet, and nothing waits.
    Idle,
    /// Nothing can arrive: it is detached, or its topic was deleted.
    Ended,
    /// A replay that still has something to deliver; how old that is says nothing.
    Replaying,
    /// A replay of which everything is acknowledged.
    Finished,
    /// The oldest message waits for longer than [`LATE`].
    Late,
    /// The oldest message waits for longer than [`STUCK`], or is near the end of its retention.
    Stuck,
}

impl SubscriptionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Idle => "idle",
            Self::Ended => "ended",
            Self::Replaying => "replaying",
            Self::Finished => "finished",
            Self::Late => "late",
            Self::Stuck => "stuck",
        }
    }
}

/// Consumers that keep up do not leave a message for so long.
pub const LATE: Duration = Duration::from_secs(5 * 60);
/// By then nobody consumes, or nobody can.
pub const STUCK: Duration = Duration::from_secs(60 * 60);

/// Delivery to one tenant, beside the others that the reader sees.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneReport {
    pub tenant: TenantId,
    /// Its share by the settings, beside 1 for a tenant that they do not name.
    pub weight: u32,
    pub backlog_messages: u64,
    /// Since the program started, as is what follows.
    pub delivered: u64,
    pub delivered_bytes: u64,
    /// Of all delivered bytes that the reader sees, 0 to 1.
    pub share: f64,
}

impl SubscriptionReport {
    /// Age of the oldest message that is not acknowledged.
    pub fn oldest_age(&self, now_ms: i64) -> Option<Duration> {
        let age_ms = now_ms.saturating_sub(self.stats.oldest_unacked_ms?);
        // A clock that was set back makes nothing younger than new.
        Some(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)))
    }

    /// How it does, and why where that is not good.
    pub fn state(&self, now_ms: i64) -> (SubscriptionState, Option<&'static str>) {
        let age = self.oldest_age(now_ms).unwrap_or_default();
        let near_its_end = age > LATE && age > self.spec.retention.mul_f64(0.8);
        if self.spec.detached {
            (SubscriptionState::Ended, Some("it is detached from its topic: nothing arrives any more"))
        } else if let Some(finished) = self.stats.replay_finished {
            match finished {
                true => (SubscriptionState::Finished, Some("all of it was delivered: delete it")),
                false => (SubscriptionState::Replaying, None),
            }
        } else if near_its_end {
            (SubscriptionState::Stuck, Some("the oldest messages are about to be lost: their retention ends"))
        } else if age > STUCK {
            (SubscriptionState::Stuck, Some("nobody consumes it, or what is consumed is not acknowledged"))
        } else if age > LATE {
            (SubscriptionState::Late, Some("its consumers do not keep up"))
        } else if self.spec.topic.is_none() {
            (SubscriptionState::Ended, Some("its topic was deleted: nothing arrives any more"))
        } else if self.stats.delivered == 0 && self.stats.backlog_messages == 0 {
            (SubscriptionState::Idle, None)
        } else {
            (SubscriptionState::Healthy, None)
        }
    }

    /// The tenants, in order.
    pub fn lanes(&self) -> Vec<LaneReport> {
        let lanes = &self.stats.by_tenant;
        let all_bytes = lanes.values().map(|lane| lane.delivered_bytes).sum::<u64>().max(1) as f64;
        let report = |(tenant, lane): (&TenantId, &LaneDelivery)| LaneReport {
            tenant: tenant.clone(),
            weight: self.spec.weights.get(tenant).copied().unwrap_or(1),
            backlog_messages: lane.backlog_messages,
            delivered: lane.delivered,
            delivered_bytes: lane.delivered_bytes,
            share: lane.delivered_bytes as f64 / all_bytes,
        };
        lanes.iter().map(report).collect()
    }
}

/// A subscription that a principal may see.
struct Seen {
    port: Arc<dyn SubscriptionPort>,
    spec: Arc<SubscriptionSpec>,
    owner: Option<ProjectOwner>,
}

impl SubscriptionAdmin {
    pub fn new(port: Arc<dyn BusPort>, owner_of: OwnerOf) -> Self {
        Self { port, owner_of, changing: Arc::default(), rule: None, rate: None }
    }

    /// The subscriptions that a principal may see, in the order of their names; at most
    /// [`MAX_LIST`] at once. A page size of 0 is 100.
    pub fn list(&self, principal: &Principal, page: &PageRequest) -> Page<SubscriptionReport> {
        let size = if page.size == 0 { 100 } else { page.size.min(MAX_LIST) };
        let mut request = PageRequest { size: MAX_LIST, after: page.after.clone() };
        let mut items: Vec<SubscriptionReport> = Vec::new();
        let mut last = None;
        loop {
            let found = self.port.all_subscriptions(&request);
            for spec in found.items {
                if !self.may_see(principal, &spec) {
                    continue;
                }
                if items.len() == size {
                    return Page { items, next: last };
                }
                // One that was deleted in between is not there any more.
                if let Ok(seen) = self.find(principal, &spec.name) {
                    items.push(seen.report(principal));
                    last = Some(spec.name);
                }
            }
            match found.next {
                Some(after) => request.after = Some(after),
                None => return Page { items, next: None },
            }
        }
    }

    /// One subscription. What its topic holds is looked at first, as far as that is bounded,
    /// so that the figures are right also while nobody pulls.
    ///
    /// # Errors
    /// `subscription-unknown` (404).
    pub fn show(&self, principal: &Principal, name: &ResourceName) -> Result<SubscriptionReport, Problem> {
        let seen = self.find(principal, name)?;
        if seen.is_part_of_topic() {
            seen.port.survey().map_err(|error| problem(&error))?;
        }
        Ok(seen.report(principal))
    }

    /// Keys whose messages wait for one that is on lease or fails, the longest blocked first;
    /// at most `limit` and [`MAX_BLOCKED_KEYS`].
    ///
    /// # Errors
    /// `subscription-unknown` (404).
    pub fn blocked_keys(
        &self,
        principal: &Principal,
        name: &ResourceName,
        limit: usize,
    ) -> Result<Vec<BlockedKey>, Problem> {
        let seen = self.find(principal, name)?;
        let mut keys = seen.port.blocked_keys(limit.min(MAX_BLOCKED_KEYS));
        keys.retain(|key| principal.tenants.contains(&key.tenant));
        Ok(keys)
    }

    /// Ends what blocks a key: see [`Unblock`].
    ///
    /// # Errors
    /// `subscription-unknown` (404), `tenant-forbidden` (403), `subscription-state` (409) for
    /// a key that nothing blocks, or to park without a dead-letter policy.
    pub async fn unblock(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &TenantId,
        key: &str,
        how: Unblock,
    ) -> Result<(), Problem> {
        let seen = self.find(principal, name)?;
        principal.enter(tenant)?;
        seen.port.unblock(tenant, key, how).await.map_err(|error| problem(&error))?;
        tracing::info!(
            actor = %principal.id, subscription = %name, tenant = %tenant, key, ?how, "ordering key unblocked"
        );
        Ok(())
    }

    /// How many subscriptions a tenant has: those of its projects, and its own in the platform's.
    pub fn count_of(&self, tenant: &TenantId) -> u64 {
        let owned = ProjectOwner::Tenant(tenant.clone());
        let is_its = |spec: &SubscriptionSpec| {
            spec.tenant.as_ref() == Some(tenant)
                || (self.owner_of)(&spec.name.project).as_ref() == Some(&owned)
        };
        let (mut request, mut count) = (PageRequest { size: MAX_LIST, after: None }, 0);
        loop {
            let page = self.port.all_subscriptions(&request);
            count += page.items.iter().filter(|spec| is_its(spec)).count() as u64;
            match page.next {
                Some(next) => request.after = Some(next),
                None => return count,
            }
        }
    }

    fn may_see(&self, principal: &Principal, spec: &SubscriptionSpec) -> bool {
        self.sees(principal, &spec.name.project, spec.tenant.as_ref())
    }

    /// Whether a principal sees what is of that tenant in that project.
    fn sees(&self, principal: &Principal, project: &ProjectId, tenant: Option<&TenantId>) -> bool {
        if principal.tenants == TenantSet::All {
            return true;
        }
        match (self.owner_of)(project) {
            Some(ProjectOwner::Tenant(owner)) => principal.tenants.contains(&owner),
            Some(ProjectOwner::Platform) => tenant.is_some_and(|tenant| principal.tenants.contains(tenant)),
            None => false,
        }
    }

    fn find(&self, principal: &Principal, name: &ResourceName) -> Result<Seen, Problem> {
        for kept in self.kept(principal, name) {
            match self.port.subscription(&kept) {
                Ok(port) if self.may_see(principal, &port.spec()) => {
                    return Ok(Seen { owner: (self.owner_of)(&name.project), spec: port.spec(), port });
                }
                Ok(_) | Err(PortError::NotFound { .. }) => {}
                Err(error) => return Err(problem(&error)),
            }
        }
        Err(subscription_unknown(name))
    }

    /// Under which names may be kept what the principal calls so.
    fn kept(&self, principal: &Principal, name: &ResourceName) -> Vec<ResourceName> {
        match (self.owner_of)(&name.project) {
            Some(ProjectOwner::Platform) => shared_names::kept(name, &principal.tenants),
            Some(ProjectOwner::Tenant(_)) | None => vec![name.clone()],
        }
    }
}

impl Seen {
    /// Some of the topic's messages are not for this subscription.
    fn is_part_of_topic(&self) -> bool {
        self.spec.tenant.is_some() || !self.spec.filter.is_empty()
    }

    fn report(self, principal: &Principal) -> SubscriptionReport {
        let mut stats = self.port.stats();
        let backlog_is_exact = stats.unscanned == 0 || !self.is_part_of_topic();
        if principal.tenants != TenantSet::All {
            stats.by_tenant.retain(|tenant, _| principal.tenants.contains(tenant));
            if self.spec.tenant.is_some() {
                // How much other tenants have published is none of this caller's business.
                stats.backlog_messages = stats.backlog_messages.saturating_sub(stats.unscanned);
                stats.unscanned = 0;
                stats.oldest_unacked_ms = stats.oldest_unacked_ms.filter(|_| stats.backlog_messages > 0);
            }
        }
        let owner = match self.owner {
            Some(ProjectOwner::Tenant(tenant)) => Some(tenant),
            Some(ProjectOwner::Platform) | None => None,
        };
        let tenant = self.spec.tenant.clone().or(owner);
        let mut weights = self.spec.weights.clone();
        weights.retain(|tenant, _| principal.tenants.contains(tenant));
        let spec = shown(self.spec, &principal.tenants);
        SubscriptionReport { tenant, spec, weights, stats, backlog_is_exact }
    }
}

/// With the names that a holder of those tenants uses.
fn shown(spec: Arc<SubscriptionSpec>, tenants: &TenantSet) -> Arc<SubscriptionSpec> {
    let name = shared_names::shown(&spec.name, tenants);
    let mut replay = spec.replay.clone();
    if let Some(replay) = &mut replay {
        replay.source = shared_names::shown(&replay.source, tenants);
    }
    if name == spec.name && replay == spec.replay {
        return spec;
    }
    Arc::new(SubscriptionSpec { name, replay, ..(*spec).clone() })
}

/// One and the same for a subscription that does not exist and one of another tenant.
pub fn subscription_unknown(name: &ResourceName) -> Problem {
    Problem::new(404, "subscription-unknown", format!("there is no subscription `{name}`"))
        .hint("GET /v1/subscriptions lists the subscriptions that this credential can see")
}

/// A failure of the port as a refusal to a caller.
pub fn problem(error: &PortError) -> Problem {
    match error {
        PortError::NotFound { what: "subscription", name } => match name.parse() {
            Ok(name) => subscription_unknown(&name),
            Err(_) => Problem::new(404, "subscription-unknown", error.to_string()),
        },
        PortError::NotFound { what, name } => {
            Problem::new(404, "topic-unknown", format!("there is no {what} `{name}`"))
        }
        PortError::InvalidArgument(text) => Problem::new(422, "body-invalid", text),
        PortError::TooLarge(field) => Problem::new(422, "body-invalid", field.to_string()),
        PortError::AlreadyExists { .. } | PortError::FailedPrecondition(_) => {
            Problem::new(409, "subscription-state", error.to_string())
        }
        PortError::PermissionDenied(text) => Problem::new(403, "tenant-forbidden", text),
        PortError::ResourceExhausted(text) => {
            Problem::new(503, "overloaded", text).hint("try again in a moment").retry_after_s(1)
        }
        PortError::Unavailable(cause) => {
            tracing::error!(%cause, "the bus is not available");
            Problem::new(503, "log-unavailable", "the log cannot be read or written at the moment")
                .hint("try again later; the server's log names the cause")
                .retry_after_s(5)
        }
        PortError::Internal(cause) => {
            tracing::error!(%cause, "the bus failed");
            Problem::new(500, "internal", "the server failed while reading or writing its state")
                .hint("the server's log names the cause")
        }
    }
}
