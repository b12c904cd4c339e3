//! Lines of one object as record batches, a few thousand at a time.
//!
//! Reading is synchronous and streams: an object of any size is decompressed and parsed
//! within the memory of one batch and one line.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::{Date32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use chrono::{DateTime, NaiveDate};
use levada_disk::{Disk, DiskFile, OpenMode};

use super::EVENTS;
use super::envelope::Line;

const BATCH_ROWS: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;
/// A longer line is an error: it would not fit a query's memory either.
const LINE_BYTES: u64 = 64 << 20;
const READ_BYTES: usize = 256 << 10;

/// Columns of every bronze table.
pub(crate) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("tenant_id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("date", DataType::Date32, false),
        Field::new("object", DataType::Utf8, false),
        Field::new("line", DataType::Int64, false),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("event_type", DataType::Utf8, true),
        Field::new("event_time", time.clone(), true),
        Field::new("published_at", time, true),
        Field::new("attributes", DataType::Utf8, true),
        Field::new("payload", DataType::Utf8, true),
    ]))
}

/// An object of bronze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub tenant: String,
    pub source: String,
    pub date: String,
    pub name: String,
    /// On the disk.
    pub path: String,
}

impl Object {
    pub fn day(&self) -> Option<i32> {
        let date: NaiveDate = self.date.parse().ok()?;
        i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }
}

/// Reads a file from its start.
struct DiskReader {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Read for DiskReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // So that no fault of the disk is taken for one of what the file holds.
        let n = self.file.read_at(self.offset, buffer).map_err(io::Error::other)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// The batches of an object.
pub(super) struct Batches {
    object: Object,
    lines: Box<dyn BufRead + Send>,
    events: bool,
    line: i64,
    done: bool,
}

impl Batches {
    pub fn open(disk: &dyn Disk, object: Object) -> io::Result<Self> {
        let file = disk.open(&object.path, OpenMode::Read)?;
        let mut raw = BufReader::with_capacity(READ_BYTES, DiskReader { file, offset: 0 });
        // No stream at all has no lines, though a decompressor calls it cut short.
        let is_empty = raw.fill_buf()?.is_empty();
        let (name, lines): (&str, Box<dyn BufRead + Send>) = match object.name.rsplit_once('.') {
            Some((name, "gz" | "zst")) if is_empty => (name, Box::new(raw)),
            Some((name, "gz")) => (name, Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw)))),
            Some((name, "zst")) => (name, Box::new(BufReader::new(zstd::Decoder::with_buffer(raw)?))),
            _ => (object.name.as_str(), Box::new(raw)),
        };
        let events = name.ends_with(EVENTS);
        Ok(Self { events, object, lines, line: 0, done: false })
    }

    fn next_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        let n = (&mut self.lines).take(LINE_BYTES).read_until(b'\n', buffer)?;
        if n as u64 == LINE_BYTES && buffer.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 MiB"));
        }
        if buffer.last() == Some(&b'\n') {
            buffer.pop();
            if buffer.last() == Some(&b'\r') {
                buffer.pop();
            }
        }
        Ok(n > 0)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut rows = Rows::default();
        let mut buffer = Vec::new();
        while rows.count < BATCH_ROWS && rows.bytes < BATCH_BYTES {
            let more = match self.next_line(&mut buffer) {
                Ok(more) => more,
                Err(error) if !self.events && is_content_fault(&error) => {
                    // A landed file is kept as it came, broken ones too: one of them must not hide
                    // all others. Its dead letter tells the same.
                    tracing::warn!(object = %self.object.name, line = self.line + 1, %error, "bronze object breaks off");
                    rows.push_break(self.line + 1);
                    self.done = true;
                    break;
                }
                Err(error) => {
                    let what = format!("object {}: {error}", self.object.name);
                    return Err(ArrowError::IoError(what, error));
                }
            };
            if !more {
                self.done = true;
                break;
            }
            self.line += 1;
            if buffer.is_empty() {
                continue;
            }
            rows.push(self.line, &String::from_utf8_lossy(&buffer), self.events);
        }
        if rows.count == 0 { Ok(None) } else { rows.finish(&self.object).map(Some) }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.next_batch().transpose();
        self.done |= matches!(batch, Some(Err(_)));
        batch
    }
}

/// Whether a read failed because of what the object holds, not because of the disk.
fn is_content_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

#[derive(Default)]
struct Rows {
    count: usize,
    bytes: usize,
    line: Int64Builder,
    event_id: StringBuilder,
    event_type: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    published_at: TimestampMicrosecondBuilder,
    attributes: StringBuilder,
    payload: StringBuilder,
}

impl Rows {
    fn push(&mut self, line: i64, text: &str, events: bool) {
        self.count += 1;
        self.bytes += text.len();
        self.line.append_value(line);
        // A damaged line of an archive is still shown, as it is.
        let parsed = if events { serde_json::from_str::<Line<'_>>(text).ok() } else { None };
        let Some(event) = parsed else {
            self.event_id.append_null();
            self.event_type.append_null();
            self.event_time.append_null();
            self.published_at.append_null();
            self.attributes.append_null();
            self.payload.append_value(text);
            return;
        };
        let time = event.timestamp.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok());
        self.event_id.append_option(event.event_id.as_deref());
        self.event_type.append_option(event.event_type.as_deref());
        self.event_time.append_option(time.map(|t| t.timestamp_micros()));
        self.published_at.append_option(event.published_at.and_then(|ms| ms.checked_mul(1000)));
        self.attributes.append_option(event.attributes.map(|raw| raw.get()));
        self.payload.append_option(event.payload_text());
    }

    /// A line without a payload: from here on the object cannot be read.
    fn push_break(&mut self, line: i64) {
        self.count += 1;
        self.line.append_value(line);
        self.event_id.append_null();
        self.event_type.append_null();
        self.event_time.append_null();
        self.published_at.append_null();
        self.attributes.append_null();
        self.payload.append_null();
    }

    fn finish(mut self, object: &Object) -> Result<RecordBatch, ArrowError> {
        let mut date = Date32Builder::with_capacity(self.count);
        date.append_value_n(object.day().unwrap_or_default(), self.count);
        let same = |text: &str| {
            let mut builder = StringBuilder::with_capacity(self.count, self.count * text.len());
            (0..self.count).for_each(|_| builder.append_value(text));
            Arc::new(builder.finish())
        };
        RecordBatch::try_new(
            schema(),
            vec![
                same(&object.tenant),
                same(&object.source),
                Arc::new(date.finish()),
                same(&object.name),
                Arc::new(self.line.finish()),
                Arc::new(self.event_id.finish()),
                Arc::new(self.event_type.finish()),
                Arc::new(self.event_time.finish().with_timezone("UTC")),
                Arc::new(self.published_at.finish().with_timezone("UTC")),
                Arc::new(self.attributes.finish()),
                Arc::new(self.payload.finish()),
            ],
        )
    }
}
