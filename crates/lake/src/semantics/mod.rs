//! SQL's meaning where it is not the engine's: this server promises PostgreSQL's answer, or an
//! error, and never another answer in silence. What differs all the same is listed in
//! `docs/sql-differences.md`.
//!
//! A statement passes four places here. [`settle_syntax`] rewrites the parsed tree (clauses that
//! the engine passes over, `AT TIME ZONE`, `SIMILAR TO`, literals). The planner asks [`numeric`]
//! about operators between kinds of numbers. [`settle`] rewrites the plan before its types are
//! known to the engine (`NOT IN`, lists that mix decimals and floats). The rule of [`settle`](
//! settle::Settle) comes last, when all types are known (overflow, casts, time zones).

mod aliases;
mod ambiguous;
mod arithmetic;
mod function;
mod math;
mod not_in;
mod numeric;
mod parts;
mod patterns;
mod settings;
mod settle;
mod similar;
mod sum;
mod syntax;
mod template;
mod text;
mod zone;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr::{Between, Case, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF};

pub(crate) use ambiguous::check_plan as check_ambiguous;
pub use settings::SqlSettings;
pub(crate) use syntax::settle_syntax;
pub use text::{duration_text, float_text, float_text_32, interval_text, timestamp_text};
pub use zone::TimeZone;

/// Adds what must be there before a state is built.
pub(crate) fn prepare(builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.with_analyzer_rule(Arc::new(settle::Settle::new()))
}

/// Puts functions of PostgreSQL's meaning in the place of the engine's of the same name.
///
/// # Errors
/// When the engine takes no functions, which it does.
pub(crate) fn install(state: &mut SessionState) -> Result<()> {
    for function in own_functions() {
        state.register_udf(function)?;
    }
    state.register_udaf(sum::sum())?;
    state.register_expr_planner(Arc::new(numeric::Numbers))
}

fn own_functions() -> Vec<Arc<ScalarUDF>> {
    let mut own =
        vec![zone::timezone(), similar::similar_to_escape(), numeric::cast_to_numeric(), parts::date_part()];
    own.extend(template::functions());
    own.extend(math::functions());
    // PostgreSQL's function removes every such element.
    let remove = datafusion::functions_nested::remove::array_remove_all_udf();
    own.push(Arc::new(remove.as_ref().clone().with_aliases([
        "array_remove",
        "list_remove",
        "list_remove_all",
    ])));
    own
}

/// Rewrites a plan that was just made, before the engine looks at its types.
///
/// # Errors
/// What the engine says of the parts.
pub(crate) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = not_in::settle(plan)?;
    let plan = plan.transform_up_with_subqueries(|plan| {
        let plan = numeric::settle_union(plan)?;
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let agreed = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let agreed = expr.transform_up(|expr| agree(expr, &schema))?;
            Ok(if agreed.transformed { agreed.update_data(|expr| name.restore(expr)) } else { agreed })
        })?;
        agreed.map_data(LogicalPlan::recompute_schema)
    });
    plan.map(|plan| plan.data)
}

/// Decimals beside floats become floats, as PostgreSQL resolves such lists.
fn agree(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Between(Between { expr, negated, low, high }) => {
            let parts = numeric::agree(vec![*expr, *low, *high], schema)?;
            let [expr, low, high] = <[Expr; 3]>::try_from(parts)
                .map_err(|_| datafusion::common::internal_datafusion_err!("a part of BETWEEN was lost"))?;
            Ok(Transformed::yes(Expr::Between(Between::new(
                Box::new(expr),
                negated,
                Box::new(low),
                Box::new(high),
            ))))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let parts = std::iter::once(*expr).chain(list).collect();
            let mut parts = numeric::agree(parts, schema)?.into_iter();
            match parts.next() {
                Some(expr) => {
                    Ok(Transformed::yes(Expr::InList(InList::new(Box::new(expr), parts.collect(), negated))))
                }
                None => datafusion::common::internal_err!("a part of IN was lost"),
            }
        }
        Expr::Case(case) => results_agree(case, schema),
        Expr::ScalarFunction(mut call)
            if matches!(
                call.func.name(),
                "coalesce" | "nullif" | "greatest" | "least" | "nvl" | "ifnull"
            ) =>
        {
            call.args = numeric::agree(call.args, schema)?;
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn results_agree(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Case { expr, when_then_expr, else_expr } = case;
    let (conditions, mut results): (Vec<_>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (when, *then)).unzip();
    let has_else = else_expr.is_some();
    results.extend(else_expr.map(|otherwise| *otherwise));
    let mut results = numeric::agree(results, schema)?;
    let else_expr = if has_else { results.pop().map(Box::new) } else { None };
    let when_then_expr = conditions.into_iter().zip(results.into_iter().map(Box::new)).collect();
    Ok(Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr })))
}
