//! A platform made up for looking and testing: two tenants, numbers that move with time.

mod lake;
mod letters;
mod messages;
mod pipelines;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use levada_console::*;
use levada_core::{Clock, Principal, Problem, ResourceName, Role, TenantId, TenantSet, TopicName};
use parking_lot::Mutex;

pub struct Double {
    clock: Arc<dyn Clock>,
    start_ms: i64,
    revoked: Mutex<BTreeSet<String>>,
    /// `topic/offset` of what was sent again.
    pub resent: Mutex<BTreeSet<String>>,
    pub weights: Mutex<BTreeMap<String, u32>>,
    /// What redrives were asked for.
    pub redriven: Mutex<Vec<RedriveOrder>>,
    /// How messages were edited before they were sent again.
    pub edits: Mutex<Vec<MessageEdit>>,
    pub authentications: AtomicU64,
    /// Characters of each value that callers may make long; 0: as people write them.
    pub wide: AtomicUsize,
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
            weights: Mutex::new(BTreeMap::from([("coast".to_owned(), 2)])),
            redriven: Mutex::default(),
            edits: Mutex::default(),
            authentications: AtomicU64::new(0),
            wide: AtomicUsize::new(0),
        }
    }

    #[allow(dead_code, reason = "the preview revokes nothing")]
    pub fn revoke(&self, secret: &str) {
        self.revoked.lock().insert(secret.to_owned());
    }

    fn seconds(&self) -> u64 {
        u64::try_from((self.clock.now_ms() - self.start_ms) / 1000).unwrap_or(0)
    }

    /// What stands in place of a value while values are wide.
    fn wide(&self) -> Option<String> {
        let chars = self.wide.load(Ordering::Relaxed);
        (chars > 0).then(|| "\"".repeat(chars))
    }

    fn rate(&self, at_s: u64) -> f64 {
        let t = at_s as f64;
        2400.0 + 900.0 * (t / 41.0).sin() + 420.0 * (t / 7.3).sin() + 160.0 * (t * 1.7).sin()
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
        let mut rows = self.pipeline_rows(principal);
        if let Some(wide) = self.wide() {
            rows.iter_mut().for_each(|row| row.note = Some(wide.clone()));
        }
        Ok(rows)
    }

    async fn pipeline(&self, principal: &Principal, key: &str) -> Result<Option<PipelineDetail>, Problem> {
        Ok(self.pipeline_detail(principal, key))
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
            commit_p99_us: (share > 0.0).then_some(1_024),
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

    async fn subscriptions(&self, principal: &Principal) -> Result<Vec<SubscriptionRow>, Problem> {
        Ok(self.subscription_rows(principal))
    }

    async fn subscription(
        &self,
        principal: &Principal,
        name: &ResourceName,
    ) -> Result<Option<SubscriptionDetail>, Problem> {
        Ok(self.subscription_detail(principal, &name.to_string()))
    }

    async fn unblock(
        &self,
        principal: &Principal,
        name: &ResourceName,
        _: &str,
        key: &str,
        how: Unblock,
    ) -> Result<String, Problem> {
        self.unblock_key(principal, &name.to_string(), key, how)
    }

    async fn weigh(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &str,
        weight: Option<u32>,
    ) -> Result<String, Problem> {
        let none = || Problem::new(404, "subscription-unknown", "there is no such subscription");
        self.subscription_detail(principal, &name.to_string()).ok_or_else(none)?;
        let mut weights = self.weights.lock();
        match weight {
            Some(weight) => weights.insert(tenant.to_owned(), weight),
            None => weights.remove(tenant),
        };
        Ok(format!("The weight of {tenant} was changed."))
    }

    async fn messages(
        &self,
        principal: &Principal,
        name: &ResourceName,
        filter: &MessageFilter,
    ) -> Result<MessagePage, Problem> {
        self.message_page(principal, &name.to_string(), filter)
    }

    async fn message(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
    ) -> Result<Option<MessageRow>, Problem> {
        Ok(self.one_message(principal, &name.to_string(), message_id))
    }

    async fn redrive(
        &self,
        _principal: &Principal,
        _name: &ResourceName,
        order: &RedriveOrder,
    ) -> Result<RedriveDone, Problem> {
        self.redriven.lock().push(order.clone());
        let refused =
            vec![(2, "the message cannot be sent again: its source is not there any more".to_owned())];
        Ok(RedriveDone { published: order.limit.min(118), skipped: 3, refused, more: false })
    }

    async fn resend_message(
        &self,
        _principal: &Principal,
        _name: &ResourceName,
        message_id: u64,
        edit: &MessageEdit,
    ) -> Result<String, Problem> {
        self.edits.lock().push(edit.clone());
        self.resend_one(message_id, edit)
    }

    async fn pubsub_topics(&self, principal: &Principal) -> Result<Vec<PubsubTopicRow>, Problem> {
        let row = |name: &str, owner: &str, durability: &str, deduplication: Option<&str>| PubsubTopicRow {
            name: name.to_owned(),
            owner: owner.to_owned(),
            durability: durability.to_owned(),
            deduplication: deduplication.map(str::to_owned),
            schema: None,
        };
        let mut rows = vec![
            row("coast-tides/tides", "coast", "in memory: a crash may lose the last moments", None),
            row("mountain-weather/checkins", "shared", "synced to disk", Some("by checkin_id within 6 h")),
            row("mountain-weather/fraud-dead", "shared", "synced to disk", None),
        ];
        if let TenantSet::Only(tenants) = &principal.tenants {
            rows.retain(|row| row.owner == "shared" || tenants.iter().any(|t| t.as_str() == row.owner));
        }
        Ok(rows)
    }

    async fn dead_letters(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        Ok(self.letter_page(principal, filter))
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
        if let Some(wide) = self.wide().filter(|_| sql.contains("CAST")) {
            return Err(Problem::new(422, "sql-execution", format!("`{wide}` is no number")).hint(wide));
        }
        if sql.contains("silver.chekins") {
            return Err(Problem::new(404, "table-unknown", "table `silver.chekins` does not exist")
                .hint("did you mean `silver.checkins`?"));
        }
        let columns = [
            Column::new("station", "text", false),
            Column::new("day", "date", false),
            Column::new("checkins", "bigint", true),
            Column::new("mean_temp", "double precision", true),
            Column::new("asked_by", "text", false),
        ];
        let mut rows = ShownRows::new(columns.into_iter());
        let wide = self.wide();
        let made = if wide.is_some() { 480 } else { 40 };
        for i in 0..made.min(max_rows) {
            let row = [
                Some(["EWR", "JFK", "LGA"][i % 3].to_owned()),
                Some(format!("2013-07-{:02}", 1 + i / 3)),
                Some((812 + i * 37 % 211).to_string()),
                (i % 7 != 3).then(|| format!("{:.2}", 71.3 + (i * 13 % 100) as f64 / 7.0)),
                Some(wide.clone().unwrap_or_else(|| principal.name.clone())),
            ];
            if !rows.push(row.into_iter()) {
                break;
            }
        }
        Ok(QueryAnswer {
            rows,
            truncated: made > max_rows,
            elapsed_ms: 14,
            as_of: vec!["checkins 1502".to_owned()],
        })
    }

    async fn tables(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem> {
        Ok(self.table_rows(principal))
    }
}
