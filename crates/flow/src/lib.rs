//! Pipelines: records in, rows of the lake out, each exactly once.
//!
//! [`Pipelines`] runs every pipeline of a project. One pipeline is an engine that reads
//! micro-batches, decodes them once to Arrow and takes them through its [`chain`] of steps, and
//! a committer that seals epochs: Parquet staged, one durable manifest, dead letters sent, table
//! committed. A restart rolls a written manifest forward and forgets anything else. Beside it an
//! archiver keeps the events as they came in bronze. [`Models`] refreshes gold tables.
//!
//! What fails goes to the dead letter with reason, stage and original bytes; what is outside
//! and refuses is tried again; nothing is ever skipped.

mod bronze;
pub mod chain;
mod codec;
mod commit;
mod counts;
mod doubles;
mod engine;
mod epoch;
mod error;
mod histogram;
mod history;
mod intake;
mod journal;
mod lag;
mod letter;
mod manifest;
mod memory;
pub mod metrics;
mod models;
mod names;
mod pipelines;
pub mod rehearsal;
mod rows;
mod shares;
mod sql;
mod standing;
mod status;
pub mod steps;
mod topic;
pub mod window;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod tests;

pub use commit::RETRY;
pub use counts::{StepCounts, StepFigures};
pub use doubles::stay_double;
pub use engine::{Parts, table_key};
pub use error::FlowError;
pub use history::EpochDone;
pub use manifest::Totals;
pub use memory::FlowMemory;
pub use models::{ModelState, ModelStatus, Models, ModelsConfig};
pub use names::dead_letter_origin;
pub use pipelines::{FileReaders, Pipelines};
pub use status::{PipelineStatus, RunState, Signals, TenantFigures};
pub use steps::enrich::{Breakers, EnrichContext, Jitter, Secrets};
pub use topic::TopicReader;
