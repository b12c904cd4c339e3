//! Functions that pay for their results.
//!
//! [`guard_amplifiers`] comes with the last rules of analysis: from then on the optimiser
//! computes no large constant, and it meets `||` as a function. [`guard_all`] comes after the
//! optimiser, which knows functions by what they are, and guards the others. A guarded function
//! is the same function with the query's purse (see `purse`) asked before and after.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::resources_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping,
};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::amplify::{self, Bound, MATCHES};
use crate::constants;
use crate::limits::array_bytes;
use crate::operators::{Concat, Matches};
use crate::pace;
use crate::purse::Purse;

/// Results with a loose bound beyond this are computed in parts.
const PART_BYTES: u64 = 4 << 20;
/// Calls that may take longer, in steps of about a nanosecond, are computed in parts, between which
/// the query can end.
const PART_STEPS: u64 = 400_000_000;
/// One call may take so many.
const MAX_STEPS: u64 = 4_000_000_000;
/// Whoever computes with larger values does it calmly (see `pace`).
const BRISK_BYTES: usize = 1 << 20;

/// The rule of the engine's analysis that guards amplifiers.
#[derive(Debug)]
pub(crate) struct GuardAmplifiers;

impl AnalyzerRule for GuardAmplifiers {
    fn name(&self) -> &str {
        "guard_amplifiers"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        constants::refuse_large(&plan)?;
        match Purse::of(config) {
            Some(purse) => guard(plan, &purse, &|name| amplify::is_amplifier(name)),
            None => Ok(plan),
        }
    }
}

/// Guards what [`GuardAmplifiers`] left.
///
/// # Errors
/// When a plan cannot be rebuilt.
pub(crate) fn guard_all(plan: LogicalPlan, purse: &Purse) -> Result<LogicalPlan> {
    constants::refuse_large(&plan)?;
    guard(plan, purse, &|_| true)
}

fn guard(plan: LogicalPlan, purse: &Purse, chosen: &dyn Fn(&str) -> bool) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Explain(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let guarded = expr.transform_up(|expr| Ok(guard_expr(expr, purse, chosen)))?;
            Ok(guarded.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(guarded.data)
}

fn guard_expr(expr: Expr, purse: &Purse, chosen: &dyn Fn(&str) -> bool) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let is_free = func.inner().is::<Guarded>() || !chosen(func.name());
            let func = if is_free { func } else { guarded(&func, purse) };
            let expr = Expr::ScalarFunction(ScalarFunction { func, args });
            if is_free { Transformed::no(expr) } else { Transformed::yes(expr) }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let concat = ScalarUDF::new_from_impl(Concat::new());
            let (func, args) = (guarded(&concat, purse), vec![*left, *right]);
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if chosen(MATCHES) && Matches::is_for(op) => {
            let matches = ScalarUDF::new_from_impl(Matches::new(op));
            let (func, args) = (guarded(&matches, purse), vec![*left, *right]);
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    }
}

fn guarded(inner: &ScalarUDF, purse: &Purse) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Guarded { inner: inner.clone(), purse: purse.clone() }))
}

/// A function and the purse that it pays from. What the function is stays as it was.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: ScalarUDF,
    purse: Purse,
}

impl Guarded {
    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let result = self.inner.invoke_with_args(args)?;
        let bytes = match &result {
            ColumnarValue::Array(array) => array_bytes(array),
            // Whoever takes it may repeat it for each row.
            ColumnarValue::Scalar(scalar) => scalar_bytes(scalar).saturating_mul(rows.max(1)),
        };
        self.purse.charge(bytes)?;
        Ok(result)
    }

    /// Computes the rows in two halves, each of which is asked for by itself.
    fn halves(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let half = args.number_rows / 2;
        let first = self.invoke_with_args(part(args, 0, half))?.into_array(half)?;
        let rest = args.number_rows - half;
        let second = self.invoke_with_args(part(args, half, rest))?.into_array(rest)?;
        // For a moment there are the halves and the whole.
        let bytes = array_bytes(&first).saturating_add(array_bytes(&second));
        self.purse.charge(bytes)?;
        let joined: ArrayRef = concat(&[first.as_ref(), second.as_ref()])?;
        drop((first, second));
        self.purse.refund(bytes);
        Ok(ColumnarValue::Array(joined))
    }
}

fn part(args: &ScalarFunctionArgs, from: usize, rows: usize) -> ScalarFunctionArgs {
    let slice = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
        scalar => scalar.clone(),
    };
    ScalarFunctionArgs {
        args: args.args.iter().map(slice).collect(),
        arg_fields: args.arg_fields.clone(),
        number_rows: rows,
        return_field: FieldRef::clone(&args.return_field),
        config_options: Arc::clone(&args.config_options),
    }
}

/// Bytes of a constant, or of a value of a column on average.
fn value_bytes(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => scalar_bytes(scalar),
        ColumnarValue::Array(array) => array_bytes(array) / array.len().max(1),
    }
}

pub(crate) fn scalar_bytes(scalar: &ScalarValue) -> usize {
    match scalar {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => text.len(),
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => bytes.len(),
        ScalarValue::List(list) => array_bytes(&(Arc::clone(list) as ArrayRef)),
        ScalarValue::LargeList(list) => array_bytes(&(Arc::clone(list) as ArrayRef)),
        ScalarValue::Struct(row) => array_bytes(&(Arc::clone(row) as ArrayRef)),
        ScalarValue::Map(map) => array_bytes(&(Arc::clone(map) as ArrayRef)),
        _ => 16,
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.purse.check()?;
        let (name, rows) = (self.name(), args.number_rows);
        let is_divisible = rows > 1 && args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
        if let Some((longest, all)) = amplify::steps(name, &args.args, rows) {
            if longest > MAX_STEPS {
                return resources_err!(
                    "a call of {name} would take {longest} steps, and {MAX_STEPS} are allowed"
                );
            }
            if all > PART_STEPS && is_divisible && longest < all {
                return self.halves(&args);
            }
        }
        if let Some(Bound { bytes, largest, is_loose }) = amplify::bound(name, &args.args, rows) {
            if is_loose && bytes > PART_BYTES && is_divisible && largest < bytes {
                return self.halves(&args);
            }
            self.purse.expect(name, bytes, largest)?;
        }
        if args.args.iter().any(|arg| value_bytes(arg) > BRISK_BYTES) {
            pace::calm_down();
        }
        self.invoke(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let simplified = self.inner.simplify(args, info)?;
        let ExprSimplifyResult::Simplified(expr) = simplified else { return Ok(simplified) };
        let guarded = expr.transform_up(|expr| Ok(guard_expr(expr, &self.purse, &amplify::is_amplifier)))?;
        Ok(ExprSimplifyResult::Simplified(guarded.data))
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.inner().struct_field_mapping(literals)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }
}

/// Bytes of the constants of a plan that an operator may repeat for each row of a batch. Lists
/// of `IN` are not among them.
pub(crate) fn constant_bytes(plan: &LogicalPlan) -> Result<usize> {
    let mut bytes = 0_usize;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::InList(_) => return Ok(TreeNodeRecursion::Jump),
                    Expr::Literal(scalar, _) => bytes = bytes.saturating_add(scalar_bytes(scalar)),
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(bytes)
}
