//! Values of Arrow arrays as PostgreSQL sends them, in text or binary.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use chrono::{Datelike, NaiveDate};
use levada_core::Problem;
use levada_lake::{TimeZone, duration_text, float_text, float_text_32, interval_text, timestamp_text};
use pgwire::messages::data::DataRow;

use crate::numeric;
use crate::types::Formats;

/// 2000-01-01, from where PostgreSQL counts, after 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// The session's way to write values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Where instants are shown.
    pub zone: TimeZone,
    /// Above zero, as many digits as it takes; else 15 and so many, or 6 for 32 bits.
    pub extra_float_digits: i32,
}

impl Default for Shown {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, extra_float_digits: 1 }
    }
}

/// A batch, with every column in one of the few shapes that are encoded.
#[derive(Debug)]
pub(crate) struct Page {
    columns: Vec<Column>,
    pub rows: usize,
    shown: Shown,
}

#[derive(Debug)]
struct Column {
    values: ArrayRef,
    shape: Shape,
    binary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    /// Decimal text.
    Numeric,
    Interval,
    Duration,
    /// Anything else, as text.
    Shown,
    List,
}

/// How a type is encoded, and the type it is cast to for that.
fn shape(of: &DataType) -> (Shape, Option<DataType>) {
    let micros =
        |zone: &Option<std::sync::Arc<str>>| DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
    match of {
        DataType::Boolean => (Shape::Bool, None),
        DataType::Int16 => (Shape::Int2, None),
        DataType::Int8 | DataType::UInt8 => (Shape::Int2, Some(DataType::Int16)),
        DataType::Int32 => (Shape::Int4, None),
        DataType::UInt16 => (Shape::Int4, Some(DataType::Int32)),
        DataType::Int64 => (Shape::Int8, None),
        DataType::UInt32 => (Shape::Int8, Some(DataType::Int64)),
        DataType::Float32 => (Shape::Float4, None),
        DataType::Float16 => (Shape::Float4, Some(DataType::Float32)),
        DataType::Float64 => (Shape::Float8, None),
        DataType::Utf8 => (Shape::Text, None),
        DataType::LargeUtf8 | DataType::Utf8View => (Shape::Text, Some(DataType::Utf8)),
        DataType::Binary => (Shape::Bytes, None),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            (Shape::Bytes, Some(DataType::Binary))
        }
        DataType::Date32 => (Shape::Date, None),
        DataType::Date64 => (Shape::Date, Some(DataType::Date32)),
        DataType::Time32(_) | DataType::Time64(_) => {
            (Shape::Time, Some(DataType::Time64(TimeUnit::Microsecond)))
        }
        DataType::Timestamp(_, None) => (Shape::Timestamp, Some(micros(&None))),
        DataType::Timestamp(_, zone) => (Shape::TimestampTz, Some(micros(zone))),
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => (Shape::Numeric, Some(DataType::Utf8)),
        DataType::Duration(_) => (Shape::Duration, Some(DataType::Duration(TimeUnit::Microsecond))),
        DataType::Interval(_) => (Shape::Interval, Some(DataType::Interval(IntervalUnit::MonthDayNano))),
        DataType::Dictionary(_, value) => match shape(value) {
            (of, Some(target)) => (of, Some(target)),
            (of, None) => (of, Some((**value).clone())),
        },
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => (Shape::List, None),
        _ => (Shape::Shown, None),
    }
}

impl Page {
    /// # Errors
    /// `sql-execution` when a column cannot be cast; the types make that impossible so far.
    pub fn new(batch: &RecordBatch, formats: &Formats, shown: Shown) -> Result<Self, Problem> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (i, values) in batch.columns().iter().enumerate() {
            let (shape, target) = shape(values.data_type());
            let values = match target {
                Some(target) if target != *values.data_type() => {
                    cast(values, &target).map_err(unencodable)?
                }
                _ => values.clone(),
            };
            columns.push(Column { values, shape, binary: formats.is_binary(i) });
        }
        Ok(Self { columns, rows: batch.num_rows(), shown })
    }

    /// # Errors
    /// `sql-execution` for a value that PostgreSQL has no place for, such as the year 300000.
    pub fn row(&self, row: usize) -> Result<DataRow, Problem> {
        let mut out = BytesMut::with_capacity(self.columns.len() * 16);
        for column in &self.columns {
            let length_at = out.len();
            out.put_i32(-1);
            if column.values.is_null(row) || column.values.data_type() == &DataType::Null {
                continue;
            }
            match column.binary {
                true => binary(column, row, self.shown, &mut out)?,
                false => text(column, row, self.shown, &mut out)?,
            }
            let length = i32::try_from(out.len() - length_at - 4).map_err(|_| too_long())?;
            out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(DataRow::new(out, self.columns.len() as i16))
    }
}

fn unencodable(error: arrow::error::ArrowError) -> Problem {
    Problem::new(422, "sql-execution", format!("a column cannot be sent: {error}"))
}

fn too_long() -> Problem {
    Problem::new(422, "sql-execution", "a value is longer than 2 GiB")
}

fn out_of_range() -> Problem {
    Problem::new(422, "sql-execution", "a date or time is outside what PostgreSQL can hold")
}

fn binary(column: &Column, row: usize, shown: Shown, out: &mut BytesMut) -> Result<(), Problem> {
    let values = &column.values;
    match column.shape {
        Shape::Bool => out.put_u8(u8::from(values.as_boolean().value(row))),
        Shape::Int2 => out.put_i16(values.as_primitive::<Int16Type>().value(row)),
        Shape::Int4 => out.put_i32(values.as_primitive::<Int32Type>().value(row)),
        Shape::Int8 => out.put_i64(values.as_primitive::<Int64Type>().value(row)),
        Shape::Float4 => out.put_f32(values.as_primitive::<Float32Type>().value(row)),
        Shape::Float8 => out.put_f64(values.as_primitive::<Float64Type>().value(row)),
        Shape::Bytes => out.put_slice(values.as_binary::<i32>().value(row)),
        Shape::Date => {
            let days = i64::from(values.as_primitive::<Date32Type>().value(row)) - EPOCH_DAYS;
            out.put_i32(i32::try_from(days).map_err(|_| out_of_range())?);
        }
        Shape::Time => out.put_i64(values.as_primitive::<Time64MicrosecondType>().value(row)),
        Shape::Timestamp | Shape::TimestampTz => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or_else(out_of_range)?);
        }
        Shape::Numeric => {
            let mut bytes = Vec::with_capacity(24);
            numeric::encode(values.as_string::<i32>().value(row), &mut bytes);
            out.put_slice(&bytes);
        }
        // Text has one form.
        Shape::Text | Shape::Interval | Shape::Duration | Shape::Shown | Shape::List => {
            text(column, row, shown, out)?
        }
    }
    Ok(())
}

fn text(column: &Column, row: usize, shown: Shown, out: &mut BytesMut) -> Result<(), Problem> {
    let values = &column.values;
    match column.shape {
        Shape::Bool => out.put_u8(if values.as_boolean().value(row) { b't' } else { b'f' }),
        Shape::Int2 => put(out, values.as_primitive::<Int16Type>().value(row)),
        Shape::Int4 => put(out, values.as_primitive::<Int32Type>().value(row)),
        Shape::Int8 => put(out, values.as_primitive::<Int64Type>().value(row)),
        Shape::Float4 => {
            let value = values.as_primitive::<Float32Type>().value(row);
            match shown.extra_float_digits {
                1.. => put(out, float_text_32(value)),
                extra => put(out, float_digits(f64::from(value), 6 + extra)),
            }
        }
        Shape::Float8 => {
            let value = values.as_primitive::<Float64Type>().value(row);
            match shown.extra_float_digits {
                1.. => put(out, float_text(value)),
                extra => put(out, float_digits(value, 15 + extra)),
            }
        }
        Shape::Text | Shape::Numeric => out.put_slice(values.as_string::<i32>().value(row).as_bytes()),
        Shape::Bytes => {
            out.put_slice(b"\\x");
            for byte in values.as_binary::<i32>().value(row) {
                put(out, format_args!("{byte:02x}"));
            }
        }
        Shape::Date => {
            let days = values.as_primitive::<Date32Type>().value(row);
            let date = NaiveDate::from_epoch_days(days).ok_or_else(out_of_range)?;
            put_date(out, date);
            put_era(out, date);
        }
        Shape::Time => {
            let micros = values.as_primitive::<Time64MicrosecondType>().value(row);
            put_time(out, micros / 1_000_000, micros % 1_000_000);
        }
        Shape::Timestamp | Shape::TimestampTz => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            let zone = (column.shape == Shape::TimestampTz).then_some(shown.zone);
            put(out, timestamp_text(micros, zone).ok_or_else(out_of_range)?);
        }
        Shape::Duration => {
            put(out, duration_text(values.as_primitive::<DurationMicrosecondType>().value(row)))
        }
        Shape::Interval => {
            put(out, interval_text(values.as_primitive::<IntervalMonthDayNanoType>().value(row)));
        }
        Shape::List => list(values, row, shown, out)?,
        Shape::Shown => {
            let formatter =
                ArrayFormatter::try_new(values, &FormatOptions::default()).map_err(unencodable)?;
            put(out, formatter.value(row));
        }
    }
    Ok(())
}

fn put(out: &mut BytesMut, value: impl std::fmt::Display) {
    // Writing to a growing buffer cannot fail.
    let _ = write!(out, "{value}");
}

/// A float with so many significant digits, without trailing zeros, as C's `%g` writes it.
fn float_digits(value: f64, digits: i32) -> String {
    let digits = usize::try_from(digits.max(1)).unwrap_or(1);
    if !value.is_finite() || value == 0.0 {
        return float_text(value);
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let is_plain =
        power >= -4 && usize::try_from(power).is_ok_and(|power| power < digits) || (-4..0).contains(&power);
    if is_plain {
        let places = usize::try_from(i64::try_from(digits).unwrap_or(0) - 1 - i64::from(power)).unwrap_or(0);
        return trim(&format!("{value:.places$}"));
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), power.abs())
}

fn put_date(out: &mut BytesMut, date: NaiveDate) {
    let year = if date.year() <= 0 { 1 - date.year() } else { date.year() };
    put(out, format_args!("{year:04}-{:02}-{:02}", date.month(), date.day()));
}

fn put_era(out: &mut BytesMut, date: NaiveDate) {
    if date.year() <= 0 {
        out.put_slice(b" BC");
    }
}

fn put_time(out: &mut BytesMut, seconds: i64, micros: i64) {
    put(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if micros != 0 {
        let text = format!(".{micros:06}");
        out.put_slice(text.trim_end_matches('0').as_bytes());
    }
}

/// `{a,"b c",NULL}`
fn list(values: &ArrayRef, row: usize, shown: Shown, out: &mut BytesMut) -> Result<(), Problem> {
    let item = match values.data_type() {
        DataType::List(_) => values.as_list::<i32>().value(row),
        DataType::LargeList(_) => values.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => values.as_fixed_size_list().value(row),
        DataType::ListView(_) => values.as_list_view::<i32>().value(row),
        _ => values.as_list_view::<i64>().value(row),
    };
    let (shape, target) = shape(item.data_type());
    let item = match target {
        Some(target) if target != *item.data_type() => cast(&item, &target).map_err(unencodable)?,
        _ => item,
    };
    let column = Column { values: item, shape, binary: false };
    out.put_u8(b'{');
    for i in 0..column.values.len() {
        if i > 0 {
            out.put_u8(b',');
        }
        if column.values.is_null(i) {
            out.put_slice(b"NULL");
            continue;
        }
        let mut element = BytesMut::new();
        text(&column, i, shown, &mut element)?;
        if shape == Shape::List || !needs_quotes(&element) {
            out.put_slice(&element);
            continue;
        }
        out.put_u8(b'"');
        for byte in &element {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(b'\\');
            }
            out.put_u8(*byte);
        }
        out.put_u8(b'"');
    }
    out.put_u8(b'}');
    Ok(())
}

fn needs_quotes(element: &[u8]) -> bool {
    element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element.iter().any(|b| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\') || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn cells(array: ArrayRef, formats: &[i16]) -> Vec<Option<Vec<u8>>> {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).expect("one column");
        let page = Page::new(&batch, &Formats::new(formats), Shown::default()).expect("a page");
        (0..page.rows)
            .map(|row| {
                let data = page.row(row).expect("a row").data;
                let length = i32::from_be_bytes(data[..4].try_into().expect("four bytes"));
                (length >= 0).then(|| data[4..].to_vec())
            })
            .collect()
    }

    fn texts(array: ArrayRef) -> Vec<String> {
        let shown =
            |cell: Option<Vec<u8>>| cell.map_or("<null>".into(), |c| String::from_utf8(c).expect("text"));
        cells(array, &[]).into_iter().map(shown).collect()
    }

    #[test]
    fn text_is_as_psql_shows_it() {
        assert_eq!(
            texts(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ["t", "f", "<null>"]
        );
        let floats = vec![1.0, 0.1, -2.5, 1e15, 1e-7, f64::NAN, f64::NEG_INFINITY, 123_456.789, 0.0];
        assert_eq!(
            texts(Arc::new(Float64Array::from(floats))),
            ["1", "0.1", "-2.5", "1e+15", "1e-07", "NaN", "-Infinity", "123456.789", "0"]
        );
        assert_eq!(
            texts(Arc::new(Date32Array::from(vec![0, 20_000, -800_000]))),
            ["1970-01-01", "2024-10-04", "0222-09-04 BC"]
        );
        let at = TimestampMicrosecondArray::from(vec![1_700_000_000_123_400, 0]);
        assert_eq!(texts(Arc::new(at.clone())), ["2023-11-14 22:13:20.1234", "1970-01-01 00:00:00"]);
        assert_eq!(texts(Arc::new(at.with_timezone("UTC")))[1], "1970-01-01 00:00:00+00");
        let ns = TimestampNanosecondArray::from(vec![-1_000]);
        assert_eq!(texts(Arc::new(ns)), ["1969-12-31 23:59:59.999999"]);
        assert_eq!(texts(Arc::new(BinaryArray::from_vec(vec![b"\x00\xff"]))), ["\\x00ff"]);
        let decimal = Decimal128Array::from(vec![12_345, -5]).with_precision_and_scale(10, 2).expect("fits");
        assert_eq!(texts(Arc::new(decimal)), ["123.45", "-0.05"]);
        assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
        let dictionary: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
        assert_eq!(texts(Arc::new(dictionary)), ["a", "b"]);
        let numbers = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
        assert_eq!(texts(Arc::new(numbers)), ["{1,NULL}"]);
        let mut words = ListBuilder::new(StringBuilder::new());
        words.append_value([Some("a b"), Some("\"x\\"), Some(""), Some("null"), Some("z")]);
        assert_eq!(texts(Arc::new(words.finish())), [r#"{"a b","\"x\\","","null",z}"#]);
    }

    #[test]
    fn binary_is_as_postgresql_counts() {
        let one = |array: ArrayRef| cells(array, &[1]).remove(0).expect("a value");
        assert_eq!(one(Arc::new(Int64Array::from(vec![258]))), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(one(Arc::new(UInt8Array::from(vec![7]))), [0, 7]);
        assert_eq!(one(Arc::new(Date32Array::from(vec![10_958]))), [0, 0, 0, 1]);
        let at = TimestampSecondArray::from(vec![946_684_801]);
        assert_eq!(one(Arc::new(at)), 1_000_000i64.to_be_bytes());
        assert_eq!(one(Arc::new(StringArray::from(vec!["é"]))), "é".as_bytes());
        assert_eq!(one(Arc::new(BooleanArray::from(vec![true]))), [1]);
        assert_eq!(one(Arc::new(Float32Array::from(vec![1.5]))), 1.5f32.to_be_bytes());
    }
}
