//! The PostgreSQL door: psql, drivers and BI tools query the lake over the wire protocol.
//!
//! The password is an API key; the user name is free. The database name narrows to one
//! tenant, and `levada` (or `postgres`, or none) means all tenants of the key. Every
//! statement asks for the key again and runs in a lake session that holds only what the
//! principal may see, so a table made a moment ago is there. A session asks every second whether
//! its key is still good, and ends when it is not, also in the middle of a result. There is no TLS yet: the listener binds loopback by default, and
//! belongs behind a tunnel or a TLS proxy elsewhere.
//!
//! pgwire decodes and encodes the messages. The protocol's state (prepared statements,
//! portals, cursors, transactions) is kept here, because rows must stream, stop on cancel
//! and never pile up. Reading order: `server`, `connection`, `execute`.

mod cancel;
mod catalog;
mod codec;
mod connection;
mod cursors;
mod doorstep;
mod encode;
mod error;
mod execute;
mod form;
mod kept;
mod metrics;
mod numeric;
mod params;
mod places;
mod portal;
mod rewrite;
mod server;
mod session;
mod settings;
mod startup;
mod statement;
mod tokens;
mod types;

#[cfg(test)]
extern crate self as levada_postgres;
#[cfg(test)]
mod tests;

pub use error::PostgresError;
pub use server::{PostgresConfig, PostgresServer};
