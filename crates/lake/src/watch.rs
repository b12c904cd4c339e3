//! Stopping a query that computes without a pause.
//!
//! A query is stopped by dropping its streams, which takes effect only when the code that
//! computes returns to the scheduler. Some loops of the engine do not for a long time: a
//! join looks at all pairs of rows before it gives up that none of them matches. So every
//! plan carries a watch, and [`install`] puts it where such a loop comes by: into the
//! filter of a join, which is evaluated once a batch of pairs, and between an operator and
//! its input. When the time is over, or nobody waits for the answer any more, the next
//! look at the watch is an error, and the loop ends as it would with any error.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

use crate::answer;
use crate::limits::batch_bytes;
use crate::node::{Node, Operator};
use crate::pace;
use crate::purse::Purse;
use crate::values;
use crate::widths::{BatchRows, Widths};

/// See [`Watch::check_often`].
const CALLS: u32 = 64;

/// When a query has to end. Cheap to clone; all clones are one watch.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<State>);

#[derive(Debug)]
struct State {
    stopped: AtomicBool,
    /// When the query looked at the watch for the first time.
    computing: OnceLock<Instant>,
    deadline: Instant,
    limit: Duration,
}

impl Watch {
    /// A watch that begins now.
    pub fn new(limit: Duration) -> Self {
        let state = State {
            stopped: AtomicBool::new(false),
            computing: OnceLock::new(),
            deadline: Instant::now() + limit,
            limit,
        };
        Self(Arc::new(state))
    }

    pub fn deadline(&self) -> tokio::time::Instant {
        self.0.deadline.into()
    }

    /// The time that the query has.
    pub fn limit(&self) -> Duration {
        self.0.limit
    }

    /// Stops the query when what is returned is dropped.
    pub fn stop_on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    /// # Errors
    /// `sql-timeout` when the query has to end. Where it ends because nobody waits for it,
    /// nobody reads the error either.
    pub fn check(&self) -> Result<()> {
        let now = Instant::now();
        if now.saturating_duration_since(*self.0.computing.get_or_init(|| now)) > pace::BRISK {
            pace::calm_down();
        }
        match self.0.stopped.load(Ordering::Relaxed) || now >= self.0.deadline {
            true => Err(self.over()),
            false => Ok(()),
        }
    }

    /// The same for what is done so often that asking for the time would be felt: it is
    /// asked for once in a number of `calls`, which are counted here.
    ///
    /// # Errors
    /// As [`Watch::check`].
    pub fn check_often(&self, calls: &mut u32) -> Result<()> {
        *calls = calls.wrapping_add(1);
        match (calls.is_multiple_of(CALLS), self.0.stopped.load(Ordering::Relaxed)) {
            (true, _) => self.check(),
            (false, true) => Err(self.over()),
            (false, false) => Ok(()),
        }
    }

    fn over(&self) -> DataFusionError {
        DataFusionError::External(Box::new(answer::timeout(self.0.limit)))
    }
}

/// A watch is equal to itself only: what carries one belongs to one query.
impl PartialEq for Watch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Watch {}

impl Hash for Watch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// See [`Watch::stop_on_drop`].
#[derive(Debug)]
pub(crate) struct StopOnDrop(Watch);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// A copy of the plan that ends with the watch.
pub(crate) fn install(
    plan: Arc<dyn ExecutionPlan>,
    watch: &Watch,
    purse: &Purse,
    batch_rows: BatchRows,
) -> Result<Arc<dyn ExecutionPlan>> {
    let widths = Widths::of(&plan, batch_rows)?;
    let installed = values::bound(plan, batch_rows)?.transform_up(|node| {
        // The operator above was made for these properties and shall see no others.
        let properties = Arc::clone(node.properties());
        let input = with_watched_filter(with_charged_input(node, purse)?, watch, purse)?;
        let operator = WatchExec { watch: watch.clone(), purse: purse.clone(), widths };
        let watched = Node::new(operator, input, properties);
        Ok(Transformed::yes(Arc::new(watched) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(installed.data)
}

/// A window over whole partitions, whose input is charged: it keeps all of it and asks nobody.
fn with_charged_input(node: Arc<dyn ExecutionPlan>, purse: &Purse) -> Result<Arc<dyn ExecutionPlan>> {
    if !node.is::<WindowAggExec>() {
        return Ok(node);
    }
    let charged = node.children().into_iter().map(|input| {
        let properties = Arc::clone(input.properties());
        let operator = ChargeExec { purse: purse.clone() };
        Arc::new(Node::new(operator, Arc::clone(input), properties)) as Arc<dyn ExecutionPlan>
    });
    let charged = charged.collect();
    replace_children_if_necessary(node, charged)
}

/// An operator whose rows are charged until all of them are let go.
#[derive(Debug, Clone)]
struct ChargeExec {
    purse: Purse,
}

impl Operator for ChargeExec {
    const NAME: &'static str = "ChargeExec";

    fn run(
        &self,
        input: &dyn ExecutionPlan,
        _: &PlanProperties,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = input.execute(partition, context)?;
        let (schema, held) = (input.schema(), self.purse.pool().reservation("window"));
        let rows = input.map(move |batch| {
            let batch = batch?;
            // Once as it came, and once as a part of its partition.
            held.try_grow(batch_bytes(&batch).saturating_mul(2))?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// The join with its filter watched. The symmetric join is not among them, since it is for
/// endless inputs, nor is the piecewise merge join, which the engine's settings leave off.
fn with_watched_filter(
    node: Arc<dyn ExecutionPlan>,
    watch: &Watch,
    purse: &Purse,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let filter = filter_of_pairs(join.filter(), *join.join_type(), watch, purse);
        return Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let filter = filter_of_pairs(join.filter(), *join.join_type(), watch, purse);
        return join.builder().with_filter(filter).build_exec();
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let mut join = join.clone();
        join.filter = join.filter.map(|filter| watched_filter(&filter, watch, purse));
        return Ok(Arc::new(join));
    }
    Ok(node)
}

/// The filter of a join that goes through pairs of rows. One that gives them out meets the
/// watch with each batch and needs no filter for it; one that only marks which rows have a
/// match gets a filter that all pairs pass.
fn filter_of_pairs(
    filter: Option<&JoinFilter>,
    kind: JoinType,
    watch: &Watch,
    purse: &Purse,
) -> Option<JoinFilter> {
    match (filter, kind) {
        (Some(filter), _) => Some(watched_filter(filter, watch, purse)),
        (None, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) => None,
        (None, _) => {
            let all = JoinFilter::new(lit(true), Vec::new(), Arc::new(Schema::empty()));
            Some(watched_filter(&all, watch, purse))
        }
    }
}

fn watched_filter(filter: &JoinFilter, watch: &Watch, purse: &Purse) -> JoinFilter {
    let watched =
        WatchExpr { inner: Arc::clone(filter.expression()), watch: watch.clone(), purse: purse.clone() };
    JoinFilter::new(Arc::new(watched), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that looks at the watch before it is evaluated.
#[derive(Debug)]
struct WatchExpr {
    inner: Arc<dyn PhysicalExpr>,
    watch: Watch,
    purse: Purse,
}

impl fmt::Display for WatchExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for WatchExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for WatchExpr {}

impl Hash for WatchExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for WatchExpr {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.watch.check()?;
        self.purse.pass();
        self.inner.evaluate(batch)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let Some(inner) = children.pop() else { return internal_err!("a watch without expression") };
        Ok(Arc::new(Self { inner, watch: self.watch.clone(), purse: self.purse.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

/// An operator whose rows are handed on only while the watch allows it, and while they fit the
/// query's memory. It does not count towards the turns of its task: a plan of more operators than
/// a task has turns would never come to its rows.
#[derive(Debug, Clone)]
struct WatchExec {
    watch: Watch,
    purse: Purse,
    widths: Widths,
}

impl Operator for WatchExec {
    const NAME: &'static str = "WatchExec";

    fn run(
        &self,
        input: &dyn ExecutionPlan,
        _: &PlanProperties,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.watch.check()?;
        let input = input.execute(partition, context)?;
        Ok(Box::pin(Watched { input, operator: self.clone(), ended: false }))
    }
}

struct Watched {
    input: SendableRecordBatchStream,
    operator: WatchExec,
    ended: bool,
}

impl Stream for Watched {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Err(error) = self.operator.watch.check() {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        self.operator.purse.pass();
        let polled = self.input.poll_next_unpin(cx);
        self.operator.purse.pass();
        if let Poll::Ready(Some(Ok(batch))) = &polled
            && let Err(error) = self.operator.widths.check(batch, self.operator.purse.limit())
        {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        polled
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
