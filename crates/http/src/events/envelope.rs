//! The event envelope in Levada's own form: which fields it has, how they are checked.
//!
//! Nothing that a sender wrote is lost in silence: a field that the envelope does not know,
//! a field given twice, or one of the wrong type is an error that names the field. What a
//! sender wants to add goes into `payload`, or as short values into `metadata`.

use std::borrow::Cow;

use levada_core::Problem;

use super::scan::{RawStr, Scanner, SyntaxError};

/// Longest value of an envelope field, in bytes.
pub const MAX_FIELD_BYTES: usize = 512;
/// Most fields under `metadata`, and most extension attributes of a CloudEvent.
pub const MAX_EXTRA: usize = 32;

/// One event as it was sent, not yet admitted for a tenant.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    pub event_type: Option<Cow<'a, str>>,
    pub tenant_id: Option<Cow<'a, str>>,
    pub event_id: Option<Cow<'a, str>>,
    pub schema_version: Option<Cow<'a, str>>,
    pub timestamp: Option<Cow<'a, str>>,
    pub source_service: Option<Cow<'a, str>>,
    pub correlation_id: Option<Cow<'a, str>>,
    pub causation_id: Option<Cow<'a, str>>,
    pub idempotency_key: Option<Cow<'a, str>>,
    pub ordering_key: Option<Cow<'a, str>>,
    pub traceparent: Option<Cow<'a, str>>,
    pub topic: Option<Cow<'a, str>>,
    /// Media type of the payload where it is not JSON.
    pub content_type: Option<Cow<'a, str>>,
    /// Further attributes, names already prefixed.
    pub extra: Vec<(String, Cow<'a, str>)>,
    pub payload: Payload<'a>,
    /// The sender's ids are unique per source only (CloudEvents), not per type.
    pub id_per_source: bool,
}

#[derive(Debug, Default)]
pub enum Payload<'a> {
    #[default]
    Missing,
    /// A slice of the request body.
    Slice(&'a [u8]),
    Owned(Vec<u8>),
}

/// What parsing one item yields: an outer error breaks the text around it, an inner one is
/// of this item alone.
pub type Parsed<'a> = Result<Result<Envelope<'a>, Problem>, SyntaxError>;

/// Parses one item at the scanner's place.
pub fn parse<'a>(scanner: &mut Scanner<'a>) -> Parsed<'a> {
    let mut envelope = Envelope::default();
    let mut metadata = None;
    let outcome = fields(scanner, |name, value| {
        if name == "metadata" {
            return set_once(&mut metadata, value, name);
        }
        envelope.set(name, value)
    })?;
    Ok(outcome.and_then(|()| {
        if let Some(metadata) = metadata {
            envelope.set_metadata(metadata)?;
        }
        if matches!(envelope.payload, Payload::Missing) {
            return Err(invalid("payload-missing", "the event has no `payload`".into())
                .hint("send `payload` (or `data`); `null` is allowed"));
        }
        Ok(envelope)
    }))
}

/// Walks the object at the scanner's place, or reports that it is none. After the first
/// problem the rest is still checked and passed, so that the next item can be read.
pub fn fields<'a>(
    scanner: &mut Scanner<'a>,
    mut set: impl FnMut(&str, &'a str) -> Result<(), Problem>,
) -> Result<Result<(), Problem>, SyntaxError> {
    if scanner.peek() != Some(b'{') {
        let value = scanner.value()?;
        return Ok(Err(invalid(
            "event-not-object",
            format!("an event is a JSON object, this is {}", kind(value)),
        )));
    }
    scanner.take(b'{');
    let mut outcome = Ok(());
    if scanner.take(b'}') {
        return Ok(outcome);
    }
    loop {
        let key = scanner.key()?;
        let value = scanner.value()?;
        if outcome.is_ok() {
            outcome = match key.decode() {
                Some(name) => set(&name, value),
                None => Err(invalid("field-invalid", "a field name is not valid Unicode".into())),
            };
        }
        if !scanner.more(b'}')? {
            return Ok(outcome);
        }
    }
}

impl<'a> Envelope<'a> {
    fn set(&mut self, name: &str, value: &'a str) -> Result<(), Problem> {
        let slot = match name {
            "event_type" | "type" => &mut self.event_type,
            "tenant_id" => &mut self.tenant_id,
            "event_id" => &mut self.event_id,
            "timestamp" => &mut self.timestamp,
            "source_service" => &mut self.source_service,
            "correlation_id" => &mut self.correlation_id,
            "causation_id" => &mut self.causation_id,
            "idempotency_key" => &mut self.idempotency_key,
            "ordering_key" => &mut self.ordering_key,
            "traceparent" => &mut self.traceparent,
            "topic" => &mut self.topic,
            "schema_version" => {
                return set_optional(&mut self.schema_version, scalar(name, value)?, name);
            }
            "payload" | "data" => {
                if !matches!(self.payload, Payload::Missing) {
                    return Err(duplicate(name));
                }
                self.payload = Payload::Slice(value.as_bytes());
                return Ok(());
            }
            _ => return Err(unknown(name)),
        };
        set_optional(slot, text(name, value)?, name)
    }

    fn set_metadata(&mut self, value: &'a str) -> Result<(), Problem> {
        if value == "null" {
            return Ok(());
        }
        let mut scanner = Scanner::new(value);
        let walked = fields(&mut scanner, |name, value| match name {
            "correlation_id" => set_agreeing(&mut self.correlation_id, text(name, value)?, name),
            "causation_id" => set_agreeing(&mut self.causation_id, text(name, value)?, name),
            _ => {
                let Some(value) = scalar(name, value)? else { return Ok(()) };
                push_extra(&mut self.extra, format!("metadata.{name}"), value)
            }
        });
        match walked {
            Ok(Err(problem)) if problem.code == "event-not-object" => {
                Err(wrong_type("metadata", "an object", value))
            }
            Ok(outcome) => outcome,
            Err(_) => Err(wrong_type("metadata", "an object", value)),
        }
    }
}

/// Adds an attribute beyond the envelope's own, within bounds and once.
pub fn push_extra<'a>(
    extra: &mut Vec<(String, Cow<'a, str>)>,
    name: String,
    value: Cow<'a, str>,
) -> Result<(), Problem> {
    if name.len() > 128 || name.chars().any(char::is_control) {
        return Err(invalid(
            "field-invalid",
            "the name of a metadata field is too long or holds control characters".into(),
        ));
    }
    if extra.iter().any(|(n, _)| *n == name) {
        return Err(duplicate(&name));
    }
    if extra.len() >= MAX_EXTRA {
        return Err(invalid(
            "field-invalid",
            format!("an event carries at most {MAX_EXTRA} further attributes"),
        ));
    }
    extra.push((name, value));
    Ok(())
}

pub fn set_optional<'a>(
    slot: &mut Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
    name: &str,
) -> Result<(), Problem> {
    if slot.is_some() && value.is_some() {
        return Err(duplicate(name));
    }
    if value.is_some() {
        *slot = value;
    }
    Ok(())
}

/// A field that may stand in the envelope and under `metadata`, if both say the same.
fn set_agreeing<'a>(
    slot: &mut Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
    name: &str,
) -> Result<(), Problem> {
    match (&slot, &value) {
        (Some(a), Some(b)) if a != b => {
            Err(invalid("field-conflict", format!("`{name}` and `metadata.{name}` differ")))
        }
        (None, Some(_)) => {
            *slot = value;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn set_once<'a>(slot: &mut Option<&'a str>, value: &'a str, name: &str) -> Result<(), Problem> {
    match slot.replace(value) {
        Some(_) => Err(duplicate(name)),
        None => Ok(()),
    }
}

/// A text field; `null` counts as absent.
pub fn text<'a>(name: &str, value: &'a str) -> Result<Option<Cow<'a, str>>, Problem> {
    if value == "null" {
        return Ok(None);
    }
    if !value.starts_with('"') {
        return Err(wrong_type(name, "a text", value));
    }
    let decoded = raw_string(value).and_then(RawStr::decode).ok_or_else(|| not_unicode(name))?;
    checked(name, decoded).map(Some)
}

/// A text, number or boolean, as text.
pub fn scalar<'a>(name: &str, value: &'a str) -> Result<Option<Cow<'a, str>>, Problem> {
    match value.as_bytes().first() {
        Some(b'{' | b'[') => Err(wrong_type(name, "a text, number or boolean", value)),
        Some(b'"' | b'n') => text(name, value),
        _ => checked(name, Cow::Borrowed(value)).map(Some),
    }
}

fn raw_string(value: &str) -> Option<RawStr<'_>> {
    Scanner::new(value).string().ok()
}

/// Values become attributes, labels and log fields: short, and without control characters.
pub fn checked<'a>(name: &str, value: Cow<'a, str>) -> Result<Cow<'a, str>, Problem> {
    if value.is_empty() {
        return Err(
            invalid("field-invalid", format!("`{name}` is empty")).hint("leave the field out instead")
        );
    }
    if value.len() > MAX_FIELD_BYTES {
        let detail = format!("`{name}` has {} bytes, the limit is {MAX_FIELD_BYTES}", value.len());
        return Err(invalid("field-invalid", detail));
    }
    if value.bytes().any(|b| b.is_ascii_control()) {
        return Err(invalid("field-invalid", format!("`{name}` holds control characters")));
    }
    Ok(value)
}

pub fn invalid(code: &str, detail: String) -> Problem {
    Problem::new(422, code, detail)
}

pub fn not_unicode(name: &str) -> Problem {
    invalid(
        "field-invalid",
        format!("`{name}` holds half of a surrogate pair, which stands for no character"),
    )
}

pub fn duplicate(name: &str) -> Problem {
    invalid("field-duplicate", format!("`{}` is given twice", shown(name)))
        .hint("`type` is another name of `event_type`, and `data` of `payload`: send one of them")
}

pub fn wrong_type(name: &str, wanted: &str, value: &str) -> Problem {
    invalid("field-type", format!("`{name}` must be {wanted}, this is {}", kind(value)))
}

fn unknown(name: &str) -> Problem {
    let problem = invalid("field-unknown", format!("the envelope has no field `{}`", shown(name)));
    match name {
        "specversion" => problem.hint("send CloudEvents with the content type application/cloudevents+json"),
        "id" => problem.hint("the event's id is called `event_id`"),
        "time" => problem.hint("the event's time is called `timestamp`"),
        "source" => problem.hint("the sending service is called `source_service`"),
        "tenant" => problem.hint("the tenant is called `tenant_id`"),
        _ => problem.hint("put data of the event into `payload`, and short values beside it into `metadata`"),
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// What a valid JSON value is, for a person.
pub fn kind(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Checks an RFC 3339 time.
pub fn check_time(name: &str, value: &str) -> Result<(), Problem> {
    if chrono::DateTime::parse_from_rfc3339(value).is_ok() {
        return Ok(());
    }
    Err(invalid("field-invalid", format!("`{name}` is no RFC 3339 time: `{}`", shown(value)))
        .hint("write it like 2026-11-21T09:30:00.250Z; the offset from UTC is required"))
}
