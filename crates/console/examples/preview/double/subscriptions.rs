//! Made-up subscriptions: one that does well, one late with blocked keys, one of a tenant.

use levada_console::*;
use levada_core::{Principal, Problem, TenantSet};

use super::Double;

impl Double {
    pub fn subscription_rows(&self, principal: &Principal) -> Vec<SubscriptionRow> {
        let s = self.seconds();
        let row = |name: &str, owner: &str, topic: Option<&str>, share: f64| {
            let delivered = (s as f64 * 2400.0 * share) as u64;
            SubscriptionRow {
                name: name.to_owned(),
                owner: owner.to_owned(),
                topic: topic.map(str::to_owned),
                delivery: "pull".to_owned(),
                backlog: (self.rate(s) * share / 4.0) as u64,
                backlog_is_exact: true,
                oldest_s: (share > 0.0).then_some(1 + s % 2),
                delivered_per_s: self.rate(s) * share,
                acknowledged_per_s: self.rate(s + 1) * share,
                leased: (self.rate(s) * share / 9.0) as u64,
                delivered,
                redelivered: delivered / 900,
                acknowledged: delivered - delivered / 700,
                expired: delivered / 1_500,
                dead_lettered: delivered / 40_000,
                blocked_keys: 0,
                health: if share > 0.0 { Health::Healthy } else { Health::Idle },
                note: None,
                replay: None,
            }
        };
        let mut rows = vec![
            SubscriptionRow {
                backlog: 1_482_113 + s * 31,
                oldest_s: Some(2_940 + s % 60),
                blocked_keys: if self.resent.lock().contains("user-4711") { 1 } else { 2 },
                delivery: "pull, ordered, exactly once".to_owned(),
                health: Health::Degraded,
                note: Some("its consumers do not keep up".to_owned()),
                ..row("mountain-weather/fraud-alerts", "shared", Some("mountain-weather/checkins"), 0.11)
            },
            SubscriptionRow {
                delivery: "push to http://127.0.0.1:9090/hook".to_owned(),
                ..row("mountain-weather/station-board", "shared", Some("mountain-weather/checkins"), 0.62)
            },
            SubscriptionRow {
                backlog_is_exact: false,
                ..row("mountain-weather/huts", "alpine", Some("mountain-weather/checkins"), 0.07)
            },
            SubscriptionRow {
                backlog: 48_120,
                acknowledged: 20_311,
                replay: Some(ReplayMark {
                    source: "mountain-weather/fraud-alerts".to_owned(),
                    finished: false,
                }),
                ..row("mountain-weather/fraud-again", "shared", Some("mountain-weather/checkins"), 0.05)
            },
            SubscriptionRow {
                backlog: 0,
                note: Some("all of it was delivered: delete it".to_owned()),
                health: Health::Idle,
                replay: Some(ReplayMark {
                    source: "mountain-weather/station-board".to_owned(),
                    finished: true,
                }),
                ..row("mountain-weather/october", "shared", Some("mountain-weather/checkins"), 0.01)
            },
            row("mountain-weather/fraud-dead", "shared", Some("mountain-weather/fraud-dead"), 0.01),
            row("coast-tides/tide-log", "coast", Some("coast-tides/tides"), 0.02),
            SubscriptionRow {
                health: Health::Waiting,
                note: Some("its topic was deleted: nothing arrives any more".to_owned()),
                ..row("mountain-weather/last-years-export", "shared", None, 0.0)
            },
        ];
        if let TenantSet::Only(tenants) = &principal.tenants {
            rows.retain(|row| tenants.iter().any(|tenant| tenant.as_str() == row.owner));
        }
        rows
    }

    pub fn subscription_detail(&self, principal: &Principal, name: &str) -> Option<SubscriptionDetail> {
        let row = self.subscription_rows(principal).into_iter().find(|row| row.name == name)?;
        let now = self.clock.now_ms();
        let lane = |tenant: &str, weight: u32, share: f64| LaneRow {
            tenant: tenant.to_owned(),
            weight,
            backlog: (row.backlog as f64 * share) as u64,
            delivered: (row.delivered as f64 * share) as u64,
            delivered_bytes: (row.delivered as f64 * share * 640.0) as u64,
            share,
        };
        let lanes = if row.owner == "shared" {
            vec![lane("alpine", 1, 0.172), lane("coast", 2, 0.655), lane("default", 1, 0.173)]
        } else {
            vec![lane(&row.owner, 1, 1.0)]
        };
        let key = |tenant: &str, key: &str, attempt: u32, waiting: u64| BlockedRow {
            tenant: tenant.to_owned(),
            key: key.to_owned(),
            message_id: (7_000_000 + waiting).to_string(),
            attempt,
            waiting,
            since_ms: now - 2_900_000 / i64::from(attempt),
        };
        let mut blocked = vec![key("coast", "user-4711", 1, 1_204), key("alpine", "hut/<b>9</b>", 4, 3)];
        blocked.retain(|key| row.blocked_keys > 0 && !self.resent.lock().contains(&key.key));
        let mut settings: Vec<(String, String)> = Vec::new();
        for (name, value) in [
            ("Topic", row.topic.as_deref().unwrap_or("deleted")),
            ("Delivery", &row.delivery),
            ("Ack deadline", "10 s"),
            ("Filter", "attributes.state = \"new\""),
            ("Dead letter", "mountain-weather/fraud-dead after 5 deliveries"),
            ("Keeps messages", "7 d"),
        ] {
            settings.push((name.to_owned(), value.to_owned()));
        }
        let mut weights: Vec<(String, u32)> = self.weights.lock().clone().into_iter().collect();
        weights.retain(|(tenant, _)| lanes.iter().any(|lane| lane.tenant == *tenant));
        Some(SubscriptionDetail { can_park: row.owner == "shared", settings, lanes, weights, blocked, row })
    }

    pub fn unblock_key(
        &self,
        principal: &Principal,
        name: &str,
        key: &str,
        how: Unblock,
    ) -> Result<String, Problem> {
        let none = || Problem::new(404, "subscription-unknown", "there is no such subscription");
        let detail = self.subscription_detail(principal, name).ok_or_else(none)?;
        if !detail.blocked.iter().any(|blocked| blocked.key == key) {
            return Err(Problem::new(
                409,
                "subscription-state",
                "no message of that ordering key is under way",
            ));
        }
        self.resent.lock().insert(key.to_owned());
        let done = if how == Unblock::Skip { "skipped" } else { "parked" };
        Ok(format!("The message that blocked {key} was {done}."))
    }
}
