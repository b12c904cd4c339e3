//! A pipeline's SQL step: compiled once against the columns of its input, run per batch.
//!
//! The physical plan is made once; a run copies it with the batch in place of the input.
//! Only a query that asks for the time is planned anew for each run.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemorySchemaProvider, SchemaProvider, Session, TableProvider,
};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{internal_err, project_schema};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableType, Volatility};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, collect,
};
use futures::FutureExt;
use levada_core::Problem;
use tokio_util::task::AbortOnDropHandle;

use crate::answer;
use crate::engine::{CATALOG, DEFAULT_SCHEMA};
use crate::guarded::guard_all;
use crate::inlined;
use crate::lake::Lake;
use crate::lanes::Lane;
use crate::purse::Purse;
use crate::semantics;
use crate::session::set_time;
use crate::shape::{self, Weight};
use crate::stack::{drop_on_large_stack, on_large_stack, unbroken};
use crate::statement;
use crate::values;
use crate::widths::BatchRows;

/// The name under which the query finds its input.
pub const INPUT: &str = "input";
/// Queries with more levels run on a stack of their own: the caller's has 2 MiB, which is 64 KiB
/// a level.
const IN_PLACE_LEVELS: usize = 32;
/// What the runs of a program may hold beyond their batches.
const RUN_MEMORY_BYTES: usize = 256 << 20;

/// See the module's description. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    inner: Arc<Inner>,
}

struct Inner {
    lake: Lake,
    input: SchemaRef,
    schema: SchemaRef,
    weight: Weight,
    /// Threads with a large stack, where the query needs one. Others run where their caller runs.
    lane: Option<Lane>,
    /// `None` only while it is dropped.
    made: Option<Made>,
}

/// What a query was compiled to.
struct Made {
    state: SessionState,
    plan: LogicalPlan,
    /// Whether the query asks for the time.
    timed: bool,
    physical: Arc<dyn ExecutionPlan>,
    /// What all its runs may hold beyond their batches.
    purse: Purse,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.lane.is_some() {
            drop_on_large_stack(self.weight, self.made.take());
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} columns)", self.inner.schema.fields().len())
    }
}

impl Lake {
    /// Compiles a query over the table `input`, the only one it may name.
    ///
    /// # Errors
    /// `sql-not-allowed` for anything but a SELECT, otherwise as [`crate::SqlSession::query`].
    pub fn compile(&self, sql: &str, input: SchemaRef) -> Result<Program, Problem> {
        let weight = shape::weigh(sql)?;
        on_large_stack(weight, || self.compile_here(sql, input, weight))
    }

    fn compile_here(&self, sql: &str, input: SchemaRef, weight: Weight) -> Result<Program, Problem> {
        let statement = statement::parse_query(sql)?;
        let lane = match shape::of(&statement)?.levels > IN_PLACE_LEVELS {
            true => Some(Lane::new(1, weight).map_err(|e| answer::no_thread(&e))?),
            false => None,
        };
        let catalogs = Arc::new(InputCatalog::new(Arc::clone(&input)));
        let purse = Purse::new(self.inner.engine.pool(None, RUN_MEMORY_BYTES)?);
        let mut state = self.inner.engine.single_planner(catalogs, purse.clone());
        set_time(&mut state, self);
        for name in state.resolve_table_references(&statement).map_err(|e| answer::problem(&e))? {
            let is_input = name.schema().is_none() && name.table() == INPUT;
            let is_function =
                name.schema().is_none() && matches!(name.table(), "generate_series" | "range" | "unnest");
            if !is_input && !is_function {
                return Err(answer::unknown_table(&name.to_string(), &[INPUT.to_owned()]));
            }
        }
        // Planning is asynchronous only because a catalogue may be; this one answers at once.
        let planned = state.statement_to_plan(statement).now_or_never();
        let plan = planned.unwrap_or_else(|| internal_err!("the input's catalogue waited"));
        let plan = plan.and_then(semantics::settle).map_err(|e| answer::problem(&e))?;
        if !plan.get_parameter_types().map_err(|e| answer::problem(&e))?.is_empty() {
            return Err(Problem::new(400, "sql-parameters", "a pipeline's query has no parameters"));
        }
        inlined::check(&plan)?;
        let physical = physical_plan(&state, &plan, &purse).now_or_never();
        let physical = physical.unwrap_or_else(|| internal_err!("the input's catalogue waited"));
        let physical = physical.map_err(|e| answer::problem(&e))?;
        let timed = asks_time(&plan).map_err(|e| answer::problem(&e))?;
        let (lake, schema) = (self.clone(), physical.schema());
        purse.only_compare();
        let made = Some(Made { state, plan, timed, physical, purse });
        Ok(Program { inner: Arc::new(Inner { lake, input, schema, weight, lane, made }) })
    }
}

impl Program {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    /// Runs the query on one batch. No rows in, no rows out.
    ///
    /// # Errors
    /// `sql-input` when the batch has other columns than the program was compiled for;
    /// `sql-execution` when a value makes an expression fail.
    pub async fn run(&self, batch: RecordBatch) -> Result<Vec<RecordBatch>, Problem> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let inner = &*self.inner;
        let columns = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
        };
        if batch.schema_ref() != &inner.input && columns(batch.schema_ref()) != columns(&inner.input) {
            return Err(Problem::new(
                422,
                "sql-input",
                "the batch has other columns than the query was made for",
            ));
        }
        let run = unbroken(self.clone().execute(batch));
        match &inner.lane {
            None => run.await,
            Some(lane) => {
                let running = AbortOnDropHandle::new(lane.handle().spawn(run));
                running.await.unwrap_or_else(|error| Err(answer::broken(&error)))
            }
        }
    }

    async fn execute(self, batch: RecordBatch) -> Result<Vec<RecordBatch>, Problem> {
        self.collect(&batch).await.map_err(|error| answer::problem(&error))
    }

    async fn collect(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let lake = &self.inner.lake;
        let Some(made) = &self.inner.made else { return internal_err!("a program ran after its end") };
        let plan = match made.timed {
            false => Arc::clone(&made.physical),
            true => {
                let mut state = made.state.clone();
                set_time(&mut state, lake);
                physical_plan(&state, &made.plan, &made.purse).await?
            }
        };
        let task = lake.inner.engine.task(&made.state, made.purse.pool());
        collect(with_batch(plan, batch)?, task).await
    }
}

async fn physical_plan(
    state: &SessionState,
    plan: &LogicalPlan,
    purse: &Purse,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = guard_all(state.optimize(plan)?, purse)?;
    let physical = state.query_planner().create_physical_plan(&plan, state).await?;
    values::bound(physical, BatchRows::Given)
}

/// A copy of the plan that reads the batch.
fn with_batch(plan: Arc<dyn ExecutionPlan>, batch: &RecordBatch) -> Result<Arc<dyn ExecutionPlan>> {
    let placed = plan.transform_up(|node| match node.downcast_ref::<InputExec>() {
        Some(input) => Ok(Transformed::yes(Arc::new(input.with(batch)) as Arc<dyn ExecutionPlan>)),
        // Operators keep state (metrics, build sides), so every run has its own.
        None => Ok(Transformed::yes(node.reset_state()?)),
    })?;
    Ok(placed.data)
}

/// Whether the plan calls a function whose answer depends on when it is planned.
fn asks_time(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    found |= call.func.signature().volatility == Volatility::Stable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// A catalogue with the one table `input`, under its bare name.
#[derive(Debug)]
struct InputCatalog {
    schema: Arc<dyn SchemaProvider>,
}

impl InputCatalog {
    fn new(input: SchemaRef) -> Self {
        let schema = MemorySchemaProvider::new();
        let table = Arc::new(InputTable { schema: input });
        schema.register_table(INPUT.to_owned(), table).expect("an empty schema takes a table");
        Self { schema: Arc::new(schema) }
    }
}

impl CatalogProviderList for InputCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let catalog: Arc<dyn CatalogProvider> = Arc::new(InputCatalog { schema: Arc::clone(&self.schema) });
        (name == CATALOG).then_some(catalog)
    }
}

impl CatalogProvider for InputCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![DEFAULT_SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == DEFAULT_SCHEMA).then(|| Arc::clone(&self.schema))
    }
}

#[derive(Debug)]
struct InputTable {
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for InputTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(InputExec::try_new(&self.schema, projection.cloned())?))
    }
}

/// The place in a plan where the batch goes.
#[derive(Debug, Clone)]
struct InputExec {
    projection: Option<Vec<usize>>,
    batch: Option<RecordBatch>,
    properties: Arc<PlanProperties>,
}

impl InputExec {
    fn try_new(schema: &SchemaRef, projection: Option<Vec<usize>>) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(project_schema(schema, projection.as_ref())?),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { projection, batch: None, properties: Arc::new(properties) })
    }

    fn with(&self, batch: &RecordBatch) -> Self {
        Self { batch: Some(batch.clone()), ..self.clone() }
    }
}

impl DisplayAs for InputExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputExec")
    }
}

impl ExecutionPlan for InputExec {
    fn name(&self) -> &str {
        "InputExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(batch) = &self.batch else { return internal_err!("a program ran without its batch") };
        let batch = match &self.projection {
            Some(columns) => batch.project(columns)?,
            None => batch.clone(),
        };
        let schema = self.schema();
        // Nullability may differ from the schema that the plan was made for.
        let batch = RecordBatch::try_new_with_options(
            Arc::clone(&schema),
            batch.columns().to_vec(),
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        )?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)]))))
    }
}
