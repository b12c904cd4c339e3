//! `GET /v1/status`: the overview, for the caller's tenants.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use levada_core::TenantId;
use serde::Serialize;

use super::visible::{json, time};
use crate::answers::read;
use crate::auth::Caller;
use crate::metrics::EventTotals;
use crate::operations::{Check, Freshness, PipelineCounts, visible_models, visible_pipelines};
use crate::problem::ApiProblem;
use crate::state::AppState;

#[derive(Serialize)]
struct Status {
    version: &'static str,
    started_at: String,
    uptime_s: i64,
    ready: bool,
    tenants: Vec<TenantId>,
    /// At the gateway, since the program started.
    events: EventTotals,
    topics: usize,
    pipelines: BTreeMap<String, usize>,
    /// Of all pipelines that the caller sees, since the first epoch of each.
    records: PipelineCounts,
    models: BTreeMap<String, usize>,
    /// Waiting dead letters by code; to those who may read them.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<BTreeMap<String, u64>>,
    /// Publish to queryable, over all tenants; to those who see all.
    #[serde(skip_serializing_if = "Option::is_none")]
    freshness: Option<Freshness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

pub async fn status(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    let checks = state.operations.checks();
    let pipelines = visible_pipelines(&caller.principal, state.operations.pipelines());
    let models = visible_models(&caller.principal, state.operations.models());
    let mut records = PipelineCounts::default();
    for pipeline in &pipelines {
        records.records_in += pipeline.counts.records_in;
        records.out += pipeline.counts.out;
        records.dropped += pipeline.counts.dropped;
        records.dead += pipeline.counts.dead;
    }
    let now_ms = state.clock.now_ms();
    let platform = caller.is_platform() && caller.principal.may_operate();
    let topics = state.bus.topics();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at: time(state.started_ms),
        uptime_s: (now_ms - state.started_ms) / 1_000,
        ready: !state.is_draining() && checks.iter().all(|c| c.ok),
        tenants: state.tenants.list().into_iter().filter(|t| caller.sees(t)).collect(),
        events: state.tenant_labels.totals(|t| caller.sees(t)),
        topics: topics.iter().filter(|t| state.routes.is_visible(&t.name, &caller.principal.tenants)).count(),
        pipelines: by_state(pipelines.into_iter().map(|p| p.state)),
        records,
        models: by_state(models.into_iter().map(|m| m.state)),
        dead_letters: dead_letters(&state, &caller).await?,
        freshness: platform.then(|| state.operations.freshness()),
        checks: platform.then_some(checks),
    };
    Ok(json(&status))
}

async fn dead_letters(
    state: &AppState,
    caller: &Caller,
) -> Result<Option<BTreeMap<String, u64>>, ApiProblem> {
    if !caller.principal.may_operate() {
        return Ok(None);
    }
    let (bus, principal) = (state.bus.clone(), caller.principal.clone());
    let counts = read(state, move || bus.dead_letter_counts(&principal.tenants)).await?;
    Ok(Some(counts?))
}

fn by_state(states: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts
}
