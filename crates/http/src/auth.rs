//! Who calls: from the credential in a request to a principal narrowed to its tenant.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use levada_core::{
    Authenticator, Principal, Problem, Quota, QuotaOwner, QuotaPlace, RequestPlace, TenantContext, TenantId,
    TenantSet, named_tenant,
};
use parking_lot::RwLock;

use crate::layers::site;
use crate::problem::ApiProblem;
use crate::state::AppState;

const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Which tenants exist.
pub trait Tenants: Send + Sync {
    fn is_declared(&self, tenant: &TenantId) -> bool;

    /// All of them, in order.
    fn list(&self) -> Vec<TenantId>;
}

/// The tenants of the project.
#[derive(Debug, Default)]
pub struct DeclaredTenants(RwLock<HashSet<TenantId>>);

impl DeclaredTenants {
    pub fn new(tenants: impl IntoIterator<Item = TenantId>) -> Self {
        Self(RwLock::new(tenants.into_iter().collect()))
    }

    /// Replaces the set, effective at once.
    pub fn set(&self, tenants: impl IntoIterator<Item = TenantId>) {
        *self.0.write() = tenants.into_iter().collect();
    }
}

impl Tenants for DeclaredTenants {
    fn is_declared(&self, tenant: &TenantId) -> bool {
        self.0.read().contains(tenant)
    }

    fn list(&self) -> Vec<TenantId> {
        let mut all: Vec<TenantId> = self.0.read().iter().cloned().collect();
        all.sort();
        all
    }
}

/// The authenticated caller of a request. With `X-Tenant-ID` the principal's tenants are
/// narrowed to that one, so that handlers have only one set to obey.
///
/// It can be an argument of any handler whose state holds an [`AppState`].
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Arc<Principal>,
    /// The place of the request; none of health checks, and none in unit tests.
    place: Option<Arc<RequestPlace>>,
}

impl Caller {
    /// Authenticates a request by its headers, and by its peer where the gateway is open on
    /// loopback.
    pub fn authenticate(state: &AppState, parts: &Parts) -> Result<Self, Problem> {
        let principal = match credential(&parts.headers)? {
            Some(secret) => Authenticator::authenticate(&*state.authenticator, secret)?,
            None => loopback(state, parts).ok_or_else(no_credential)?,
        };
        let place = parts.extensions.get::<Arc<RequestPlace>>().cloned();
        if let Some(place) = &place {
            place.identify(&principal)?;
        }
        let named = parts.headers.get_all(TENANT_ID).iter().map(HeaderValue::as_bytes);
        let Some(tenant) = named_tenant(named)? else { return Ok(Self { principal, place }) };
        enter(&principal, &*state.tenants, tenant.as_str())?;
        Ok(Self { principal: principal.narrowed(&tenant)?, place })
    }

    pub fn sees(&self, tenant: &TenantId) -> bool {
        self.principal.tenants.contains(tenant)
    }

    /// The caller acts for the whole platform.
    pub fn is_platform(&self) -> bool {
        self.principal.tenants == TenantSet::All
    }

    /// Whose quotas the request counts against.
    pub(crate) fn owner(&self) -> QuotaOwner {
        QuotaOwner::of(&self.principal)
    }

    /// From now on the request waits: it gives up its place among those that are answered, and
    /// holds one of this quota.
    pub(crate) fn wait(&self, state: &AppState, quota: Quota) -> Result<QuotaPlace, Problem> {
        match &self.place {
            Some(place) => place.wait(&self.principal, quota),
            None => state.quotas.take(&self.owner(), quota),
        }
    }

    /// Refuses a caller without a role that operates the platform (engineer or admin).
    pub(crate) fn require_operator(&self) -> Result<(), Problem> {
        require(self.principal.may_operate(), "the role engineer or admin")
    }

    pub(crate) fn require_admin(&self) -> Result<(), Problem> {
        require(self.principal.is_admin(), "the role admin")
    }
}

fn require(holds: bool, what: &str) -> Result<(), Problem> {
    if holds {
        return Ok(());
    }
    Err(Problem::new(403, "role-forbidden", format!("this needs {what}"))
        .hint("use a key with that role; GET /v1/keys shows the roles of keys to an admin"))
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    AppState: FromRef<S>,
{
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiProblem> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        let caller = Caller::authenticate(&AppState::from_ref(state), parts)?;
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// Enters a tenant by name. To a caller that is bound to tenants, one that does not exist
/// and one that it does not hold look the same.
///
/// # Errors
/// `tenant-unknown` (422) to callers for all tenants, else `tenant-forbidden` (403).
pub(crate) fn enter(
    principal: &Principal,
    tenants: &dyn Tenants,
    name: &str,
) -> Result<TenantContext, Problem> {
    let declared = TenantId::new(name).ok().filter(|t| tenants.is_declared(t));
    match declared {
        Some(tenant) => principal.enter(&tenant),
        None if principal.tenants == TenantSet::All => {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            Err(Problem::new(422, "tenant-unknown", format!("the project declares no tenant `{shown}`"))
                .hint("declare it under `tenants` in levada.yaml or as a folder in tenants/"))
        }
        None => Err(forbidden()),
    }
}

/// The same words as [`Principal::enter`] has for a tenant outside the set.
fn forbidden() -> Problem {
    let nobody = Principal {
        id: String::new(),
        name: String::new(),
        tenants: TenantSet::Only(Default::default()),
        roles: Default::default(),
    };
    match nobody.enter(&TenantId::default_tenant()) {
        Err(problem) => problem,
        Ok(_) => Problem::new(403, "tenant-forbidden", "this credential may not act for that tenant"),
    }
}

/// The presented secret: `Authorization: Bearer` or `X-API-Key`.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().unwrap_or("");
        let (scheme, secret) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") { secret.trim() } else { "" }
    });
    let key = headers.get(API_KEY).map(|value| value.to_str().unwrap_or("").trim());
    match (bearer, key) {
        (Some(a), Some(b)) if a != b => {
            Err(Problem::new(401, "unauthenticated", "the request carries two different credentials")
                .hint("send either `Authorization: Bearer <key>` or `X-API-Key: <key>`"))
        }
        (Some(""), _) | (_, Some("")) => {
            Err(Problem::new(401, "unauthenticated", "the credential cannot be read")
                .hint("write `Authorization: Bearer <key>` or `X-API-Key: <key>`"))
        }
        (a, b) => Ok(a.or(b)),
    }
}

fn no_credential() -> Problem {
    Problem::new(401, "unauthenticated", "the request carries no credential")
        .hint("send an API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
}

pub(crate) fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical())
}

/// The principal of requests without a credential, where the gateway is open on loopback.
/// The peer must be the machine itself; so must the name that the client used, or a page
/// on the internet could rebind its own name to 127.0.0.1; and a browser must not send the
/// request for a page of another origin.
fn loopback(state: &AppState, parts: &Parts) -> Option<Arc<Principal>> {
    let principal = state.config.loopback_principal.as_ref()?;
    let is_local = peer(parts).is_some_and(|ip| ip.is_loopback());
    (is_local && site::is_own(&parts.headers, &parts.uri)).then(|| principal.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undeclared_tenant_and_a_foreign_one_look_the_same_to_a_bound_key() {
        let id = |t: &str| TenantId::new(t).expect("a valid id");
        let tenants = DeclaredTenants::new([id("a"), id("b")]);
        let bound = Principal {
            id: "k".into(),
            name: "k".into(),
            tenants: TenantSet::Only([id("a")].into()),
            roles: Default::default(),
        };
        let foreign = enter(&bound, &tenants, "b").expect_err("foreign");
        for name in ["nowhere", "../etc", ""] {
            assert_eq!(enter(&bound, &tenants, name).expect_err("undeclared"), foreign);
        }
        let platform = Principal { tenants: TenantSet::All, ..bound.clone() };
        assert_eq!(enter(&platform, &tenants, "nowhere").expect_err("undeclared").code, "tenant-unknown");
        assert!(enter(&platform, &tenants, "b").is_ok() && enter(&bound, &tenants, "a").is_ok());
    }

    #[test]
    fn credentials_are_read_from_both_headers_and_must_agree() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(k, v)| (http::HeaderName::from_static(k), v.parse().expect("a value")))
                .collect()
        };
        let read = |pairs| credential(&headers(pairs)).map(|s| s.map(str::to_owned)).map_err(|p| p.code);
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("authorization", "bearer  s ")]), Ok(Some("s".into())));
        assert_eq!(read(&[("x-api-key", "s")]), Ok(Some("s".into())));
        assert_eq!(read(&[("x-api-key", "s"), ("authorization", "Bearer s")]), Ok(Some("s".into())));
        for bad in [
            &[("x-api-key", "s"), ("authorization", "Bearer t")][..],
            &[("authorization", "Basic dXNlcjpwYXNz")],
            &[("authorization", "Bearer")],
            &[("x-api-key", "")],
        ] {
            assert_eq!(read(bad), Err("unauthenticated".into()), "{bad:?}");
        }
    }
}
