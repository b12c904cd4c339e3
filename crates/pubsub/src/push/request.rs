//! What is posted to an endpoint: a message in its JSON envelope, or its bytes alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use levada_bus::port::{PushConfig, Received, SubscriptionSpec};
use levada_bus::shared_names;
use serde_json::{Map, Value, json};

use crate::letters;

/// Who posts, for the logs and filters of receivers.
const USER_AGENT: &str = concat!("Levada-PubSub/", env!("CARGO_PKG_VERSION"));

/// Headers that a message's attributes must not set.
const RESERVED: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "authorization",
    "upgrade",
    "te",
    "user-agent",
];

/// The headers and the body for one message.
pub(super) fn build(spec: &SubscriptionSpec, push: &PushConfig, received: &Received) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let name = spec.tenant.as_ref().map(|tenant| shared_names::shown_to(&spec.name, tenant));
    let path = name.as_ref().unwrap_or(&spec.name).path("subscriptions");
    let time = DateTime::<Utc>::from_timestamp_millis(received.published_at_ms).unwrap_or_default();
    let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let message = &received.message;
    let id = received.message_id.to_string();
    let Some(bare) = push.no_wrapper else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let attributes: Map<String, Value> = letters::delivered(spec, &message.attributes)
            .map(|(k, v)| (k.to_owned(), Value::from(v)))
            .collect();
        // Both spellings, as Google sends them: receivers read either.
        let mut wrapped = json!({
            "data": STANDARD.encode(&message.body),
            "messageId": id,
            "message_id": id,
            "publishTime": time,
            "publish_time": time,
        });
        if !attributes.is_empty() {
            wrapped["attributes"] = Value::Object(attributes);
        }
        if let Some(key) = &message.ordering_key {
            wrapped["orderingKey"] = Value::from(&**key);
        }
        let mut body = json!({"message": wrapped, "subscription": path});
        if spec.dead_letter.is_some() {
            body["deliveryAttempt"] = Value::from(received.delivery_attempt);
        }
        return (headers, Bytes::from(body.to_string()));
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if bare.write_metadata {
        for (name, value) in letters::delivered(spec, &message.attributes) {
            put(&mut headers, name, value);
        }
        put(&mut headers, "x-goog-pubsub-subscription-name", &path);
        put(&mut headers, "x-goog-pubsub-message-id", &id);
        put(&mut headers, "x-goog-pubsub-publish-time", &time);
        if let Some(key) = &message.ordering_key {
            put(&mut headers, "x-goog-pubsub-ordering-key", key);
        }
        if spec.dead_letter.is_some() {
            put(&mut headers, "x-goog-pubsub-delivery-attempt", &received.delivery_attempt.to_string());
        }
    }
    (headers, message.body.clone())
}

/// Sets a header; what cannot be one is left out.
fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
        && !RESERVED.contains(&name.as_str())
    {
        headers.insert(name, value);
    }
}
