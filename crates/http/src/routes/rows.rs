//! Rows of a query as bytes, a few at a time, with the room that they need known before.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::csv::WriterBuilder;
use arrow::datatypes::DataType;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use arrow::record_batch::RecordBatch;
use levada_core::Problem;

use crate::answers::Draft;
use crate::routes::reals::Reals;

/// Rows that are written in one go, and the bytes that they may come to.
const STEP_ROWS: usize = 256;
const STEP_BYTES: usize = 64 << 10;
/// No number, time or interval is longer as text, with the signs around it.
const PLAIN_BYTES: usize = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// A batch of which rows are still to be written.
pub(super) struct Rows {
    batch: RecordBatch,
    at: usize,
}

/// How an attempt to write rows ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    All,
    /// As much as a piece should have.
    Enough,
    /// The next row needs so many bytes more than there is room for.
    Wants(usize),
}

impl Rows {
    pub fn new(batch: RecordBatch) -> Self {
        Self { batch, at: 0 }
    }

    /// Writes rows until the draft has `enough` bytes, or has no room for the next ones. `written`
    /// counts the rows of the whole answer.
    ///
    /// # Errors
    /// `result-unwritable`.
    pub fn write(
        &mut self,
        draft: &mut Draft,
        format: Format,
        enough: usize,
        written: &mut u64,
    ) -> Result<Wrote, Problem> {
        let (batch, options) = (self.batch.clone(), options());
        let mut encoders = match format {
            Format::Json => encoders(&batch, &options)?,
            Format::Csv => Vec::new(),
        };
        while self.at < batch.num_rows() {
            if draft.len() >= enough {
                return Ok(Wrote::Enough);
            }
            let (rows, bytes) = self.step(format);
            if draft.reserve(bytes).is_err() {
                return Ok(Wrote::Wants(bytes));
            }
            match format {
                Format::Json => write_json(draft.out(), &mut encoders, self.at, rows, *written > 0),
                Format::Csv => write_csv(draft.out(), &batch.slice(self.at, rows), false)?,
            }
            self.at += rows;
            *written += rows as u64;
        }
        Ok(Wrote::All)
    }

    /// How many rows to write next, and the room that they need.
    fn step(&self, format: Format) -> (usize, usize) {
        let mut rows = (self.batch.num_rows() - self.at).min(STEP_ROWS);
        loop {
            let bytes = self.bytes(rows, format);
            if bytes <= STEP_BYTES || rows == 1 {
                return (rows, bytes);
            }
            rows = (rows * STEP_BYTES / bytes).clamp(1, rows - 1);
        }
    }

    fn bytes(&self, rows: usize, format: Format) -> usize {
        let (start, end) = (self.at, self.at + rows);
        let columns = self.batch.columns().iter();
        match format {
            // A quote is written as two. Each cell is made as a text, and its row once more.
            Format::Csv => columns.map(|column| written(column, start, end).saturating_mul(5)).sum(),
            Format::Json => columns.map(|column| json_bytes(column, start, end)).sum::<usize>() + 2 * rows,
        }
    }
}

/// A control character is written as six. Where that matters, they are counted.
fn json_bytes(column: &ArrayRef, start: usize, end: usize) -> usize {
    let bytes = written(column, start, end);
    if end - start > 1 || bytes <= STEP_BYTES {
        return bytes.saturating_mul(6);
    }
    let text = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(start),
        DataType::LargeUtf8 => column.as_string::<i64>().value(start),
        DataType::Utf8View => column.as_string_view().value(start),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => return bytes.saturating_mul(2),
        _ => return bytes.saturating_mul(6),
    };
    let escaped: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum();
    escaped + PLAIN_BYTES
}

/// Bytes of some values as texts without escapes, at most.
fn written(array: &ArrayRef, start: usize, end: usize) -> usize {
    let plain = (end - start) * PLAIN_BYTES;
    let of_views = |views: &[u128]| views[start..end].iter().map(|view| *view as u32 as usize).sum::<usize>();
    let beside = match array.data_type() {
        DataType::Utf8 => between(array.as_string::<i32>().value_offsets(), start, end),
        DataType::LargeUtf8 => between(array.as_string::<i64>().value_offsets(), start, end),
        DataType::Binary => between(array.as_binary::<i32>().value_offsets(), start, end),
        DataType::LargeBinary => between(array.as_binary::<i64>().value_offsets(), start, end),
        DataType::Utf8View => of_views(array.as_string_view().views()),
        DataType::BinaryView => of_views(array.as_binary_view().views()),
        DataType::FixedSizeBinary(width) => (end - start) * usize::try_from(*width).unwrap_or(0),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            of_list(list.values(), list.value_offsets(), start, end)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            of_list(list.values(), list.value_offsets(), start, end)
        }
        DataType::FixedSizeList(_, length) => {
            let length = usize::try_from(*length).unwrap_or(0);
            written(array.as_fixed_size_list().values(), start * length, end * length)
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            of_list(map.keys(), offsets, start, end) + of_list(map.values(), offsets, start, end)
        }
        DataType::Struct(fields) => {
            let names: usize = fields.iter().map(|field| field.name().len() + 4).sum();
            let columns = array.as_struct().columns().iter();
            (end - start) * names + columns.map(|column| written(column, start, end)).sum::<usize>()
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let keys = dictionary.normalized_keys();
            let value = |row: usize| match keys.get(row) {
                Some(key) if !array.is_null(row) => written(dictionary.values(), *key, key + 1),
                _ => 0,
            };
            (start..end).map(value).sum()
        }
        other if other.primitive_width().is_some() || matches!(other, DataType::Null | DataType::Boolean) => {
            0
        }
        // Nothing that queries come to; never less than all of it.
        _ => (end - start).saturating_mul(array.get_buffer_memory_size()),
    };
    plain.saturating_add(beside)
}

fn between<O: OffsetSizeTrait>(offsets: &[O], start: usize, end: usize) -> usize {
    offsets[end].as_usize() - offsets[start].as_usize()
}

fn of_list<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O], start: usize, end: usize) -> usize {
    written(values, offsets[start].as_usize(), offsets[end].as_usize())
}

fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Reals))
}

fn encoders<'a>(
    batch: &'a RecordBatch,
    options: &'a EncoderOptions,
) -> Result<Vec<NullableEncoder<'a>>, Problem> {
    let schema = batch.schema_ref();
    let columns = schema.fields().iter().zip(batch.columns());
    columns
        .map(|(field, column)| make_encoder(field, column.as_ref(), options))
        .collect::<Result<_, _>>()
        .map_err(|e| unwritable(&e))
}

/// Rows as JSON lists, in the order of the columns.
fn write_json(
    out: &mut Vec<u8>,
    columns: &mut [NullableEncoder<'_>],
    start: usize,
    rows: usize,
    after_others: bool,
) {
    for row in start..start + rows {
        if after_others || row > start {
            out.push(b',');
        }
        out.push(b'[');
        for (n, column) in columns.iter_mut().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            if column.is_null(row) {
                out.extend_from_slice(b"null");
            } else {
                column.encode(row, out);
            }
        }
        out.push(b']');
    }
}

/// Rows as CSV, or the names of the columns.
///
/// # Errors
/// `result-unwritable`.
pub(super) fn write_csv(out: &mut Vec<u8>, batch: &RecordBatch, header: bool) -> Result<(), Problem> {
    let mut writer = WriterBuilder::new().with_header(header).build(out);
    writer.write(batch).map_err(|e| unwritable(&e))
}

fn unwritable(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(422, "result-unwritable", format!("a column of the result cannot be written: {error}"))
        .hint("cast it to a text or select its parts")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, Int32Array, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    };
    use arrow::datatypes::{Field, Int32Type, Int64Type};

    use super::*;

    /// Columns whose texts are as long as they can be for their bytes.
    fn columns() -> Vec<ArrayRef> {
        let texts = ["\u{1}".repeat(40_000), "\"".repeat(700), String::new(), "plain".repeat(20_000)];
        let values: ArrayRef = Arc::new(StringArray::from_iter_values(["\u{2}".repeat(5_000), "x".into()]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(1)]));
        let lists = (0..4).map(|n| Some(vec![Some(i64::MIN); n * 50]));
        let texts_view: ArrayRef = Arc::new(StringViewArray::from_iter_values(&texts));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
        let field = |array: &ArrayRef| Arc::new(Field::new("a name", array.data_type().clone(), true));
        vec![
            Arc::new(StructArray::from(vec![(field(&texts), texts.clone())])),
            Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0, 0, 1, 0]), values)),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
            numbers,
            texts_view,
            texts,
        ]
    }

    #[test]
    fn the_room_of_rows_is_never_less_than_what_is_written() {
        for column in columns() {
            let name = column.data_type().to_string();
            let batch = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).expect("a batch");
            let options = options();
            let mut encoders = encoders(&batch, &options).expect("encoders");
            for (at, rows) in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 4), (1, 3)] {
                let mut out = Vec::new();
                write_json(&mut out, &mut encoders, at, rows, true);
                let room = Rows { batch: batch.clone(), at }.bytes(rows, Format::Json);
                assert!(out.len() <= room, "{name} from {at}: {rows} rows are {} bytes of {room}", out.len());
            }
        }
    }

    #[test]
    fn wide_rows_are_written_one_by_one_and_narrow_ones_together() {
        let wide: ArrayRef = Arc::new(StringArray::from_iter_values(vec!["x".repeat(60_000); 3]));
        let batch = RecordBatch::try_from_iter([("x", wide)]).expect("a batch");
        let step = Rows::new(batch).step(Format::Json);
        assert!(step.0 == 1 && step.1 < 400_000, "{step:?}");
        let narrow: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let batch = RecordBatch::try_from_iter([("x", narrow)]).expect("a batch");
        assert!(Rows::new(batch).step(Format::Json).0 > 50);
    }
}
