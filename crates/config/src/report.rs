//! What of a project runs, what waits and what is only parsed: the answer of `check`.

use std::fmt;

use serde::Serialize;

use crate::model::{FileSource, Inactive, Model, ModelSchedule, Owner, Pipeline, Project, Source, Step};
use crate::quantity::show_duration;

/// A summary of a checked project.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub name: String,
    pub tenants: usize,
    pub runs: Vec<Part>,
    pub waits: Vec<Part>,
    /// Parsed only: `up` refuses these without `--allow-inactive`.
    pub inactive: Vec<Inactive>,
}

/// One pipeline, model or step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    pub kind: &'static str,
    pub name: String,
    pub owner: String,
    pub file: String,
    /// What it does, or why it waits.
    pub detail: String,
}

impl Report {
    pub fn of(project: &Project) -> Self {
        let mut report = Self {
            name: project.name.clone(),
            tenants: project.tenants.len(),
            runs: Vec::new(),
            waits: Vec::new(),
            inactive: project.inactive.clone(),
        };
        for pipeline in &project.pipelines {
            report.runs.push(part("pipeline", pipeline, &pipeline_detail(pipeline)));
            for waiting in &pipeline.waiting {
                let detail = format!("{}: {} [{}]", waiting.step, waiting.reason, waiting.code);
                report.waits.push(part("step", pipeline, &detail));
            }
        }
        for model in &project.models {
            let (list, detail) = match &model.waiting {
                Some(reason) => (&mut report.waits, reason.clone()),
                None => (&mut report.runs, model_detail(model)),
            };
            list.push(Part {
                kind: "model",
                name: format!("gold.{}", model.name),
                owner: show_owner(&model.owner),
                file: model.file.display().to_string(),
                detail,
            });
        }
        report
    }
}

fn part(kind: &'static str, pipeline: &Pipeline, detail: &str) -> Part {
    Part {
        kind,
        name: pipeline.name.to_string(),
        owner: show_owner(&pipeline.owner),
        file: pipeline.file.display().to_string(),
        detail: detail.to_owned(),
    }
}

fn show_owner(owner: &Owner) -> String {
    match owner {
        Owner::Shared => "shared".into(),
        Owner::Tenant(tenant) => tenant.to_string(),
    }
}

fn pipeline_detail(pipeline: &Pipeline) -> String {
    let from = match &pipeline.source {
        Source::Events { topic, event_types } if event_types.is_empty() => format!("events of topic {topic}"),
        Source::Events { topic, event_types } => {
            format!("events {} as topic {topic}", event_types.join(", "))
        }
        Source::Files(FileSource { location, pattern, schedule, .. }) => {
            let when = schedule.as_ref().map_or("on arrival".to_owned(), |cron| format!("at {cron} UTC"));
            format!("files {pattern} in {location} {when}")
        }
    };
    if pipeline.schema.is_none() {
        return format!("{from}, to bronze only");
    }
    let steps: Vec<&str> = pipeline
        .steps
        .iter()
        .map(|step| match step {
            Step::Deduplicate(_) => "deduplicate",
            Step::Quality { .. } => "quality",
            Step::Enrich(_) => "enrich",
            Step::Sql { .. } => "sql",
        })
        .collect();
    let through = if steps.is_empty() { String::new() } else { format!(" through {}", steps.join(", ")) };
    format!("{from}{through} to {}", pipeline.sink)
}

fn model_detail(model: &Model) -> String {
    let when = match &model.schedule {
        ModelSchedule::Manual => "by command".to_owned(),
        ModelSchedule::OnChange { at_most_every } => {
            format!("on change, at most every {}", show_duration(*at_most_every))
        }
        ModelSchedule::Cron(cron) => format!("at {cron} UTC"),
    };
    let reads: Vec<String> = model.reads.iter().map(ToString::to_string).collect();
    if reads.is_empty() { when } else { format!("from {} {when}", reads.join(", ")) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants =
            if self.tenants == 1 { "1 tenant".to_owned() } else { format!("{} tenants", self.tenants) };
        writeln!(f, "{}: {tenants}", self.name)?;
        section(f, "runs", &self.runs)?;
        section(f, "waits", &self.waits)?;
        if !self.inactive.is_empty() {
            writeln!(f, "parsed only ({}): `up` needs --allow-inactive", self.inactive.len())?;
            for part in &self.inactive {
                writeln!(f, "  {}  {}:{}  {}", part.part, part.file.display(), part.line, part.reason)?;
            }
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, parts: &[Part]) -> fmt::Result {
    if parts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title} ({})", parts.len())?;
    let width = parts.iter().map(|p| p.name.len()).max().unwrap_or_default().min(40);
    for part in parts {
        writeln!(f, "  {:8} {:width$}  [{}] {}", part.kind, part.name, part.owner, part.detail)?;
    }
    Ok(())
}
