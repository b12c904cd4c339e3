//! `x NOT IN (SELECT ...)` as SQL means it: unknown where a null could be the match.
//!
//! The engine answers with an anti join that forgets the nulls in several shapes (a constant on
//! the left, a correlated subquery, one within OR). Before it sees them, they become existence
//! tests, which have no such corners:
//!
//! - `x NOT IN (S)` at the top of a filter: no row of S equals x, none of S is null, and x is not
//!   null unless S is empty.
//! - Elsewhere: false where a row equals x, null where a comparison is unknown, else true.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue, Spans};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not,
    when,
};

/// The name of the value in a rewritten subquery; no column of a user is called so.
const VALUE: &str = "__in_value";

/// Rewrites the filters of a plan and of its subqueries.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => {
            let schema = Arc::clone(filter.input.schema());
            let conjuncts = split_conjunction_owned(filter.predicate);
            let conjuncts: Vec<Expr> =
                conjuncts.into_iter().map(|expr| conjunct(expr, &schema)).collect::<Result<_>>()?;
            let predicate = conjunction(conjuncts).unwrap_or_else(|| lit(true));
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
        }
        plan => Ok(Transformed::no(plan)),
    })
    .map(|plan| plan.data)
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_)))).unwrap_or(false)
}

/// One part of a filter's conjunction, where unknown and false are the same.
fn conjunct(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match expr {
        Expr::InSubquery(test) if test.negated => absent(test, schema),
        Expr::InSubquery(test) => Ok(Expr::InSubquery(test)),
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(test) => {
                let negated = !test.negated;
                conjunct(Expr::InSubquery(InSubquery { negated, ..test }), schema)
            }
            inner => Ok(not(embedded(inner, schema, Unknown::Matters)?)),
        },
        other => embedded(other, schema, Unknown::IsFalse),
    }
}

/// Whether a test's unknown may be answered as false.
#[derive(Clone, Copy, PartialEq)]
enum Unknown {
    IsFalse,
    Matters,
}

fn embedded(expr: Expr, schema: &DFSchema, unknown: Unknown) -> Result<Expr> {
    if !has_subquery(&expr) {
        return Ok(expr);
    }
    match expr {
        Expr::InSubquery(test) if test.negated || unknown == Unknown::Matters => three_valued(test, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left = embedded(*left, schema, unknown)?;
            let right = embedded(*right, schema, unknown)?;
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::InSubquery(test) => Ok(Expr::InSubquery(test)),
        other => Ok(other
            .map_children(|child| Ok(Transformed::yes(embedded(child, schema, Unknown::Matters)?)))?
            .data),
    }
}

/// `x NOT IN (S)` where only true counts.
fn absent(test: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let rows = Rows::of(&test)?;
    let wanted = outer(*test.expr.clone(), schema)?;
    let equal = rows.exists(rows.value().eq(wanted.clone()))?;
    let may_be_null = test.expr.nullable(schema).unwrap_or(true);
    if !rows.is_nullable && !may_be_null {
        return Ok(not(equal));
    }
    if rows.is_correlated {
        return Ok(not(rows.exists(rows.value().eq(wanted).is_not_false())?));
    }
    let mut parts = vec![not(equal)];
    if rows.is_nullable {
        parts.push(rows.count_of(Some(rows.value().is_null()))?.eq(lit(0_i64)));
    }
    if may_be_null {
        parts.push(test.expr.is_not_null().or(rows.count_of(None)?.eq(lit(0_i64))));
    }
    Ok(conjunction(parts).unwrap_or_else(|| lit(true)))
}

/// `x [NOT] IN (S)` as true, false or null.
fn three_valued(test: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let rows = Rows::of(&test)?;
    let equal = rows.value().eq(outer(*test.expr.clone(), schema)?);
    let found = rows.exists(equal.clone())?;
    let unknown = rows.exists(equal.is_unknown())?;
    when(found, lit(!test.negated))
        .when(unknown, lit(ScalarValue::Boolean(None)))
        .otherwise(lit(test.negated))
}

/// The subquery of a test, with its one column under a name of its own.
struct Rows {
    plan: LogicalPlan,
    outer_ref_columns: Vec<Expr>,
    is_nullable: bool,
    is_correlated: bool,
}

impl Rows {
    fn of(test: &InSubquery) -> Result<Self> {
        let plan = test.subquery.subquery.as_ref().clone();
        let (qualifier, field) = plan.schema().qualified_field(0);
        let is_nullable = field.is_nullable();
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let plan = LogicalPlanBuilder::from(plan).project([column.alias(VALUE)])?.build()?;
        let outer_ref_columns = test.subquery.outer_ref_columns.clone();
        let is_correlated = !outer_ref_columns.is_empty();
        Ok(Self { plan, outer_ref_columns, is_nullable, is_correlated })
    }

    fn value(&self) -> Expr {
        Expr::Column(Column::new_unqualified(VALUE))
    }

    /// Whether a row passes the filter, which may name columns of the outer query.
    fn exists(&self, filter: Expr) -> Result<Expr> {
        let plan = LogicalPlanBuilder::from(self.plan.clone()).filter(filter)?.build()?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() };
        Ok(Expr::Exists(Exists::new(subquery, false)))
    }

    /// How many rows pass.
    fn count_of(&self, filter: Option<Expr>) -> Result<Expr> {
        let rows = LogicalPlanBuilder::from(self.plan.clone());
        let rows = match filter {
            Some(filter) => rows.filter(filter)?,
            None => rows,
        };
        let plan = rows.aggregate(Vec::<Expr>::new(), [count(lit(1_i64)).alias(VALUE)])?.build()?;
        let outer_ref_columns = self.outer_ref_columns.clone();
        Ok(Expr::ScalarSubquery(Subquery {
            subquery: Arc::new(plan),
            outer_ref_columns,
            spans: Spans::new(),
        }))
    }
}

/// An expression of the outer query, as its subquery names it.
fn outer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let named = expr.transform_up(|expr| match expr {
        Expr::Column(column) => {
            let field = schema.field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(named.data)
}
