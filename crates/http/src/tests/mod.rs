//! The gateway over a real socket: a listener, a small HTTP client, engines on a simulated disk.

mod access;
mod answers;
mod bad_input;
mod crowd;
mod edges;
mod ingest;
mod isolation;
mod limits;
mod pubsub_topics;
mod secrets;
mod sql;
mod subscriptions;
mod support;
