//! Arithmetic that answers an error where a value leaves its type, as PostgreSQL does.
//!
//! The engine's operators wrap around at the end of an integer's range and answer infinity at
//! the end of a float's. After types are settled, this rule puts a checked function in the place
//! of each. Integers of 64 bits and floats are computed in loops that the compiler vectorises:
//! they gather one flag for a whole batch, and only a batch with the flag set is looked at again.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Float64Array, Int64Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
}

/// One operator as a function of two arguments, or of one for the minus sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Op,
    signature: Signature,
}

impl Checked {
    fn call(op: Op, args: Vec<Expr>) -> Expr {
        let signature = Signature::any(args.len(), Volatility::Immutable);
        let function = Arc::new(ScalarUDF::new_from_impl(Self { op, signature }));
        Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
    }

    fn sign(&self) -> &'static str {
        match self.op {
            Op::Add => "+",
            Op::Subtract | Op::Negate => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
        }
    }
}

/// Puts a checked function in the place of an operator whose operands have these types.
pub(super) fn checked(expr: Expr, type_of: impl Fn(&Expr) -> Result<DataType>) -> Result<(Expr, bool)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let Some(own) = operator(op) else {
                return Ok((Expr::BinaryExpr(BinaryExpr { left, op, right }), false));
            };
            let of = type_of(&left)?;
            let same = of == type_of(&right)?;
            let is_checked = of.is_floating() || (of.is_integer() && own != Op::Divide);
            match same && is_checked {
                true => Ok((Checked::call(own, vec![*left, *right]), true)),
                false => Ok((Expr::BinaryExpr(BinaryExpr { left, op, right }), false)),
            }
        }
        Expr::Negative(inner) => match type_of(&inner)? {
            of if of.is_integer() || of.is_floating() => Ok((Checked::call(Op::Negate, vec![*inner]), true)),
            _ => Ok((Expr::Negative(inner), false)),
        },
        other => Ok((other, false)),
    }
}

fn operator(op: Operator) -> Option<Op> {
    Some(match op {
        Operator::Plus => Op::Add,
        Operator::Minus => Op::Subtract,
        Operator::Multiply => Op::Multiply,
        Operator::Divide => Op::Divide,
        _ => return None,
    })
}

/// Whether an expression fails on values that a filter beside it may be there to keep away.
pub(super) fn divides(expr: &Expr) -> bool {
    let is_value = |expr: &Expr| match expr {
        Expr::Literal(value, _) => !value.is_null(),
        _ => false,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) => {
            !is_value(right)
        }
        Expr::ScalarFunction(call) => {
            let fails = ["checked_divide", "numeric_divide", "ln", "log", "sqrt", "mod"];
            fails.contains(&call.func.name()) && call.args.last().is_some_and(|last| !is_value(last))
        }
        _ => false,
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Op::Add => "checked_add",
            Op::Subtract => "checked_subtract",
            Op::Multiply => "checked_multiply",
            Op::Divide => "checked_divide",
            Op::Negate => "checked_negate",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("({left} {} {right})", self.sign()),
            [only] => format!("(- {only})"),
            _ => self.name().to_owned(),
        })
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{} {} {}", left.schema_name(), self.sign(), right.schema_name()),
            [only] => format!("(- {})", only.schema_name()),
            _ => self.name().to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(of) => Ok(of.clone()),
            None => internal_err!("an operator without operands"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.op, args.args.as_slice()) {
            (Op::Negate, [only]) => negate(only),
            (op, [left, right]) => apply(left, right, |left, right| compute(op, left, right)),
            _ => internal_err!("an operator without operands"),
        }
    }
}

/// The exponent of a float; all of it is set in what is not finite.
const EXPONENT: u64 = 0x7ff0_0000_0000_0000;

type ArrowResult<T> = std::result::Result<T, arrow::error::ArrowError>;

fn compute(op: Op, left: &dyn Datum, right: &dyn Datum) -> ArrowResult<ArrayRef> {
    match left.get().0.data_type() {
        DataType::Int64 => {
            let fast = match op {
                Op::Add => pairs::<Int64Type, i64>(left, right, |a, b| {
                    let sum = a.wrapping_add(b);
                    (sum, (a ^ sum) & (b ^ sum))
                }),
                Op::Subtract => pairs::<Int64Type, i64>(left, right, |a, b| {
                    let rest = a.wrapping_sub(b);
                    (rest, (a ^ b) & (a ^ rest))
                }),
                _ => pairs::<Int64Type, i64>(left, right, |a, b| {
                    let (product, over) = a.overflowing_mul(b);
                    (product, -i64::from(over))
                }),
            };
            match fast {
                (values, flags) if flags >= 0 => Ok(Arc::new(values)),
                // A value beneath a null may have set the flag: the slow way leaves those out.
                _ => slow(op, left, right),
            }
        }
        DataType::Float64 => floats(op, left, right),
        _ => slow(op, left, right),
    }
}

/// The engine's checked kernels, which look at every value.
fn slow(op: Op, left: &dyn Datum, right: &dyn Datum) -> ArrowResult<ArrayRef> {
    let of = left.get().0.data_type().clone();
    let result = match op {
        Op::Add => numeric::add(left, right),
        Op::Subtract => numeric::sub(left, right),
        Op::Multiply => numeric::mul(left, right),
        _ => numeric::div(left, right),
    };
    result.map_err(|error| match error {
        arrow::error::ArrowError::ArithmeticOverflow(_) => out_of_range(&of),
        other => other,
    })
}

fn out_of_range(of: &DataType) -> arrow::error::ArrowError {
    let name = match of {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Float32 | DataType::Float64 => "double precision",
        _ => "bigint",
    };
    arrow::error::ArrowError::ComputeError(format!("{name} out of range"))
}

/// All pairs, with the flags of all of them joined by "or". Values beneath nulls count too.
fn pairs<T, F>(
    left: &dyn Datum,
    right: &dyn Datum,
    run: impl Fn(T::Native, T::Native) -> (T::Native, F),
) -> (PrimitiveArray<T>, F)
where
    T: ArrowPrimitiveType,
    F: Default + Copy + std::ops::BitOrAssign,
{
    let ((left, left_is_one), (right, right_is_one)) = (left.get(), right.get());
    let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    let mut flags = F::default();
    let mut step = |a, b| {
        let (value, flag) = run(a, b);
        flags |= flag;
        value
    };
    let (values, nulls): (Vec<T::Native>, Option<NullBuffer>) = match (left_is_one, right_is_one) {
        (true, true) => {
            let nulls = NullBuffer::union(left.nulls(), right.nulls());
            (vec![step(left.value(0), right.value(0))], nulls)
        }
        (true, false) => {
            let a = left.value(0);
            let nulls = match left.is_null(0) {
                true => Some(NullBuffer::new_null(right.len())),
                false => right.nulls().cloned(),
            };
            (right.values().iter().map(|b| step(a, *b)).collect(), nulls)
        }
        (false, true) => {
            let b = right.value(0);
            let nulls = match right.is_null(0) {
                true => Some(NullBuffer::new_null(left.len())),
                false => left.nulls().cloned(),
            };
            (left.values().iter().map(|a| step(*a, b)).collect(), nulls)
        }
        (false, false) => {
            let nulls = NullBuffer::union(left.nulls(), right.nulls());
            (left.values().iter().zip(right.values()).map(|(a, b)| step(*a, *b)).collect(), nulls)
        }
    };
    (PrimitiveArray::new(values.into(), nulls), flags)
}

/// Floats: infinity out of finite values is an error, and so is a division by zero. A NaN is
/// made the one NaN that equals itself: processors give it a sign.
fn floats(op: Op, left: &dyn Datum, right: &dyn Datum) -> ArrowResult<ArrayRef> {
    let run = |a: f64, b: f64| {
        let value = match op {
            Op::Add => a + b,
            Op::Subtract => a - b,
            Op::Multiply => a * b,
            _ => a / b,
        };
        // As whole numbers, the flags of many rows are gathered at once.
        (value, u64::from(value.to_bits() & EXPONENT == EXPONENT))
    };
    let (values, unusual) = pairs::<Float64Type, u64>(left, right, run);
    if unusual == 0 {
        return Ok(Arc::new(values));
    }
    let ((left, left_is_one), (right, right_is_one)) = (left.get(), right.get());
    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
    let at = |array: &Float64Array, is_one: bool, row: usize| array.value(if is_one { 0 } else { row });
    let mut mended = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        let value = values.value(row);
        if values.is_null(row) || value.is_finite() {
            mended.push(value);
            continue;
        }
        let (a, b) = (at(left, left_is_one, row), at(right, right_is_one, row));
        if op == Op::Divide && b == 0.0 && !a.is_nan() {
            return Err(arrow::error::ArrowError::DivideByZero);
        }
        if value.is_infinite() && a.is_finite() && b.is_finite() {
            return Err(arrow::error::ArrowError::ComputeError("value out of range: overflow".to_owned()));
        }
        mended.push(if value.is_nan() { f64::NAN } else { value });
    }
    Ok(Arc::new(Float64Array::new(mended.into(), values.nulls().cloned())))
}

fn negate(value: &ColumnarValue) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Scalar(value) => {
            let array = value.to_array()?;
            let negated = negate_array(&array)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(negated.as_ref(), 0)?))
        }
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(negate_array(array)?)),
    }
}

fn negate_array(array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(values) = array.as_any().downcast_ref::<Int64Array>()
        && !values.values().contains(&i64::MIN)
    {
        return Ok(Arc::new(values.unary::<_, Int64Type>(i64::wrapping_neg)));
    }
    match numeric::neg(array.as_ref()) {
        Ok(negated) => Ok(negated),
        Err(arrow::error::ArrowError::ArithmeticOverflow(_)) => {
            exec_err!("{}", out_of_range(array.data_type()).to_string().trim_start_matches("Compute error: "))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(super) fn add(left: &dyn Datum, right: &dyn Datum) -> ArrowResult<ArrayRef> {
    compute(Op::Add, left, right)
}

#[cfg(test)]
pub(super) fn multiply(left: &dyn Datum, right: &dyn Datum) -> ArrowResult<ArrayRef> {
    compute(Op::Multiply, left, right)
}
