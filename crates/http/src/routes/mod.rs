//! The table of routes: address, method, who may call, and its documentation, in one place.
//!
//! The router and the OpenAPI document are made from the same table, so neither can know
//! a route that the other does not.

mod browse;
mod dead_letters;
mod health;
mod keys;
mod messages;
mod operations;
mod pubsub_topics;
mod reals;
mod redrive;
mod replays;
mod resend;
mod rows;
mod sql;
mod status;
mod subscription_view;
mod subscriptions;
mod topics;
mod visible;

pub(crate) use visible::json;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post};
use http::Method;
use levada_core::Problem;

use crate::events::post_events;
use crate::layers::frame::frame;
use crate::layers::guard::{EVENTS_PATH, guard};
use crate::problem::ApiProblem;
use crate::quotas;
use crate::state::AppState;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// The guard lets only authenticated callers through.
    Key,
    /// The handler decides by configuration.
    Configured,
}

/// One route. `id` is the name of its documentation and of its operation.
pub(crate) struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub id: &'static str,
    pub access: Access,
    handler: fn() -> MethodRouter<AppState>,
}

const fn route(
    method: Method,
    path: &'static str,
    id: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<AppState>,
) -> Endpoint {
    Endpoint { method, path, id, access, handler }
}

/// Every route of the gateway.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    route(Method::POST, EVENTS_PATH, "postEvents", Access::Key, || post(post_events)),
    route(Method::POST, "/v1/sql", "querySql", Access::Key, || post(sql::query)),
    route(Method::GET, "/v1/topics", "listTopics", Access::Key, || get(topics::list)),
    route(Method::GET, "/v1/topics/{topic}/messages", "readMessages", Access::Key, || {
        get(messages::messages)
    }),
    route(Method::GET, "/v1/dead-letters", "listDeadLetters", Access::Key, || get(dead_letters::list)),
    route(Method::POST, "/v1/dead-letters/resend", "resendDeadLetters", Access::Key, || {
        post(dead_letters::resend)
    }),
    route(Method::GET, "/v1/subscriptions", "listSubscriptions", Access::Key, || get(subscriptions::list)),
    route(Method::GET, "/v1/subscriptions/{project}/{id}", "getSubscription", Access::Key, || {
        get(subscriptions::show)
    }),
    route(Method::PATCH, "/v1/subscriptions/{project}/{id}", "updateSubscription", Access::Key, || {
        patch(subscriptions::change)
    }),
    route(
        Method::GET,
        "/v1/subscriptions/{project}/{id}/blocked-keys",
        "listBlockedKeys",
        Access::Key,
        || get(subscriptions::blocked_keys),
    ),
    route(
        Method::POST,
        "/v1/subscriptions/{project}/{id}/blocked-keys:skip",
        "skipBlockedKey",
        Access::Key,
        || post(subscriptions::skip),
    ),
    route(
        Method::POST,
        "/v1/subscriptions/{project}/{id}/blocked-keys:park",
        "parkBlockedKey",
        Access::Key,
        || post(subscriptions::park),
    ),
    route(
        Method::GET,
        "/v1/subscriptions/{project}/{id}/messages",
        "browseSubscription",
        Access::Key,
        || get(browse::browse),
    ),
    route(
        Method::POST,
        "/v1/subscriptions/{project}/{id}/redrive",
        "redriveSubscription",
        Access::Key,
        || post(redrive::redrive),
    ),
    route(
        Method::POST,
        "/v1/subscriptions/{project}/{id}/messages/{message_id}/resend",
        "resendMessage",
        Access::Key,
        || post(resend::resend),
    ),
    route(Method::POST, "/v1/subscriptions/{project}/{id}/replays", "createReplay", Access::Key, || {
        post(replays::create)
    }),
    route(Method::GET, "/v1/pubsub/topics/{project}", "listPubsubTopics", Access::Key, || {
        get(pubsub_topics::list)
    }),
    route(Method::GET, "/v1/pubsub/topics/{project}/{id}", "getPubsubTopic", Access::Key, || {
        get(pubsub_topics::show)
    }),
    route(Method::PATCH, "/v1/pubsub/topics/{project}/{id}", "updatePubsubTopic", Access::Key, || {
        patch(pubsub_topics::change)
    }),
    route(Method::GET, "/v1/keys", "listKeys", Access::Key, || get(keys::list)),
    route(Method::POST, "/v1/keys", "createKey", Access::Key, || post(keys::create)),
    route(Method::DELETE, "/v1/keys/{id}", "revokeKey", Access::Key, || delete(keys::revoke)),
    route(Method::GET, "/v1/quotas", "listQuotas", Access::Key, || get(quotas::list)),
    route(Method::GET, "/v1/pipelines", "listPipelines", Access::Key, || get(operations::pipelines)),
    route(Method::GET, "/v1/models", "listModels", Access::Key, || get(operations::models)),
    route(Method::POST, "/v1/models/{name}/run", "runModel", Access::Key, || post(operations::run_model)),
    route(Method::GET, "/v1/status", "getStatus", Access::Key, || get(status::status)),
    route(Method::GET, "/healthz", "getHealth", Access::Open, || get(health::healthz)),
    route(Method::GET, "/readyz", "getReadiness", Access::Open, || get(health::readyz)),
    route(Method::GET, "/metrics", "getMetrics", Access::Configured, || get(health::metrics)),
    route(Method::GET, "/openapi.json", "getOpenApi", Access::Open, || get(health::openapi)),
];

/// The gateway's router.
pub fn app(state: AppState) -> Router {
    app_with(state, Router::new())
}

/// The gateway's router with further routes inside its frame. `extra` must not have a
/// fallback of its own; it brings its own authentication.
pub fn app_with(state: AppState, extra: Router) -> Router {
    let mut closed = Router::new();
    let mut open = Router::new();
    for endpoint in ENDPOINTS {
        let handler = (endpoint.handler)();
        if endpoint.access == Access::Key {
            closed = closed.route(endpoint.path, handler);
        } else {
            open = open.route(endpoint.path, handler);
        }
    }
    // `route_layer` would let an unknown method pass to the 405 without a key; `layer` shuts
    // the whole address.
    let closed = closed.layer(from_fn_with_state(state.clone(), guard));
    let all =
        Router::new().merge(closed).merge(open).with_state(state.clone()).merge(extra).fallback(not_found);
    all.layer(from_fn_with_state(state, frame))
}

async fn not_found() -> ApiProblem {
    Problem::new(404, "not-found", "there is nothing at this address")
        .hint("GET /openapi.json lists every address")
        .into()
}
