//! Exact numbers: operators between decimals, whole numbers and floats, division, and casts to
//! NUMERIC without a scale.
//!
//! PostgreSQL keeps a scale with each value, a column of the engine one for all its values. A
//! quotient of constants has the digits that PostgreSQL gives it; one of columns has 16 behind
//! the point, or more where an operand has more.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Decimal128Array};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, i256,
};
use datafusion::common::{DFSchema, ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF, Union};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::function::{Function, by_rows, type_of};
use super::patterns;
use super::zone::local_type;

const DIGITS: u8 = 38;
/// Digits behind the point of a quotient of columns.
const QUOTIENT_SCALE: i8 = 16;
/// Digits behind the point where a float or a text becomes NUMERIC.
const FLOAT_SCALE: i8 = 15;

/// Plans operators whose operands mix kinds of numbers.
#[derive(Debug)]
pub(super) struct Numbers;

impl ExprPlanner for Numbers {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (raw.left.get_type(schema), raw.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(raw));
        };
        if mixes(&left, &right) && is_numeric_operator(&raw.op) {
            let RawBinaryExpr { op, left, right } = raw;
            let (left, right) = (as_float(left, schema)?, as_float(right, schema)?);
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        if let Some(shift) = day_shift(&raw, &left, &right) {
            return Ok(PlannerResult::Planned(shift));
        }
        if let Some(planned) = time_operator(&raw, &left, &right) {
            return Ok(PlannerResult::Original(planned));
        }
        let exact = left.is_decimal() || right.is_decimal();
        let whole = |of: &DataType| of.is_decimal() || of.is_integer();
        if raw.op == BinaryOperator::Divide && exact && whole(&left) && whole(&right) {
            if let (Some(a), Some(b)) = (constant(&raw.left), constant(&raw.right))
                && let Some(quotient) = constant_quotient(&a, &b)
            {
                return Ok(PlannerResult::Planned(Expr::Literal(quotient, None)));
            }
            let call = ScalarFunction::new_udf(divide(), vec![raw.left, raw.right]);
            return Ok(PlannerResult::Planned(Expr::ScalarFunction(call)));
        }
        Ok(PlannerResult::Original(raw))
    }
}

/// A date plus or minus a whole number of days.
fn day_shift(raw: &RawBinaryExpr, left: &DataType, right: &DataType) -> Option<Expr> {
    let (date, days, sign) = match (&raw.op, left, right) {
        (BinaryOperator::Plus, DataType::Date32, days) if days.is_integer() => (&raw.left, &raw.right, 1_i64),
        (BinaryOperator::Plus, days, DataType::Date32) if days.is_integer() => (&raw.right, &raw.left, 1),
        (BinaryOperator::Minus, DataType::Date32, days) if days.is_integer() => (&raw.left, &raw.right, -1),
        _ => return None,
    };
    let args = vec![date.clone(), days.clone(), Expr::Literal(ScalarValue::Int64(Some(sign)), None)];
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(shift_days(), args)))
}

/// Operators of times whose operands the engine takes otherwise: a date that an interval moves
/// becomes a timestamp, a text beside a timestamp may lack its seconds, and intervals compare by
/// their length, a month being 30 days.
fn time_operator(raw: &RawBinaryExpr, left: &DataType, right: &DataType) -> Option<RawBinaryExpr> {
    use BinaryOperator as B;
    let is_comparison = matches!(raw.op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq);
    let with_op = |left: Expr, right: Expr| Some(RawBinaryExpr { op: raw.op.clone(), left, right });
    match (left, right) {
        (DataType::Date32, DataType::Interval(_)) if matches!(raw.op, B::Plus | B::Minus) => {
            let date = Expr::Cast(Cast::new(Box::new(raw.left.clone()), local_type()));
            with_op(date, raw.right.clone())
        }
        (DataType::Interval(_), DataType::Date32) if matches!(raw.op, B::Plus) => {
            let date = Expr::Cast(Cast::new(Box::new(raw.right.clone()), local_type()));
            with_op(date, raw.left.clone())
        }
        (DataType::Interval(_), DataType::Interval(_)) if is_comparison => {
            let length = |expr: &Expr| {
                Expr::ScalarFunction(ScalarFunction::new_udf(length_of_interval(), vec![expr.clone()]))
            };
            with_op(length(&raw.left), length(&raw.right))
        }
        (DataType::Timestamp(..), _) if is_comparison => {
            with_op(raw.left.clone(), timed_literal(&raw.right)?)
        }
        (_, DataType::Timestamp(..)) if is_comparison => {
            with_op(timed_literal(&raw.left)?, raw.right.clone())
        }
        _ => None,
    }
}

fn timed_literal(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            Some(Expr::Literal(ScalarValue::Utf8(Some(patterns::with_seconds(text))), None))
        }
        _ => None,
    }
}

/// `length_of_interval(interval)`, in microseconds.
fn length_of_interval() -> Arc<ScalarUDF> {
    Function::udf(
        "length_of_interval",
        |_| Ok(vec![DataType::Interval(IntervalUnit::MonthDayNano)]),
        |_| Ok(DataType::Decimal128(DIGITS, 0)),
        |args| {
            by_rows(args, |arrays| {
                const DAY: i128 = 86_400_000_000;
                let intervals = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
                let lengths: Decimal128Array = intervals.unary(|interval| {
                    i128::from(interval.months) * 30 * DAY
                        + i128::from(interval.days) * DAY
                        + i128::from(interval.nanoseconds / 1000)
                });
                Ok(Arc::new(lengths.with_precision_and_scale(DIGITS, 0)?))
            })
        },
    )
}

/// `shift_days(date, days, sign)`
fn shift_days() -> Arc<ScalarUDF> {
    Function::udf(
        "shift_days",
        |_| Ok(vec![DataType::Date32, DataType::Int64, DataType::Int64]),
        |_| Ok(DataType::Date32),
        |args| {
            by_rows(args, |arrays| {
                let dates = arrays[0].as_primitive::<Date32Type>();
                let (days, signs) =
                    (arrays[1].as_primitive::<Int64Type>(), arrays[2].as_primitive::<Int64Type>());
                let mut out = Date32Array::builder(dates.len());
                for row in 0..dates.len() {
                    if dates.is_null(row) || days.is_null(row) {
                        out.append_null();
                        continue;
                    }
                    let moved = days.value(row).checked_mul(signs.value(row));
                    let moved = moved.and_then(|days| days.checked_add(dates.value(row).into()));
                    match moved.and_then(|days| i32::try_from(days).ok()) {
                        Some(days) => out.append_value(days),
                        None => return exec_err!("date out of range"),
                    }
                }
                Ok(Arc::new(out.finish()))
            })
        },
    )
}

fn is_numeric_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(
        op,
        B::Plus
            | B::Minus
            | B::Multiply
            | B::Divide
            | B::Modulo
            | B::Eq
            | B::NotEq
            | B::Lt
            | B::LtEq
            | B::Gt
            | B::GtEq
    )
}

fn mixes(left: &DataType, right: &DataType) -> bool {
    (left.is_decimal() && right.is_floating()) || (left.is_floating() && right.is_decimal())
}

/// A decimal beside a float is a float, as in PostgreSQL. A constant stays one, so that it can
/// be compared with what is known of a file.
fn as_float(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !expr.get_type(schema)?.is_decimal() {
        return Ok(expr);
    }
    match constant(&expr) {
        Some(value) => Ok(Expr::Literal(value.cast_to(&DataType::Float64)?, None)),
        None => Ok(Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))),
    }
}

/// Decimals beside floats in a list of values of which one is the result, or one is compared.
pub(super) fn agree(values: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let types: Vec<DataType> = values.iter().filter_map(|value| value.get_type(schema).ok()).collect();
    let mixed = types.len() == values.len()
        && types.iter().any(DataType::is_decimal)
        && types.iter().any(DataType::is_floating);
    match mixed {
        true => values.into_iter().map(|value| as_float(value, schema)).collect(),
        false => Ok(values),
    }
}

/// Decimals in one arm of a UNION and floats in another, in the same column, become floats.
pub(super) fn settle_union(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Union(union) = plan else { return Ok(plan) };
    let of =
        |arm: &LogicalPlan, i: usize| arm.schema().fields().get(i).map(|field| field.data_type().clone());
    let columns = union.schema.fields().len();
    let mixed: Vec<bool> = (0..columns)
        .map(|i| {
            let types: Vec<DataType> = union.inputs.iter().filter_map(|arm| of(arm, i)).collect();
            types.iter().any(DataType::is_decimal) && types.iter().any(DataType::is_floating)
        })
        .collect();
    if !mixed.contains(&true) {
        return Ok(LogicalPlan::Union(union));
    }
    let mut arms = Vec::with_capacity(union.inputs.len());
    for arm in union.inputs {
        let casts: Vec<Expr> = arm
            .schema()
            .iter()
            .enumerate()
            .map(|(i, (qualifier, field))| {
                let column = Expr::from((qualifier, field));
                match mixed.get(i) == Some(&true) && field.data_type().is_decimal() {
                    true => Expr::Cast(Cast::new(Box::new(column), DataType::Float64)).alias(field.name()),
                    false => column,
                }
            })
            .collect();
        arms.push(Arc::new(LogicalPlanBuilder::from(arm.as_ref().clone()).project(casts)?.build()?));
    }
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(arms)?))
}

/// The value of a literal, or of one that is cast.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()).ok(),
        Expr::Negative(inner) => constant(inner)?.arithmetic_negate().ok(),
        _ => None,
    }
}

/// Unscaled value and scale.
fn parts(value: &ScalarValue) -> Option<(i128, i8)> {
    match value {
        ScalarValue::Decimal128(Some(value), _, scale) => Some((*value, *scale)),
        ScalarValue::Int8(Some(value)) => Some((i128::from(*value), 0)),
        ScalarValue::Int16(Some(value)) => Some((i128::from(*value), 0)),
        ScalarValue::Int32(Some(value)) => Some((i128::from(*value), 0)),
        ScalarValue::Int64(Some(value)) => Some((i128::from(*value), 0)),
        _ => None,
    }
}

/// The quotient with PostgreSQL's digits; nothing where it has none or too many.
fn constant_quotient(left: &ScalarValue, right: &ScalarValue) -> Option<ScalarValue> {
    let ((a, a_scale), (b, b_scale)) = (parts(left)?, parts(right)?);
    if b == 0 || a_scale < 0 || b_scale < 0 {
        return None;
    }
    let scale = quotient_scale(a, a_scale, b, b_scale)?;
    let quotient = quotient(a, a_scale, b, b_scale, scale)?;
    let precision = u8::try_from(quotient.unsigned_abs().to_string().len()).ok()?;
    let precision = precision.max(scale.unsigned_abs()).max(1);
    (precision <= DIGITS).then_some(ScalarValue::Decimal128(Some(quotient), precision, scale))
}

/// PostgreSQL's choice: at least 16 significant digits, counted in groups of four, and no fewer
/// digits behind the point than either operand (`select_div_scale` of its numeric.c).
fn quotient_scale(a: i128, a_scale: i8, b: i128, b_scale: i8) -> Option<i8> {
    let (a_weight, a_first) = leading_group(a, a_scale);
    let (b_weight, b_first) = leading_group(b, b_scale);
    let weight = a_weight - b_weight - i32::from(a_first <= b_first);
    let scale = (16 - weight * 4).max(i32::from(a_scale)).max(i32::from(b_scale)).max(0);
    i8::try_from(scale).ok().filter(|scale| *scale <= 38)
}

/// The weight of a number's first group of four digits, in powers of 10,000, and the group.
fn leading_group(value: i128, scale: i8) -> (i32, u32) {
    if value == 0 {
        return (0, 0);
    }
    let digits = value.unsigned_abs().to_string();
    // The place of the first digit, in powers of ten.
    let place = i32::try_from(digits.len()).unwrap_or(0) - 1 - i32::from(scale);
    let weight = place.div_euclid(4);
    let width = usize::try_from(place.rem_euclid(4) + 1).unwrap_or(1);
    let padded = format!("{digits:0<width$}");
    (weight, padded[..width].parse().unwrap_or(0))
}

/// `a / b` at the scale, rounded half away from zero.
fn quotient(a: i128, a_scale: i8, b: i128, b_scale: i8, scale: i8) -> Option<i128> {
    let shift = i32::from(scale) + i32::from(b_scale) - i32::from(a_scale);
    let ten = i256::from_i128(10);
    let power = |by: i32| ten.checked_pow(u32::try_from(by).ok()?);
    let (a, b) = (i256::from_i128(a), i256::from_i128(b));
    let (a, b) = match shift >= 0 {
        true => (a.checked_mul(power(shift)?)?, b),
        false => (a, b.checked_mul(power(-shift)?)?),
    };
    let whole = a.checked_div(b)?;
    let rest = a.checked_rem(b)?;
    let magnitude = |value: i256| if value.is_negative() { value.checked_neg() } else { Some(value) };
    let half_or_more = magnitude(rest)?.checked_mul(i256::from_i128(2))? >= magnitude(b)?;
    let away = if a.is_negative() == b.is_negative() { 1 } else { -1 };
    let rounded = if half_or_more { whole.checked_add(i256::from_i128(away))? } else { whole };
    rounded.to_i128()
}

/// Division of decimals, or of a decimal and a whole number.
pub(super) fn divide() -> Arc<ScalarUDF> {
    Function::udf(
        "numeric_divide",
        |types| types.iter().map(as_decimal).collect(),
        |args| {
            let scale = scale_of(&type_of(args, 0)?).max(scale_of(&type_of(args, 1)?)).max(QUOTIENT_SCALE);
            Ok(DataType::Decimal128(DIGITS, scale))
        },
        |args| {
            let scale = scale_of(args.return_type());
            by_rows(args, |arrays| Ok(Arc::new(divide_arrays(&arrays[0], &arrays[1], scale)?)))
        },
    )
}

fn divide_arrays(left: &ArrayRef, right: &ArrayRef, scale: i8) -> Result<Decimal128Array> {
    let (a_scale, b_scale) = (scale_of(left.data_type()), scale_of(right.data_type()));
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let mut out = Vec::with_capacity(left.len());
    for row in 0..left.len() {
        if left.is_null(row) || right.is_null(row) {
            out.push(None);
            continue;
        }
        if right.value(row) == 0 {
            return exec_err!("division by zero");
        }
        match quotient(left.value(row), a_scale, right.value(row), b_scale, scale) {
            Some(value) if value.unsigned_abs() < 10u128.pow(u32::from(DIGITS)) => out.push(Some(value)),
            _ => return exec_err!("numeric out of range: a quotient has more than {DIGITS} digits"),
        }
    }
    Ok(Decimal128Array::from(out).with_precision_and_scale(DIGITS, scale)?)
}

fn scale_of(of: &DataType) -> i8 {
    match of {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// The decimal type that holds every value of a number's type.
fn as_decimal(of: &DataType) -> Result<DataType> {
    Ok(match of {
        DataType::Decimal128(..) => of.clone(),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(_, scale) => DataType::Decimal128(DIGITS, *scale),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16 => DataType::Decimal128(5, 0),
        DataType::Int32 | DataType::UInt32 => DataType::Decimal128(10, 0),
        DataType::Int64 | DataType::UInt64 | DataType::Null => DataType::Decimal128(20, 0),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            DataType::Decimal128(DIGITS, FLOAT_SCALE)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            DataType::Decimal128(DIGITS, FLOAT_SCALE)
        }
        other => return plan_err!("cannot cast type {other} to numeric"),
    })
}

/// `x::numeric`. The cast is the coercion of the one argument.
pub(super) fn cast_to_numeric() -> Arc<ScalarUDF> {
    Function::udf(
        "numeric",
        |types| types.iter().map(as_decimal).collect(),
        |args| type_of(args, 0),
        |args| match args.args.first() {
            Some(value) => Ok(value.clone()),
            None => exec_err!("numeric takes one argument"),
        },
    )
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DecimalType;

    use super::*;

    #[test]
    fn constants_divide_with_the_digits_of_postgresql() {
        let decimal = |value, precision, scale| ScalarValue::Decimal128(Some(value), precision, scale);
        for (left, right, expected) in [
            (decimal(10, 2, 1), ScalarValue::Int64(Some(3)), "0.33333333333333333333"),
            (ScalarValue::Int64(Some(10)), decimal(30, 2, 1), "3.3333333333333333"),
            (decimal(1, 1, 0), decimal(8, 1, 0), "0.12500000000000000000"),
            (decimal(-20, 2, 1), ScalarValue::Int64(Some(3)), "-0.66666666666666666667"),
            (decimal(1_000_000, 7, 0), decimal(7, 1, 0), "142857.142857142857"),
        ] {
            let quotient = constant_quotient(&left, &right).expect("a quotient");
            let ScalarValue::Decimal128(Some(value), _, scale) = quotient else { panic!("{quotient}") };
            let shown = Decimal128Type::format_decimal(value, 38, scale);
            assert_eq!(shown, expected, "{left} / {right}");
        }
    }
}
