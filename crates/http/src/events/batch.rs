//! Cuts a request body into events: one object, a JSON list, lines, or a CloudEvent.
//!
//! In a JSON list a syntax error leaves no way to tell where the next event begins, so the
//! whole request is refused. In NDJSON every line stands alone, so a broken line is a
//! problem of that event only. Type errors and missing fields are always of one event.

use http::HeaderMap;
use levada_core::Problem;

use super::cloudevents;
use super::envelope::{self, Envelope, Parsed};
use super::scan::{Scanner, SyntaxError, SyntaxKind};

/// How the events of a body are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object or a list of them.
    Json,
    Lines,
    CloudEvent,
    CloudEventBatch,
    /// CloudEvents binary mode.
    CloudEventBinary,
}

/// The events of one body, in order, each parsed or with its problem.
#[derive(Debug)]
pub struct Batch<'a> {
    pub events: Vec<Result<Envelope<'a>, Problem>>,
    /// The body was one event and not a list.
    pub single: bool,
}

/// Finds the format from the request's headers.
///
/// # Errors
/// `content-type-unsupported` (415), also for a character set or encoding that is not read.
pub fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    if headers
        .get(http::header::CONTENT_ENCODING)
        .is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::new(
            415,
            "content-encoding-unsupported",
            "compressed request bodies are not read",
        )
        .hint("send the body without Content-Encoding"));
    }
    let content_type = content_type(headers);
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("").to_ascii_lowercase();
    let cloud = match essence.as_str() {
        "application/cloudevents+json" => Some(Format::CloudEvent),
        "application/cloudevents-batch+json" => Some(Format::CloudEventBatch),
        _ => None,
    };
    if cloud.is_none() && cloudevents::is_binary(headers) {
        return Ok(Format::CloudEventBinary);
    }
    let charset =
        parts.find_map(|p| p.split_once('=').filter(|(k, _)| k.trim().eq_ignore_ascii_case("charset")));
    if charset
        .is_some_and(|(_, v)| !matches!(v.trim_matches('"').to_ascii_lowercase().as_str(), "utf-8" | "utf8"))
    {
        return Err(unsupported("the only character set is UTF-8"));
    }
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/json-lines" => {
            Ok(Format::Lines)
        }
        "" => Err(unsupported("the request names no content type")),
        _ => cloud.ok_or_else(|| {
            let shown: String = essence.chars().take(80).collect();
            unsupported(&format!("events cannot be read from `{shown}`"))
        }),
    }
}

pub fn content_type(headers: &HeaderMap) -> &str {
    headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").trim()
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(415, "content-type-unsupported", detail).hint(
        "use application/json, application/x-ndjson, application/cloudevents+json or \
         application/cloudevents-batch+json in UTF-8, or CloudEvents binary mode",
    )
}

/// Cuts and parses a body. At most `max_events` events.
///
/// # Errors
/// `json-invalid`, `json-too-deep` and `utf8-invalid` (400), `batch-too-large` (413),
/// `batch-empty` (422).
pub fn parse<'a>(
    format: Format,
    headers: &'a HeaderMap,
    body: &'a [u8],
    max_events: usize,
) -> Result<Batch<'a>, Problem> {
    match format {
        Format::Lines => lines(body, max_events),
        Format::CloudEventBinary => {
            let event = cloudevents::from_headers(headers, content_type(headers), body);
            Ok(Batch { events: vec![event], single: true })
        }
        Format::Json => json(utf8(body)?, max_events, envelope::parse, None),
        Format::CloudEvent => json(utf8(body)?, max_events, cloudevents::parse, Some(false)),
        Format::CloudEventBatch => json(utf8(body)?, max_events, cloudevents::parse, Some(true)),
    }
}

fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|e| not_utf8(e.valid_up_to()))
}

fn not_utf8(at: usize) -> Problem {
    Problem::new(400, "utf8-invalid", format!("the text is not UTF-8 at byte {at}"))
        .hint("encode the body as UTF-8; binary data goes into a base64 text")
}

/// A syntax error as a problem of the whole text.
pub fn syntax(error: &SyntaxError, text: &str) -> Problem {
    let (line, column) = error.place(text);
    let code = if error.kind == SyntaxKind::TooDeep { "json-too-deep" } else { "json-invalid" };
    Problem::new(400, code, format!("no valid JSON at line {line}, column {column}: {}", error.kind))
}

/// `list`: whether the body must be a list, must not be one, or may be either.
fn json<'a>(
    text: &'a str,
    max_events: usize,
    item: fn(&mut Scanner<'a>) -> Parsed<'a>,
    list: Option<bool>,
) -> Result<Batch<'a>, Problem> {
    let mut scanner = Scanner::new(text);
    let is_list = scanner.peek() == Some(b'[');
    if list == Some(true) && !is_list {
        return Err(Problem::new(422, "batch-not-list", "a CloudEvents batch is a JSON list"));
    }
    if list == Some(false) || !is_list {
        let event = item(&mut scanner).and_then(|event| scanner.end().map(|()| event));
        return Ok(Batch { events: vec![event.map_err(|e| syntax(&e, text))?], single: true });
    }
    let mut events = Vec::with_capacity((text.len() / 512).clamp(1, max_events));
    let outcome = items(&mut scanner, max_events, item, &mut events);
    match outcome {
        Ok(()) if events.is_empty() => Err(empty()),
        Ok(()) => Ok(Batch { events, single: false }),
        Err(error) if error.kind == SyntaxKind::TooMany => Err(too_many(max_events)),
        Err(error) => Err(syntax(&error, text)),
    }
}

fn items<'a>(
    scanner: &mut Scanner<'a>,
    max_events: usize,
    item: fn(&mut Scanner<'a>) -> Parsed<'a>,
    events: &mut Vec<Result<Envelope<'a>, Problem>>,
) -> Result<(), SyntaxError> {
    scanner.take(b'[');
    if scanner.take(b']') {
        return scanner.end();
    }
    loop {
        if events.len() == max_events {
            return Err(scanner.error(SyntaxKind::TooMany));
        }
        events.push(item(scanner)?);
        if !scanner.more(b']')? {
            return scanner.end();
        }
    }
}

fn lines(body: &[u8], max_events: usize) -> Result<Batch<'_>, Problem> {
    let mut events = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
        let line = body[start..end].trim_ascii();
        start = end + 1;
        if line.is_empty() {
            continue;
        }
        if events.len() == max_events {
            return Err(too_many(max_events));
        }
        events.push(one_line(line));
    }
    if events.is_empty() { Err(empty()) } else { Ok(Batch { events, single: false }) }
}

/// A broken line is this event's problem alone, hence 422 and not 400.
fn one_line(line: &[u8]) -> Result<Envelope<'_>, Problem> {
    let text = std::str::from_utf8(line).map_err(|e| Problem { status: 422, ..not_utf8(e.valid_up_to()) })?;
    let mut scanner = Scanner::new(text);
    let event = envelope::parse(&mut scanner).and_then(|event| scanner.end().map(|()| event));
    event.map_err(|e| Problem { status: 422, ..syntax(&e, text) })?
}

fn empty() -> Problem {
    Problem::new(422, "batch-empty", "the request holds no event")
}

fn too_many(limit: usize) -> Problem {
    Problem::new(413, "batch-too-large", format!("a batch holds at most {limit} events"))
        .hint("send several smaller batches; batches of 100 to 1,000 events are fastest")
}
