//! Gold models: each is one SELECT whose result replaces a table, in one commit.
//!
//! A single runner works them off in the order of their dependencies, so that models share
//! the machine with the pipelines instead of crowding them out. A model runs by command, by
//! cron, or when a table that it reads has changed, at most every so often.

mod record;
pub(crate) mod schedule;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use levada_config::model::{Model, ModelSchedule, Owner};
use levada_core::{Clock, Problem, SourceName, TableName, Zone};
use levada_disk::Disk;
use levada_lake::{Lake, TableKey, TableSpec};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::record::RunRecord;
use self::schedule::{Due, in_order};
use crate::metrics;
use crate::names;
use crate::status::Signals;

/// Commands that may wait for the runner.
const COMMANDS: usize = 64;

/// What a model is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ModelState {
    Idle,
    Running,
    /// It cannot run: the project lacks something.
    Waiting {
        reason: String,
    },
    /// The last run failed; the table holds the result of the one before.
    Failed {
        reason: String,
    },
}

/// A model as the console and the API show it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelStatus {
    pub name: SourceName,
    pub owner: Owner,
    pub schedule: ModelSchedule,
    pub reads: Vec<TableName>,
    #[serde(flatten)]
    pub state: ModelState,
    pub last_run_ms: Option<i64>,
    pub rows: Option<u64>,
    pub duration_ms: Option<u64>,
    /// Runs that replaced the table.
    pub epoch: u64,
    /// When it runs next, where that is known.
    pub next_run_ms: Option<i64>,
}

/// What the runner works with.
pub struct ModelsConfig {
    pub lake: Lake,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    /// Those of the pipelines: their commits start models.
    pub signals: Signals,
}

struct Entry {
    model: Model,
    due: Due,
    status: ModelStatus,
}

type Reply = oneshot::Sender<Result<ModelStatus, Problem>>;

/// Handle to the runner.
pub struct Models {
    shared: Arc<Mutex<Vec<ModelStatus>>>,
    commands: mpsc::Sender<(String, Reply)>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A shared model's name, or `<tenant>/<name>`.
fn full_name(model: &Model) -> String {
    match &model.owner {
        Owner::Shared => model.name.to_string(),
        Owner::Tenant(tenant) => format!("{tenant}/{}", model.name),
    }
}

pub(crate) fn table_key(model: &Model) -> TableKey {
    TableKey::new(names::lake_owner(&model.owner), TableName::new(Zone::Gold, model.name.clone()))
}

impl Models {
    /// Starts the runner. Models whose sources changed since their last run are due at once.
    pub fn start(models: &[Model], config: ModelsConfig) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (stop, stopped) = watch::channel(false);
        let entries: Vec<Entry> = in_order(models).into_iter().map(|m| entry(m, &config)).collect();
        let shared = Arc::new(Mutex::new(entries.iter().map(|e| e.status.clone()).collect()));
        let tables = config.signals.tables.subscribe();
        let runner = Runner { config, entries, shared: Arc::clone(&shared), tables };
        let task = tokio::spawn(runner.run(receiver, stopped));
        Self { shared, commands, stop, task }
    }

    /// Every model's state, dependencies first.
    pub fn status(&self) -> Vec<ModelStatus> {
        self.shared.lock().clone()
    }

    /// Those whose last run failed.
    pub fn failed(&self) -> Vec<ModelStatus> {
        let failed = |m: &&ModelStatus| matches!(m.state, ModelState::Failed { .. });
        self.shared.lock().iter().filter(failed).cloned().collect()
    }

    /// Runs a model now and answers when its table is replaced. The name is `<tenant>/<name>`
    /// for a tenant's own model; its bare name does where only one model has it.
    ///
    /// # Errors
    /// `model-unknown`, `model-waiting`, or what the query answers.
    pub async fn run(&self, name: &str) -> Result<ModelStatus, Problem> {
        let (reply, answer) = oneshot::channel();
        let stopping =
            || Problem::new(503, "shutting-down", "models are no longer run: the server is stopping");
        self.commands.send((name.to_owned(), reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Ends after the model at hand, or abandons it after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

fn entry(model: Model, config: &ModelsConfig) -> Entry {
    let record = RunRecord::load(&*config.disk, &full_name(&model));
    let status = ModelStatus {
        name: model.name.clone(),
        owner: model.owner.clone(),
        schedule: model.schedule.clone(),
        reads: model.reads.clone(),
        state: match &model.waiting {
            Some(reason) => ModelState::Waiting { reason: reason.clone() },
            None => ModelState::Idle,
        },
        last_run_ms: record.as_ref().map(|r| r.at_ms),
        rows: record.as_ref().map(|r| r.rows),
        duration_ms: record.as_ref().map(|r| r.duration_ms),
        epoch: record.as_ref().map_or(0, |r| r.epoch),
        next_run_ms: None,
    };
    let due = Due::new(&model, config.clock.now_ms(), record.as_ref().map(|r| r.at_ms));
    Entry { model, due, status }
}

struct Runner {
    config: ModelsConfig,
    /// Dependencies first.
    entries: Vec<Entry>,
    shared: Arc<Mutex<Vec<ModelStatus>>>,
    tables: broadcast::Receiver<TableKey>,
}

impl Runner {
    async fn run(mut self, mut commands: mpsc::Receiver<(String, Reply)>, mut stop: watch::Receiver<bool>) {
        self.compare_with_last_time().await;
        self.publish();
        while !*stop.borrow() {
            let now = self.config.clock.now_ms();
            if let Some(at) = self.entries.iter().position(|e| e.due.at_ms().is_some_and(|due| due <= now)) {
                let _ = self.refresh(at).await;
                self.drain_changes();
                continue;
            }
            let next = self.entries.iter().filter_map(|e| e.due.at_ms()).min();
            // Capped, since the wall clock may be set.
            let wait = next.map_or(3_600_000, |due| (due - now).clamp(1, 3_600_000));
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(1));
            let command = tokio::select! {
                _ = stop.changed() => None,
                command = commands.recv() => command,
                change = self.tables.recv() => {
                    self.changed(change);
                    None
                }
                () = tokio::time::sleep(wait) => None,
            };
            if let Some((name, reply)) = command {
                let answer = self.command(&name).await;
                let _ = reply.send(answer);
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        for entry in &mut self.entries {
            entry.status.next_run_ms = entry.due.at_ms();
        }
        *self.shared.lock() = self.entries.iter().map(|e| e.status.clone()).collect();
    }

    fn changed(&mut self, change: Result<TableKey, broadcast::error::RecvError>) {
        let now = self.config.clock.now_ms();
        for entry in &mut self.entries {
            let hit = match &change {
                Ok(key) => reads(&entry.model, key),
                // Too many changes to tell them apart.
                Err(broadcast::error::RecvError::Lagged(_)) => true,
                Err(broadcast::error::RecvError::Closed) => false,
            };
            if hit {
                entry.due.source_changed(now);
            }
        }
    }

    fn drain_changes(&mut self) {
        loop {
            match self.tables.try_recv() {
                Ok(key) => self.changed(Ok(key)),
                Err(broadcast::error::TryRecvError::Lagged(n)) => {
                    self.changed(Err(broadcast::error::RecvError::Lagged(n)));
                }
                Err(_) => return,
            }
        }
    }

    /// A model that runs on change is due when its sources are at other versions than at its
    /// last run.
    async fn compare_with_last_time(&mut self) {
        let now = self.config.clock.now_ms();
        for at in 0..self.entries.len() {
            if !matches!(self.entries[at].model.schedule, ModelSchedule::OnChange { .. }) {
                continue;
            }
            let seen =
                RunRecord::load(&*self.config.disk, &full_name(&self.entries[at].model)).map(|r| r.sources);
            let sources = versions(&self.config.lake, &self.entries[at].model).await;
            let has_data = sources.iter().any(|(_, version)| version.is_some());
            if has_data && seen.as_ref() != Some(&sources) {
                self.entries[at].due.source_changed(now);
            }
        }
    }

    async fn command(&mut self, name: &str) -> Result<ModelStatus, Problem> {
        let exact = self.entries.iter().position(|e| full_name(&e.model) == name);
        let mut bare = self.entries.iter().enumerate().filter(|(_, e)| e.model.name.as_str() == name);
        let only = bare.next().filter(|_| bare.next().is_none()).map(|(at, _)| at);
        let at = exact.or(only).ok_or_else(|| {
            Problem::new(404, "model-unknown", format!("there is no model `{name}`"))
                .hint("GET /v1/models lists them; a tenant's own model is called tenant/name")
        })?;
        if let Some(reason) = &self.entries[at].model.waiting {
            return Err(Problem::new(409, "model-waiting", format!("model `{name}` waits: {reason}")));
        }
        self.refresh(at).await
    }

    /// Runs one model and notes how it went.
    async fn refresh(&mut self, at: usize) -> Result<ModelStatus, Problem> {
        let started_ms = self.config.clock.now_ms();
        let started = self.config.clock.monotonic();
        self.entries[at].due.started(started_ms);
        self.entries[at].status.state = ModelState::Running;
        self.publish();
        let (lake, model) = (self.config.lake.clone(), self.entries[at].model.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { replace(&lake, &model).await });
        let result = match tasks.join_next().await {
            Some(Ok(result)) => result,
            _ => Err(Problem::new(500, "model-failed", "the run panicked")),
        };
        let took = self.config.clock.monotonic() - started;
        let entry = &mut self.entries[at];
        let name = full_name(&entry.model);
        metrics::model_ran(&name, result.is_ok(), took.as_secs_f64());
        entry.status.last_run_ms = Some(started_ms);
        entry.status.duration_ms = u64::try_from(took.as_millis()).ok();
        let answer = match result {
            Ok(done) => {
                entry.status.state = ModelState::Idle;
                entry.status.rows = Some(done.rows);
                entry.status.epoch = done.epoch;
                let record = RunRecord {
                    at_ms: started_ms,
                    rows: done.rows,
                    duration_ms: entry.status.duration_ms.unwrap_or(0),
                    epoch: done.epoch,
                    sources: done.sources,
                };
                let disk = Arc::clone(&self.config.disk);
                let saved = tokio::task::spawn_blocking(move || record.save(&*disk, &name)).await;
                if let Ok(Err(error)) = saved {
                    tracing::warn!(%error, "cannot note a model's run; it may run once more after a restart");
                }
                let _ = self.config.signals.tables.send(table_key(&entry.model));
                Ok(entry.status.clone())
            }
            Err(problem) => {
                tracing::warn!(model = %name, %problem, "model failed");
                entry.due.failed(self.config.clock.now_ms());
                entry.status.state = ModelState::Failed { reason: problem.to_string() };
                Err(problem)
            }
        };
        self.publish();
        self.config.signals.bump();
        answer
    }
}

/// Whether a change of a table concerns a model.
fn reads(model: &Model, key: &TableKey) -> bool {
    let visible = key.owner == levada_lake::Owner::Shared || key.owner == names::lake_owner(&model.owner);
    visible && model.reads.contains(&key.name)
}

/// What a run did.
struct Replaced {
    rows: u64,
    epoch: u64,
    sources: record::Versions,
}

async fn replace(lake: &Lake, model: &Model) -> Result<Replaced, Problem> {
    // Before the query: what changes while it runs counts as a change after it.
    let sources = versions(lake, model).await;
    let owner = names::lake_owner(&model.owner);
    let schema = lake.describe_model(&model.sql, &owner).await?;
    let key = table_key(model);
    let spec = table_spec(model, schema)?;
    let storage = |e: levada_lake::LakeError| Problem::new(500, "model-failed", e.to_string());
    lake.ensure_table(&spec).await.map_err(storage)?;
    let batches = lake.execute_model(&model.sql, &owner).await?;
    let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
    let app = names::model_app_id(&model.name);
    let epoch = lake.epoch(&key, &app).await.map_err(storage)?.unwrap_or(0) + 1;
    lake.replace(&key, &app, epoch, batches).await.map_err(storage)?;
    Ok(Replaced { rows, epoch: u64::try_from(epoch).unwrap_or(0), sources })
}

/// The table of a model whose result has these columns.
///
/// # Errors
/// `model-tenant` when tenants share the table and rows do not say whose they are.
pub(crate) fn table_spec(model: &Model, schema: SchemaRef) -> Result<TableSpec, Problem> {
    let owner = names::lake_owner(&model.owner);
    if owner == levada_lake::Owner::Shared && schema.index_of(levada_schema::TENANT_ID).is_err() {
        return Err(Problem::new(422, "model-tenant", "a model that tenants share must select `tenant_id`")
            .hint("add tenant_id to the select list and to group by, or move the model to tenants/<tenant>/models"));
    }
    let mut spec = TableSpec::new(owner, table_key(model).name, schema);
    spec.cluster_by = model.cluster_by.iter().map(ToString::to_string).collect();
    spec.description = model.description.clone();
    Ok(spec)
}

/// The versions of the tables that a model reads; a tenant's own table comes before a shared
/// one of that name.
async fn versions(lake: &Lake, model: &Model) -> record::Versions {
    let mut found = Vec::with_capacity(model.reads.len());
    for name in &model.reads {
        let mut version = None;
        for owner in [names::lake_owner(&model.owner), levada_lake::Owner::Shared] {
            if let Ok(stats) = lake.table_stats(&TableKey::new(owner, name.clone())).await {
                version = stats.version;
                break;
            }
        }
        found.push((name.clone(), version));
    }
    found
}
