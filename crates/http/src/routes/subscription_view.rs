//! How a subscription looks in answers.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_bus::admin::{LaneReport, SubscriptionReport};
use levada_bus::port::SubscriptionSpec;
use levada_core::{ProjectId, ResourceId, ResourceName, TenantId};
use serde::Serialize;

use super::visible::time;

/// A subscription with its figures.
#[derive(Serialize)]
pub(super) struct SubscriptionView<'a> {
    name: &'a ResourceName,
    project: &'a ProjectId,
    id: &'a ResourceId,
    /// `null`: the platform's.
    tenant_id: Option<&'a TenantId>,
    /// `null`: it was deleted.
    topic: Option<&'a ResourceName>,
    delivery: &'static str,
    state: &'static str,
    /// Why, where the state is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_endpoint: Option<&'a str>,
    ack_deadline_s: f64,
    ordered: bool,
    exactly_once: bool,
    filter: &'a str,
    retention_s: f64,
    retain_acked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_after_s: Option<f64>,
    detached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetterPolicyView<'a>>,
    labels: &'a BTreeMap<String, String>,
    /// Shares of tenants in delivery; those that are not named count 1.
    weights: &'a BTreeMap<TenantId, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rate_per_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayView<'a>>,
    stats: StatsView,
}

/// What a replay is of.
#[derive(Serialize)]
struct ReplayView<'a> {
    source: &'a ResourceName,
    finished: bool,
}

#[derive(Serialize)]
struct RetryView {
    minimum_backoff_s: f64,
    maximum_backoff_s: f64,
}

#[derive(Serialize)]
struct DeadLetterPolicyView<'a> {
    topic: &'a ResourceName,
    max_delivery_attempts: u32,
}

#[derive(Serialize)]
struct StatsView {
    backlog_messages: u64,
    backlog_is_exact: bool,
    leased: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unacked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unacked_age_s: Option<f64>,
    /// Since the server started, as is what follows.
    delivered: u64,
    redelivered: u64,
    acknowledged: u64,
    expired: u64,
    dead_lettered: u64,
    blocked_keys: u64,
    tenants: Vec<TenantView>,
}

#[derive(Serialize)]
struct TenantView {
    tenant_id: TenantId,
    weight: u32,
    backlog_messages: u64,
    delivered: u64,
    delivered_bytes: u64,
    share: f64,
}

/// Milliseconds as seconds, never below zero: clocks move back.
pub(super) fn age_s(now_ms: i64, then_ms: i64) -> f64 {
    now_ms.saturating_sub(then_ms).max(0) as f64 / 1000.0
}

pub(super) fn view(report: &SubscriptionReport, now_ms: i64) -> SubscriptionView<'_> {
    let spec: &SubscriptionSpec = &report.spec;
    let tenant = |lane: LaneReport| TenantView {
        tenant_id: lane.tenant,
        weight: lane.weight,
        backlog_messages: lane.backlog_messages,
        delivered: lane.delivered,
        delivered_bytes: lane.delivered_bytes,
        share: lane.share,
    };
    let stats = &report.stats;
    let (state, note) = report.state(now_ms);
    SubscriptionView {
        name: &spec.name,
        project: &spec.name.project,
        id: &spec.name.id,
        tenant_id: report.tenant.as_ref(),
        topic: spec.topic.as_ref(),
        delivery: if spec.push.is_some() { "push" } else { "pull" },
        state: state.as_str(),
        note,
        push_endpoint: spec.push.as_ref().map(|push| push.endpoint.as_str()),
        ack_deadline_s: spec.ack_deadline.as_secs_f64(),
        ordered: spec.ordered,
        exactly_once: spec.exactly_once,
        filter: &spec.filter,
        retention_s: spec.retention.as_secs_f64(),
        retain_acked: spec.retain_acked,
        expires_after_s: spec.expires_after.as_ref().map(Duration::as_secs_f64),
        detached: spec.detached,
        retry: spec.retry.map(|retry| RetryView {
            minimum_backoff_s: retry.minimum_backoff.as_secs_f64(),
            maximum_backoff_s: retry.maximum_backoff.as_secs_f64(),
        }),
        dead_letter: spec.dead_letter.as_ref().map(|policy| DeadLetterPolicyView {
            topic: &policy.topic,
            max_delivery_attempts: policy.max_delivery_attempts,
        }),
        labels: &spec.labels,
        weights: &report.weights,
        max_rate_per_s: spec.max_rate_per_s,
        replay: spec.replay.as_ref().map(|replay| ReplayView {
            source: &replay.source,
            finished: stats.replay_finished == Some(true),
        }),
        stats: StatsView {
            backlog_messages: stats.backlog_messages,
            backlog_is_exact: report.backlog_is_exact,
            leased: stats.leased,
            oldest_unacked_at: stats.oldest_unacked_ms.map(time),
            oldest_unacked_age_s: report.oldest_age(now_ms).map(|age| age.as_secs_f64()),
            delivered: stats.delivered,
            redelivered: stats.redelivered,
            acknowledged: stats.acknowledged,
            expired: stats.expired,
            dead_lettered: stats.dead_lettered,
            blocked_keys: stats.blocked_keys,
            tenants: report.lanes().into_iter().map(tenant).collect(),
        },
    }
}
