//! What a pipeline says about itself, and the signal by which others hear of a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use levada_config::model::{Owner, Pipeline, Source, Waiting};
use levada_core::{Clock, SourceName, TableName};
use levada_lake::TableKey;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::histogram::Histogram;
use crate::manifest::Totals;

/// What a pipeline is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RunState {
    Starting,
    Running,
    /// Something outside refuses; it is tried again.
    Waiting {
        reason: String,
    },
    /// A person must act.
    Failed {
        reason: String,
    },
    Stopped,
}

/// A pipeline as the console and the API show it.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineStatus {
    pub name: SourceName,
    pub owner: Owner,
    pub display_name: Option<String>,
    /// The topic, or the folder's location.
    pub source: String,
    pub sink: TableName,
    #[serde(flatten)]
    pub state: RunState,
    /// Since the pipeline's first epoch.
    #[serde(flatten)]
    pub totals: Totals,
    /// Records that wait in the source.
    pub backlog: u64,
    /// The last committed epoch; 0 before the first.
    pub epoch: u64,
    pub last_commit_ms: Option<i64>,
    /// From publish to queryable, since the start of the process.
    pub latency_p50_ms: Option<u64>,
    pub latency_p99_ms: Option<u64>,
    /// Steps that wait for something that the project lacks.
    pub waiting_steps: Vec<Waiting>,
    /// Epochs archived to bronze, and why that is held up, where it is.
    pub bronze_epoch: u64,
    pub bronze_problem: Option<String>,
}

/// Counts up on every change of any pipeline or table.
#[derive(Debug, Clone)]
pub struct Signals {
    pub(crate) changes: watch::Sender<u64>,
    /// Tables that got a new version.
    pub(crate) tables: broadcast::Sender<TableKey>,
}

impl Default for Signals {
    fn default() -> Self {
        Self { changes: watch::Sender::new(0), tables: broadcast::Sender::new(1024) }
    }
}

impl Signals {
    pub(crate) fn bump(&self) {
        self.changes.send_modify(|n| *n += 1);
    }
}

/// A pipeline's state, shared by its tasks and whoever asks.
#[derive(Debug)]
pub struct Cell {
    pipeline: Arc<Pipeline>,
    clock: Arc<dyn Clock>,
    signals: Signals,
    inner: Mutex<Inner>,
    backlog: AtomicU64,
    /// Held by the one task that may write the pipeline's manifests.
    sealing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Inner {
    state: RunState,
    totals: Totals,
    epoch: u64,
    last_commit_ms: Option<i64>,
    latency: Histogram,
    bronze_epoch: u64,
    bronze_problem: Option<String>,
}

/// Arrival times and how many records share each.
pub type Arrivals = Vec<(i64, u64)>;

impl Cell {
    pub fn new(pipeline: Arc<Pipeline>, clock: Arc<dyn Clock>, signals: Signals) -> Self {
        let inner = Inner {
            state: RunState::Starting,
            totals: Totals::default(),
            epoch: 0,
            last_commit_ms: None,
            latency: Histogram::default(),
            bronze_epoch: 0,
            bronze_problem: None,
        };
        Self {
            pipeline,
            clock,
            signals,
            inner: Mutex::new(inner),
            backlog: AtomicU64::new(0),
            sealing: Arc::default(),
        }
    }

    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The right to write manifests. A run that follows a panicked one waits here until the
    /// epochs that were sealed before are done.
    pub async fn sealing(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.sealing).lock_owned().await
    }

    /// Changes what the pipeline is doing; says so only when it is news.
    pub fn set_state(&self, state: RunState) {
        let mut inner = self.inner.lock();
        if inner.state == state {
            return;
        }
        match &state {
            RunState::Failed { reason } => {
                tracing::error!(pipeline = %self.pipeline.name, %reason, "pipeline failed");
            }
            RunState::Waiting { reason } => {
                tracing::warn!(pipeline = %self.pipeline.name, %reason, "pipeline waits");
            }
            _ => tracing::debug!(pipeline = %self.pipeline.name, ?state, "pipeline"),
        }
        inner.state = state;
        drop(inner);
        self.signals.bump();
    }

    pub fn set_backlog(&self, records: u64) {
        self.backlog.store(records, Ordering::Relaxed);
    }

    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Takes over what a restart found.
    pub fn restore(&self, epoch: u64, totals: Totals) {
        let mut inner = self.inner.lock();
        inner.epoch = epoch;
        inner.totals = totals;
    }

    /// Notes a committed epoch; answers with the median latency of its records in milliseconds.
    pub fn committed(&self, epoch: u64, totals: Totals, arrivals: &Arrivals) -> Option<u64> {
        let now = self.clock.now_ms();
        let mut own = Histogram::default();
        let mut inner = self.inner.lock();
        for (at, count) in arrivals {
            let ms = u64::try_from(now - at).unwrap_or(0);
            inner.latency.record(ms, *count);
            own.record(ms, *count);
        }
        inner.epoch = epoch;
        inner.totals = totals;
        inner.last_commit_ms = Some(now);
        drop(inner);
        self.signals.bump();
        own.quantile(0.5)
    }

    pub fn bronze(&self, epoch: u64, problem: Option<String>) {
        let mut inner = self.inner.lock();
        let news = inner.bronze_epoch != epoch || inner.bronze_problem != problem;
        if let (Some(problem), true) = (&problem, news) {
            tracing::warn!(pipeline = %self.pipeline.name, %problem, "bronze waits");
        }
        inner.bronze_epoch = inner.bronze_epoch.max(epoch);
        inner.bronze_problem = problem;
        drop(inner);
        if news {
            self.signals.bump();
        }
    }

    pub fn status(&self) -> PipelineStatus {
        let inner = self.inner.lock();
        let p = &self.pipeline;
        PipelineStatus {
            name: p.name.clone(),
            owner: p.owner.clone(),
            display_name: p.display_name.clone(),
            source: match &p.source {
                Source::Events { topic, .. } => topic.to_string(),
                Source::Files(files) => files.location.clone(),
            },
            sink: p.sink.clone(),
            state: inner.state.clone(),
            totals: inner.totals,
            backlog: self.backlog(),
            epoch: inner.epoch,
            last_commit_ms: inner.last_commit_ms,
            latency_p50_ms: inner.latency.quantile(0.5),
            latency_p99_ms: inner.latency.quantile(0.99),
            waiting_steps: p.waiting.clone(),
            bronze_epoch: inner.bronze_epoch,
            bronze_problem: inner.bronze_problem.clone(),
        }
    }
}
