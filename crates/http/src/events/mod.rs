//! `POST /v1/events`: the way in for events.
//!
//! Read the body within bounds, cut it into events, admit each for a tenant, take the
//! tenants' tokens, publish per topic, and answer once all of it is on disk.

mod admit;
mod answer;
mod batch;
mod cloudevents;
mod envelope;
mod publish;
mod scan;
#[cfg(test)]
mod tests;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use levada_core::{Decision, Principal, Problem};
use levada_telemetry::RequestTrace;
use serde::Deserialize;

use self::admit::Admission;
use self::answer::Outcome;
use self::batch::Batch;
use crate::answers::Room;
use crate::auth::Caller;
use crate::body::read_body;
use crate::extract::Query;
use crate::held::SMALL_BYTES;
use crate::layers::{context::RequestContext, guard::EVENTS_PATH, limit};
use crate::metrics;
use crate::problem::ApiProblem;
use crate::state::AppState;

/// What the result of one event comes to in an answer, as a rule.
const RESULT_BYTES: usize = 200;

/// Of a large batch so many are looked at before other requests have their turn on the thread.
const EVENTS_AT_ONCE: usize = 128;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    topic: Option<String>,
}

pub async fn post_events(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
    request: Request,
) -> Result<Response, ApiProblem> {
    let context = RequestContext::of(request.extensions());
    let tracing = state.tracing.as_ref();
    let trace = tracing.and_then(|tracing| tracing.request(&context.traceparent, context.client.as_deref()));
    let result = accept(&state, &caller, &query, request, &context, trace.as_ref()).await;
    if let Some(trace) = trace {
        let status = result.as_ref().map_or_else(ApiProblem::status, Response::status);
        trace.answered("POST", EVENTS_PATH, status.as_u16());
    }
    result
}

async fn accept(
    state: &AppState,
    caller: &Caller,
    query: &EventsQuery,
    request: Request,
    context: &RequestContext,
    trace: Option<&RequestTrace>,
) -> Result<Response, ApiProblem> {
    if !caller.principal.may_publish() {
        return Err(ApiProblem::from(
            Problem::new(403, "role-forbidden", "this credential may not publish")
                .hint("use a key with the role engineer, service or client"),
        ));
    }
    let format = batch::format(request.headers())?;
    let (parts, body) = request.into_parts();
    let body = read_body(state, &caller.owner(), &parts.headers, body).await?;
    let batch = batch::parse(format, &parts.headers, &body, state.config.max_batch_events)?;
    let single = batch.single;
    // Taken before anything is kept: what was kept is answered.
    let answer_bytes = batch.events.len().saturating_mul(RESULT_BYTES);
    let room = match answer_bytes as u64 > SMALL_BYTES {
        true => Some(Room::of(state, caller).gather(answer_bytes).await?),
        false => None,
    };
    let mut admission = Admission::new(state, &caller.principal, context, trace);
    admission.topic = query.topic.as_deref();
    admission.idempotency_key = idempotency_header(&parts.headers, single)?;
    let (outcomes, decision) = keep(admission, batch, &body).await;
    metrics::events(&state.tenant_labels, &outcomes);
    let mut response = answer::respond(outcomes.into_iter().map(|(_, o)| o).collect(), single);
    if let Some(decision) = decision {
        limit::write_headers(response.headers_mut(), &decision);
    }
    Ok(match room {
        Some(room) if response.status() == StatusCode::ACCEPTED => room.hold_for(response),
        _ => response,
    })
}

/// An outcome and the tenant that it counts for, where that is known.
pub type Counted = (Option<levada_core::TenantId>, Outcome);

async fn keep(
    mut admission: Admission<'_>,
    batch: Batch<'_>,
    body: &bytes::Bytes,
) -> (Vec<Counted>, Option<Decision>) {
    let mut plan = publish::Plan::with_capacity(batch.events.len());
    for (nth, event) in batch.events.into_iter().enumerate() {
        if nth % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        match event.and_then(|envelope| admission.admit(envelope, body)) {
            Ok((topic, publish)) => plan.add(topic, publish),
            Err(problem) => plan.refuse(problem),
        }
    }
    let decision = take_tokens(admission.state, admission.principal, &mut plan);
    (plan.publish(admission.state, admission.trace).await, decision)
}

/// Takes a token an event of each tenant. A tenant without enough keeps none of its events.
/// A request without any admissible event costs its only tenant one token, so that rubbish
/// is not free. Returns the tightest decision.
fn take_tokens(state: &AppState, principal: &Principal, plan: &mut publish::Plan) -> Option<Decision> {
    let costs = plan.costs();
    let mut tightest: Option<Decision> = None;
    if costs.is_empty() {
        return principal.tenants.single().and_then(|tenant| state.limits.take(tenant, 1));
    }
    for (tenant, cost) in costs {
        let Some(decision) = state.limits.take(&tenant, cost) else { continue };
        if !decision.allowed {
            metrics::rate_limited(&state.tenant_labels, &tenant);
            plan.refuse_tenant(&tenant, &limit::exceeded(&decision));
        }
        let tighter =
            tightest.is_none_or(|t| (decision.allowed, decision.remaining) < (t.allowed, t.remaining));
        if tighter {
            tightest = Some(decision);
        }
    }
    tightest
}

fn idempotency_header(headers: &http::HeaderMap, single: bool) -> Result<Option<&str>, ApiProblem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    if !single {
        return Err(ApiProblem::from(
            Problem::new(
                400,
                "idempotency-key-on-batch",
                "one Idempotency-Key cannot stand for several events",
            )
            .hint("give each event its own `idempotency_key` or `event_id`"),
        ));
    }
    let text = value.to_str().ok().filter(|t| (1..=envelope::MAX_FIELD_BYTES).contains(&t.len()));
    text.map(Some).ok_or_else(|| {
        ApiProblem::from(Problem::new(
            400,
            "header-invalid",
            "the Idempotency-Key header is empty, too long or not ASCII",
        ))
    })
}
