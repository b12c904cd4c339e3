//! When a model is due, and which model comes before which.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use chrono::DateTime;
use croner::Cron;
use levada_config::model::{Model, ModelSchedule};
use levada_core::{SourceName, Zone};

/// A failed run on change is tried again after this long at the earliest.
const RETRY_MS: i64 = 30_000;

/// The next run of a model.
#[derive(Debug)]
pub struct Due {
    rule: Rule,
    at_ms: Option<i64>,
    last_start_ms: Option<i64>,
}

#[derive(Debug)]
enum Rule {
    Manual,
    OnChange { every_ms: i64 },
    Cron(Box<Cron>),
}

impl Due {
    pub fn new(model: &Model, now_ms: i64, last_start_ms: Option<i64>) -> Self {
        let rule = match &model.schedule {
            _ if model.waiting.is_some() => Rule::Manual,
            ModelSchedule::Manual => Rule::Manual,
            ModelSchedule::OnChange { at_most_every } => {
                Rule::OnChange { every_ms: i64::try_from(at_most_every.as_millis()).unwrap_or(i64::MAX) }
            }
            // A project that was checked holds no other kind of expression.
            ModelSchedule::Cron(text) => {
                Cron::from_str(text).map_or(Rule::Manual, |c| Rule::Cron(Box::new(c)))
            }
        };
        let mut due = Self { rule, at_ms: None, last_start_ms };
        due.plan(now_ms);
        due
    }

    pub fn at_ms(&self) -> Option<i64> {
        self.at_ms
    }

    fn plan(&mut self, now_ms: i64) {
        self.at_ms = match &self.rule {
            Rule::Cron(cron) => DateTime::from_timestamp_millis(now_ms)
                .and_then(|now| cron.find_next_occurrence(&now, false).ok())
                .map(|next| next.timestamp_millis()),
            Rule::Manual | Rule::OnChange { .. } => None,
        };
    }

    /// A table that the model reads has a new version.
    pub fn source_changed(&mut self, now_ms: i64) {
        if let Rule::OnChange { every_ms } = self.rule {
            let free = self.last_start_ms.map_or(now_ms, |last| last.saturating_add(every_ms).max(now_ms));
            self.at_ms = Some(self.at_ms.map_or(free, |at| at.min(free)));
        }
    }

    pub fn started(&mut self, now_ms: i64) {
        self.last_start_ms = Some(now_ms);
        self.plan(now_ms);
    }

    pub fn failed(&mut self, now_ms: i64) {
        if let Rule::OnChange { every_ms } = self.rule {
            self.at_ms = Some(now_ms.saturating_add(every_ms.max(RETRY_MS)));
        }
    }
}

/// Dependencies before dependents. A cycle cannot come out of a checked project; should one
/// be there, its members keep the order of the files.
pub fn in_order(models: &[Model]) -> Vec<Model> {
    let known: BTreeSet<&SourceName> = models.iter().map(|m| &m.name).collect();
    let needs = |m: &Model| -> BTreeSet<SourceName> {
        let gold =
            m.reads.iter().filter(|t| t.zone == Zone::Gold && t.name != m.name && known.contains(&t.name));
        gold.map(|t| t.name.clone()).collect()
    };
    let mut open: BTreeMap<usize, BTreeSet<SourceName>> = models.iter().map(needs).enumerate().collect();
    let mut ordered = Vec::with_capacity(models.len());
    while let Some(first) = open.keys().next().copied() {
        let waiting: BTreeSet<&SourceName> = open.keys().map(|at| &models[*at].name).collect();
        let free = open.iter().find(|(_, needs)| needs.iter().all(|n| !waiting.contains(n)));
        let at = free.map_or(first, |(at, _)| *at);
        open.remove(&at);
        ordered.push(models[at].clone());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use levada_config::model::Owner;

    use super::*;

    fn model(name: &str, reads: &[&str], schedule: ModelSchedule) -> Model {
        Model {
            name: name.parse().expect("a name"),
            owner: Owner::Shared,
            file: PathBuf::from("m.sql"),
            sql: String::new(),
            reads: reads.iter().map(|r| r.parse().expect("a table")).collect(),
            schedule,
            description: None,
            cluster_by: Vec::new(),
            waiting: None,
        }
    }

    #[test]
    fn dependencies_come_first() {
        let manual = ModelSchedule::Manual;
        let models = [
            model("c", &["gold.b", "silver.x"], manual.clone()),
            model("b", &["gold.a"], manual.clone()),
            model("a", &["silver.x", "gold.elsewhere"], manual),
        ];
        let names: Vec<_> = in_order(&models).iter().map(|m| m.name.to_string()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn changes_are_gathered_and_cron_is_kept() {
        let every = Duration::from_secs(60);
        let on_change = model("a", &[], ModelSchedule::OnChange { at_most_every: every });
        let mut due = Due::new(&on_change, 0, None);
        assert_eq!(due.at_ms(), None);
        due.source_changed(1_000);
        assert_eq!(due.at_ms(), Some(1_000), "the first change runs it at once");
        due.started(1_000);
        assert_eq!(due.at_ms(), None);
        due.source_changed(2_000);
        due.source_changed(3_000);
        assert_eq!(due.at_ms(), Some(61_000));
        due.started(61_000);
        due.failed(62_000);
        assert_eq!(due.at_ms(), Some(122_000));
        let hourly = model("b", &[], ModelSchedule::Cron("0 * * * *".into()));
        let mut due = Due::new(&hourly, 1_000, None);
        assert_eq!(due.at_ms(), Some(3_600_000));
        due.started(3_600_000);
        assert_eq!(due.at_ms(), Some(7_200_000));
    }
}
