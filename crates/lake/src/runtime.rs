//! Where queries run, and when.
//!
//! A query waits for its turn among those of its owner (`turns`) and runs on threads of its own
//! (`lanes`). All of it happens there: parsing, planning, computing, and letting go of the plan,
//! for which only those threads have the stack. What a caller holds are the ends of channels,
//! so that a deadline is kept whatever the query does.
//!
//! On a simulated disk queries run where their caller runs: a seed replays the order of
//! operations only when one thread does them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use levada_core::{Problem, QuotaOwner, Quotas};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use crate::answer;
use crate::lanes::{Lanes, Turn};
use crate::limits::{QueryPool, batch_bytes};
use crate::shape::Weight;
use crate::turns::Turns;
use crate::types::AsOf;
use crate::watch::{StopOnDrop, Watch};
use crate::widths::{self, BatchRows};

/// Batches that wait for the caller, besides the one that the query makes.
const READ_AHEAD: usize = 1;

/// See the module's description.
pub(crate) struct QueryRuntime {
    lanes: Lanes,
    /// `None` where queries run in place.
    turns: Option<Turns>,
}

impl QueryRuntime {
    /// Queries run on `threads` each; `slots` of them run at the same time.
    pub fn new(threads: usize, slots: usize, quotas: Quotas) -> Self {
        Self { lanes: Lanes::new(threads), turns: Some(Turns::new(quotas, slots)) }
    }

    /// Queries run on the runtime of their caller, but for those that need a large stack.
    pub fn in_place() -> Self {
        Self { lanes: Lanes::new(1), turns: None }
    }

    /// Waits for the turn of a query of `owner`, at the longest until the query's deadline.
    /// Without an owner it is work of the server itself, which waits for nobody.
    ///
    /// # Errors
    /// `quota-exceeded`, or `overloaded` when the system gives no threads.
    pub async fn turn(
        &self,
        owner: Option<&QuotaOwner>,
        watch: &Watch,
        weight: Weight,
    ) -> Result<Turn, Problem> {
        let place = match (&self.turns, owner) {
            (Some(turns), Some(owner)) => Some(turns.enter(owner, watch.deadline()).await?),
            _ => None,
        };
        let is_calm = place.as_ref().is_some_and(|place| !place.is_first() || weight == Weight::Heavy);
        let in_place = self.turns.is_none() && weight == Weight::Plain;
        let lane = match in_place {
            true => None,
            false => Some((self.lanes.take(weight, is_calm)?, self.lanes.clone())),
        };
        Ok(Turn::new(lane, place))
    }
}

/// Waits for work of a query, at the longest until its deadline. The work ends with the wait.
///
/// # Errors
/// What the work answers, or `sql-timeout`.
pub(crate) async fn run<T, F>(turn: Turn, watch: &Watch, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    match timeout_at(watch.deadline(), turn.spawn(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(answer::broken(&error)),
        Err(_) => Err(answer::timeout(watch.limit())),
    }
}

/// A query whose rows wait to be asked for.
pub(crate) struct Begun {
    pub rows: SendableRecordBatchStream,
    pub as_of: Vec<AsOf>,
    /// Where rows on their way to the caller are charged.
    pub pool: Arc<QueryPool>,
}

/// What is known of a query's answer before its rows.
pub(crate) struct Head {
    pub schema: SchemaRef,
    pub as_of: Vec<AsOf>,
    pub pool: Arc<QueryPool>,
}

/// Begins a query and lets it run; gives out what is known at the beginning, and the rows. `kept`
/// stays alive for as long as it runs. A query that meets rows too wide for batches of the usual
/// size begins once more with small ones, unless it has given out rows.
///
/// # Errors
/// What the query answers before its rows, or `sql-timeout`.
pub(crate) async fn stream<K, B, F>(
    turn: Turn,
    watch: &Watch,
    stop: StopOnDrop,
    begin: B,
    kept: K,
) -> Result<(Head, Rows), Problem>
where
    K: Send + 'static,
    B: Fn(BatchRows) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Begun, Problem>> + Send + 'static,
{
    let (batches, received) = mpsc::channel(READ_AHEAD);
    let (begun, head) = oneshot::channel();
    let (deadline, limit) = (watch.deadline(), watch.limit());
    let mut task = turn.spawn(async move {
        let _kept = kept;
        let Begun { rows, as_of, pool } = begin(BatchRows::Usual).await?;
        let head = Head { schema: rows.schema(), as_of, pool: Arc::clone(&pool) };
        if begun.send(head).is_err() {
            return Ok(());
        }
        // The caller keeps the deadline too; this gives the memory back when it sleeps.
        let sent = timeout_at(deadline, send_once_or_twice(begin, rows, batches, pool)).await;
        sent.unwrap_or_else(|_| Err(answer::timeout(limit)))
    });
    match timeout_at(deadline, head).await {
        Ok(Ok(head)) => Ok((head, Rows { _stop: stop, batches: received, task })),
        Ok(Err(_)) => Err(match (&mut task).await {
            Ok(Err(problem)) => problem,
            Ok(Ok(())) => answer::broken_off("it ended without an answer"),
            Err(error) => answer::broken(&error),
        }),
        Err(_) => Err(answer::timeout(limit)),
    }
}

/// Hands the rows out; begins again where rows are too wide and none has left.
async fn send_once_or_twice<B, F>(
    begin: B,
    mut rows: SendableRecordBatchStream,
    batches: mpsc::Sender<RecordBatch>,
    pool: Arc<QueryPool>,
) -> Result<(), Problem>
where
    B: Fn(BatchRows) -> F,
    F: Future<Output = Result<Begun, Problem>>,
{
    let first = match rows.next().await {
        None => return Ok(()),
        Some(Ok(first)) => Some(first),
        Some(Err(error)) if widths::is_too_wide(&error) => {
            drop(rows);
            rows = begin(BatchRows::Few).await?.rows;
            None
        }
        Some(Err(error)) => return Err(answer::problem(&error)),
    };
    send(first, rows, batches, pool).await
}

/// Hands the rows out. The batch that waits for the caller and the one before it are charged.
async fn send(
    mut first: Option<RecordBatch>,
    mut rows: SendableRecordBatchStream,
    batches: mpsc::Sender<RecordBatch>,
    pool: Arc<QueryPool>,
) -> Result<(), Problem> {
    let charge = pool.reservation("result");
    let mut before = 0;
    loop {
        let batch = match first.take() {
            Some(batch) => batch,
            None => match rows.next().await {
                Some(batch) => batch.map_err(|error| answer::problem(&error))?,
                None => return Ok(()),
            },
        };
        let bytes = batch_bytes(&batch);
        charge.try_resize(before + bytes).map_err(|error| answer::problem(&error))?;
        before = bytes;
        if batches.send(batch).await.is_err() {
            return Ok(());
        }
    }
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
