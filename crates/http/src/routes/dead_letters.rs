//! `GET /v1/dead-letters` and `POST /v1/dead-letters/resend`.

use axum::extract::State;
use axum::response::Response;
use levada_bus::{DeadEntry, DeadFilter, MAX_LISTED_BYTES};
use levada_core::{Problem, TenantId, TopicName, attr};
use serde::{Deserialize, Serialize};

use super::visible::{GATHERED_BYTES, MessageView, json, shown_bytes, time};
use crate::answers::{Whole, read};
use crate::auth::Caller;
use crate::extract::{Json, Query};
use crate::problem::{ApiProblem, topic_unknown};
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;
const MAX_OFFSETS: usize = 10_000;
const MAX_REASON_CHARS: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// A topic or its dead-letter topic.
    topic: Option<String>,
    pipeline: Option<String>,
    code: Option<String>,
    /// Go on after this offset, towards older ones; needs `topic`.
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct DeadLetters<'a> {
    dead_letters: Vec<DeadLetterView<'a>>,
    /// Pass it as `after` to go on, where `topic` was given and more may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
}

#[derive(Serialize)]
struct DeadLetterView<'a> {
    /// The dead-letter topic.
    topic: &'a TopicName,
    offset: u64,
    tenant_id: &'a TenantId,
    failed_at: String,
    code: &'a str,
    reason: &'a str,
    stage: &'a str,
    attempts: u32,
    pipeline: &'a str,
    /// Where it came from: a topic (empty for a file) and the place in it.
    source_topic: &'a str,
    position: &'a str,
    resent: bool,
    #[serde(flatten)]
    message: MessageView<'a>,
}

impl<'a> DeadLetterView<'a> {
    fn new(entry: &'a DeadEntry) -> Self {
        Self {
            topic: &entry.topic,
            offset: entry.offset,
            tenant_id: &entry.message.tenant,
            failed_at: time(entry.published_at_ms),
            code: entry.attribute(attr::DEAD_CODE),
            reason: entry.attribute(attr::DEAD_REASON),
            stage: entry.attribute(attr::DEAD_STAGE),
            attempts: entry.attribute(attr::DEAD_ATTEMPTS).parse().unwrap_or(0),
            pipeline: entry.attribute(attr::DEAD_PIPELINE),
            source_topic: entry.attribute(attr::DEAD_TOPIC),
            position: entry.attribute(attr::DEAD_POSITION),
            resent: entry.resent,
            message: MessageView::new(&entry.message),
        }
    }
}

pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    if query.after.is_some() && query.topic.is_none() {
        return Err(Problem::new(
            400,
            "query-invalid",
            "`after` is an offset of one topic, so it needs `topic`",
        )
        .into());
    }
    let topic = query.topic.as_deref().map(TopicName::new).transpose();
    let topic = topic.map_err(|e| Problem::new(400, "query-invalid", e.to_string()))?;
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let paged = topic.is_some();
    let filter = DeadFilter {
        topic,
        pipeline: query.pipeline,
        code: query.code,
        tenant: None,
        before: query.after,
        limit,
    };
    let mut whole = Whole::begin(&state, &caller, GATHERED_BYTES).await?;
    let bus = state.bus.clone();
    let entries = read(&state, move || bus.dead_letters(&caller.principal.tenants, &filter)).await??;
    let listed: usize = entries.iter().map(|entry| shown_bytes(&entry.message)).sum();
    whole.gathered(listed)?;
    let is_full = entries.len() == limit || listed >= MAX_LISTED_BYTES;
    let after = entries.last().filter(|_| paged && is_full).map(|e| e.offset);
    Ok(whole.json(&DeadLetters { dead_letters: entries.iter().map(DeadLetterView::new).collect(), after })?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// A topic or its dead-letter topic.
    topic: String,
    /// Offsets in the dead-letter topic.
    #[serde(default)]
    offsets: Option<Vec<u64>>,
    /// Everything that was not sent again yet.
    #[serde(default)]
    all: bool,
    /// For the log.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Resent {
    sent: usize,
    already_sent: usize,
    refused: Vec<RefusedView>,
    /// More remain: call again.
    more: bool,
}

#[derive(Serialize)]
struct RefusedView {
    offset: u64,
    #[serde(flatten)]
    problem: Problem,
}

pub async fn resend(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<ResendRequest>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let offsets = match (request.offsets, request.all) {
        (Some(offsets), false) if !offsets.is_empty() && offsets.len() <= MAX_OFFSETS => Some(offsets),
        (None, true) => None,
        _ => {
            let detail = format!("name either 1 to {MAX_OFFSETS} `offsets`, or `all`");
            return Err(Problem::new(422, "body-invalid", detail).into());
        }
    };
    let reason = request.reason.unwrap_or_default();
    if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(
            Problem::new(422, "body-invalid", "`reason` is one line of at most 500 characters").into()
        );
    }
    let topic = dead_letter_topic(&state, &caller, &request.topic).await?;
    let outcome = state.bus.resend(&caller.principal, &topic, offsets).await?;
    tracing::info!(
        actor = %caller.principal.id, topic = %topic, sent = outcome.sent,
        refused = outcome.refused.len(), reason, "dead letters sent again"
    );
    let refused =
        outcome.refused.into_iter().map(|(offset, problem)| RefusedView { offset, problem }).collect();
    Ok(json(&Resent { sent: outcome.sent, already_sent: outcome.already, refused, more: outcome.more }))
}

/// The dead-letter topic meant by its own name or its topic's. To a caller bound to tenants
/// one without a dead letter of theirs answers as one that does not exist.
async fn dead_letter_topic(state: &AppState, caller: &Caller, name: &str) -> Result<TopicName, ApiProblem> {
    let named = TopicName::new(name).ok();
    let topic = named.and_then(|t| if t.is_dead_letter() { Some(t) } else { t.dead_letter().ok() });
    let topic = topic.filter(|t| state.bus.has_topic(t)).ok_or_else(|| topic_unknown(name))?;
    if !caller.is_platform() {
        let (bus, principal) = (state.bus.clone(), caller.principal.clone());
        let filter = DeadFilter { topic: Some(topic.clone()), limit: 1, ..DeadFilter::default() };
        if read(state, move || bus.dead_letters(&principal.tenants, &filter)).await??.is_empty() {
            return Err(topic_unknown(name).into());
        }
    }
    Ok(topic)
}
