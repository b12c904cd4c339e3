//! Calls about topics.

use serde_json::{Value, json};

use super::calls::{Call, Choice, Fields, Script};
use super::random::Random;

pub fn any(script: &Script, random: &mut Random) -> Call {
    match random.below(8) {
        0 | 1 => create(script, random),
        2 => get(script, random),
        3 => list(script, random, "ListTopics", "topics"),
        4 | 5 => update(script, random),
        6 => of_topic(script, random),
        _ if random.once_in(2) => delete(script, random),
        _ => get(script, random),
    }
}

/// Labels, good and bad.
pub fn labels() -> Vec<Choice> {
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    vec![
        ("", json!({ "team": "red" })),
        ("", json!({})),
        ("upper case", json!({ "Team": "red" })),
        ("digit first", json!({ "1a": "red" })),
        ("long", json!({ "a".repeat(64): "red" })),
        ("many", Value::Object(many)),
        ("number", json!({ "team": 1 })),
    ]
}

/// Retentions, good and bad.
pub fn retentions() -> Vec<Choice> {
    vec![
        ("", json!("600s")),
        ("", json!("86400s")),
        ("31 days", json!("2678400s")),
        ("599 s", json!("599s")),
        ("31 days and more", json!("2678401s")),
        ("negative", json!("-600s")),
        ("no duration", json!("10m")),
        ("number", json!(600)),
    ]
}

pub fn create(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    let mut fields = Fields::default();
    fields.maybe(random, 6, "labels", &labels());
    fields.maybe(random, 6, "messageRetentionDuration", &retentions());
    let settings = |schema: &str, encoding: &str| {
        let schema = script.path("schemas", schema);
        json!({ "schema": schema, "encoding": encoding })
    };
    let schemas = [
        ("maybe there", settings("schema-0", "JSON")),
        ("missing", settings("schema-9", "JSON")),
        ("no encoding", settings("schema-0", "ENCODING_UNSPECIFIED")),
        ("no path", json!({ "schema": "schema-0", "encoding": "JSON" })),
    ];
    fields.maybe(random, 14, "schemaSettings", &schemas);
    fields.maybe(random, 30, "kmsKeyName", &[("", json!("projects/p/locations/l/keyRings/r/cryptoKeys/k"))]);
    fields.maybe(random, 30, "nonsense", &[("unknown field", json!(1))]);
    fields.call(Call::new("CreateTopic", "PUT", script.path("topics", &id)).with(what))
}

fn get(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    Call::new("GetTopic", "GET", script.path("topics", &id)).with(what)
}

fn delete(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    Call::new("DeleteTopic", "DELETE", script.path("topics", &id)).with(what)
}

/// A list of a project.
pub fn list(script: &Script, random: &mut Random, name: &'static str, collection: &str) -> Call {
    let (what, query) = page(random);
    Call::new(name, "GET", format!("projects/{}/{collection}{query}", script.project)).with(what)
}

fn page(random: &mut Random) -> (Option<String>, &'static str) {
    let (what, query) = *random.pick(&[
        ("", ""),
        ("", "?pageSize=10"),
        ("one", "?pageSize=1"),
        ("", "?page_size=0"),
        ("many", "?pageSize=100000"),
        ("negative", "?pageSize=-1"),
        ("token", "?pageToken=nonsense"),
    ]);
    ((!what.is_empty()).then(|| format!("page={what}")), query)
}

fn of_topic(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    let (name, listed) =
        *random.pick(&[("ListTopicSubscriptions", "subscriptions"), ("ListTopicSnapshots", "snapshots")]);
    let (page, query) = page(random);
    let path = format!("{}/{listed}{query}", script.path("topics", &id));
    Call::new(name, "GET", path).with(what).with(page)
}

fn update(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "topic");
    let mut topic = Fields::default();
    topic.maybe(random, 2, "labels", &labels());
    topic.maybe(random, 2, "messageRetentionDuration", &retentions());
    let masks = [
        ("labels", json!("labels")),
        ("", json!("messageRetentionDuration")),
        ("", json!("message_retention_duration")),
        ("name", json!("name")),
        ("unknown", json!("nonsense")),
        ("empty", json!("")),
        ("nested", json!("labels.team")),
    ];
    let mut fields = Fields { traits: std::mem::take(&mut topic.traits), ..Fields::default() };
    fields.set("topic", Value::Object(topic.object));
    fields.maybe(random, 1, "updateMask", &masks);
    if random.once_in(12) {
        fields.object.remove("updateMask");
        fields.traits.retain(|what| !what.starts_with("updateMask"));
        fields.traits.push("updateMask=absent".to_owned());
    }
    fields.call(Call::new("UpdateTopic", "PATCH", script.path("topics", &id)).with(what))
}
