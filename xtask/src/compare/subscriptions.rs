//! Calls about subscriptions and snapshots.

use serde_json::{Value, json};

use super::calls::{Call, Choice, Fields, Script};
use super::random::Random;
use super::topics::{labels, list, retentions};

pub fn any(script: &Script, random: &mut Random) -> Call {
    match random.below(15) {
        0..=3 => create(script, random),
        4 => one(script, random, "GetSubscription", "GET", ""),
        5 => list(script, random, "ListSubscriptions", "subscriptions"),
        6..=8 => update(script, random),
        9 => modify_push(script, random),
        10 if random.once_in(3) => one(script, random, "DeleteSubscription", "DELETE", ""),
        10 if random.once_in(2) => {
            one(script, random, "DetachSubscription", "POST", ":detach").body(json!({}))
        }
        _ => snapshots(script, random),
    }
}

fn one(script: &Script, random: &mut Random, name: &'static str, method: &'static str, action: &str) -> Call {
    let (id, what) = script.id(random, "sub");
    Call::new(name, method, format!("{}{action}", script.path("subscriptions", &id))).with(what)
}

/// What a subscription can be given at its creation and later.
fn changeable(script: &Script, random: &mut Random, times: usize, fields: &mut Fields) {
    let deadlines = [
        ("", json!(10)),
        ("", json!(600)),
        ("0", json!(0)),
        ("5", json!(5)),
        ("601", json!(601)),
        ("-1", json!(-1)),
        ("word", json!("x")),
        ("text", json!("20")),
    ];
    fields.maybe(random, times, "ackDeadlineSeconds", &deadlines);
    fields.maybe(random, times, "retainAckedMessages", &[("", json!(true)), ("text", json!("true"))]);
    fields.maybe(random, times, "messageRetentionDuration", &retentions());
    fields.maybe(random, times, "labels", &labels());
    let ttls: [Choice; 5] = [
        ("", json!({ "ttl": "86400s" })),
        ("never", json!({})),
        ("short", json!({ "ttl": "3600s" })),
        ("long", json!({ "ttl": "31536001s" })),
        ("negative", json!({ "ttl": "-1s" })),
    ];
    fields.maybe(random, times, "expirationPolicy", &ttls);
    let dead = |topic: &str, attempts: i64| json!({ "deadLetterTopic": script.path("topics", topic), "maxDeliveryAttempts": attempts });
    let policies = [
        ("maybe there", dead("topic-0", 5)),
        ("maybe there", dead("topic-1", 100)),
        ("missing", dead("topic-9", 5)),
        ("4 attempts", dead("topic-0", 4)),
        ("101 attempts", dead("topic-0", 101)),
        ("0 attempts", dead("topic-0", 0)),
        ("missing, 4 attempts", dead("topic-9", 4)),
        ("no topic", json!({ "maxDeliveryAttempts": 5 })),
        ("no path", json!({ "deadLetterTopic": "topic-0" })),
    ];
    fields.maybe(random, times, "deadLetterPolicy", &policies);
    let retries = [
        ("", json!({ "minimumBackoff": "10s", "maximumBackoff": "600s" })),
        ("", json!({ "minimumBackoff": "0s" })),
        ("maximum alone", json!({ "maximumBackoff": "5s" })),
        ("crossed", json!({ "minimumBackoff": "20s", "maximumBackoff": "10s" })),
        ("long", json!({ "maximumBackoff": "601s" })),
        ("negative", json!({ "minimumBackoff": "-1s" })),
        ("empty", json!({})),
    ];
    fields.maybe(random, times, "retryPolicy", &retries);
    fields.maybe(random, times * 2, "enableExactlyOnceDelivery", &[("", json!(true))]);
    fields.maybe(random, times * 2, "pushConfig", &pushes());
}

fn pushes() -> Vec<Choice> {
    vec![
        ("", json!({})),
        ("there", json!({ "pushEndpoint": "http://127.0.0.1:9/push" })),
        ("no address", json!({ "pushEndpoint": "nonsense" })),
        ("no scheme", json!({ "pushEndpoint": "127.0.0.1:9/push" })),
        ("attributes alone", json!({ "attributes": { "x-goog-version": "v1" } })),
    ]
}

pub fn create(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "sub");
    let mut fields = Fields::default();
    let topics = [
        ("", json!(script.path("topics", "topic-0"))),
        ("", json!(script.path("topics", "topic-0"))),
        ("", json!(script.path("topics", "topic-1"))),
        ("", json!(script.path("topics", "topic-1"))),
        ("no path", json!("topic-0")),
        ("other collection", json!(script.path("subscriptions", "topic-0"))),
        ("deleted", json!("_deleted-topic_")),
    ];
    fields.maybe(random, 1, "topic", &topics);
    if random.once_in(20) {
        fields.object.remove("topic");
        fields.traits = vec!["topic=absent".to_owned()];
    }
    changeable(script, random, 9, &mut fields);
    let long = format!("attributes.a = \"{}\"", "x".repeat(300));
    let filters = [
        ("", json!("attributes.kind = \"a\"")),
        ("", json!("hasPrefix(attributes.kind, \"a\") AND NOT attributes:b")),
        ("no filter", json!("nonsense =")),
        ("long", json!(long)),
    ];
    fields.maybe(random, 12, "filter", &filters);
    fields.maybe(random, 8, "enableMessageOrdering", &[("", json!(true))]);
    fields.maybe(random, 30, "nonsense", &[("unknown field", json!(1))]);
    fields.call(Call::new("CreateSubscription", "PUT", script.path("subscriptions", &id)).with(what))
}

fn update(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "sub");
    let mut given = Fields::default();
    changeable(script, random, 4, &mut given);
    let names: Vec<String> = given.object.keys().cloned().collect();
    let mut mask = names.join(",");
    let mut fields = Fields { traits: std::mem::take(&mut given.traits), ..Fields::default() };
    if random.once_in(6) {
        let (what, wrong) = *random.pick(&[
            ("topic", "topic"),
            ("filter", "filter"),
            ("ordering", "enableMessageOrdering"),
            ("unknown", "nonsense"),
            ("empty", ""),
            ("not given", "ackDeadlineSeconds,retryPolicy"),
            ("nested", "retryPolicy.minimumBackoff"),
            ("snake", "ack_deadline_seconds"),
        ]);
        mask = wrong.to_owned();
        fields.traits.push(format!("updateMask={what}"));
    } else {
        // What the emulator cannot change.
        let fixed = names.iter().filter(|name| ["labels", "expirationPolicy"].contains(&name.as_str()));
        fields.traits.extend(fixed.map(|name| format!("updateMask={name}")));
    }
    fields.set("subscription", Value::Object(given.object));
    if mask.is_empty() {
        fields.traits.push("updateMask=absent".to_owned());
    } else {
        fields.set("updateMask", mask);
    }
    fields.call(Call::new("UpdateSubscription", "PATCH", script.path("subscriptions", &id)).with(what))
}

fn modify_push(script: &Script, random: &mut Random) -> Call {
    let call = one(script, random, "ModifyPushConfig", "POST", ":modifyPushConfig");
    let mut fields = Fields::default();
    fields.maybe(random, 1, "pushConfig", &pushes());
    if random.once_in(8) {
        fields = Fields { traits: vec!["pushConfig=absent".to_owned()], ..Fields::default() };
    }
    fields.call(call)
}

fn snapshots(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "snap");
    let path = script.path("snapshots", &id);
    match random.below(7) {
        0 | 1 => {
            let (subscription, of) = script.id(random, "sub");
            let mut fields = Fields::default();
            fields.set("subscription", script.path("subscriptions", &subscription));
            fields.maybe(random, 6, "labels", &labels());
            fields.call(Call::new("CreateSnapshot", "PUT", path).with(what).with(of))
        }
        2 => Call::new("GetSnapshot", "GET", path).with(what),
        3 => list(script, random, "ListSnapshots", "snapshots"),
        4 => Call::new("DeleteSnapshot", "DELETE", path).with(what),
        _ => {
            let mut given = Fields::default();
            given.maybe(random, 2, "labels", &labels());
            let masks = [
                ("", json!("labels")),
                ("topic", json!("topic")),
                ("unknown", json!("nonsense")),
                ("empty", json!("")),
            ];
            let mut fields = Fields { traits: std::mem::take(&mut given.traits), ..Fields::default() };
            fields.set("snapshot", Value::Object(given.object));
            fields.maybe(random, 1, "updateMask", &masks);
            fields.call(Call::new("UpdateSnapshot", "PATCH", path).with(what))
        }
    }
}
