//! A platform made up for looking and testing: two tenants, numbers that move with time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use levada_console::*;
use levada_core::{Clock, Principal, Problem, Role, TenantId, TenantSet, TopicName, Zone};
use parking_lot::Mutex;

pub struct Double {
    clock: Arc<dyn Clock>,
    start_ms: i64,
    revoked: Mutex<BTreeSet<String>>,
    /// `topic/offset` of what was sent again.
    pub resent: Mutex<BTreeSet<String>>,
    pub authentications: AtomicU64,
}

fn tenant(text: &str) -> TenantId {
    TenantId::new(text).expect("a valid tenant")
}

fn only(text: &str) -> TenantSet {
    TenantSet::Only(BTreeSet::from([tenant(text)]))
}

impl Double {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let start_ms = clock.now_ms() - 7_500_000;
        Self {
            clock,
            start_ms,
            revoked: Mutex::default(),
            resent: Mutex::default(),
            authentications: AtomicU64::new(0),
        }
    }

    #[allow(dead_code, reason = "the preview revokes nothing")]
    pub fn revoke(&self, secret: &str) {
        self.revoked.lock().insert(secret.to_owned());
    }

    fn seconds(&self) -> u64 {
        u64::try_from((self.clock.now_ms() - self.start_ms) / 1000).unwrap_or(0)
    }

    fn rate(&self, at_s: u64) -> f64 {
        let t = at_s as f64;
        2400.0 + 900.0 * (t / 41.0).sin() + 420.0 * (t / 7.3).sin() + 160.0 * (t * 1.7).sin()
    }

    fn pipeline_rows(&self, principal: &Principal) -> Vec<PipelineRow> {
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
                received,
                written: received - dead - dropped,
                dropped,
                dead,
                backlog: (self.rate(s) * share) as u64,
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
                backlog: 0,
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

    fn letters(&self, principal: &Principal) -> Vec<DeadLetter> {
        let now = self.clock.now_ms();
        let of =
            |offset: u64, who: &str, code: &str, reason: &str, stage: &str, pipeline: &str, body: &[u8]| {
                let topic = TopicName::new(&format!("{}-dlq", pipeline.replace('_', "-"))).expect("a topic");
                let resent = self.resent.lock().contains(&format!("{topic}/{offset}"));
                DeadLetter {
                    topic,
                    offset,
                    tenant: who.to_owned(),
                    code: code.to_owned(),
                    reason: reason.to_owned(),
                    stage: stage.to_owned(),
                    attempts: if stage == "enrich" { 5 } else { 1 },
                    pipeline: Some(pipeline.to_owned()),
                    position: Some((offset * 3821).to_string()),
                    event_id: Some(format!("0199c0de-7a11-7000-8000-{offset:012}")),
                    event_type: Some(format!("{}.created", pipeline.trim_end_matches('s'))),
                    at_ms: now - offset as i64 * 37_000,
                    resent_ms: resent.then_some(now),
                    attributes: vec![
                        ("tenant_id".into(), who.to_owned()),
                        ("source_service".into(), "mobile-app".into()),
                        (
                            "traceparent".into(),
                            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
                        ),
                    ],
                    body: bytes::Bytes::copy_from_slice(body),
                }
            };
        let mut all = Vec::new();
        for i in 0..6u64 {
            let base = i * 5 + 1;
            all.push(of(
                base,
                "alpine",
                "enrich-failed",
                "the weather service answered 503 five times; last after 812 ms",
                "enrich",
                "checkins",
                br#"{"user":"u-4711","station":"EWR","time":"2013-07-04T09:00:00Z"}"#,
            ));
            all.push(of(
                base + 1,
                "coast",
                "schema-invalid",
                "field `time`: `yesterday` is not a timestamp; write RFC 3339, as in 2026-11-21T08:00:00Z",
                "validate",
                "checkins",
                br#"{"user":"u-0815","station":"JFK","time":"yesterday"}"#,
            ));
            all.push(of(
                base + 2,
                "alpine",
                "quality-failed",
                "rule `humid in 0..100` failed: 104.2",
                "quality",
                "weather",
                b"EWR,2013,1,1,1,39.02,26.06,104.2,270,10.35702,NA,0,1012,10",
            ));
            all.push(of(
                base + 3,
                "coast",
                "not-utf8",
                "the body is no valid UTF-8: byte 0xff at 3",
                "decode",
                "avalanche_reports",
                b"{\"a\xff\xfe<script>alert(1)</script>\x00\x01\x02binary",
            ));
            all.push(of(
                base + 4,
                "coast",
                "schema-invalid",
                "required field `action` is missing <b>here</b>",
                "validate",
                "github_events",
                br#"{"repository":{"full_name":"octo/<script>alert(1)</script>"}}"#,
            ));
        }
        all.retain(|l| principal.tenants.contains(&tenant(&l.tenant)));
        all.sort_by_key(|l| std::cmp::Reverse(l.at_ms));
        all
    }

    fn zone_rows(&self, principal: &Principal) -> Vec<ZoneRow> {
        let s = self.seconds();
        let zones = [(Zone::Bronze, 5, 2400, 1100), (Zone::Silver, 4, 2380, 210), (Zone::Gold, 3, 2, 90)];
        zones
            .into_iter()
            .filter(|(zone, ..)| principal.may_read(*zone))
            .map(|(zone, tables, per_s, row_bytes)| ZoneRow {
                zone: zone.to_string(),
                tables,
                rows: s * per_s,
                bytes: s * per_s * row_bytes,
            })
            .collect()
    }
}

#[async_trait]
impl ConsoleData for Double {
    async fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        self.authentications.fetch_add(1, Ordering::SeqCst);
        let (name, tenants, role) = match secret {
            "lvd_admin" => ("first administrator", TenantSet::All, Role::Admin),
            "lvd_alpine" => ("alpine engineers", only("alpine"), Role::Engineer),
            "lvd_analyst" => ("reports", only("coast"), Role::Analyst),
            _ => ("", only("none"), Role::Client),
        };
        if name.is_empty() || self.revoked.lock().contains(secret) {
            return Err(Problem::new(401, "unauthenticated", "this key is unknown, expired or revoked"));
        }
        Ok(Arc::new(Principal {
            id: format!("key-{secret}"),
            name: name.to_owned(),
            tenants,
            roles: BTreeSet::from([role]),
        }))
    }

    async fn overview(&self, principal: &Principal) -> Result<Overview, Problem> {
        let s = self.seconds();
        let rate_history: Vec<f64> = (0..90).map(|i| self.rate(s - 450 + i * 5)).collect();
        Ok(Overview {
            health: Health::Degraded,
            notes: vec!["checkins: the weather service answers slowly; its breaker is half open".to_owned()],
            events_per_s: rate_history[89],
            rate_history,
            rate_step_s: 5,
            accepted: s * 2400,
            duplicates: s * 11,
            dead_letters: s * 2400 / 3100,
            latency_p50_ms: Some(38.0 + (s as f64 / 3.0).sin() * 4.0),
            latency_p99_ms: Some(212.0 + (s as f64 / 5.0).sin() * 30.0),
            backlog: self.rate(s) as u64,
            uptime_s: s,
            pipelines: self.pipeline_rows(principal),
            models: self.models(principal).await?,
            zones: self.zone_rows(principal),
        })
    }

    async fn pipelines(&self, principal: &Principal) -> Result<Vec<PipelineRow>, Problem> {
        Ok(self.pipeline_rows(principal))
    }

    async fn pipeline(&self, principal: &Principal, key: &str) -> Result<Option<PipelineDetail>, Problem> {
        let Some(row) = self.pipeline_rows(principal).into_iter().find(|r| r.key == key) else {
            return Ok(None);
        };
        let step = |kind: &str, summary: &str, rows_in: u64, dropped: u64, dead: u64| StepRow {
            kind: kind.to_owned(),
            summary: summary.to_owned(),
            waits_for: None,
            rows_in,
            rows_out: rows_in - dropped - dead,
            dropped,
            dead,
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
                    ..step("join", "gold.customers on customer_id", 0, 0, 0)
                },
            );
        }
        let now = self.clock.now_ms();
        let last = row.epoch.unwrap_or(0);
        Ok(Some(PipelineDetail {
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
                    files: 1 + i % 2,
                    duration_ms: 61 + i * 7 % 23,
                })
                .collect(),
            row,
        }))
    }

    async fn models(&self, _: &Principal) -> Result<Vec<ModelRow>, Problem> {
        let now = self.clock.now_ms();
        let model = |name: &str, depends_on: &[&str], schedule: Option<&str>, rows: u64| ModelRow {
            key: name.to_owned(),
            name: name.to_owned(),
            owner: "shared".to_owned(),
            table: format!("gold.{name}"),
            depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
            schedule: schedule.map(str::to_owned),
            rows: Some(rows),
            last_run_ms: Some(now - 160_000),
            last_duration_ms: Some(rows / 20 + 18),
            health: Health::Healthy,
            note: None,
        };
        Ok(vec![
            model("station_day", &["silver.checkins"], None, 1092),
            model("repository_activity", &["silver.github_events"], Some("*/5 * * * *"), 47),
            model("weekly_report", &["gold.station_day", "gold.repository_activity"], Some("0 6 * * 1"), 156),
        ])
    }

    async fn run_model(&self, _: &Principal, key: &str) -> Result<String, Problem> {
        if key == "station_day" {
            Ok("station_day ran: 1,092 rows in 72 ms.".to_owned())
        } else {
            Err(Problem::new(404, "not-found", "there is no such model"))
        }
    }

    async fn topics(&self, _: &Principal) -> Result<Vec<TopicRow>, Problem> {
        let s = self.seconds();
        let topic = |name: &str, share: f64, retention: Option<&str>, readers: &[&str]| TopicRow {
            name: name.to_owned(),
            first: 0,
            next: (s as f64 * 2400.0 * share) as u64,
            bytes: (s as f64 * 2400.0 * share * 640.0) as u64,
            rate_per_s: self.rate(s) * share,
            durability: "synced to disk".to_owned(),
            retention: retention.map(str::to_owned),
            readers: readers.iter().map(|r| (*r).to_owned()).collect(),
        };
        Ok(vec![
            topic("checkins", 0.62, Some("7 days"), &["checkins", "fraud-alerts (subscription)"]),
            topic("webhooks", 0.27, Some("7 days"), &["github_events"]),
            topic("checkins-dlq", 0.0002, None, &[]),
            topic("avalanche-reports", 0.0, Some("30 days, 10 GiB"), &["avalanche_reports"]),
        ])
    }

    async fn dead_letters(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        let all = self.letters(principal);
        let distinct = |of: fn(&DeadLetter) -> String| {
            all.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let reasons = distinct(|l| l.code.clone())
            .into_iter()
            .map(|code| ReasonCount { count: all.iter().filter(|l| l.code == code).count() as u64, code })
            .collect();
        let (topics, pipelines) =
            (distinct(|l| l.topic.to_string()), distinct(|l| l.pipeline.clone().unwrap_or_default()));
        let from: usize = filter.after.as_deref().and_then(|a| a.parse().ok()).unwrap_or(0);
        let matching: Vec<DeadLetter> = all
            .into_iter()
            .filter(|l| filter.topic.as_ref().is_none_or(|t| *t == l.topic))
            .filter(|l| filter.pipeline.is_none() || filter.pipeline == l.pipeline)
            .filter(|l| filter.code.as_ref().is_none_or(|c| *c == l.code))
            .collect();
        let limit = filter.limit.min(20);
        let next = (matching.len() > from + limit).then(|| (from + limit).to_string());
        let letters = matching.into_iter().skip(from).take(limit).collect();
        Ok(DeadLetterPage { letters, next, topics, pipelines, reasons })
    }

    async fn dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem> {
        Ok(self.letters(principal).into_iter().find(|l| l.topic == *topic && l.offset == offset))
    }

    async fn resend(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: &[u64],
    ) -> Result<Resent, Problem> {
        let mut answer = Resent { sent: 0, missing: 0 };
        for offset in offsets {
            match self.dead_letter(principal, topic, *offset).await? {
                Some(_) => {
                    self.resent.lock().insert(format!("{topic}/{offset}"));
                    answer.sent += 1;
                }
                None => answer.missing += 1,
            }
        }
        Ok(answer)
    }

    async fn query(&self, principal: &Principal, sql: &str, max_rows: usize) -> Result<QueryAnswer, Problem> {
        if sql.contains("silver.chekins") {
            return Err(Problem::new(404, "table-unknown", "table `silver.chekins` does not exist")
                .hint("did you mean `silver.checkins`?"));
        }
        let column =
            |name: &str, kind: &str, numeric| Column { name: name.into(), kind: kind.into(), numeric };
        let rows: Vec<Vec<Option<String>>> = (0..40u32)
            .map(|i| {
                vec![
                    Some(["EWR", "JFK", "LGA"][i as usize % 3].to_owned()),
                    Some(format!("2013-07-{:02}", 1 + i / 3)),
                    Some((812 + i * 37 % 211).to_string()),
                    (i % 7 != 3).then(|| format!("{:.2}", 71.3 + f64::from(i * 13 % 100) / 7.0)),
                    Some(principal.name.clone()),
                ]
            })
            .collect();
        Ok(QueryAnswer {
            columns: vec![
                column("station", "text", false),
                column("day", "date", false),
                column("checkins", "bigint", true),
                column("mean_temp", "double precision", true),
                column("asked_by", "text", false),
            ],
            truncated: rows.len() > max_rows,
            rows: rows.into_iter().take(max_rows).collect(),
            elapsed_ms: 14,
            as_of: vec!["checkins 1502".to_owned()],
        })
    }

    async fn tables(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem> {
        let s = self.seconds();
        let table = |name: &str, rows: u64, columns: &[(&str, &str)]| TableRow {
            name: name.to_owned(),
            rows: Some(rows),
            bytes: Some(rows * 40),
            columns: columns.iter().map(|(n, k)| ((*n).to_owned(), (*k).to_owned())).collect(),
            description: name.starts_with("gold").then(|| "Refreshed from its model.".to_owned()),
        };
        let checkin: &[(&str, &str)] = &[
            ("tenant_id", "text"),
            ("user", "text"),
            ("station", "text"),
            ("time", "timestamptz"),
            ("temp", "double"),
        ];
        let all = vec![
            (
                Zone::Gold,
                table(
                    "gold.station_day",
                    1092,
                    &[("station", "text"), ("day", "date"), ("checkins", "bigint")],
                ),
            ),
            (Zone::Silver, table("silver.checkins", s * 1480, checkin)),
            (Zone::Silver, table("silver.github_events", s * 640, checkin)),
            (Zone::Bronze, table("bronze.checkins", s * 1490, checkin)),
        ];
        Ok(all.into_iter().filter(|(zone, _)| principal.may_read(*zone)).map(|(_, t)| t).collect())
    }
}
