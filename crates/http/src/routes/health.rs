//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use levada_core::Problem;
use serde_json::json as value;

use super::visible::json;
use crate::auth::{Caller, peer};
use crate::problem::ApiProblem;
use crate::state::{AppState, MetricsAccess};

/// The process runs and answers.
pub async fn healthz() -> Response {
    json(&value!({ "status": "up" }))
}

/// The process may take traffic. Says which part does not work, but not why: it is open.
pub async fn readyz(State(state): State<AppState>) -> Response {
    let failed: Vec<String> =
        state.operations.checks().into_iter().filter(|c| !c.ok).map(|c| c.name).collect();
    let status = match (state.is_draining(), failed.is_empty()) {
        (true, _) => "draining",
        (false, false) => "degraded",
        (false, true) => "ready",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, json(&value!({ "status": status, "failed": failed }))).into_response()
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
