//! Archives the events of a topic to the bronze zone, beside the pipeline and at its own pace.
//!
//! An archive wants few, large objects and one per tenant, a pipeline wants to be quick; so
//! bronze reads the topic by a cursor of its own. An object that was written cannot be taken
//! back, and its name and content must not depend on when a crash came. Therefore the manifest
//! is written first: it fixes the range of an epoch, and after a crash the same records are
//! read again and make the same objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use levada_config::model::Owner;
use levada_core::{Record, RecordReader, SourceName, TenantId, attr};
use levada_disk::Disk;
use levada_lake::bronze::{Envelope, Payload, compress, encode_line};
use levada_lake::{BronzeObject, Lake, LakeError};
use serde::de::IgnoredAny;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::commit::{RETRY, blocking};
use crate::error::FlowError;
use crate::journal::Journal;
use crate::manifest::{Manifest, Meta, Totals};
use crate::memory::EpochMemory;
use crate::names;
use crate::shares::{Shares, records_by_tenant};
use crate::status::Cell;
use crate::steps::enrich::Jitter;

const ROWS: usize = 16_384;
const READ_BYTES: usize = 16 << 20;
/// What one archive epoch holds in memory, before compression.
const EPOCH_BYTES: u64 = 128 << 20;
/// What a record holds beside its body, attributes included.
const RECORD_BYTES: usize = 512;
/// While events keep coming, an archive epoch lasts this long (or the pipeline's epoch, where
/// that is longer): an archive of many small objects serves nobody.
const INTERVAL: Duration = Duration::from_secs(10);
/// Objects written at once, so that their syncs share the disk's journal.
const CONCURRENCY: usize = 16;
const IDLE: Duration = Duration::from_secs(3600);

/// What the archiver runs on.
pub struct Archiver {
    pub cell: Arc<Cell>,
    pub lake: Lake,
    pub disk: Arc<dyn Disk>,
    pub jitter: Jitter,
    pub reader: Box<dyn RecordReader>,
    pub stop: watch::Receiver<bool>,
    pub(crate) memory: EpochMemory,
    /// Records in bronze, and whose they are: as of the last manifest.
    pub records: u64,
    pub shares: Arc<Shares>,
}

/// The range of one archive epoch and its records.
struct Range {
    epoch: u64,
    from: Option<serde_json::Value>,
    records: Vec<Record>,
    bytes: u64,
    held_bytes: usize,
    opened: Option<Instant>,
}

impl Range {
    fn new(epoch: u64, from: Option<serde_json::Value>) -> Self {
        Self { epoch, from, records: Vec::new(), bytes: 0, held_bytes: 0, opened: None }
    }

    fn add(&mut self, records: Vec<Record>) {
        if !records.is_empty() {
            self.opened.get_or_insert_with(Instant::now);
        }
        let bytes: usize = records.iter().map(|r| r.body.len()).sum();
        self.bytes += bytes as u64;
        self.held_bytes += bytes + records.len() * RECORD_BYTES;
        self.records.extend(records);
    }
}

impl Archiver {
    /// Archives until told to stop, from where the last manifest left off.
    ///
    /// # Errors
    /// [`FlowError`]; another run continues.
    pub async fn run(mut self) -> Result<(), FlowError> {
        let dir = names::bronze_dir(self.cell.pipeline());
        let disk = Arc::clone(&self.disk);
        let (journal, recovered) = blocking(move || Journal::open(disk, &dir)).await?;
        let journal = Arc::new(journal);
        let mut epoch = 0;
        let mut position = None;
        if let Some(last) = recovered.last {
            epoch = last.meta.epoch;
            (self.records, self.shares) = (last.meta.totals.records_in, last.shares);
            if !recovered.settled {
                self.repeat(&journal, &last.meta).await?;
            }
            position = Some(last.meta.position);
        }
        self.reader.seek(position.as_ref()).await?;
        self.note(epoch);
        // A pause as long as the pipeline's epoch ends the archive's epoch too.
        let pause = self.cell.pipeline().epoch;
        let interval = pause.max(INTERVAL);
        let mut range = Range::new(epoch + 1, position);
        let mut stop = self.stop.clone();
        while !*stop.borrow() {
            let wait = range.opened.map_or(IDLE, |at| interval.saturating_sub(at.elapsed()).min(pause));
            let read = tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => break,
                read = self.reader.read(ROWS, READ_BYTES, wait) => read?,
            };
            let paused = read.is_empty();
            if !paused {
                // A stop does not wait for this: what was read is sealed below in any case.
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|s| *s) => {}
                    () = self.memory.begin() => {}
                }
            }
            range.add(read.records);
            let due = range.opened.is_some_and(|at| paused || at.elapsed() >= interval);
            if due || range.bytes >= EPOCH_BYTES || !self.memory.reach(range.held_bytes) {
                range = self.seal(&journal, range).await?;
                drop(self.memory.take());
            }
        }
        if !range.records.is_empty() {
            self.seal(&journal, range).await?;
        }
        let _ = tokio::task::spawn_blocking(move || journal.sync()).await;
        Ok(())
    }

    /// Fixes the range, then writes its objects.
    async fn seal(&mut self, journal: &Arc<Journal>, range: Range) -> Result<Range, FlowError> {
        let position = self.reader.position();
        let epoch = range.epoch;
        let at_ms = self.cell.now_ms();
        self.count(&range, at_ms);
        let meta = Meta {
            epoch,
            base: epoch,
            from: range.from,
            position: position.clone(),
            records: range.records.len() as u64,
            files: Vec::new(),
            dead_from: 0,
            totals: Totals { records_in: self.records, ..Totals::default() },
            at_ms: Some(at_ms),
            steps: Vec::new(),
        };
        let shares = Arc::clone(&self.shares);
        let manifest = Manifest { meta, letters: Vec::new(), deltas: Vec::new(), shares };
        let own = Arc::clone(journal);
        blocking(move || own.write(&manifest)).await?;
        self.write(epoch, range.records).await?;
        let own = Arc::clone(journal);
        blocking(move || {
            own.settle(epoch);
            own.rebase(epoch, &Vec::new())
        })
        .await?;
        self.note(epoch);
        Ok(Range::new(epoch + 1, Some(position)))
    }

    /// Counts a range that is about to be fixed.
    fn count(&mut self, range: &Range, at_ms: i64) {
        self.records += range.records.len() as u64;
        if self.cell.pipeline().owner == Owner::Shared {
            let mut shares = Shares::default();
            for (tenant, records) in records_by_tenant(range.records.iter()) {
                shares.totals_of(tenant).records_in += records;
            }
            Arc::make_mut(&mut self.shares).add(&shares, range.epoch, at_ms);
        }
    }

    /// Tells what lies in bronze.
    fn note(&self, epoch: u64) {
        self.cell.archived(self.records, Arc::clone(&self.shares));
        self.cell.bronze(epoch, None);
    }

    /// Reads the records of a fixed range again and writes what is missing of it.
    async fn repeat(&mut self, journal: &Arc<Journal>, meta: &Meta) -> Result<(), FlowError> {
        self.reader.seek(meta.from.as_ref()).await?;
        let wanted = usize::try_from(meta.records).unwrap_or(usize::MAX);
        let mut records = Vec::new();
        while records.len() < wanted {
            let read =
                self.reader.read((wanted - records.len()).min(ROWS), READ_BYTES, Duration::ZERO).await?;
            if read.records.is_empty() && self.reader.backlog() == 0 {
                let missing = wanted - records.len();
                tracing::error!(pipeline = %self.cell.pipeline().name, missing, "records left the topic unarchived");
                break;
            }
            records.extend(read.records);
        }
        self.write(meta.epoch, records).await?;
        journal.settle(meta.epoch);
        Ok(())
    }

    /// Writes the objects of an epoch, trying again until all are durable.
    async fn write(&mut self, epoch: u64, records: Vec<Record>) -> Result<(), FlowError> {
        let source = self.cell.pipeline().name.clone();
        let objects = blocking(move || objects(epoch, &source, records)).await?;
        let mut attempt = 0;
        loop {
            let lake = &self.lake;
            let archived = futures::stream::iter(objects.iter().cloned())
                .map(|object| async move { keep(lake, object).await })
                .buffer_unordered(CONCURRENCY)
                .try_collect::<Vec<()>>()
                .await;
            let error = match archived {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error.into()),
            };
            if *self.stop.borrow() {
                return Err(FlowError::Stopped);
            }
            self.cell.bronze(epoch - 1, Some(error.to_string()));
            let delay = RETRY.jittered(attempt, (self.jitter)()).max(Duration::from_millis(10));
            let _ = tokio::time::timeout(delay, self.stop.wait_for(|s| *s)).await;
            attempt = attempt.saturating_add(1);
        }
    }
}

async fn keep(lake: &Lake, object: BronzeObject) -> Result<(), LakeError> {
    match lake.archive(object).await {
        // Another version of this program wrote the same records in another form.
        Err(LakeError::ObjectConflict { path }) => {
            tracing::warn!(%path, "the object was archived before, in another form");
            Ok(())
        }
        other => other.map(drop),
    }
}

/// One object a tenant and day, in the order of offsets.
fn objects(epoch: u64, source: &SourceName, records: Vec<Record>) -> Result<Vec<BronzeObject>, FlowError> {
    let mut groups: BTreeMap<(TenantId, String), (u64, Vec<u8>)> = BTreeMap::new();
    for record in records {
        let date = chrono::DateTime::from_timestamp_millis(record.published_at_ms)
            .map_or_else(|| "1970-01-01".to_owned(), |t| t.format("%Y-%m-%d").to_string());
        let group =
            groups.entry((record.tenant.clone(), date)).or_insert_with(|| (record.offset, Vec::new()));
        line(&record, &mut group.1);
    }
    let object = |((tenant, date), (first, lines)): ((TenantId, String), (u64, Vec<u8>))| {
        let name = format!("{epoch:012}-{first:020}.events.ndjson.zst");
        let bytes = compress(&lines)
            .map_err(|source| LakeError::Io { what: format!("compressing {name}"), source })?;
        Ok(BronzeObject { tenant, source: source.clone(), date, name, bytes: Bytes::from(bytes) })
    };
    groups.into_iter().map(object).collect()
}

fn line(record: &Record, out: &mut Vec<u8>) {
    let (mut event_id, mut event_type, mut timestamp) = ("", "", "");
    let mut others = Vec::with_capacity(12);
    for (name, value) in record.attributes.iter() {
        match name {
            attr::EVENT_ID => event_id = value,
            attr::EVENT_TYPE => event_type = value,
            attr::TIMESTAMP => timestamp = value,
            attr::TENANT_ID => {}
            _ => others.push((name, value)),
        }
    }
    let is_json = std::str::from_utf8(&record.body).is_ok()
        && serde_json::from_slice::<IgnoredAny>(&record.body).is_ok();
    let payload = if is_json { Payload::Json(&record.body) } else { Payload::Bytes(&record.body) };
    let envelope = Envelope {
        offset: record.offset,
        event_id,
        event_type,
        timestamp,
        published_at_ms: record.published_at_ms,
        attributes: &others,
        payload,
    };
    encode_line(&envelope, out);
}
