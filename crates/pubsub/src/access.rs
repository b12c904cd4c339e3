//! Who calls, and what of a project that caller may see and do.
//!
//! A project is a namespace with an owner. In a tenant's project everything is that
//! tenant's. In the platform's projects topics are shared: a caller for all tenants sees
//! everything, any other caller sees the topics and its own subscriptions and snapshots.
//! What a caller may not see answers exactly as what does not exist.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use levada_bus::shared_names;
use levada_core::{
    Authenticator, Principal, ProjectId, ResourceName, Role, TenantContext, TenantId, TenantSet, attr,
    named_tenant,
};
use parking_lot::RwLock;
use tonic::Code;

use crate::error::ApiError;

const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Whose a project is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Platform,
    Tenant(TenantId),
}

/// Which projects and tenants exist.
#[derive(Debug, Default)]
pub struct Projects {
    dev: bool,
    owners: RwLock<HashMap<ProjectId, Owner>>,
    /// `None`: any well-formed tenant.
    tenants: RwLock<Option<HashSet<TenantId>>>,
}

impl Projects {
    /// Only the projects given exist, and every call needs a credential.
    pub fn new(owners: impl IntoIterator<Item = (ProjectId, Owner)>) -> Self {
        Self { dev: false, owners: RwLock::new(owners.into_iter().collect()), tenants: RwLock::default() }
    }

    /// For development: any project exists and is the platform's unless it is given here, and
    /// no credential is needed.
    pub fn dev(owners: impl IntoIterator<Item = (ProjectId, Owner)>) -> Self {
        Self { dev: true, ..Self::new(owners) }
    }

    /// Replaces the projects, effective at once.
    pub fn set(&self, owners: impl IntoIterator<Item = (ProjectId, Owner)>) {
        *self.owners.write() = owners.into_iter().collect();
    }

    /// From now on messages are taken for these tenants only.
    pub fn declare_tenants(&self, tenants: impl IntoIterator<Item = TenantId>) {
        *self.tenants.write() = Some(tenants.into_iter().collect());
    }

    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// Whose a project is; `None`: there is no such project.
    pub fn owner(&self, project: &ProjectId) -> Option<Owner> {
        let known = self.owners.read().get(project).cloned();
        known.or_else(|| self.dev.then_some(Owner::Platform))
    }

    /// The projects that were given; in development others exist as well.
    pub fn known(&self) -> Vec<ProjectId> {
        self.owners.read().keys().cloned().collect()
    }

    fn is_declared(&self, tenant: &TenantId) -> bool {
        self.tenants.read().as_ref().is_none_or(|set| set.contains(tenant))
    }
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Arc<Principal>,
    /// It came in without a credential, as development allows.
    open: bool,
    projects: Arc<Projects>,
}

/// What a caller may do in one project.
#[derive(Debug, Clone)]
pub struct Access {
    pub owner: Owner,
    caller: Caller,
}

impl Caller {
    /// Reads the credential of a request: `authorization: Bearer`, `x-goog-api-key` or
    /// `x-api-key`. With `x-tenant-id` the caller is narrowed to that tenant.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a valid credential (outside of development), PERMISSION_DENIED
    /// for a tenant that is not the caller's.
    pub fn authenticate(
        headers: &HeaderMap,
        authenticator: &dyn Authenticator,
        projects: &Arc<Projects>,
    ) -> Result<Self, ApiError> {
        let known = credential(headers).and_then(|secret| match authenticator.authenticate(secret) {
            Ok(principal) => Ok(principal),
            Err(problem) => Err(ApiError::new(Code::Unauthenticated, problem.to_string())),
        });
        let (mut principal, open) = match known {
            Ok(principal) => (principal, false),
            // The official clients send none to an emulator, and some send a placeholder.
            Err(_) if projects.dev => (Arc::new(developer()), true),
            Err(error) => return Err(error),
        };
        let named = headers.get_all(TENANT_ID).iter().map(HeaderValue::as_bytes);
        if let Some(tenant) = named_tenant(named)? {
            principal = principal.narrowed(&tenant)?;
        }
        Ok(Self { principal, open, projects: projects.clone() })
    }

    /// Whether it came in without a credential.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Enters a project; `None` when it does not exist for this caller.
    pub fn enter(&self, project: &ProjectId) -> Option<Access> {
        let owner = self.projects.owner(project)?;
        if let Owner::Tenant(tenant) = &owner
            && !self.principal.tenants.contains(tenant)
        {
            return None;
        }
        Some(Access { owner, caller: self.clone() })
    }

    fn has(&self, roles: &[Role]) -> bool {
        self.principal.is_admin() || roles.iter().any(|role| self.principal.roles.contains(role))
    }

    /// Creates, changes and deletes resources.
    pub fn may_operate(&self) -> bool {
        self.principal.may_operate()
    }

    pub fn may_publish(&self) -> bool {
        self.principal.may_publish()
    }

    /// Pulls and acknowledges.
    pub fn may_consume(&self) -> bool {
        self.has(&[Role::Engineer, Role::Service, Role::Client])
    }

    /// # Errors
    /// PERMISSION_DENIED with the roles that would do.
    pub fn require(&self, holds: bool, roles: &str) -> Result<(), ApiError> {
        if holds {
            return Ok(());
        }
        Err(ApiError::denied(format!(
            "User not authorized to perform this action: use a key with the role {roles}."
        )))
    }
}

impl Access {
    /// Whether the caller sees everything of the project.
    pub fn sees_all(&self) -> bool {
        matches!(self.owner, Owner::Tenant(_)) || self.caller.principal.tenants == TenantSet::All
    }

    /// Whether the caller sees a subscription or snapshot of that tenant.
    pub fn sees(&self, tenant: Option<&TenantId>) -> bool {
        self.sees_all() || tenant.is_some_and(|tenant| self.caller.principal.tenants.contains(tenant))
    }

    /// Under which names may be kept what the caller calls so.
    pub fn kept(&self, name: &ResourceName) -> Vec<ResourceName> {
        if self.sees_all() {
            return vec![name.clone()];
        }
        shared_names::kept(name, &self.caller.principal.tenants)
    }

    /// What the caller calls what is kept under a name.
    pub fn shown(&self, name: &ResourceName) -> ResourceName {
        if self.sees_all() { name.clone() } else { shared_names::shown(name, &self.caller.principal.tenants) }
    }

    /// Under which name a tenant's subscription or snapshot is kept where another tenant has the
    /// name that was chosen; `None`: no name is taken without the caller's seeing it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a name that could be one of those, whether or not it is taken.
    pub fn own_name(
        &self,
        name: &ResourceName,
        tenant: Option<&TenantId>,
    ) -> Result<Option<ResourceName>, ApiError> {
        let Some(tenant) = tenant.filter(|_| !self.sees_all()) else { return Ok(None) };
        if shared_names::is_reserved(&name.id) {
            return Err(ApiError::invalid(format!(
                "Invalid resource name given (name={}): in a project of the platform a tenant's name has no '~'.",
                name.id
            )));
        }
        Ok(Some(shared_names::own(name, tenant)?))
    }

    /// Topics of a project: the platform's are not for a tenant's caller to change.
    ///
    /// # Errors
    /// PERMISSION_DENIED that says whose the project is.
    pub fn require_topic_control(&self) -> Result<(), ApiError> {
        self.caller.require(self.caller.may_operate(), "engineer or admin")?;
        if self.sees_all() {
            return Ok(());
        }
        Err(ApiError::denied(
            "User not authorized to perform this action: topics of this project belong to the platform. \
             Use a project of the tenant, or a key for all tenants.",
        ))
    }

    /// The tenant whose messages a new subscription of this project gets, by the project of
    /// its topic; `None`: every message.
    ///
    /// # Errors
    /// PERMISSION_DENIED across two tenants' projects, INVALID_ARGUMENT when the caller holds
    /// several tenants and did not say which.
    pub fn subscription_tenant(&self, topic: &Access) -> Result<Option<TenantId>, ApiError> {
        match (&self.owner, &topic.owner) {
            (Owner::Tenant(a), Owner::Tenant(b)) if a == b => Ok(None),
            (Owner::Tenant(_), Owner::Tenant(_)) => Err(ApiError::denied(
                "User not authorized to perform this action: the topic belongs to another tenant than the \
                 subscription's project. Create the subscription in the project of the topic.",
            )),
            (Owner::Tenant(tenant), Owner::Platform) => Ok(Some(tenant.clone())),
            (Owner::Platform, Owner::Tenant(tenant)) => Ok(Some(tenant.clone())),
            (Owner::Platform, Owner::Platform) if self.sees_all() => Ok(None),
            (Owner::Platform, Owner::Platform) => self.caller.single_tenant().cloned().map(Some),
        }
    }

    /// Proof that the caller may publish a message with that `tenant_id` attribute, and the
    /// tenant when the message did not name it.
    ///
    /// # Errors
    /// PERMISSION_DENIED for a tenant outside the caller's set, INVALID_ARGUMENT when none
    /// is named and none can be derived.
    pub fn publish_context(&self, tenant_id: Option<&str>) -> Result<TenantContext, ApiError> {
        let tenant = match (&self.owner, tenant_id) {
            (Owner::Tenant(tenant), _) => tenant.clone(),
            (Owner::Platform, Some(named)) => TenantId::new(named).map_err(|error| {
                ApiError::invalid(format!("The attribute `{}` is not valid: {error}.", attr::TENANT_ID))
            })?,
            (Owner::Platform, None) if self.caller.projects.dev && self.sees_all() => {
                TenantId::default_tenant()
            }
            (Owner::Platform, None) => self.caller.single_tenant()?.clone(),
        };
        let context = self.caller.principal.enter(&tenant).map_err(ApiError::from)?;
        if !self.caller.projects.is_declared(&tenant) {
            return Err(ApiError::invalid(format!(
                "The project declares no tenant `{tenant}` (attribute `{}`); declare it first.",
                attr::TENANT_ID
            )));
        }
        Ok(context)
    }

    /// Whether a message without `tenant_id` gets it, so that subscribers of the platform
    /// can tell tenants apart. In development messages stay as the client wrote them.
    pub fn names_tenant(&self) -> bool {
        self.owner == Owner::Platform && !self.caller.projects.dev
    }
}

impl Caller {
    fn single_tenant(&self) -> Result<&TenantId, ApiError> {
        self.principal.tenants.single().ok_or_else(|| {
            ApiError::invalid(format!(
                "The tenant is not clear: this key is not bound to one tenant. Set the attribute `{}` of each \
                 message, or the metadata `x-tenant-id` of the call.",
                attr::TENANT_ID
            ))
        })
    }
}

fn developer() -> Principal {
    Principal {
        id: "dev".to_owned(),
        name: "development".to_owned(),
        tenants: TenantSet::All,
        roles: [Role::Admin].into(),
    }
}

fn credential(headers: &HeaderMap) -> Result<&str, ApiError> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let bearer = text(header::AUTHORIZATION).map(|value| {
        let (scheme, secret) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") { secret.trim() } else { "" }
    });
    match bearer.or_else(|| text(GOOGLE_API_KEY)).or_else(|| text(API_KEY)) {
        Some(secret) if !secret.is_empty() => Ok(secret),
        _ => Err(ApiError::new(
            Code::Unauthenticated,
            "Request is missing required authentication credential. Send an API key as \
             `authorization: Bearer <key>` or `x-goog-api-key: <key>`.",
        )),
    }
}

#[cfg(test)]
mod tests;
