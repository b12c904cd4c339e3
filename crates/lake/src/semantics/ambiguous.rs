//! Columns of which nobody can say whose they are.
//!
//! PostgreSQL refuses a name without a table that several tables have. The engine does too, with
//! two exceptions, in which it takes the first table's without a word: where the same expression
//! names the columns of both tables (`n = y.n and x.n = 5`), and where a query in FROM answers two
//! columns of one name, of which it gives the second another one (`n:1`).

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, OrderBy, OrderByKind, Query, Select, SelectItem, TableFactor,
    Visit, Visitor,
};
use levada_core::Problem;

/// # Errors
/// `sql-ambiguous-column`.
pub(super) fn check_select(select: &Select, order: Option<&OrderBy>) -> std::result::Result<(), Problem> {
    let Some(relations) = Relations::of(select) else { return Ok(()) };
    let mut names = Names::default();
    let _ = select.visit(&mut names);
    let mut input = Names::default();
    let _ = select.projection.visit(&mut input);
    let _ = select.from.visit(&mut input);
    let _ = select.selection.visit(&mut input);
    let _ = select.having.visit(&mut input);
    for expr in order.into_iter().flat_map(|order| ordered(&order.kind)) {
        let _ = expr.visit(&mut names);
        // By itself a name means a column of the output, and within an expression it does not.
        if !matches!(expr, Expr::Identifier(_)) {
            let _ = expr.visit(&mut input);
        }
    }
    let titles: HashSet<String> = select.projection.iter().filter_map(title).collect();
    for name in &names.bare {
        let is_output = titles.contains(name) && !input.bare.contains(name);
        let of = names.qualified.get(name).into_iter().flatten();
        if !is_output
            && !relations.merged.contains(name)
            && of.filter(|of| relations.names.contains(*of)).count() > 1
        {
            return Err(problem(name));
        }
    }
    Ok(())
}

/// # Errors
/// `sql-ambiguous-column`.
pub(crate) fn check_plan(plan: &LogicalPlan) -> std::result::Result<(), Problem> {
    let found = ambiguous(plan).map_err(|error| crate::answer::problem(&error))?;
    found.map_or(Ok(()), |name| Err(problem(&name)))
}

fn problem(name: &str) -> Problem {
    Problem::new(400, "sql-ambiguous-column", format!("column `{name}` is ambiguous"))
        .hint("put the table's name or alias before it; give columns of a subquery different names with AS")
}

fn ordered(kind: &OrderByKind) -> impl Iterator<Item = &Expr> {
    let exprs = match kind {
        OrderByKind::Expressions(exprs) => exprs.as_slice(),
        OrderByKind::All(_) => &[],
    };
    exprs.iter().map(|by| &by.expr)
}

/// What a SELECT with several relations may name.
struct Relations {
    names: HashSet<String>,
    /// Columns that USING makes one.
    merged: HashSet<String>,
}

impl Relations {
    /// `None` where nothing can be ambiguous, or NATURAL decides.
    fn of(select: &Select) -> Option<Self> {
        let mut relations = Self { names: HashSet::new(), merged: HashSet::new() };
        for from in &select.from {
            relations.names.extend(called(&from.relation));
            for join in &from.joins {
                relations.names.extend(called(&join.relation));
                match constraint(&join.join_operator) {
                    Some(JoinConstraint::Natural) => return None,
                    Some(JoinConstraint::Using(columns)) => relations
                        .merged
                        .extend(columns.iter().filter_map(|name| Some(plain(name.0.last()?.as_ident()?)))),
                    _ => {}
                }
            }
        }
        (relations.names.len() > 1).then_some(relations)
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// The name by which columns of a relation are told.
fn called(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. } => Some(plain(&alias.name)),
        TableFactor::Table { name, alias: None, .. } => name.0.last()?.as_ident().map(plain),
        _ => None,
    }
}

fn plain(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn title(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(plain(alias)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(plain),
        _ => None,
    }
}

/// The columns that expressions name, without those of subqueries.
#[derive(Default)]
struct Names {
    level: usize,
    bare: HashSet<String>,
    qualified: HashMap<String, HashSet<String>>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.level += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.level = self.level.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            _ if self.level > 0 => {}
            Expr::Identifier(name) => drop(self.bare.insert(plain(name))),
            Expr::CompoundIdentifier(parts) => {
                if let [.., relation, column] = parts.as_slice() {
                    self.qualified.entry(plain(column)).or_default().insert(plain(relation));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A column that stands for one of two of the same name in a subquery.
fn ambiguous(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut doubled: HashSet<(TableReference, String)> = HashSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::SubqueryAlias(alias) = node {
            let names: HashSet<&str> =
                alias.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let twice = names.iter().filter(|name| names.contains(second(name).as_str()));
            doubled.extend(twice.map(|name| (alias.alias.clone(), (*name).to_owned())));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if doubled.is_empty() {
        return Ok(None);
    }
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        let mut named: HashSet<Column> = HashSet::new();
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let PlanExpr::Column(column) | PlanExpr::OuterReferenceColumn(_, column) = expr {
                    named.insert(Column::new(column.relation.clone(), &column.name));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        found = named.iter().find_map(|column| {
            let relation = column.relation.clone()?;
            // A wildcard names both.
            let other = Column::new(Some(relation.clone()), second(&column.name));
            (doubled.contains(&(relation, column.name.clone())) && !named.contains(&other))
                .then(|| column.name.clone())
        });
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The name that the engine gives to the second column of a name.
fn second(name: &str) -> String {
    format!("{name}:1")
}
