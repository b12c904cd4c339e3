//! Topics: how much each holds, how fast it grows, who reads it.

use std::collections::BTreeSet;
use std::time::Instant;

use levada_bus::TopicInfo;
use levada_bus::admin::TopicReport;
use levada_bus::port::PageRequest;
use levada_config::model::{Pipeline, Source};
use levada_console::{PubsubTopicRow, TopicRow};
use levada_core::{Principal, Problem, ProjectId, TenantSet, TopicName};

use super::PlatformData;
use crate::operations::sees;

/// Pub/Sub topics that the page shows.
const MAX_ROWS: usize = 1_000;

impl PlatformData {
    pub(super) fn topic_rows(&self, principal: &Principal) -> Vec<TopicRow> {
        let platform = principal.tenants == TenantSet::All;
        let now = Instant::now();
        let readers = |name: &TopicName| {
            let reads = |p: &&Pipeline| matches!(&p.source, Source::Events { topic, .. } if topic == name);
            let seen =
                self.engines.project.pipelines.iter().filter(reads).filter(|p| sees(principal, &p.owner));
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
                rate_per_s: self.topic_rate(&topic, &principal.tenants, own, now),
                durability: durability(topic.durability).to_owned(),
                commit_p99_us: Some(topic.commit_us_p99).filter(|us| platform && *us > 0),
                retention: self.retention_text(&topic.name),
                readers,
            })
        });
        rows.collect()
    }

    /// Topics of the Pub/Sub projects that are declared, and of those that subscriptions are in.
    pub(super) async fn pubsub_topic_rows(
        &self,
        principal: &Principal,
    ) -> Result<Vec<PubsubTopicRow>, Problem> {
        let project = &self.engines.project;
        let declared = project.server.namespaces.iter().map(|namespace| namespace.project.clone());
        let mut projects: BTreeSet<ProjectId> = declared.collect();
        projects.insert(crate::pubsub::home(project));
        let asked = principal.clone();
        self.of_subscriptions(move |admin| {
            let page = PageRequest { size: MAX_ROWS, after: None };
            // Under `--dev` any project exists.
            for report in admin.list(&asked, &page).items {
                let topic = report.spec.topic.as_ref().map(|topic| topic.project.clone());
                projects.extend(std::iter::once(report.spec.name.project.clone()).chain(topic));
            }
            let mut rows: Vec<PubsubTopicRow> = Vec::new();
            for project in &projects {
                if rows.len() >= MAX_ROWS {
                    break;
                }
                let page = PageRequest { size: MAX_ROWS - rows.len(), after: None };
                rows.extend(admin.topics().list(&asked, project, &page).items.iter().map(pubsub_row));
            }
            Ok(rows)
        })
        .await
    }

    /// Events a second of some tenants, of which `published` have come so far. The lanes are
    /// metered one by one: keys of different tenants look at different sums.
    fn topic_rate(&self, topic: &TopicInfo, tenants: &TenantSet, published: u64, now: Instant) -> f64 {
        let name = &topic.name;
        if *tenants == TenantSet::All {
            return self.meter.per_s(&format!("topic {name}"), published, now);
        }
        let own = topic.lanes.iter().filter(|lane| tenants.contains(&lane.tenant));
        own.map(|l| self.meter.per_s(&format!("topic {name} of {}", l.tenant), l.published, now)).sum()
    }

    /// How long a topic keeps its records: what its pipelines ask for, or the bus's default.
    fn retention_text(&self, topic: &TopicName) -> Option<String> {
        let reads = |p: &&Pipeline| matches!(&p.source, Source::Events { topic: t, .. } if t == topic);
        let asked = self.engines.project.pipelines.iter().filter(reads).filter_map(|p| p.retention).max();
        let age = asked.or(levada_bus::Retention::default().max_age)?;
        let hours = age.as_secs() / 3_600;
        Some(if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") })
    }
}

fn durability(class: &str) -> &'static str {
    match class {
        "interval" => "written: a power loss may take the last moments",
        "memory" => "in memory: a crash may take the last moments",
        _ => "synced to disk",
    }
}

fn pubsub_row(report: &TopicReport) -> PubsubTopicRow {
    let spec = &report.spec;
    PubsubTopicRow {
        name: spec.name.to_string(),
        owner: report.tenant.as_ref().map_or_else(|| "shared".to_owned(), ToString::to_string),
        durability: durability(spec.durability.as_str()).to_owned(),
        deduplication: spec
            .deduplication
            .as_ref()
            .map(|of| format!("by {} within {}", of.attribute, super::subscriptions::time(of.window))),
        schema: spec.schema.as_ref().map(|of| of.schema.clone()),
    }
}
