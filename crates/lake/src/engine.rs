//! What all queries share: functions, settings, the memory pool, the cache of file footers.

use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::common::config::{ConfigOptions, Dialect};
use datafusion::execution::TaskContext;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::context::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, SessionStateDefaults};
use levada_core::{OwnedMemory, Problem, QuotaOwner};

use crate::diskstore::DiskStore;
use crate::guarded::GuardAmplifiers;
use crate::limits::QueryPool;
use crate::purse::Purse;
use crate::semantics;
use crate::types::LakeConfig;

/// The catalogue that unqualified names belong to.
pub(crate) const CATALOG: &str = "levada";
/// The schema that bare table names belong to.
pub(crate) const DEFAULT_SCHEMA: &str = "gold";
/// Table functions that read nothing but their arguments.
const TABLE_FUNCTIONS: [&str; 2] = ["generate_series", "range"];

pub(crate) struct Engine {
    base: SessionState,
    /// The same with one partition and one place for a batch: a program's rows need no spreading.
    single: SessionState,
    runtime: Arc<RuntimeEnv>,
    memory: OwnedMemory,
}

/// The address under which the readers of Parquet files find the lake's store.
pub(crate) fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("levada://lake").expect("a constant that is an address")
}

impl Engine {
    pub fn new(config: &LakeConfig, store: DiskStore) -> Self {
        let limit = config.memory_bytes.min(config.memory.limit());
        let memory = OwnedMemory::new(&config.memory, "queries", limit, limit / 4 * 3);
        let disks = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disks)
            .with_cache_manager(CacheManagerConfig::default().with_metadata_cache_limit(limit / 16))
            .build_arc()
            .expect("without spill directories the environment needs nothing that can fail");
        runtime.register_object_store(store_url().as_ref(), Arc::new(store));
        let state = |partitions| {
            let builder = SessionStateBuilder::new()
                .with_config(SessionConfig::from(options(partitions)))
                .with_runtime_env(Arc::clone(&runtime))
                .with_default_features()
                .with_session_id("levada".to_owned());
            let mut state = semantics::prepare(builder).build();
            // Last, since what comes before puts functions in the place of operators.
            state.add_analyzer_rule(Arc::new(GuardAmplifiers));
            semantics::install(&mut state).expect("a session takes functions");
            for function in SessionStateDefaults::default_table_functions() {
                if !TABLE_FUNCTIONS.contains(&function.name()) {
                    drop(state.deregister_udtf(function.name()));
                }
            }
            state
        };
        let (base, single) = (state(config.query_partitions.max(1)), state(1));
        Self { base, single, runtime, memory }
    }

    /// A planner that sees `catalogs` and nothing else, whose functions pay from the purse.
    pub fn planner(&self, catalogs: Arc<dyn CatalogProviderList>, purse: Purse) -> SessionState {
        let mut state = self.base.clone();
        state.config_mut().options_mut().extensions.insert(purse);
        state.register_catalog_list(catalogs);
        state
    }

    /// The same for plans that run on one batch at a time.
    pub fn single_planner(&self, catalogs: Arc<dyn CatalogProviderList>, purse: Purse) -> SessionState {
        let mut state = self.single.clone();
        state.config_mut().options_mut().extensions.insert(purse);
        state.register_catalog_list(catalogs);
        state
    }

    /// The memory of one query of `owner`, at most `memory_bytes`. Work of the server itself has
    /// no owner.
    ///
    /// # Errors
    /// `memory-exhausted` when nothing at all is left.
    pub fn pool(&self, owner: Option<&QuotaOwner>, memory_bytes: usize) -> Result<Arc<QueryPool>, Problem> {
        let server = || QuotaOwner::Principal("the server".to_owned());
        QueryPool::new(&self.memory, &owner.cloned().unwrap_or_else(server), memory_bytes)
    }

    /// What a plan runs in.
    pub fn task(&self, state: &SessionState, pool: &Arc<QueryPool>) -> Arc<TaskContext> {
        let pool: Arc<dyn MemoryPool> = Arc::<QueryPool>::clone(pool);
        let runtime = RuntimeEnv { memory_pool: pool, ..(*self.runtime).clone() };
        Arc::new(TaskContext::from(state).with_runtime(Arc::new(runtime)))
    }

    #[cfg(test)]
    pub fn functions(&self) -> Vec<String> {
        self.base.scalar_functions().keys().cloned().collect()
    }

    #[cfg(test)]
    pub fn reserved_bytes(&self) -> usize {
        self.memory.share().used()
    }
}

fn options(partitions: usize) -> ConfigOptions {
    let mut options = ConfigOptions::new();
    options.catalog.create_default_catalog_and_schema = false;
    options.catalog.default_catalog = CATALOG.to_owned();
    options.catalog.default_schema = DEFAULT_SCHEMA.to_owned();
    options.catalog.information_schema = true;
    options.execution.target_partitions = partitions;
    // A plan shows its logic; the files behind a shared table are nobody's business.
    options.explain.logical_plan_only = true;
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    // The zone of instants in a plan. What a session shows and reads is its own.
    options.execution.time_zone = Some("UTC".to_owned());
    // Answers tell where in the query the fault lies.
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // It takes room for as many groups as LIMIT says, before there are any.
    options.optimizer.enable_topk_aggregation = false;
    options
}
