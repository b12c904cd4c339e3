//! `GET /v1/topics` and `GET /v1/topics/{topic}/messages`.
//!
//! A shared topic has one lane a tenant: a caller sees its own lanes, in counts and in
//! messages. Offsets are of the topic, so a caller that does not see every lane sees gaps.

use axum::extract::State;
use axum::response::Response;
use levada_bus::{Delivered, TopicInfo};
use levada_core::{Problem, Quota, TenantId, TopicName};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

use super::visible::{MessageView, json, time};
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::{ApiProblem, topic_unknown};
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;
/// An answer stops growing here, even below its limit of messages.
const ANSWER_BYTES: usize = 8 << 20;
/// One call looks at this many records at most, whosever they are.
const SCAN_RECORDS: usize = 100_000;
/// A call that waits asks so often whether its credential is still good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    let topics = state.bus.topics().into_iter();
    let topics = topics.filter(|t| state.routes.is_visible(&t.name, &caller.principal.tenants));
    Ok(json(&Topics { topics: topics.map(|t| view(t, &caller)).collect() }))
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuery {
    /// An offset, `start` or `end`.
    from: Option<String>,
    limit: Option<usize>,
    wait_ms: Option<u64>,
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Positioned<'a>>,
    /// Where to read on from.
    next: u64,
}

#[derive(Serialize)]
struct Positioned<'a> {
    offset: u64,
    tenant_id: &'a TenantId,
    published_at: String,
    #[serde(flatten)]
    message: MessageView<'a>,
}

pub async fn messages(
    State(state): State<AppState>,
    caller: Caller,
    Path(topic): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let topic = visible_topic(&state, &caller, &topic)?;
    let bounds = state.bus.bounds(&topic)?;
    let from = match query.from.as_deref() {
        None | Some("start") => bounds.first,
        Some("end") => bounds.next,
        Some(text) => text
            .parse()
            .map_err(|_| Problem::new(400, "query-invalid", "`from` must be an offset, `start` or `end`"))?,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(state.config.max_wait);
    // Only who has to wait takes a place among those that wait.
    let _waits = match wait.is_zero() {
        true => None,
        false => Some(caller.wait(&state, Quota::WaitingReads)?),
    };
    let scan = wait_for_own(&state, &caller, &topic, from, limit, wait).await?;
    let messages = scan.found.iter().map(|d| Positioned {
        offset: d.offset,
        tenant_id: &d.message.tenant,
        published_at: time(d.published_at_ms),
        message: MessageView::new(&d.message),
    });
    Ok(json(&Messages { messages: messages.collect(), next: scan.next }))
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

struct Scan {
    found: Vec<Delivered>,
    next: u64,
}

/// Reads on until a message of the caller's lanes came, the time is over or the server stops.
async fn wait_for_own(
    state: &AppState,
    caller: &Caller,
    topic: &TopicName,
    from: u64,
    limit: usize,
    wait: Duration,
) -> Result<Scan, ApiProblem> {
    let mut end = state.bus.end(topic)?;
    let deadline = tokio::time::Instant::now() + wait;
    let mut at = from;
    loop {
        let scan = scan(state.clone(), caller.clone(), topic.clone(), at, limit).await?;
        at = scan.next;
        valid(state, caller)?;
        if !scan.found.is_empty() {
            return Ok(scan);
        }
        let came = moved(state, caller, &mut end, at, deadline).await?;
        if !came || tokio::time::Instant::now() >= deadline {
            return Ok(scan);
        }
    }
}

/// Waits until the topic goes beyond an offset; false when the time is over or the server stops.
async fn moved(
    state: &AppState,
    caller: &Caller,
    end: &mut watch::Receiver<u64>,
    at: u64,
    deadline: tokio::time::Instant,
) -> Result<bool, Problem> {
    loop {
        tokio::select! {
            came = end.wait_for(|end| *end > at) => return Ok(came.is_ok()),
            () = tokio::time::sleep_until(deadline) => return Ok(false),
            () = state.drained() => return Ok(false),
            () = tokio::time::sleep(LOOK_AGAIN) => valid(state, caller)?,
        }
    }
}

/// A credential that was good when the call came may have been revoked while it waited.
fn valid(state: &AppState, caller: &Caller) -> Result<(), Problem> {
    if state.is_valid(&caller.principal) {
        return Ok(());
    }
    Err(Problem::new(401, "unauthenticated", "the credential was revoked or expired while the call waited")
        .hint("send a valid API key"))
}

/// Reading touches the disk, so it runs beside the request threads.
async fn scan(
    state: AppState,
    caller: Caller,
    topic: TopicName,
    from: u64,
    limit: usize,
) -> Result<Scan, ApiProblem> {
    let scanned = tokio::task::spawn_blocking(move || {
        let mut found: Vec<Delivered> = Vec::new();
        let (mut next, mut looked_at, mut bytes) = (from, 0, 0);
        while found.len() < limit && looked_at < SCAN_RECORDS && bytes < ANSWER_BYTES {
            let want = if caller.is_platform() { limit - found.len() } else { READ_RECORDS };
            let records = state.bus.read(&topic, next, want, READ_BYTES)?;
            let Some(last) = records.last().map(|r| r.offset) else { break };
            looked_at += records.len();
            for record in records {
                if found.len() == limit || bytes >= ANSWER_BYTES {
                    return Ok(Scan { found, next });
                }
                next = record.offset + 1;
                if caller.sees(&record.message.tenant) {
                    bytes += record.message.body.len();
                    found.push(record);
                }
            }
            next = next.max(last + 1);
        }
        Ok(Scan { found, next })
    });
    match scanned.await {
        Ok(result) => result.map_err(|e: levada_bus::BusError| e.into()),
        Err(_) => Err(Problem::new(500, "internal", "the read failed").into()),
    }
}
