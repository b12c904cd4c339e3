//! What tenants keep here, counted: topics, subscriptions, snapshots, schemas and policies.
//!
//! The stores themselves are the count, so that nothing can drift. What is the platform's own is
//! bounded by the bus and the stores alone.

use std::collections::HashMap;

use levada_bus::port::{Page, PageRequest, SubscriptionSpec};
use levada_core::{ProjectId, Quota, QuotaOwner, TenantId};
use tonic::Code;

use crate::access::Owner;
use crate::api::PubsubApi;
use crate::error::ApiError;
use crate::names;

/// Names read at a time.
const PAGE: usize = 1_000;

/// How many of each kind each tenant has.
type Counts = HashMap<QuotaOwner, u64>;

impl PubsubApi {
    /// Counts what every tenant has, for lists and metrics. May read from disk.
    ///
    /// # Errors
    /// When schemas cannot be listed.
    pub async fn note_stock(&self) -> Result<(), ApiError> {
        let mut counts: [Counts; 4] = Default::default();
        let [topics, subscriptions, snapshots, schemas] = &mut counts;
        for id in self.projects.known() {
            let owner = self.projects.owner(&id).unwrap_or(Owner::Platform);
            each(|page| self.bus.topics(&id, page), |_| add(topics, &owner, None));
            each(|page| self.bus.subscriptions(&id, page), |s| add(subscriptions, &owner, s.tenant.as_ref()));
            each(|page| self.bus.snapshots(&id, page), |s| add(snapshots, &owner, s.tenant.as_ref()));
            if let Owner::Tenant(tenant) = &owner {
                let kept = match self.schemas_of(&owner, Some(&id)).await {
                    // A server without schemas has none to count.
                    Err(error) if error.code == Code::Unimplemented => 0,
                    kept => kept?,
                };
                *schemas.entry(QuotaOwner::Tenant(tenant.clone())).or_default() += kept;
            }
        }
        let mut policies = Counts::new();
        for resource in self.policies.names() {
            let (owner, tenant) = self.whose(&resource);
            add(&mut policies, &owner, tenant.as_ref());
        }
        let quotas = [Quota::Topics, Quota::Subscriptions, Quota::Snapshots, Quota::Schemas];
        for (quota, counts) in quotas.into_iter().zip(&counts).chain([(Quota::Policies, &policies)]) {
            self.guards.quotas.note(quota, counts);
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
        let existing = self.schemas_of(owner, None).await?;
        Ok(self.guards.quotas.admit(&QuotaOwner::Tenant(tenant.clone()), Quota::Schemas, existing)?)
    }

    /// Schemas of an owner, in one project or in all of its projects.
    async fn schemas_of(&self, owner: &Owner, only: Option<&ProjectId>) -> Result<u64, ApiError> {
        let mut existing = 0;
        let is_its = |id: &ProjectId| {
            only.is_none_or(|only| only == id) && self.projects.owner(id).as_ref() == Some(owner)
        };
        for id in self.projects.known().into_iter().filter(is_its) {
            let mut request = PageRequest { size: PAGE, after: None };
            loop {
                let page = self.schemas.list(&id, &request).await?;
                existing += page.items.len() as u64;
                match page.next {
                    Some(next) => request.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(existing)
    }

    /// Whether whoever a resource belongs to may have one more policy.
    pub(crate) fn admit_policy(&self, resource: &str) -> Result<(), ApiError> {
        let (owner, marked) = self.whose(resource);
        let Some(tenant) = stock_owner(&owner, marked.as_ref()) else { return Ok(()) };
        if self.policies.get(resource)?.is_some() {
            return Ok(());
        }
        let is_its = |name: &String| {
            let (owner, marked) = self.whose(name);
            stock_owner(&owner, marked.as_ref()) == Some(tenant)
        };
        let existing = self.policies.names().iter().filter(|name| is_its(name)).count() as u64;
        Ok(self.guards.quotas.admit(&QuotaOwner::Tenant(tenant.clone()), Quota::Policies, existing)?)
    }

    /// Whose project a resource is in, and the tenant that it is marked with.
    fn whose(&self, resource: &str) -> (Owner, Option<TenantId>) {
        let part = |n| resource.split('/').nth(n).unwrap_or_default();
        let owner = ProjectId::new(part(1)).ok().and_then(|project| self.projects.owner(&project));
        let marked = match part(2) {
            "subscriptions" => names::resource(resource, "subscriptions")
                .ok()
                .and_then(|name| self.bus.subscription(&name).ok()?.spec().tenant.clone()),
            "snapshots" => names::resource(resource, "snapshots")
                .ok()
                .and_then(|name| self.bus.snapshot(&name).ok()?.tenant),
            _ => None,
        };
        (owner.unwrap_or(Owner::Platform), marked)
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

/// Every item of a list that comes in pages.
fn each<T>(fetch: impl Fn(&PageRequest) -> Page<T>, mut take: impl FnMut(&T)) {
    let mut request = PageRequest { size: PAGE, after: None };
    loop {
        let page = fetch(&request);
        page.items.iter().for_each(&mut take);
        match page.next {
            Some(next) => request.after = Some(next),
            None => return,
        }
    }
}

fn add(counts: &mut Counts, owner: &Owner, marked: Option<&TenantId>) {
    if let Some(tenant) = stock_owner(owner, marked) {
        *counts.entry(QuotaOwner::Tenant(tenant.clone())).or_default() += 1;
    }
}
