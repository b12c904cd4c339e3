//! What a program reads: one JSON line a message.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::Pulled;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    message_id: &'a str,
    publish_time: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ordering_key: &'a str,
    attributes: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    delivery_attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_delivery_attempts: Option<u32>,
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The lines of a batch, each ended by a newline. `max_attempts` is after how many deliveries
/// a message goes to the dead letter, where that is known.
pub fn lines(batch: &[Pulled], max_attempts: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    for Pulled { message, delivery_attempt, .. } in batch {
        let line = Line {
            message_id: &message.message_id,
            publish_time: &message.publish_time,
            ordering_key: &message.ordering_key,
            attributes: &message.attributes,
            delivery_attempt: *delivery_attempt,
            max_delivery_attempts: max_attempts,
            data: &message.data,
            json: as_json(&message.data),
        };
        // Strings, numbers and JSON that was read before: writing them cannot fail.
        if serde_json::to_writer(&mut out, &line).is_ok() {
            out.push(b'\n');
        }
    }
    out
}

/// The data where it is JSON: as it was written, so that no number loses a digit, but on one
/// line. A line break in JSON is always between two tokens.
fn as_json(data: &str) -> Option<Box<RawValue>> {
    let text = String::from_utf8(STANDARD.decode(data).ok()?).ok()?;
    let raw = RawValue::from_string(text).ok()?;
    if raw.get().contains(['\n', '\r']) {
        return RawValue::from_string(raw.get().replace(['\n', '\r'], " ")).ok();
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::work::api::PubsubMessage;

    fn line(data: &[u8]) -> String {
        let message =
            PubsubMessage { data: STANDARD.encode(data), message_id: "7".into(), ..Default::default() };
        let pulled = Pulled { message, delivery_attempt: 2, ..Default::default() };
        String::from_utf8(lines(&[pulled], Some(5))).unwrap()
    }

    #[test]
    fn json_stays_as_it_was_written_but_on_one_line() {
        let line = line(b"{\"n\": 12345678901234567890.10,\n\r\n \"t\": \"a\\nb\"}");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains(r#""json":{"n": 12345678901234567890.10,    "t": "a\nb"}"#), "{line}");
        assert!(line.contains(r#""deliveryAttempt":2,"maxDeliveryAttempts":5"#), "{line}");
    }

    #[test]
    fn other_data_is_base64_only() {
        for data in [&b""[..], b"not json", b"{", b"\xff\xfe"] {
            let line = line(data);
            assert!(!line.contains("\"json\""), "{line}");
            assert!(line.contains(&format!("\"data\":\"{}\"", STANDARD.encode(data))), "{line}");
        }
    }
}
