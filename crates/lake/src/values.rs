//! How large the values of subqueries are that an operator repeats.
//!
//! `(SELECT ...)` in the place of a value is computed once, and functions repeat it for each row
//! of a batch: a list of a megabyte would be gigabytes at once. Its size is not known before it is
//! there. So it is looked at on its way, as rows of joins are (see `widths`): a query with values
//! too large for batches of the usual size begins once more with batches of few rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};
use futures::StreamExt;

use crate::node::{Node, Operator};
use crate::widths::{BatchRows, row_bytes, too_wide};

/// Whether the plan repeats values of subqueries.
///
/// # Errors
/// None of its own; the engine's way through a plan may answer some.
pub(crate) fn are_in(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= matches!(expr, Expr::ScalarSubquery(_));
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// A copy of the plan in which all values of subqueries together have at most as many bytes as
/// batches of this size can bear.
///
/// # Errors
/// When a plan cannot be rebuilt.
pub(crate) fn bound(plan: Arc<dyn ExecutionPlan>, batch_rows: BatchRows) -> Result<Arc<dyn ExecutionPlan>> {
    let total = Arc::new(AtomicUsize::new(0));
    let bounded = plan.transform_up(|node| {
        if !node.is::<ScalarSubqueryExec>() {
            return Ok(Transformed::no(node));
        }
        let bounded = node.children().into_iter().enumerate().map(|(i, child)| {
            if i == 0 {
                // Its rows are the query's.
                return Arc::clone(child);
            }
            let properties = Arc::clone(child.properties());
            let operator = ValueExec { total: Arc::clone(&total), batch_rows };
            Arc::new(Node::new(operator, Arc::clone(child), properties)) as Arc<dyn ExecutionPlan>
        });
        let bounded = bounded.collect();
        Ok(Transformed::yes(replace_children_if_necessary(node, bounded)?))
    })?;
    Ok(bounded.data)
}

/// An operator whose one row is a value of a subquery.
#[derive(Debug, Clone)]
struct ValueExec {
    total: Arc<AtomicUsize>,
    batch_rows: BatchRows,
}

impl Operator for ValueExec {
    const NAME: &'static str = "ValueExec";

    fn run(
        &self,
        input: &dyn ExecutionPlan,
        _: &PlanProperties,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = input.execute(partition, context)?;
        let (schema, value) = (input.schema(), self.clone());
        let rows = input.map(move |batch| {
            let batch = batch?;
            let bytes = row_bytes(&batch);
            let total = value.total.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
            let allowed = value.batch_rows.value_bytes();
            match total <= allowed {
                true => Ok(batch),
                false => Err(too_wide(value.batch_rows, "the values of subqueries have", total, allowed)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
