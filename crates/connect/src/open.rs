//! The file at hand: its copy is archived, its rows are read from the copy, batch by batch.

use std::io;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use levada_config::model::FileFormat;
use levada_core::{Attributes, ReadError, Record, RecordBatchIn, Reject, attr};

use crate::archive::ArchiveName;
use crate::position::{Current, Done};
use crate::reader::FileReaderConfig;
use crate::rows::{BadRow, KEPT_OF_FILE_BYTES, Layout, Outcome, Rows};

pub(crate) struct Open {
    pub current: Current,
    /// Of what is copied.
    pub hash: blake3::Hash,
    pub archived: bool,
    pub rows: Option<Rows>,
}

/// How far a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There may be more.
    More,
    /// All was read.
    Ended,
    /// What is left may still be written.
    Held,
}

impl Open {
    pub fn new(current: Current) -> Result<Self, blake3::HexError> {
        let hash = blake3::Hash::from_hex(current.part_hash())?;
        // Archiving again what is archived costs one look and is right after any crash.
        Ok(Self { current, hash, archived: false, rows: None })
    }

    pub fn is_gzip(&self, config: &FileReaderConfig) -> bool {
        self.current.gzip.unwrap_or_else(|| says_gzip(config, &self.current.file.name))
    }

    pub fn layout(&self, config: &FileReaderConfig) -> Layout {
        config.layout(self.is_gzip(config), !self.current.open)
    }

    /// The next rows of the copy, which is open.
    pub fn fill(
        &mut self,
        config: &FileReaderConfig,
        max_rows: usize,
        max_bytes: usize,
    ) -> io::Result<(RecordBatchIn, Filled)> {
        let rows = self.rows.as_mut().expect("called with its rows open");
        let mut batch = RecordBatchIn {
            object: Some(self.current.object()),
            textual: config.source.format == FileFormat::Csv,
            ..RecordBatchIn::default()
        };
        let (mut bytes, mut filled) = (0, Filled::More);
        let mut place = (rows.place(), rows.tail());
        while batch.records.len() + batch.rejects.len() < max_rows.max(1) && bytes < max_bytes.max(1) {
            match rows.next() {
                Ok(Outcome::Row(row)) => {
                    bytes += row.original.as_ref().unwrap_or(&row.body).len();
                    let mut record = record(config, &self.current, row.line, row.body);
                    record.original = row.original;
                    batch.records.push(record);
                }
                Ok(Outcome::Bad(bad)) => {
                    bytes += bad.original.len();
                    let bad = if rows.is_refused() { of_whole(bad, &self.current.file) } else { bad };
                    batch.rejects.push(reject(config, &self.current, bad));
                }
                Ok(Outcome::End) => {
                    filled = Filled::Ended;
                    break;
                }
                Ok(Outcome::Held) => {
                    filled = Filled::Held;
                    break;
                }
                Err(error) => {
                    // What was read before the disk failed still counts; the next read begins after it.
                    self.rows = None;
                    if batch.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            }
            place = (rows.place(), rows.tail());
            if rows.is_over() {
                filled = Filled::Ended;
                break;
            }
        }
        let (start, tail) = place;
        self.current.offset = start.offset;
        self.current.line = start.line;
        self.current.closed = start.closed;
        self.current.tail = tail;
        Ok((batch, filled))
    }

    /// The bronze name ends as the lake expects of what it holds: `.gz` exactly when compressed.
    pub fn archive_name(&self, config: &FileReaderConfig) -> ArchiveName {
        let current = &self.current;
        let day = DateTime::<Utc>::from_timestamp_millis(current.arrived_ms).unwrap_or_default();
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
        let name: String =
            current.file.name.replace(".events.ndjson", ".events_ndjson").chars().map(safe).collect();
        let name = &name[name.len().saturating_sub(140)..];
        let end = match (self.is_gzip(config), name.ends_with(".gz") || name.ends_with(".zst")) {
            (true, false) => ".gz",
            (false, true) => ".raw",
            _ => "",
        };
        // Two parts of a file may have the same content.
        let from = if current.from > 0 { format!("+{}", current.from) } else { String::new() };
        ArchiveName {
            tenant: config.source.tenant.clone(),
            source: config.pipeline.clone(),
            date: day.format("%Y-%m-%d").to_string(),
            name: format!("{}{from}-{name}{end}", &current.part_hash()[..12]),
        }
    }
}

/// Whether the settings or the name say that a file is compressed.
pub(crate) fn says_gzip(config: &FileReaderConfig, name: &str) -> bool {
    config.source.gzip.unwrap_or_else(|| name.ends_with(".gz"))
}

/// Tells of a file as a whole.
pub(crate) fn reject_file(
    config: &FileReaderConfig,
    current: &Current,
    code: &'static str,
    reason: String,
) -> RecordBatchIn {
    let description = serde_json::to_vec(&current.file).unwrap_or_default();
    let bad = BadRow { line: current.line, code, reason, original: description.into() };
    RecordBatchIn {
        object: Some(current.object()),
        rejects: vec![reject(config, current, bad)],
        ..RecordBatchIn::default()
    }
}

pub(crate) fn fatal(message: String) -> ReadError {
    ReadError { message, retryable: false }
}

/// A file that is refused whole is told once; the letter keeps its beginning.
fn of_whole(bad: BadRow, file: &Done) -> BadRow {
    let what = if file.size > KEPT_OF_FILE_BYTES as u64 {
        format!("no row of its {} bytes is read, and bronze has all of them", file.size)
    } else {
        "no row of the file is read".to_owned()
    };
    BadRow { reason: format!("{} ({what})", bad.reason), ..bad }
}

fn record(config: &FileReaderConfig, current: &Current, line: u64, body: Bytes) -> Record {
    let mut attributes = Attributes::new();
    attributes.push(attr::EVENT_ID, &format!("{}-{line}", &current.file.blake3[..16]));
    Record {
        tenant: config.source.tenant.clone(),
        offset: line,
        published_at_ms: current.arrived_ms,
        attributes,
        body,
        original: None,
    }
}

fn reject(config: &FileReaderConfig, current: &Current, bad: BadRow) -> Reject {
    let record = record(config, current, bad.line, bad.original);
    Reject { record, code: bad.code, reason: bad.reason }
}
