//! Subscriptions of the Pub/Sub bus: the list, one of them, and freeing a blocked key.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use levada_bus::admin::{SubscriptionAdmin, SubscriptionReport, SubscriptionState};
use levada_bus::port::{self, BlockedKey, PageRequest};
use levada_console::{BlockedRow, Health, LaneRow, ReplayMark, SubscriptionDetail, SubscriptionRow, Unblock};
use levada_core::{Principal, Problem, ResourceName, TenantId};

use super::{PlatformData, urgency};

/// Subscriptions that the list shows.
const MAX_ROWS: usize = 1_000;
/// Weights that a page shows.
const MAX_WEIGHTS: usize = 100;
/// Blocked keys that a page shows.
const MAX_BLOCKED: usize = 100;

impl PlatformData {
    pub(super) async fn subscription_rows(
        &self,
        principal: &Principal,
    ) -> Result<Vec<SubscriptionRow>, Problem> {
        let page = PageRequest { size: MAX_ROWS, after: None };
        let asked = principal.clone();
        let found = self.of_subscriptions(move |admin| Ok(admin.list(&asked, &page))).await?;
        let mut rows: Vec<SubscriptionRow> = found.items.iter().map(|r| self.subscription_row(r)).collect();
        // The sort is stable: within one urgency they stay in the order of their names.
        rows.sort_by_key(|row| Reverse(urgency(row.health)));
        Ok(rows)
    }

    pub(super) async fn subscription_page(
        &self,
        principal: &Principal,
        name: &ResourceName,
    ) -> Result<Option<SubscriptionDetail>, Problem> {
        let (asked, named) = (principal.clone(), name.clone());
        let found = self.of_subscriptions(move |admin| {
            let report = admin.show(&asked, &named)?;
            let blocked = admin.blocked_keys(&asked, &named, MAX_BLOCKED)?;
            Ok((report, blocked))
        });
        match found.await {
            Ok((report, blocked)) => Ok(Some(SubscriptionDetail {
                row: self.subscription_row(&report),
                settings: settings(&report),
                lanes: lanes(&report),
                weights: report.weights.iter().take(MAX_WEIGHTS).map(|(t, w)| (t.to_string(), *w)).collect(),
                blocked: blocked.into_iter().map(blocked_row).collect(),
                can_park: report.spec.dead_letter.is_some(),
            })),
            Err(problem) if problem.status == 404 => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    pub(super) async fn free_key(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &str,
        key: &str,
        how: Unblock,
    ) -> Result<String, Problem> {
        if !principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "freeing a key takes the role engineer"));
        }
        let tenant =
            TenantId::new(tenant).map_err(|error| Problem::new(422, "body-invalid", error.to_string()))?;
        let (how, done) = match how {
            Unblock::Skip => (port::Unblock::Skip, "was skipped"),
            Unblock::Park => (port::Unblock::Park, "went to the dead letter, with what waited behind it"),
        };
        self.subscriptions.unblock(principal, name, &tenant, key, how).await?;
        Ok(format!("The message that blocked {key} {done}."))
    }

    /// Figures may take a look at the disk.
    pub(super) async fn of_subscriptions<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&SubscriptionAdmin) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let admin = self.subscriptions.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&admin)).await;
        asked.unwrap_or_else(|_| Err(Problem::new(500, "internal", "the read failed")))
    }

    fn subscription_row(&self, report: &SubscriptionReport) -> SubscriptionRow {
        let (spec, stats, now) = (&report.spec, &report.stats, Instant::now());
        let now_ms = self.clock.now_ms();
        let (state, note) = report.state(now_ms);
        let per_s = |what: &str, count: u64| {
            self.meter.per_s(&format!("subscription {} {what}", spec.name), count, now)
        };
        SubscriptionRow {
            name: spec.name.to_string(),
            owner: report.tenant.as_ref().map_or_else(|| "shared".to_owned(), ToString::to_string),
            topic: spec.topic.as_ref().map(ToString::to_string),
            delivery: delivery(report),
            backlog: stats.backlog_messages,
            backlog_is_exact: report.backlog_is_exact,
            oldest_s: report.oldest_age(now_ms).map(|age| age.as_secs()),
            delivered_per_s: per_s("delivered", stats.delivered),
            acknowledged_per_s: per_s("acknowledged", stats.acknowledged),
            leased: stats.leased,
            delivered: stats.delivered,
            redelivered: stats.redelivered,
            acknowledged: stats.acknowledged,
            expired: stats.expired,
            dead_lettered: stats.dead_lettered,
            blocked_keys: stats.blocked_keys,
            health: health(state),
            note: note.map(str::to_owned),
            replay: spec.replay.as_ref().map(|replay| ReplayMark {
                source: replay.source.to_string(),
                finished: stats.replay_finished == Some(true),
            }),
        }
    }
}

fn health(state: SubscriptionState) -> Health {
    match state {
        SubscriptionState::Healthy | SubscriptionState::Replaying => Health::Healthy,
        SubscriptionState::Idle | SubscriptionState::Finished => Health::Idle,
        SubscriptionState::Ended => Health::Waiting,
        SubscriptionState::Late => Health::Degraded,
        SubscriptionState::Stuck => Health::Failing,
    }
}

fn delivery(report: &SubscriptionReport) -> String {
    let spec = &report.spec;
    let mut text = match &spec.push {
        Some(push) => format!("push to {}", push.endpoint),
        None => "pull".to_owned(),
    };
    for (set, word) in [(spec.ordered, ", ordered"), (spec.exactly_once, ", exactly once")] {
        if set {
            text.push_str(word);
        }
    }
    text
}

fn settings(report: &SubscriptionReport) -> Vec<(String, String)> {
    let spec = &report.spec;
    let topic = spec.topic.as_ref().map_or_else(|| "deleted".to_owned(), ToString::to_string);
    let dead_letter = spec
        .dead_letter
        .as_ref()
        .map(|policy| format!("{} after {} deliveries", policy.topic, policy.max_delivery_attempts));
    let filter = Some(spec.filter.clone()).filter(|filter| !filter.is_empty());
    let retry =
        spec.retry.map(|r| format!("after {} to {}", time(r.minimum_backoff), time(r.maximum_backoff)));
    let settings = [
        ("Topic", Some(topic)),
        ("Delivery", Some(delivery(report))),
        ("Filter", filter),
        ("Ack deadline", Some(time(spec.ack_deadline))),
        ("Delivers again", Some(retry.unwrap_or_else(|| "at once".to_owned()))),
        ("Dead letter", dead_letter),
        ("Rate", spec.max_rate_per_s.map(|rate| format!("at most {rate} messages a second"))),
        ("Keeps messages", Some(time(spec.retention))),
        ("Expires", spec.expires_after.map(|after| format!("after {} without use", time(after)))),
    ];
    settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A setting's time in its largest whole unit.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    for (unit_s, unit) in [(86_400, "d"), (3_600, "h"), (60, "min")] {
        if seconds >= unit_s && seconds.is_multiple_of(unit_s) {
            return format!("{} {unit}", seconds / unit_s);
        }
    }
    format!("{} s", time.as_secs_f64())
}

fn lanes(report: &SubscriptionReport) -> Vec<LaneRow> {
    let row = |lane: levada_bus::admin::LaneReport| LaneRow {
        tenant: lane.tenant.to_string(),
        weight: lane.weight,
        backlog: lane.backlog_messages,
        delivered: lane.delivered,
        delivered_bytes: lane.delivered_bytes,
        share: lane.share,
    };
    report.lanes().into_iter().map(row).collect()
}

fn blocked_row(key: BlockedKey) -> BlockedRow {
    BlockedRow {
        tenant: key.tenant.to_string(),
        key: key.key,
        message_id: key.message_id.to_string(),
        attempt: key.delivery_attempt,
        waiting: key.waiting,
        since_ms: key.since_ms,
    }
}
