//! Who acts, for which tenants, in which roles.
//!
//! A [`Principal`] is made by an [`Authenticator`]; a [`TenantContext`] is made from a
//! principal that holds the tenant, or by an audited system entry. Every data operation
//! takes one, so that no path can forget to ask.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{NameError, TenantId, Zone};
use crate::problem::Problem;

/// An access role. Roles add up; none implies another except that `Admin` may do all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, keys included, for the tenants of the principal.
    Admin,
    /// Publishes, reads every zone and dead letters, runs pipelines and models.
    Engineer,
    /// Reads silver and gold.
    Analyst,
    Steward,
    Security,
    /// A program that publishes for its tenants.
    Service,
    /// An outside API client: publishes and reads gold for its tenants.
    Client,
}

impl Role {
    pub const ALL: [Role; 7] = [
        Role::Admin,
        Role::Engineer,
        Role::Analyst,
        Role::Steward,
        Role::Security,
        Role::Service,
        Role::Client,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Engineer => "engineer",
            Role::Analyst => "analyst",
            Role::Steward => "steward",
            Role::Security => "security",
            Role::Service => "service",
            Role::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Role::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| NameError {
            what: "role",
            text: text.chars().take(64).collect(),
            rule: "use admin, engineer, analyst, steward, security, service or client",
        })
    }
}

/// The tenants that a principal may act for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantSet {
    /// The platform: every tenant, those created later included.
    All,
    Only(BTreeSet<TenantId>),
}

impl TenantSet {
    pub fn contains(&self, tenant: &TenantId) -> bool {
        match self {
            TenantSet::All => true,
            TenantSet::Only(set) => set.contains(tenant),
        }
    }

    /// The tenant, where the set holds exactly one.
    pub fn single(&self) -> Option<&TenantId> {
        match self {
            TenantSet::Only(set) if set.len() == 1 => set.first(),
            _ => None,
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable id of the credential, safe to log.
    pub id: String,
    /// The name that a person gave the credential.
    pub name: String,
    pub tenants: TenantSet,
    pub roles: BTreeSet<Role>,
}

impl Principal {
    fn any(&self, roles: &[Role]) -> bool {
        self.roles.contains(&Role::Admin) || roles.iter().any(|r| self.roles.contains(r))
    }

    pub fn is_admin(&self) -> bool {
        self.roles.contains(&Role::Admin)
    }

    /// Whether the principal administers the whole platform (admin of every tenant).
    pub fn is_platform_admin(&self) -> bool {
        self.is_admin() && self.tenants == TenantSet::All
    }

    pub fn may_publish(&self) -> bool {
        self.any(&[Role::Engineer, Role::Service, Role::Client])
    }

    /// Bronze: engineers. Silver: engineers and analysts. Gold: every principal.
    pub fn may_read(&self, zone: Zone) -> bool {
        match zone {
            Zone::Bronze => self.any(&[Role::Engineer]),
            Zone::Silver => self.any(&[Role::Engineer, Role::Analyst]),
            Zone::Gold => true,
        }
    }

    /// Topics, dead letters, pipelines and models.
    pub fn may_operate(&self) -> bool {
        self.any(&[Role::Engineer])
    }

    /// Enters a tenant.
    ///
    /// # Errors
    /// `tenant-forbidden` (403) when the tenant is outside the principal's set. The answer
    /// is the same whether or not the tenant exists.
    pub fn enter(&self, tenant: &TenantId) -> Result<TenantContext, Problem> {
        if self.tenants.contains(tenant) {
            Ok(TenantContext { tenant: tenant.clone(), actor: self.id.as_str().into() })
        } else {
            Err(Problem::new(403, "tenant-forbidden", "this credential may not act for that tenant")
                .hint("use a key that is bound to the tenant, or leave the tenant out to use the key's own"))
        }
    }
}

/// Proof that an actor may act for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantContext {
    tenant: TenantId,
    actor: Arc<str>,
}

impl TenantContext {
    /// An entry by the platform itself, for instance a pipeline that writes dead letters.
    /// `actor` says which part, and appears in the audit trail.
    pub fn system(tenant: TenantId, actor: &str) -> Self {
        Self { tenant, actor: format!("system:{actor}").into() }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn actor(&self) -> &str {
        &self.actor
    }
}

/// Turns a presented secret into a principal.
pub trait Authenticator: Send + Sync {
    /// # Errors
    /// `unauthenticated` (401) for an unknown, expired or revoked secret, with one and the
    /// same text for all three.
    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem>;

    /// Whether a principal that came in earlier still may: what stays open (streams, waiting
    /// reads, sessions) asks before it hands out more, at least once a second. Principals that the
    /// server made itself (`--dev`, the demo) are unknown here; who let them in does not ask.
    fn is_valid(&self, principal: &Principal) -> bool;
}
