//! `date_part` and `extract`: seconds with their fraction, and the parts that the engine lacks.
//!
//! Whole parts are whole numbers, as they have always been here; PostgreSQL answers NUMERIC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float64Type, Int32Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDateTime};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::functions::datetime;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};

use super::function::{Function, by_rows, type_of};
use super::zone::{instant_type, local_type};

/// `date_part(part, time)`
pub(super) fn date_part() -> Arc<ScalarUDF> {
    Function::udf(
        "date_part",
        |types| {
            let [part, time] = types else { return plan_err!("date_part takes a part and a time") };
            let part = if part.is_string() { DataType::Utf8 } else { part.clone() };
            Ok(vec![
                part,
                match time {
                    DataType::Timestamp(_, None) => local_type(),
                    DataType::Timestamp(..) => instant_type(),
                    DataType::Null => local_type(),
                    DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
                    DataType::Interval(_) | DataType::Duration(_) => {
                        DataType::Interval(IntervalUnit::MonthDayNano)
                    }
                    of if of.is_string() => local_type(),
                    other => other.clone(),
                },
            ])
        },
        |args| match part_of(args)?.as_str() {
            "second" | "seconds" | "sec" | "secs" | "epoch" | "julian" => Ok(DataType::Float64),
            part if own(part).is_some() => Ok(DataType::Int32),
            _ => engine_type(args),
        },
        |args| {
            let part = match args.args.first() {
                Some(datafusion::logical_expr::ColumnarValue::Scalar(value)) => {
                    value.try_as_str().flatten().unwrap_or_default().to_ascii_lowercase()
                }
                _ => return exec_err!("the part of date_part must be a constant"),
            };
            match part.as_str() {
                "second" | "seconds" | "sec" | "secs" => by_rows(args, |arrays| seconds(&arrays[1])),
                "julian" => by_rows(args, |arrays| {
                    each::<Float64Type>(&arrays[1], |at| {
                        let whole = f64::from(at.num_days_from_ce()) + 1_721_425.0;
                        let rest = at.signed_duration_since(at.date().and_time(chrono::NaiveTime::MIN));
                        whole + rest.num_milliseconds() as f64 / 86_400_000.0
                    })
                }),
                part => match own(part) {
                    Some(compute) => by_rows(args, |arrays| each::<Int32Type>(&arrays[1], compute)),
                    None => engine(args),
                },
            }
        },
    )
}

fn engine(args: &ScalarFunctionArgs) -> Result<datafusion::logical_expr::ColumnarValue> {
    datetime::date_part().invoke_with_args(ScalarFunctionArgs {
        args: args.args.clone(),
        arg_fields: args.arg_fields.clone(),
        number_rows: args.number_rows,
        return_field: Arc::clone(&args.return_field),
        config_options: Arc::clone(&args.config_options),
    })
}

fn engine_type(args: &ReturnFieldArgs<'_>) -> Result<DataType> {
    let field = datetime::date_part().return_field_from_args(ReturnFieldArgs {
        arg_fields: args.arg_fields,
        scalar_arguments: args.scalar_arguments,
    })?;
    Ok(field.data_type().clone())
}

fn part_of(args: &ReturnFieldArgs<'_>) -> Result<String> {
    type_of(args, 1)?;
    match args.scalar_arguments.first().copied().flatten().and_then(|value| value.try_as_str().flatten()) {
        Some(part) => Ok(part.to_ascii_lowercase()),
        None => plan_err!("the part of date_part must be a constant"),
    }
}

/// Parts that the engine has not, or has otherwise.
fn own(part: &str) -> Option<fn(NaiveDateTime) -> i32> {
    Some(match part {
        "isodow" => |at| i32::try_from(at.weekday().number_from_monday()).unwrap_or(0),
        "decade" => |at| at.year().div_euclid(10),
        "century" => |at| if at.year() > 0 { (at.year() - 1) / 100 + 1 } else { at.year() / 100 - 1 },
        "millennium" => |at| if at.year() > 0 { (at.year() - 1) / 1000 + 1 } else { at.year() / 1000 - 1 },
        _ => return None,
    })
}

/// A number of each time; dates and timestamps have such parts.
fn each<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    compute: impl Fn(NaiveDateTime) -> T::Native,
) -> Result<ArrayRef> {
    let values = match values.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Arc::clone(values),
        DataType::Date32 | DataType::Date64 => cast(values, &local_type())?,
        other => return exec_err!("this part of {other} is not offered"),
    };
    let values = values.as_primitive::<TimestampMicrosecondType>();
    let mut out = PrimitiveArray::<T>::builder(values.len());
    for row in 0..values.len() {
        let at = DateTime::from_timestamp_micros(values.value(row)).filter(|_| values.is_valid(row));
        out.append_option(at.map(|at| compute(at.naive_utc())));
    }
    Ok(Arc::new(out.finish()))
}

/// Seconds of the minute, with their fraction.
fn seconds(values: &ArrayRef) -> Result<ArrayRef> {
    let of_micros = |micros: i64| micros.rem_euclid(60_000_000) as f64 / 1e6;
    let array: Float64Array = match values.data_type() {
        DataType::Timestamp(..) => values.as_primitive::<TimestampMicrosecondType>().unary(of_micros),
        DataType::Time64(_) => values.as_primitive::<Time64MicrosecondType>().unary(of_micros),
        DataType::Interval(_) => values
            .as_primitive::<IntervalMonthDayNanoType>()
            .unary(|interval| (interval.nanoseconds / 1000 % 60_000_000) as f64 / 1e6),
        DataType::Date32 | DataType::Date64 => Float64Array::from(vec![Some(0.0); values.len()]),
        other => return exec_err!("seconds of {other} are not offered"),
    };
    Ok(Arc::new(array))
}
