//! How messages and times look in answers.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, header};
use levada_core::Message;
use serde::Serialize;
use serde_json::value::RawValue;

/// Unix milliseconds as RFC 3339 in UTC.
pub fn time(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The attributes and body of a message, as members of the object around them.
#[derive(Serialize)]
pub struct MessageView<'a> {
    attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    /// The body, where it is JSON, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    /// The body in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> MessageView<'a> {
    pub fn new(message: &'a Message) -> Self {
        let payload: Option<&RawValue> = serde_json::from_slice(&message.body).ok();
        Self {
            attributes: Attributes(message),
            ordering_key: message.ordering_key.as_deref(),
            payload_base64: payload.is_none().then(|| STANDARD.encode(&message.body)),
            payload,
        }
    }
}

/// What messages take that are gathered for one answer, before it is known how many they are.
pub(super) const GATHERED_BYTES: usize = 16 << 20;

/// Bytes of a message in memory and of its view, which holds the body in base64 where it must.
pub(super) fn shown_bytes(message: &Message) -> usize {
    let attributes: usize =
        message.attributes.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    256 + attributes + message.body.len() * 7 / 3
}

/// Bytes of a message as JSON at most, and of what is made on the way.
pub(super) fn written_bytes(message: &Message) -> usize {
    // A control character is written as six.
    let attributes: usize = message.attributes.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let key = message.ordering_key.as_ref().map_or(0, |key| key.len());
    512 + (attributes + key) * 6 + message.body.len() * 8 / 3
}

struct Attributes<'a>(&'a Message);

impl Serialize for Attributes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.attributes.iter())
    }
}

/// A JSON answer. Unlike `axum::Json` it takes what borrows from the handler.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], Bytes::from(body)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
