//! Functions that pay for their results.
//!
//! [`guard_amplifiers`] comes with the last rules of analysis: from then on the optimiser
//! computes no large constant, and it meets `||` as a function. [`guard_all`] comes after the
//! optimiser, which knows functions by what they are, and guards the others. A guarded function
//! is the same function with the query's purse (see `purse`) asked before and after.

use std::sync::Arc;

use std::iter::repeat_n;

use arrow::array::{ArrayRef, AsArray, BooleanArray, LargeStringArray, StringArray, StringViewArray};
use arrow::compute::kernels::concat_elements::concat_elements_utf8;
use arrow::compute::kernels::regexp::{regexp_is_match, regexp_is_match_scalar};
use arrow::compute::{cast, concat, not};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{internal_err, plan_err, resources_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping, Volatility,
};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::amplify::{self, Bound, MATCHES};
use crate::limits::array_bytes;
use crate::pace;
use crate::purse::Purse;

/// Results with a loose bound beyond this are computed in parts.
const PART_BYTES: u64 = 4 << 20;
/// Calls that may take longer, in steps of about a nanosecond, are computed in parts, between which
/// the query can end.
const PART_STEPS: u64 = 400_000_000;
/// One call may take so many.
const MAX_STEPS: u64 = 4_000_000_000;
/// A value of a fixed size has at most so many bytes.
const MAX_TYPE_BYTES: u64 = 4 << 10;
const MAX_CENTROIDS: i64 = 10_000;
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
        refuse_large_constants(&plan)?;
        match Purse::of(config) {
            Some(purse) => guard(plan, &purse, &|name| amplify::is_amplifier(name)),
            None => Ok(plan),
        }
    }
}

/// Refuses constants by which the engine takes room in advance: types of which a single null is
/// large, such as `int[1000000]` and `FixedSizeBinary(1000000)`, and the centroids of
/// `approx_percentile_cont`.
fn refuse_large_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                refuse_wide_type(expr)?;
                refuse_many_centroids(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn refuse_wide_type(expr: &Expr) -> Result<()> {
    let wanted = match expr {
        Expr::Cast(cast) => Some(cast.field.data_type().clone()),
        Expr::TryCast(cast) => Some(cast.field.data_type().clone()),
        Expr::ScalarFunction(call) if call.func.name().starts_with("arrow_") => match call.args.get(1) {
            Some(Expr::Literal(text, _)) => text.try_as_str().flatten().and_then(|text| text.parse().ok()),
            _ => None,
        },
        _ => None,
    };
    match wanted {
        Some(wanted) if fixed_bytes(&wanted) > MAX_TYPE_BYTES => plan_err!(
            "a value of type {wanted} has {} bytes, and {MAX_TYPE_BYTES} are allowed",
            fixed_bytes(&wanted)
        ),
        _ => Ok(()),
    }
}

fn refuse_many_centroids(expr: &Expr) -> Result<()> {
    let (name, args) = match expr {
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
        _ => return Ok(()),
    };
    if !name.starts_with("approx_percentile") {
        return Ok(());
    }
    for arg in args {
        let Expr::Literal(value, _) = arg else { continue };
        if let Ok(ScalarValue::Int64(Some(count))) = value.cast_to(&DataType::Int64)
            && count > MAX_CENTROIDS
        {
            return plan_err!("{name} with {count} centroids, and {MAX_CENTROIDS} are allowed");
        }
    }
    Ok(())
}

/// Bytes of any value of a type, be it null.
fn fixed_bytes(of: &DataType) -> u64 {
    match of {
        DataType::FixedSizeBinary(bytes) => u64::try_from(*bytes).unwrap_or(0),
        DataType::FixedSizeList(element, count) => {
            fixed_bytes(element.data_type()).max(1).saturating_mul(u64::try_from(*count).unwrap_or(0))
        }
        DataType::Struct(fields) => fields.iter().map(|field| fixed_bytes(field.data_type())).sum(),
        DataType::List(element) | DataType::LargeList(element) | DataType::Map(element, _) => {
            fixed_bytes(element.data_type())
        }
        DataType::Dictionary(_, values) => fixed_bytes(values),
        other => other.primitive_width().unwrap_or(16) as u64,
    }
}

/// Guards what [`GuardAmplifiers`] left.
///
/// # Errors
/// When a plan cannot be rebuilt.
pub(crate) fn guard_all(plan: LogicalPlan, purse: &Purse) -> Result<LogicalPlan> {
    refuse_large_constants(&plan)?;
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
        let joined: ArrayRef = concat(&[first.as_ref(), second.as_ref()])?;
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

/// The operator `||` of two texts, whose types are settled.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
}

impl Concat {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "string_concat"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return internal_err!("|| has two operands") };
        Ok(format!("{} || {}", left.schema_name(), right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let [left, right] = arg_types else { return internal_err!("|| has two operands") };
        let wider = [DataType::Utf8View, DataType::LargeUtf8].into_iter().find(|t| left == t || right == t);
        Ok(wider.unwrap_or(DataType::Utf8))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else { return internal_err!("|| has two operands") };
        let wanted = args.return_field.data_type();
        let is_constant = [left, right].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let text = |arg: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, wanted)?) };
        let joined = join(&text(left)?, &text(right)?)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?)),
            false => Ok(ColumnarValue::Array(joined)),
        }
    }
}

/// The operators `~`, `~*`, `!~` and `!~*` on two texts. The engine's own keep a compiled pattern
/// for each row, and ask nobody.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Matches {
    op: Operator,
    signature: Signature,
}

impl Matches {
    fn is_for(op: Operator) -> bool {
        use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
        matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
    }

    fn new(op: Operator) -> Self {
        Self { op, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Matches {
    fn name(&self) -> &str {
        MATCHES
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return internal_err!("{} has two operands", self.op) };
        Ok(format!("{} {} {}", left.schema_name(), self.op, right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text, pattern] = &args.args[..] else { return internal_err!("{} has two operands", self.op) };
        let is_constant = [text, pattern].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let column =
            |arg: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, &DataType::Utf8)?) };
        let flags = matches!(self.op, Operator::RegexIMatch | Operator::RegexNotIMatch).then_some("i");
        let texts = column(text)?;
        let texts = texts.as_string::<i32>();
        let found = match pattern {
            ColumnarValue::Scalar(scalar) => match scalar.try_as_str() {
                Some(Some(pattern)) => regexp_is_match_scalar(texts, pattern, flags)?,
                _ => BooleanArray::new_null(rows),
            },
            ColumnarValue::Array(_) => {
                let patterns = column(pattern)?;
                let flags = flags.map(|flags| StringArray::from_iter_values(repeat_n(flags, rows)));
                regexp_is_match(texts, patterns.as_string::<i32>(), flags.as_ref())?
            }
        };
        let found = match self.op {
            Operator::RegexNotMatch | Operator::RegexNotIMatch => not(&found)?,
            _ => found,
        };
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(found))),
        }
    }
}

/// The texts of two columns of one type, one after the other; null where one of them is.
fn join(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    fn pairs<'a>(
        left: impl Iterator<Item = Option<&'a str>>,
        right: impl Iterator<Item = Option<&'a str>>,
    ) -> impl Iterator<Item = Option<String>> {
        left.zip(right).map(|(l, r)| Some([l?, r?].concat()))
    }
    Ok(match left.data_type() {
        DataType::Utf8 => {
            let (l, r) = (left.as_string::<i32>(), right.as_string::<i32>());
            Arc::new(concat_elements_utf8(l, r)?) as ArrayRef
        }
        DataType::LargeUtf8 => {
            let (l, r) = (left.as_string::<i64>(), right.as_string::<i64>());
            Arc::new(pairs(l.iter(), r.iter()).collect::<LargeStringArray>())
        }
        DataType::Utf8View => {
            let (l, r) = (left.as_string_view(), right.as_string_view());
            Arc::new(pairs(l.iter(), r.iter()).collect::<StringViewArray>())
        }
        other => return plan_err!("|| is not for {other}"),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_keeps_its_name() {
        let name = Concat::new().schema_name(&[
            Expr::from(datafusion::common::Column::from_name("a")),
            datafusion::prelude::lit("b"),
        ]);
        assert_eq!(name.expect("a name"), "a || Utf8(\"b\")");
    }
}
