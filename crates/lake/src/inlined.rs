//! How large filters become when the optimiser moves them.
//!
//! A filter on a computed column moves below the computation, which takes its place in the
//! filter: `WHERE a > 0` above `SELECT a + a AS a` becomes `WHERE a + a > 0`. Twenty such queries
//! within each other make a million additions out of a few hundred bytes. So filters are
//! measured as if every column were replaced by what computes it.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan};
use levada_core::Problem;

use crate::answer;

/// Expressions of all filters of a plan together, with their columns replaced.
const MAX_EXPRESSIONS: u64 = 100_000;

/// # Errors
/// `sql-too-large`.
pub(crate) fn check(plan: &LogicalPlan) -> std::result::Result<(), Problem> {
    let mut filters = Filters { expressions: 0 };
    filters.columns(plan).map_err(|error| answer::problem(&error))?;
    match filters.expressions > MAX_EXPRESSIONS {
        true => {
            let what = format!("its filters come to more than {MAX_EXPRESSIONS} expressions");
            Err(answer::too_large(&what))
        }
        false => Ok(()),
    }
}

struct Filters {
    expressions: u64,
}

impl Filters {
    /// The size of what computes each column of a node.
    fn columns(&mut self, plan: &LogicalPlan) -> Result<Vec<u64>> {
        let inputs: Vec<Vec<u64>> =
            plan.inputs().into_iter().map(|input| self.columns(input)).collect::<Result<_>>()?;
        plan.apply_subqueries(|subquery| {
            self.columns(subquery)?;
            // Its own subqueries were looked at with it.
            Ok(TreeNodeRecursion::Jump)
        })?;
        let width = plan.schema().fields().len();
        let schema = |n: usize| plan.inputs().get(n).map(|input| input.schema().as_ref().clone());
        let first = || inputs.first().cloned().unwrap_or_default();
        let columns = match plan {
            LogicalPlan::Projection(projection) => {
                let (schema, columns) = (schema(0).unwrap_or_else(DFSchema::empty), first());
                projection.expr.iter().map(|expr| size(expr, &schema, &columns)).collect::<Result<_>>()?
            }
            LogicalPlan::Aggregate(aggregate) => {
                let (schema, columns) = (schema(0).unwrap_or_else(DFSchema::empty), first());
                let groups = aggregate.group_expr.iter().map(|expr| size(expr, &schema, &columns));
                groups.collect::<Result<_>>()?
            }
            LogicalPlan::Filter(filter) => {
                let columns = first();
                self.count(size(&filter.predicate, filter.input.schema(), &columns)?);
                columns
            }
            LogicalPlan::Join(join) => {
                let columns = joined(join, &inputs);
                let (sizes, schema) = (inputs.concat(), join.left.schema().join(join.right.schema())?);
                for expr in join.filter.iter().chain(join.on.iter().flat_map(|(left, right)| [left, right])) {
                    self.count(size(expr, &schema, &sizes)?);
                }
                columns
            }
            LogicalPlan::Union(_) => {
                let largest = |n: usize| inputs.iter().filter_map(|input| input.get(n)).max().copied();
                (0..width).map(|n| largest(n).unwrap_or(1)).collect()
            }
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Repartition(_) => first(),
            _ => Vec::new(),
        };
        Ok(resized(columns, width))
    }

    fn count(&mut self, expressions: u64) {
        self.expressions = self.expressions.saturating_add(expressions);
    }
}

/// Columns that nothing is known of count once.
fn resized(mut columns: Vec<u64>, width: usize) -> Vec<u64> {
    columns.resize(width, 1);
    columns
}

fn joined(join: &Join, inputs: &[Vec<u64>]) -> Vec<u64> {
    let input = |n: usize| inputs.get(n).cloned().unwrap_or_default();
    match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => input(0),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => input(1),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => inputs.concat(),
    }
}

/// The expressions within one, each column counted as what computes it.
fn size(expr: &Expr, schema: &DFSchema, columns: &[u64]) -> Result<u64> {
    let mut expressions = 0_u64;
    expr.apply(|part| {
        let one = match part {
            Expr::Column(column) => {
                let at = schema.maybe_index_of_column(column);
                at.and_then(|at| columns.get(at)).copied().unwrap_or(1)
            }
            _ => 1,
        };
        expressions = expressions.saturating_add(one);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(expressions)
}
