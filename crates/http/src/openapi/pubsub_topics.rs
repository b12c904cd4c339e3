//! Topics of the Pub/Sub bus: what the operations do, take and answer.

use serde_json::{Value, json};

use super::operations::{body, json_answer, path, query};
use super::reference;
use super::schemas::{list, object, or_null, text};

/// The documentation of one operation; `None` for one of another group.
pub fn describe(id: &str) -> Option<Value> {
    let project = path("project", "The project of the topic.");
    let own = path("id", "The topic's id in its project.");
    let mut operation = match id {
        "listPubsubTopics" => json!({
            "summary": "List the topics of a Pub/Sub project with their settings",
            "description": "Nothing where the credential does not see the project.",
            "parameters": [
                project,
                query("after", "Go on after this name, `project/id`.", json!({ "type": "string" })),
                query("limit", "At most this many.", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })),
            ],
            "responses": { "200": json_answer("Topics, in the order of their names.", "PubsubTopics") },
        }),
        "getPubsubTopic" => json!({
            "summary": "Settings of a Pub/Sub topic",
            "parameters": [project, own],
            "responses": { "200": json_answer("The topic.", "PubsubTopic") },
        }),
        "updatePubsubTopic" => json!({
            "summary": "Set durability, deduplication and ordering of a Pub/Sub topic",
            "description": "A merge patch: what is absent stays as it is, null goes back to the default. Topics of \
                the platform's projects are changed by credentials for all tenants. Everything else of a topic is \
                changed by the Pub/Sub API, which leaves these settings alone.",
            "parameters": [project, own],
            "requestBody": body("PubsubTopicPatch"),
            "responses": { "200": json_answer("The topic as it is now.", "PubsubTopic") },
        }),
        _ => return None,
    };
    operation["tags"] = json!(["subscriptions"]);
    Some(operation)
}

/// The shapes of requests and answers.
pub fn schemas() -> Value {
    let durability = json!({
        "enum": ["fsync", "interval", "memory"],
        "description": "When a publish is answered: after the fsync, once written, or once in memory.",
    });
    let ordering = json!({
        "enum": ["tenant", "global"],
        "description": "Whether an ordering key keeps the order of one tenant's messages, or of all.",
    });
    let deduplication = |required: &[&str]| {
        let properties = json!({
            "attribute": { "type": "string", "minLength": 1, "maxLength": 256 },
            "window_s": { "type": "integer", "minimum": 1, "maximum": 604_800 },
        });
        json!({ "oneOf": [object(required, properties), { "type": "null" }] })
    };
    json!({
        "PubsubTopic": object(&["name", "project", "id", "tenant_id", "durability", "deduplication", "ordering"], json!({
            "name": text(), "project": text(), "id": text(), "tenant_id": or_null("string"), "durability": durability,
            "deduplication": deduplication(&["attribute", "window_s"]), "ordering": ordering,
            "retention_s": { "type": "number", "minimum": 0 }, "schema": text(),
            "labels": { "type": "object", "additionalProperties": text() },
        })),
        "PubsubTopics": object(&["topics"], json!({
            "topics": list(reference("PubsubTopic")),
            "after": { "type": "string", "description": "Pass it as `after` to go on; absent at the end." },
        })),
        "PubsubTopicPatch": object(&[], json!({
            "durability": { "oneOf": [durability, { "type": "null" }] }, "deduplication": deduplication(&[]),
            "ordering": { "oneOf": [ordering, { "type": "null" }] },
        })),
    })
}
