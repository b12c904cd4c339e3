//! API keys that fail again and again: further attempts of that key from that address are told to
//! wait. A right key always comes in.
//!
//! One place for every door on the port, the gateway's routes, Pub/Sub over REST and over gRPC.
//! What is not shaped like a key names no account and costs nothing to refuse.

use std::net::IpAddr;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use levada_core::SignIns;

use crate::problem::ApiProblem;

const UNAUTHENTICATED: &str = "16";

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The credential of a request, wherever it stands. It is looked at only where it was refused.
pub struct Attempt(Option<HeaderValue>);

impl Attempt {
    pub fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::AUTHORIZATION).or_else(|| headers.get(API_KEY));
        Self(value.or_else(|| headers.get(GOOGLE_API_KEY)).cloned())
    }

    /// The answer itself, or that there were too many like it.
    pub fn judge(self, sign_ins: &SignIns, address: Option<IpAddr>, response: Response) -> Response {
        if !is_refused(&response) {
            return response;
        }
        let Some(account) = self.account() else { return response };
        match sign_ins.failed(address, &account) {
            Ok(()) => response,
            Err(problem) => ApiProblem::from(problem).into_response(),
        }
    }

    /// The account that it claims.
    fn account(&self) -> Option<String> {
        let text = self.0.as_ref()?.to_str().ok()?.trim();
        // Of `Bearer KEY` the last word; a key has none before it.
        let presented = text.rsplit_once(' ').map_or(text, |(_, key)| key);
        Some(SignIns::account(presented)).filter(|account| !account.is_empty()).map(str::to_owned)
    }
}

fn is_refused(response: &Response) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        || response.headers().get(GRPC_STATUS).is_some_and(|status| status == UNAUTHENTICATED)
}
