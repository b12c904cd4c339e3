//! The outermost layer: every answer, whatever made it, leaves through here.
//!
//! It names the request, gives it a place, turns a panic into a 500, renders problems, adds the
//! security headers, counts and logs. Health checks and metrics need no place: no load keeps the
//! process from saying how it is. Query strings and headers are never logged: they may
//! carry secrets.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, header};
use levada_core::{Problem, QuotaOwner};

use super::context::RequestContext;
use super::sign_ins::Attempt;
use super::site;
use crate::answers::{Accounted, accounted};
use crate::held;
use crate::problem::{ApiProblem, Pending, of_status};
use crate::state::AppState;

/// Answered without a place.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Added where an answer does not set its own.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub async fn frame(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = state.clock.monotonic();
    let context = RequestContext::new(request.headers(), &*state.ids);
    let method = method_label(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(context.clone());
    let is_probe = PROBES.contains(&request.uri().path());
    let admitted = if state.config.own_site_only { site::admit(&request) } else { Ok(()) };
    let mut response = match admitted {
        Err(problem) => ApiProblem::from(problem).into_response(),
        Ok(()) if is_probe => run(next, request, &context).await,
        Ok(()) => placed(&state, next, request, &context).await,
    };
    finish(&mut response, &context);
    let route = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    let took = state.clock.monotonic().saturating_sub(started);
    state.request_metrics.record(method, route, response.status().as_u16(), took);
    log(method, route, &response, took, &context);
    response
}

/// Answers with a place among the requests in flight, and keeps it until a large answer is sent.
async fn placed(state: &AppState, next: Next, mut request: Request, context: &RequestContext) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let place = match state.admission.enter(peer) {
        Ok(place) => Arc::new(place),
        Err(problem) => return ApiProblem::from(problem).into_response(),
    };
    request.extensions_mut().insert(place.clone());
    let attempt = Attempt::of(request.headers());
    let response = run(next, request, context).await;
    let mut response = attempt.judge(&state.sign_ins, peer, response);
    // A problem that names thousands of events is as long as any answer.
    render(&mut response, context);
    let Some(bytes) = held::size(&response).filter(|bytes| *bytes > held::SMALL_BYTES) else {
        return held::until_sent(response, place);
    };
    let owner = place.owner().unwrap_or_else(|| QuotaOwner::Principal("unknown".to_owned()));
    if response.extensions().get::<Accounted>().is_some() {
        return held::until_sent(response, place);
    }
    match state.answers.take(&owner, usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Ok(memory) => held::until_sent(held::until_left(accounted(response), memory), place),
        Err(problem) => ApiProblem::from(problem).into_response(),
    }
}

async fn run(next: Next, request: Request, context: &RequestContext) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => panicked(&panic, context),
    }
}

fn finish(response: &mut Response, context: &RequestContext) {
    render(response, context);
    context.write(response);
    let headers = response.headers_mut();
    // No browser shows an answer of gRPC, whose headers are a good part of what it costs.
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        return;
    }
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Writes the problem of an answer that is one and does not say it yet.
fn render(response: &mut Response, context: &RequestContext) {
    if let Some(Pending(problem)) = response.extensions_mut().remove::<Pending>() {
        problem.render(response, &context.id);
    } else if response.status().as_u16() >= 400 && !response.headers().contains_key(header::CONTENT_TYPE) {
        bare_problem(response).render(response, &context.id);
    }
}

/// The problem of an answer without a body. The router refuses a method that way, naming
/// those that the address knows.
fn bare_problem(response: &Response) -> ApiProblem {
    let problem = of_status(response.status());
    let allowed = response.headers().get(header::ALLOW).and_then(|a| a.to_str().ok());
    match allowed {
        Some(allowed) => problem.hint(format!("it knows {allowed}")).into(),
        None => problem.into(),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send), context: &RequestContext) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(request_id = %context.id, panic = text, "a request panicked");
    let problem = Problem::new(500, "internal", "the server failed while answering")
        .hint("report it with the request_id; other requests are not affected");
    ApiProblem::from(problem).into_response()
}

/// Methods that a client invents must not become labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn log(method: &str, route: &str, response: &Response, took: Duration, context: &RequestContext) {
    let status = response.status().as_u16();
    let took_ms = took.as_secs_f64() * 1e3;
    if status >= 500 {
        tracing::warn!(method, route, status, took_ms, request_id = %context.id, "request failed");
    } else {
        tracing::debug!(method, route, status, took_ms, request_id = %context.id, "request");
    }
}
