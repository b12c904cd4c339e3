//! All pipelines of a project: each runs as tasks of its own, and one that fails or panics
//! leaves the others alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use levada_bus::{TopicConfig, TopicInfo};
use levada_config::model::{FileSource, Owner, Pipeline, Source};
use levada_core::{ReadError, RecordReader, SourceName, TopicName};
use levada_lake::TableKey;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use crate::bronze::Archiver;
use crate::commit::RETRY;
use crate::engine::{self, Parts};
use crate::error::FlowError;
use crate::history::EpochDone;
use crate::status::{Cell, PipelineStatus, RunState, Signals};
use crate::topic::TopicReader;

/// Makes the reader of a file source; the composition knows which crate does that.
pub type FileReaders =
    Arc<dyn Fn(&Pipeline, &FileSource) -> Result<Box<dyn RecordReader>, ReadError> + Send + Sync>;

/// Pipelines that build their steps at the same time.
const STARTING: usize = 4;
/// A run this long counts as healthy: the next failure is tried again soon.
const HEALTHY: Duration = Duration::from_secs(60);

/// The running pipelines. Dropping it stops nothing; see [`Pipelines::stop`].
pub struct Pipelines {
    cells: Vec<Arc<Cell>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    signals: Signals,
}

impl Pipelines {
    /// Starts every pipeline. Returns once all topics exist; the pipelines get ready in the
    /// background and say so in their status.
    ///
    /// # Errors
    /// When a topic cannot be created.
    pub async fn start(pipelines: &[Pipeline], parts: Parts, files: FileReaders) -> Result<Self, FlowError> {
        ensure_topics(pipelines, &parts).await?;
        let (stop, stopped) = watch::channel(false);
        let signals = Signals::default();
        let gate = Arc::new(Semaphore::new(STARTING));
        let topics: HashMap<TopicName, TopicInfo> =
            parts.bus.topics().into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let mut started = Self { cells: Vec::new(), tasks: Vec::new(), stop, signals: signals.clone() };
        for pipeline in pipelines {
            let shared = pipeline.owner == Owner::Shared && pipeline.schema.is_some();
            let topic = engine::topic_of(pipeline).filter(|_| shared).and_then(|name| topics.get(name));
            let definition = Arc::new(pipeline.clone());
            let cell = Arc::new(Cell::new(definition, topic, Arc::clone(&parts.clock), signals.clone()));
            started.cells.push(Arc::clone(&cell));
            let is_topic = matches!(pipeline.source, Source::Events { .. });
            if pipeline.schema.is_some() || !is_topic {
                let run = Supervised {
                    parts: parts.clone(),
                    cell: Arc::clone(&cell),
                    stop: stopped.clone(),
                    files: Arc::clone(&files),
                    gate: Arc::clone(&gate),
                };
                started.tasks.push(tokio::spawn(run.rows()));
            } else {
                cell.set_state(RunState::Running);
            }
            if is_topic {
                let run = Supervised {
                    parts: parts.clone(),
                    cell,
                    stop: stopped.clone(),
                    files: Arc::clone(&files),
                    gate: Arc::clone(&gate),
                };
                started.tasks.push(tokio::spawn(run.archive()));
            }
        }
        Ok(started)
    }

    /// Every pipeline's state, in the order of the project.
    pub fn status(&self) -> Vec<PipelineStatus> {
        self.cells.iter().map(|c| c.status()).collect()
    }

    /// Those that failed and wait for a person, with why.
    pub fn failed(&self) -> Vec<(Arc<Pipeline>, String)> {
        let failed = |cell: &Arc<Cell>| Some((Arc::clone(cell.pipeline()), cell.failure()?));
        self.cells.iter().filter_map(failed).collect()
    }

    /// The last epochs of a pipeline, newest first.
    pub fn epochs(&self, owner: &Owner, name: &SourceName) -> Vec<Arc<EpochDone>> {
        let wanted = self.cells.iter().find(|c| c.pipeline().owner == *owner && c.pipeline().name == *name);
        wanted.map(|cell| cell.epochs()).unwrap_or_default()
    }

    /// Counts up whenever a status changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.signals.changes.subscribe()
    }

    /// Tables that get a new version. A receiver that falls behind is told so.
    pub fn tables(&self) -> broadcast::Receiver<TableKey> {
        self.signals.tables.subscribe()
    }

    /// For others whose changes belong to the same picture, such as models.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Stops reading, commits what was read, and ends. What is not done within `grace` is
    /// abandoned; the next start takes it up from the last manifest.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let deadline = tokio::time::Instant::now() + grace;
        for mut task in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                // Aborted tasks end at their next await; their epochs are rolled forward later.
                let _ = task.await;
            }
        }
        for cell in &self.cells {
            if !matches!(cell.status().state, RunState::Failed { .. }) {
                cell.set_state(RunState::Stopped);
            }
        }
    }
}

async fn ensure_topics(pipelines: &[Pipeline], parts: &Parts) -> Result<(), FlowError> {
    // Pipelines that share a topic keep it as long as the one that asks for longest.
    let mut topics: BTreeMap<TopicName, Option<Duration>> = BTreeMap::new();
    for pipeline in pipelines {
        if let Some(topic) = engine::topic_of(pipeline) {
            let longest = topics.entry(topic.clone()).or_default();
            *longest = pipeline.retention.max(*longest);
        }
    }
    let bus = parts.bus.clone();
    crate::commit::blocking(move || -> Result<(), FlowError> {
        for (topic, retention) in topics {
            let retention =
                retention.map(|age| levada_bus::Retention { max_age: Some(age), max_bytes: None });
            bus.ensure_topic(&topic, TopicConfig { retention })?;
        }
        Ok(())
    })
    .await
}

/// Keeps one task of a pipeline alive.
struct Supervised {
    parts: Parts,
    cell: Arc<Cell>,
    stop: watch::Receiver<bool>,
    files: FileReaders,
    gate: Arc<Semaphore>,
}

impl Supervised {
    fn reader(&self) -> Result<Box<dyn RecordReader>, ReadError> {
        let pipeline = self.cell.pipeline();
        match &pipeline.source {
            Source::Files(files) => (self.files)(pipeline, files),
            Source::Events { topic, .. } => {
                let tenant = match &pipeline.owner {
                    Owner::Shared => None,
                    Owner::Tenant(tenant) => Some(tenant.clone()),
                };
                Ok(Box::new(TopicReader::new(self.parts.bus.clone(), topic.clone(), tenant)?))
            }
        }
    }

    /// Runs the pipeline again after what may pass, and after a panic; other errors wait for
    /// a person.
    async fn rows(self) {
        let mut failures = 0;
        loop {
            let began = tokio::time::Instant::now();
            let error = match self.one_run().await {
                Ok(()) => return,
                Err(error) => error,
            };
            if *self.stop.borrow() {
                return;
            }
            let reason = error.to_string();
            if !error.is_retryable() {
                self.cell.set_state(RunState::Failed { reason });
                return;
            }
            let panicked = matches!(error, FlowError::Panicked(_));
            let state = if panicked { RunState::Failed { reason } } else { RunState::Waiting { reason } };
            self.cell.set_state(state);
            failures = if began.elapsed() > HEALTHY { 0 } else { failures + 1 };
            self.pause(failures).await;
        }
    }

    async fn pause(&self, failures: u32) {
        let delay = RETRY.ceiling(failures) / 2 + RETRY.jittered(failures, (self.parts.jitter)()) / 2;
        let mut stop = self.stop.clone();
        let _ = tokio::time::timeout(delay, stop.wait_for(|s| *s)).await;
    }

    async fn one_run(&self) -> Result<(), FlowError> {
        // Building queries and reading state takes the processor; 500 pipelines take turns.
        let _turn = self.gate.acquire().await.map_err(|_| FlowError::Stopped)?;
        let reader = self.reader()?;
        drop(_turn);
        let run = engine::run(self.parts.clone(), Arc::clone(&self.cell), reader, self.stop.clone());
        isolated(run).await
    }

    async fn archive(self) {
        let mut failures = 0;
        loop {
            let began = tokio::time::Instant::now();
            let error = match self.one_archive().await {
                Ok(()) => return,
                Err(error) => error,
            };
            if *self.stop.borrow() {
                return;
            }
            self.cell.bronze(0, Some(error.to_string()));
            if !error.is_retryable() {
                tracing::error!(pipeline = %self.cell.pipeline().name, %error, "archiving stopped");
                return;
            }
            failures = if began.elapsed() > HEALTHY { 0 } else { failures + 1 };
            self.pause(failures).await;
        }
    }

    async fn one_archive(&self) -> Result<(), FlowError> {
        let archiver = Archiver {
            cell: Arc::clone(&self.cell),
            lake: self.parts.lake.clone(),
            disk: Arc::clone(&self.parts.disk),
            jitter: Arc::clone(&self.parts.jitter),
            reader: self.reader()?,
            stop: self.stop.clone(),
            memory: self.parts.memory.epoch(),
            records: 0,
            shares: Arc::default(),
        };
        isolated(archiver.run()).await
    }
}

/// Runs a future in a task of its own, so that a panic in it is an error here; ends it when
/// this future is dropped.
async fn isolated(
    work: impl Future<Output = Result<(), FlowError>> + Send + 'static,
) -> Result<(), FlowError> {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) if error.is_panic() => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(FlowError::Panicked(format!("the pipeline panicked: {text}")))
        }
        _ => Err(FlowError::Stopped),
    }
}
