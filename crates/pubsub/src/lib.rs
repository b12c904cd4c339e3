//! The Google Cloud Pub/Sub v1 API over the port of the event bus: gRPC and REST.
//!
//! [`PubsubApi`] holds what the calls work with; [`router`] mounts them: gRPC on
//! `/google.pubsub.v1.*/*` and `/google.iam.v1.IAMPolicy/*`, REST on `/v1/projects/*`. Each
//! unary call is one async method, listed once in `dispatch`; both doors find it there, so
//! that they cannot differ. StreamingPull is gRPC only and lives in `stream`.
//!
//! This crate decides who may see and do what, checks every documented bound and speaks in
//! the API's words. What topics and subscriptions are is the port's business.

mod access;
mod ack_id;
mod api;
mod body;
mod convert;
mod dispatch;
mod edited;
mod endpoint;
mod error;
mod grpc;
mod guards;
mod iam;
mod letters;
mod limits;
mod mask;
mod messages;
pub mod metrics;
mod names;
mod publisher;
mod push;
mod rest;
mod schemas;
mod snapshots;
mod stock;
mod stored_schemas;
mod stream;
mod subscriber;

#[cfg(test)]
extern crate self as levada_pubsub;
#[cfg(test)]
mod tests;

pub use access::{Owner, Projects};
pub use api::{Parts, PubsubApi, PubsubConfig};
pub use edited::EditedMessages;
pub use error::{ApiError, ErrorInfo, Violation};
pub use guards::Guards;
pub use iam::{MemoryPolicies, PolicyStore};
pub use push::{PushConfig, PushKey, PushKeyError};
pub use schemas::{NoSchemas, Schema, SchemaKind, SchemaSource, SchemaStore};
pub use stored_schemas::StoredSchemas;
pub use tonic::Code;

use axum::Router;

/// The documents by which receivers of pushes verify the tokens that pushes carry; open to
/// everybody, at `/.well-known/` of the issuer.
pub fn push_router(config: &PushConfig) -> Router {
    push::router(config)
}

/// The routes of the API, to be merged with others on the one port.
pub fn router(api: &PubsubApi) -> Router {
    grpc::router(api.clone()).merge(rest::router(api.clone()))
}
