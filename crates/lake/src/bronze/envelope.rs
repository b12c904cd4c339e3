//! One line of an event archive, written and read.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An event on its way into an archive.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    pub offset: u64,
    pub event_id: &'a str,
    pub event_type: &'a str,
    /// Event time, RFC 3339, as it came.
    pub timestamp: &'a str,
    pub published_at_ms: i64,
    /// The remaining attributes, in their order.
    pub attributes: &'a [(&'a str, &'a str)],
    pub payload: Payload<'a>,
}

/// The original bytes.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// The caller has checked that this is JSON.
    Json(&'a [u8]),
    Bytes(&'a [u8]),
}

/// Appends the envelope as one line.
pub fn encode_line(envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"offset\":");
    number(out, envelope.offset);
    for (name, value) in [
        ("event_id", envelope.event_id),
        ("event_type", envelope.event_type),
        ("timestamp", envelope.timestamp),
    ] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        text(out, value);
    }
    out.extend_from_slice(b",\"published_at\":");
    number(out, envelope.published_at_ms);
    out.extend_from_slice(b",\"attributes\":{");
    for (i, (name, value)) in envelope.attributes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(out, name);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
    match envelope.payload {
        Payload::Json(json) if fits_a_line(json) => {
            out.extend_from_slice(b",\"payload\":");
            out.extend_from_slice(json);
        }
        Payload::Json(bytes) | Payload::Bytes(bytes) => {
            out.extend_from_slice(b",\"payload_base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}\n");
}

/// White space around a JSON text would not come back verbatim, and a line ends at a newline.
fn fits_a_line(json: &[u8]) -> bool {
    let space = |b: Option<&u8>| b.is_none_or(u8::is_ascii_whitespace);
    !space(json.first()) && !space(json.last()) && !json.iter().any(|b| matches!(b, b'\n' | b'\r'))
}

fn number(out: &mut Vec<u8>, n: impl std::fmt::Display) {
    write!(out, "{n}").expect("writing to memory");
}

fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect("writing text to memory");
}

/// The same, read back.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow, default)]
    pub event_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    pub event_type: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    pub timestamp: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    pub published_at: Option<i64>,
    #[serde(borrow, default)]
    pub attributes: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub payload_base64: Option<&'a str>,
}

/// A value that is there, `null` included.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Line<'_> {
    /// The original text of the payload; bytes that are no text stay base64.
    pub fn payload_text(&self) -> Option<String> {
        if let Some(raw) = self.payload {
            return Some(raw.get().to_owned());
        }
        let encoded = self.payload_base64?;
        let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        Some(decoded.unwrap_or_else(|| encoded.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope<'a>(payload: Payload<'a>, attributes: &'a [(&'a str, &'a str)]) -> Envelope<'a> {
        Envelope {
            offset: 7,
            event_id: "e\"1",
            event_type: "order.created",
            timestamp: "2026-11-20T10:00:00Z",
            published_at_ms: 1_763_632_800_123,
            attributes,
            payload,
        }
    }

    #[test]
    fn a_payload_comes_back_byte_for_byte() {
        let payloads: [Payload<'_>; 6] = [
            Payload::Json(br#"{"b": 1, "a":[ 1.50, "x\n\u00e9" ]}"#),
            Payload::Json(b"{\n  \"pretty\": true\n}"),
            Payload::Json(b" 1 "),
            Payload::Bytes("plain text, é\r\n".as_bytes()),
            Payload::Bytes(b""),
            Payload::Json(b"null"),
        ];
        for payload in payloads {
            let mut out = Vec::new();
            encode_line(&envelope(payload, &[("k", "v\n\"")]), &mut out);
            assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1, "one line");
            let text = std::str::from_utf8(&out).unwrap();
            let line: Line<'_> = serde_json::from_str(text).unwrap();
            let (Payload::Json(bytes) | Payload::Bytes(bytes)) = payload;
            assert_eq!(line.payload_text().unwrap().as_bytes(), bytes);
            assert_eq!(line.event_id.as_deref(), Some("e\"1"));
            assert_eq!(line.attributes.unwrap().get(), r#"{"k":"v\n\""}"#);
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_base64() {
        let mut out = Vec::new();
        encode_line(&envelope(Payload::Bytes(&[0xff, 0xfe]), &[]), &mut out);
        let line: Line<'_> = serde_json::from_slice(&out).unwrap();
        assert_eq!(line.payload_text().as_deref(), Some("//4="));
    }
}
