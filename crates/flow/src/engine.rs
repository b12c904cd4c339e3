//! The reading half of a pipeline: micro-batches in, decoded once, through the chain, into
//! the open epoch; sealed epochs go to the [`Committer`], which works while the next is read.
//!
//! What a run holds in memory is bounded: one epoch open, one sealed and waiting, one being
//! committed. When the committer cannot keep up, reading stops.

use std::sync::Arc;
use std::time::Duration;

use levada_bus::Bus;
use levada_config::model::{Owner, Pipeline, Source, Step};
use levada_core::{Clock, Record, RecordBatchIn, RecordReader, TopicName};
use levada_disk::Disk;
use levada_lake::{Lake, TableKey, TableSpec};
use levada_schema::{Decoded, Decoder, Failure};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::chain::{Chain, Failed};
use crate::commit::{Committer, RETRY, Roll, Target, blocking};
use crate::counts::StepCounts;
use crate::doubles;
use crate::epoch::{Cut, OpenEpoch};
use crate::error::FlowError;
use crate::intake::Intake;
use crate::journal::{Journal, Recovered};
use crate::letter::{About, Letter};
use crate::memory::{EpochMemory, FlowMemory, WindowMemory};
use crate::names;
use crate::rows::DERIVED;
use crate::shares::{Tally, records_by_tenant};
use crate::standing::Standing;
use crate::status::{Cell, RunState};
use crate::steps::BuildError;
use crate::steps::enrich::{EnrichContext, EnrichStep, Jitter};

/// Smaller batches are decoded on the spot.
const DECODE_INLINE_RECORDS: usize = 128;
/// Epochs between snapshots of the windows.
const SNAPSHOT_EPOCHS: u64 = 16;
/// Without data a pipeline sleeps until some comes; this only bounds one wait.
const IDLE: Duration = Duration::from_secs(3600);

/// What a pipeline runs on.
#[derive(Clone)]
pub struct Parts {
    pub bus: Bus,
    pub lake: Lake,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub jitter: Jitter,
    pub enrich: EnrichContext,
    pub memory: FlowMemory,
}

/// Builds the steps that need the lake or the network.
pub(crate) struct Maker<'a> {
    pub lake: &'a Lake,
    pub enrich: &'a EnrichContext,
    /// Who declared the pipeline.
    pub owner: &'a Owner,
}

impl crate::chain::StepMaker for Maker<'_> {
    fn enrich(
        &self,
        config: &levada_config::model::Enrich,
        input: &arrow::datatypes::Schema,
    ) -> Result<crate::chain::Built, BuildError> {
        let step = EnrichStep::new(config, input, self.owner, self.enrich)?;
        let schema = step.schema().clone();
        Ok((Box::new(step), schema))
    }

    fn sql(
        &self,
        query: &str,
        input: arrow::datatypes::SchemaRef,
    ) -> Result<crate::chain::Built, BuildError> {
        let step = crate::sql::SqlStep::new(self.lake, query, &input)?;
        let schema = step.schema().clone();
        Ok((Box::new(step), schema))
    }
}

/// Decoder and steps; absent where a pipeline only archives.
pub(crate) struct Works {
    decoder: Arc<Decoder>,
    pub chain: Chain,
}

/// One run of a pipeline.
pub struct Engine {
    pipeline: Arc<Pipeline>,
    cell: Arc<Cell>,
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    intake: Intake,
    works: Option<Works>,
    cuts: mpsc::Sender<Cut>,
    open: OpenEpoch,
    memory: EpochMemory,
    window_memory: WindowMemory,
    next_epoch: u64,
    from: Option<serde_json::Value>,
    last_cut: Option<Instant>,
    /// Epochs since the windows were last kept whole.
    unsnapped: u64,
    /// Records from here on count for the lag of tenants.
    fresh_from: Option<u64>,
}

/// Runs a pipeline until it is told to stop, from where its last manifest left off.
///
/// # Errors
/// [`FlowError`]; everything durable stands, and another run continues from it.
pub async fn run(
    parts: Parts,
    cell: Arc<Cell>,
    mut reader: Box<dyn RecordReader>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), FlowError> {
    let pipeline = Arc::clone(cell.pipeline());
    let sealing = cell.sealing().await;
    let mut works =
        build(&Maker { lake: &parts.lake, enrich: &parts.enrich, owner: &pipeline.owner }, &pipeline)?;
    let target = works.as_ref().map(|w| table_spec(&pipeline, &w.chain)).transpose()?;
    if let Some(spec) = &target {
        doubles::report(&parts.lake, &pipeline, spec);
        parts.lake.ensure_table(spec).await?;
    }
    let dir = names::silver_dir(&pipeline);
    let disk = Arc::clone(&parts.disk);
    let (journal, recovered) = blocking(move || Journal::open(disk, &dir)).await?;
    let target = target.map(|spec| Target { table: spec.key(), app_id: names::app_id(&pipeline) });
    restore(&mut works, &recovered, &names::silver_dir(&pipeline))?;
    let epoch = recovered.last.as_ref().map_or(0, |m| m.meta.epoch);
    if let Some(target) = &target {
        check_table(&parts.lake, target, epoch).await?;
    }
    let standing = Standing::of(recovered.last.as_ref(), works.as_ref().map(|w| &w.chain));
    let windows = works.as_ref().map(|w| w.chain.snapshot()).unwrap_or_default();
    let mut committer = Committer {
        cell: Arc::clone(&cell),
        bus: parts.bus.clone(),
        lake: parts.lake.clone(),
        journal: Arc::new(journal),
        target,
        topic: names::dead_letter_origin(&pipeline),
        pipeline: names::full(&pipeline),
        jitter: Arc::clone(&parts.jitter),
        stop: stop.clone(),
        standing: standing.clone(),
        windowed: !windows.is_empty(),
        base: recovered.last.as_ref().map_or(0, |m| m.meta.base),
    };
    if let (Some(last), false) = (&recovered.last, recovered.settled) {
        committer.roll_forward(last, Roll::Again).await?;
    }
    if epoch > 0 && committer.windowed && committer.base == epoch {
        // The last run remembered no keys; this one builds on its end.
        committer.rebase(epoch, windows).await?;
    }
    // From here on what the figures count can be queried.
    cell.restore(standing, &recovered.past, recovered.last.as_ref().map(|m| &m.meta.position));
    let position = recovered.last.map(|m| m.meta.position);
    reader.seek(position.as_ref()).await?;
    cell.set_state(RunState::Running);
    let (cuts, receiver) = mpsc::channel(1);
    let engine = Engine {
        fresh_from: cell.lag_from(),
        pipeline,
        cell,
        clock: parts.clock,
        jitter: parts.jitter,
        intake: Intake::new(reader),
        works,
        cuts,
        open: OpenEpoch::default(),
        memory: parts.memory.epoch(),
        window_memory: parts.memory.windows(),
        next_epoch: epoch + 1,
        from: position,
        last_cut: None,
        unsnapped: 0,
    };
    let sealing = tokio::spawn(async move {
        let result = committer.run(receiver).await;
        drop(sealing);
        result
    });
    let read = engine.drive(&mut stop).await;
    let sealed = sealing.await.map_err(|e| FlowError::Panicked(e.to_string()))?;
    // When sealing failed, the engine only noticed that nobody takes its epochs.
    sealed.and(read)
}

pub(crate) fn build(maker: &Maker<'_>, pipeline: &Pipeline) -> Result<Option<Works>, FlowError> {
    let Some(schema) = &pipeline.schema else { return Ok(None) };
    let schema = doubles::as_table(maker.lake, pipeline, schema);
    let mut decoder = Decoder::new(&schema, pipeline.validation)?;
    if let Source::Files(files) = &pipeline.source {
        decoder = decoder.null_texts(&files.null_values);
    }
    let chain = Chain::build(&pipeline.steps, decoder.schema(), maker)?;
    Ok(Some(Works { decoder: Arc::new(decoder), chain }))
}

pub(crate) fn table_spec(pipeline: &Pipeline, chain: &Chain) -> Result<TableSpec, BuildError> {
    let schema = chain.output();
    if pipeline.owner == Owner::Shared && schema.index_of(levada_schema::TENANT_ID).is_err() {
        let dropped =
            BuildError::new("sql", "the query drops `tenant_id`, which rows of a shared table need");
        let last = pipeline.steps.iter().rposition(|step| matches!(step, Step::Sql { .. }));
        return Err(BuildError { index: last, ..dropped });
    }
    let mut spec = TableSpec::new(names::lake_owner(&pipeline.owner), pipeline.sink.clone(), schema.clone());
    spec.description = pipeline.description.clone();
    Ok(spec)
}

fn restore(works: &mut Option<Works>, recovered: &Recovered, dir: &str) -> Result<(), FlowError> {
    let Some(works) = works else { return Ok(()) };
    for (name, bytes) in recovered.windows.iter().flatten() {
        if !works.chain.restore(name, bytes) {
            let reason = format!("the window `{name}` has an odd length");
            return Err(crate::journal::JournalError::Damaged { path: dir.to_owned(), reason }.into());
        }
    }
    Ok(())
}

async fn check_table(lake: &Lake, target: &Target, manifest_epoch: u64) -> Result<(), FlowError> {
    match lake.epoch(&target.table, &target.app_id).await? {
        Some(table_epoch) if u64::try_from(table_epoch).is_ok_and(|e| e > manifest_epoch) => {
            Err(FlowError::StateLost { table: target.table.to_string(), table_epoch, manifest_epoch })
        }
        _ => Ok(()),
    }
}

impl Engine {
    async fn drive(mut self, stop: &mut watch::Receiver<bool>) -> Result<(), FlowError> {
        let mut failures = 0;
        while !*stop.borrow() {
            let due = self.open.due(self.last_cut, self.pipeline.epoch);
            let wait = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
            let read = tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => break,
                read = self.intake.fill(wait) => read,
            };
            match read {
                Ok(()) => {
                    if failures > 0 {
                        self.cell.set_state(RunState::Running);
                    }
                    failures = 0;
                }
                Err(error) if error.retryable => {
                    self.cell.set_state(RunState::Waiting { reason: error.to_string() });
                    let delay = RETRY.jittered(failures, (self.jitter)()).max(Duration::from_millis(10));
                    failures += 1;
                    let _ = tokio::time::timeout(delay, stop.wait_for(|s| *s)).await;
                }
                Err(error) => return Err(error.into()),
            }
            let stopped = tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => true,
                () = self.room() => false,
            };
            if stopped {
                break;
            }
            self.accept_all().await?;
            self.remember(stop).await?;
            let due = self.open.due(self.last_cut, self.pipeline.epoch);
            let full =
                self.open.bytes >= self.pipeline.epoch_bytes || !self.memory.reach(self.open.held_bytes);
            if full || due.is_some_and(|at| at <= Instant::now()) {
                self.cut().await?;
            }
        }
        self.accept_all().await?;
        self.cut().await
    }

    /// Waits until what was read may be worked on.
    async fn room(&mut self) {
        if !self.intake.is_empty() {
            self.memory.begin().await;
        }
    }

    /// Holds the memory of the windows. Where there is none, what was read is sealed and the
    /// pipeline waits.
    async fn remember(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), FlowError> {
        let bytes = self.works.as_ref().map_or(0, |works| works.chain.window_bytes());
        let mut failures = 0;
        while let Err(problem) = self.window_memory.reach(bytes) {
            if *stop.borrow() {
                return Ok(());
            }
            self.cut().await?;
            self.cell.set_state(RunState::Waiting { reason: problem.to_string() });
            let delay = RETRY.jittered(failures, (self.jitter)()).max(Duration::from_millis(10));
            failures += 1;
            let _ = tokio::time::timeout(delay, stop.wait_for(|s| *s)).await;
        }
        if failures > 0 {
            self.cell.set_state(RunState::Running);
        }
        Ok(())
    }

    async fn accept_all(&mut self) -> Result<(), FlowError> {
        for input in self.intake.take() {
            self.accept(input).await?;
        }
        self.cell.set_backlog(self.intake.backlog());
        Ok(())
    }

    /// Decodes a batch and takes it through the chain into the open epoch.
    async fn accept(&mut self, input: RecordBatchIn) -> Result<(), FlowError> {
        self.open.touch();
        self.count_records(&input);
        self.open.records += input.records.len() as u64;
        self.open.figures.records_in += (input.records.len() + input.rejects.len()) as u64;
        for record in input.records.iter().chain(input.rejects.iter().map(|r| &r.record)) {
            self.open.bytes += record.original().len() as u64;
            self.open.arrived(record.published_at_ms);
        }
        for reject in &input.rejects {
            let about = self.about(&reject.record, &input, "read", reject.code, reject.reason.clone(), 1);
            self.dead(Letter::of(&reject.record, about));
        }
        if input.records.is_empty() || self.works.is_none() {
            return Ok(());
        }
        let input = Arc::new(input);
        let decoded = self.decode(&input).await?;
        let (rows_in, dead) = (input.records.len() as u64, decoded.failures.len() as u64);
        let rows_out = decoded.batch.num_rows() as u64;
        self.open.add_steps(0, &[StepCounts { rows_in, rows_out, dropped: 0, dead }]);
        for Failure { index, code, reason, .. } in decoded.failures {
            let record = &input.records[index as usize];
            let about = self.about(record, &input, "validate", code, reason, 1);
            self.dead(Letter::of(record, about));
        }
        let times: Vec<i64> = input.records.iter().map(|r| r.published_at_ms).collect();
        let now_ms = self.clock.now_ms();
        let Some(works) = &mut self.works else { return Ok(()) };
        let done = works.chain.process(&decoded.batch, decoded.rows, &times, now_ms).await?;
        self.open.add_steps(1, &done.steps);
        self.open.figures.duplicates += done.duplicates;
        self.open.figures.rows_out += done.batches.iter().map(|b| b.num_rows() as u64).sum::<u64>();
        if self.is_shared() {
            let mut rows = Tally::default();
            done.batches.iter().for_each(|batch| rows.add_all(batch));
            self.open.shares.tally(rows, |totals| &mut totals.rows_out);
            self.open.shares.tally(done.dropped, |totals| &mut totals.duplicates);
        }
        self.open.add_rows(done.batches);
        for failed in done.failed {
            let letter = self.failed(failed, &input);
            self.dead(letter);
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        self.pipeline.owner == Owner::Shared
    }

    /// Whose records a batch brings.
    fn count_records(&mut self, input: &RecordBatchIn) {
        if !self.is_shared() {
            return;
        }
        let read = input.records.iter().chain(input.rejects.iter().map(|r| &r.record));
        let all = records_by_tenant(read.clone());
        for (tenant, records) in &all {
            self.open.shares.totals_of(tenant).records_in += records;
        }
        let fresh = match self.fresh_from {
            None => return,
            Some(from) if read.clone().any(|r| r.offset < from) => {
                records_by_tenant(read.filter(|r| r.offset >= from))
            }
            Some(_) => all,
        };
        for (tenant, records) in fresh {
            *self.open.fresh.entry(tenant.clone()).or_default() += records;
        }
    }

    async fn decode(&self, input: &Arc<RecordBatchIn>) -> Result<Decoded, FlowError> {
        let Some(works) = &self.works else { return Err(FlowError::Stopped) };
        let decoder = Arc::clone(&works.decoder);
        if input.records.len() <= DECODE_INLINE_RECORDS {
            return Ok(decoder.decode(input)?);
        }
        let input = Arc::clone(input);
        blocking(move || decoder.decode(&input)).await
    }

    fn dead(&mut self, letter: Letter) {
        self.open.figures.dead_letters += 1;
        if self.is_shared() {
            self.open.shares.totals_of(&letter.about.tenant).dead_letters += 1;
        }
        self.open.add_letter(letter);
    }

    fn about(
        &self,
        record: &Record,
        input: &RecordBatchIn,
        stage: &str,
        code: &str,
        reason: String,
        attempts: u32,
    ) -> About {
        About {
            tenant: record.tenant.clone(),
            code: code.to_owned(),
            reason,
            stage: stage.to_owned(),
            attempts,
            position: match &input.object {
                Some(object) => format!("{object}:{}", record.offset),
                None => record.offset.to_string(),
            },
            resendable: matches!(self.pipeline.source, Source::Events { .. }),
        }
    }

    /// The letter of a row that a step refused.
    fn failed(&self, Failed { fault, derived }: Failed, input: &RecordBatchIn) -> Letter {
        if let Some(record) = input.records.get(fault.row as usize) {
            let about = self.about(record, input, &fault.stage, fault.code, fault.reason, fault.attempts);
            return Letter::of(record, about);
        }
        // A row that SQL made of several: it stands for itself, after the batch's last record.
        let (tenant, body) = derived.unwrap_or_default();
        let last = &input.records[input.records.len() - 1];
        let mut about = self.about(last, input, &fault.stage, fault.code, fault.reason, fault.attempts);
        about.position = format!("{}#{}", about.position, fault.row & !DERIVED);
        about.resendable = false;
        about.tenant = tenant.and_then(|t| t.parse().ok()).unwrap_or_else(|| last.tenant.clone());
        Letter { about, attributes: levada_core::Attributes::new(), body: body.into() }
    }

    /// Seals the open epoch and hands it over; waits while the committer is behind.
    async fn cut(&mut self) -> Result<(), FlowError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let position = self.intake.position();
        let (deltas, snapshot) = match &mut self.works {
            None => (Vec::new(), Some(Vec::new())),
            Some(works) => {
                let deltas = works.chain.take_deltas();
                self.unsnapped += 1;
                let whole = !works.chain.has_windows() || self.unsnapped >= SNAPSHOT_EPOCHS;
                if whole {
                    self.unsnapped = 0;
                }
                (deltas, whole.then(|| works.chain.snapshot()))
            }
        };
        let cut = Cut {
            epoch: self.next_epoch,
            from: self.from.replace(position.clone()),
            position,
            content: std::mem::take(&mut self.open),
            memory: self.memory.take(),
            deltas,
            snapshot,
            backlog: self.intake.backlog(),
            sealed: Instant::now(),
        };
        self.next_epoch += 1;
        self.last_cut = Some(Instant::now());
        self.cuts.send(cut).await.map_err(|_| FlowError::Stopped)
    }
}

/// The topic of a pipeline that reads one.
pub fn topic_of(pipeline: &Pipeline) -> Option<&TopicName> {
    match &pipeline.source {
        Source::Events { topic, .. } => Some(topic),
        Source::Files(_) => None,
    }
}

/// The key of the table that a pipeline fills.
pub fn table_key(pipeline: &Pipeline) -> TableKey {
    TableKey::new(names::lake_owner(&pipeline.owner), pipeline.sink.clone())
}
