//! Topics: how much each holds, how fast it grows, who reads it.

use levada_config::model::{Pipeline, Source};
use levada_console::TopicRow;
use levada_core::{Principal, TenantSet, TopicName};

use super::PlatformData;

impl PlatformData {
    pub(super) fn topic_rows(&self, principal: &Principal) -> Vec<TopicRow> {
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
        rows.collect()
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
