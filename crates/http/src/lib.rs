//! The gateway: ingestion, SQL, administration and health over one HTTP port.
//!
//! [`app`] makes the router from an [`AppState`]; [`app_with`] puts further routes (the
//! console's) inside the same frame, so that request ids, problem answers and security
//! headers hold for them too; [`serve`] runs a router on a listener (HTTP/1.1 and HTTP/2
//! without TLS) and drains it when told to stop. Everything below `/v1` is closed: the
//! guard authenticates before any handler runs, and a handler sees only the caller's
//! tenants.

mod answers;
mod auth;
mod body;
mod connections;
mod events;
mod extract;
mod held;
mod layers;
pub mod metrics;
mod openapi;
mod operations;
mod problem;
mod quotas;
mod routes;
mod routing;
mod server;
mod stalls;
mod state;

#[cfg(test)]
extern crate self as levada_http;
#[cfg(test)]
mod tests;

pub use auth::{Caller, DeclaredTenants, Tenants};
pub use extract::{Json, Query};
pub use layers::context::RequestContext;
pub use metrics::TenantLabels;
pub use openapi::document as openapi_document;
pub use operations::{
    Check, Failing, Freshness, ModelRun, ModelStatus, NoOperations, Operations, PipelineCounts,
    PipelineStatus, TenantShare,
};
pub use problem::ApiProblem;
pub use quotas::ShareMeter;
pub use routes::{app, app_with};
pub use routing::{DEFAULT_TOPIC, Route, RouteRule, Routes};
pub use server::{ServerConfig, serve};
pub use state::{AppState, GatewayConfig, MetricsAccess, Parts, QueryConfig};
