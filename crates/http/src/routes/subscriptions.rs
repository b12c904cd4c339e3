//! `/v1/subscriptions`: the subscriptions of the Pub/Sub bus, as an operator sees and helps them.
//!
//! Who may see which is decided by [`SubscriptionAdmin`]; here it is asked and written down.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use levada_bus::admin::{LaneReport, SubscriptionAdmin, SubscriptionReport};
use levada_bus::port::{PageRequest, SubscriptionSpec, Unblock};
use levada_core::{Problem, ProjectId, ResourceId, ResourceName, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::visible::{json, time};
use crate::auth::Caller;
use crate::extract::{Json, Path, Query};
use crate::problem::ApiProblem;
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;
const MAX_KEY_BYTES: usize = 1_024;

#[derive(Serialize)]
struct SubscriptionView<'a> {
    name: &'a ResourceName,
    project: &'a ProjectId,
    id: &'a ResourceId,
    /// `null`: the platform's.
    tenant_id: Option<&'a TenantId>,
    /// `null`: it was deleted.
    topic: Option<&'a ResourceName>,
    delivery: &'static str,
    state: &'static str,
    /// Why, where the state is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_endpoint: Option<&'a str>,
    ack_deadline_s: f64,
    ordered: bool,
    exactly_once: bool,
    filter: &'a str,
    retention_s: f64,
    retain_acked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_after_s: Option<f64>,
    detached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetterPolicyView<'a>>,
    labels: &'a BTreeMap<String, String>,
    stats: StatsView,
}

#[derive(Serialize)]
struct RetryView {
    minimum_backoff_s: f64,
    maximum_backoff_s: f64,
}

#[derive(Serialize)]
struct DeadLetterPolicyView<'a> {
    topic: &'a ResourceName,
    max_delivery_attempts: u32,
}

#[derive(Serialize)]
struct StatsView {
    backlog_messages: u64,
    backlog_is_exact: bool,
    leased: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unacked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unacked_age_s: Option<f64>,
    /// Since the server started, as is what follows.
    delivered: u64,
    redelivered: u64,
    acknowledged: u64,
    expired: u64,
    dead_lettered: u64,
    blocked_keys: u64,
    tenants: Vec<TenantView>,
}

#[derive(Serialize)]
struct TenantView {
    tenant_id: TenantId,
    weight: u32,
    backlog_messages: u64,
    delivered: u64,
    delivered_bytes: u64,
    share: f64,
}

/// Milliseconds as seconds, never below zero: clocks move back.
fn age_s(now_ms: i64, then_ms: i64) -> f64 {
    now_ms.saturating_sub(then_ms).max(0) as f64 / 1000.0
}

fn view(report: &SubscriptionReport, now_ms: i64) -> SubscriptionView<'_> {
    let spec: &SubscriptionSpec = &report.spec;
    let tenant = |lane: LaneReport| TenantView {
        tenant_id: lane.tenant,
        weight: lane.weight,
        backlog_messages: lane.backlog_messages,
        delivered: lane.delivered,
        delivered_bytes: lane.delivered_bytes,
        share: lane.share,
    };
    let stats = &report.stats;
    let (state, note) = report.state(now_ms);
    SubscriptionView {
        name: &spec.name,
        project: &spec.name.project,
        id: &spec.name.id,
        tenant_id: report.tenant.as_ref(),
        topic: spec.topic.as_ref(),
        delivery: if spec.push.is_some() { "push" } else { "pull" },
        state: state.as_str(),
        note,
        push_endpoint: spec.push.as_ref().map(|push| push.endpoint.as_str()),
        ack_deadline_s: spec.ack_deadline.as_secs_f64(),
        ordered: spec.ordered,
        exactly_once: spec.exactly_once,
        filter: &spec.filter,
        retention_s: spec.retention.as_secs_f64(),
        retain_acked: spec.retain_acked,
        expires_after_s: spec.expires_after.as_ref().map(Duration::as_secs_f64),
        detached: spec.detached,
        retry: spec.retry.map(|retry| RetryView {
            minimum_backoff_s: retry.minimum_backoff.as_secs_f64(),
            maximum_backoff_s: retry.maximum_backoff.as_secs_f64(),
        }),
        dead_letter: spec.dead_letter.as_ref().map(|policy| DeadLetterPolicyView {
            topic: &policy.topic,
            max_delivery_attempts: policy.max_delivery_attempts,
        }),
        labels: &spec.labels,
        stats: StatsView {
            backlog_messages: stats.backlog_messages,
            backlog_is_exact: report.backlog_is_exact,
            leased: stats.leased,
            oldest_unacked_at: stats.oldest_unacked_ms.map(time),
            oldest_unacked_age_s: report.oldest_age(now_ms).map(|age| age.as_secs_f64()),
            delivered: stats.delivered,
            redelivered: stats.redelivered,
            acknowledged: stats.acknowledged,
            expired: stats.expired,
            dead_lettered: stats.dead_lettered,
            blocked_keys: stats.blocked_keys,
            tenants: report.lanes().into_iter().map(tenant).collect(),
        },
    }
}

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
    after: Option<String>,
    limit: Option<usize>,
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
    let found = blocking(move || Ok(admin.list(&caller.principal, &page))).await?;
    let views: Vec<SubscriptionView<'_>> = found.items.iter().map(|report| view(report, now_ms)).collect();
    let mut answer = value!({ "subscriptions": views });
    if let Some(next) = found.next {
        answer["after"] = value!(next);
    }
    Ok(json(&answer))
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
    Ok(json(&value!({ "blocked_keys": keys })))
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
