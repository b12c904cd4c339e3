//! What a query gives its caller: columns, versions, and rows as they come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::{Stream, TryStreamExt};
use levada_core::Problem;

use crate::answer;
use crate::limits::{QueryPool, batch_bytes};
use crate::types::AsOf;

/// Batches of a result. Dropping it cancels the query.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, Problem>> + Send>>;

/// A running query.
pub struct QueryOutput {
    pub schema: SchemaRef,
    pub stream: BatchStream,
    /// The versions that the answer is made from.
    pub as_of: Vec<AsOf>,
    pub(crate) truncated: Arc<AtomicBool>,
    pub(crate) pool: Arc<QueryPool>,
}

impl fmt::Debug for QueryOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryOutput").field("schema", &self.schema).field("as_of", &self.as_of).finish()
    }
}

impl QueryOutput {
    /// Whether the row limit cut the result. True at the earliest when the stream has ended.
    pub fn truncated(&self) -> bool {
        self.truncated.load(Ordering::SeqCst)
    }

    /// The same, for a caller that gives the stream away.
    pub fn truncation(&self) -> Truncation {
        Truncation(Arc::clone(&self.truncated))
    }

    /// Reads the whole result. It counts towards the memory of the query.
    ///
    /// # Errors
    /// What the query answers; `sql-memory` where the result alone is more than it may hold.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, Problem> {
        let charge = self.pool.reservation("collected");
        let mut all = Vec::new();
        while let Some(batch) = self.stream.try_next().await? {
            charge.try_grow(batch_bytes(&batch)).map_err(|e| answer::problem(&e))?;
            all.push(batch);
        }
        Ok(all)
    }
}

/// Tells, after the end of a result, whether the row limit cut it.
#[derive(Debug, Clone)]
pub struct Truncation(Arc<AtomicBool>);

impl Truncation {
    pub fn is_truncated(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
