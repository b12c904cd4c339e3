//! Parameters of a query, in the types that it wants.
//!
//! A number that a decimal column would have to round keeps its own digits: compared with the column
//! it then equals no row, where a rounded one would find wrong ones.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use levada_core::{Exact, MAX_DIGITS};

use crate::schema::sql_type;
use crate::types::Param;

/// The value of a parameter; `wanted` is the type of its place, where the query settles one.
///
/// # Errors
/// A sentence about a value that is none of the type.
pub(crate) fn value(param: Param, wanted: Option<&DataType>) -> Result<ScalarValue, String> {
    let decimal = wanted.is_some_and(DataType::is_decimal);
    match param {
        Param::Decimal(text) => number(&text, wanted),
        Param::Text(text) if decimal => number(&text, wanted),
        Param::Int(value) if decimal => number(&value.to_string(), wanted),
        Param::Float(value) if decimal && value.is_finite() => number(&value.to_string(), wanted),
        other => cast(scalar(other), wanted),
    }
}

fn cast(value: ScalarValue, wanted: Option<&DataType>) -> Result<ScalarValue, String> {
    match wanted {
        Some(wanted) if *wanted != value.data_type() => value
            .cast_to(wanted)
            .map_err(|error| format!("is no {}: {}", sql_type(wanted), error.strip_backtrace())),
        _ => Ok(value),
    }
}

fn number(text: &str, wanted: Option<&DataType>) -> Result<ScalarValue, String> {
    let text = text.trim();
    let Some(exact) = Exact::parse(text) else { return Err("is no numeric value".to_owned()) };
    match wanted {
        Some(DataType::Decimal128(precision, scale)) => {
            let fits = u8::try_from(*scale).ok().and_then(|s| exact.unscaled(*precision, s).ok());
            match fits {
                Some(value) => Ok(ScalarValue::Decimal128(Some(value), *precision, *scale)),
                None => own(&exact, text),
            }
        }
        Some(of) if of.is_floating() => cast(own_float(text)?, wanted),
        Some(of) if of.is_integer() => match exact.integer() {
            Some(value) => cast(ScalarValue::Int64(Some(value)), wanted),
            None => own(&exact, text),
        },
        Some(of) if !of.is_decimal() => cast(ScalarValue::Utf8(Some(text.to_owned())), wanted),
        _ => own(&exact, text),
    }
}

/// A decimal of the number's own digits, zeros at the end included; the nearest double where it has
/// too many.
fn own(exact: &Exact, text: &str) -> Result<ScalarValue, String> {
    let written = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let written = if text.contains(['e', 'E']) { 0 } else { i64::try_from(written).unwrap_or(0) };
    let fitting = |scale: i64| u8::try_from(scale).ok().filter(|scale| *scale <= MAX_DIGITS);
    let shown = fitting(written).filter(|scale| exact.unscaled(MAX_DIGITS, *scale).is_ok());
    let scale = shown.or_else(|| fitting(exact.decimals()));
    let value = scale.and_then(|scale| Some((exact.unscaled(MAX_DIGITS, scale).ok()?, scale)));
    let Some((value, scale)) = value else { return own_float(text) };
    let digits = u8::try_from(value.unsigned_abs().to_string().len()).unwrap_or(MAX_DIGITS);
    Ok(ScalarValue::Decimal128(Some(value), digits.max(scale), scale.cast_signed()))
}

fn own_float(text: &str) -> Result<ScalarValue, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
    value.map(|value| ScalarValue::Float64(Some(value))).ok_or_else(|| "is out of range".to_owned())
}

fn scalar(param: Param) -> ScalarValue {
    match param {
        Param::Null => ScalarValue::Null,
        Param::Bool(value) => ScalarValue::Boolean(Some(value)),
        Param::Int(value) => ScalarValue::Int64(Some(value)),
        Param::Float(value) => ScalarValue::Float64(Some(value)),
        Param::Decimal(value) | Param::Text(value) => ScalarValue::Utf8(Some(value)),
        Param::Bytes(value) => ScalarValue::Binary(Some(value)),
        Param::Date(days) => ScalarValue::Date32(Some(days)),
        Param::Timestamp(us) => ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_whatever_the_query_wants() {
        let money = DataType::Decimal128(12, 2);
        let decimal = |value, precision, scale| Ok(ScalarValue::Decimal128(Some(value), precision, scale));
        let text = |text: &str| Param::Decimal(text.to_owned());
        for (param, wanted, expected) in [
            (text("1.50"), Some(&money), decimal(150, 12, 2)),
            (text("1.005"), Some(&money), decimal(1005, 4, 3)),
            (Param::Text(" 7 ".into()), Some(&money), decimal(700, 12, 2)),
            (Param::Int(99_999_999_999), Some(&money), decimal(99_999_999_999, 11, 0)),
            (Param::Float(0.1), Some(&money), decimal(10, 12, 2)),
            (text("12345678901234567.89"), None, decimal(1_234_567_890_123_456_789, 19, 2)),
            (text("0.001"), None, decimal(1, 3, 3)),
            (text("1.10"), None, decimal(110, 3, 2)),
            (text("1.5e1"), None, decimal(15, 2, 0)),
            (text("1e300"), None, Ok(ScalarValue::Float64(Some(1e300)))),
            (
                text("0.30000000000000004"),
                Some(&DataType::Float64),
                Ok(ScalarValue::Float64(Some(0.1 + 0.2))),
            ),
            (
                text("9007199254740993.0"),
                Some(&DataType::Int64),
                Ok(ScalarValue::Int64(Some(9_007_199_254_740_993))),
            ),
            (text("1.50"), Some(&DataType::Utf8), Ok(ScalarValue::Utf8(Some("1.50".into())))),
            (Param::Text("x".into()), Some(&money), Err("is no numeric value".to_owned())),
        ] {
            assert_eq!(value(param.clone(), wanted), expected, "{param:?} as {wanted:?}");
        }
    }
}
