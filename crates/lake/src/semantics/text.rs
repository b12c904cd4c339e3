//! Values as text, the way PostgreSQL writes them where they are cast or joined to text.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, Float32Type, Float64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::function::{Function, by_rows};
use super::zone::{self, TimeZone};

/// Whether a cast of this type to text is the engine's own in another form than PostgreSQL's.
pub(super) fn differs(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Float32
            | DataType::Float64
            | DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}

/// `as_text(x)`, which stands for a cast to text of the types above.
pub(super) fn as_text() -> Arc<ScalarUDF> {
    Function::udf(
        "as_text",
        |types| match types {
            [of] if differs(of) => Ok(vec![encoded(of)]),
            _ => plan_err!("as_text takes one value"),
        },
        |_| Ok(DataType::Utf8),
        |args| {
            let zone = zone::of_session(&args.config_options);
            by_rows(args, |arrays| column(&arrays[0], zone))
        },
    )
}

/// The one type of its family that is written.
fn encoded(of: &DataType) -> DataType {
    match of {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

fn column(values: &ArrayRef, zone: TimeZone) -> Result<ArrayRef> {
    let values = cast(values, &encoded(values.data_type()))?;
    let mut out = StringBuilder::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            out.append_null();
            continue;
        }
        let text = match values.data_type() {
            DataType::Float32 => float_text_32(values.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => float_text(values.as_primitive::<Float64Type>().value(row)),
            DataType::Timestamp(_, of) => {
                let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
                match timestamp_text(micros, of.as_ref().map(|_| zone)) {
                    Some(text) => text,
                    None => return exec_err!("timestamp out of range"),
                }
            }
            DataType::Time64(_) => {
                let micros = values.as_primitive::<Time64MicrosecondType>().value(row);
                let mut out = String::new();
                push_time(&mut out, micros / 1_000_000, micros % 1_000_000);
                out
            }
            DataType::Duration(_) => {
                duration_text(values.as_primitive::<DurationMicrosecondType>().value(row))
            }
            DataType::Interval(_) => {
                interval_text(values.as_primitive::<IntervalMonthDayNanoType>().value(row))
            }
            _ => {
                let bytes = values.as_binary::<i32>().value(row);
                bytes.iter().fold(String::from("\\x"), |mut out, byte| {
                    let _ = write!(out, "{byte:02x}");
                    out
                })
            }
        };
        out.append_value(text);
    }
    Ok(Arc::new(out.finish()))
}

/// A float in its shortest form: words for what is no number, an exponent for the far ends.
pub fn float_text(value: f64) -> String {
    float_form(value, 1e15, &value.to_string(), &format!("{value:e}"))
}

/// The same for 32 bits, whose shortest form has fewer digits.
pub fn float_text_32(value: f32) -> String {
    float_form(f64::from(value), 1e6, &value.to_string(), &format!("{value:e}"))
}

fn float_form(value: f64, plain_below: f64, plain: &str, exponent: &str) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if size != 0.0 && !(1e-4..plain_below).contains(&size) {
        let (digits, power) = exponent.split_once('e').unwrap_or((exponent, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |p| ('-', p));
        format!("{digits}e{sign}{power:0>2}")
    } else {
        plain.to_owned()
    }
}

/// An instant with its offset in `zone`, or a local time where there is none. Nothing for a time
/// beyond the calendar.
pub fn timestamp_text(micros: i64, zone: Option<TimeZone>) -> Option<String> {
    let utc = DateTime::from_timestamp_micros(micros)?.naive_utc();
    let local = match zone {
        Some(zone) => zone.local(utc)?,
        None => utc,
    };
    let mut out = String::new();
    push_timestamp(&mut out, local);
    if let Some(zone) = zone {
        push_offset(&mut out, zone.offset_s(utc));
    }
    if local.year() <= 0 {
        out.push_str(" BC");
    }
    Some(out)
}

fn push_timestamp(out: &mut String, at: NaiveDateTime) {
    push_date(out, at.date());
    out.push(' ');
    push_time(out, i64::from(at.num_seconds_from_midnight()), i64::from(at.nanosecond() / 1000 % 1_000_000));
}

fn push_date(out: &mut String, date: NaiveDate) {
    let year = if date.year() <= 0 { 1 - date.year() } else { date.year() };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month(), date.day());
}

fn push_time(out: &mut String, seconds: i64, micros: i64) {
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(out, micros);
}

fn push_fraction(out: &mut String, micros: i64) {
    if micros != 0 {
        let text = format!(".{micros:06}");
        out.push_str(text.trim_end_matches('0'));
    }
}

/// `+02`, `+05:30`
pub(super) fn push_offset(out: &mut String, seconds: i32) {
    let sign = if seconds < 0 { '-' } else { '+' };
    let size = seconds.abs();
    let _ = write!(out, "{sign}{:02}", size / 3600);
    if size % 3600 != 0 {
        let _ = write!(out, ":{:02}", size / 60 % 60);
    }
    if size % 60 != 0 {
        let _ = write!(out, ":{:02}", size % 60);
    }
}

/// An interval in the style `postgres`: `1 year 2 mons -3 days +04:05:06.7`.
pub fn interval_text(interval: IntervalMonthDayNano) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut negative = false;
    let months = interval.months;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (interval.days, "day")] {
        if count != 0 {
            let plus = if negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{plus}{count} {unit}{plural}"));
            negative = count < 0;
        }
    }
    let micros = interval.nanoseconds / 1000;
    if micros != 0 || parts.is_empty() {
        let sign = if micros < 0 {
            "-"
        } else if negative {
            "+"
        } else {
            ""
        };
        let size = micros.unsigned_abs();
        let (seconds, rest) = (size / 1_000_000, size % 1_000_000);
        let mut time = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        push_fraction(&mut time, i64::try_from(rest).unwrap_or(0));
        parts.push(time);
    }
    parts.join(" ")
}

/// The time between two instants, as an interval of days and hours.
pub fn duration_text(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    let days = i32::try_from(micros / DAY).unwrap_or(i32::MAX);
    interval_text(IntervalMonthDayNano::new(0, days, micros % DAY * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        for (value, text) in [
            (0.1, "0.1"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (-0.0, "-0"),
        ] {
            assert_eq!(float_text(value), text);
        }
        let vienna = TimeZone::parse("Europe/Vienna");
        let july = 1_719_799_200_500_000;
        assert_eq!(timestamp_text(july, vienna).as_deref(), Some("2024-07-01 04:00:00.5+02"));
        assert_eq!(timestamp_text(july, None).as_deref(), Some("2024-07-01 02:00:00.5"));
        for (months, days, nanos, text) in [
            (14, -3, 14_706_700_000_000, "1 year 2 mons -3 days +04:05:06.7"),
            (0, 0, 0, "00:00:00"),
            (-1, 0, 0, "-1 mons"),
            (0, 1, -1_000_000_000, "1 day -00:00:01"),
        ] {
            assert_eq!(interval_text(IntervalMonthDayNano::new(months, days, nanos)), text);
        }
    }
}
