//! CloudEvents 1.0, structured, batched and binary, read into the same [`Envelope`].
//!
//! `type`, `id`, `source` and `time` are the envelope's `event_type`, `event_id`,
//! `source_service` and `timestamp`. The extensions `tenantid`, `correlationid`,
//! `causationid`, `idempotencykey`, `schemaversion`, `partitionkey` and `traceparent` fill
//! the fields of those names (`partitionkey` is the ordering key). Every other attribute
//! is kept as the attribute `ce_<name>`. An id is unique per source, as the specification
//! says, so the default idempotency key includes the source.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use levada_core::Problem;
use percent_encoding::percent_decode_str;

use super::envelope::{
    Envelope, Parsed, Payload, checked, duplicate, fields, invalid, not_unicode, push_extra, scalar,
    set_optional, text, wrong_type,
};
use super::scan::Scanner;

/// Parses one structured CloudEvent at the scanner's place.
pub fn parse<'a>(scanner: &mut Scanner<'a>) -> Parsed<'a> {
    let mut event = Event::default();
    let outcome = fields(scanner, |name, value| match name {
        "data" => set_raw(&mut event.data, value, name),
        "data_base64" => set_raw(&mut event.data_base64, value, name),
        "specversion" | "type" | "id" | "source" | "time" => event.attribute(name, text(name, value)?),
        _ => event.attribute(name, scalar(name, value)?),
    })?;
    Ok(outcome.and_then(|()| event.structured()))
}

/// Reads the binary mode: attributes in `ce-` headers, the body is the data.
pub fn from_headers<'a>(
    headers: &'a HeaderMap,
    content_type: &str,
    body: &'a [u8],
) -> Result<Envelope<'a>, Problem> {
    let mut event = Event::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let value =
            value.to_str().map_err(|_| invalid("field-invalid", format!("header ce-{name} is not ASCII")))?;
        let value = percent_decode_str(value).decode_utf8().map_err(|_| not_unicode(name))?;
        event.attribute(name, Some(checked(name, value)?))?;
    }
    let mut envelope = event.required()?;
    if is_json(content_type) || content_type.is_empty() {
        if body.is_empty() {
            envelope.payload = Payload::Slice(b"null");
            return Ok(envelope);
        }
        let body = std::str::from_utf8(body).map_err(|e| {
            invalid("utf8-invalid", format!("the body is not UTF-8 at byte {}", e.valid_up_to()))
        })?;
        let mut scanner = Scanner::new(body);
        let value = scanner.value().and_then(|value| scanner.end().map(|()| value));
        let value = value.map_err(|e| super::batch::syntax(&e, body))?;
        envelope.payload = Payload::Slice(value.as_bytes());
    } else {
        envelope.content_type = Some(checked("content-type", Cow::Owned(content_type.to_owned()))?);
        envelope.payload = Payload::Slice(body);
    }
    Ok(envelope)
}

/// Whether a request is a CloudEvent in binary mode.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
}

/// Whether a media type means JSON.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let subtype = essence.rsplit('/').next().unwrap_or("");
    subtype.eq_ignore_ascii_case("json")
        || subtype.len() > 5
            && subtype.is_char_boundary(subtype.len() - 5)
            && subtype[subtype.len() - 5..].eq_ignore_ascii_case("+json")
}

#[derive(Default)]
struct Event<'a> {
    envelope: Envelope<'a>,
    specversion: Option<Cow<'a, str>>,
    data: Option<&'a str>,
    data_base64: Option<&'a str>,
}

impl<'a> Event<'a> {
    fn attribute(&mut self, name: &str, value: Option<Cow<'a, str>>) -> Result<(), Problem> {
        let envelope = &mut self.envelope;
        let slot = match name {
            "specversion" => &mut self.specversion,
            "type" => &mut envelope.event_type,
            "id" => &mut envelope.event_id,
            "source" => &mut envelope.source_service,
            "time" => &mut envelope.timestamp,
            "datacontenttype" => &mut envelope.content_type,
            "tenantid" => &mut envelope.tenant_id,
            "correlationid" => &mut envelope.correlation_id,
            "causationid" => &mut envelope.causation_id,
            "idempotencykey" => &mut envelope.idempotency_key,
            "schemaversion" => &mut envelope.schema_version,
            "partitionkey" => &mut envelope.ordering_key,
            "traceparent" => &mut envelope.traceparent,
            _ => {
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
                    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                    return Err(invalid(
                        "field-unknown",
                        format!("`{shown}` is no CloudEvents attribute name"),
                    )
                    .hint("names of extensions have only a-z and 0-9; other data belongs into `data`"));
                }
                let Some(value) = value else { return Ok(()) };
                return push_extra(&mut envelope.extra, format!("ce_{name}"), value);
            }
        };
        set_optional(slot, value, name)
    }

    fn required(mut self) -> Result<Envelope<'a>, Problem> {
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(other) => {
                return Err(invalid("cloudevent-version", format!("CloudEvents {other} is not supported"))
                    .hint("send specversion 1.0"));
            }
            None => return Err(missing("specversion")),
        }
        let envelope = &mut self.envelope;
        for (name, value) in [("id", &envelope.event_id), ("source", &envelope.source_service)] {
            if value.is_none() {
                return Err(missing(name));
            }
        }
        envelope.id_per_source = true;
        Ok(self.envelope)
    }

    fn structured(mut self) -> Result<Envelope<'a>, Problem> {
        let (data, data_base64) = (self.data.take(), self.data_base64.take());
        let mut envelope = self.required()?;
        let json = envelope.content_type.as_deref().is_none_or(is_json);
        envelope.payload = match (data, data_base64) {
            (Some(_), Some(_)) => {
                return Err(invalid("field-conflict", "`data` and `data_base64` exclude each other".into()));
            }
            (None, Some(value)) => Payload::Owned(decode_base64(value)?),
            (Some(value), None) if json => Payload::Slice(value.as_bytes()),
            // The data of another media type is a text in JSON; the text itself is the data.
            (Some(value), None) if value.starts_with('"') => {
                let text = Scanner::new(value).string().ok().and_then(|s| s.decode());
                Payload::Owned(text.ok_or_else(|| not_unicode("data"))?.into_owned().into_bytes())
            }
            (Some(value), None) => {
                return Err(wrong_type("data", "a text, as `datacontenttype` is not JSON", value));
            }
            (None, None) => Payload::Slice(b"null"),
        };
        if json {
            if let Payload::Owned(bytes) = &envelope.payload {
                check_json(bytes)?;
            }
            envelope.content_type = None;
        }
        Ok(envelope)
    }
}

fn check_json(bytes: &[u8]) -> Result<(), Problem> {
    let wrong =
        || invalid("json-invalid", "`data_base64` holds no JSON, which `datacontenttype` says it is".into());
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
    let mut scanner = Scanner::new(text);
    scanner.value().and_then(|_| scanner.end()).map_err(|_| wrong())
}

fn decode_base64(value: &str) -> Result<Vec<u8>, Problem> {
    if !value.starts_with('"') {
        return Err(wrong_type("data_base64", "a text", value));
    }
    let text = Scanner::new(value).string().ok().and_then(|s| s.decode());
    text.and_then(|t| STANDARD.decode(t.as_bytes()).ok())
        .ok_or_else(|| invalid("field-invalid", "`data_base64` is not base64".into()))
}

fn set_raw<'a>(slot: &mut Option<&'a str>, value: &'a str, name: &str) -> Result<(), Problem> {
    match slot.replace(value) {
        Some(_) => Err(duplicate(name)),
        None => Ok(()),
    }
}

fn missing(name: &str) -> Problem {
    invalid("field-missing", format!("a CloudEvent needs `{name}`"))
}
