//! Calls about messages: publish, pull, acknowledge, seek.

use serde_json::{Value, json};

use super::calls::{Call, Choice, Fields, Script};
use super::random::Random;

pub fn any(script: &Script, random: &mut Random, published: bool) -> Call {
    match random.below(10) {
        0..=3 => publish(script, random),
        4..=6 => pull(script, random, published),
        7 => acknowledge(script, random),
        8 => modify_deadline(script, random),
        _ => seek(script, random),
    }
}

fn attributes(count: usize) -> Value {
    Value::Object((0..count).map(|n| (format!("k{n}"), json!("v"))).collect())
}

fn publish(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    let messages: Vec<Choice> = vec![
        ("", json!([{ "data": "aGk=" }])),
        ("", json!([{ "data": "aGk=", "attributes": { "kind": "a" }, "orderingKey": "k" }])),
        ("", json!([{ "data": "YQ==" }, { "attributes": { "kind": "b" } }])),
        ("", json!([{ "data": "aGk=", "attributes": { "googclient_traceparent": "00-1" } }])),
        ("none", json!([])),
        ("empty message", json!([{}])),
        ("empty data", json!([{ "data": "" }])),
        ("key alone", json!([{ "orderingKey": "k" }])),
        ("unpadded", json!([{ "data": "aGk" }])),
        ("url alphabet", json!([{ "data": "-_8" }])),
        ("no base64", json!([{ "data": "a b" }])),
        ("number for data", json!([{ "data": 1 }])),
        ("reserved attribute", json!([{ "attributes": { "goog-a": "b" } }])),
        ("empty key", json!([{ "attributes": { "": "b" } }])),
        ("100 attributes", json!([{ "attributes": attributes(100) }])),
        ("101 attributes", json!([{ "attributes": attributes(101) }])),
        ("long key", json!([{ "attributes": { "k".repeat(257): "v" } }])),
        ("long value", json!([{ "attributes": { "k": "v".repeat(1_025) } }])),
        ("long ordering key", json!([{ "data": "aGk=", "orderingKey": "k".repeat(1_025) }])),
        ("1,001 messages", json!(vec![json!({ "data": "aGk=" }); 1_001])),
        ("unknown field", json!([{ "data": "aGk=", "nonsense": 1 }])),
        ("no list", json!({ "data": "aGk=" })),
    ];
    // Mostly such as are kept.
    let choices = if random.once_in(2) { &messages[..4] } else { &messages[..] };
    let mut fields = Fields::default();
    fields.maybe(random, 1, "messages", choices);
    fields.call(Call::new("Publish", "POST", format!("{}:publish", script.path("topics", &id))).with(what))
}

fn subscription(script: &Script, random: &mut Random, name: &'static str, action: &str) -> Call {
    let (id, what) = script.id(random, "sub");
    Call::new(name, "POST", format!("{}:{action}", script.path("subscriptions", &id))).with(what)
}

fn pull(script: &Script, random: &mut Random, published: bool) -> Call {
    let mut fields = Fields::default();
    let counts = [
        ("", json!(10)),
        ("", json!(1_000)),
        ("", json!("10")),
        ("0", json!(0)),
        ("negative", json!(-1)),
        ("more than 1,000", json!(1_001)),
        ("fraction", json!(1.5)),
        ("word", json!("x")),
    ];
    let choices = if random.once_in(3) { &counts[..] } else { &counts[..2] };
    fields.maybe(random, 1, "maxMessages", choices);
    fields.set("returnImmediately", true);
    fields.call(subscription(script, random, "Pull", "pull")).awaiting(published)
}

fn ids() -> Vec<Choice> {
    vec![
        ("leased", json!(["$LEASED0"])),
        ("none", json!([])),
        ("nonsense", json!(["nonsense"])),
        ("leased and nonsense", json!(["$LEASED0", "nonsense"])),
        ("twice", json!(["$LEASED0", "$LEASED0"])),
    ]
}

fn acknowledge(script: &Script, random: &mut Random) -> Call {
    let mut fields = Fields::default();
    fields.maybe(random, 1, "ackIds", &ids());
    fields.call(subscription(script, random, "Acknowledge", "acknowledge"))
}

fn modify_deadline(script: &Script, random: &mut Random) -> Call {
    let mut fields = Fields::default();
    fields.maybe(random, 1, "ackIds", &ids());
    let deadlines = [
        ("", json!(0)),
        ("", json!(10)),
        ("", json!(600)),
        ("5", json!(5)),
        ("601", json!(601)),
        ("negative", json!(-1)),
    ];
    fields.maybe(random, 1, "ackDeadlineSeconds", &deadlines);
    fields.call(subscription(script, random, "ModifyAckDeadline", "modifyAckDeadline"))
}

fn seek(script: &Script, random: &mut Random) -> Call {
    let mut fields = Fields::default();
    match random.below(6) {
        0 => fields.set("time", "2020-01-01T00:00:00Z"),
        1 => fields.set("time", "2200-01-01T00:00:00Z"),
        2 => fields.traits.push("target=none".to_owned()),
        3 => {
            fields.set("time", "yesterday");
            fields.traits.push("time=no time".to_owned());
        }
        _ => {
            let (id, what) = script.id(random, "snap");
            fields.set("snapshot", script.path("snapshots", &id));
            fields.traits.extend(what);
        }
    }
    fields.call(subscription(script, random, "Seek", "seek"))
}
