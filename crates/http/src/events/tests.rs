//! What goes in and how it is read: every format, every way to get it wrong.

use http::{HeaderMap, HeaderName};
use levada_core::Problem;

use super::batch::{Batch, Format, format, parse};
use super::envelope::{Envelope, Payload};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().expect("a value"))).collect()
}

/// Parses and gives the events' debug-friendly verdicts.
fn read(kind: Format, body: &str) -> Result<Vec<Result<String, String>>, String> {
    let headers = HeaderMap::new();
    let batch = parse(kind, &headers, body.as_bytes(), 4).map_err(|p| p.code)?;
    Ok(batch.events.into_iter().map(|e| e.map(|e| summary(&e)).map_err(|p| p.code)).collect())
}

fn payload<'a>(envelope: &'a Envelope<'_>) -> &'a [u8] {
    match &envelope.payload {
        Payload::Missing => b"",
        Payload::Slice(slice) => slice,
        Payload::Owned(bytes) => bytes,
    }
}

fn summary(e: &Envelope<'_>) -> String {
    format!("{} {}", e.event_type.as_deref().unwrap_or("-"), String::from_utf8_lossy(payload(e)))
}

fn one(kind: Format, body: &str) -> Result<String, String> {
    read(kind, body).and_then(|mut all| all.remove(0))
}

fn problem(kind: Format, body: &str) -> Problem {
    let headers = HeaderMap::new();
    match parse(kind, &headers, body.as_bytes(), 4) {
        Err(problem) => problem,
        Ok(Batch { mut events, .. }) => events.remove(0).expect_err("the event is refused"),
    }
}

#[test]
fn the_envelope_is_read_and_the_payload_kept_byte_for_byte() {
    let body = r#" { "event_type" : "a\u0062c", "tenant_id":"t1", "event_id":"e1", "schema_version":1.20,
        "timestamp":"2026-11-21T10:00:00+01:00", "source_service":"s", "correlation_id":null,
        "idempotency_key":"k", "ordering_key":"o", "topic":"tt",
        "metadata":{"correlation_id":"c","causation_id":"p","retries":3,"none":null},
        "payload" :{ "z":1,  "a":[1e2 , "\u00e9"]} } "#;
    let headers = HeaderMap::new();
    let batch = parse(Format::Json, &headers, body.as_bytes(), 1).expect("parsed");
    assert!(batch.single);
    let event = batch.events[0].as_ref().expect("a good event");
    assert_eq!(event.event_type.as_deref(), Some("abc"));
    assert_eq!(event.schema_version.as_deref(), Some("1.20"), "a number keeps its digits");
    assert_eq!(event.correlation_id.as_deref(), Some("c"));
    assert_eq!(event.causation_id.as_deref(), Some("p"));
    assert_eq!(event.extra, [("metadata.retries".to_owned(), "3".into())]);
    assert_eq!(payload(event), r#"{ "z":1,  "a":[1e2 , "\u00e9"]}"#.as_bytes());
    let at = payload(event).as_ptr() as usize;
    let within = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
    assert!(within.contains(&at), "the payload is a slice of the body, not a copy");
}

#[test]
fn aliases_are_read_and_never_both() {
    assert_eq!(one(Format::Json, r#"{"type":"t","data":1}"#), Ok("t 1".into()));
    let twice = [
        r#"{"type":"t","event_type":"t","data":1}"#,
        r#"{"type":"t","data":1,"payload":1}"#,
        r#"{"type":"t","data":1,"data":2}"#,
        r#"{"type":"t","data":1,"metadata":{},"metadata":{}}"#,
        r#"{"type":"t","data":1,"metadata":{"a":1,"a":1}}"#,
    ];
    for body in twice {
        assert_eq!(one(Format::Json, body), Err("field-duplicate".into()), "{body}");
    }
    let differs = r#"{"type":"t","data":1,"correlation_id":"a","metadata":{"correlation_id":"b"}}"#;
    assert_eq!(one(Format::Json, differs), Err("field-conflict".into()));
}

#[test]
fn nothing_unknown_is_dropped_in_silence() {
    for (field, hint) in [("colour", "payload"), ("id", "event_id"), ("specversion", "cloudevents+json")] {
        let problem = problem(Format::Json, &format!(r#"{{"type":"t","data":1,"{field}":"x"}}"#));
        assert_eq!(problem.code, "field-unknown");
        assert!(problem.detail.contains(field), "{}", problem.detail);
        assert!(problem.hint.expect("a hint").contains(hint));
    }
}

#[test]
fn wrong_types_name_the_field_and_what_stands_there() {
    for (body, field, stands) in [
        (r#"{"type":7,"data":1}"#, "type", "a number"),
        (r#"{"type":"t","tenant_id":["a"],"data":1}"#, "tenant_id", "a list"),
        (r#"{"type":"t","timestamp":1700000000,"data":1}"#, "timestamp", "a number"),
        (r#"{"type":"t","schema_version":{},"data":1}"#, "schema_version", "an object"),
        (r#"{"type":"t","metadata":[],"data":1}"#, "metadata", "a list"),
        (r#"{"type":"t","metadata":{"x":{}},"data":1}"#, "x", "an object"),
        (r#"{"type":true,"data":1}"#, "type", "a boolean"),
    ] {
        let problem = problem(Format::Json, body);
        assert_eq!((problem.status, problem.code.as_str()), (422, "field-type"), "{body}");
        assert!(problem.detail.contains(field) && problem.detail.contains(stands), "{}", problem.detail);
    }
    for body in ["7", "\"x\"", "null", "true"] {
        assert_eq!(problem(Format::Json, body).code, "event-not-object", "{body}");
    }
}

#[test]
fn values_that_make_no_attribute_are_refused() {
    let long = "x".repeat(513);
    for value in [r#""""#, r#""a\u0000b""#, r#""a\nb""#, r#""\ud800""#, &format!("\"{long}\"")] {
        let body = format!(r#"{{"type":"t","event_id":{value},"data":1}}"#);
        assert_eq!(one(Format::Json, &body), Err("field-invalid".into()), "{body}");
    }
    assert_eq!(one(Format::Json, r#"{"type":"t"}"#), Err("payload-missing".into()));
    assert_eq!(one(Format::Json, r#"{"type":"t","data":null}"#), Ok("t null".into()));
    let fields: Vec<String> = (0..33).map(|n| format!("\"f{n}\":1")).collect();
    let body = format!(r#"{{"type":"t","data":1,"metadata":{{{}}}}}"#, fields.join(","));
    assert_eq!(one(Format::Json, &body), Err("field-invalid".into()));
}

#[test]
fn a_list_with_bad_events_keeps_the_good_ones() {
    let body = r#"[{"type":"a","data":1}, 7, {"type":"b"}, {"type":"c","data":{"x":[]}}]"#;
    let events = read(Format::Json, body).expect("a list");
    assert_eq!(
        events,
        [
            Ok("a 1".into()),
            Err("event-not-object".into()),
            Err("payload-missing".into()),
            Ok("c {\"x\":[]}".into())
        ]
    );
}

#[test]
fn broken_lists_are_refused_whole_with_the_place() {
    let truncated = r#"[{"type":"a","data":1},{"type":"b","da"#;
    let problem_of = problem(Format::Json, truncated);
    assert_eq!((problem_of.status, problem_of.code.as_str()), (400, "json-invalid"));
    assert!(
        problem_of.detail.contains("line 1, column 39") && problem_of.detail.contains("ends"),
        "{}",
        problem_of.detail
    );
    for body in
        [r#"[{"type":"a","data":1}"#, r#"[{"type":"a","data":1},]"#, r#"[] x"#, "[1 2]", "", "  ", "{}{}"]
    {
        assert_eq!(read(Format::Json, body), Err("json-invalid".into()), "{body}");
    }
    assert_eq!(read(Format::Json, "[]"), Err("batch-empty".into()));
    let bomb = "[".repeat(100_000);
    assert_eq!(read(Format::Json, &bomb), Err("json-too-deep".into()));
    let inner = format!(r#"{{"type":"t","data":{}}}"#, "{\"a\":".repeat(100_000));
    assert_eq!(read(Format::Json, &inner), Err("json-too-deep".into()));
}

#[test]
fn batches_are_bounded_exactly() {
    let list = |n: usize| format!("[{}]", vec![r#"{"type":"a","data":1}"#; n].join(","));
    assert_eq!(read(Format::Json, &list(4)).expect("at the bound").len(), 4);
    assert_eq!(problem(Format::Json, &list(5)).code, "batch-too-large");
    assert_eq!(problem(Format::Json, &list(5)).status, 413);
    let lines = |n: usize| vec![r#"{"type":"a","data":1}"#; n].join("\n");
    assert_eq!(read(Format::Lines, &lines(4)).expect("at the bound").len(), 4);
    assert_eq!(problem(Format::Lines, &lines(5)).code, "batch-too-large");
}

#[test]
fn every_line_stands_alone() {
    let headers = HeaderMap::new();
    let body = b"{\"type\":\"a\",\"data\":1}\r\n\n{\"type\":\n\xff\xfe\n  {\"type\":\"d\",\"data\":\"x\"}";
    let batch = parse(Format::Lines, &headers, body, 10).expect("lines");
    assert!(!batch.single);
    let verdicts: Vec<_> = batch
        .events
        .iter()
        .map(|e| e.as_ref().map(summary).map_err(|p| (p.status, p.code.as_str())))
        .collect();
    assert_eq!(
        verdicts,
        [Ok("a 1".into()), Err((422, "json-invalid")), Err((422, "utf8-invalid")), Ok("d \"x\"".into())]
    );
    assert_eq!(read(Format::Lines, "\n \n"), Err("batch-empty".into()));
}

#[test]
fn invalid_utf8_is_named_with_its_place() {
    let headers = HeaderMap::new();
    let problem = parse(Format::Json, &headers, b"{\"type\":\"\xc3\x28\"}", 1).expect_err("not UTF-8");
    assert_eq!((problem.status, problem.code.as_str()), (400, "utf8-invalid"));
    assert!(problem.detail.contains("byte 9"), "{}", problem.detail);
}

#[test]
fn cloud_events_are_read_structured() {
    let body = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1","time":"2026-01-01T00:00:00Z",
        "tenantid":"acme","subject":"x","level":3,"partitionkey":"p","data":{"a":1}}"#;
    let headers = HeaderMap::new();
    let batch = parse(Format::CloudEvent, &headers, body.as_bytes(), 1).expect("parsed");
    let event = batch.events[0].as_ref().expect("a good event");
    assert_eq!(event.source_service.as_deref(), Some("/s"));
    assert_eq!((event.tenant_id.as_deref(), event.ordering_key.as_deref()), (Some("acme"), Some("p")));
    assert_eq!(event.extra, [("ce_subject".to_owned(), "x".into()), ("ce_level".to_owned(), "3".into())]);
    assert!(event.id_per_source && event.content_type.is_none());
    assert_eq!(payload(event), br#"{"a":1}"#);
}

#[test]
fn cloud_events_data_follows_its_content_type() {
    let event = |rest: &str| format!(r#"{{"specversion":"1.0","type":"t","source":"s","id":"1"{rest}}}"#);
    for (rest, expected) in [
        ("", Ok("t null")),
        (r#","data":"x""#, Ok("t \"x\"")),
        (r#","datacontenttype":"text/plain","data":"x\ny""#, Ok("t x\ny")),
        (r#","datacontenttype":"text/plain","data":{}"#, Err("field-type")),
        (r#","datacontenttype":"application/x","data_base64":"AQI=""#, Ok("t \u{1}\u{2}")),
        (r#","data_base64":"eyJhIjoxfQ==""#, Ok("t {\"a\":1}")),
        (r#","data_base64":"AQI=""#, Err("json-invalid")),
        (r#","data_base64":"?""#, Err("field-invalid")),
        (r#","data":1,"data_base64":"AQI=""#, Err("field-conflict")),
        (r#","Upper":"x""#, Err("field-unknown")),
        (r#","ext":{}"#, Err("field-type")),
    ] {
        let read = one(Format::CloudEvent, &event(rest));
        assert_eq!(read.as_deref().map_err(String::as_str), expected, "{rest}");
    }
    for (body, code) in [
        (r#"{"type":"t","source":"s","id":"1"}"#, "field-missing"),
        (r#"{"specversion":"1.0","type":"t","id":"1"}"#, "field-missing"),
        (r#"{"specversion":"1.0","type":"t","source":"s"}"#, "field-missing"),
        (r#"{"specversion":"0.3","type":"t","source":"s","id":"1"}"#, "cloudevent-version"),
        ("[]", "event-not-object"),
    ] {
        assert_eq!(one(Format::CloudEvent, body), Err(code.into()), "{body}");
    }
    let batch = format!("[{},{}]", event(""), r#"{"id":"1"}"#);
    assert_eq!(
        read(Format::CloudEventBatch, &batch),
        Ok(vec![Ok("t null".into()), Err("field-missing".into())])
    );
    assert_eq!(read(Format::CloudEventBatch, &event("")), Err("batch-not-list".into()));
}

#[test]
fn cloud_events_are_read_in_binary_mode() {
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-type", "t"),
        ("ce-source", "/s%20x"),
        ("ce-id", "1"),
        ("ce-subject", "caf%C3%A9"),
    ];
    let with_type = |kind: &str| {
        let mut headers = headers(&attributes);
        headers.insert("content-type", kind.parse().expect("a value"));
        headers
    };
    let json = with_type("application/json");
    assert_eq!(format(&json).ok(), Some(Format::CloudEventBinary));
    let batch = parse(Format::CloudEventBinary, &json, b" {\"a\":1} ", 1).expect("parsed");
    let event = batch.events[0].as_ref().expect("a good event");
    assert_eq!(event.source_service.as_deref(), Some("/s x"));
    assert_eq!(event.extra, [("ce_subject".to_owned(), "café".into())]);
    assert_eq!(payload(event), b"{\"a\":1}");
    let image = with_type("image/png");
    let batch = parse(Format::CloudEventBinary, &image, b"\x89PNG", 1).expect("parsed");
    let event = batch.events[0].as_ref().expect("a good event");
    assert_eq!((event.content_type.as_deref(), payload(event)), (Some("image/png"), &b"\x89PNG"[..]));
    let batch = parse(Format::CloudEventBinary, &json, b"{\"a\":", 1).expect("parsed");
    assert_eq!(batch.events[0].as_ref().expect_err("truncated").code, "json-invalid");
}

#[test]
fn formats_come_from_the_content_type() {
    for (kind, expected) in [
        ("application/json", Some(Format::Json)),
        ("Application/JSON; charset=UTF-8", Some(Format::Json)),
        ("application/x-ndjson", Some(Format::Lines)),
        ("application/cloudevents+json; charset=utf-8", Some(Format::CloudEvent)),
        ("application/cloudevents-batch+json", Some(Format::CloudEventBatch)),
        ("application/json; charset=latin1", None),
        ("application/x-www-form-urlencoded", None),
        ("text/plain", None),
        ("", None),
    ] {
        let found = format(&headers(&[("content-type", kind)]));
        assert_eq!(found.as_ref().ok().copied(), expected, "{kind}");
        assert!(found.is_ok() || found.is_err_and(|p| p.status == 415));
    }
    let gzip = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
    assert_eq!(format(&gzip).expect_err("not read").code, "content-encoding-unsupported");
}
