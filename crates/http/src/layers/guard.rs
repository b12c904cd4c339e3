//! The lock on every closed route: nobody comes past it without a credential.
//!
//! It runs before the handler, so a handler that forgot to ask for its caller would still
//! be closed. It also takes one token of the caller's tenant, except for ingestion, which
//! takes one an event.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;

use super::limit;
use crate::auth::Caller;
use crate::metrics;
use crate::problem::ApiProblem;
use crate::state::AppState;

/// The one route that counts by event.
pub const EVENTS_PATH: &str = "/v1/events";

pub async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::authenticate(&state, &parts) {
        Ok(caller) => caller,
        Err(problem) => return ApiProblem::from(problem).into_response(),
    };
    let by_event = parts.uri.path() == EVENTS_PATH && parts.method == Method::POST;
    let single = caller.principal.tenants.single().filter(|_| !by_event);
    let decision = single.and_then(|tenant| Some((tenant, state.limits.take(tenant, 1)?)));
    let decision = match decision {
        Some((tenant, decision)) if !decision.allowed => {
            metrics::rate_limited(&state.tenant_labels, tenant);
            let mut response = ApiProblem::from(limit::exceeded(&decision)).into_response();
            limit::write_headers(response.headers_mut(), &decision);
            return response;
        }
        other => other.map(|(_, decision)| decision),
    };
    parts.extensions.insert(caller);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(decision) = decision {
        limit::write_headers(response.headers_mut(), &decision);
    }
    response
}
