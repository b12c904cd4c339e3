//! The engines as the gateway sees them.

use std::time::Duration;

use async_trait::async_trait;
use levada_bus::admin::SubscriptionAdmin;
use levada_bus::{Bus, TopicInfo};
use levada_config::model::{ModelSchedule, Owner, Project};
use levada_core::{Principal, Problem, SourceName, TenantId};
use levada_flow::{EpochDone, ModelState, Models, Pipelines, RunState, TenantFigures, Totals};
use levada_http::{
    Check, Failing, Freshness, ModelRun, ModelStatus, Operations, PipelineCounts, PipelineStatus, TenantShare,
};
use levada_lake::Lake;
use levada_store::DocumentStore;
use std::sync::Arc;
use tokio::sync::RwLock;

/// The running engines and the project that they run.
pub struct Engines {
    pub project: Project,
    running: RwLock<Option<(Pipelines, Models)>>,
}

impl Engines {
    pub fn new(project: Project, pipelines: Pipelines, models: Models) -> Self {
        Self { project, running: RwLock::new(Some((pipelines, models))) }
    }

    pub fn pipelines(&self) -> Vec<levada_flow::PipelineStatus> {
        self.with(|(pipelines, _)| pipelines.status())
    }

    /// The last epochs of a pipeline, newest first.
    pub fn epochs(&self, owner: &Owner, name: &SourceName) -> Vec<Arc<EpochDone>> {
        self.with(|(pipelines, _)| pipelines.epochs(owner, name))
    }

    pub fn models(&self) -> Vec<levada_flow::ModelStatus> {
        self.with(|(_, models)| models.status())
    }

    fn with<T>(&self, read: impl FnOnce(&(Pipelines, Models)) -> Vec<T>) -> Vec<T> {
        // Held for writing only while stopping: then there is nothing to tell.
        self.running.try_read().ok().and_then(|r| r.as_ref().map(read)).unwrap_or_default()
    }

    /// Pipelines and models that failed.
    pub fn failing(&self) -> Vec<Failing> {
        self.with(|(pipelines, models)| {
            let pipelines = pipelines.failed().into_iter().map(|(pipeline, reason)| Failing {
                kind: "pipeline",
                name: pipeline.name.to_string(),
                tenant: owner_tenant(&pipeline.owner),
                reason,
            });
            let models = models.failed().into_iter().map(|model| Failing {
                kind: "model",
                name: model.name.to_string(),
                tenant: owner_tenant(&model.owner),
                reason: model_state(&model.state).1.unwrap_or_default(),
            });
            pipelines.chain(models).collect()
        })
    }

    /// Waits until every pipeline runs or has said why not; not longer than `within`.
    pub async fn settled(&self, within: Duration) {
        let changes = self.with(|(pipelines, _)| vec![pipelines.changes()]).pop();
        let Some(mut changes) = changes else { return };
        let settled = async {
            while self.pipelines().iter().any(|p| p.state == RunState::Starting) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(within, settled).await;
    }

    /// Runs a model now; the name is `<tenant>/<name>` for a tenant's own.
    ///
    /// # Errors
    /// What the run answers, or `shutting-down`.
    pub async fn run_model(&self, name: &str) -> Result<levada_flow::ModelStatus, Problem> {
        let running = self.running.read().await;
        match running.as_ref() {
            Some((_, models)) => models.run(name).await,
            None => Err(Problem::new(503, "shutting-down", "the server is stopping")),
        }
    }

    pub async fn stop(&self, grace: Duration) {
        let running = self.running.write().await.take();
        if let Some((pipelines, models)) = running {
            pipelines.stop(grace).await;
            models.stop(grace).await;
        }
    }

    /// From publish to queryable: the figures of the slowest pipeline that a principal sees.
    pub fn freshness_for(&self, principal: &Principal) -> Freshness {
        self.slowest(|owner| sees(principal, owner))
    }

    /// As [`Engines::freshness_for`], of all pipelines.
    pub fn freshness(&self) -> Freshness {
        self.slowest(|_| true)
    }

    fn slowest(&self, includes: impl Fn(&Owner) -> bool) -> Freshness {
        let mut pipelines = self.pipelines();
        pipelines.retain(|p| includes(&p.owner));
        Freshness {
            p50_ms: pipelines.iter().filter_map(|p| p.latency_p50_ms).max().map(|ms| ms as f64),
            p99_ms: pipelines.iter().filter_map(|p| p.latency_p99_ms).max().map(|ms| ms as f64),
        }
    }
}

pub fn owner_tenant(owner: &Owner) -> Option<TenantId> {
    match owner {
        Owner::Shared => None,
        Owner::Tenant(tenant) => Some(tenant.clone()),
    }
}

/// Whether a principal may know of what an owner has: what is shared, everybody may.
pub fn sees(principal: &Principal, owner: &Owner) -> bool {
    match owner {
        Owner::Shared => true,
        Owner::Tenant(tenant) => principal.tenants.contains(tenant),
    }
}

/// What the bus says of the topic that a pipeline reads; `topics` come in the order of names.
pub fn topic_of<'a>(
    pipeline: &levada_flow::PipelineStatus,
    topics: &'a [TopicInfo],
) -> Option<&'a TopicInfo> {
    let found = topics.binary_search_by(|topic| topic.name.as_str().cmp(&pipeline.source));
    found.ok().map(|at| &topics[at])
}

/// A schedule in words: `manual`, `on change` or the cron expression.
pub fn schedule_text(schedule: &ModelSchedule) -> String {
    match schedule {
        ModelSchedule::Manual => "manual".to_owned(),
        ModelSchedule::OnChange { .. } => "on_change".to_owned(),
        ModelSchedule::Cron(expression) => expression.clone(),
    }
}

/// State as a word, and why where it is not good.
pub fn pipeline_state(state: &RunState) -> (&'static str, Option<String>) {
    match state {
        RunState::Starting => ("starting", None),
        RunState::Running => ("running", None),
        RunState::Waiting { reason } => ("waiting", Some(reason.clone())),
        RunState::Failed { reason } => ("failed", Some(reason.clone())),
        RunState::Stopped => ("stopped", None),
    }
}

/// As [`pipeline_state`], of a model.
pub fn model_state(state: &ModelState) -> (&'static str, Option<String>) {
    match state {
        ModelState::Idle => ("ready", None),
        ModelState::Running => ("running", None),
        ModelState::Waiting { reason } => ("waiting", Some(reason.clone())),
        ModelState::Failed { reason } => ("failed", Some(reason.clone())),
    }
}

fn counts(totals: &Totals) -> PipelineCounts {
    PipelineCounts {
        records_in: totals.records_in,
        out: totals.rows_out,
        dropped: totals.duplicates,
        dead: totals.dead_letters,
    }
}

fn share(figures: &TenantFigures) -> TenantShare {
    TenantShare {
        counts: counts(&figures.totals),
        backlog: figures.backlog,
        epoch: figures.epoch.and_then(|epoch| i64::try_from(epoch).ok()),
        committed_at_ms: figures.last_commit_ms,
    }
}

/// Implements the gateway's port.
pub struct EngineOperations {
    pub engines: Arc<Engines>,
    pub bus: Bus,
    pub lake: Lake,
    /// Stores of documents whose damage is told.
    pub documents: Vec<DocumentStore>,
    pub subscriptions: SubscriptionAdmin,
}

#[async_trait]
impl Operations for EngineOperations {
    fn pipelines(&self) -> Vec<PipelineStatus> {
        let described = |p: &levada_flow::PipelineStatus| {
            let found =
                self.engines.project.pipelines.iter().find(|q| q.name == p.name && q.owner == p.owner);
            found.and_then(|q| q.description.clone())
        };
        let topics = self.bus.topics();
        let status = |p: levada_flow::PipelineStatus| {
            let shares = p.by_tenant(topic_of(&p, &topics));
            let (state, error) = pipeline_state(&p.state);
            PipelineStatus {
                description: described(&p),
                name: p.name.to_string(),
                tenant: owner_tenant(&p.owner),
                state: state.to_owned(),
                source: p.source,
                sink: p.sink.to_string(),
                waiting: p
                    .waiting_steps
                    .iter()
                    .map(|w| format!("{}: {} [{}]", w.step, w.reason, w.code))
                    .collect(),
                error,
                counts: counts(&p.totals),
                by_tenant: shares.into_iter().map(|(tenant, figures)| (tenant, share(&figures))).collect(),
                backlog: Some(p.backlog),
                epoch: i64::try_from(p.epoch).ok(),
                committed_at_ms: p.last_commit_ms,
            }
        };
        self.engines.pipelines().into_iter().map(status).collect()
    }

    fn models(&self) -> Vec<ModelStatus> {
        let status = |m: levada_flow::ModelStatus| {
            let (state, reason) = model_state(&m.state);
            let defined = self.engines.project.models.iter().find(|q| q.name == m.name && q.owner == m.owner);
            ModelStatus {
                description: defined.and_then(|d| d.description.clone()),
                name: m.name.to_string(),
                tenant: owner_tenant(&m.owner),
                reads: m.reads.iter().map(ToString::to_string).collect(),
                schedule: schedule_text(&m.schedule),
                state: state.to_owned(),
                reason,
                rows: m.rows,
                last_run_ms: m.last_run_ms,
                last_duration_ms: m.duration_ms,
            }
        };
        self.engines.models().into_iter().map(status).collect()
    }

    async fn run_model(&self, tenant: Option<&TenantId>, name: &str) -> Result<ModelRun, Problem> {
        let full = tenant.map_or_else(|| name.to_owned(), |t| format!("{t}/{name}"));
        let done = self.engines.run_model(&full).await?;
        Ok(ModelRun {
            name: name.to_owned(),
            rows: done.rows.unwrap_or(0),
            duration_ms: done.duration_ms.unwrap_or(0),
            epoch: i64::try_from(done.epoch).ok(),
        })
    }

    fn checks(&self) -> Vec<Check> {
        let log = self.bus.log_stats();
        let poisoned = log.poisoned.clone();
        let full = log.full.then(|| "the disk is full".to_owned());
        let starting = self.engines.pipelines().iter().filter(|p| p.state == RunState::Starting).count();
        vec![
            Check {
                name: "log".to_owned(),
                ok: poisoned.is_none() && full.is_none(),
                detail: poisoned.or(full),
            },
            Check {
                name: "pipelines".to_owned(),
                ok: starting == 0,
                detail: (starting > 0).then(|| format!("{starting} are starting")),
            },
        ]
    }

    fn failing(&self) -> Vec<Failing> {
        let damaged = self.lake.damage().into_iter().map(|damage| Failing {
            kind: "table",
            tenant: damage.owner.tenant().cloned(),
            reason: format!("{}: {}", damage.file, damage.reason),
            name: damage.table,
        });
        let lost = self.documents.iter().flat_map(DocumentStore::damage).filter(|damage| !damage.restored);
        let lost = lost.map(|damage| Failing {
            kind: "document",
            tenant: None,
            reason: format!("{}, and so is its copy", damage.reason),
            name: damage.name,
        });
        self.engines.failing().into_iter().chain(damaged).chain(lost).collect()
    }

    fn subscriptions(&self) -> Option<SubscriptionAdmin> {
        Some(self.subscriptions.clone())
    }

    fn freshness(&self) -> Freshness {
        self.engines.freshness()
    }
}
