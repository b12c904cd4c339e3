//! The port by which the gateway sees and steers pipelines and models.
//!
//! The binary implements it over the engines. It tells everything; what a caller may see of
//! it is decided here, in one place: things of another tenant are absent, and of a shared
//! pipeline a caller sees the counts of its own tenants only.

use std::collections::BTreeMap;

use levada_bus::admin::SubscriptionAdmin;
use levada_core::{Principal, Problem, TenantId, TenantSet};
use serde::Serialize;

/// What the engines do and can be told. Calls must be quick; `run_model` may take long.
#[async_trait::async_trait]
pub trait Operations: Send + Sync {
    fn pipelines(&self) -> Vec<PipelineStatus>;

    fn models(&self) -> Vec<ModelStatus>;

    /// Runs a model now and answers when it is done. `tenant` is the model's owner; `None`
    /// means the shared one of that name.
    ///
    /// # Errors
    /// What stopped the run, as a problem for the caller.
    async fn run_model(&self, tenant: Option<&TenantId>, name: &str) -> Result<ModelRun, Problem>;

    /// Parts that must work before the process may take traffic.
    fn checks(&self) -> Vec<Check>;

    /// Pipelines and models that failed: the process takes traffic all the same. Quick: anybody
    /// may ask for it, often.
    fn failing(&self) -> Vec<Failing> {
        Vec::new()
    }

    /// The subscriptions of the Pub/Sub bus; `None`: this gateway has none.
    fn subscriptions(&self) -> Option<SubscriptionAdmin> {
        None
    }

    /// Latency from publish to queryable, where it is measured.
    fn freshness(&self) -> Freshness {
        Freshness::default()
    }
}

/// Records of a pipeline since its first epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PipelineCounts {
    /// Read from the source.
    #[serde(rename = "in")]
    pub records_in: u64,
    /// Written to the table.
    pub out: u64,
    /// Dropped as duplicates.
    pub dropped: u64,
    /// Sent to the dead letter.
    pub dead: u64,
}

impl PipelineCounts {
    fn add(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.out += other.out;
        self.dropped += other.dropped;
        self.dead += other.dead;
    }
}

/// What a shared pipeline did for one tenant, and has still to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantShare {
    pub counts: PipelineCounts,
    /// Records that wait; `None` where nobody knows whose the waiting ones are.
    pub backlog: Option<u64>,
    /// The last epoch that held a record of the tenant.
    pub epoch: Option<i64>,
    pub committed_at_ms: Option<i64>,
}

impl TenantShare {
    /// Both together; a backlog of which a part is not known is not known.
    fn and(self, other: &Self) -> Self {
        let mut counts = self.counts;
        counts.add(&other.counts);
        Self {
            counts,
            backlog: self.backlog.zip(other.backlog).map(|(a, b)| a + b),
            epoch: self.epoch.max(other.epoch),
            committed_at_ms: self.committed_at_ms.max(other.committed_at_ms),
        }
    }
}

/// A pipeline at work.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PipelineStatus {
    pub name: String,
    /// `None`: shared by all tenants.
    pub tenant: Option<TenantId>,
    pub description: Option<String>,
    /// `running`, `waiting`, `failed` or `stopped`.
    pub state: String,
    /// Topic or folder.
    pub source: String,
    /// `zone.table`.
    pub sink: String,
    /// Steps that wait for something, and why.
    pub waiting: Vec<String>,
    /// Why it failed last.
    pub error: Option<String>,
    pub counts: PipelineCounts,
    /// Of a shared pipeline: the figures of each tenant, which are all that its keys see.
    #[serde(skip)]
    pub by_tenant: BTreeMap<TenantId, TenantShare>,
    /// Records that wait.
    pub backlog: Option<u64>,
    /// The last committed epoch.
    pub epoch: Option<i64>,
    pub committed_at_ms: Option<i64>,
}

/// A gold model.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModelStatus {
    pub name: String,
    pub tenant: Option<TenantId>,
    pub description: Option<String>,
    /// Tables it reads, `zone.table`.
    pub reads: Vec<String>,
    /// `manual`, `on_change` or a cron expression.
    pub schedule: String,
    /// `ready`, `running`, `waiting` or `failed`.
    pub state: String,
    /// Why it waits or failed last.
    pub reason: Option<String>,
    pub rows: Option<u64>,
    pub last_run_ms: Option<i64>,
    pub last_duration_ms: Option<u64>,
}

/// What a run of a model did.
#[derive(Debug, Clone, Serialize)]
pub struct ModelRun {
    pub name: String,
    pub rows: u64,
    pub duration_ms: u64,
    pub epoch: Option<i64>,
}

/// Whether a part works.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub detail: Option<String>,
}

/// A part of the project that failed and does not run.
#[derive(Debug, Clone, Serialize)]
pub struct Failing {
    /// `pipeline`, `model`, `table` or `document`.
    pub kind: &'static str,
    pub name: String,
    /// `None`: shared by all tenants.
    pub tenant: Option<TenantId>,
    pub reason: String,
}

/// Milliseconds from publish to queryable.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Freshness {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// No pipelines and no models: a gateway alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOperations;

#[async_trait::async_trait]
impl Operations for NoOperations {
    fn pipelines(&self) -> Vec<PipelineStatus> {
        Vec::new()
    }

    fn models(&self) -> Vec<ModelStatus> {
        Vec::new()
    }

    async fn run_model(&self, _: Option<&TenantId>, name: &str) -> Result<ModelRun, Problem> {
        Err(model_unknown(name))
    }

    fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

pub(crate) fn model_unknown(name: &str) -> Problem {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::new(404, "model-unknown", format!("there is no model `{shown}`"))
        .hint("GET /v1/models lists the models that this credential can see")
}

fn owns(principal: &Principal, owner: Option<&TenantId>) -> bool {
    match (&principal.tenants, owner) {
        (TenantSet::All, _) | (_, None) => true,
        (TenantSet::Only(set), Some(tenant)) => set.contains(tenant),
    }
}

/// The pipelines as a principal may see them.
pub(crate) fn visible_pipelines(principal: &Principal, all: Vec<PipelineStatus>) -> Vec<PipelineStatus> {
    let mut seen: Vec<PipelineStatus> =
        all.into_iter().filter(|p| owns(principal, p.tenant.as_ref())).collect();
    if principal.tenants != TenantSet::All {
        for pipeline in seen.iter_mut().filter(|p| p.tenant.is_none()) {
            let own = pipeline.by_tenant.iter().filter(|(t, _)| principal.tenants.contains(t));
            let own = own.map(|(_, share)| *share).reduce(|sum, share| sum.and(&share)).unwrap_or_default();
            pipeline.counts = own.counts;
            pipeline.backlog = own.backlog;
            pipeline.epoch = own.epoch;
            pipeline.committed_at_ms = own.committed_at_ms;
            // An error text may quote another tenant's record.
            pipeline.error =
                pipeline.error.take().map(|_| "the pipeline failed; its operator knows why".to_owned());
        }
    }
    seen
}

/// The models as a principal may see them. Rows of a shared model are of all tenants.
pub(crate) fn visible_models(principal: &Principal, all: Vec<ModelStatus>) -> Vec<ModelStatus> {
    let mut seen: Vec<ModelStatus> = all.into_iter().filter(|m| owns(principal, m.tenant.as_ref())).collect();
    if principal.tenants != TenantSet::All {
        for model in seen.iter_mut().filter(|m| m.tenant.is_none()) {
            model.rows = None;
            model.reason =
                model.reason.take().map(|_| "the model does not run; its operator knows why".to_owned());
        }
    }
    seen
}

/// The failed parts as a principal may see them.
pub(crate) fn visible_failing(principal: &Principal, all: Vec<Failing>) -> Vec<Failing> {
    let mut seen: Vec<Failing> = all.into_iter().filter(|f| owns(principal, f.tenant.as_ref())).collect();
    if principal.tenants != TenantSet::All {
        for failing in seen.iter_mut().filter(|f| f.tenant.is_none()) {
            // The text may quote another tenant's record.
            failing.reason = format!("the {} failed; its operator knows why", failing.kind);
        }
    }
    seen
}

/// The model that a principal means by a name and may run: one of its tenants' before a
/// shared one, which only the platform may run.
///
/// # Errors
/// `model-unknown` (404), `model-ambiguous` (409).
pub(crate) fn runnable_model(
    principal: &Principal,
    all: Vec<ModelStatus>,
    name: &str,
) -> Result<Option<TenantId>, Problem> {
    let named: Vec<ModelStatus> =
        visible_models(principal, all).into_iter().filter(|m| m.name == name).collect();
    let mut owners: Vec<Option<TenantId>> = named.into_iter().map(|m| m.tenant).collect();
    if owners.iter().any(Option::is_some) {
        owners.retain(Option::is_some);
    }
    match owners.as_slice() {
        [] => Err(model_unknown(name)),
        [None] if principal.tenants != TenantSet::All => Err(Problem::new(
            403,
            "role-forbidden",
            "a model that tenants share is run by the platform's operators",
        )),
        [owner] => Ok(owner.clone()),
        _ => Err(Problem::new(409, "model-ambiguous", format!("several tenants have a model `{name}`"))
            .hint("name the tenant in the X-Tenant-ID header")),
    }
}
