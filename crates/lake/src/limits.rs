//! Bounds of a query: memory, time, rows.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use futures::{Stream, StreamExt};
use levada_core::Problem;
use tokio::time::Instant;

use crate::answer;
use crate::runtime::Rows;
use crate::types::QueryLimits;

/// One query's share of the pool that all queries draw from.
#[derive(Debug)]
pub(crate) struct QueryPool {
    shared: Arc<dyn MemoryPool>,
    used: AtomicUsize,
    limit: usize,
}

impl QueryPool {
    pub fn new(shared: Arc<dyn MemoryPool>, limit: usize) -> Self {
        Self { shared, used: AtomicUsize::new(0), limit }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query pool ({} of {} bytes)", self.used.load(Ordering::Relaxed), self.limit)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let limit = self.limit;
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(additional).filter(|sum| *sum <= limit)
            })
            .map_err(|used| {
                resources_datafusion_err!(
                    "the query may hold {limit} bytes and wants {additional} more than its {used}"
                )
            })?;
        let shared = self.shared.try_grow(reservation, additional);
        if shared.is_err() {
            self.used.fetch_sub(additional, Ordering::Relaxed);
        }
        shared
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
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
