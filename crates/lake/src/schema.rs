//! Table schemas: what Delta can hold, how a table may grow, how a batch is made to fit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};

/// The schema as Delta keeps it: text is `Utf8`, timestamps are microseconds, no field metadata.
pub(crate) fn normalise(schema: &Schema) -> Result<SchemaRef, ArrowError> {
    to_arrow(&to_delta(schema)?)
}

pub(crate) fn to_delta(schema: &Schema) -> Result<StructType, ArrowError> {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| f.as_ref().clone().with_metadata(HashMap::new())).collect();
    (&Schema::new(fields)).try_into_kernel()
}

pub(crate) fn to_arrow(schema: &StructType) -> Result<SchemaRef, ArrowError> {
    let arrow: Schema = schema.try_into_arrow()?;
    Ok(Arc::new(arrow))
}

/// The fields of `wanted` that `have` lacks, or why the change is not an addition.
pub(crate) fn additions(have: &Schema, wanted: &Schema) -> Result<Vec<Field>, String> {
    let mut added = Vec::new();
    for field in wanted.fields() {
        match have.fields().iter().find(|f| f.name().eq_ignore_ascii_case(field.name())) {
            None => added.push(field.as_ref().clone().with_nullable(true)),
            Some(old) if old.name() != field.name() => {
                return Err(format!("column `{}` differs from `{}` only in case", field.name(), old.name()));
            }
            // The table is older than exact decimals: it goes on with doubles.
            Some(old) if keeps_double(old.data_type(), field.data_type()) => {}
            Some(old) if old.data_type() != field.data_type() => {
                return Err(format!(
                    "column `{}` is {} and cannot become {}; use a new column name",
                    field.name(),
                    old.data_type(),
                    field.data_type()
                ));
            }
            Some(_) => {}
        }
    }
    Ok(added)
}

/// Whether a column of doubles is asked for as decimals. It stays what it is, since its rows are no
/// longer exact; [`conform`] casts what is added.
pub(crate) fn keeps_double(have: &DataType, wanted: &DataType) -> bool {
    matches!((have, wanted), (DataType::Float64, DataType::Decimal128(..)))
}

/// `have` and then what `wanted` adds. Columns that `wanted` lacks stay.
pub(crate) fn merge(have: &Schema, wanted: &Schema) -> Result<SchemaRef, String> {
    let added = additions(have, wanted)?;
    let fields: Vec<Field> = have.fields().iter().map(|f| f.as_ref().clone()).chain(added).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Brings a batch into the table's columns: by name, cast where the type differs, null where
/// it is missing. A value that cannot be cast is an error, never a silent null.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    for field in batch.schema_ref().fields() {
        if schema.index_of(field.name()).is_err() {
            return Err(ArrowError::SchemaError(format!("the table has no column `{}`", field.name())));
        }
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast_with_options(column, field.data_type(), &options)?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        };
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(ArrowError::SchemaError(format!(
                "column `{}` may not be null, but {} rows have no value",
                field.name(),
                column.null_count()
            )));
        }
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The name of a type as SQL writes it.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::TimeUnit;

    fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
        Arc::new(Schema::new(
            fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>(),
        ))
    }

    #[test]
    fn a_table_may_gain_columns_and_nothing_else() {
        let have = schema(&[("a", DataType::Int64, false), ("b", DataType::Utf8, true)]);
        let more = schema(&[("a", DataType::Int64, false), ("c", DataType::Date32, false)]);
        let merged = merge(&have, &more).unwrap();
        assert_eq!(merged.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(merged.field(2).is_nullable(), "old rows have no value for a new column");
        assert!(merge(&have, &schema(&[("a", DataType::Utf8, true)])).is_err());
        assert!(merge(&have, &schema(&[("A", DataType::Int64, true)])).is_err());
    }

    #[test]
    fn a_column_of_doubles_stays_so_when_decimals_are_asked_for() {
        let decimal = DataType::Decimal128(38, 9);
        let have = schema(&[("m", DataType::Float64, true)]);
        let wanted = schema(&[("m", decimal.clone(), true), ("n", decimal.clone(), true)]);
        let merged = merge(&have, &wanted).unwrap();
        assert_eq!(merged.field(0).data_type(), &DataType::Float64);
        assert_eq!(merged.field(1).data_type(), &decimal, "a new column is exact");
        let values = Decimal128Array::from(vec![Some(1_500_000_000), None]).with_precision_and_scale(38, 9);
        let batch = RecordBatch::try_from_iter([("m", Arc::new(values.unwrap()) as ArrayRef)]).unwrap();
        let fitted = conform(&batch, &have).unwrap();
        assert_eq!(fitted.column(0).as_ref(), &Float64Array::from(vec![Some(1.5), None]) as &dyn Array);
        assert!(merge(&schema(&[("m", decimal, true)]), &have).is_err(), "exact rows are not rounded");
    }

    #[test]
    fn normalising_is_stable_and_micros() {
        let wanted = schema(&[
            ("t", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            ("s", DataType::Utf8View, true),
        ]);
        let once = normalise(&wanted).unwrap();
        assert_eq!(once, normalise(&once).unwrap());
        assert_eq!(
            once.field(0).data_type(),
            &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
        assert_eq!(once.field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn a_batch_is_fitted_or_refused() {
        let table = schema(&[("a", DataType::Int64, false), ("b", DataType::Utf8, true)]);
        let narrow = schema(&[("a", DataType::Int32, true)]);
        let batch =
            RecordBatch::try_new(narrow.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
        let fitted = conform(&batch, &table).unwrap();
        assert_eq!(fitted.column(0).as_ref(), &Int64Array::from(vec![1, 2]) as &dyn arrow::array::Array);
        assert_eq!(fitted.column(1).null_count(), 2);

        let holes =
            RecordBatch::try_new(narrow, vec![Arc::new(Int32Array::from(vec![Some(1), None]))]).unwrap();
        assert!(conform(&holes, &table).is_err(), "null in a column that may not be null");
        let text = schema(&[("a", DataType::Utf8, true)]);
        let batch = RecordBatch::try_new(text, vec![Arc::new(StringArray::from(vec!["x"]))]).unwrap();
        assert!(conform(&batch, &table).is_err(), "a value that cannot be cast");
    }
}
