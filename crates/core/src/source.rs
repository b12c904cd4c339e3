//! How a pipeline is fed: the seam between sources (`connect`, topics) and `flow`.
//!
//! A reader yields records in a stable order and can be put back to any position it once
//! reported. It keeps no durable state of its own: the pipeline's epoch manifest holds the
//! position, so that source, state and output commit as one.

use std::time::Duration;

use bytes::Bytes;

use crate::message::Attributes;
use crate::names::TenantId;

/// One record as it came from its source.
#[derive(Debug, Clone)]
pub struct Record {
    pub tenant: TenantId,
    /// Where it stands: the offset in its topic, or the line in its file (1 is the first line).
    pub offset: u64,
    pub published_at_ms: i64,
    pub attributes: Attributes,
    /// What is decoded: a JSON text. A row of a CSV file arrives as a JSON object of strings.
    pub body: Bytes,
    /// The bytes as they came, where `body` was derived from them.
    pub original: Option<Bytes>,
}

impl Record {
    /// The original bytes: what a dead letter keeps.
    pub fn original(&self) -> &Bytes {
        self.original.as_ref().unwrap_or(&self.body)
    }
}

/// A record that the source itself could not read, bound for the dead letter.
#[derive(Debug, Clone)]
pub struct Reject {
    pub record: Record,
    /// Stable code, such as `csv-ragged-row`.
    pub code: &'static str,
    /// One sentence for a person.
    pub reason: String,
}

/// What one read yields.
#[derive(Debug, Clone, Default)]
pub struct RecordBatchIn {
    pub records: Vec<Record>,
    pub rejects: Vec<Reject>,
    /// Names what the records came from where that is not the topic: the object's name.
    pub object: Option<String>,
    /// Values are texts to be parsed by the schema's types (CSV), and `NA` or an empty text is null.
    pub textual: bool,
}

impl RecordBatchIn {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rejects.is_empty()
    }
}

/// Why a read failed. The pipeline retries a retryable one with backoff and stops on others.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    pub message: String,
    pub retryable: bool,
}

/// A source of records for one pipeline.
#[async_trait::async_trait]
pub trait RecordReader: Send + Sync {
    /// Goes to a position that [`RecordReader::position`] returned earlier; `None` is the start.
    async fn seek(&mut self, position: Option<&serde_json::Value>) -> Result<(), ReadError>;

    /// The next records, at most `max_rows` and roughly `max_bytes`; waits up to `wait` for
    /// the first and returns empty when none came. Cancel-safe: a dropped call loses nothing.
    async fn read(
        &mut self,
        max_rows: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<RecordBatchIn, ReadError>;

    /// The position after everything that `read` has returned.
    fn position(&self) -> serde_json::Value;

    /// Records known to lie after the position (an estimate is fine).
    fn backlog(&self) -> u64;
}
