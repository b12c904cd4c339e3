//! The documented bounds of the API, each with the text that says by how much it was missed.

use std::collections::HashMap;
use std::time::Duration;

use levada_core::Attributes;
use prost::Message as _;
use tonic::Code;

use crate::error::{ApiError, Bound};
use crate::letters;
use crate::messages::pb;
use crate::names::shown;

/// A request's size on the wire.
pub const MAX_REQUEST_BYTES: usize = 10 << 20;
/// What a transport must take in so that the refusal of a larger request can be a good one.
pub const MAX_WIRE_BYTES: usize = MAX_REQUEST_BYTES + (1 << 20);
const MAX_PUBLISH_MESSAGES: usize = 1_000;
const MAX_ATTRIBUTES: usize = 100;
const MAX_ATTRIBUTE_KEY_BYTES: usize = 256;
const MAX_ATTRIBUTE_VALUE_BYTES: usize = 1_024;
const MAX_ORDERING_KEY_BYTES: usize = 1_000;
const MAX_LABELS: usize = 64;
const MAX_LABEL_CHARS: usize = 63;
/// Ack ids of one unary call.
const MAX_ACK_IDS: usize = 100_000;
const DAY_S: i64 = 24 * 3600;

/// Checks a publish as a whole and each of its messages.
///
/// # Errors
/// INVALID_ARGUMENT for the first bound that is missed; nothing of the request is kept then.
pub fn publish(request: &pb::PublishRequest) -> Result<(), ApiError> {
    let count = request.messages.len();
    if count == 0 {
        return Err(ApiError::out_of_range("message_count", 0, 1, 1_000, Bound::Below));
    }
    if count > MAX_PUBLISH_MESSAGES {
        return Err(ApiError::out_of_range("message_count", count, 1, 1_000, Bound::Above));
    }
    let bytes = request.encoded_len();
    if bytes > MAX_REQUEST_BYTES {
        return Err(ApiError::out_of_range("request_size", bytes, 0, MAX_REQUEST_BYTES as i64, Bound::Above));
    }
    request.messages.iter().try_for_each(message)
}

fn message(message: &pb::PubsubMessage) -> Result<(), ApiError> {
    if message.data.is_empty() && message.attributes.is_empty() {
        return Err(ApiError::invalid_field(
            "messages",
            "One or more messages in the publish request is empty. Each message must contain either \
             non-empty data, or at least one attribute.",
        ));
    }
    let above = |field: &str, given: usize, max: usize| {
        Err(ApiError::out_of_range(field, given, 0, max as i64, Bound::Above))
    };
    let count = message.attributes.keys().filter(|key| !letters::is_of_dead_letter(key)).count();
    if count > MAX_ATTRIBUTES {
        return above("attribute_count", count, MAX_ATTRIBUTES);
    }
    for (key, value) in &message.attributes {
        if key.is_empty() || is_reserved(key) {
            let text = format!(
                "The request contains an attribute key that is not valid (key={}). Attribute keys must be \
                 non-empty and must not begin with 'goog' (case-insensitive), save with 'googclient_'.",
                shown(key)
            );
            return Err(ApiError::invalid_field("messages.attributes", text));
        }
        if key.len() > MAX_ATTRIBUTE_KEY_BYTES {
            return above("attribute_key_size", key.len(), MAX_ATTRIBUTE_KEY_BYTES);
        }
        if value.len() > MAX_ATTRIBUTE_VALUE_BYTES {
            return above("attribute_value_size", value.len(), MAX_ATTRIBUTE_VALUE_BYTES);
        }
    }
    if message.ordering_key.len() > MAX_ORDERING_KEY_BYTES {
        return above("ordering_key_size", message.ordering_key.len(), MAX_ORDERING_KEY_BYTES);
    }
    Ok(())
}

/// Google reserves `goog`, but its own clients write attributes under `googclient_`: those that
/// trace a message do.
fn is_reserved(key: &str) -> bool {
    let starts_with_goog = key.as_bytes().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"goog"));
    starts_with_goog && !key.starts_with("googclient_")
}

/// The attributes in a stable order.
pub fn attributes(map: &HashMap<String, String>) -> Attributes {
    let mut pairs: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    pairs.sort_unstable();
    pairs.into_iter().collect()
}

/// How many messages a pull may bring.
///
/// # Errors
/// INVALID_ARGUMENT unless it is positive. More than 1,000 is cut to that, as Google does.
pub fn max_messages(given: i32) -> Result<usize, ApiError> {
    match usize::try_from(given) {
        Ok(count) if count > 0 => Ok(count.min(1_000)),
        _ => Err(ApiError::out_of_range("max_messages", given, 1, 1_000, Bound::Below)),
    }
}

/// Checks the number of ack ids of a unary call.
///
/// # Errors
/// INVALID_ARGUMENT without any or with too many.
pub fn ack_ids(ids: &[String]) -> Result<(), ApiError> {
    match ids.len() {
        0 => Err(ApiError::invalid_field("ack_ids", "No ack ids specified.")),
        n if n > MAX_ACK_IDS => {
            Err(ApiError::out_of_range("ack_id_count", n, 1, MAX_ACK_IDS as i64, Bound::Above))
        }
        _ => Ok(()),
    }
}

/// Checks labels.
///
/// # Errors
/// INVALID_ARGUMENT with the rule that is broken.
pub fn labels(labels: &HashMap<String, String>) -> Result<(), ApiError> {
    if labels.len() > MAX_LABELS {
        return Err(ApiError::out_of_range("label_count", labels.len(), 0, MAX_LABELS as i64, Bound::Above));
    }
    let part = |text: &str| {
        text.chars().count() <= MAX_LABEL_CHARS
            && text.chars().all(|c| c == '_' || c == '-' || (c.is_alphanumeric() && !c.is_uppercase()))
    };
    for (key, value) in labels {
        let starts = key.chars().next().is_some_and(|c| c.is_alphabetic() && !c.is_uppercase());
        if !starts || !part(key) || !part(value) {
            let text = format!(
                "The label `{}: {}` is not valid: keys and values have at most 63 lower-case letters, digits, \
                 '_' and '-', and a key starts with a letter.",
                shown(key),
                shown(value)
            );
            return Err(ApiError::invalid_field("labels", text));
        }
    }
    Ok(())
}

/// A deadline in seconds: 0 is the default of 10, else 10 to 600.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn ack_deadline(field: &str, seconds: i32) -> Result<Duration, ApiError> {
    let seconds = if seconds == 0 { 10 } else { seconds };
    within(field, i64::from(seconds), 10, 600)?;
    Ok(Duration::from_secs(seconds.unsigned_abs().into()))
}

/// The new deadline of a lease: 0 (nack) to 600 s.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn modified_deadline(seconds: i32) -> Result<Duration, ApiError> {
    within("ack_deadline_seconds", i64::from(seconds), 0, 600)?;
    Ok(Duration::from_secs(seconds.unsigned_abs().into()))
}

/// A retention: 10 minutes to 31 days.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn retention(given: &prost_types::Duration) -> Result<Duration, ApiError> {
    duration("message_retention_duration", given, 600, 31 * DAY_S)
}

/// Time without activity until a subscription goes: 1 to 365 days.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn expiration(given: &prost_types::Duration) -> Result<Duration, ApiError> {
    duration("expiration_policy.ttl", given, DAY_S, 365 * DAY_S)
}

/// A backoff: 0 to 600 s.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn backoff(field: &str, given: &prost_types::Duration) -> Result<Duration, ApiError> {
    duration(field, given, 0, 600)
}

/// Deliveries until a message is a dead letter: 5 to 100.
///
/// # Errors
/// OUT_OF_RANGE outside, as Google's emulator answers in this one place.
pub fn delivery_attempts(attempts: u32) -> Result<(), ApiError> {
    within("dead_letter_policy.max_delivery_attempts", attempts.into(), 5, 100)
        .map_err(|error| ApiError { code: Code::OutOfRange, ..error })
}

/// Checks a number against its bounds, both included.
///
/// # Errors
/// INVALID_ARGUMENT outside.
pub fn within(field: &str, given: i64, min: i64, max: i64) -> Result<(), ApiError> {
    if given < min {
        return Err(ApiError::out_of_range(field, given, min, max, Bound::Below));
    }
    if given > max {
        return Err(ApiError::out_of_range(field, given, min, max, Bound::Above));
    }
    Ok(())
}

fn duration(
    field: &str,
    given: &prost_types::Duration,
    min_s: i64,
    max_s: i64,
) -> Result<Duration, ApiError> {
    let nanos = i64::from(given.nanos);
    if !(0..1_000_000_000).contains(&nanos) && given.seconds >= 0 {
        return Err(ApiError::invalid_field(
            field,
            format!("The value for {field} is not a valid duration."),
        ));
    }
    within(field, given.seconds, min_s, max_s)?;
    if given.seconds == max_s && nanos > 0 {
        return Err(ApiError::out_of_range(field, format!("{max_s}.{nanos:09}"), min_s, max_s, Bound::Above));
    }
    Ok(Duration::new(given.seconds.unsigned_abs(), nanos.unsigned_abs() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(message: pb::PubsubMessage) -> pb::PublishRequest {
        pb::PublishRequest { topic: "projects/demo/topics/orders".to_owned(), messages: vec![message] }
    }

    fn data(bytes: usize) -> pb::PubsubMessage {
        pb::PubsubMessage { data: vec![7; bytes].into(), ..Default::default() }
    }

    fn attribute(key: &str, value: &str) -> pb::PubsubMessage {
        pb::PubsubMessage { attributes: [(key.to_owned(), value.to_owned())].into(), ..Default::default() }
    }

    #[test]
    fn publish_bounds_hold_at_their_edges() {
        assert!(publish(&one(data(1))).is_ok());
        assert!(publish(&one(data(0))).expect_err("empty").message.contains("is empty"));
        assert!(publish(&one(attribute("k", ""))).is_ok(), "an attribute is enough");
        assert!(publish(&one(data(MAX_REQUEST_BYTES - 100))).is_ok());
        assert!(publish(&one(data(MAX_REQUEST_BYTES))).is_err());
        let many = |n| pb::PublishRequest { messages: vec![data(1); n], ..one(data(1)) };
        assert!(publish(&many(1_000)).is_ok());
        let error = publish(&many(1_001)).expect_err("too many");
        assert_eq!(
            error.message,
            "The value for message_count is too large. You passed 1001 in the request, but the maximum value \
             is 1000."
        );
        assert!(publish(&many(0)).is_err());
        assert!(publish(&one(attribute(&"k".repeat(256), &"v".repeat(1_024)))).is_ok());
        assert!(publish(&one(attribute(&"k".repeat(257), "v"))).is_err());
        assert!(publish(&one(attribute("k", &"v".repeat(1_025)))).is_err());
        assert!(publish(&one(attribute("", "v"))).is_err());
        for reserved in ["GoogX", "goog", "google-thing", "GOOGclient_x", "googclient", "googclient-x"] {
            let error = publish(&one(attribute(reserved, "v"))).expect_err(reserved);
            assert_eq!(error.violations[0].field, "messages.attributes");
        }
        for own in ["googclient_traceparent", "googclient_tracestate", "googclient_"] {
            assert!(publish(&one(attribute(own, "v"))).is_ok(), "{own}");
        }
        assert!(publish(&one(attribute("góó", "v"))).is_ok());
        let keyed = |n| pb::PubsubMessage { ordering_key: "o".repeat(n), ..data(1) };
        assert!(publish(&one(keyed(1_000))).is_ok() && publish(&one(keyed(1_001))).is_err());
        let attributes = |n: usize| pb::PubsubMessage {
            attributes: (0..n).map(|i| (format!("k{i}"), String::new())).collect(),
            ..Default::default()
        };
        assert!(publish(&one(attributes(100))).is_ok() && publish(&one(attributes(101))).is_err());
    }

    #[test]
    fn what_a_dead_letter_says_of_itself_takes_no_place_from_its_attributes() {
        let mut letter = attribute("levada.dead.reason", "bad");
        letter.attributes.insert("CloudPubSubDeadLetterSourceSubscription".into(), "billing".into());
        letter.attributes.extend((0..100).map(|i| (format!("k{i}"), String::new())));
        assert!(publish(&one(letter.clone())).is_ok());
        // Known names only: a prefix would let in any number.
        letter.attributes.insert("levada.dead.anything".into(), String::new());
        assert!(publish(&one(letter)).is_err());
    }

    #[test]
    fn deadlines_retentions_and_labels_hold_at_their_edges() {
        assert_eq!(ack_deadline("ack_deadline_seconds", 0).ok(), Some(Duration::from_secs(10)));
        for (seconds, fine) in [(9, false), (10, true), (600, true), (601, false), (-1, false)] {
            assert_eq!(ack_deadline("ack_deadline_seconds", seconds).is_ok(), fine, "{seconds}");
        }
        for (seconds, fine) in [(-1, false), (0, true), (600, true), (601, false)] {
            assert_eq!(modified_deadline(seconds).is_ok(), fine, "{seconds}");
        }
        let d = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert!(retention(&d(600, 0)).is_ok() && retention(&d(599, 999_999_999)).is_err());
        assert!(retention(&d(31 * DAY_S, 0)).is_ok() && retention(&d(31 * DAY_S, 1)).is_err());
        assert!(backoff("retry_policy.minimum_backoff", &d(-1, 0)).is_err());
        assert!(backoff("retry_policy.minimum_backoff", &d(1, -5)).is_err());
        let label = |k: &str, v: &str| labels(&[(k.to_owned(), v.to_owned())].into());
        assert!(label("team", "red-1_x").is_ok() && label("größe", "").is_ok());
        for (k, v) in [("Team", "x"), ("1a", "x"), ("", "x"), ("a", "X"), ("a b", "x"), ("a", "x.y")] {
            assert!(label(k, v).is_err(), "{k}: {v}");
        }
        assert!(label(&"a".repeat(63), "").is_ok() && label(&"a".repeat(64), "").is_err());
    }
}
