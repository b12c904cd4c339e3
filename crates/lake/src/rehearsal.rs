//! Plans of queries that are not run: what a check of a project asks for.
//!
//! A check opens a lake on a disk in memory, declares the tables and sources of the project
//! ([`Lake::ensure_table`] and [`Lake::declare_source`] do no IO) and lets the engine plan
//! every query to the end: names, types, and whether there is an operator for it.

use arrow::datatypes::SchemaRef;
use levada_core::Problem;
use tokio::runtime::Handle;

use crate::answer;
use crate::lake::Lake;
use crate::scope::Scope;
use crate::session::Planned;
use crate::statement;
use crate::types::Owner;

impl Lake {
    /// The columns of a model's result, planned as it would run. Nothing is read.
    ///
    /// # Errors
    /// As [`Lake::describe_model`], and what only shows when types are settled; with the place in
    /// the query where that is known.
    pub async fn rehearse_model(&self, sql: &str, owner: &Owner) -> Result<SchemaRef, Problem> {
        statement::parse_query(sql)?;
        let session = self.session_of(Scope::of_owner(owner));
        let Planned { state, plan, .. } = session.plan(sql, Handle::current()).await?;
        let optimized = state.optimize(&plan).map_err(|e| answer::problem(&e))?;
        state
            .query_planner()
            .create_physical_plan(&optimized, &state)
            .await
            .map_err(|e| answer::problem(&e))?;
        Ok(std::sync::Arc::new(plan.schema().as_arrow().clone()))
    }
}
