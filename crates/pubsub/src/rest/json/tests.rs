//! Golden files: each is a message as JSON, and goes to wire bytes, to the typed message and
//! back again to the same text. `refused.txt` holds documents that are refused, each with the
//! words that the refusal must contain.

use std::path::Path;

use prost::Message;

use super::super::schema;
use super::*;
use crate::messages::{iam, pb};

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Through JSON, wire, the typed message, wire and JSON.
fn check<M: Message + Default + PartialEq>(file: &str, shape: &Shape) -> M {
    let text = golden(file);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let wire = to_wire(shape, &value).expect(file);
    let typed = M::decode(&*wire).expect(file);
    let back = from_wire(shape, typed.encode_to_vec().into(), Enums::Names).expect(file);
    assert_eq!(serde_json::to_string_pretty(&back).expect("JSON"), text.trim(), "{file}");
    typed
}

#[test]
fn a_topic() {
    let topic: pb::Topic = check("topic.json", &schema::TOPIC);
    assert_eq!(topic.message_retention_duration.map(|d| (d.seconds, d.nanos)), Some((3_600, 500_000_000)));
    assert_eq!(topic.labels.len(), 2);
    assert_eq!(topic.schema_settings.map(|s| s.encoding), Some(pb::Encoding::Binary as i32));
}

#[test]
fn a_subscription() {
    let subscription: pb::Subscription = check("subscription.json", &schema::SUBSCRIPTION);
    assert_eq!(subscription.ack_deadline_seconds, 42);
    assert!(subscription.enable_exactly_once_delivery && subscription.detached);
    assert_eq!(subscription.retry_policy.and_then(|p| p.maximum_backoff).map(|d| d.seconds), Some(600));
    let push = subscription.push_config.expect("a push config");
    assert!(matches!(push.wrapper, Some(pb::push_config::Wrapper::NoWrapper(it)) if it.write_metadata));
}

#[test]
fn a_publish_and_a_pull() {
    let publish: pb::PublishRequest = check("publish.json", &schema::PUBLISH);
    assert_eq!(publish.messages[0].data.as_ref(), b"\x00\xff\xfe?>");
    let pulled: pb::PullResponse = check("pulled.json", &schema::PULLED);
    let message = pulled.received_messages[0].message.clone().expect("a message");
    let time = message.publish_time.expect("a time");
    assert_eq!((time.seconds, time.nanos), (1_700_000_000, 123_000_000));
}

#[test]
fn an_update_with_its_mask() {
    let update: pb::UpdateSubscriptionRequest = check("update.json", &schema::UPDATE_SUBSCRIPTION);
    assert_eq!(
        update.update_mask.expect("a mask").paths,
        ["ack_deadline_seconds", "retry_policy.minimum_backoff"]
    );
}

#[test]
fn a_seek_a_snapshot_a_schema_and_a_policy() {
    let seek: pb::SeekRequest = check("seek.json", &schema::SEEK);
    assert!(matches!(seek.target, Some(pb::seek_request::Target::Time(time)) if time.nanos == 1));
    let _: pb::Snapshot = check("snapshot.json", &schema::SNAPSHOT);
    let schema: pb::Schema = check("schema.json", &schema::SCHEMA);
    assert_eq!(schema.r#type, pb::schema::Type::Avro as i32);
    let policy: iam::Policy = check("policy.json", &schema::POLICY);
    assert_eq!(policy.etag.as_ref(), b"etag");
}

#[test]
fn what_is_read_in_several_spellings() {
    let read = |text: &str| {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let wire = to_wire(&schema::SUBSCRIPTION, &value).map_err(|e| e.message)?;
        Ok::<_, String>(pb::Subscription::decode(&*wire).expect("a subscription"))
    };
    for text in [
        r#"{"ackDeadlineSeconds": 42}"#,
        r#"{"ack_deadline_seconds": 42}"#,
        r#"{"ackDeadlineSeconds": "42"}"#,
        r#"{"ackDeadlineSeconds": 42.0, "labels": null}"#,
    ] {
        assert_eq!(read(text).map(|s| s.ack_deadline_seconds), Ok(42), "{text}");
    }
    for (text, expected) in [("true", true), ("\"true\"", true), ("\"false\"", false)] {
        let document = format!(r#"{{"retainAckedMessages": {text}}}"#);
        assert_eq!(read(&document).map(|s| s.retain_acked_messages), Ok(expected), "{text}");
    }
    assert_eq!(read(r#"{"state": "ACTIVE"}"#).map(|s| s.state), read(r#"{"state": 1}"#).map(|s| s.state));
    let data = |text: &str| {
        let value = serde_json::json!({ "data": text });
        let wire = to_wire(&schema::MESSAGE, &value).expect("a message");
        pb::PubsubMessage::decode(&*wire).expect("a message").data
    };
    for text in ["AP/+Pz4=", "AP/+Pz4", "AP_-Pz4", "AP_-Pz4="] {
        assert_eq!(data(text).as_ref(), b"\x00\xff\xfe?>", "{text}");
    }
}

#[test]
fn durations_hold_their_grammar() {
    for (text, expected) in
        [("0s", (0, 0)), ("10s", (10, 0)), ("1.5s", (1, 500_000_000)), ("-1.000000001s", (-1, -1))]
    {
        assert_eq!(duration(text), Some(expected), "{text}");
    }
    for bad in ["", "s", "10", ".5s", "1.s", "1.0000000001s", "1e3s", "+1s", "--1s", "9999999999999s"] {
        assert_eq!(duration(bad), None, "{bad}");
    }
}

#[test]
fn refusals_say_where_and_why() {
    for line in golden("refused.txt").lines().filter(|line| !line.is_empty()) {
        let (document, words) = line.split_once(" => ").expect("a document and words");
        let value: Value = serde_json::from_str(document).expect("JSON");
        let error = to_wire(&schema::SUBSCRIPTION, &value).expect_err(document);
        assert!(error.message.contains(words), "{document}: {}", error.message);
    }
}

#[test]
fn damaged_bytes_are_refused_without_a_panic() {
    let value: Value = serde_json::from_str(&golden("subscription.json")).expect("JSON");
    let wire = to_wire(&schema::SUBSCRIPTION, &value).expect("wire");
    for cut in 0..wire.len() {
        let _ = from_wire(&schema::SUBSCRIPTION, wire[..cut].to_vec().into(), Enums::Names);
        let mut changed = wire.clone();
        changed[cut] ^= 0xff;
        let _ = from_wire(&schema::SUBSCRIPTION, changed.into(), Enums::Numbers);
    }
}

#[test]
fn enums_are_read_and_written_by_name_and_by_number() {
    let read = |value: Value| {
        let document = serde_json::json!({ "name": "n", "view": value });
        let wire = to_wire(&schema::GET_SCHEMA, &document).map_err(|error| error.message)?;
        Ok::<_, String>(pb::GetSchemaRequest::decode(&*wire).expect("a request").view)
    };
    for (value, expected) in [
        (serde_json::json!("FULL"), 2),
        (serde_json::json!("2"), 2),
        (serde_json::json!(2), 2),
        (serde_json::json!(2.0), 2),
        (serde_json::json!("0"), 0),
        (serde_json::json!("-1"), -1),
        // Enums of proto3 are open: what a later version adds is kept.
        (serde_json::json!("77"), 77),
    ] {
        assert_eq!(read(value.clone()), Ok(expected), "{value}");
    }
    for bad in ["full", "", "1.5", "0x1", "99999999999", "1e400", " 2"] {
        let error = read(serde_json::json!(bad)).expect_err(bad);
        assert!(error.starts_with("Invalid value at 'view' (TYPE_ENUM)"), "{error}");
    }
    assert!(read(serde_json::json!(true)).is_err() && read(serde_json::json!([2])).is_err());
    let schema = pb::Schema { r#type: 2, ..Default::default() }.encode_to_vec();
    let written =
        |enums| from_wire(&schema::SCHEMA, schema.clone().into(), enums).expect("a schema")["type"].clone();
    assert_eq!((written(Enums::Names), written(Enums::Numbers)), ("AVRO".into(), 2.into()));
}

#[test]
fn a_refusal_names_the_field() {
    for (document, field) in [
        (r#"{"ackDeadlineSeconds": "x"}"#, "ack_deadline_seconds"),
        (r#"{"retryPolicy": {"minimumBackoff": "x"}}"#, "retry_policy.minimum_backoff"),
        (r#"{"retryPolicy": {"nonsense": 1}}"#, "retry_policy"),
        (r#"{"nonsense": 1}"#, ""),
    ] {
        let value: Value = serde_json::from_str(document).expect("JSON");
        let error = to_wire(&schema::SUBSCRIPTION, &value).expect_err(document);
        assert_eq!(error.violations.len(), 1, "{document}");
        assert_eq!(error.violations[0].field, field, "{document}");
        assert_eq!(error.violations[0].description, error.message, "{document}");
    }
}
