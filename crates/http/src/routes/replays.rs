//! `POST /v1/subscriptions/{project}/{id}/replays`: what a subscription got, once more, beside it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use http::StatusCode;
use levada_bus::admin::NewReplay;
use levada_bus::port::SeekTo;
use levada_core::{NameError, Problem, ProjectId, Quota, QuotaOwner, ResourceId, ResourceName};
use serde::Deserialize;

use super::subscription_view::view;
use super::subscriptions::{admin, subscription_name};
use super::visible::json;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::ApiProblem;
use crate::state::AppState;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The id of the new subscription.
    name: ResourceId,
    from: From,
    #[serde(default)]
    rate_per_s: Option<u32>,
}

/// `earliest`, a time, or a snapshot.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum From {
    Text(String),
    Snapshot(SnapshotName),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotName {
    /// Its id in the subscription's project, or `project/id`.
    snapshot: String,
}

impl From {
    fn seek(self, project: &ProjectId) -> Result<SeekTo, Problem> {
        let invalid = |detail: String| Problem::new(422, "body-invalid", detail);
        match self {
            Self::Text(text) if text == "earliest" => Ok(SeekTo::TimeMs(0)),
            Self::Text(text) => match DateTime::parse_from_rfc3339(&text) {
                Ok(time) => Ok(SeekTo::TimeMs(time.timestamp_millis())),
                Err(error) => Err(invalid(format!("`from` is no time: {error}"))
                    .hint("write \"earliest\", a time such as \"2026-11-01T00:00:00Z\", or {\"snapshot\": \"NAME\"}")),
            },
            Self::Snapshot(SnapshotName { snapshot }) => {
                let full = match snapshot.contains('/') {
                    true => snapshot,
                    false => format!("{project}/{snapshot}"),
                };
                let name: Result<ResourceName, NameError> = full.parse();
                name.map(SeekTo::Snapshot).map_err(|error| invalid(format!("`snapshot`: {error}")))
            }
        }
    }
}

pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Json(request): Json<ReplayRequest>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let source = subscription_name(&project, &id)?;
    let from = request.from.seek(&source.project)?;
    let replay = NewReplay { id: request.name, from, rate_per_s: request.rate_per_s };
    let admin = admin(&state, &source)?;
    if let Some(tenant) = caller.principal.tenants.single().cloned() {
        let (counting, quotas) = (admin.clone(), state.quotas.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let count = counting.count_of(&tenant);
            quotas.admit(&QuotaOwner::Tenant(tenant), Quota::Subscriptions, count)
        });
        counted.await.map_err(|_| Problem::new(500, "internal", "the replay was not made"))??;
    }
    let now_ms = state.clock.now_ms();
    // To its end, also when the client leaves in between.
    let made = tokio::spawn(async move { admin.replay(&caller.principal, &source, replay).await });
    let report = made.await.map_err(|_| Problem::new(500, "internal", "the replay was not made"))??;
    Ok((StatusCode::CREATED, json(&view(&report, now_ms))).into_response())
}
