//! The answer to an ingestion request, written straight into bytes.
//!
//! Counts, then one result an event in the order sent. A batch with at least one event
//! kept answers 202, since what was answered as kept must not be sent again; a batch of
//! which nothing was kept answers with a problem that lists every event's own.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use levada_bus::Published;
use levada_core::{Problem, TopicName};
use serde_json::json;

use crate::problem::{ApiProblem, quote};

/// What became of one event.
pub type Outcome = Result<(TopicName, Published), Problem>;

/// How many events ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

pub fn count(outcomes: &[Outcome]) -> Counts {
    let mut counts = Counts::default();
    for outcome in outcomes {
        match outcome {
            Ok((_, published)) if published.duplicate => counts.duplicates += 1,
            Ok(_) => counts.accepted += 1,
            Err(_) => counts.rejected += 1,
        }
    }
    counts
}

/// The response of a request whose events were decided one by one. `single`: the request
/// was one event and not a list, so its problem is the request's.
pub fn respond(outcomes: Vec<Outcome>, single: bool) -> Response {
    let counts = count(&outcomes);
    if counts.rejected as usize == outcomes.len() {
        return refused(outcomes, single);
    }
    let mut out = Vec::with_capacity(80 + outcomes.len() * 128);
    out.extend_from_slice(
        format!(
            "{{\"accepted\":{},\"duplicates\":{},\"rejected\":{},\"results\":[",
            counts.accepted, counts.duplicates, counts.rejected
        )
        .as_bytes(),
    );
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match outcome {
            Ok((topic, published)) => write_result(&mut out, topic, published),
            Err(problem) => out.extend_from_slice(item(index, problem).to_string().as_bytes()),
        }
    }
    out.extend_from_slice(b"]}");
    let json = HeaderValue::from_static("application/json");
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, json)], Bytes::from(out)).into_response()
}

fn write_result(out: &mut Vec<u8>, topic: &TopicName, published: &Published) {
    out.extend_from_slice(b"{\"status\":202,\"id\":");
    quote(out, &published.id);
    out.extend_from_slice(b",\"topic\":");
    quote(out, topic.as_str());
    out.extend_from_slice(b",\"offset\":");
    out.extend_from_slice(published.offset.to_string().as_bytes());
    let duplicate: &[u8] =
        if published.duplicate { b",\"duplicate\":true}" } else { b",\"duplicate\":false}" };
    out.extend_from_slice(duplicate);
}

fn item(index: usize, problem: &Problem) -> serde_json::Value {
    let mut item = json!({
        "index": index,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
    });
    if let Some(hint) = &problem.hint {
        item["hint"] = json!(hint);
    }
    item
}

/// The status that all share, else 422: the request can only be mended event by event.
fn refused(outcomes: Vec<Outcome>, single: bool) -> Response {
    let problems: Vec<Problem> = outcomes.into_iter().filter_map(Result::err).collect();
    let Some(first) = problems.first().cloned() else {
        return ApiProblem::from(Problem::new(422, "batch-empty", "the request holds no event"))
            .into_response();
    };
    if single {
        return ApiProblem::from(first).into_response();
    }
    let same_status = problems.iter().all(|p| p.status == first.status);
    let same_code = problems.iter().all(|p| p.code == first.code);
    let status = if same_status { first.status } else { 422 };
    let code = if same_code { first.code.as_str() } else { "batch-refused" };
    let mut problem = Problem::new(
        status,
        code,
        format!("none of the {} events was kept; `items` says why", problems.len()),
    );
    problem.hint = if same_code { first.hint } else { None };
    problem.retry_after_s = problems.iter().filter_map(|p| p.retry_after_s).max();
    let items: Vec<_> = problems.iter().enumerate().map(|(i, p)| item(i, p)).collect();
    ApiProblem::from(problem).with("items", json!(items)).into_response()
}
