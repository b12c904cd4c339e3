//! The made-up pipelines, and the page of one.

use levada_console::*;
use levada_core::{Principal, TenantId, TenantSet};

use super::Double;

impl Double {
    pub(super) fn pipeline_rows(&self, principal: &Principal) -> Vec<PipelineRow> {
        let s = self.seconds();
        let now = self.clock.now_ms();
        let row = |name: &str, owner: &str, source: &str, share: f64, health, note: Option<&str>| {
            let received = (s as f64 * 2400.0 * share) as u64;
            let dead = received / 3100;
            let dropped = received / 240;
            PipelineRow {
                key: if owner == "shared" { name.to_owned() } else { format!("{owner}.{name}") },
                name: name.to_owned(),
                owner: owner.to_owned(),
                source: source.to_owned(),
                sink: format!("silver.{name}"),
                full_name: if owner == "shared" { name.to_owned() } else { format!("{owner}/{name}") },
                received,
                written: received - dead - dropped,
                dropped,
                dead,
                backlog: Some((self.rate(s) * share) as u64),
                rate_per_s: self.rate(s) * share,
                epoch: Some(s / 5),
                last_commit_ms: Some(now - (now % 5000)),
                health,
                note: note.map(str::to_owned),
            }
        };
        let all = vec![
            row(
                "checkins",
                "shared",
                "topic checkins",
                0.62,
                Health::Degraded,
                Some("the weather service answers slowly; its breaker is half open"),
            ),
            row("github_events", "shared", "topic webhooks", 0.27, Health::Healthy, None),
            row("weather", "alpine", "folder landing/weather", 0.004, Health::Healthy, None),
            row("avalanche_reports", "coast", "topic avalanche-reports", 0.106, Health::Healthy, None),
            PipelineRow {
                written: 0,
                received: 0,
                dropped: 0,
                dead: 0,
                backlog: None,
                rate_per_s: 0.0,
                epoch: None,
                last_commit_ms: None,
                ..row(
                    "example_source",
                    "shared",
                    "folder gs://landing-zone/example/",
                    0.0,
                    Health::Waiting,
                    Some("joins gold.customers, which no file defines"),
                )
            },
        ];
        all.into_iter()
            .filter(|r| {
                r.owner == "shared"
                    || TenantId::new(&r.owner).is_ok_and(|owner| principal.tenants.contains(&owner))
            })
            .collect()
    }

    pub(super) fn pipeline_detail(&self, principal: &Principal, key: &str) -> Option<PipelineDetail> {
        let row = self.pipeline_rows(principal).into_iter().find(|r| r.key == key)?;
        // Of what tenants share, a tenant sees its own rows and no more.
        let whole = row.owner != "shared" || principal.tenants == TenantSet::All;
        let step = |kind: &str, summary: &str, rows_in: u64, dropped: u64, dead: u64| StepRow {
            kind: kind.to_owned(),
            summary: summary.to_owned(),
            waits_for: None,
            counts: whole.then_some(StepCounts {
                rows_in,
                rows_out: rows_in - dropped - dead,
                dropped,
                dead,
            }),
        };
        let n = row.received;
        let (dead, dropped) = (row.dead, row.dropped);
        let mut steps = vec![
            step("validate", "schema checkin.json, strict", n, 0, dead / 3),
            step("deduplicate", "by event_id, within 1 h or 1,000,000 keys", n - dead / 3, dropped, 0),
            step(
                "quality",
                "user not null · station matches ^[A-Z]{3}$ · time not in the future",
                n - dead / 3 - dropped,
                0,
                0,
            ),
            step(
                "enrich",
                "GET http://127.0.0.1:9090/weather/{station}?at={time}, cached 10 min",
                n - dead / 3 - dropped,
                0,
                dead - dead / 3,
            ),
            step("write", &format!("{}, clustered by tenant_id", row.sink), row.written, 0, 0),
        ];
        if row.health == Health::Waiting {
            steps.insert(
                3,
                StepRow {
                    waits_for: Some(
                        "gold.customers is not defined: add models/customers.sql, or take the join out"
                            .to_owned(),
                    ),
                    counts: None,
                    ..step("join", "gold.customers on customer_id", 0, 0, 0)
                },
            );
        }
        let now = self.clock.now_ms();
        let last = row.epoch.unwrap_or(0);
        Some(PipelineDetail {
            description: Some(
                "User check-ins, enriched with the weather at the station at that hour.".to_owned(),
            ),
            file: format!("connectors/{}.yaml", row.name),
            steps,
            dead_by_reason: vec![
                ReasonCount { code: "enrich-failed".into(), count: dead - dead / 3 },
                ReasonCount { code: "schema-invalid".into(), count: dead / 3 },
            ],
            epochs: (0..8)
                .filter(|_| row.epoch.is_some())
                .map(|i| EpochRow {
                    epoch: last - i,
                    committed_ms: now - (now % 5000) - i as i64 * 5000,
                    rows: 7_440 + i * 13 % 97,
                    files: whole.then_some(1 + i % 2),
                    duration_ms: (whole && i < 6).then_some(61 + i * 7 % 23),
                })
                .collect(),
            row,
        })
    }
}
