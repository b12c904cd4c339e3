//! `GET /v1/subscriptions/{project}/{id}/messages`: look without consuming.

use axum::extract::State;
use axum::response::Response;
use levada_bus::admin::MAX_BROWSE;
use levada_bus::filter::Filter;
use levada_core::{Problem, TenantId};
use serde::{Deserialize, Serialize};

use super::subscriptions::{admin, subscription_name};
use super::visible::{GATHERED_BYTES, MessageView, shown_bytes, time};
use crate::answers::{Whole, read};
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::ApiProblem;
use crate::state::AppState;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrowseQuery {
    /// Go on after this message, towards older ones.
    before: Option<u64>,
    limit: Option<usize>,
    #[serde(default)]
    filter: String,
}

#[derive(Serialize)]
struct BrowsedView<'a> {
    messages: Vec<BrowsedMessage<'a>>,
    /// Pass it as `before` to go on; there may be no more that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

#[derive(Serialize)]
struct BrowsedMessage<'a> {
    message_id: String,
    tenant_id: &'a TenantId,
    published_at: String,
    #[serde(flatten)]
    message: MessageView<'a>,
}

pub async fn browse(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<BrowseQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let filter = Filter::parse(&query.filter)
        .map_err(|error| Problem::new(400, "query-invalid", format!("`filter`: {error}")))?;
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_BROWSE);
    let mut whole = Whole::begin(&state, &caller, GATHERED_BYTES).await?;
    let browse = move || admin.browse(&caller.principal, &name, query.before, limit, &filter);
    let browsed = read(&state, browse).await??;
    whole.gathered(browsed.messages.iter().map(|peeked| shown_bytes(&peeked.message)).sum())?;
    let messages = browsed.messages.iter().map(|peeked| BrowsedMessage {
        message_id: peeked.message_id.to_string(),
        tenant_id: &peeked.message.tenant,
        published_at: time(peeked.published_at_ms),
        message: MessageView::new(&peeked.message),
    });
    Ok(whole.json(&BrowsedView { messages: messages.collect(), before: browsed.before })?)
}
