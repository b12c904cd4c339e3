//! Functions of real numbers: they take every kind of number, answer a float, and fail where
//! PostgreSQL fails (a logarithm of zero, a root of a negative number, a result beyond the range).

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::functions::math;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::function::{Function, by_rows, type_of};

/// The engine's functions that are wrapped.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let engine = [
        math::sqrt(),
        math::cbrt(),
        math::ln(),
        math::log(),
        math::log2(),
        math::log10(),
        math::exp(),
        math::power(),
        math::sin(),
        math::cos(),
        math::tan(),
        math::cot(),
        math::asin(),
        math::acos(),
        math::atan(),
        math::atan2(),
        math::sinh(),
        math::cosh(),
        math::tanh(),
        math::asinh(),
        math::acosh(),
        math::atanh(),
        math::degrees(),
        math::radians(),
    ];
    let mut all: Vec<Arc<ScalarUDF>> = engine
        .into_iter()
        .map(|engine| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(Real { engine, signature }))
        })
        .collect();
    all.push(round());
    let sign = Signature::user_defined(Volatility::Immutable);
    let sign = ScalarUDF::new_from_impl(Real { engine: math::signum(), signature: sign });
    all.push(Arc::new(sign.with_aliases(["sign"])));
    all
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Real {
    engine: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Real {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.iter().find(|of| !(of.is_numeric() || of.is_null() || of.is_string())) {
            Some(other) => plan_err!("{} takes numbers, not {other}", self.name()),
            None if types.is_empty() || types.len() > 2 => {
                plan_err!("{} takes one number or two", self.name())
            }
            None => Ok(vec![DataType::Float64; types.len()]),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(types)?;
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = args.args.clone();
        let rows = args.number_rows;
        let result = self.engine.invoke_with_args(args)?;
        let values = result.to_array(rows)?;
        let Some(values) = values.as_primitive_opt::<Float64Type>() else { return Ok(result) };
        let is_unusual = |row: &usize| values.is_valid(*row) && !values.value(*row).is_finite();
        let unusual: Vec<usize> = (0..values.len()).filter(is_unusual).collect();
        if unusual.is_empty() {
            return Ok(result);
        }
        let inputs: Vec<_> = inputs.iter().map(|input| input.to_array(rows)).collect::<Result<_>>()?;
        let inputs: Vec<&Float64Array> =
            inputs.iter().filter_map(|input| input.as_primitive_opt::<Float64Type>()).collect();
        for row in unusual {
            let value = values.value(row);
            let mut given = inputs.iter().map(|input| input.value(row));
            if value.is_nan() && !given.clone().any(f64::is_nan) {
                return exec_err!("input is out of range: {} of {}", self.name(), listed(given));
            }
            if value.is_infinite() && given.all(f64::is_finite) {
                return exec_err!("value out of range: {}", self.name());
            }
        }
        Ok(result)
    }
}

fn listed(values: impl Iterator<Item = f64>) -> String {
    values.map(super::text::float_text).collect::<Vec<_>>().join(", ")
}

/// `round` of a float goes to the even neighbour where two are as near; other numbers and places
/// behind the point are the engine's.
fn round() -> Arc<ScalarUDF> {
    Function::udf(
        "round",
        |types| match types {
            [of] if of.is_floating() => Ok(vec![DataType::Float64]),
            [of] if of.is_integer() || of.is_null() => Ok(vec![DataType::Float64]),
            [of] if of.is_decimal() => Ok(types.to_vec()),
            [of, places] if places.is_integer() || places.is_null() => match of {
                of if of.is_decimal() => Ok(vec![of.clone(), DataType::Int32]),
                of if of.is_numeric() || of.is_null() => Ok(vec![DataType::Float64, DataType::Int32]),
                other => plan_err!("round takes a number, not {other}"),
            },
            _ => plan_err!("round takes a number and the places behind its point"),
        },
        |args| {
            let of = type_of(args, 0)?;
            match of {
                of if of.is_floating() => Ok(DataType::Float64),
                _ => {
                    let field =
                        math::round().return_field_from_args(datafusion::logical_expr::ReturnFieldArgs {
                            arg_fields: args.arg_fields,
                            scalar_arguments: args.scalar_arguments,
                        })?;
                    Ok(field.data_type().clone())
                }
            }
        },
        |args| match args.args.as_slice() {
            [_] if args.return_type() == &DataType::Float64 => by_rows(args, |arrays| {
                let values = arrays[0].as_primitive::<Float64Type>();
                Ok(Arc::new(values.unary::<_, Float64Type>(f64::round_ties_even)))
            }),
            _ => math::round().invoke_with_args(ScalarFunctionArgs {
                args: args.args.clone(),
                arg_fields: args.arg_fields.clone(),
                number_rows: args.number_rows,
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            }),
        },
    )
}
