//! What a caller may take of what all share: places, memory, rates and things that are kept; and
//! whether it still may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_access::RateLimiter;
use levada_bus::port::{Page, PageRequest, Publication, SubscriptionSpec};
use levada_core::{OwnedMemory, Problem, ProjectId, Quota, QuotaOwner, QuotaPlace, Quotas, TenantId};
use tonic::Code;

use crate::access::Owner;
use crate::api::{Call, PubsubApi};
use crate::error::ApiError;

/// Whoever waits asks so often whether its credential is still good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Names read at a time to count what an owner has.
const PAGE: usize = 1_000;

/// What the calls of all owners share.
#[derive(Debug, Clone)]
pub struct Guards {
    pub quotas: Quotas,
    /// What request bodies may hold.
    pub bodies: OwnedMemory,
    /// A body must be complete within this time.
    pub body_timeout: Duration,
    /// Messages a second of each tenant; `None` does not limit.
    pub limits: Option<Arc<RateLimiter>>,
}

impl Default for Guards {
    /// Default quotas, and neither memory nor rates bounded: for tests and tools.
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            bodies: OwnedMemory::unlimited(),
            body_timeout: Duration::from_secs(30),
            limits: None,
        }
    }
}

impl Call {
    /// Whose quotas the call counts against.
    pub(crate) fn owner(&self) -> QuotaOwner {
        QuotaOwner::of(&self.principal)
    }
}

impl PubsubApi {
    /// Whether who made the call still may.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the credential was revoked or has expired since.
    pub(crate) fn valid(&self, call: &Call) -> Result<(), ApiError> {
        // Who came in without a credential has none to lose.
        if call.is_open() || self.authenticator.is_valid(&call.principal) {
            return Ok(());
        }
        Err(ApiError::new(
            Code::Unauthenticated,
            "Request had invalid authentication credentials: the key was revoked or has expired meanwhile.",
        ))
    }

    /// Ends when the credential of a call is no longer good.
    pub(crate) async fn revoked(&self, call: &Call) -> ApiError {
        loop {
            if let Err(error) = self.valid(call) {
                return error;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// From now on a call waits: it gives up its place among those that are answered, and holds
    /// one of this quota.
    pub(crate) fn wait(&self, call: &Call, quota: Quota) -> Result<QuotaPlace, ApiError> {
        match &call.place {
            Some(place) => Ok(place.wait(&call.principal, quota)?),
            None => Ok(self.guards.quotas.take(&call.owner(), quota)?),
        }
    }

    /// Takes a token of its tenant for each message.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, with the time after which it can succeed.
    pub(crate) fn take_tokens(&self, items: &[Publication]) -> Result<(), ApiError> {
        let Some(limits) = &self.guards.limits else { return Ok(()) };
        let mut costs: BTreeMap<&TenantId, u64> = BTreeMap::new();
        for item in items {
            *costs.entry(item.context.tenant()).or_default() += 1;
        }
        for (tenant, cost) in costs {
            limits.admit(tenant, cost)?;
        }
        Ok(())
    }

    /// Whether the owner of a project may have one more topic.
    pub(crate) fn admit_topic(&self, project: &ProjectId, owner: &Owner) -> Result<(), ApiError> {
        let of = |id: &ProjectId, page: &PageRequest| self.bus.topics(id, page);
        self.admit(Quota::Topics, project, stock_owner(owner, None), of, |_| None)
    }

    /// Whether a tenant may have one more subscription, in its own projects and in the platform's.
    pub(crate) fn admit_subscription(
        &self,
        project: &ProjectId,
        owner: &Owner,
        tenant: Option<&TenantId>,
    ) -> Result<(), ApiError> {
        let of = |id: &ProjectId, page: &PageRequest| self.bus.subscriptions(id, page);
        let tenant = stock_owner(owner, tenant);
        self.admit(Quota::Subscriptions, project, tenant, of, |spec| spec.tenant.as_ref())
    }

    /// As for a subscription.
    pub(crate) fn admit_snapshot(
        &self,
        project: &ProjectId,
        owner: &Owner,
        tenant: Option<&TenantId>,
    ) -> Result<(), ApiError> {
        let of = |id: &ProjectId, page: &PageRequest| self.bus.snapshots(id, page);
        let tenant = stock_owner(owner, tenant);
        self.admit(Quota::Snapshots, project, tenant, of, |spec| spec.tenant.as_ref())
    }

    /// Whether the owner of a project may have one more schema.
    pub(crate) async fn admit_schema(&self, owner: &Owner) -> Result<(), ApiError> {
        let Owner::Tenant(tenant) = owner else { return Ok(()) };
        let mut existing = 0;
        for id in self.projects.known() {
            let mut request = PageRequest { size: PAGE, after: None };
            while self.projects.owner(&id).as_ref() == Some(owner) {
                let page = self.schemas.list(&id, &request).await?;
                existing += page.items.len() as u64;
                match page.next {
                    Some(next) => request.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(self.guards.quotas.admit(&QuotaOwner::Tenant(tenant.clone()), Quota::Schemas, existing)?)
    }

    /// Against whose quota the posts of a subscription count.
    pub(crate) fn push_owner(&self, spec: &SubscriptionSpec) -> QuotaOwner {
        let owner = self.projects.owner(&spec.name.project).unwrap_or(Owner::Platform);
        match stock_owner(&owner, spec.tenant.as_ref()) {
            Some(tenant) => QuotaOwner::Tenant(tenant.clone()),
            None => QuotaOwner::Principal("platform".to_owned()),
        }
    }

    /// Counts what a tenant has in its projects, and of the platform's what is marked as its own.
    /// What is the platform's own is bounded by the bus alone.
    fn admit<T>(
        &self,
        quota: Quota,
        project: &ProjectId,
        tenant: Option<&TenantId>,
        fetch: impl Fn(&ProjectId, &PageRequest) -> Page<T>,
        marked: impl Fn(&T) -> Option<&TenantId>,
    ) -> Result<(), ApiError> {
        let Some(tenant) = tenant else { return Ok(()) };
        let owner = QuotaOwner::Tenant(tenant.clone());
        let mut projects = self.projects.known();
        if !projects.contains(project) {
            projects.push(project.clone());
        }
        let mut existing = 0;
        for id in projects {
            let all = self.projects.owner(&id) == Some(Owner::Tenant(tenant.clone()));
            let mut request = PageRequest { size: PAGE, after: None };
            loop {
                let page = fetch(&id, &request);
                existing +=
                    page.items.iter().filter(|item| all || marked(item) == Some(tenant)).count() as u64;
                match page.next {
                    Some(next) => request.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(self.guards.quotas.admit(&owner, quota, existing)?)
    }
}

/// The tenant against whose quota something counts: that of the project, else the one that it is
/// marked with.
fn stock_owner<'a>(owner: &'a Owner, tenant: Option<&'a TenantId>) -> Option<&'a TenantId> {
    match owner {
        Owner::Tenant(tenant) => Some(tenant),
        Owner::Platform => tenant,
    }
}

/// What a problem tells a client of this API about when to come again.
pub(crate) fn retry_of(problem: &Problem) -> Option<Duration> {
    problem.retry_after_s.filter(|_| problem.status == 429 || problem.status == 503).map(Duration::from_secs)
}
