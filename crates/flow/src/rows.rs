//! The hidden row column, and reading single values out of Arrow columns.
//!
//! Every batch inside the chain ends in `_row`: for each row the index of its record in the
//! micro-batch, so that a row that fails late still leads back to its original bytes. Rows
//! that a SQL step made out of several records carry [`DERIVED`] instead.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType, UInt32Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use levada_core::decimal_text;

/// Name of the hidden column.
pub const ROW: &str = "_row";

/// Set in the row number of a row that stems from no single record.
pub const DERIVED: u32 = 1 << 31;

/// The schema with the hidden column at its end.
pub fn with_row_field(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW, DataType::UInt32, true)));
    Arc::new(Schema::new(fields))
}

/// The schema without the hidden column.
pub fn without_row_field(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|f| f.name() != ROW).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// Appends the hidden column.
pub fn attach(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from(rows)) as ArrayRef);
    RecordBatch::try_new(with_row_field(&batch.schema()), columns)
}

/// Removes the hidden column.
pub fn detach(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let keep: Vec<usize> = (0..schema.fields().len()).filter(|at| schema.field(*at).name() != ROW).collect();
    batch.project(&keep)
}

/// The row numbers of a batch inside the chain.
pub fn numbers(batch: &RecordBatch) -> Option<&UInt32Array> {
    batch.column_by_name(ROW)?.as_primitive_opt::<UInt32Type>()
}

/// Keeps the rows whose flag is set.
pub fn keep(batch: &RecordBatch, flags: Vec<bool>) -> Result<RecordBatch, ArrowError> {
    if flags.iter().all(|k| *k) {
        Ok(batch.clone())
    } else {
        filter_record_batch(batch, &BooleanArray::from(flags))
    }
}

/// The text of one value; `None` is null. Times are RFC 3339; a decimal has one spelling, so that it
/// hashes alike whatever scale its column has.
pub fn text(column: &dyn Array, row: usize) -> Option<Cow<'_, str>> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => Cow::Borrowed(column.as_string::<i32>().value(row)),
        DataType::Utf8View => Cow::Borrowed(column.as_string_view().value(row)),
        DataType::Int64 => Cow::Owned(column.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::Float64 => Cow::Owned(column.as_primitive::<Float64Type>().value(row).to_string()),
        DataType::Decimal128(_, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            Cow::Owned(decimal_text(value, u32::try_from(*scale).unwrap_or(0)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = chrono::DateTime::from_timestamp_micros(micros);
            Cow::Owned(time.map_or_else(
                || micros.to_string(),
                |t| t.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
            ))
        }
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            let date = chrono::DateTime::from_timestamp(days * 86_400, 0);
            Cow::Owned(date.map_or_else(|| days.to_string(), |d| d.format("%Y-%m-%d").to_string()))
        }
        _ => {
            let mut out = String::new();
            let options = FormatOptions::default();
            match ArrayFormatter::try_new(column, &options) {
                Ok(formatter) => write!(out, "{}", formatter.value(row)).ok()?,
                Err(_) => return None,
            }
            Cow::Owned(out)
        }
    })
}

/// Appends one value to a hash's input so that no two different lists of values meet.
pub fn hash_input(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match text(column, row) {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}
