//! API keys that fail again and again: further attempts of that key from that address are told to
//! wait. A right key always comes in.
//!
//! One place for every door on the port, the gateway's routes, Pub/Sub over REST and over gRPC.
//! What is not shaped like a key names no account and costs nothing to refuse.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use levada_core::SignIns;

use crate::problem::ApiProblem;
use crate::state::AppState;

const UNAUTHENTICATED: &str = "16";

pub async fn sign_ins(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(account) = account(request.headers()) else { return next.run(request).await };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let response = next.run(request).await;
    if !is_refused(&response) {
        return response;
    }
    match state.sign_ins.failed(address, &account) {
        Ok(()) => response,
        Err(problem) => ApiProblem::from(problem).into_response(),
    }
}

fn is_refused(response: &Response) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        || response.headers().get("grpc-status").is_some_and(|status| status == UNAUTHENTICATED)
}

/// The account that the credential of a request claims, wherever it stands.
fn account(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(header::AUTHORIZATION.as_str())
        .and_then(|value| value.split_once(' '))
        .map(|(_, key)| key.trim());
    let presented = bearer.or(text("x-api-key")).or(text("x-goog-api-key"))?;
    Some(SignIns::account(presented)).filter(|account| !account.is_empty()).map(str::to_owned)
}
