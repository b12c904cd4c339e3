//! Pipelines: their rows, and the page of one.

use std::time::Instant;

use levada_bus::DeadFilter;
use levada_config::model::{Pipeline, Step};
use levada_console::{Health, PipelineDetail, PipelineRow, ReasonCount, StepRow};
use levada_core::{Principal, Problem, TenantSet, attr};
use levada_flow::{PipelineStatus, RunState};

use super::{PlatformData, bus_problem, key, owner_text, urgency};
use crate::operations::owner_tenant;

impl PlatformData {
    pub(super) fn pipeline_rows(&self, principal: &Principal) -> Vec<PipelineRow> {
        let visible = self.engines.pipelines().into_iter().filter(|p| Self::sees(principal, &p.owner));
        let mut rows: Vec<PipelineRow> = visible.map(|p| self.pipeline_row(principal, p)).collect();
        rows.sort_by_key(|r| (std::cmp::Reverse(urgency(r.health)), r.name.clone()));
        rows
    }

    fn pipeline_row(&self, principal: &Principal, status: PipelineStatus) -> PipelineRow {
        // Figures of a shared pipeline are of all tenants: only the platform sees them.
        let shown = principal.tenants == TenantSet::All || owner_tenant(&status.owner).is_some();
        let count = |n: u64| if shown { n } else { 0 };
        let totals = &status.totals;
        let (health, note) = pipeline_health(&status);
        let key = key(&status.owner, status.name.as_str());
        let rate_per_s = self.meter.per_s(&key, totals.records_in, Instant::now());
        PipelineRow {
            key,
            name: status.display_name.clone().unwrap_or_else(|| status.name.to_string()),
            owner: owner_text(&status.owner),
            source: status.source.clone(),
            sink: status.sink.to_string(),
            received: count(totals.records_in),
            written: count(totals.rows_out),
            dropped: count(totals.duplicates),
            dead: count(totals.dead_letters),
            backlog: count(status.backlog),
            rate_per_s: if shown { rate_per_s } else { 0.0 },
            epoch: (status.epoch > 0).then_some(status.epoch),
            last_commit_ms: status.last_commit_ms,
            health,
            note,
        }
    }

    pub(super) fn pipeline_page(
        &self,
        principal: &Principal,
        wanted: &str,
    ) -> Result<Option<PipelineDetail>, Problem> {
        let all = self.engines.pipelines();
        let found = all
            .into_iter()
            .find(|p| Self::sees(principal, &p.owner) && key(&p.owner, p.name.as_str()) == wanted);
        let Some(status) = found else { return Ok(None) };
        let definition = self.definition(&status).cloned();
        let mut steps: Vec<StepRow> = definition.iter().flat_map(|d| &d.steps).map(step_row).collect();
        for waiting in &status.waiting_steps {
            steps.push(StepRow {
                kind: waiting.step.clone(),
                summary: format!("{} [{}]", waiting.reason, waiting.code),
                waits_for: Some(waiting.reason.clone()),
                rows_in: 0,
                rows_out: 0,
                dropped: 0,
                dead: 0,
            });
        }
        let filter =
            DeadFilter { pipeline: Some(status.name.to_string()), limit: 10_000, ..DeadFilter::default() };
        let letters = self.bus.dead_letters(&principal.tenants, &filter).map_err(bus_problem)?;
        let mut reasons = std::collections::BTreeMap::<String, u64>::new();
        for entry in &letters {
            *reasons.entry(entry.attribute(attr::DEAD_CODE).to_owned()).or_default() += 1;
        }
        Ok(Some(PipelineDetail {
            description: definition.as_ref().and_then(|d| d.description.clone()),
            file: definition.as_ref().map(|d| d.file.display().to_string()).unwrap_or_default(),
            row: self.pipeline_row(principal, status),
            steps,
            dead_by_reason: reasons.into_iter().map(|(code, count)| ReasonCount { code, count }).collect(),
            epochs: Vec::new(),
        }))
    }

    fn definition(&self, status: &PipelineStatus) -> Option<&Pipeline> {
        self.engines.project.pipelines.iter().find(|p| p.name == status.name && p.owner == status.owner)
    }
}

fn pipeline_health(status: &PipelineStatus) -> (Health, Option<String>) {
    match &status.state {
        RunState::Failed { reason } => (Health::Failing, Some(reason.clone())),
        RunState::Waiting { reason } => (Health::Degraded, Some(reason.clone())),
        RunState::Starting => (Health::Idle, Some("starting".to_owned())),
        RunState::Stopped => (Health::Failing, Some("stopped".to_owned())),
        RunState::Running => match (&status.bronze_problem, status.waiting_steps.first()) {
            (Some(problem), _) => (Health::Degraded, Some(problem.clone())),
            (None, Some(step)) => (Health::Waiting, Some(format!("{}: {}", step.step, step.reason))),
            (None, None) if status.epoch == 0 => (Health::Idle, None),
            (None, None) => (Health::Healthy, None),
        },
    }
}

fn step_row(step: &Step) -> StepRow {
    let (kind, summary) = match step {
        Step::Deduplicate(d) => {
            let key: Vec<&str> = d.key.iter().map(|k| k.as_str()).collect();
            ("deduplicate", format!("by {} within {:?}", key.join(", "), d.window))
        }
        Step::Quality { rules } => {
            let rules: Vec<String> = rules.iter().map(|r| format!("{}: {:?}", r.field, r.check)).collect();
            ("quality", rules.join("; "))
        }
        Step::Enrich(e) => ("enrich", format!("{} from {}", e.name, e.url)),
        Step::Sql { query } => ("sql", query.clone()),
    };
    StepRow { kind: kind.to_owned(), summary, waits_for: None, rows_in: 0, rows_out: 0, dropped: 0, dead: 0 }
}
