//! Pipelines: their rows, and the page of one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use levada_bus::TopicInfo;
use levada_config::model::{Check, Pipeline, Schema, Step, Validation, Waiting};
use levada_console::{EpochRow, Health, PipelineDetail, PipelineRow, ReasonCount, StepCounts, StepRow};
use levada_core::{Principal, Problem, TenantSet, attr};
use levada_flow::{PipelineStatus, RunState, TenantFigures, Totals};

use super::dead_letters::most_frequent;
use super::scans::newest_letters;
use super::{OPERATOR_KNOWS, PlatformData, key, owner_text, sees_whole, urgency};
use crate::operations::{sees, topic_of};

/// Dead letters of a topic that are counted for the reasons of one pipeline.
const LETTERS: usize = 10_000;

impl PlatformData {
    pub(super) fn pipeline_rows(&self, principal: &Principal) -> Vec<PipelineRow> {
        let topics = self.bus.topics();
        let visible = self.engines.pipelines().into_iter().filter(|p| sees(principal, &p.owner));
        let mut rows: Vec<PipelineRow> = visible.map(|p| self.pipeline_row(&p, principal, &topics)).collect();
        rows.sort_by_key(|r| (std::cmp::Reverse(urgency(r.health)), r.name.clone()));
        rows
    }

    fn pipeline_row(
        &self,
        status: &PipelineStatus,
        principal: &Principal,
        topics: &[TopicInfo],
    ) -> PipelineRow {
        let whole = sees_whole(principal, &status.owner);
        let key = key(&status.owner, status.name.as_str());
        let (figures, rate_per_s) = if whole {
            (figures_of_all(status), self.meter.per_s(&key, status.totals.records_in, Instant::now()))
        } else {
            self.own_figures(status, &principal.tenants, &key, topics)
        };
        let (health, note) = pipeline_health(status, whole);
        let Totals { records_in, rows_out, duplicates, dead_letters } = figures.totals;
        PipelineRow {
            key,
            name: status.display_name.clone().unwrap_or_else(|| status.name.to_string()),
            owner: owner_text(&status.owner),
            source: status.source.clone(),
            sink: status.sink.to_string(),
            full_name: status.full_name(),
            received: records_in,
            written: rows_out,
            dropped: duplicates,
            dead: dead_letters,
            backlog: figures.backlog,
            rate_per_s,
            epoch: figures.epoch,
            last_commit_ms: figures.last_commit_ms,
            health,
            note,
        }
    }

    /// What a shared pipeline did for some tenants, and its records of theirs a second. Tenants
    /// are metered one by one: keys of different tenants look at different sums.
    fn own_figures(
        &self,
        status: &PipelineStatus,
        tenants: &TenantSet,
        key: &str,
        topics: &[TopicInfo],
    ) -> (TenantFigures, f64) {
        let now = Instant::now();
        let mut own = status.by_tenant(topic_of(status, topics));
        own.retain(|tenant, _| tenants.contains(tenant));
        let meter = |(tenant, figures): (&_, &TenantFigures)| {
            self.meter.per_s(&format!("{key} of {tenant}"), figures.totals.records_in, now)
        };
        let rate = own.iter().map(meter).sum();
        (own.into_values().reduce(together).unwrap_or_default(), rate)
    }

    pub(super) async fn pipeline_page(
        &self,
        principal: &Principal,
        wanted: &str,
    ) -> Result<Option<PipelineDetail>, Problem> {
        let all = self.engines.pipelines();
        let found =
            all.into_iter().find(|p| sees(principal, &p.owner) && key(&p.owner, p.name.as_str()) == wanted);
        let Some(status) = found else { return Ok(None) };
        let definition = self.definition(&status);
        Ok(Some(PipelineDetail {
            description: definition.and_then(|d| d.description.clone()),
            file: definition.map(|d| d.file.display().to_string()).unwrap_or_default(),
            row: self.pipeline_row(&status, principal, &self.bus.topics()),
            steps: step_rows(&status, definition, sees_whole(principal, &status.owner)),
            dead_by_reason: self.reasons(&status, principal).await?,
            epochs: self.epoch_rows(&status, principal),
        }))
    }

    async fn reasons(
        &self,
        status: &PipelineStatus,
        principal: &Principal,
    ) -> Result<Vec<ReasonCount>, Problem> {
        let (tenants, pipeline) = (principal.tenants.clone(), status.full_name());
        let reasons = self.of_bus(principal, move |bus| {
            let mut reasons = BTreeMap::<String, u64>::new();
            newest_letters(bus, &tenants, LETTERS, |_, message| {
                let is_own = message.attributes.get(attr::DEAD_PIPELINE) == Some(&pipeline);
                if is_own {
                    let code = message.attributes.get(attr::DEAD_CODE).unwrap_or_default();
                    *reasons.entry(code.to_owned()).or_default() += 1;
                }
                is_own
            })?;
            Ok(reasons)
        });
        let reasons = reasons.await?;
        Ok(most_frequent(reasons.into_iter().map(|(code, count)| ReasonCount { code, count }).collect()))
    }

    /// Of a shared pipeline a tenant sees the epochs that held a record of its own.
    fn epoch_rows(&self, status: &PipelineStatus, principal: &Principal) -> Vec<EpochRow> {
        let whole = sees_whole(principal, &status.owner);
        let epochs = self.engines.epochs(&status.owner, &status.name);
        let row = |done: &levada_flow::EpochDone| {
            let rows = if whole { done.rows } else { done.rows_of(&principal.tenants)? };
            Some(EpochRow {
                epoch: done.epoch,
                committed_ms: done.at_ms,
                rows,
                files: whole.then_some(done.files),
                duration_ms: done.duration_ms.filter(|_| whole),
            })
        };
        epochs.iter().filter_map(|done| row(done)).collect()
    }

    fn definition(&self, status: &PipelineStatus) -> Option<&Pipeline> {
        self.engines.project.pipelines.iter().find(|p| p.name == status.name && p.owner == status.owner)
    }
}

fn figures_of_all(status: &PipelineStatus) -> TenantFigures {
    TenantFigures {
        totals: status.totals,
        backlog: Some(status.backlog),
        epoch: (status.epoch > 0).then_some(status.epoch),
        last_commit_ms: status.last_commit_ms,
    }
}

/// Of two tenants; a backlog of which a part is not known is not known.
fn together(a: TenantFigures, b: TenantFigures) -> TenantFigures {
    let mut totals = a.totals;
    totals += b.totals;
    TenantFigures {
        totals,
        backlog: a.backlog.zip(b.backlog).map(|(a, b)| a + b),
        epoch: a.epoch.max(b.epoch),
        last_commit_ms: a.last_commit_ms.max(b.last_commit_ms),
    }
}

fn pipeline_health(status: &PipelineStatus, whole: bool) -> (Health, Option<String>) {
    let told = |reason: &str| Some(if whole { reason } else { OPERATOR_KNOWS }.to_owned());
    match &status.state {
        RunState::Failed { reason } => (Health::Failing, told(reason)),
        RunState::Waiting { reason } => (Health::Degraded, told(reason)),
        RunState::Starting => (Health::Idle, Some("starting".to_owned())),
        RunState::Stopped => (Health::Failing, Some("stopped".to_owned())),
        RunState::Running => match (&status.bronze_problem, status.waiting_steps.first()) {
            (Some(problem), _) => (Health::Degraded, told(problem)),
            (None, Some(step)) => (Health::Waiting, Some(format!("{}: {}", step.step, step.reason))),
            (None, None) if status.epoch == 0 => (Health::Idle, None),
            (None, None) => (Health::Healthy, None),
        },
    }
}

/// Validation, the steps in their order, and those that wait. What steps did is of all tenants
/// together: only who sees them all is told.
fn step_rows(status: &PipelineStatus, definition: Option<&Pipeline>, whole: bool) -> Vec<StepRow> {
    let mut rows: Vec<StepRow> = Vec::new();
    if let Some((pipeline, schema)) = definition.and_then(|d| Some((d, d.schema.as_ref()?))) {
        rows.push(validation(schema, pipeline.validation));
        rows.extend(pipeline.steps.iter().map(step_row));
    }
    if whole {
        for (row, step) in rows.iter_mut().zip(status.steps.iter()) {
            let counts = step.counts;
            row.counts = Some(StepCounts {
                rows_in: counts.rows_in,
                rows_out: counts.rows_out,
                dropped: counts.dropped,
                dead: counts.dead,
            });
        }
    }
    rows.extend(status.waiting_steps.iter().map(waiting));
    rows
}

fn validation(schema: &Schema, validation: Validation) -> StepRow {
    let manner = match validation {
        Validation::Strict => "strict",
        Validation::Lenient => "lenient",
    };
    step_of("validate", format!("{}, {manner}", schema.file.display()))
}

fn step_row(step: &Step) -> StepRow {
    match step {
        Step::Deduplicate(d) => {
            let key: Vec<&str> = d.key.iter().map(|k| k.as_str()).collect();
            step_of("deduplicate", format!("by {} within {}", key.join(", "), span(d.window)))
        }
        Step::Quality { rules } => {
            let rules: Vec<String> =
                rules.iter().map(|r| format!("{} {}", r.field, check_text(&r.check))).collect();
            step_of("quality", rules.join("; "))
        }
        Step::Enrich(e) => step_of("enrich", format!("{} from {}", e.name, e.url)),
        Step::Sql { query } => step_of("sql", query.clone()),
    }
}

fn waiting(step: &Waiting) -> StepRow {
    let summary = format!("{} [{}]", step.reason, step.code);
    StepRow { waits_for: Some(step.reason.clone()), ..step_of(&step.step, summary) }
}

fn step_of(kind: &str, summary: String) -> StepRow {
    StepRow { kind: kind.to_owned(), summary, waits_for: None, counts: None }
}

/// A rule as a clause about its field.
fn check_text(check: &Check) -> String {
    match check {
        Check::NotNull => "is not null".to_owned(),
        Check::Range { min, max } => match (min, max) {
            (Some(min), Some(max)) => format!("is from {min} to {max}"),
            (Some(min), None) => format!("is at least {min}"),
            (None, Some(max)) => format!("is at most {max}"),
            (None, None) => "is any number".to_owned(),
        },
        Check::Regex { pattern } => format!("matches {pattern}"),
        Check::OneOf { values } => format!("is one of {}", values.join(", ")),
        Check::ValidEmail => "is a valid e-mail address".to_owned(),
        Check::Positive => "is positive".to_owned(),
        Check::Unique => "is unique".to_owned(),
        Check::NotInFuture { allowance } if allowance.is_zero() => "is not in the future".to_owned(),
        Check::NotInFuture { allowance } => format!("is at most {} in the future", span(*allowance)),
    }
}

/// A duration in the largest unit that fits it exactly.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, long) in [("d", 86_400), ("h", 3_600), ("min", 60)] {
        if seconds > 0 && seconds.is_multiple_of(long) && duration.subsec_nanos() == 0 {
            return format!("{} {unit}", seconds / long);
        }
    }
    match duration.subsec_millis() {
        0 => format!("{seconds} s"),
        _ => format!("{} ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_spans_read_as_text() {
        let values = vec!["EWR".to_owned(), "JFK".to_owned()];
        assert_eq!(check_text(&Check::OneOf { values }), "is one of EWR, JFK");
        assert_eq!(check_text(&Check::Range { min: Some("0.5".to_owned()), max: None }), "is at least 0.5");
        let allowance = Duration::from_secs(300);
        assert_eq!(check_text(&Check::NotInFuture { allowance }), "is at most 5 min in the future");
        let spans = [86_400_000, 7_200_000, 90_000, 1_500, 0].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["1 d", "2 h", "90 s", "1500 ms", "0 s"]);
    }
}
