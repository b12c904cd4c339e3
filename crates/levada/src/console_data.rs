//! The platform as the console sees it: the engines' figures, narrowed to the principal.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use levada_access::KeyRing;
use levada_bus::{Bus, DeadEntry, DeadFilter};
use levada_config::model::{Owner, Pipeline, Source, Step};
use levada_console::{
    Column, ConsoleData, DeadLetter, DeadLetterFilter, DeadLetterPage, Health, ModelRow, Overview,
    PipelineDetail, PipelineRow, QueryAnswer, ReasonCount, Resent, StepRow, TableRow, TopicRow, ZoneRow,
};
use levada_core::{Authenticator, Principal, Problem, TenantSet, TopicName, Zone, attr};
use levada_flow::{ModelState, ModelStatus, PipelineStatus, RunState};
use levada_lake::{Lake, QueryLimits};

use crate::meter::Meter;
use crate::operations::{Engines, owner_tenant, schedule_text};
use crate::sampler::{self, Sampler};

/// Implements the console's port over the running parts.
pub struct PlatformData {
    keys: Arc<KeyRing>,
    bus: Bus,
    lake: Lake,
    engines: Arc<Engines>,
    sampler: Sampler,
    limits: QueryLimits,
    started: Instant,
    meter: Meter,
}

impl PlatformData {
    pub fn new(
        keys: Arc<KeyRing>,
        bus: Bus,
        lake: Lake,
        engines: Arc<Engines>,
        sampler: Sampler,
        limits: QueryLimits,
    ) -> Self {
        Self { keys, bus, lake, engines, sampler, limits, started: Instant::now(), meter: Meter::default() }
    }

    fn sees(principal: &Principal, owner: &Owner) -> bool {
        match owner_tenant(owner) {
            None => true,
            Some(tenant) => principal.tenants.contains(&tenant),
        }
    }

    fn pipeline_rows(&self, principal: &Principal) -> Vec<PipelineRow> {
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

    fn model_rows(&self, principal: &Principal) -> Vec<ModelRow> {
        let visible = self.engines.models().into_iter().filter(|m| Self::sees(principal, &m.owner));
        let shown = |m: &ModelStatus| principal.tenants == TenantSet::All || owner_tenant(&m.owner).is_some();
        visible
            .map(|m| {
                let shown = shown(&m);
                model_row(m, shown)
            })
            .collect()
    }

    async fn zone_rows(&self, principal: &Principal) -> Vec<ZoneRow> {
        let stats = self.lake.tables().await.unwrap_or_default();
        let zones = Zone::ALL.into_iter().filter(|z| principal.may_read(*z));
        let row = |zone: Zone| {
            let of_zone = stats.iter().filter(|s| s.key.name.zone == zone);
            let visible: Vec<_> = of_zone
                .filter(|s| match s.key.owner.tenant() {
                    Some(tenant) => principal.tenants.contains(tenant),
                    None => principal.tenants == TenantSet::All,
                })
                .collect();
            ZoneRow {
                zone: zone.to_string(),
                tables: visible.len() as u64,
                rows: visible.iter().map(|s| s.rows).sum(),
                bytes: visible.iter().map(|s| s.bytes).sum(),
            }
        };
        zones.filter(|z| *z != Zone::Bronze).map(row).collect()
    }

    fn published(&self, principal: &Principal) -> (u64, u64) {
        let topics = self.bus.topics();
        let topics = topics.iter().filter(|t| !t.name.is_dead_letter());
        match &principal.tenants {
            TenantSet::All => topics.fold((0, 0), |(p, d), t| (p + t.published, d + t.duplicates)),
            set @ TenantSet::Only(_) => {
                let own = topics.flat_map(|t| &t.lanes).filter(|l| set.contains(&l.tenant));
                (own.map(|l| l.published).sum(), 0)
            }
        }
    }

    /// How long a topic keeps its records: what its pipelines ask for, or the bus's default.
    fn retention_text(&self, topic: &TopicName) -> Option<String> {
        let reads = |p: &&Pipeline| matches!(&p.source, Source::Events { topic: t, .. } if t == topic);
        let asked = self.engines.project.pipelines.iter().filter(reads).filter_map(|p| p.retention).max();
        let age = asked.or(levada_bus::Retention::default().max_age)?;
        let hours = age.as_secs() / 3_600;
        Some(if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") })
    }

    fn definition(&self, status: &PipelineStatus) -> Option<&Pipeline> {
        self.engines.project.pipelines.iter().find(|p| p.name == status.name && p.owner == status.owner)
    }
}

fn key(owner: &Owner, name: &str) -> String {
    match owner_tenant(owner) {
        None => name.to_owned(),
        Some(tenant) => format!("{tenant}.{name}"),
    }
}

fn owner_text(owner: &Owner) -> String {
    owner_tenant(owner).map_or_else(|| "shared".to_owned(), |t| t.to_string())
}

fn urgency(health: Health) -> u8 {
    match health {
        Health::Failing => 4,
        Health::Degraded => 3,
        Health::Waiting => 2,
        Health::Healthy | Health::Idle => 0,
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

fn model_row(status: ModelStatus, shown: bool) -> ModelRow {
    let (health, note) = match &status.state {
        ModelState::Failed { reason } => (Health::Failing, Some(reason.clone())),
        ModelState::Waiting { reason } => (Health::Waiting, Some(reason.clone())),
        ModelState::Running | ModelState::Idle if status.last_run_ms.is_some() => (Health::Healthy, None),
        ModelState::Running | ModelState::Idle => (Health::Idle, None),
    };
    ModelRow {
        key: key(&status.owner, status.name.as_str()),
        name: status.name.to_string(),
        owner: owner_text(&status.owner),
        table: format!("gold.{}", status.name),
        depends_on: status.reads.iter().map(ToString::to_string).collect(),
        schedule: Some(schedule_text(&status.schedule)),
        rows: status.rows.filter(|_| shown),
        last_run_ms: status.last_run_ms,
        last_duration_ms: status.duration_ms,
        health,
        note,
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

fn letter(entry: DeadEntry) -> DeadLetter {
    let optional = |name: &str| Some(entry.attribute(name).to_owned()).filter(|v| !v.is_empty());
    let own = entry.message.attributes.iter().filter(|(k, _)| !k.starts_with("levada."));
    DeadLetter {
        tenant: entry.message.tenant.to_string(),
        code: entry.attribute(attr::DEAD_CODE).to_owned(),
        reason: entry.attribute(attr::DEAD_REASON).to_owned(),
        stage: entry.attribute(attr::DEAD_STAGE).to_owned(),
        attempts: entry.attribute(attr::DEAD_ATTEMPTS).parse().unwrap_or(1),
        pipeline: optional(attr::DEAD_PIPELINE),
        position: optional(attr::DEAD_POSITION),
        event_id: optional(attr::EVENT_ID),
        event_type: optional(attr::EVENT_TYPE),
        at_ms: entry.published_at_ms,
        resent_ms: entry.resent.then_some(entry.published_at_ms),
        attributes: own.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body: entry.message.body.clone(),
        offset: entry.offset,
        topic: entry.topic,
    }
}

fn bus_problem(error: levada_bus::BusError) -> Problem {
    Problem::new(503, "bus-unavailable", error.to_string()).hint("look at the server's log")
}

#[async_trait]
impl ConsoleData for PlatformData {
    async fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        Authenticator::authenticate(&*self.keys, secret)
    }

    async fn overview(&self, principal: &Principal) -> Result<Overview, Problem> {
        let operates = principal.may_operate();
        let pipelines = if operates { self.pipeline_rows(principal) } else { Vec::new() };
        let models = self.model_rows(principal);
        let rate_history = self.sampler.history(&principal.tenants);
        let (accepted, duplicates) = self.published(principal);
        let freshness = self.engines.freshness();
        let log = self.bus.log_stats();
        let mut notes: Vec<String> =
            log.poisoned.iter().map(|p| format!("The log takes no events: {p}")).collect();
        let worst = pipelines.iter().map(|p| (p.health, &p.name, &p.note));
        let worst = worst.chain(models.iter().map(|m| (m.health, &m.name, &m.note)));
        let mut health = if accepted == 0 { Health::Idle } else { Health::Healthy };
        for (part, name, note) in worst {
            if urgency(part) > urgency(health) {
                health = part;
            }
            if urgency(part) > 0 {
                notes.push(format!("{name}: {}", note.as_deref().unwrap_or("needs attention")));
            }
        }
        if log.poisoned.is_some() {
            health = Health::Failing;
        }
        let dead = self.bus.dead_letter_counts(&principal.tenants).map_err(bus_problem)?;
        Ok(Overview {
            health,
            notes,
            events_per_s: rate_history.last().copied().unwrap_or(0.0),
            rate_history,
            rate_step_s: u32::try_from(sampler::STEP.as_secs()).unwrap_or(1),
            accepted,
            duplicates,
            dead_letters: if operates { dead.values().sum() } else { 0 },
            latency_p50_ms: freshness.p50_ms,
            latency_p99_ms: freshness.p99_ms,
            backlog: pipelines.iter().map(|p| p.backlog).sum(),
            uptime_s: self.started.elapsed().as_secs(),
            pipelines,
            models,
            zones: self.zone_rows(principal).await,
        })
    }

    async fn pipelines(&self, principal: &Principal) -> Result<Vec<PipelineRow>, Problem> {
        Ok(self.pipeline_rows(principal))
    }

    async fn pipeline(&self, principal: &Principal, wanted: &str) -> Result<Option<PipelineDetail>, Problem> {
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

    async fn models(&self, principal: &Principal) -> Result<Vec<ModelRow>, Problem> {
        Ok(self.model_rows(principal))
    }

    async fn run_model(&self, principal: &Principal, wanted: &str) -> Result<String, Problem> {
        let unknown = || Problem::new(404, "model-unknown", "there is no such model");
        if !principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "running a model takes the role engineer"));
        }
        let models = self.engines.models();
        let model = models
            .iter()
            .find(|m| Self::sees(principal, &m.owner) && key(&m.owner, m.name.as_str()) == wanted)
            .ok_or_else(unknown)?;
        let name = match owner_tenant(&model.owner) {
            Some(tenant) => format!("{tenant}/{}", model.name),
            None if principal.tenants == TenantSet::All => model.name.to_string(),
            None => {
                return Err(Problem::new(
                    403,
                    "role-forbidden",
                    "a model that tenants share is run by the platform's operators",
                ));
            }
        };
        let done = self.engines.run_model(&name).await?;
        Ok(format!(
            "gold.{} holds {} rows now, made in {} ms",
            done.name,
            done.rows.unwrap_or(0),
            done.duration_ms.unwrap_or(0)
        ))
    }

    async fn topics(&self, principal: &Principal) -> Result<Vec<TopicRow>, Problem> {
        let platform = principal.tenants == TenantSet::All;
        let uptime_s = self.started.elapsed().as_secs_f64().max(1.0);
        let readers = |name: &TopicName| {
            let reads = |p: &&Pipeline| matches!(&p.source, Source::Events { topic, .. } if topic == name);
            let seen = self
                .engines
                .project
                .pipelines
                .iter()
                .filter(reads)
                .filter(|p| Self::sees(principal, &p.owner));
            seen.map(|p| p.name.to_string()).collect::<Vec<_>>()
        };
        let rows = self.bus.topics().into_iter().filter_map(|topic| {
            let own: u64 = topic
                .lanes
                .iter()
                .filter(|l| principal.tenants.contains(&l.tenant))
                .map(|l| l.published)
                .sum();
            let readers = readers(&topic.name);
            (platform || own > 0 || !readers.is_empty()).then(|| TopicRow {
                name: topic.name.to_string(),
                first: if platform { topic.first } else { 0 },
                next: if platform { topic.next } else { own },
                bytes: if platform { topic.bytes } else { 0 },
                rate_per_s: own as f64 / uptime_s,
                durability: "synced to disk".to_owned(),
                retention: self.retention_text(&topic.name),
                readers,
            })
        });
        Ok(rows.collect())
    }

    async fn dead_letters(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        let wanted = DeadFilter {
            topic: filter.topic.clone(),
            pipeline: filter.pipeline.clone(),
            code: filter.code.clone(),
            tenant: None,
            before: filter.after.as_deref().and_then(|a| a.parse().ok()),
            limit: filter.limit + 1,
        };
        let mut entries = self.bus.dead_letters(&principal.tenants, &wanted).map_err(bus_problem)?;
        let more = entries.len() > filter.limit;
        entries.truncate(filter.limit);
        // Pages go by offset, which only means something within one topic.
        let next = entries.last().filter(|_| more && filter.topic.is_some()).map(|e| e.offset.to_string());
        let all = DeadFilter { limit: 10_000, ..DeadFilter::default() };
        let recent = self.bus.dead_letters(&principal.tenants, &all).map_err(bus_problem)?;
        let mut topics: Vec<String> = recent.iter().map(|e| e.topic.to_string()).collect();
        let mut pipelines: Vec<String> =
            recent.iter().map(|e| e.attribute(attr::DEAD_PIPELINE).to_owned()).collect();
        for list in [&mut topics, &mut pipelines] {
            list.sort();
            list.dedup();
        }
        let counts = self.bus.dead_letter_counts(&principal.tenants).map_err(bus_problem)?;
        Ok(DeadLetterPage {
            letters: entries.into_iter().map(letter).collect(),
            next,
            topics,
            pipelines,
            reasons: counts.into_iter().map(|(code, count)| ReasonCount { code, count }).collect(),
        })
    }

    async fn dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem> {
        let filter = DeadFilter {
            topic: Some(topic.clone()),
            before: Some(offset + 1),
            limit: 1,
            ..DeadFilter::default()
        };
        let found = self.bus.dead_letters(&principal.tenants, &filter).map_err(bus_problem)?;
        Ok(found.into_iter().find(|e| e.offset == offset).map(letter))
    }

    async fn resend(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: &[u64],
    ) -> Result<Resent, Problem> {
        if !principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "sending again takes the role engineer"));
        }
        let outcome = self.bus.resend(principal, topic, Some(offsets.to_vec())).await.map_err(bus_problem)?;
        match outcome.refused.first() {
            Some((_, problem)) if outcome.sent == 0 => Err(problem.clone()),
            _ => Ok(Resent {
                sent: outcome.sent as u64,
                missing: (outcome.refused.len() + outcome.already) as u64,
            }),
        }
    }

    async fn query(&self, principal: &Principal, sql: &str, max_rows: usize) -> Result<QueryAnswer, Problem> {
        let started = Instant::now();
        let session = self.lake.session(principal, None)?;
        let limits = QueryLimits { max_rows: max_rows.min(self.limits.max_rows), ..self.limits };
        let output = session.query(sql, Vec::new(), limits).await?;
        let as_of = output.as_of.iter().map(|a| format!("{} {}", a.table, a.version)).collect();
        let text = output.into_text().await?;
        let columns = text
            .columns
            .into_iter()
            .map(|c| Column { name: c.name, kind: c.data_type, numeric: c.is_numeric })
            .collect();
        Ok(QueryAnswer {
            columns,
            rows: text.rows,
            truncated: text.truncated,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            as_of,
        })
    }

    async fn tables(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem> {
        let session = self.lake.session(principal, None)?;
        let stats = self.lake.tables().await.unwrap_or_default();
        let platform = principal.tenants == TenantSet::All;
        let rows = session.tables().into_iter().map(|table| {
            let found = stats.iter().find(|s| {
                s.key.name.zone.as_str() == table.zone
                    && s.key.name.name.as_str() == table.table
                    && s.key.owner.tenant() == table.tenant.as_ref()
            });
            let shown = found.filter(|s| platform || s.key.owner.tenant().is_some());
            TableRow {
                name: table.name,
                rows: shown.map(|s| s.rows),
                bytes: shown.map(|s| s.bytes),
                columns: table.columns.into_iter().map(|c| (c.name, c.data_type)).collect(),
                description: table.description,
            }
        });
        Ok(rows.collect())
    }
}
