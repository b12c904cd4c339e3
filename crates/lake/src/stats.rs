//! Statistics of a file: taken from the Parquet footer, written as Delta's JSON, read back
//! as typed bounds for pruning.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use levada_core::{Exact, decimal_text};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Columns beyond this have no statistics, as is Delta's custom.
const INDEXED_COLUMNS: usize = 32;
/// Longer text is cut by the Parquet writer; a file from elsewhere may be longer still.
const TEXT_BYTES: usize = 256;

/// Bounds of one column in one file. `None` where nothing is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bounds {
    pub min: Option<ScalarValue>,
    pub max: Option<ScalarValue>,
    pub nulls: Option<u64>,
}

/// What is known of a file's rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FileStats {
    pub rows: u64,
    pub columns: HashMap<String, Bounds>,
}

impl FileStats {
    /// Gathers the statistics of all row groups.
    pub fn of_parquet(metadata: &ParquetMetaData, schema: &SchemaRef) -> Result<Self> {
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let parquet_schema = metadata.file_metadata().schema_descr();
        let mut columns = HashMap::new();
        for field in schema.fields().iter().take(INDEXED_COLUMNS) {
            if field.data_type().is_nested() {
                continue;
            }
            let converter = StatisticsConverter::try_new(field.name(), schema, parquet_schema)?;
            let groups = metadata.row_groups();
            let nulls = converter.row_group_null_counts(groups)?;
            let bounds = Bounds {
                min: extreme(converter.row_group_mins(groups)?.as_ref(), Ordering::Less)?,
                max: extreme(converter.row_group_maxes(groups)?.as_ref(), Ordering::Greater)?,
                nulls: (nulls.null_count() == 0).then(|| nulls.values().iter().sum()),
            };
            columns.insert(field.name().clone(), bounds);
        }
        Ok(Self { rows, columns })
    }

    pub fn to_json(&self) -> String {
        let (mut min, mut max, mut nulls) = (Section::new(), Section::new(), Section::new());
        for (name, bounds) in &self.columns {
            if let Some(value) = bounds.min.as_ref().and_then(|v| raw(v, Side::Min)) {
                min.insert(name, value);
            }
            if let Some(value) = bounds.max.as_ref().and_then(|v| raw(v, Side::Max)) {
                max.insert(name, value);
            }
            if let Some(value) = bounds.nulls.and_then(|n| RawValue::from_string(n.to_string()).ok()) {
                nulls.insert(name, value);
            }
        }
        let stats = Written { num_records: self.rows, min_values: min, max_values: max, null_count: nulls };
        serde_json::to_string(&stats).expect("maps of JSON texts are JSON")
    }

    /// Reads what [`Self::to_json`], or another Delta writer, wrote. What cannot be read is
    /// unknown, which prunes nothing.
    pub fn parse(text: &str, schema: &Schema) -> Self {
        let Ok(root) = serde_json::from_str::<Texts<'_>>(text) else { return Self::default() };
        let rows = root.get("numRecords").and_then(|rows| rows.get().parse().ok()).unwrap_or(0);
        let section = |name: &str| -> Texts<'_> {
            root.get(name).and_then(|text| serde_json::from_str(text.get()).ok()).unwrap_or_default()
        };
        let (min, max, nulls) = (section("minValues"), section("maxValues"), section("nullCount"));
        let mut columns = HashMap::new();
        for field in schema.fields() {
            let name = field.name().as_str();
            let bounds = Bounds {
                min: min.get(name).and_then(|text| scalar(text.get(), field)),
                max: max.get(name).and_then(|text| scalar(text.get(), field)),
                nulls: nulls.get(name).and_then(|text| text.get().parse().ok()),
            };
            if bounds != Bounds::default() {
                columns.insert(name.to_owned(), bounds);
            }
        }
        Self { rows, columns }
    }
}

/// Values by column, as their JSON texts: a decimal in between would be rounded to a double.
type Section<'a> = HashMap<&'a str, Box<RawValue>>;
type Texts<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    num_records: u64,
    min_values: Section<'a>,
    max_values: Section<'a>,
    null_count: Section<'a>,
}

/// The least or greatest value of the row groups, if all of them know theirs.
fn extreme(values: &dyn Array, wanted: Ordering) -> Result<Option<ScalarValue>> {
    let mut best: Option<ScalarValue> = None;
    for i in 0..values.len() {
        let value = ScalarValue::try_from_array(values, i)?;
        if value.is_null() {
            // An all-null row group has no bounds and does not need any, but the footer
            // does not tell it from a missing statistic; unknown is the safe answer.
            return Ok(None);
        }
        let better = best.as_ref().is_none_or(|best| value.partial_cmp(best) == Some(wanted));
        if better {
            best = Some(value);
        }
    }
    Ok(best)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Min,
    Max,
}

/// The value as JSON text, exact where the type is.
fn raw(value: &ScalarValue, side: Side) -> Option<Box<RawValue>> {
    let text = match value {
        ScalarValue::Decimal128(Some(v), _, scale) => decimal_text(*v, u32::try_from(*scale).ok()?),
        other => json(other, side)?.to_string(),
    };
    RawValue::from_string(text).ok()
}

fn json(value: &ScalarValue, side: Side) -> Option<Value> {
    match value {
        ScalarValue::Boolean(v) => v.map(Value::from),
        ScalarValue::Int8(v) => v.map(Value::from),
        ScalarValue::Int16(v) => v.map(Value::from),
        ScalarValue::Int32(v) => v.map(Value::from),
        ScalarValue::Int64(v) => v.map(Value::from),
        ScalarValue::Float32(v) => v.filter(|v| v.is_finite()).map(|v| Value::from(f64::from(v))),
        ScalarValue::Float64(v) => v.filter(|v| v.is_finite()).map(Value::from),
        ScalarValue::Utf8(Some(text)) if text.len() <= TEXT_BYTES => Some(Value::from(text.as_str())),
        ScalarValue::Date32(Some(days)) => {
            let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAYS_FROM_CE)?)?;
            Some(date.format("%Y-%m-%d").to_string().into())
        }
        ScalarValue::TimestampMicrosecond(Some(us), zone) => {
            // Delta keeps milliseconds here, so the upper bound is rounded up.
            let ms = us.div_euclid(1000) + i64::from(side == Side::Max && us.rem_euclid(1000) != 0);
            let time = DateTime::from_timestamp_millis(ms)?;
            Some(match zone {
                Some(_) => time.to_rfc3339_opts(SecondsFormat::Millis, true).into(),
                None => time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string().into(),
            })
        }
        _ => None,
    }
}

/// Days from 0001-01-01 (day 1) to 1970-01-01.
const EPOCH_DAYS_FROM_CE: i32 = 719_163;

fn scalar(text: &str, field: &Field) -> Option<ScalarValue> {
    if let DataType::Decimal128(precision, scale) = field.data_type() {
        // A bound of other digits than the column's is nobody's to round.
        let value = Exact::parse(text)?.unscaled(*precision, u8::try_from(*scale).ok()?).ok()?;
        return Some(ScalarValue::Decimal128(Some(value), *precision, *scale));
    }
    let value: Value = serde_json::from_str(text).ok()?;
    Some(match field.data_type() {
        DataType::Boolean => ScalarValue::Boolean(Some(value.as_bool()?)),
        DataType::Int8 => ScalarValue::Int8(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(value.as_i64()?)),
        DataType::Float32 => ScalarValue::Float32(Some(value.as_f64()? as f32)),
        DataType::Float64 => ScalarValue::Float64(Some(value.as_f64()?)),
        DataType::Utf8 => ScalarValue::Utf8(Some(value.as_str()?.to_owned())),
        DataType::Date32 => {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            ScalarValue::Date32(
                i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok(),
            )
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let text = value.as_str()?;
            let us = match zone {
                Some(_) => DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros(),
                None => text.parse::<NaiveDateTime>().ok()?.and_utc().timestamp_micros(),
            };
            ScalarValue::TimestampMicrosecond(Some(us), zone.as_ref().map(Arc::clone))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_survive_json_and_never_shrink() {
        let utc: Option<Arc<str>> = Some("UTC".into());
        let fields = [
            ("b", ScalarValue::Boolean(Some(false)), ScalarValue::Boolean(Some(true))),
            ("i", ScalarValue::Int64(Some(-5)), ScalarValue::Int64(Some(i64::MAX))),
            ("f", ScalarValue::Float64(Some(-0.5)), ScalarValue::Float64(Some(1e300))),
            (
                "m",
                ScalarValue::Decimal128(Some(-99_999_999_999_999_999_999_999_999_999_999_999_999), 38, 9),
                ScalarValue::Decimal128(Some(12_345_678_901_234_567_890), 38, 9),
            ),
            ("s", ScalarValue::from("a\"b"), ScalarValue::from("zé")),
            ("d", ScalarValue::Date32(Some(-719_000)), ScalarValue::Date32(Some(20_000))),
            (
                "t",
                ScalarValue::TimestampMicrosecond(Some(-1), utc.clone()),
                ScalarValue::TimestampMicrosecond(Some(1_700_000_000_000_001), utc.clone()),
            ),
            (
                "n",
                ScalarValue::TimestampMicrosecond(Some(999), None),
                ScalarValue::TimestampMicrosecond(Some(1_001), None),
            ),
        ];
        let schema = Schema::new(
            fields.iter().map(|(n, v, _)| Field::new(*n, v.data_type(), true)).collect::<Vec<_>>(),
        );
        let columns = fields
            .iter()
            .map(|(n, min, max)| {
                (n.to_string(), Bounds { min: Some(min.clone()), max: Some(max.clone()), nulls: Some(2) })
            })
            .collect();
        let stats = FileStats { rows: 9, columns };
        let back = FileStats::parse(&stats.to_json(), &schema);
        assert_eq!(back.rows, 9);
        for (name, min, max) in &fields {
            let bounds = &back.columns[*name];
            assert!(bounds.min.as_ref().unwrap() <= min, "{name}: {bounds:?}");
            assert!(bounds.max.as_ref().unwrap() >= max, "{name}: {bounds:?}");
            assert_eq!(bounds.nulls, Some(2));
        }
    }

    #[test]
    fn foreign_or_broken_statistics_mean_unknown() {
        let fields =
            vec![Field::new("i", DataType::Int8, true), Field::new("m", DataType::Decimal128(4, 2), true)];
        let schema = Schema::new(fields);
        for text in ["", "[]", "{\"minValues\":{\"i\":1000}}", "{\"minValues\":{\"i\":\"x\",\"m\":1.005}}"] {
            assert_eq!(FileStats::parse(text, &schema), FileStats::default(), "{text}");
        }
    }
}
