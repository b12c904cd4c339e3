//! `GET|POST /v1/keys` and `DELETE /v1/keys/{id}`: API keys, for admins.
//!
//! Nobody can hand out what they do not hold: the tenants of a new key lie within the
//! creator's, and since only admins come here, and an admin may do everything for its
//! tenants, every role lies within theirs. A key that reaches beyond the caller's tenants
//! is invisible to it and answers as one that does not exist.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use levada_access::{KeyInfo, KeyState, NewKey};
use levada_core::{Problem, Quota, Role, TenantSet};
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::visible::{json, time};
use crate::answers::Whole;
use crate::auth::{Caller, enter};
use crate::extract::{Json, Path};
use crate::problem::ApiProblem;
use crate::state::AppState;

const MAX_TENANTS: usize = 1_000;

#[derive(Serialize)]
struct KeyView {
    id: String,
    name: String,
    /// `"all"`, or a list.
    tenants: serde_json::Value,
    roles: BTreeSet<Role>,
    state: KeyState,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

impl KeyView {
    fn new(key: KeyInfo, now_ms: i64) -> Self {
        Self {
            state: key.state(now_ms),
            id: key.id,
            name: key.name,
            tenants: match key.tenants {
                TenantSet::All => value!("all"),
                TenantSet::Only(set) => value!(set),
            },
            roles: key.roles,
            created_at: time(key.created_at_ms),
            expires_at: key.expires_at_ms.map(time),
            revoked_at: key.revoked_at_ms.map(time),
        }
    }
}

pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    caller.require_admin()?;
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let now_ms = state.clock.now_ms();
    let keys = state.keys.list().into_iter().filter(|key| is_visible(&caller, key));
    let keys: Vec<KeyView> = keys.map(|key| KeyView::new(key, now_ms)).collect();
    Ok(whole.json(&value!({ "keys": keys }))?)
}

/// `"all"`, or a list of tenants.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TenantsField {
    Word(String),
    List(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    name: String,
    /// Left out: the creator's own tenants.
    #[serde(default)]
    tenants: Option<TenantsField>,
    roles: BTreeSet<Role>,
    /// RFC 3339; exclusive with `expires_in_s`.
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    expires_in_s: Option<u32>,
}

pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateRequest>,
) -> Result<Response, ApiProblem> {
    caller.require_admin()?;
    let new = NewKey {
        tenants: tenants(&state, &caller, request.tenants.as_ref())?,
        expires_at_ms: expiry(&request, state.clock.now_ms())?,
        name: request.name,
        roles: request.roles,
    };
    admit(&state, &caller)?;
    let keys = state.keys.clone();
    let created = tokio::task::spawn_blocking(move || keys.create(new)).await;
    let (info, secret) = created.map_err(|_| Problem::new(500, "internal", "the key was not created"))??;
    tracing::info!(actor = %caller.principal.id, key = %info.id, roles = ?info.roles, "api key created");
    let mut view = value!(KeyView::new(info, state.clock.now_ms()));
    view["key"] = value!(secret.expose());
    Ok((StatusCode::CREATED, json(&view)).into_response())
}

/// Whether the caller's owner may have one more key that works; the platform's are bounded by the
/// key ring alone.
fn admit(state: &AppState, caller: &Caller) -> Result<(), Problem> {
    if caller.is_platform() {
        return Ok(());
    }
    let now_ms = state.clock.now_ms();
    let is_own = |key: &KeyInfo| key.state(now_ms) == KeyState::Active && is_visible(caller, key);
    let existing = state.keys.list().iter().filter(|key| is_own(key)).count() as u64;
    state.quotas.admit(&caller.owner(), Quota::Keys, existing)
}

fn tenants(state: &AppState, caller: &Caller, field: Option<&TenantsField>) -> Result<TenantSet, Problem> {
    let names = match field {
        None => return Ok(caller.principal.tenants.clone()),
        Some(TenantsField::Word(word)) if word == "all" && caller.is_platform() => return Ok(TenantSet::All),
        Some(TenantsField::Word(word)) if word == "all" => {
            return Err(Problem::new(
                403,
                "tenant-forbidden",
                "only a key for all tenants can create another one",
            )
            .hint("name the tenants of the new key"));
        }
        Some(TenantsField::Word(word)) => std::slice::from_ref(word),
        Some(TenantsField::List(names)) => names.as_slice(),
    };
    if names.len() > MAX_TENANTS {
        return Err(Problem::new(
            422,
            "key-invalid",
            format!("a key is bound to at most {MAX_TENANTS} tenants"),
        )
        .hint("use `\"tenants\": \"all\"`"));
    }
    let mut set = BTreeSet::new();
    for name in names {
        set.insert(enter(&caller.principal, &*state.tenants, name)?.tenant().clone());
    }
    Ok(TenantSet::Only(set))
}

fn expiry(request: &CreateRequest, now_ms: i64) -> Result<Option<i64>, Problem> {
    match (&request.expires_at, request.expires_in_s) {
        (Some(_), Some(_)) => {
            Err(Problem::new(422, "key-invalid", "`expires_at` and `expires_in_s` exclude each other"))
        }
        (Some(text), None) => chrono::DateTime::parse_from_rfc3339(text)
            .map(|t| Some(t.timestamp_millis()))
            .map_err(|_| Problem::new(422, "key-invalid", "`expires_at` is no RFC 3339 time")),
        (None, Some(seconds)) => Ok(Some(now_ms + i64::from(seconds) * 1_000)),
        (None, None) => Ok(None),
    }
}

pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiProblem> {
    caller.require_admin()?;
    state
        .keys
        .get(&id)
        .filter(|key| is_visible(&caller, key))
        .ok_or_else(|| levada_access::AccessError::NotFound(id.chars().take(64).collect()))?;
    let keys = state.keys.clone();
    let revoked = tokio::task::spawn_blocking(move || keys.revoke(&id)).await;
    let info = revoked.map_err(|_| Problem::new(500, "internal", "the key was not revoked"))??;
    tracing::info!(actor = %caller.principal.id, key = %info.id, "api key revoked");
    Ok(json(&KeyView::new(info, state.clock.now_ms())))
}

/// Whether every tenant of the key is one of the caller's.
fn is_visible(caller: &Caller, key: &KeyInfo) -> bool {
    match &key.tenants {
        TenantSet::All => caller.is_platform(),
        TenantSet::Only(set) => set.iter().all(|t| caller.sees(t)),
    }
}
