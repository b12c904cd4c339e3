//! `POST /v1/subscriptions/{project}/{id}/messages/{message_id}/resend`: one dead letter, edited,
//! back to where it came from.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use levada_bus::admin::Edit;
use levada_core::{Problem, ResourceName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::subscriptions::{admin, subscription_name};
use super::visible::json;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::ApiProblem;
use crate::state::AppState;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// A new body, in base64.
    #[serde(default)]
    data: Option<String>,
    /// A new body as it stands here.
    #[serde(default)]
    json: Option<Box<RawValue>>,
    /// To set, and with `null` to take away.
    #[serde(default)]
    attributes: BTreeMap<String, Option<String>>,
    #[serde(default)]
    even_if_taken: bool,
}

impl ResendRequest {
    fn edit(self) -> Result<Edit, Problem> {
        let invalid = |detail: String| Problem::new(422, "body-invalid", detail);
        let body = match (self.data, self.json) {
            (Some(_), Some(_)) => {
                return Err(invalid("`data` and `json` are both a body: give one of them".to_owned()));
            }
            (Some(data), None) => {
                let body =
                    STANDARD.decode(&data).map_err(|e| invalid(format!("`data` is no base64: {e}")))?;
                Some(Bytes::from(body))
            }
            (None, Some(json)) => Some(Bytes::copy_from_slice(json.get().as_bytes())),
            (None, None) => None,
        };
        Ok(Edit { body, attributes: self.attributes, even_if_taken: self.even_if_taken })
    }
}

#[derive(Serialize)]
struct ResentView {
    topic: ResourceName,
    message_id: String,
    /// Whether the dead letter has left the subscription.
    acknowledged: bool,
}

pub async fn resend(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, id, message_id)): Path<(String, String, u64)>,
    Json(request): Json<ResendRequest>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let edit = request.edit()?;
    let name = subscription_name(&project, &id)?;
    let admin = admin(&state, &name)?;
    // To its end, also when the client leaves: between sending and acknowledging is no place to stop.
    let resent = tokio::spawn(async move { admin.resend(&caller.principal, &name, message_id, &edit).await });
    let resent = resent.await.map_err(|_| Problem::new(500, "internal", "the message was not sent"))??;
    Ok(json(&ResentView {
        topic: resent.topic,
        message_id: resent.message_id.to_string(),
        acknowledged: resent.acknowledged,
    }))
}
