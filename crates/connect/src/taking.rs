//! The blocking half of the reader: looks, takes, parses. One step at a time, each step leaving
//! the state complete, so that the asynchronous half may be cancelled between any two.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_config::model::FileFormat;
use levada_core::{Clock, ReadError, RecordBatchIn};
use levada_disk::{Disk, DiskFile};

use crate::archive::ArchiveName;
use crate::arrivals::Arrivals;
use crate::ledger::{Ledger, Seen};
use crate::listing::{self, Found};
use crate::looks::{Looks, Now, Ripe, Settle};
use crate::metrics::Metrics;
use crate::open::{Filled, Open, fatal, reject_file, says_gzip};
use crate::part::{self, Judged, TAIL_BYTES};
use crate::position::{Current, Done, OLDEST_VERSION, Position, VERSION};
use crate::reader::{ChangedFile, FileReaderConfig};
use crate::rows::{Rows, sniff};
use crate::schedule::Schedule;
use crate::spool::{Copied, FileRead, Spool, Want};

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

pub(crate) struct Taking {
    config: FileReaderConfig,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    spool: Spool,
    schedule: Schedule,
    looks: Looks,
    arrivals: Arrivals,
    /// What this reader expects of a file: one that another reader refused may suit it.
    judges_by: u32,
    /// Names that lay in the folder when the scheduled run began.
    run: Option<HashSet<String>>,
    queue: VecDeque<Ripe>,
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
            arrivals: Arrivals::default(),
            judges_by: config.judges_by(),
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
        if !(OLDEST_VERSION..=VERSION).contains(&position.version) {
            return Err(fatal(format!("the position has version {}, not {VERSION}", position.version)));
        }
        self.ledger.restore(position.ledger, &position.done)?;
        self.schedule.restore(position.last_run_ms);
        self.open = match &position.current {
            Some(current) => Some(
                Open::new(current.clone())
                    .map_err(|error| fatal(format!("the position names a file by a broken hash: {error}")))?,
            ),
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
        let queued: u64 = self.queue.iter().map(|ripe| ripe.found.size).sum();
        let open = self.open.as_ref().map_or(0, |o| o.current.part_bytes().saturating_sub(o.current.offset));
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
            } else if let Some(ripe) = self.queue.pop_front() {
                if let Some(batch) = self.take(&ripe)? {
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
        let want = Want { from: open.current.from, ..Want::default() };
        if let Ok(found) = Found::stat(open.current.file.name.clone(), path)
            && found.size == open.current.file.size
            && self.spool.take(&found, want).map_err(on_disk)?.is_some_and(|copied| copied.part == open.hash)
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
        self.ledger.add(open.current.done(None, false, None))?;
        Ok(Some(batch))
    }

    fn read_open(&mut self, max_rows: usize, max_bytes: usize) -> Result<Option<Step>, ReadError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.rows.is_none() {
            let copy = self.spool.open(&open.hash, open.current.part_bytes()).map_err(on_disk)?;
            let Some(copy) = copy else {
                return Ok(Some(Step::Fetch(open.archive_name(&self.config))));
            };
            if !open.archived {
                return Ok(Some(Step::Archive(open.archive_name(&self.config), copy)));
            }
            let layout = open.layout(&self.config);
            open.rows = Some(Rows::open(copy, &layout, &open.current.origin()).map_err(on_disk)?);
        }
        let (batch, filled) = open.fill(&self.config, max_rows, max_bytes).map_err(on_disk)?;
        self.count(&batch);
        if filled != Filled::More {
            self.finish(filled == Filled::Held)?;
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()).map(Step::Batch))
    }

    fn count(&mut self, batch: &RecordBatchIn) {
        let rows = batch.records.iter().map(|record| record.original().len() as u64);
        self.bytes_read += rows.sum::<u64>();
        self.rows_read += batch.records.len() as u64;
        self.metrics.rows.increment(batch.records.len() as u64);
        self.metrics.rejects.increment(batch.rejects.len() as u64);
    }

    /// All was read of the file at hand that can be: its end may be held back.
    fn finish(&mut self, held: bool) -> Result<(), ReadError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Some(rows) = &open.rows else { return Ok(()) };
        let (pipeline, name) = (&self.config.pipeline, open.current.file.name.as_str());
        if held {
            tracing::info!(%pipeline, file = name, "file read up to an unfinished end");
            self.looks.unfinished(name);
        } else {
            tracing::info!(%pipeline, file = name, "file read");
            self.metrics.files.increment(1);
        }
        self.metrics.bytes.increment(open.current.part_bytes());
        let done = if rows.is_refused() {
            open.current.done(None, false, Some(self.judges_by))
        } else {
            let next = open.current.next(rows.resume(), open.is_gzip(&self.config));
            open.current.done(Some(next), held, None)
        };
        self.ledger.add(done)?;
        self.drop_copies();
        Ok(())
    }

    /// Copies that are left behind cost room only; the next file's end tries again.
    fn drop_copies(&self) {
        if let Err(error) = self.spool.keep_only(None) {
            tracing::warn!(pipeline = %self.config.pipeline, %error, "a spooled copy stays behind");
        }
    }

    /// Takes a file that is ripe; a batch when all there is to say is a reject.
    fn take(&mut self, ripe: &Ripe) -> Result<Option<RecordBatchIn>, ReadError> {
        let found = &ripe.found;
        let seen = self.ledger.get(&found.name);
        let limit = self.config.limits.file_bytes;
        if found.size > limit {
            let current = current(found, &blake3::hash(b""), seen.is_some());
            let reason = format!("the file has {} bytes, more than {limit}", found.size);
            let batch = self.reject_file(&current, "file-too-large", reason);
            self.ledger.add(current.file)?;
            return Ok(Some(batch));
        }
        let Some((head, tail)) = edges(found) else { return Ok(None) };
        if !ripe.complete && seen.is_some_and(|seen| seen.held && seen.size == found.size) {
            // After a restart: its rest still waits for its end.
            self.looks.unfinished(&found.name);
            return Ok(None);
        }
        let kind = sniff::kind(&head);
        let is_gzip = kind == sniff::Kind::Gzip;
        let json = self.config.source.format == FileFormat::Json;
        // What is no text is refused without waiting for its end.
        if !ripe.complete && kind == sniff::Kind::Text && !sniff::may_end(&tail, json) {
            self.looks.unfinished(&found.name);
            return Ok(None);
        }
        let want = part::want(seen.as_ref(), found.size, self.config.limits.record_bytes);
        let Some(copied) = self.spool.take(found, want).map_err(on_disk)? else { return Ok(None) };
        if !ripe.complete && is_gzip && !self.gzip_may_end(&copied, found.size - want.from)? {
            self.looks.unfinished(&found.name);
            self.drop_copies();
            return Ok(None);
        }
        let again = seen.is_some_and(|seen| seen.again);
        let mut current = current(found, &copied.whole, again);
        current.open = !ripe.complete;
        current.gzip = Some(is_gzip || (!head.is_empty() && says_gzip(&self.config, &found.name)));
        match part::judge(seen.as_ref(), found.size, &copied) {
            Judged::Fresh => {
                current.file.again |= seen.is_some_and(|seen| &seen.hash != copied.whole.as_bytes());
                self.read_from_now(current)
            }
            Judged::Grown(next) => {
                current.goes_on_at(next, &copied);
                if next.from > 0 && !json {
                    let layout = self.config.layout(current.gzip == Some(true), true);
                    current.header = part::header(&copied, &layout).map_err(on_disk)?;
                }
                self.read_from_now(current)
            }
            Judged::Touched => {
                // Remember the new times and look no further.
                current.file.next = seen.and_then(|seen| seen.next);
                self.ledger.add(current.file)?;
                self.drop_copies();
                Ok(None)
            }
            Judged::Changed => self.changed(found, current, want),
        }
    }

    fn read_from_now(&mut self, current: Current) -> Result<Option<RecordBatchIn>, ReadError> {
        let open = Open::new(current).map_err(|error| fatal(error.to_string()))?;
        self.open = Some(open);
        Ok(None)
    }

    /// Other content lies under the name of a file that was read.
    fn changed(
        &mut self,
        found: &Found,
        mut current: Current,
        want: Want,
    ) -> Result<Option<RecordBatchIn>, ReadError> {
        current.file.again = true;
        if self.config.changed == ChangedFile::Reject {
            let reason = "the file has changed since it was read; it is not read again, since no key tells \
                          its old rows from new ones: deliver new rows in a new file or append them, or \
                          deduplicate by a key";
            let batch = self.reject_file(&current, "file-changed", reason.to_owned());
            self.ledger.add(current.file)?;
            self.drop_copies();
            return Ok(Some(batch));
        }
        if want.from > 0 {
            // Only what would have been appended was copied.
            let Some(copied) = self.spool.take(found, Want::default()).map_err(on_disk)? else {
                return Ok(None);
            };
            current.file.blake3 = copied.whole.to_hex().to_string();
        }
        self.read_from_now(current)
    }

    fn gzip_may_end(&self, copied: &Copied, bytes: u64) -> Result<bool, ReadError> {
        let json = self.config.source.format == FileFormat::Json;
        let Some(copy) = self.spool.open(&copied.part, bytes).map_err(on_disk)? else { return Ok(false) };
        part::gzip_may_end(FileRead::new(copy), &self.config.layout(true, false), json).map_err(on_disk)
    }

    /// Looks for files; false when there is none to take now.
    fn look(&mut self) -> Result<bool, ReadError> {
        let now = self.clock.monotonic();
        if now < self.next_look || !self.schedule.is_open(self.clock.now_ms()) {
            return Ok(false);
        }
        // Notices first: what a rename brings after them is seen at the next look.
        let moved = self.arrivals.take();
        let listing =
            listing::list(&self.config.folder, &self.config.source.pattern).map_err(|error| ReadError {
                message: format!("cannot list {}: {error}", self.config.folder.display()),
                retryable: true,
            })?;
        self.arrivals.watch(&listing.folders);
        let mut found = listing.files;
        found.retain(|file| !self.is_done(file));
        if self.config.source.schedule.is_some() {
            let run = self.run.get_or_insert_with(|| found.iter().map(|file| file.name.clone()).collect());
            found.retain(|file| run.contains(&file.name));
        }
        let settle = Settle { rest: self.config.source.settle, end: self.config.source.settle_end };
        let moment = Now { monotonic: now, ms: self.clock.now_ms() };
        let (ripe, waiting) = self.looks.settle(found, &moved, moment, settle);
        self.metrics.waiting.set(waiting as f64);
        if ripe.is_empty() && waiting == 0 {
            self.schedule.close(self.clock.now_ms());
            self.run = None;
        }
        self.queue = ripe.into();
        let took = self.clock.monotonic().saturating_sub(now);
        self.next_look = now + self.config.poll.max(took * LOOK_SHARE);
        Ok(!self.queue.is_empty())
    }

    /// Whether nothing is left to read of the file as it lies there.
    fn is_done(&self, file: &Found) -> bool {
        let Some(Seen { size, modified_ns, held, refused, .. }) = self.ledger.get(&file.name) else {
            return false;
        };
        let is_same = (size, modified_ns) == (file.size, file.modified_ns);
        is_same && !held && refused.is_none_or(|judged| judged == self.judges_by)
    }

    fn reject_file(&self, current: &Current, code: &'static str, reason: String) -> RecordBatchIn {
        self.metrics.rejects.increment(1);
        reject_file(&self.config, current, code, reason)
    }
}

/// The file about to be read, from its beginning.
fn current(found: &Found, hash: &blake3::Hash, again: bool) -> Current {
    let file = Done {
        name: found.name.clone(),
        size: found.size,
        modified_ns: found.modified_ns,
        blake3: hash.to_hex().to_string(),
        next: None,
        held: false,
        again,
        refused: None,
    };
    Current {
        file,
        arrived_ms: found.changed_ns / 1_000_000,
        from: 0,
        part: None,
        header: None,
        gzip: None,
        open: false,
        line: 1,
        offset: 0,
        array: false,
        closed: false,
        tail: 0,
    }
}

/// The first and the last bytes of the landing file; `None` when it cannot be read now.
fn edges(found: &Found) -> Option<(Vec<u8>, Vec<u8>)> {
    let file = File::open(&found.path).ok()?;
    let read = |offset: u64, most: usize| {
        let mut bytes = vec![0; most];
        let n = file.read_at(&mut bytes, offset).ok()?;
        bytes.truncate(n);
        Some(bytes)
    };
    let tail = found.size.saturating_sub(TAIL_BYTES as u64);
    Some((read(0, sniff::HEAD_BYTES)?, read(tail, TAIL_BYTES)?))
}

fn on_disk(error: io::Error) -> ReadError {
    ReadError { message: format!("the spool of the file source: {error}"), retryable: true }
}
