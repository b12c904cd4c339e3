//! Seals epochs: files staged, manifest written, dead letters sent, table committed, in
//! that order and one epoch at a time, while the engine already gathers the next.
//!
//! The manifest is the decision. Before it nothing of the epoch can be seen; after it
//! everything happens, in this run or in the next one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use levada_bus::Bus;
use levada_core::{Backoff, TopicName, attr};
use levada_lake::{Lake, StagedFile, TableKey};
use tokio::sync::{mpsc, watch};

use crate::epoch::Cut;
use crate::error::FlowError;
use crate::journal::Journal;
use crate::letter::{self, Letter};
use crate::manifest::{Manifest, Meta};
use crate::metrics::{self, EpochFigures};
use crate::standing::Standing;
use crate::status::{Cell, Committed, RunState};
use crate::steps::enrich::Jitter;

/// Delays between attempts at something that refuses.
pub const RETRY: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30) };

/// How many records of a dead-letter topic are looked at in one step.
const SCAN_RECORDS: usize = 4096;
const SCAN_BYTES: usize = 8 << 20;

/// Where a pipeline's rows go.
#[derive(Debug, Clone)]
pub struct Target {
    pub table: TableKey,
    pub app_id: String,
}

/// The sealing half of a pipeline.
pub struct Committer {
    pub cell: Arc<Cell>,
    pub bus: Bus,
    pub lake: Lake,
    pub journal: Arc<Journal>,
    /// `None`: nothing decodes the records, they only go to bronze.
    pub target: Option<Target>,
    /// The topic whose dead letters these are.
    pub topic: TopicName,
    /// Owner and name: what dead letters call the pipeline.
    pub pipeline: String,
    pub jitter: Jitter,
    pub stop: watch::Receiver<bool>,
    pub standing: Standing,
    /// Whether a step remembers keys.
    pub windowed: bool,
    /// Epoch of the last snapshot of the windows; 0 before the first.
    pub base: u64,
}

impl Committer {
    /// Seals what comes until the engine ends.
    ///
    /// # Errors
    /// The first error that trying again does not mend. What was decided is rolled forward
    /// at the next start.
    pub async fn run(mut self, mut cuts: mpsc::Receiver<Cut>) -> Result<(), FlowError> {
        while let Some(cut) = cuts.recv().await {
            self.seal(cut).await?;
        }
        let journal = Arc::clone(&self.journal);
        // Best effort: without it the last epoch is rolled forward once more.
        let _ = tokio::task::spawn_blocking(move || journal.sync()).await;
        Ok(())
    }

    async fn seal(&mut self, mut cut: Cut) -> Result<(), FlowError> {
        let batches = std::mem::take(&mut cut.content.batches);
        let files = match &self.target {
            Some(target) if !batches.is_empty() => self.stage(target, batches).await?,
            _ => Vec::new(),
        };
        if let Some(memory) = &mut cut.memory {
            // The rows are gone; what is left are letters and windows, a small part.
            memory.shrink_to(memory.bytes() / 4);
        }
        let standing = self.standing.after(cut.epoch, self.cell.now_ms(), &cut.content);
        let manifest = Manifest {
            meta: Meta {
                epoch: cut.epoch,
                base: if self.windowed { self.base } else { cut.epoch },
                from: cut.from.take(),
                position: cut.position,
                records: cut.content.records,
                files,
                dead_from: self.dead_end(),
                totals: standing.totals,
                at_ms: standing.at_ms,
                steps: standing.steps.to_vec(),
            },
            letters: std::mem::take(&mut cut.content.letters),
            deltas: cut.deltas,
            shares: Arc::clone(&standing.shares),
        };
        let manifest = Arc::new(manifest);
        let mut tries = 0;
        loop {
            let (journal, own) = (Arc::clone(&self.journal), Arc::clone(&manifest));
            match blocking(move || journal.write(&own)).await {
                Ok(()) => break self.mended(tries),
                Err(error) => self.again(&mut tries, error).await?,
            }
        }
        self.roll_forward(&manifest, Roll::First).await?;
        self.standing = standing;
        if let Some(state) = cut.snapshot {
            self.rebase(cut.epoch, state).await?;
        }
        let figures = cut.content.figures;
        let meta = &manifest.meta;
        let latency = self.cell.committed(Committed {
            standing: self.standing.clone(),
            files: &meta.files,
            duration: cut.sealed.elapsed(),
            position: &meta.position,
            content: cut.content,
        });
        metrics::epoch_committed(
            &self.pipeline,
            EpochFigures {
                records_in: figures.records_in,
                rows_out: figures.rows_out,
                duplicates: figures.duplicates,
                dead: figures.dead_letters,
                commit_seconds: cut.sealed.elapsed().as_secs_f64(),
                latency_seconds: latency.map(|ms| ms as f64 / 1000.0),
                backlog: cut.backlog,
            },
        );
        Ok(())
    }

    /// Keeps the windows whole as they were after an epoch.
    ///
    /// # Errors
    /// As [`Committer::run`].
    pub async fn rebase(&mut self, epoch: u64, state: crate::manifest::WindowBytes) -> Result<(), FlowError> {
        let state = Arc::new(state);
        let mut tries = 0;
        loop {
            let (journal, own) = (Arc::clone(&self.journal), Arc::clone(&state));
            match blocking(move || journal.rebase(epoch, &own)).await {
                Ok(()) => break self.mended(tries),
                Err(error) => self.again(&mut tries, error).await?,
            }
        }
        self.base = epoch;
        Ok(())
    }

    /// Makes the effects of a decided epoch happen: dead letters, then the table.
    ///
    /// # Errors
    /// As [`Committer::run`].
    pub async fn roll_forward(&self, manifest: &Manifest, roll: Roll) -> Result<(), FlowError> {
        let meta = &manifest.meta;
        if !manifest.letters.is_empty() {
            self.send_letters(manifest, roll).await?;
        }
        if let (Some(target), false) = (&self.target, meta.files.is_empty()) {
            let epoch = i64::try_from(meta.epoch).unwrap_or(i64::MAX);
            let mut tries = 0;
            loop {
                match self.lake.commit(&target.table, &target.app_id, epoch, meta.files.clone()).await {
                    Ok(_) => break self.mended(tries),
                    Err(error) => self.again(&mut tries, error.into()).await?,
                }
            }
            // Nobody listening is fine.
            let _ = self.cell.signals().tables.send(target.table.clone());
        }
        let (journal, epoch) = (Arc::clone(&self.journal), meta.epoch);
        blocking(move || {
            journal.settle(epoch);
            Ok::<_, FlowError>(())
        })
        .await
    }

    async fn stage(&self, target: &Target, batches: Vec<RecordBatch>) -> Result<Vec<StagedFile>, FlowError> {
        let mut tries = 0;
        loop {
            match self.lake.stage(&target.table, batches.clone()).await {
                Ok(files) => {
                    self.mended(tries);
                    return Ok(files);
                }
                Err(error) => self.again(&mut tries, error.into()).await?,
            }
        }
    }

    async fn send_letters(&self, manifest: &Manifest, roll: Roll) -> Result<(), FlowError> {
        let mut tries = 0;
        loop {
            let again = roll == Roll::Again || tries > 0;
            match self.send_letters_once(manifest, again).await {
                Ok(()) => break self.mended(tries),
                Err(error) => self.again(&mut tries, error).await?,
            }
        }
        Ok(())
    }

    async fn send_letters_once(&self, manifest: &Manifest, again: bool) -> Result<(), FlowError> {
        let sent = if again { self.sent_since(manifest.meta.dead_from).await? } else { HashSet::new() };
        let is_new =
            |l: &Letter| !sent.contains(&letter::key(&self.pipeline, &l.about.position, &l.about.stage));
        let letters = manifest.letters.iter().filter(|l| is_new(l));
        let letters = letters.map(|l| l.clone().for_bus(&self.pipeline)).collect();
        self.bus.dead_letter(&self.topic, letters).await?;
        Ok(())
    }

    fn dead_end(&self) -> u64 {
        let dlq = self.topic.dead_letter().ok();
        dlq.and_then(|dlq| self.bus.bounds(&dlq).ok()).map_or(0, |bounds| bounds.next)
    }

    /// Keys of this pipeline's dead letters from an offset on: the bus forgets keys after its
    /// idempotency window, the topic itself does not.
    async fn sent_since(&self, from: u64) -> Result<HashSet<String>, FlowError> {
        let mut keys = HashSet::new();
        let Ok(dlq) = self.topic.dead_letter() else { return Ok(keys) };
        if !self.bus.has_topic(&dlq) {
            return Ok(keys);
        }
        let mut at = from;
        loop {
            let (bus, dlq) = (self.bus.clone(), dlq.clone());
            let read = tokio::task::spawn_blocking(move || bus.read(&dlq, at, SCAN_RECORDS, SCAN_BYTES));
            let found = read.await.map_err(|e| FlowError::Panicked(e.to_string()))??;
            let Some(last) = found.last() else { return Ok(keys) };
            at = last.offset + 1;
            for dead in &found {
                let get = |name| dead.message.attributes.get(name).unwrap_or_default();
                if get(attr::DEAD_PIPELINE) == self.pipeline {
                    keys.insert(letter::key(&self.pipeline, get(attr::DEAD_POSITION), get(attr::DEAD_STAGE)));
                }
            }
        }
    }

    /// Waits before the next try at something that failed: without end, never skipping.
    ///
    /// # Errors
    /// The failure itself where trying again cannot mend it, [`FlowError::Stopped`] when the
    /// pipeline is told to stop.
    async fn again(&self, tries: &mut u32, error: FlowError) -> Result<(), FlowError> {
        if !error.is_retryable() {
            return Err(error);
        }
        if *self.stop.borrow() {
            return Err(FlowError::Stopped);
        }
        metrics::retried(&self.pipeline);
        self.cell.set_state(RunState::Waiting { reason: error.to_string() });
        let delay = RETRY.jittered(*tries, (self.jitter)()).max(Duration::from_millis(10));
        let mut stop = self.stop.clone();
        let _ = tokio::time::timeout(delay, stop.wait_for(|s| *s)).await;
        *tries = tries.saturating_add(1);
        Ok(())
    }

    fn mended(&self, tries: u32) {
        if tries > 0 {
            self.cell.set_state(RunState::Running);
        }
    }
}

/// Whether effects of an epoch may have happened before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roll {
    First,
    Again,
}

/// Runs file work off the async threads.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, FlowError>
where
    T: Send + 'static,
    E: Into<FlowError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(FlowError::Panicked(panic.to_string())),
    }
}
