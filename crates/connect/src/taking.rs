//! The blocking half of the reader: looks, takes, parses. One step at a time, each step leaving
//! the state complete, so that the asynchronous half may be cancelled between any two.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use levada_core::{Attributes, Clock, ReadError, Record, RecordBatchIn, Reject, attr};
use levada_disk::{Disk, DiskFile};

use crate::archive::ArchiveName;
use crate::gzip::Bounds;
use crate::ledger::Ledger;
use crate::listing::{self, Found, Looks};
use crate::metrics::Metrics;
use crate::position::{Current, Done, Position, VERSION};
use crate::reader::{ChangedFile, FileReaderConfig};
use crate::rows::{BadRow, Layout, Outcome, Rows, Start};
use crate::schedule::Schedule;
use crate::spool::Spool;

/// A look may take this share of the time (one part in so many), however many files there are.
const LOOK_SHARE: u32 = 20;
/// Bytes of a row before any row was read.
const ROW_BYTES_GUESS: u64 = 100;

/// What a step asks for or yields.
pub(crate) enum Step {
    Batch(RecordBatchIn),
    /// Keep the copy in bronze, then go on by [`Taking::archived`].
    Archive(ArchiveName, Arc<dyn DiskFile>),
    /// Get the copy back from bronze, then go on by [`Taking::refill`].
    Fetch(ArchiveName),
    /// Nothing to read before the next look.
    Idle,
}

/// The file at hand.
struct Open {
    current: Current,
    hash: blake3::Hash,
    archived: bool,
    rows: Option<Rows>,
}

pub(crate) struct Taking {
    config: FileReaderConfig,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    spool: Spool,
    schedule: Schedule,
    looks: Looks,
    /// Names that lay in the folder when the scheduled run began.
    run: Option<HashSet<String>>,
    queue: VecDeque<Found>,
    open: Option<Open>,
    next_look: Duration,
    rows_read: u64,
    bytes_read: u64,
    metrics: Metrics,
}

impl Taking {
    pub fn new(
        config: FileReaderConfig,
        disk: Arc<dyn Disk>,
        dir: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            ledger: Ledger::new(disk.clone(), dir.to_owned()),
            spool: Spool::new(disk, format!("{dir}/spool")),
            schedule: Schedule::new(config.source.schedule.as_deref())?,
            looks: Looks::default(),
            run: None,
            queue: VecDeque::new(),
            open: None,
            next_look: Duration::ZERO,
            rows_read: 0,
            bytes_read: 0,
            metrics: Metrics::new(config.pipeline.as_str()),
            config,
            clock,
        })
    }

    pub fn restore(&mut self, position: Option<&Position>) -> Result<(), ReadError> {
        let start = Position::default();
        let position = position.unwrap_or(&start);
        if position.version != VERSION {
            return Err(fatal(format!("the position has version {}, not {VERSION}", position.version)));
        }
        self.ledger.restore(position.ledger, &position.done)?;
        self.schedule.restore(position.last_run_ms);
        self.open = match &position.current {
            Some(current) => Some(Open::resume(current.clone())?),
            None => None,
        };
        self.spool.keep_only(self.open.as_ref().map(|open| &open.hash)).map_err(on_disk)?;
        self.queue.clear();
        self.looks = Looks::default();
        self.run = None;
        self.next_look = Duration::ZERO;
        Ok(())
    }

    pub fn position(&self) -> Position {
        let (ledger, done) = self.ledger.position();
        Position {
            version: VERSION,
            ledger,
            done: done.to_vec(),
            current: self.open.as_ref().map(|open| open.current.clone()),
            last_run_ms: self.schedule.last_run_ms(),
        }
    }

    /// Rows that lie ahead, guessed from their bytes.
    pub fn backlog(&self) -> u64 {
        let queued: u64 = self.queue.iter().map(|file| file.size).sum();
        let open = self.open.as_ref().map_or(0, |o| o.current.file.size.saturating_sub(o.current.offset));
        let row = self.bytes_read.checked_div(self.rows_read).unwrap_or(ROW_BYTES_GUESS).max(1);
        (queued + open).div_ceil(row)
    }

    /// The next batch, or what must happen first.
    pub fn step(&mut self, max_rows: usize, max_bytes: usize) -> Result<Step, ReadError> {
        self.ledger.tidy()?;
        loop {
            if self.open.is_some() {
                if let Some(step) = self.read_open(max_rows, max_bytes)? {
                    return Ok(step);
                }
            } else if let Some(found) = self.queue.pop_front() {
                if let Some(batch) = self.take(&found)? {
                    return Ok(Step::Batch(batch));
                }
            } else if !self.look()? {
                return Ok(Step::Idle);
            }
        }
    }

    /// The copy of the file at hand is in bronze.
    pub fn archived(&mut self) {
        if let Some(open) = &mut self.open {
            open.archived = true;
        }
    }

    /// The copy of the file at hand came back from bronze, or is not there.
    pub fn refill(&mut self, content: Option<Bytes>) -> Result<Option<RecordBatchIn>, ReadError> {
        let Some(open) = &self.open else { return Ok(None) };
        if let Some(bytes) = content
            && self.spool.refill(&open.hash, &bytes).map_err(on_disk)?
        {
            return Ok(None);
        }
        let path = self.config.folder.join(&open.current.file.name);
        if let Ok(found) = Found::stat(open.current.file.name.clone(), path)
            && found.size == open.current.file.size
            && self.spool.take(&found).map_err(on_disk)? == Some(open.hash)
        {
            return Ok(None);
        }
        self.give_up()
    }

    /// The rest of the file at hand is nowhere.
    fn give_up(&mut self) -> Result<Option<RecordBatchIn>, ReadError> {
        let Some(open) = self.open.take() else { return Ok(None) };
        if open.current.offset == 0 {
            // Not a row was read: if it comes again, it is taken again.
            return Ok(None);
        }
        let reason =
            format!("the file went away or changed before it was read on from line {}", open.current.line);
        let batch = self.reject_file(&open.current, "file-lost", reason);
        self.ledger.add(open.current.file)?;
        Ok(Some(batch))
    }

    fn read_open(&mut self, max_rows: usize, max_bytes: usize) -> Result<Option<Step>, ReadError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.rows.is_none() {
            let copy = self.spool.open(&open.hash, open.current.file.size).map_err(on_disk)?;
            let Some(copy) = copy else {
                return Ok(Some(Step::Fetch(archive_name(&self.config, &open.current))));
            };
            if !open.archived {
                return Ok(Some(Step::Archive(archive_name(&self.config, &open.current), copy)));
            }
            let Current { offset, line, closed, .. } = open.current;
            let start = Start { offset, line, closed };
            let layout = layout(&self.config, &open.current.file.name);
            open.rows = Some(Rows::open(copy, layout, start).map_err(on_disk)?);
        }
        let (batch, ended) = self.fill(max_rows, max_bytes)?;
        if ended {
            self.finish()?;
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()).map(Step::Batch))
    }

    fn fill(&mut self, max_rows: usize, max_bytes: usize) -> Result<(RecordBatchIn, bool), ReadError> {
        let open = self.open.as_mut().expect("called with a file at hand");
        let rows = open.rows.as_mut().expect("called with its rows open");
        let mut batch = RecordBatchIn {
            object: Some(open.current.object()),
            textual: self.config.source.format == levada_config::model::FileFormat::Csv,
            ..RecordBatchIn::default()
        };
        let (mut bytes, mut ended) = (0, false);
        let mut place = rows.place();
        while batch.records.len() + batch.rejects.len() < max_rows.max(1) && bytes < max_bytes.max(1) {
            match rows.next() {
                Ok(Outcome::Row(row)) => {
                    bytes += row.original.as_ref().unwrap_or(&row.body).len();
                    let mut record = record(&self.config, &open.current, row.line, row.body);
                    record.original = row.original;
                    batch.records.push(record);
                }
                Ok(Outcome::Bad(bad)) => {
                    bytes += bad.original.len();
                    batch.rejects.push(reject(&self.config, &open.current, bad));
                    if rows.is_over() {
                        ended = true;
                        break;
                    }
                }
                Ok(Outcome::End) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    // What was read before the disk failed still counts; the next read begins after it.
                    open.rows = None;
                    if batch.is_empty() {
                        return Err(on_disk(error));
                    }
                    break;
                }
            }
            place = rows.place();
        }
        let Start { offset, line, closed } = place;
        (open.current.offset, open.current.line, open.current.closed) = (offset, line, closed);
        self.rows_read += batch.records.len() as u64;
        self.bytes_read += bytes as u64;
        self.metrics.rows.increment(batch.records.len() as u64);
        self.metrics.rejects.increment(batch.rejects.len() as u64);
        Ok((batch, ended))
    }

    fn finish(&mut self) -> Result<(), ReadError> {
        if let Some(open) = self.open.take() {
            self.metrics.files.increment(1);
            self.metrics.bytes.increment(open.current.file.size);
            tracing::info!(pipeline = %self.config.pipeline, file = open.current.file.name, "file read");
            self.ledger.add(open.current.file)?;
            self.drop_copies();
        }
        Ok(())
    }

    /// Copies that are left behind cost room only; the next file's end tries again.
    fn drop_copies(&self) {
        if let Err(error) = self.spool.keep_only(None) {
            tracing::warn!(pipeline = %self.config.pipeline, %error, "a spooled copy stays behind");
        }
    }

    /// Takes a file that is complete; a batch when all there is to say is a reject.
    fn take(&mut self, found: &Found) -> Result<Option<RecordBatchIn>, ReadError> {
        let limit = self.config.limits.file_bytes;
        if found.size > limit {
            let current = self.current(found, &blake3::hash(b""));
            let reason = format!("the file has {} bytes, more than {limit}", found.size);
            self.ledger.add(current.file.clone())?;
            return Ok(Some(self.reject_file(&current, "file-too-large", reason)));
        }
        let Some(hash) = self.spool.take(found).map_err(on_disk)? else { return Ok(None) };
        let current = self.current(found, &hash);
        match self.ledger.get(&found.name) {
            Some(seen) if seen.hash == *hash.as_bytes() => {
                // Touched, not changed: remember the new times and look no further.
                self.ledger.add(current.file)?;
                self.drop_copies();
                Ok(None)
            }
            Some(_) if self.config.changed == ChangedFile::Reject => {
                let reason = "the file has changed since it was read; it is not read again, since no key tells \
                              its old rows from new ones: deliver new rows in a new file, or deduplicate by a key";
                self.ledger.add(current.file.clone())?;
                self.drop_copies();
                Ok(Some(self.reject_file(&current, "file-changed", reason.to_owned())))
            }
            _ => {
                self.open = Some(Open { current, hash, archived: false, rows: None });
                Ok(None)
            }
        }
    }

    /// Looks for files; false when there is none to take now.
    fn look(&mut self) -> Result<bool, ReadError> {
        let now = self.clock.monotonic();
        if now < self.next_look || !self.schedule.is_open(self.clock.now_ms()) {
            return Ok(false);
        }
        let mut found =
            listing::list(&self.config.folder, &self.config.source.pattern).map_err(|error| ReadError {
                message: format!("cannot list {}: {error}", self.config.folder.display()),
                retryable: true,
            })?;
        found.retain(|file| !self.is_done(file));
        if self.config.source.schedule.is_some() {
            let run = self.run.get_or_insert_with(|| found.iter().map(|file| file.name.clone()).collect());
            found.retain(|file| run.contains(&file.name));
        }
        let (stable, waiting) = self.looks.settle(found);
        if stable.is_empty() && waiting == 0 {
            self.schedule.close(self.clock.now_ms());
            self.run = None;
        }
        self.queue = stable.into();
        let took = self.clock.monotonic().saturating_sub(now);
        self.next_look = now + self.config.poll.max(took * LOOK_SHARE);
        Ok(!self.queue.is_empty())
    }

    fn is_done(&self, file: &Found) -> bool {
        let seen = self.ledger.get(&file.name);
        seen.is_some_and(|seen| (seen.size, seen.modified_ns) == (file.size, file.modified_ns))
    }

    /// The file about to be read, from its beginning.
    fn current(&self, found: &Found, hash: &blake3::Hash) -> Current {
        let file = Done {
            name: found.name.clone(),
            size: found.size,
            modified_ns: found.modified_ns,
            blake3: hash.to_hex().to_string(),
        };
        let again = self.ledger.get(&found.name).is_some();
        Current { file, arrived_ms: found.changed_ns / 1_000_000, line: 1, offset: 0, again, closed: false }
    }

    fn reject_file(&self, current: &Current, code: &'static str, reason: String) -> RecordBatchIn {
        self.metrics.rejects.increment(1);
        let description = serde_json::to_vec(&current.file).unwrap_or_default();
        let bad = BadRow { line: current.line, code, reason, original: description.into() };
        RecordBatchIn {
            object: Some(current.object()),
            rejects: vec![reject(&self.config, current, bad)],
            ..RecordBatchIn::default()
        }
    }
}

impl Open {
    fn resume(current: Current) -> Result<Self, ReadError> {
        let hash = blake3::Hash::from_hex(&current.file.blake3)
            .map_err(|error| fatal(format!("the position names a file by a broken hash: {error}")))?;
        // Archiving again what is archived costs one look and is right after any crash.
        Ok(Self { current, hash, archived: false, rows: None })
    }
}

fn layout(config: &FileReaderConfig, name: &str) -> Layout {
    let limits = &config.limits;
    Layout {
        format: config.source.format,
        gzip: is_gzip(config, name),
        record_bytes: limits.record_bytes,
        bounds: Bounds { bytes: limits.decompressed_bytes, ratio: limits.ratio },
    }
}

fn is_gzip(config: &FileReaderConfig, name: &str) -> bool {
    config.source.gzip.unwrap_or_else(|| name.ends_with(".gz"))
}

/// The bronze name ends as the lake expects of what it holds: `.gz` exactly when compressed.
fn archive_name(config: &FileReaderConfig, current: &Current) -> ArchiveName {
    let day = DateTime::<Utc>::from_timestamp_millis(current.arrived_ms).unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let name: String =
        current.file.name.replace(".events.ndjson", ".events_ndjson").chars().map(safe).collect();
    let name = &name[name.len().saturating_sub(160)..];
    let end = match (is_gzip(config, name), name.ends_with(".gz") || name.ends_with(".zst")) {
        (true, false) => ".gz",
        (false, true) => ".raw",
        _ => "",
    };
    ArchiveName {
        tenant: config.source.tenant.clone(),
        source: config.pipeline.clone(),
        date: day.format("%Y-%m-%d").to_string(),
        name: format!("{}-{name}{end}", &current.file.blake3[..12]),
    }
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

fn on_disk(error: io::Error) -> ReadError {
    ReadError { message: format!("the spool of the file source: {error}"), retryable: true }
}

fn fatal(message: String) -> ReadError {
    ReadError { message, retryable: false }
}
