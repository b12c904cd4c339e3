//! Topics with one lane a tenant, cursors, subscriptions, dead letters and idempotency,
//! over the durable log.
//!
//! A publish is answered once its commit group is on disk. A reader sees committed records
//! only. Every operation that touches a tenant's data takes that tenant's context.

pub mod admin;
mod bus;
mod codec;
mod config;
mod dead;
mod deduplication;
mod delivery;
mod embedded;
pub mod filter;
mod idempotency;
mod key;
pub mod metrics;
mod owners;
pub mod port;
mod publish;
mod rate;
mod restore;
pub mod shared_names;
mod stats;
mod upkeep;

#[cfg(test)]
mod tests;

pub use bus::{Bus, Delivered, Publish, Published, Recovery};
pub use config::{BusConfig, BusError, Retention, TopicConfig};
pub use dead::{DeadEntry, DeadFilter, DeadLetter, MAX_LISTED_BYTES, ResendOutcome};
pub use embedded::EmbeddedBus;
pub use rate::TakeTokens;
pub use stats::{LaneStats, TopicInfo};
