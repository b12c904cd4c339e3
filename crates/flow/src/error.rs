//! Why a pipeline stops.

use levada_bus::BusError;
use levada_core::ReadError;
use levada_lake::LakeError;

use crate::journal::JournalError;
use crate::steps::{BuildError, StepError};

/// An error that ends a run of a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("schema: {0}")]
    Schema(#[from] levada_schema::SchemaError),
    #[error("reading the source: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("lake: {0}")]
    Lake(#[from] LakeError),
    #[error("dead letters: {0}")]
    Bus(#[from] BusError),
    #[error("manifest: {0}")]
    Journal(#[from] JournalError),
    /// The table is ahead of the manifests: going on would double rows.
    #[error(
        "table {table} holds epoch {table_epoch}, but the pipeline's last manifest is {manifest_epoch}: its state was lost"
    )]
    StateLost { table: String, table_epoch: i64, manifest_epoch: u64 },
    #[error("{0}")]
    Panicked(String),
    /// Asked to stop while something outside refused; what was sealed is rolled forward later.
    #[error("stopped before the work at hand was done")]
    Stopped,
}

impl FlowError {
    /// Whether the same run may succeed later without a person's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            FlowError::Read(e) => e.retryable,
            FlowError::Lake(e) => e.is_retryable(),
            FlowError::Bus(e) => e.is_retryable(),
            FlowError::Journal(JournalError::Io { .. }) | FlowError::Panicked(_) => true,
            _ => false,
        }
    }
}
