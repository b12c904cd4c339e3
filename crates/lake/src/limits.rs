//! Bounds of a query: memory, time, rows.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use futures::{Stream, StreamExt};
use levada_core::{OwnedHold, OwnedMemory, Problem, QuotaOwner};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::answer;
use crate::runtime::Rows;
use crate::types::QueryLimits;

/// The memory of one query: a part of what its owner may hold, which is a part of what all
/// queries may, which is a part of what the process may.
#[derive(Debug)]
pub(crate) struct QueryPool {
    held: Mutex<Held>,
    limit: usize,
}

#[derive(Debug)]
struct Held {
    hold: OwnedHold,
    /// What operators took without asking, beyond the limit.
    beyond: usize,
}

impl Held {
    fn bytes(&self) -> usize {
        self.hold.bytes().saturating_add(self.beyond)
    }

    fn shrink(&mut self, bytes: usize) {
        let beyond = self.beyond.min(bytes);
        self.beyond -= beyond;
        let kept = self.hold.bytes().saturating_sub(bytes - beyond);
        self.hold.shrink_to(kept);
    }
}

impl QueryPool {
    /// At most `limit` bytes for one query of `owner`.
    ///
    /// # Errors
    /// `memory-exhausted` when nothing at all is left.
    pub fn new(memory: &OwnedMemory, owner: &QuotaOwner, limit: usize) -> Result<Arc<Self>, Problem> {
        let hold = memory.take(owner, 0)?;
        Ok(Arc::new(Self { held: Mutex::new(Held { hold, beyond: 0 }), limit }))
    }

    /// Bytes that the query may hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes `bytes` more, or none.
    ///
    /// # Errors
    /// Resources exhausted, with what is at its limit.
    pub fn take(&self, bytes: usize) -> Result<()> {
        let mut held = self.held.lock();
        let (used, limit) = (held.bytes(), self.limit);
        if used.checked_add(bytes).is_none_or(|sum| sum > limit) {
            return Err(resources_datafusion_err!(
                "the query may hold {limit} bytes and wants {bytes} more than its {used}"
            ));
        }
        held.hold.grow(bytes).map_err(|problem| resources_datafusion_err!("{}", problem.detail))
    }

    pub fn give_back(&self, bytes: usize) {
        self.held.lock().shrink(bytes);
    }

    /// Something in the query that is charged.
    pub fn reservation(self: &Arc<Self>, name: &str) -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = Arc::<Self>::clone(self);
        MemoryConsumer::new(name).register(&pool)
    }
}

/// Bytes of the rows of a batch, without those of its buffers that belong to other rows.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

/// The same for one column.
pub(crate) fn array_bytes(array: &ArrayRef) -> usize {
    let data = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_buffer_memory_size())
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query pool ({} of {} bytes)", self.reserved(), self.limit)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        let mut held = self.held.lock();
        if held.hold.grow(additional).is_err() {
            held.beyond = held.beyond.saturating_add(additional);
        }
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.give_back(shrink);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        self.take(additional)
    }

    fn reserved(&self) -> usize {
        self.held.lock().bytes()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

/// A stream that ends at the row limit and fails at the deadline. Dropping it cancels the query.
pub(crate) struct Limited {
    inner: Option<Rows>,
    deadline: Pin<Box<tokio::time::Sleep>>,
    limits: QueryLimits,
    rows_left: usize,
    truncated: Arc<AtomicBool>,
}

impl Limited {
    pub fn new(inner: Rows, deadline: Instant, limits: QueryLimits, truncated: Arc<AtomicBool>) -> Self {
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        Self { inner: Some(inner), deadline, limits, rows_left: limits.max_rows, truncated }
    }

    fn cut(&mut self, batch: RecordBatch) -> Option<RecordBatch> {
        if batch.num_rows() <= self.rows_left {
            self.rows_left -= batch.num_rows();
            return Some(batch);
        }
        self.truncated.store(true, Ordering::SeqCst);
        self.inner = None;
        let kept = std::mem::take(&mut self.rows_left);
        (kept > 0).then(|| batch.slice(0, kept))
    }
}

impl Stream for Limited {
    type Item = std::result::Result<RecordBatch, Problem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if this.deadline.as_mut().poll(cx).is_ready() {
            this.inner = None;
            return Poll::Ready(Some(Err(answer::timeout(this.limits.timeout))));
        }
        match inner.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.inner = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(this.cut(batch).map(Ok)),
            Poll::Ready(Some(Err(problem))) => {
                this.inner = None;
                Poll::Ready(Some(Err(problem)))
            }
        }
    }
}
