//! What end-to-end tests, benches and checks share: the built program as a process, a lean HTTP
//! client, real servers from the system's packages, waiting for a condition, and the suites
//! that say what a port promises.
//!
//! Of the platform it depends on the crates whose ports it has suites for. All else sees what
//! a user sees.

pub mod bus_conformance;
pub mod go;
pub mod http;
pub mod node;
pub mod program;
pub mod python;
pub mod services;
pub mod sql;
pub mod wait;

pub use http::{Answer, Connection, Request};
pub use program::{Levada, Options};
pub use wait::eventually;

/// Whether missing means (a server, an interpreter, an input) are a failure: on CI nothing may
/// be skipped in silence.
pub fn skipping_is_failure() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
