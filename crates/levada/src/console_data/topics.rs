//! Topics: how much each holds, how fast it grows, who reads it.

use std::time::Instant;

use levada_bus::TopicInfo;
use levada_config::model::{Pipeline, Source};
use levada_console::TopicRow;
use levada_core::{Principal, TenantSet, TopicName};

use super::PlatformData;
use crate::operations::sees;

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
                durability: "synced to disk".to_owned(),
                retention: self.retention_text(&topic.name),
                readers,
            })
        });
        rows.collect()
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
