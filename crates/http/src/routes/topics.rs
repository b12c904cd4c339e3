//! `GET /v1/topics`.
//!
//! A shared topic has one lane a tenant: a caller sees its own lanes.

use axum::extract::State;
use axum::response::Response;
use levada_bus::TopicInfo;
use levada_core::{Problem, TenantId, TopicName};
use serde::Serialize;

use crate::answers::Whole;
use crate::auth::Caller;
use crate::problem::{ApiProblem, topic_unknown};
use crate::state::AppState;

#[derive(Serialize)]
struct Topics {
    topics: Vec<TopicView>,
}

#[derive(Serialize)]
struct TopicView {
    name: TopicName,
    /// First kept and next offset, size and duplicates of all lanes: only to those who see all.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicates: Option<u64>,
    /// When a publish is answered: `fsync`, `interval` or `memory`.
    durability: &'static str,
    /// From a publish until the log answered it, in microseconds: upper bounds, of all lanes.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_us_p50: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_us_p99: Option<u64>,
    /// Messages published since the program started, of the lanes below.
    published: u64,
    published_bytes: u64,
    lanes: Vec<LaneView>,
}

#[derive(Serialize)]
struct LaneView {
    tenant_id: TenantId,
    published: u64,
    published_bytes: u64,
}

pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let topics = state.bus.topics().into_iter();
    let topics = topics.filter(|t| state.routes.is_visible(&t.name, &caller.principal.tenants));
    Ok(whole.json(&Topics { topics: topics.map(|t| view(t, &caller)).collect() })?)
}

fn view(topic: TopicInfo, caller: &Caller) -> TopicView {
    let all = caller.is_platform();
    let lanes: Vec<LaneView> = topic
        .lanes
        .into_iter()
        .filter(|lane| caller.sees(&lane.tenant))
        .map(|l| LaneView { tenant_id: l.tenant, published: l.published, published_bytes: l.published_bytes })
        .collect();
    TopicView {
        name: topic.name,
        first: all.then_some(topic.first),
        next: all.then_some(topic.next),
        bytes: all.then_some(topic.bytes),
        duplicates: all.then_some(topic.duplicates),
        durability: topic.durability,
        commit_us_p50: all.then_some(topic.commit_us_p50),
        commit_us_p99: all.then_some(topic.commit_us_p99),
        published: lanes.iter().map(|l| l.published).sum(),
        published_bytes: lanes.iter().map(|l| l.published_bytes).sum(),
        lanes,
    }
}

/// The topic, if it exists and the caller may know of it.
pub(super) fn visible_topic(state: &AppState, caller: &Caller, name: &str) -> Result<TopicName, Problem> {
    TopicName::new(name)
        .ok()
        .filter(|topic| {
            state.bus.has_topic(topic) && state.routes.is_visible(topic, &caller.principal.tenants)
        })
        .ok_or_else(|| topic_unknown(name))
}
