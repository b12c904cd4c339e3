//! Plans of queries that are not run: what a check of a project asks for.
//!
//! A check opens a lake on a disk in memory, declares the tables and sources of the project
//! ([`Lake::ensure_table`] and [`Lake::declare_source`] do no IO) and lets the engine plan
//! every query to the end: names, types, and whether there is an operator for it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_core::Problem;

use crate::answer;
use crate::guarded::guard_all;
use crate::lake::Lake;
use crate::session::Planned;
use crate::shape;
use crate::stack::finish_on_large_stack;
use crate::types::Owner;

impl Lake {
    /// The columns of a model's result, planned as it would run. Nothing is read.
    ///
    /// # Errors
    /// As [`Lake::describe_model`], and what only shows when types are settled; with the place in
    /// the query where that is known.
    pub async fn rehearse_model(&self, sql: &str, owner: &Owner) -> Result<SchemaRef, Problem> {
        let weight = shape::weigh(sql)?;
        let session = self.model_session(owner);
        let (sql, pins) = (sql.to_owned(), session.pins());
        let pool = self.inner.engine.pool(None, self.config().model_limits.memory_bytes)?;
        finish_on_large_stack(weight, async move {
            let Planned { state, plan, purse, .. } = session.plan(&sql, pins, &pool).await?;
            let optimized = state.optimize(&plan).and_then(|plan| guard_all(plan, &purse));
            let optimized = optimized.map_err(|e| answer::problem(&e))?;
            let physical = state.query_planner().create_physical_plan(&optimized, &state).await;
            drop(physical.map_err(|e| answer::problem(&e))?);
            Ok(Arc::new(plan.schema().as_arrow().clone()))
        })
        .await
    }
}
