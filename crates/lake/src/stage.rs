//! Batches become Parquet files that nobody sees yet.
//!
//! The rows of a call are brought into the table's columns, sorted by tenant and cluster
//! columns, so that a reader of one tenant skips most pages of a shared file, and written
//! with the cheapest compression that earns its keep.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, partition, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::schema::conform;
use crate::stats::FileStats;
use crate::types::TableSpec;

const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Small pages let the page index single out one tenant's rows.
const PAGE_ROWS: usize = 8 * 1024;
const TEXT_STATISTICS_BYTES: usize = 64;

/// A file before it has a name.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub bytes: Bytes,
    pub stats: FileStats,
    pub partition_values: BTreeMap<String, Option<String>>,
}

/// Encodes the batches into files of at most `file_rows` rows.
pub(crate) fn encode(
    spec: &TableSpec,
    batches: &[RecordBatch],
    file_rows: usize,
) -> Result<Vec<Encoded>, ArrowError> {
    let conformed: Vec<RecordBatch> = batches
        .iter()
        .filter(|batch| batch.num_rows() > 0)
        .map(|batch| conform(batch, &spec.schema))
        .collect::<Result<_, _>>()?;
    let mut files = Vec::new();
    for group in split_rows(&conformed, file_rows) {
        let rows = sorted(spec, &concat_batches(&spec.schema, &group)?)?;
        for (range, partition_values) in partitions(spec, &rows)? {
            files.push(write(&rows.slice(range.start, range.len()), &spec.schema, partition_values)?);
        }
    }
    Ok(files)
}

/// Groups of slices with at most `limit` rows each, in order.
fn split_rows(batches: &[RecordBatch], limit: usize) -> Vec<Vec<RecordBatch>> {
    let (mut groups, mut open, mut rows) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        let mut start = 0;
        while start < batch.num_rows() {
            let n = (limit - rows).min(batch.num_rows() - start);
            open.push(batch.slice(start, n));
            (start, rows) = (start + n, rows + n);
            if rows == limit {
                groups.push(std::mem::take(&mut open));
                rows = 0;
            }
        }
    }
    if !open.is_empty() {
        groups.push(open);
    }
    groups
}

fn sorted(spec: &TableSpec, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<SortColumn> = Vec::new();
    for name in spec.partition_by.iter().chain(&spec.tenant_column).chain(&spec.cluster_by) {
        if let Some(column) = rows.column_by_name(name) {
            columns.push(SortColumn { values: Arc::clone(column), options: None });
        }
    }
    // A leading column of one value (one tenant) orders nothing.
    while columns.first().is_some_and(|c| is_constant(&c.values)) {
        columns.remove(0);
    }
    if columns.is_empty() {
        return Ok(rows.clone());
    }
    let indices = lexsort_to_indices(&columns, None)?;
    if is_identity(&indices) { Ok(rows.clone()) } else { take_record_batch(rows, &indices) }
}

fn is_constant(values: &dyn Array) -> bool {
    let Ok(ranges) = partition(&[values.slice(0, values.len())]) else { return false };
    ranges.len() <= 1
}

fn is_identity(indices: &UInt32Array) -> bool {
    indices.values().iter().enumerate().all(|(i, &at)| i == at as usize)
}

type Partition = (Range<usize>, BTreeMap<String, Option<String>>);

/// Ranges of equal partition values of rows that are sorted by them.
fn partitions(spec: &TableSpec, rows: &RecordBatch) -> Result<Vec<Partition>, ArrowError> {
    if spec.partition_by.is_empty() {
        return Ok(vec![(0..rows.num_rows(), BTreeMap::new())]);
    }
    let columns: Vec<_> = spec.partition_by.iter().filter_map(|n| rows.column_by_name(n).cloned()).collect();
    let options = FormatOptions::default();
    let mut found = Vec::new();
    for range in partition(&columns)?.ranges() {
        let mut values = BTreeMap::new();
        for (name, column) in spec.partition_by.iter().zip(&columns) {
            let value = match column.is_null(range.start) {
                true => None,
                false => Some(ArrayFormatter::try_new(column, &options)?.value(range.start).to_string()),
            };
            values.insert(name.clone(), value);
        }
        found.push((range, values));
    }
    Ok(found)
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_truncate_length(Some(TEXT_STATISTICS_BYTES))
        .set_created_by("levada".to_owned())
        .build()
}

fn write(
    rows: &RecordBatch,
    schema: &SchemaRef,
    partition_values: BTreeMap<String, Option<String>>,
) -> Result<Encoded, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(schema), Some(properties()))?;
    writer.write(rows)?;
    let metadata = writer.close()?;
    let stats = FileStats::of_parquet(&metadata, schema)
        .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    Ok(Encoded { bytes: bytes.into(), stats, partition_values })
}
