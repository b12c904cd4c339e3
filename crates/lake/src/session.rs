//! SQL for one caller.
//!
//! A session is a scope and nothing more: it costs nothing to make. Each query gets a
//! catalogue of what the scope shows, a pinned version of every table it names, a share
//! of the memory pool and a deadline. It is planned and run on the threads of queries;
//! what is here of it waits for them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{ParamValues, TableReference};
use datafusion::config::ConfigNonZeroUsize;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{DescribeTable, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::parser::Statement;

use levada_core::{Principal, Problem, QuotaOwner, TableName, TenantId, Zone};
use tokio::runtime::Handle;

use crate::answer;
use crate::catalog::{Catalogs, Relations, Visible};
use crate::engine::CATALOG;
use crate::guarded::{constant_bytes, guard_all};
use crate::lake::Lake;
use crate::lanes::Turn;
use crate::limits::{Limited, QueryPool};
use crate::output::QueryOutput;
use crate::pins::Pins;
use crate::purse::Purse;
use crate::runtime::{self, Begun, Head};
use crate::schema::sql_type;
use crate::scope::{Meaning, Scope, qualified};
use crate::semantics::SqlSettings;
use crate::types::{ColumnInfo, Description, Owner, Param, QueryLimits, TableInfo};
use crate::watch::{self, Watch};
use crate::widths::BatchRows;
use crate::windows::watch_windows;
use crate::{inlined, params, semantics, shape, statement, values};

/// Parameters of a query at most, as many as PostgreSQL's protocol can tell.
const MAX_PARAMS: usize = 65_535;

const INFORMATION_SCHEMA: &str = "information_schema";

/// SQL within what one principal may see. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct SqlSession {
    lake: Lake,
    scope: Arc<Scope>,
    relations: Arc<Relations>,
    settings: SqlSettings,
    /// Whose share its queries take; `None` for work of the server itself.
    owner: Option<Arc<QuotaOwner>>,
    /// Nothing but a SELECT passes: the session of a model.
    only_query: bool,
}

impl Lake {
    /// Opens a session for the principal, narrowed to one of its tenants if wished.
    ///
    /// # Errors
    /// `tenant-forbidden` when `narrowed` is outside the principal's set.
    pub fn session(&self, principal: &Principal, narrowed: Option<&TenantId>) -> Result<SqlSession, Problem> {
        let owner = Some(Arc::new(QuotaOwner::of(principal)));
        Ok(SqlSession { owner, ..self.session_of(Scope::of(principal, narrowed)?) })
    }

    pub(crate) fn session_of(&self, scope: Scope) -> SqlSession {
        SqlSession {
            lake: self.clone(),
            scope: Arc::new(scope),
            relations: Arc::default(),
            settings: SqlSettings::default(),
            owner: None,
            only_query: false,
        }
    }

    /// The session of a model of `owner`.
    pub(crate) fn model_session(&self, owner: &Owner) -> SqlSession {
        SqlSession { only_query: true, ..self.session_of(Scope::of_owner(owner)) }
    }

    /// Runs the query of a gold model of `owner`: it sees all zones of that tenant, or,
    /// for [`Owner::Shared`], every tenant's rows of the shared tables.
    ///
    /// # Errors
    /// What the query answers; `sql-row-limit` when the result has more rows than
    /// [`crate::LakeConfig::model_limits`] allow.
    pub async fn execute_model(&self, sql: &str, owner: &Owner) -> Result<Vec<RecordBatch>, Problem> {
        let limits = self.config().model_limits;
        let session = self.model_session(owner);
        let output = session.query(sql, Vec::new(), limits).await?;
        let truncation = output.truncation();
        let batches = output.collect().await?;
        match truncation.is_truncated() {
            true => Err(Problem::new(
                422,
                "sql-row-limit",
                format!("the model has more than {} rows", limits.max_rows),
            )),
            false => Ok(batches),
        }
    }

    /// The columns of a model's result, without running it.
    ///
    /// # Errors
    /// What the query answers.
    pub async fn describe_model(&self, sql: &str, owner: &Owner) -> Result<SchemaRef, Problem> {
        let session = self.model_session(owner);
        Ok(session.describe(sql).await?.schema)
    }
}

/// A statement that was checked and planned.
pub(crate) struct Planned {
    pub state: SessionState,
    pub plan: LogicalPlan,
    pub purse: Purse,
}

impl SqlSession {
    /// Adds a relation of constant rows, for instance a stub of `pg_catalog`. A zone's
    /// own tables cannot be replaced: zones are refused.
    ///
    /// # Errors
    /// `sql-invalid` when `schema` is a zone or the rows do not make a table.
    pub fn add_relation(&mut self, schema: &str, name: &str, rows: RecordBatch) -> Result<(), Problem> {
        if schema.parse::<Zone>().is_ok() || schema == INFORMATION_SCHEMA {
            return Err(Problem::new(400, "sql-invalid", format!("schema `{schema}` is the lake's own")));
        }
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|e| answer::problem(&e))?;
        let table: Arc<dyn TableProvider> = Arc::new(table);
        let relations = Arc::make_mut(&mut self.relations);
        relations.entry(schema.to_owned()).or_default().insert(name.to_owned(), table);
        Ok(())
    }

    /// The session with other settings than the defaults.
    #[must_use]
    pub fn with_settings(self, settings: SqlSettings) -> Self {
        Self { settings, ..self }
    }

    /// The versions that one query of this session reads. They are loaded on the caller's runtime.
    pub(crate) fn pins(&self) -> Arc<Pins> {
        Arc::new(Pins::new(self.lake.clone(), Handle::current()))
    }

    fn visible(&self, pins: Arc<Pins>) -> Arc<Visible> {
        Arc::new(Visible {
            scope: Arc::clone(&self.scope),
            relations: Arc::clone(&self.relations),
            pins,
            path: self.settings.search_path.clone(),
        })
    }

    /// The tables that this session may read, in the order of their names.
    pub fn tables(&self) -> Vec<TableInfo> {
        let lake = &self.lake;
        let mut found = Vec::new();
        let mut catalogs = vec![CATALOG.to_owned()];
        catalogs.extend(self.scope.tenant_catalogs(lake));
        let mut seen = BTreeSet::new();
        for catalog in &catalogs {
            for zone in &self.scope.zones {
                for name in self.scope.names(lake, catalog, *zone) {
                    let name = TableName::new(*zone, name);
                    let shown = if catalog == CATALOG { name.to_string() } else { qualified(catalog, &name) };
                    let Some(info) = self.info(catalog, &name, shown) else { continue };
                    if seen.insert((info.tenant.clone(), name)) {
                        found.push(info);
                    }
                }
            }
        }
        found
    }

    fn info(&self, catalog: &str, name: &TableName, shown: String) -> Option<TableInfo> {
        let (schema, tenant, description) = match self.scope.resolve(&self.lake, catalog, name) {
            Meaning::Table(slot, _) => {
                let spec = slot.spec();
                (Arc::clone(&spec.schema), spec.owner.tenant().cloned(), spec.description.clone())
            }
            Meaning::Source(..) => (crate::bronze::table_schema(), None, None),
            Meaning::Ambiguous(_) | Meaning::Nothing => return None,
        };
        let columns = schema.fields().iter().map(|field| ColumnInfo {
            name: field.name().clone(),
            data_type: sql_type(field.data_type()),
            nullable: field.is_nullable(),
        });
        Some(TableInfo {
            name: shown,
            zone: name.zone.to_string(),
            table: name.name.to_string(),
            tenant,
            description,
            columns: columns.collect(),
        })
    }

    /// Types of the parameters and columns of the result, without running the query.
    ///
    /// # Errors
    /// As [`SqlSession::query`] before it runs.
    pub async fn describe(&self, sql: &str) -> Result<Description, Problem> {
        let (session, pins) = (self.clone(), self.pins());
        let limits = QueryLimits::default();
        let watch = Watch::new(limits.timeout);
        let turn = self.turn(sql, &watch).await?;
        let pool = self.pool(limits.memory_bytes)?;
        let sql = sql.to_owned();
        let described = async move {
            let planned = session.plan(&sql, pins, &pool).await?;
            let types = planned.plan.get_parameter_types().map_err(|e| answer::problem(&e))?;
            let count = count_params(&types)?;
            let params = (1..=count).map(|i| types.get(&format!("${i}")).cloned().flatten()).collect();
            let schema = match &planned.plan {
                LogicalPlan::DescribeTable(_) => describe_rows(&planned.plan)?.schema(),
                plan => Arc::new(plan.schema().as_arrow().clone()),
            };
            Ok(Description { params, schema })
        };
        runtime::run(turn, &watch, described).await
    }

    /// Waits until a query of this session may run.
    async fn turn(&self, sql: &str, watch: &Watch) -> Result<Turn, Problem> {
        let weight = shape::weigh(sql)?;
        self.lake.inner.runtime.turn(self.owner.as_deref(), watch, weight).await
    }

    fn pool(&self, memory_bytes: usize) -> Result<Arc<QueryPool>, Problem> {
        self.lake.inner.engine.pool(self.owner.as_deref(), memory_bytes)
    }

    /// Plans and starts a query.
    ///
    /// # Errors
    /// `sql-syntax`, `sql-not-allowed`, `sql-unknown-table`, `sql-ambiguous-table`,
    /// `sql-unknown-column`, `sql-invalid`, `sql-parameters`, `sql-timeout`, and others
    /// beginning with `sql-`; the stream may end with one too.
    pub async fn query(
        &self,
        sql: &str,
        params: Vec<Param>,
        limits: QueryLimits,
    ) -> Result<QueryOutput, Problem> {
        let watch = Watch::new(limits.timeout);
        let result = self.start(sql, params, limits, &watch).await;
        crate::metrics::query(if result.is_ok() { "started" } else { "refused" });
        result
    }

    async fn start(
        &self,
        sql: &str,
        params: Vec<Param>,
        limits: QueryLimits,
        watch: &Watch,
    ) -> Result<QueryOutput, Problem> {
        // The query ends with this call, or with the stream that the call comes to.
        let stop = watch.stop_on_drop();
        let pins = self.pins();
        let turn = self.turn(sql, watch).await?;
        let pool = self.pool(limits.memory_bytes)?;
        let (session, text, its_watch) = (self.clone(), sql.to_owned(), watch.clone());
        let begun = move |rows| {
            let (text, pool, watch) = (text.clone(), Arc::clone(&pool), its_watch.clone());
            session.clone().begin(text, params.clone(), pool, watch, Arc::clone(&pins), rows)
        };
        let (head, rows) = runtime::stream(turn, watch, stop, begun, self.clone()).await?;
        let truncated = Arc::new(AtomicBool::new(false));
        let limited = Limited::new(rows, watch.deadline(), limits, Arc::clone(&truncated));
        let Head { schema, as_of, pool } = head;
        Ok(QueryOutput { schema, stream: Box::pin(limited), as_of, truncated, pool })
    }

    /// What of a query runs among queries.
    async fn begin(
        self,
        sql: String,
        params: Vec<Param>,
        pool: Arc<QueryPool>,
        watch: Watch,
        pins: Arc<Pins>,
        batch_rows: BatchRows,
    ) -> Result<Begun, Problem> {
        let Planned { mut state, plan, purse } = self.plan(&sql, Arc::clone(&pins), &pool).await?;
        if matches!(plan, LogicalPlan::DescribeTable(_)) {
            let batch = describe_rows(&plan)?;
            let rows = RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]));
            return Ok(Begun { rows: Box::pin(rows), as_of: Vec::new(), pool });
        }
        let plan = bind(plan, params)?;
        purse.watch(&watch);
        let rows = self.execute(&mut state, &plan, &purse, &watch, batch_rows).await;
        Ok(Begun { rows: rows.map_err(|e| answer::problem(&e))?, as_of: pins.as_of(), pool })
    }

    async fn execute(
        &self,
        state: &mut SessionState,
        plan: &LogicalPlan,
        purse: &Purse,
        watch: &Watch,
        batch_rows: BatchRows,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let plan = guard_all(watch_windows(state.optimize(plan)?, watch, purse)?, purse)?;
        let value_bytes = if values::are_in(&plan)? { batch_rows.value_bytes() } else { 0 };
        let repeated = constant_bytes(&plan)?.saturating_add(value_bytes);
        let rows = ConfigNonZeroUsize::try_new(batch_rows.beside(repeated))?;
        state.config_mut().options_mut().execution.batch_size = rows;
        let physical = state.query_planner().create_physical_plan(&plan, state).await?;
        let installed = watch::install(physical, watch, purse, batch_rows)?;
        purse.planned();
        execute_stream(installed, self.lake.inner.engine.task(state, purse.pool()))
    }

    pub(crate) async fn plan(
        &self,
        sql: &str,
        pins: Arc<Pins>,
        pool: &Arc<QueryPool>,
    ) -> Result<Planned, Problem> {
        let parse = if self.only_query { statement::parse_query } else { statement::parse };
        let statement = parse(sql)?;
        let visible = self.visible(pins);
        let purse = Purse::new(Arc::clone(pool));
        let mut state =
            self.lake.inner.engine.planner(Arc::new(Catalogs(Arc::clone(&visible))), purse.clone());
        self.settings.apply(&mut state);
        set_time(&mut state, &self.lake);
        self.check_tables(&state, &statement, &visible)?;
        let plan = state.statement_to_plan(statement).await.map_err(|e| answer::problem(&e))?;
        let plan = semantics::settle(plan).map_err(|e| answer::problem(&e))?;
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| answer::not_allowed("this statement"))?;
        inlined::check(&plan)?;
        semantics::check_ambiguous(&plan)?;
        Ok(Planned { state, plan, purse })
    }

    /// Refuses names that mean nothing here before the engine does, with one answer for
    /// missing and hidden tables.
    fn check_tables(
        &self,
        state: &SessionState,
        statement: &Statement,
        visible: &Visible,
    ) -> Result<(), Problem> {
        let names = state.resolve_table_references(statement).map_err(|e| answer::problem(&e))?;
        for name in names {
            let resolved = name.clone().resolve(CATALOG, self.settings.default_schema());
            let (catalog, schema, table) = (&*resolved.catalog, &*resolved.schema, &*resolved.table);
            if schema == INFORMATION_SCHEMA || visible.knows(catalog, schema, table) {
                continue;
            }
            if is_function(&name) {
                continue;
            }
            if let Meaning::Ambiguous(owners) = visible.resolve(catalog, schema, table) {
                return Err(answer::ambiguous_table(&name.to_string(), &owners));
            }
            let known: Vec<String> = self.tables().into_iter().map(|table| table.name).collect();
            return Err(answer::unknown_table(&shown(&name), &known));
        }
        Ok(())
    }
}

/// Table functions appear among the names; the allow-list has already judged them.
fn is_function(name: &TableReference) -> bool {
    name.schema().is_none() && matches!(name.table(), "generate_series" | "range" | "unnest")
}

fn shown(name: &TableReference) -> String {
    let parts = [name.catalog(), name.schema(), Some(name.table())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(".")
}

/// Queries read the lake's clock, not the machine's.
pub(crate) fn set_time(state: &mut SessionState, lake: &Lake) {
    let options = Arc::clone(state.config_options());
    let props = state.execution_props_mut();
    props.mark_start_execution(options);
    props.query_execution_start_time = chrono::DateTime::from_timestamp_millis(lake.clock().now_ms());
}

/// The parameters of a query: as many as the largest number among them says.
fn count_params(types: &HashMap<String, Option<DataType>>) -> Result<usize, Problem> {
    let count = types.keys().filter_map(|name| position(name)).max().unwrap_or(0);
    match count <= MAX_PARAMS {
        true => Ok(count),
        false => Err(Problem::new(400, "sql-parameters", format!("there is no parameter ${count}")).hint(
            format!("a query has {MAX_PARAMS} parameters at most; they are written $1, $2, and so on"),
        )),
    }
}

fn position(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse().ok()
}

/// Puts the parameters in their places, cast to the types that the query wants.
fn bind(plan: LogicalPlan, params: Vec<Param>) -> Result<LogicalPlan, Problem> {
    let types = plan.get_parameter_types().map_err(|e| answer::problem(&e))?;
    let wanted = count_params(&types)?;
    if wanted != params.len() || types.keys().any(|name| position(name).is_none()) {
        return Err(Problem::new(
            400,
            "sql-parameters",
            format!("the query has {wanted} parameters and {} were given", params.len()),
        )
        .hint("parameters are written $1, $2, and so on"));
    }
    if params.is_empty() {
        return Ok(plan);
    }
    let mut values = Vec::with_capacity(params.len());
    for (i, param) in params.into_iter().enumerate() {
        let wanted = types.get(&format!("${}", i + 1)).cloned().flatten();
        values.push(params::value(param, wanted.as_ref()).map_err(|reason| {
            Problem::new(400, "sql-parameters", format!("parameter ${} {reason}", i + 1))
        })?);
    }
    plan.with_param_values(ParamValues::from(values)).map_err(|e| answer::problem(&e))
}

/// The answer to DESCRIBE.
fn describe_rows(plan: &LogicalPlan) -> Result<RecordBatch, Problem> {
    let LogicalPlan::DescribeTable(DescribeTable { schema, .. }) = plan else {
        return Err(answer::not_allowed("this statement"));
    };
    let column = |name| arrow::datatypes::Field::new(name, DataType::Utf8, false);
    let fields = schema.fields();
    let nullable = |yes| if yes { "YES" } else { "NO" };
    let rows = RecordBatch::try_new(
        Arc::new(arrow::datatypes::Schema::new(vec![
            column("column_name"),
            column("data_type"),
            column("is_nullable"),
        ])),
        vec![
            Arc::new(StringArray::from_iter_values(fields.iter().map(|f| f.name()))),
            Arc::new(StringArray::from_iter_values(fields.iter().map(|f| sql_type(f.data_type())))),
            Arc::new(StringArray::from_iter_values(fields.iter().map(|f| nullable(f.is_nullable())))),
        ],
    );
    rows.map_err(|error| answer::problem(&error.into()))
}
