//! Subscriptions of the Pub/Sub bus: what the operations do, take and answer.

use serde_json::{Value, json};

use super::operations::{body, json_answer, path, query};
use super::reference;
use super::schemas::{count, list, object, or_null, text, time};

/// The documentation of one operation; `None` for one of another group.
pub fn describe(id: &str) -> Option<Value> {
    let limit = |most: u32| {
        let schema = json!({ "type": "integer", "minimum": 1, "maximum": most, "default": 100 });
        query("limit", "At most this many.", schema)
    };
    let name = || {
        [
            path("project", "The project of the subscription."),
            path("id", "The subscription's id in its project."),
        ]
    };
    let [project, own] = name();
    let mut operation = match id {
        "listSubscriptions" => json!({
            "summary": "List subscriptions with their figures",
            "description": "Those that the credential sees: all of its tenants' projects, and in the platform's \
                projects its tenants' own. Figures that grow count from the start of the server.",
            "parameters": [
                query("after", "Go on after this name, `project/id`.", json!({ "type": "string" })),
                limit(1_000),
            ],
            "responses": { "200": json_answer("Subscriptions, in the order of their names.", "Subscriptions") },
        }),
        "getSubscription" => json!({
            "summary": "One subscription: settings, backlog, delivery by tenant",
            "parameters": [project, own],
            "responses": { "200": json_answer("The subscription.", "Subscription") },
        }),
        "updateSubscription" => json!({
            "summary": "Change settings of a subscription",
            "description": "A merge patch: what is absent stays as it is. `weights` are shares of tenants in delivery; \
                null takes a tenant's weight, or all of them, away, and a tenant without one counts 1. A tenant's key \
                names its own tenants. `max_rate_per_s` bounds delivery; null ends the bound. Everything else of a subscription is changed by the Pub/Sub API.",
            "parameters": [project, own],
            "requestBody": body("SubscriptionPatch"),
            "responses": { "200": json_answer("The subscription as it is now.", "Subscription") },
        }),
        "listBlockedKeys" => json!({
            "summary": "Ordering keys whose messages wait",
            "description": "A key is blocked by the message that is on lease or fails; the longest blocked first.",
            "parameters": [project, own, limit(1_000)],
            "responses": { "200": json_answer("Blocked keys.", "BlockedKeys") },
        }),
        "skipBlockedKey" | "parkBlockedKey" => {
            let (summary, description) = if id == "skipBlockedKey" {
                (
                    "Acknowledge the message that blocks an ordering key",
                    "It is not delivered again; the next one of the key is.",
                )
            } else {
                (
                    "Move what blocks an ordering key to the dead letter",
                    "The blocking message and those that wait behind it go to the topic of the dead-letter policy.",
                )
            };
            json!({
                "summary": summary, "description": description, "parameters": [project, own],
                "requestBody": body("UnblockKey"),
                "responses": { "200": json_answer("The key is free.", "UnblockedKey") },
            })
        }
        "browseSubscription" => json!({
            "summary": "Look at the newest messages of a subscription's topic",
            "description": "Those that the subscription would get, newest first, acknowledged ones too as long as \
                the topic has them. Nothing is consumed.",
            "parameters": [
                project, own, limit(1_000),
                query("before", "Go on after this message, towards older ones.", count()),
                query("filter", "Only messages that it matches, in the grammar of Pub/Sub filters.", json!({ "type": "string" })),
            ],
            "responses": { "200": json_answer("Messages, and where to go on.", "BrowsedMessages") },
        }),
        "redriveSubscription" => json!({
            "summary": "Send dead letters of a subscription back to where they came from",
            "description": "For a subscription of a dead-letter topic: each message is published to the topic of the \
                subscription that it carries as its source, without the attributes of the dead letter, and then \
                acknowledged. What is not sent is given back, which counts as a delivery. A call ends after 20 s; \
                call again while `more` is true.",
            "parameters": [project, own],
            "requestBody": body("RedriveRequest"),
            "responses": { "200": json_answer("What was sent.", "RedriveResult") },
        }),
        "resendMessage" => json!({
            "summary": "Edit a dead letter and send it back to where it came from",
            "description": "For a subscription of a dead-letter topic: the message is leased, edited, published to the \
                topic of the subscription that it carries as its source, and acknowledged. One that cannot be leased \
                is refused (`message-not-waiting`) unless `even_if_taken` is set. Messages before it are leased for a \
                moment, which counts as a delivery.",
            "parameters": [project, own, path("message_id", "The dead letter, as browsing names it.")],
            "requestBody": body("ResendMessage"),
            "responses": { "200": json_answer("It was sent.", "ResentMessage") },
        }),
        "createReplay" => json!({
            "summary": "Replay what a subscription got into one beside it",
            "description": "Makes a subscription that delivers once more what the topic has from `from` until now, \
                with topic, tenant, filter and ordering of the one that is replayed, which notices nothing. It is \
                consumed as any other, is `finished` when everything is acknowledged, and then may be deleted.",
            "parameters": [project, own],
            "requestBody": body("NewReplay"),
            "responses": { "201": json_answer("The replay.", "Subscription") },
        }),
        _ => return None,
    };
    operation["tags"] = json!(["subscriptions"]);
    Some(operation)
}

/// The shapes of requests and answers.
pub fn schemas() -> Value {
    let flag = || json!({ "type": "boolean" });
    let seconds = || json!({ "type": "number", "minimum": 0 });
    let weight = |kind: Value| json!({ "type": kind, "minimum": 1, "maximum": 1000 });
    let rate = |kind: Value| json!({ "type": kind, "minimum": 1, "maximum": 1_000_000 });
    let tenant = json!({
        "tenant_id": text(), "weight": count(), "backlog_messages": count(), "delivered": count(),
        "delivered_bytes": count(), "share": { "type": "number", "minimum": 0, "maximum": 1 },
    });
    let stats = json!({
        "backlog_messages": count(), "backlog_is_exact": flag(), "leased": count(),
        "oldest_unacked_at": time(), "oldest_unacked_age_s": seconds(), "delivered": count(),
        "redelivered": count(), "acknowledged": count(), "expired": count(), "dead_lettered": count(),
        "blocked_keys": count(), "tenants": list(object(&["tenant_id", "backlog_messages"], tenant)),
    });
    let subscription = json!({
        "name": text(), "project": text(), "id": text(), "tenant_id": or_null("string"), "topic": or_null("string"),
        "delivery": { "enum": ["pull", "push"] }, "state": { "enum": ["healthy", "idle", "ended", "late", "stuck", "replaying", "finished"] }, "note": text(),
        "push_endpoint": text(), "ack_deadline_s": seconds(),
        "ordered": flag(), "exactly_once": flag(), "filter": text(), "retention_s": seconds(), "retain_acked": flag(),
        "expires_after_s": seconds(), "detached": flag(),
        "retry": object(&[], json!({ "minimum_backoff_s": seconds(), "maximum_backoff_s": seconds() })),
        "dead_letter": object(&[], json!({ "topic": text(), "max_delivery_attempts": count() })),
        "labels": { "type": "object", "additionalProperties": text() },
        "weights": { "type": "object", "additionalProperties": weight(json!("integer")) },
        "max_rate_per_s": rate(json!("integer")),
        "replay": object(&["source", "finished"], json!({ "source": text(), "finished": flag() })),
        "stats": reference("SubscriptionStats"),
    });
    let blocked = json!({
        "tenant_id": text(), "key": text(), "message_id": text(), "delivery_attempt": count(), "waiting": count(),
        "since": time(), "blocked_s": seconds(),
    });
    json!({
        "SubscriptionStats": object(&["backlog_messages", "backlog_is_exact", "leased", "delivered", "tenants"], stats),
        "Subscription": object(&["name", "project", "id", "delivery", "stats"], subscription),
        "Subscriptions": object(&["subscriptions"], json!({
            "subscriptions": list(reference("Subscription")),
            "after": { "type": "string", "description": "Pass it as `after` to go on; absent at the end." },
        })),
        "BlockedKeys": object(&["blocked_keys"], json!({
            "blocked_keys": list(object(&["tenant_id", "key", "message_id", "waiting", "since"], blocked)),
        })),
        "BrowsedMessages": object(&["messages"], json!({
            "messages": list(object(&["message_id", "tenant_id", "published_at", "attributes"], json!({
                "message_id": text(), "tenant_id": text(), "published_at": time(),
                "attributes": { "type": "object", "additionalProperties": text() },
                "ordering_key": text(), "payload": {}, "payload_base64": text(),
            }))),
            "before": { "type": "integer", "description": "Pass it as `before` to go on; absent at the end." },
        })),
        "RedriveRequest": object(&[], json!({
            "filter": { "type": "string", "maxLength": 256, "description": "Only messages that it matches, in the grammar of Pub/Sub filters." },
            "limit": { "type": "integer", "minimum": 1, "maximum": 10000, "default": 1000 },
            "rate_per_s": { "type": "number", "minimum": 0.1, "maximum": 100000 },
        })),
        "RedriveResult": object(&["published", "skipped", "refused", "more"], json!({
            "published": count(), "skipped": count(), "more": flag(),
            "refused": list(object(&["code", "count", "detail"], json!({
                "code": text(), "count": count(), "detail": text(),
            }))),
        })),
        "NewReplay": object(&["name", "from"], json!({
            "name": { "type": "string", "description": "The id of the new subscription, in the same project." },
            "from": { "oneOf": [
                { "const": "earliest" }, time(),
                object(&["snapshot"], json!({ "snapshot": { "type": "string", "description": "Its id, or `project/id`." } })),
            ] },
            "rate_per_s": rate(json!("integer")),
        })),
        "ResendMessage": object(&[], json!({
            "data": { "type": "string", "contentEncoding": "base64", "description": "A new body, instead of `json`." },
            "json": { "description": "A new body, any JSON value as it stands here." },
            "attributes": { "type": "object", "additionalProperties": or_null("string"),
                "description": "Attributes to set, and with null to take away." },
            "even_if_taken": { "type": "boolean", "default": false },
        })),
        "ResentMessage": object(&["topic", "message_id", "acknowledged"], json!({
            "topic": text(), "message_id": text(), "acknowledged": flag(),
        })),
        "SubscriptionPatch": object(&[], json!({
            "weights": { "type": ["object", "null"], "maxProperties": 10000,
                "additionalProperties": weight(json!(["integer", "null"])) },
            "max_rate_per_s": rate(json!(["integer", "null"])),
        })),
        "UnblockKey": object(&["tenant", "key"], json!({ "tenant": text(), "key": text() })),
        "UnblockedKey": object(&["tenant_id", "key", "done"], json!({
            "tenant_id": text(), "key": text(), "done": { "enum": ["skipped", "parked"] },
        })),
    })
}
