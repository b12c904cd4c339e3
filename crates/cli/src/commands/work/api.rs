//! The few calls of the Pub/Sub REST API that a worker makes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Connection;

/// Ack ids of one request, at most; Google's bound on the request is 512 KiB.
const IDS_A_REQUEST: usize = 1_000;

/// What failed for single ack ids of an exactly-once subscription begins with this.
const LASTING: &str = "PERMANENT_FAILURE";

/// Why a call failed.
#[derive(Debug, Clone)]
pub enum ApiError {
    /// No answer came.
    Away(String),
    /// The server said no. `failures` names the ack ids that failed, where only some did.
    Refused { status: u16, message: String, failures: BTreeMap<String, String> },
}

impl ApiError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 499 | 500 | 502..=599),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(message) => f.write_str(message),
            Self::Refused { status, message, .. } => write!(f, "{message} [{status}]"),
        }
    }
}

/// A message as a pull answers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PubsubMessage {
    /// Base64.
    pub data: String,
    pub attributes: BTreeMap<String, String>,
    pub message_id: String,
    /// RFC 3339.
    pub publish_time: String,
    pub ordering_key: String,
}

/// A message on lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pulled {
    pub ack_id: String,
    pub message: PubsubMessage,
    /// 1 at the first delivery; 0 where the subscription has no dead-letter policy.
    pub delivery_attempt: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PullAnswer {
    received_messages: Vec<Pulled>,
}

/// What a worker heeds of a subscription's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// 10 s to 600 s.
    pub ack_deadline: Duration,
    pub is_ordered: bool,
    pub dead_letter: Option<DeadLetter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// `projects/p/topics/t`.
    pub topic: String,
    pub max_delivery_attempts: u32,
}

/// What became of ack ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Worth another try.
    pub transient: Vec<String>,
    /// The lease has ended; the message comes again.
    pub lasting: Vec<String>,
    pub message: String,
}

/// A subscription on a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    server: Connection,
    /// `projects/p/subscriptions/s`.
    path: Arc<str>,
}

impl Api {
    pub fn new(server: Connection, path: &str) -> Self {
        Self { server, path: path.into() }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>, ApiError> {
        let mut request = self.server.request(method, &format!("/v1/{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let away = |message: String| ApiError::Away(message);
        let response = self.server.send(request).await.map_err(|failure| away(failure.message))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| away(format!("the answer broke off: {e}")))?;
        if status.is_success() { Ok(bytes.into()) } else { Err(refusal(status.as_u16(), &bytes)) }
    }

    async fn post(&self, path: &str, action: &str, body: &Value) -> Result<Vec<u8>, ApiError> {
        self.call(Method::POST, &format!("{path}:{action}"), Some(body)).await
    }

    /// Reads the subscription.
    pub async fn settings(&self) -> Result<Settings, ApiError> {
        let bytes = self.call(Method::GET, &self.path, None).await?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| not_pubsub(&e))?;
        let seconds = value["ackDeadlineSeconds"].as_u64().unwrap_or(10).clamp(10, 600);
        let policy = &value["deadLetterPolicy"];
        let dead_letter = policy["deadLetterTopic"].as_str().filter(|topic| !topic.is_empty()).map(|topic| {
            let attempts = policy["maxDeliveryAttempts"].as_u64().and_then(|n| n.try_into().ok());
            DeadLetter { topic: topic.to_owned(), max_delivery_attempts: attempts.unwrap_or(5) }
        });
        Ok(Settings {
            ack_deadline: Duration::from_secs(seconds),
            is_ordered: value["enableMessageOrdering"].as_bool().unwrap_or(false),
            dead_letter,
        })
    }

    /// Waits for messages, as long as the server lets it. Empty when none came.
    pub async fn pull(&self, max_messages: usize) -> Result<Vec<Pulled>, ApiError> {
        let bytes = self.post(&self.path, "pull", &json!({ "maxMessages": max_messages })).await?;
        let answer: PullAnswer = serde_json::from_slice(&bytes).map_err(|e| not_pubsub(&e))?;
        Ok(answer.received_messages)
    }

    /// Acknowledges. What is in no list of the answer is done.
    pub async fn acknowledge(&self, ids: &[String]) -> Failures {
        self.in_chunks(ids, "acknowledge", |ids| json!({ "ackIds": ids })).await
    }

    /// Moves deadlines to that many seconds from now; 0 gives the messages back.
    pub async fn modify_ack_deadline(&self, ids: &[String], seconds: u64) -> Failures {
        self.in_chunks(
            ids,
            "modifyAckDeadline",
            |ids| json!({ "ackIds": ids, "ackDeadlineSeconds": seconds }),
        )
        .await
    }

    async fn in_chunks(&self, ids: &[String], action: &str, body: impl Fn(&[String]) -> Value) -> Failures {
        let mut all = Failures::default();
        for chunk in ids.chunks(IDS_A_REQUEST) {
            if let Err(error) = self.post(&self.path, action, &body(chunk)).await {
                all.add(chunk, &error);
            }
        }
        all
    }

    /// Publishes one message to `topic` (a full name).
    pub async fn publish(&self, topic: &str, message: &Value) -> Result<(), ApiError> {
        self.post(topic, "publish", &json!({ "messages": [message] })).await.map(|_| ())
    }
}

impl Failures {
    /// With failures named by ack id, the others of the request are done.
    fn add(&mut self, ids: &[String], error: &ApiError) {
        self.message = error.to_string();
        match error {
            ApiError::Refused { failures, .. } if !failures.is_empty() => {
                for (id, why) in failures.iter().filter(|(id, _)| ids.contains(id)) {
                    let list = if why.starts_with(LASTING) { &mut self.lasting } else { &mut self.transient };
                    list.push(id.clone());
                }
            }
            error if error.is_transient() => self.transient.extend_from_slice(ids),
            _ => self.lasting.extend_from_slice(ids),
        }
    }
}

fn not_pubsub(error: &serde_json::Error) -> ApiError {
    ApiError::Refused {
        status: 200,
        message: format!("the answer is not of the Pub/Sub API: {error}"),
        failures: BTreeMap::new(),
    }
}

/// Reads the error of a Google API, or a problem of Levada's own.
fn refusal(status: u16, body: &[u8]) -> ApiError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = [&value["error"]["message"], &value["detail"], &value["title"]];
    let message = texts.iter().find_map(|text| text.as_str()).map_or_else(
        || format!("the server answered {status} to a call of the Pub/Sub API"),
        |text| text.trim_end_matches('.').to_owned(),
    );
    let details = value["error"]["details"].as_array().into_iter().flatten();
    let failures = details
        .filter_map(|detail| detail["metadata"].as_object())
        .flatten()
        .filter_map(|(id, why)| Some((id.clone(), why.as_str()?.to_owned())))
        .filter(|(_, why)| why.starts_with(LASTING) || why.starts_with("TRANSIENT_FAILURE"))
        .collect();
    ApiError::Refused { status, message, failures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_single_ack_ids_are_told_apart() {
        let body = json!({ "error": { "code": 400, "message": "Some ids failed.", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "metadata": { "a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "TRANSIENT_FAILURE_SERVICE_UNAVAILABLE" }
        }] } });
        let ids = ["a", "b", "c"].map(str::to_owned);
        let mut failures = Failures::default();
        failures.add(&ids, &refusal(400, body.to_string().as_bytes()));
        assert_eq!(failures.lasting, ["a"]);
        assert_eq!(failures.transient, ["b"]);
        assert_eq!(failures.message, "Some ids failed [400]");
    }

    #[test]
    fn what_may_pass_by_itself_is_tried_again() {
        for (status, transient) in
            [(400, false), (401, false), (404, false), (429, true), (500, true), (501, false), (503, true)]
        {
            assert_eq!(refusal(status, b"").is_transient(), transient, "{status}");
        }
    }
}
