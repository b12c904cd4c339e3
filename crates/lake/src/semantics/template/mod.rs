//! `to_char`, `to_timestamp`, `to_date` and `to_number` with the templates of PostgreSQL.
//!
//! A template with a `%` is one of strftime, which these functions took before and still take:
//! PostgreSQL's templates have no use for that letter.

mod number;
mod read;
mod time;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};

use super::function::{Function, by_rows, texts, type_of};
use super::zone::{self, TimeZone, instant_type, local_type};
use number::NumberTemplate;
use time::{Clock, Part};

/// All functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![to_char(), to_timestamp(), to_date(), to_number()]
}

/// `st`, `nd`, `rd` or `th` for a number.
fn ordinal_suffix(number: &str) -> &'static str {
    let digits = number.as_bytes();
    let is_teen = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    match digits.last() {
        Some(b'1') if !is_teen => "st",
        Some(b'2') if !is_teen => "nd",
        Some(b'3') if !is_teen => "rd",
        _ => "th",
    }
}

/// Runs with one template for all rows, or with the template of each row.
struct Templates<T> {
    texts: StringArray,
    last: Option<(String, T)>,
}

impl<T: Clone> Templates<T> {
    fn of(array: &ArrayRef) -> Result<Self> {
        Ok(Self { texts: texts(array)?, last: None })
    }

    fn at(&mut self, row: usize, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        if self.texts.is_null(row) {
            return Ok(None);
        }
        let text = self.texts.value(row);
        if let Some((known, template)) = &self.last
            && known == text
        {
            return Ok(Some(template.clone()));
        }
        match parse(text) {
            Ok(template) => {
                self.last = Some((text.to_owned(), template.clone()));
                Ok(Some(template))
            }
            Err(why) => exec_err!("{why}"),
        }
    }
}

/// Whether the template is one of strftime: it is one constant with a `%`.
fn is_strftime(value: Option<&ColumnarValue>) -> bool {
    match value {
        Some(ColumnarValue::Scalar(value)) => {
            value.try_as_str().flatten().is_some_and(|template| template.contains('%'))
        }
        _ => false,
    }
}

fn parse_time(template: &str) -> Result<Arc<Vec<Part>>, String> {
    time::parse(template).map(Arc::new)
}

fn to_char() -> Arc<ScalarUDF> {
    Function::udf(
        "to_char",
        |types| {
            let [value, _] = types else { return plan_err!("to_char takes a value and a template") };
            let value = match value {
                DataType::Timestamp(_, None) => local_type(),
                DataType::Timestamp(..) => instant_type(),
                DataType::Date32 | DataType::Date64 | DataType::Null => local_type(),
                of if of.is_integer() => DataType::Decimal128(20, 0),
                of if of.is_floating() => DataType::Float64,
                DataType::Decimal128(..) => value.clone(),
                of if of.is_string() => {
                    return plan_err!("to_char takes a number or a time, not a text: cast it first");
                }
                other => return plan_err!("to_char of {other} is not offered"),
            };
            Ok(vec![value, DataType::Utf8])
        },
        |_| Ok(DataType::Utf8),
        |args| {
            if is_strftime(args.args.get(1)) {
                return engine(&datetime::to_char(), args);
            }
            let zone = zone::of_session(&args.config_options);
            by_rows(args, |arrays| match arrays[0].data_type() {
                DataType::Timestamp(_, of) => times(&arrays[0], &arrays[1], of.is_some().then_some(zone)),
                _ => numbers(&arrays[0], &arrays[1]),
            })
        },
    )
}

/// The engine's function of the same name.
fn engine(function: &ScalarUDF, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    function.invoke_with_args(ScalarFunctionArgs {
        args: args.args.clone(),
        arg_fields: args.arg_fields.clone(),
        number_rows: args.number_rows,
        return_field: Arc::clone(&args.return_field),
        config_options: Arc::clone(&args.config_options),
    })
}

fn times(values: &ArrayRef, templates: &ArrayRef, zone: Option<TimeZone>) -> Result<ArrayRef> {
    let values = values.as_primitive::<TimestampMicrosecondType>();
    let mut templates = Templates::of(templates)?;
    let mut out = StringBuilder::new();
    for row in 0..values.len() {
        let Some(template) = templates.at(row, parse_time)?.filter(|_| values.is_valid(row)) else {
            out.append_null();
            continue;
        };
        let utc = DateTime::from_timestamp_micros(values.value(row)).map(|at| at.naive_utc());
        let clock = utc.and_then(|utc| match zone {
            Some(zone) => {
                let name = zone.abbreviation(utc).unwrap_or_else(|| zone.name());
                Some(Clock { at: zone.local(utc)?, zone: Some((zone.offset_s(utc), name)) })
            }
            None => Some(Clock { at: utc, zone: None }),
        });
        match clock {
            Some(clock) => out.append_value(time::format(&template, &clock)),
            None => return exec_err!("timestamp out of range"),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn numbers(values: &ArrayRef, templates: &ArrayRef) -> Result<ArrayRef> {
    let mut templates = Templates::of(templates)?;
    let mut out = StringBuilder::new();
    for row in 0..values.len() {
        let template = templates.at(row, |text| NumberTemplate::parse(text).map(Arc::new))?;
        let Some(template) = template.filter(|_| values.is_valid(row)) else {
            out.append_null();
            continue;
        };
        let digits = match values.data_type() {
            DataType::Float64 => {
                let value = values.as_primitive::<Float64Type>().value(row);
                if !value.is_finite() {
                    return exec_err!("to_char of {value} is not offered");
                }
                format!("{value:.*}", template.post)
            }
            DataType::Decimal128(_, scale) => {
                rounded(values.as_primitive::<Decimal128Type>().value(row), *scale, template.post)
            }
            other => return exec_err!("to_char of {other} is not offered"),
        };
        out.append_value(template.format(&digits));
    }
    Ok(Arc::new(out.finish()))
}

/// Decimal text with `post` digits behind the point, rounded half away from zero.
fn rounded(value: i128, scale: i8, post: usize) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let mut digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    if scale > post {
        let cut = scale - post;
        let unit = 10u128.checked_pow(u32::try_from(cut).unwrap_or(u32::MAX)).unwrap_or(u128::MAX);
        let size = value.unsigned_abs();
        let size = size / unit + u128::from(size % unit >= unit - size % unit);
        digits = format!("{size:0width$}", width = post + 1);
    } else {
        digits.push_str(&"0".repeat(post - scale));
    }
    let (whole, fraction) = digits.split_at(digits.len() - post);
    let is_zero = digits.bytes().all(|b| b == b'0');
    let sign = if value < 0 && !is_zero { "-" } else { "" };
    let point = if post > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// Types of `to_timestamp` and `to_date`: text and a template are ours, the rest the engine's.
fn text_and_template(types: &[DataType]) -> bool {
    matches!(types, [value, template] if value.is_string() && template.is_string())
}

fn to_timestamp() -> Arc<ScalarUDF> {
    Function::udf(
        "to_timestamp",
        |types| match types {
            [value, ..] if types.len() > 1 && value.is_string() => Ok(vec![DataType::Utf8; types.len()]),
            [DataType::Decimal128(..) | DataType::Float32] => Ok(vec![DataType::Float64]),
            _ => Ok(types.to_vec()),
        },
        |args| {
            let is_template = text_and_template(&types_of(args)) && !is_strftime_argument(args);
            if is_template { Ok(instant_type()) } else { Ok(nanoseconds()) }
        },
        |args| {
            if args.return_type() == &nanoseconds() {
                return engine(&engine_to_timestamp(), args);
            }
            let zone = zone::of_session(&args.config_options);
            by_rows(args, |arrays| {
                let mut out = TimestampMicrosecondArray::builder(arrays[0].len());
                each_read(&arrays[0], &arrays[1], |read| {
                    let instant = match read {
                        Some(read) => match read.offset_s {
                            Some(seconds) => TimeZone::fixed(seconds).and_then(|zone| zone.instant(read.at)),
                            None => zone.instant(read.at),
                        },
                        None => None,
                    };
                    out.append_option(instant.map(|at| at.and_utc().timestamp_micros()));
                })?;
                Ok(Arc::new(out.finish().with_timezone(zone::UTC)))
            })
        },
    )
}

fn nanoseconds() -> DataType {
    DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None)
}

/// The engine's function with no zone, which reads and answers local times.
fn engine_to_timestamp() -> Arc<ScalarUDF> {
    let options = datafusion::config::ConfigOptions::new();
    Arc::new(ScalarUDF::new_from_impl(datetime::to_timestamp::ToTimestampFunc::new_with_config(&options)))
}

fn types_of(args: &ReturnFieldArgs<'_>) -> Vec<DataType> {
    args.arg_fields.iter().map(|field| field.data_type().clone()).collect()
}

fn is_strftime_argument(args: &ReturnFieldArgs<'_>) -> bool {
    let template = args.scalar_arguments.get(1).copied().flatten();
    template.and_then(|value| value.try_as_str().flatten()).is_some_and(|template| template.contains('%'))
}

fn to_date() -> Arc<ScalarUDF> {
    Function::udf(
        "to_date",
        |types| match types {
            [value, ..] if types.len() > 1 && value.is_string() => Ok(vec![DataType::Utf8; types.len()]),
            _ => Ok(types.to_vec()),
        },
        |_| Ok(DataType::Date32),
        |args| {
            let types: Vec<DataType> =
                args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
            if !text_and_template(&types) || is_strftime(args.args.get(1)) {
                return engine(&datetime::to_date(), args);
            }
            by_rows(args, |arrays| {
                let mut out = Date32Array::builder(arrays[0].len());
                each_read(&arrays[0], &arrays[1], |read| {
                    out.append_option(read.map(|read| days(read.at)));
                })?;
                Ok(Arc::new(out.finish()))
            })
        },
    )
}

fn days(at: NaiveDateTime) -> i32 {
    let days = at.date().signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).unwrap_or(i32::MAX)
}

fn each_read(
    values: &ArrayRef,
    templates: &ArrayRef,
    mut take: impl FnMut(Option<read::Read>),
) -> Result<()> {
    let values = texts(values)?;
    let mut templates = Templates::of(templates)?;
    for row in 0..values.len() {
        let Some(template) = templates.at(row, parse_time)?.filter(|_| values.is_valid(row)) else {
            take(None);
            continue;
        };
        match read::read(&template, values.value(row)) {
            Ok(read) => take(Some(read)),
            Err(why) => return exec_err!("{why}"),
        }
    }
    Ok(())
}

/// `to_number(text, template)`: the digits of the text, with as many behind the point as the
/// template has.
fn to_number() -> Arc<ScalarUDF> {
    Function::udf(
        "to_number",
        |types| match types {
            [_, _] => Ok(vec![DataType::Utf8, DataType::Utf8]),
            _ => plan_err!("to_number takes a text and a template"),
        },
        |args| {
            let template = args.scalar_arguments.get(1).copied().flatten();
            let post = match template.and_then(|value| value.try_as_str().flatten()) {
                Some(template) => match NumberTemplate::parse(template) {
                    Ok(template) => template.post,
                    Err(why) => return plan_err!("{why}"),
                },
                None => return plan_err!("the template of to_number must be a constant"),
            };
            type_of(args, 0)?;
            Ok(DataType::Decimal128(38, i8::try_from(post.min(38)).unwrap_or(38)))
        },
        |args| {
            let of = args.return_type().clone();
            by_rows(args, |arrays| {
                let values = texts(&arrays[0])?;
                let mut out = StringBuilder::new();
                for row in 0..values.len() {
                    if values.is_null(row) {
                        out.append_null();
                        continue;
                    }
                    let text = values.value(row);
                    let digits: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
                    if digits.is_empty() {
                        return exec_err!("invalid input syntax for type numeric: \"{text}\"");
                    }
                    let negative = text.contains('-') || text.contains('<');
                    out.append_value(if negative { format!("-{digits}") } else { digits });
                }
                let digits: ArrayRef = Arc::new(out.finish());
                Ok(cast(&digits, &of)?)
            })
        },
    )
}
