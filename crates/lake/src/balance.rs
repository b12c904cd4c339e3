//! Long lists that a program wrote (`a = 1 OR a = 2 OR ...`, `UNION ALL`), made no deeper than they
//! need to be: chains of operators for which the grouping does not matter become balanced trees.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, SetExpr, SetOperator, SetQuantifier, Value, ValueWithSpan, Values, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

/// Balances the long chains of a statement.
pub(crate) fn flatten(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => drop(inner.visit(&mut Balance)),
        Statement::Explain(explain) => flatten(&mut explain.statement),
        _ => {}
    }
}

/// Rebuilds left-deep chains of one operator as balanced trees. The operands keep their order.
struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), left, .. } = expr
            && matches!(&**left, Expr::BinaryOp { op: below, .. } if below == op)
        {
            let op = op.clone();
            let mut operands = Vec::new();
            let mut rest = std::mem::replace(expr, nothing());
            loop {
                match rest {
                    Expr::BinaryOp { left, op: below, right } if below == op => {
                        operands.push(*right);
                        rest = *left;
                    }
                    first => {
                        operands.push(first);
                        break;
                    }
                }
            }
            operands.reverse();
            let joined = balanced(operands, &|left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: op.clone(),
                right: Box::new(right),
            });
            *expr = joined.unwrap_or_else(nothing);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, .. } = &*query.body else {
            return ControlFlow::Continue(());
        };
        let quantifier = *set_quantifier;
        if !matches!(quantifier, SetQuantifier::All | SetQuantifier::None | SetQuantifier::Distinct) {
            return ControlFlow::Continue(());
        }
        let empty = SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: Vec::new() });
        let mut sides = Vec::new();
        let mut rest = std::mem::replace(&mut *query.body, empty);
        loop {
            match rest {
                SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right }
                    if set_quantifier == quantifier =>
                {
                    sides.push(*right);
                    rest = *left;
                }
                first => {
                    sides.push(first);
                    break;
                }
            }
        }
        sides.reverse();
        let union = |left, right| SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: quantifier,
            left: Box::new(left),
            right: Box::new(right),
        };
        if let Some(body) = balanced(sides, &union) {
            *query.body = body;
        }
        ControlFlow::Continue(())
    }
}

fn nothing() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}

/// Joins neighbours until one is left.
fn balanced<T>(mut operands: Vec<T>, join: &dyn Fn(T, T) -> T) -> Option<T> {
    while operands.len() > 1 {
        let mut halved = Vec::with_capacity(operands.len().div_ceil(2));
        let mut rest = operands.into_iter();
        while let Some(left) = rest.next() {
            halved.push(match rest.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        operands = halved;
    }
    operands.pop()
}
