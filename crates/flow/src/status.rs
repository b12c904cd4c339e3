//! What a pipeline says about itself, and the signal by which others hear of a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use levada_bus::TopicInfo;
use levada_config::model::{Owner, Pipeline, Source, Waiting};
use levada_core::{Clock, SourceName, TableName, TenantId, TenantSet};
use levada_lake::{StagedFile, TableKey};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::counts::StepFigures;
use crate::epoch::OpenEpoch;
use crate::histogram::Histogram;
use crate::history::{EpochDone, History, rows_by_tenant};
use crate::journal::Past;
use crate::lag::Lag;
use crate::manifest::Totals;
use crate::names;
use crate::shares::Shares;
use crate::standing::Standing;

/// What a pipeline is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RunState {
    #[default]
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
    /// Since the pipeline's first epoch; validation comes first.
    #[serde(skip)]
    pub steps: Arc<Vec<StepFigures>>,
    #[serde(skip)]
    pub(crate) shares: Arc<Shares>,
    #[serde(skip)]
    pub(crate) lag: Option<Lag>,
    #[serde(skip)]
    pub(crate) archived: Archived,
}

/// Records that lie in bronze.
#[derive(Debug, Clone, Default)]
pub struct Archived {
    pub records: u64,
    pub shares: Arc<Shares>,
}

/// What a shared pipeline did for one tenant, and what it has still to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantFigures {
    pub totals: Totals,
    /// Records that wait; `None` where nobody knows whose the waiting ones are.
    pub backlog: Option<u64>,
    /// The last epoch that held a record of the tenant.
    pub epoch: Option<u64>,
    pub last_commit_ms: Option<i64>,
}

impl PipelineStatus {
    /// Unique in a project, and what dead letters call the pipeline.
    pub fn full_name(&self) -> String {
        names::full_of(&self.owner, &self.name)
    }

    /// The figures of each tenant of a shared pipeline; empty for a tenant's own. `topic` is
    /// what the bus says of the source.
    pub fn by_tenant(&self, topic: Option<&TopicInfo>) -> BTreeMap<TenantId, TenantFigures> {
        let mut figures = BTreeMap::new();
        if self.owner != Owner::Shared {
            return figures;
        }
        for (tenant, share) in self.shares.iter() {
            let told = TenantFigures {
                totals: share.totals,
                backlog: None,
                epoch: Some(share.epoch),
                last_commit_ms: Some(share.at_ms),
            };
            figures.insert(tenant.clone(), told);
        }
        let (Some(lag), Some(topic)) = (&self.lag, topic) else { return figures };
        let published: BTreeMap<_, _> = topic.lanes.iter().map(|l| (&l.tenant, l.published)).collect();
        for lane in &topic.lanes {
            figures.entry(lane.tenant.clone()).or_default();
        }
        for (tenant, told) in &mut figures {
            told.backlog = lag.of(tenant, published.get(tenant).copied().unwrap_or(0), topic.next);
        }
        figures
    }

    /// Rows of the pipeline's source in bronze that belong to some tenants.
    pub fn bronze_rows(&self, tenants: &TenantSet) -> u64 {
        match (&self.owner, tenants) {
            (Owner::Tenant(owner), _) if !tenants.contains(owner) => 0,
            (Owner::Tenant(_), _) | (Owner::Shared, TenantSet::All) => self.archived.records,
            (Owner::Shared, TenantSet::Only(_)) => {
                let own = self.archived.shares.iter().filter(|(tenant, _)| tenants.contains(tenant));
                own.map(|(_, share)| share.totals.records_in).sum()
            }
        }
    }
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

#[derive(Debug, Default)]
struct Inner {
    state: RunState,
    standing: Standing,
    last_commit_ms: Option<i64>,
    latency: Histogram,
    history: History,
    lag: Option<Lag>,
    bronze_epoch: u64,
    bronze_problem: Option<String>,
    archived: Archived,
}

/// A committed epoch.
pub struct Committed<'a> {
    /// Where the pipeline stands after it.
    pub standing: Standing,
    /// What its table got.
    pub files: &'a [StagedFile],
    /// From sealing to committed.
    pub duration: Duration,
    /// The source's position after it.
    pub position: &'a serde_json::Value,
    pub content: OpenEpoch,
}

/// Arrival times and how many records share each.
pub type Arrivals = Vec<(i64, u64)>;

impl Cell {
    /// `topic` is the source of a pipeline that tenants share, before anybody publishes to it
    /// in this process.
    pub fn new(
        pipeline: Arc<Pipeline>,
        topic: Option<&TopicInfo>,
        clock: Arc<dyn Clock>,
        signals: Signals,
    ) -> Self {
        let inner = Inner { lag: topic.map(Lag::begin), ..Inner::default() };
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

    /// Why it failed, where it has.
    pub fn failure(&self) -> Option<String> {
        match &self.inner.lock().state {
            RunState::Failed { reason } => Some(reason.clone()),
            _ => None,
        }
    }

    pub fn set_backlog(&self, records: u64) {
        self.backlog.store(records, Ordering::Relaxed);
    }

    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The offset from which on records count for the lag of tenants.
    pub fn lag_from(&self) -> Option<u64> {
        self.inner.lock().lag.as_ref().map(Lag::from)
    }

    /// Takes over what a restart found.
    pub fn restore(&self, standing: Standing, past: &[Past], position: Option<&serde_json::Value>) {
        let mut inner = self.inner.lock();
        inner.history.catch_up(past);
        inner.last_commit_ms = inner.last_commit_ms.max(standing.at_ms);
        inner.standing = standing;
        if let (Some(lag), Some(next)) = (&mut inner.lag, position.and_then(offset)) {
            lag.stands_at(next);
        }
    }

    /// Notes a committed epoch; answers with the median latency of its records in milliseconds.
    pub fn committed(&self, done: Committed<'_>) -> Option<u64> {
        let now = self.clock.now_ms();
        let Committed { standing, files, duration, position, content } = done;
        let mut own = Histogram::default();
        let mut inner = self.inner.lock();
        for (at, count) in content.arrivals {
            let ms = u64::try_from(now - at).unwrap_or(0);
            inner.latency.record(ms, count);
            own.record(ms, count);
        }
        inner.history.push(EpochDone {
            epoch: standing.epoch,
            at_ms: now,
            rows: files.iter().map(|f| f.rows).sum(),
            files: files.len() as u64,
            duration_ms: u64::try_from(duration.as_millis()).ok(),
            tenants: Some(rows_by_tenant(&content.shares)),
        });
        if let (Some(lag), Some(next)) = (&mut inner.lag, offset(position)) {
            lag.committed(next, content.fresh);
        }
        inner.standing = standing;
        inner.last_commit_ms = Some(now);
        drop(inner);
        self.signals.bump();
        own.quantile(0.5)
    }

    /// The last epochs, newest first.
    pub fn epochs(&self) -> Vec<Arc<EpochDone>> {
        self.inner.lock().history.newest_first()
    }

    /// Notes what lies in bronze.
    pub fn archived(&self, records: u64, shares: Arc<Shares>) {
        self.inner.lock().archived = Archived { records, shares };
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
            totals: inner.standing.totals,
            backlog: self.backlog(),
            epoch: inner.standing.epoch,
            last_commit_ms: inner.last_commit_ms,
            latency_p50_ms: inner.latency.quantile(0.5),
            latency_p99_ms: inner.latency.quantile(0.99),
            waiting_steps: p.waiting.clone(),
            bronze_epoch: inner.bronze_epoch,
            bronze_problem: inner.bronze_problem.clone(),
            steps: Arc::clone(&inner.standing.steps),
            shares: Arc::clone(&inner.standing.shares),
            lag: inner.lag.clone(),
            archived: match &p.source {
                Source::Events { .. } => inner.archived.clone(),
                // A file is archived before its first record is read.
                Source::Files(_) => {
                    Archived { records: inner.standing.totals.records_in, shares: Arc::default() }
                }
            },
        }
    }
}

/// The offset in the position of a topic.
fn offset(position: &serde_json::Value) -> Option<u64> {
    position.get("offset")?.as_u64()
}
