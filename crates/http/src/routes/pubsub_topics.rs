//! `/v1/pubsub/topics`: settings of the topics of the Pub/Sub bus that Google's API has no
//! field for.
//!
//! Who may see and change which is decided by [`TopicAdmin`]; here it is asked and written down.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use levada_bus::admin::{TopicAdmin, TopicChange, TopicReport};
use levada_bus::port::{Deduplication, Durability, KeyScope, PageRequest};
use levada_core::{NameError, Problem, ProjectId, ResourceId, ResourceName, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::subscriptions::{ListQuery, blocking, some};
use super::visible::json;
use crate::answers::Whole;
use crate::auth::Caller;
use crate::extract::{Json, Path, Query};
use crate::problem::{ApiProblem, topic_unknown};
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;

#[derive(Serialize)]
struct TopicView<'a> {
    name: &'a ResourceName,
    project: &'a ProjectId,
    id: &'a ResourceId,
    /// `null`: the platform's.
    tenant_id: Option<&'a TenantId>,
    durability: Durability,
    /// `null`: every message counts.
    deduplication: Option<DeduplicationView<'a>>,
    ordering: KeyScope,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct DeduplicationView<'a> {
    attribute: &'a str,
    window_s: f64,
}

fn view(report: &TopicReport) -> TopicView<'_> {
    let spec = &report.spec;
    TopicView {
        name: &spec.name,
        project: &spec.name.project,
        id: &spec.name.id,
        tenant_id: report.tenant.as_ref(),
        durability: spec.durability,
        deduplication: spec
            .deduplication
            .as_ref()
            .map(|of| DeduplicationView { attribute: &of.attribute, window_s: of.window.as_secs_f64() }),
        ordering: report.ordering,
        retention_s: spec.retention.as_ref().map(Duration::as_secs_f64),
        schema: spec.schema.as_ref().map(|of| of.schema.as_str()),
        labels: &spec.labels,
    }
}

/// `None`: this gateway has no Pub/Sub bus.
fn admin(state: &AppState) -> Option<TopicAdmin> {
    state.operations.subscriptions().map(|admin| admin.topics())
}

/// A name that cannot be one answers as one that does not exist.
fn named(state: &AppState, project: &str, id: &str) -> Result<(ResourceName, TopicAdmin), Problem> {
    let text = format!("{project}/{id}");
    let name = text.parse().map_err(|_: NameError| topic_unknown(&text))?;
    Ok((name, admin(state).ok_or_else(|| topic_unknown(&text))?))
}

pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(project): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let after = query.after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|e: NameError| Problem::new(400, "query-invalid", e.to_string()))?;
    let page = PageRequest { size: query.limit.unwrap_or(100).clamp(1, MAX_LIMIT), after };
    let (Ok(project), Some(admin)) = (project.parse::<ProjectId>(), admin(&state)) else {
        return Ok(json(&value!({ "topics": [] })));
    };
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let found = blocking(move || Ok(admin.list(&caller.principal, &project, &page))).await?;
    let views: Vec<TopicView<'_>> = found.items.iter().map(view).collect();
    let mut answer = value!({ "topics": views });
    if let Some(next) = found.next {
        answer["after"] = value!(next);
    }
    Ok(whole.json(&answer)?)
}

pub async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let (name, admin) = named(&state, &project, &id)?;
    let report = blocking(move || admin.show(&caller.principal, &name)).await?;
    Ok(json(&view(&report)))
}

/// A merge patch (RFC 7396): what is absent stays, `null` goes back to what a topic begins with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPatch {
    #[serde(default, deserialize_with = "some")]
    durability: Option<Option<Durability>>,
    #[serde(default, deserialize_with = "some")]
    deduplication: Option<Option<DeduplicationPatch>>,
    #[serde(default, deserialize_with = "some")]
    ordering: Option<Option<KeyScope>>,
}

/// Without one of the two it stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeduplicationPatch {
    attribute: Option<String>,
    window_s: Option<u64>,
}

impl TopicPatch {
    fn change(self, kept: &TopicReport) -> Result<TopicChange, Problem> {
        let deduplication = match self.deduplication {
            None => None,
            Some(None) => Some(None),
            Some(Some(given)) => {
                let kept = kept.spec.deduplication.as_ref();
                let attribute = given.attribute.or_else(|| kept.map(|of| of.attribute.clone()));
                let window = given.window_s.map(Duration::from_secs).or_else(|| kept.map(|of| of.window));
                let (Some(attribute), Some(window)) = (attribute, window) else {
                    let detail = "`deduplication` needs `attribute` and `window_s`, 1 to 604800";
                    return Err(Problem::new(422, "body-invalid", detail));
                };
                Some(Some(Deduplication { attribute, window }))
            }
        };
        let durability = self.durability.map(Option::unwrap_or_default);
        Ok(TopicChange { durability, deduplication, ordering: self.ordering })
    }
}

pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Json(patch): Json<TopicPatch>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let (name, admin) = named(&state, &project, &id)?;
    // To the end, also when the client leaves in between.
    let changed = tokio::spawn(async move {
        let change = patch.change(&admin.show(&caller.principal, &name)?)?;
        admin.change(&caller.principal, &name, &change).await
    });
    let report = changed.await.map_err(|_| Problem::new(500, "internal", "the change failed"))??;
    Ok(json(&view(&report)))
}
