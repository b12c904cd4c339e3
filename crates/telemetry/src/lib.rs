//! Traces and metrics out to any OpenTelemetry collector, over OTLP/HTTP.
//!
//! [`Telemetry`] runs the export in the background; a [`Tracer`] makes spans; [`TracedBus`]
//! follows messages of a [`levada_bus::port::BusPort`] from publish to acknowledgement, and
//! [`Ingest`] those that come through the gateway. Nothing here waits on the data path: what the
//! collector does not take in time is dropped and counted.

mod attempts;
mod config;
pub mod context;
mod exporter;
mod exposition;
mod figures;
mod ingest;
pub mod metrics;
mod proto;
mod publish;
mod sampler;
mod service;
mod span;
mod traced;
mod tracer;
mod units;

#[cfg(test)]
extern crate self as levada_telemetry;
#[cfg(test)]
mod conformance_tests;

pub use config::{Config, ConfigError, Target};
pub use ingest::{Ingest, Outcome, PublishTrace, RequestTrace};
pub use sampler::{Root, Sampler};
pub use service::{Parts, Render, Telemetry};
pub use span::{Kind, Span, Value};
pub use traced::TracedBus;
pub use tracer::Tracer;
pub use units::{KeepUnits, Units};
