//! `POST /v1/subscriptions/{project}/{id}/redrive`: dead letters back to where they came from.

use axum::extract::State;
use axum::response::Response;
use levada_bus::admin::{MAX_REDRIVE, Redrive};
use levada_bus::filter::Filter;
use levada_core::Problem;
use serde::{Deserialize, Serialize};

use super::subscriptions::{admin, subscription_name};
use super::visible::json;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::ApiProblem;
use crate::state::AppState;

const DEFAULT_LIMIT: u64 = 1_000;
const MAX_RATE_PER_S: f64 = 100_000.0;
/// Slower than this a call of 20 s would send nothing.
const MIN_RATE_PER_S: f64 = 0.1;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// Only messages that it matches; a filter of the Pub/Sub grammar.
    #[serde(default)]
    filter: String,
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default)]
    rate_per_s: Option<f64>,
}

#[derive(Serialize)]
struct RedrivenView {
    published: u64,
    skipped: u64,
    refused: Vec<RefusedView>,
    /// The limit or the time of one call was reached: call again.
    more: bool,
}

#[derive(Serialize)]
struct RefusedView {
    code: String,
    count: u64,
    /// What is wrong with the first of them.
    detail: String,
}

pub async fn redrive(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Json(request): Json<RedriveRequest>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let invalid = |detail: String| Problem::new(422, "body-invalid", detail);
    let filter = Filter::parse(&request.filter).map_err(|error| invalid(format!("`filter`: {error}")))?;
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_REDRIVE).contains(&limit) {
        return Err(invalid(format!("`limit` is 1 to {MAX_REDRIVE}; call again for more")).into());
    }
    if request.rate_per_s.is_some_and(|rate| !(MIN_RATE_PER_S..=MAX_RATE_PER_S).contains(&rate)) {
        let detail = format!("`rate_per_s` is {MIN_RATE_PER_S} to {MAX_RATE_PER_S} messages a second");
        return Err(invalid(detail).into());
    }
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let wanted = Redrive { filter, limit, rate_per_s: request.rate_per_s };
    // To its end, also when the client leaves: what it holds is given back then.
    let done = tokio::spawn(async move { admin.redrive(&caller.principal, &name, &wanted).await });
    let done = done.await.map_err(|_| Problem::new(500, "internal", "the redrive failed"))??;
    let refused = done.refused.into_iter().map(|(code, refused)| RefusedView {
        code,
        count: refused.count,
        detail: refused.first.detail,
    });
    Ok(json(&RedrivenView {
        published: done.published,
        skipped: done.skipped,
        refused: refused.collect(),
        more: done.more,
    }))
}
