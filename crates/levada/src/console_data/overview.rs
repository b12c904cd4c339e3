//! The first page: health, rates, and what each zone holds.

use levada_console::{Health, Overview, ZoneRow};
use levada_core::{Principal, Problem, TenantSet, Zone};

use super::{PlatformData, urgency};
use crate::sampler;

impl PlatformData {
    pub(super) async fn overview_page(&self, principal: &Principal) -> Result<Overview, Problem> {
        let operates = principal.may_operate();
        let pipelines = if operates { self.pipeline_rows(principal) } else { Vec::new() };
        let models = self.model_rows(principal);
        let rate_history = self.sampler.history(&principal.tenants);
        let (accepted, duplicates) = self.published(principal);
        let freshness = self.engines.freshness_for(principal);
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
        let tenants = principal.tenants.clone();
        let dead_letters = match operates {
            true => self.of_bus(principal, move |bus| bus.dead_letter_counts(&tenants)).await?.values().sum(),
            false => 0,
        };
        Ok(Overview {
            health,
            notes,
            events_per_s: rate_history.last().copied().unwrap_or(0.0),
            rate_history,
            rate_step_s: u32::try_from(sampler::STEP.as_secs()).unwrap_or(1),
            accepted,
            duplicates,
            dead_letters,
            latency_p50_ms: freshness.p50_ms,
            latency_p99_ms: freshness.p99_ms,
            backlog: pipelines.iter().filter_map(|p| p.backlog).sum(),
            uptime_s: self.started.elapsed().as_secs(),
            pipelines,
            models,
            zones: self.zone_rows(principal).await,
        })
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
                objects: None,
                rows: visible.iter().map(|s| s.rows).sum(),
                bytes: visible.iter().map(|s| s.bytes).sum(),
            }
        };
        zones.map(|zone| if zone == Zone::Bronze { self.bronze_row(principal) } else { row(zone) }).collect()
    }

    /// Bronze is kept apart by tenant, so of it a tenant sees its own also where sources are shared.
    fn bronze_row(&self, principal: &Principal) -> ZoneRow {
        let sources = self.census.of(&principal.tenants);
        let rows = self.engines.pipelines().iter().map(|p| p.bronze_rows(&principal.tenants)).sum();
        ZoneRow {
            zone: Zone::Bronze.to_string(),
            tables: sources.len() as u64,
            objects: Some(sources.values().map(|held| held.objects).sum()),
            rows,
            bytes: sources.values().map(|held| held.bytes).sum(),
        }
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
}
