//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use levada_core::Problem;
use serde_json::{Value, json as value};

use super::visible::json;
use crate::auth::{Caller, peer};
use crate::operations::{Failing, visible_failing};
use crate::problem::ApiProblem;
use crate::state::{AppState, MetricsAccess};

/// Failed parts of a kind that are named; the others are counted.
const MOST_NAMED: usize = 100;

/// The process runs and answers.
pub async fn healthz() -> Response {
    json(&value!({ "status": "up" }))
}

/// Whether the process may take traffic (200) or not (503).
///
/// A part that all traffic needs makes it 503: `failed` names it. A failed pipeline or model, or a
/// table with a damaged file, does not, since it is one tenant's or one table's, and taking the server out of a load balancer
/// would fail all the others: it is told as `degraded`. The door is open, so without a key both
/// say what does not work, but neither whose it is nor why.
pub async fn readyz(State(state): State<AppState>, request: Request) -> Response {
    let failed: Vec<String> =
        state.operations.checks().into_iter().filter(|c| !c.ok).map(|c| c.name).collect();
    let failing = state.operations.failing();
    let status = match (state.is_draining(), failed.is_empty(), failing.is_empty()) {
        (true, ..) => "draining",
        (false, false, _) => "unready",
        (false, true, false) => "degraded",
        (false, true, true) => "ready",
    };
    let code = match status {
        "ready" | "degraded" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let (parts, _) = request.into_parts();
    // A wrong key is no reason to fail a health check: it sees what nobody sees.
    let caller = Caller::authenticate(&state, &parts).ok();
    let degraded = degraded(caller.as_ref(), failing);
    (code, json(&value!({ "status": status, "failed": failed, "degraded": degraded }))).into_response()
}

/// Failed pipelines and models and damaged tables, counted; with the names and reasons that the caller may see.
fn degraded(caller: Option<&Caller>, failing: Vec<Failing>) -> Vec<Value> {
    let kinds = ["pipeline", "model", "table", "document"]
        .map(|kind| (kind, failing.iter().filter(|f| f.kind == kind).count()));
    let seen = caller.map(|caller| visible_failing(&caller.principal, failing));
    let mut told = Vec::new();
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        let mut entry = value!({ "kind": kind, "count": count });
        if let Some(seen) = &seen {
            let parts: Vec<Value> = seen
                .iter()
                .filter(|f| f.kind == kind)
                .take(MOST_NAMED)
                .map(|f| value!({ "name": f.name, "tenant": f.tenant, "reason": f.reason }))
                .collect();
            entry["parts"] = parts.into();
        }
        told.push(entry);
    }
    told
}

pub async fn metrics(State(state): State<AppState>, request: Request) -> Result<Response, ApiProblem> {
    let (parts, _) = request.into_parts();
    let open = match state.config.metrics {
        MetricsAccess::Open => true,
        MetricsAccess::Loopback => peer(&parts).is_some_and(|ip| ip.is_loopback()),
        MetricsAccess::Key => false,
    };
    if !open {
        let caller = Caller::authenticate(&state, &parts)?;
        if !caller.is_platform() || !caller.principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "metrics are of the whole platform")
                .hint("use a key for all tenants with the role admin or engineer")
                .into());
        }
    }
    let Some(handle) = &state.metrics else {
        return Err(Problem::new(404, "metrics-off", "this process records no metrics").into());
    };
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text)], handle.render()).into_response())
}

pub async fn openapi() -> Response {
    json(crate::openapi::document())
}
