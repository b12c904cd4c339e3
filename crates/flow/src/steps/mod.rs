//! The operators of a pipeline. Each takes a record batch and hands back the rows that pass;
//! a row that does not pass becomes a [`Fault`] or, as a duplicate, disappears.

pub mod deduplicate;
pub mod email;
pub mod enrich;
pub mod quality;
mod range;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use levada_core::Problem;

/// A row that a step refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Value of the hidden row column.
    pub row: u32,
    /// The step, such as `quality` or `enrich:weather`.
    pub stage: String,
    /// Stable code, such as `quality-range`.
    pub code: &'static str,
    /// One sentence for a person.
    pub reason: String,
    /// How often the step tried.
    pub attempts: u32,
}

/// Why a step cannot be built. The pipeline does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {reason}")]
pub struct BuildError {
    pub step: String,
    pub reason: String,
    /// Which step of the pipeline it is, where one alone is at fault.
    pub index: Option<usize>,
    /// What the query engine answered, where the step is a query.
    pub answer: Option<Box<Problem>>,
}

impl BuildError {
    pub fn new(step: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { step: step.into(), reason: reason.into(), index: None, answer: None }
    }

    #[must_use]
    pub fn of_step(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

/// Why a batch as a whole could not be processed: a defect, since bad rows are faults.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("the schema's decoder failed: {0}")]
    Decode(#[from] levada_schema::SchemaError),
    /// A record batch lacks a column that the step was built with.
    #[error("column `{0}` is missing from a batch")]
    MissingColumn(String),
}

/// Rows that go on, and what became of the others.
#[derive(Debug)]
pub struct Passed {
    pub batch: RecordBatch,
    pub faults: Vec<Fault>,
}

/// A step that keeps no state between batches.
#[async_trait]
pub trait Transform: Send + Sync {
    /// # Errors
    /// [`StepError`] for a defect; what a row is guilty of is a fault.
    async fn run(&self, batch: RecordBatch) -> Result<Passed, StepError>;
}
