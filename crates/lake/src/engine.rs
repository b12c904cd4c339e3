//! What all queries share: functions, settings, the memory pool, the cache of file footers.

use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::common::config::{ConfigOptions, Dialect};
use datafusion::execution::TaskContext;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::context::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, SessionStateDefaults};

use crate::diskstore::DiskStore;
use crate::limits::QueryPool;
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
    pool: Arc<dyn MemoryPool>,
}

/// The address under which the readers of Parquet files find the lake's store.
pub(crate) fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("levada://lake").expect("a constant that is an address")
}

impl Engine {
    pub fn new(config: &LakeConfig, store: DiskStore) -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(config.memory_bytes));
        let disks = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool))
            .with_disk_manager_builder(disks)
            .with_cache_manager(
                CacheManagerConfig::default().with_metadata_cache_limit(config.memory_bytes / 16),
            )
            .build_arc()
            .expect("without spill directories the environment needs nothing that can fail");
        runtime.register_object_store(store_url().as_ref(), Arc::new(store));
        let state = |partitions| {
            let mut state = SessionStateBuilder::new()
                .with_config(SessionConfig::from(options(partitions)))
                .with_runtime_env(Arc::clone(&runtime))
                .with_default_features()
                .with_session_id("levada".to_owned())
                .build();
            for function in SessionStateDefaults::default_table_functions() {
                if !TABLE_FUNCTIONS.contains(&function.name()) {
                    drop(state.deregister_udtf(function.name()));
                }
            }
            state
        };
        let (base, single) = (state(config.query_partitions.max(1)), state(1));
        Self { base, single, runtime, pool }
    }

    /// A planner that sees `catalogs` and nothing else.
    pub fn planner(&self, catalogs: Arc<dyn CatalogProviderList>) -> SessionState {
        let mut state = self.base.clone();
        state.register_catalog_list(catalogs);
        state
    }

    /// The same for plans that run on one batch at a time.
    pub fn single_planner(&self, catalogs: Arc<dyn CatalogProviderList>) -> SessionState {
        let mut state = self.single.clone();
        state.register_catalog_list(catalogs);
        state
    }

    /// What a plan runs in: a share of the pool of its own, at most `memory_bytes`.
    pub fn task(&self, state: &SessionState, memory_bytes: usize) -> Arc<TaskContext> {
        let pool = QueryPool::new(Arc::clone(&self.pool), memory_bytes);
        let runtime = RuntimeEnv { memory_pool: Arc::new(pool), ..(*self.runtime).clone() };
        Arc::new(TaskContext::from(state).with_runtime(Arc::new(runtime)))
    }

    #[cfg(test)]
    pub fn reserved_bytes(&self) -> usize {
        self.pool.reserved()
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
    // Answers tell where in the query the fault lies.
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options
}
