//! Where queries run: on threads of their own.
//!
//! A query computes for as long as it likes between two pauses, and there is no taking a
//! thread away from it. On the threads of the server it would keep connections, commits and
//! other queries from their turn; here it can only keep queries waiting. What a caller
//! holds are the ends of channels, so that a deadline is kept whatever the query does.
//!
//! On a simulated disk queries run where their caller runs: a seed replays the order of
//! operations only when one thread does them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use levada_core::Problem;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::answer;
use crate::watch::{StopOnDrop, Watch};

/// Batches that wait for the caller, besides the one that the query makes.
const READ_AHEAD: usize = 1;

/// See the module's description.
pub(crate) struct QueryRuntime {
    /// `None` where queries run in place.
    own: Option<Runtime>,
}

impl QueryRuntime {
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let own = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("levada-query")
            .enable_time()
            .build()?;
        Ok(Self { own: Some(own) })
    }

    /// Queries run on the runtime of their caller.
    pub fn in_place() -> Self {
        Self { own: None }
    }

    fn spawn<F>(&self, work: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let work = work.in_current_span();
        AbortOnDropHandle::new(match &self.own {
            Some(own) => own.spawn(work),
            None => Handle::current().spawn(work),
        })
    }

    /// Waits for work of a query, at the longest until its deadline. The work ends with the wait.
    ///
    /// # Errors
    /// What the work answers, or `sql-timeout`.
    pub async fn run<T, F>(&self, watch: &Watch, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        match timeout_at(watch.deadline(), self.spawn(work)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(answer::broken(&error)),
            Err(_) => Err(answer::timeout(watch.limit())),
        }
    }

    /// Lets a query run and gives out its rows. `kept` stays alive for as long as it runs.
    pub fn stream<K>(&self, rows: SendableRecordBatchStream, watch: &Watch, stop: StopOnDrop, kept: K) -> Rows
    where
        K: Send + 'static,
    {
        let (batches, received) = mpsc::channel(READ_AHEAD);
        let (deadline, limit) = (watch.deadline(), watch.limit());
        let task = self.spawn(async move {
            let _kept = kept;
            // The caller keeps the deadline too; this gives the memory back when it sleeps.
            let sent = timeout_at(deadline, send(rows, batches)).await;
            sent.unwrap_or_else(|_| Err(answer::timeout(limit)))
        });
        Rows { _stop: stop, batches: received, task }
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // The last handle of a lake may go anywhere, on a thread of this runtime too,
            // where waiting for a query would be waiting for oneself.
            own.shutdown_background();
        }
    }
}

async fn send(
    mut rows: SendableRecordBatchStream,
    batches: mpsc::Sender<RecordBatch>,
) -> Result<(), Problem> {
    while let Some(batch) = rows.next().await {
        if batches.send(batch.map_err(|error| answer::problem(&error))?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The caller's end of a running query. Dropping it ends the query, at its next look at the
/// watch if it comes to no pause before.
pub(crate) struct Rows {
    _stop: StopOnDrop,
    batches: mpsc::Receiver<RecordBatch>,
    /// Says how the query ended: a channel that closes might be one that panicked.
    task: AbortOnDropHandle<Result<(), Problem>>,
}

impl Stream for Rows {
    type Item = Result<RecordBatch, Problem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = ready!(self.batches.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(batch)));
        }
        Poll::Ready(match ready!(self.task.poll_unpin(cx)) {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(Err(problem)),
            Err(error) => Some(Err(answer::broken(&error))),
        })
    }
}
