//! `/v1/subscriptions`: the subscriptions of the Pub/Sub bus, as an operator sees and helps them.
//!
//! Who may see which is decided by [`SubscriptionAdmin`]; here it is asked and written down.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use levada_bus::admin::{SubscriptionAdmin, SubscriptionChange, Weighing};
use levada_bus::port::{PageRequest, Unblock};
use levada_core::{Problem, ResourceName, TenantId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json as value;

use super::subscription_view::{SubscriptionView, age_s, view};
use super::visible::{json, time};
use crate::answers::Whole;
use crate::auth::Caller;
use crate::extract::{Json, Path, Query};
use crate::problem::ApiProblem;
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;
const MAX_KEY_BYTES: usize = 1_024;

/// The name in a path. One that cannot be a name answers as one that does not exist.
pub(super) fn subscription_name(project: &str, id: &str) -> Result<ResourceName, Problem> {
    format!("{project}/{id}").parse().map_err(|error: levada_core::NameError| {
        Problem::new(404, "subscription-unknown", format!("there is no such subscription: {error}"))
            .hint("GET /v1/subscriptions lists the subscriptions that this credential can see")
    })
}

/// The port to operate by.
pub(super) fn admin(state: &AppState, name: &ResourceName) -> Result<SubscriptionAdmin, Problem> {
    state.operations.subscriptions().ok_or_else(|| levada_bus::admin::subscription_unknown(name))
}

/// Figures may take a look at the disk, so they are gathered beside the request threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Problem::new(500, "internal", "the read failed")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Go on after this name.
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
}

pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let after = query.after.as_deref().map(str::parse).transpose();
    let after =
        after.map_err(|e: levada_core::NameError| Problem::new(400, "query-invalid", e.to_string()))?;
    let page = PageRequest { size: query.limit.unwrap_or(100).clamp(1, MAX_LIMIT), after };
    let now_ms = state.clock.now_ms();
    let Some(admin) = state.operations.subscriptions() else {
        return Ok(json(&value!({ "subscriptions": [] })));
    };
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let found = blocking(move || Ok(admin.list(&caller.principal, &page))).await?;
    let views: Vec<SubscriptionView<'_>> = found.items.iter().map(|report| view(report, now_ms)).collect();
    let mut answer = value!({ "subscriptions": views });
    if let Some(next) = found.next {
        answer["after"] = value!(next);
    }
    Ok(whole.json(&answer)?)
}

pub async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let now_ms = state.clock.now_ms();
    let report = blocking(move || admin.show(&caller.principal, &name)).await?;
    Ok(json(&view(&report, now_ms)))
}

/// A change of settings, as a merge patch (RFC 7396): what is absent stays, `null` takes away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionPatch {
    #[serde(default, deserialize_with = "some")]
    weights: Option<Option<BTreeMap<TenantId, Option<u32>>>>,
    #[serde(default, deserialize_with = "some")]
    max_rate_per_s: Option<Option<u32>>,
}

/// Tells a field that is `null` from one that is absent.
pub(super) fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(of: D) -> Result<Option<T>, D::Error> {
    T::deserialize(of).map(Some)
}

pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Json(patch): Json<SubscriptionPatch>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let now_ms = state.clock.now_ms();
    let weighing = match patch.weights {
        None => Weighing::default(),
        Some(tenants) => Weighing { from_nothing: tenants.is_none(), tenants: tenants.unwrap_or_default() },
    };
    // To the end, also when the client leaves in between.
    let change = SubscriptionChange { weighing, max_rate_per_s: patch.max_rate_per_s };
    let changed = tokio::spawn(async move { admin.change(&caller.principal, &name, &change).await });
    let report = changed.await.map_err(|_| Problem::new(500, "internal", "the change failed"))??;
    Ok(json(&view(&report, now_ms)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockedQuery {
    limit: Option<usize>,
}

#[derive(Serialize)]
struct BlockedView {
    tenant_id: TenantId,
    key: String,
    message_id: String,
    delivery_attempt: u32,
    waiting: u64,
    since: String,
    blocked_s: f64,
}

pub async fn blocked_keys(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<BlockedQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let now_ms = state.clock.now_ms();
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let keys = blocking(move || admin.blocked_keys(&caller.principal, &name, limit)).await?;
    let view = |key: levada_bus::port::BlockedKey| BlockedView {
        tenant_id: key.tenant,
        key: key.key,
        message_id: key.message_id.to_string(),
        delivery_attempt: key.delivery_attempt,
        waiting: key.waiting,
        since: time(key.since_ms),
        blocked_s: age_s(now_ms, key.since_ms),
    };
    let keys: Vec<BlockedView> = keys.into_iter().map(view).collect();
    Ok(whole.json(&value!({ "blocked_keys": keys }))?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnblockRequest {
    tenant: TenantId,
    key: String,
}

pub async fn skip(
    state: State<AppState>,
    caller: Caller,
    path: Path<(String, String)>,
    request: Json<UnblockRequest>,
) -> Result<Response, ApiProblem> {
    unblock(state, caller, path, request, Unblock::Skip).await
}

pub async fn park(
    state: State<AppState>,
    caller: Caller,
    path: Path<(String, String)>,
    request: Json<UnblockRequest>,
) -> Result<Response, ApiProblem> {
    unblock(state, caller, path, request, Unblock::Park).await
}

async fn unblock(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Json(request): Json<UnblockRequest>,
    how: Unblock,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    if request.key.is_empty() || request.key.len() > MAX_KEY_BYTES {
        let detail = format!("`key` is an ordering key of 1 to {MAX_KEY_BYTES} bytes");
        return Err(Problem::new(422, "body-invalid", detail).into());
    }
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let done = if how == Unblock::Skip { "skipped" } else { "parked" };
    let answer = value!({ "tenant_id": request.tenant, "key": request.key, "done": done });
    // To the end, also when the client leaves in between.
    let unblocked = tokio::spawn(async move {
        admin.unblock(&caller.principal, &name, &request.tenant, &request.key, how).await
    });
    unblocked.await.map_err(|_| Problem::new(500, "internal", "the key could not be unblocked"))??;
    Ok(json(&answer))
}
