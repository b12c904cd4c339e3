//! What each operation does, takes and answers.

use serde_json::{Value, json};

use super::reference;

/// The documentation of one operation.
pub fn describe(id: &str) -> Value {
    match id {
        "postEvents" => post_events(),
        "querySql" => query_sql(),
        "listTopics" | "readMessages" => topics(id),
        "listDeadLetters" | "resendDeadLetters" => dead_letters(id),
        "listKeys" | "createKey" | "revokeKey" => keys(id),
        "listQuotas" => quotas(),
        "listPipelines" | "listModels" | "runModel" | "getStatus" => operations(id),
        _ => super::subscriptions::describe(id)
            .or_else(|| super::pubsub_topics::describe(id))
            .unwrap_or_else(|| health(id)),
    }
}

fn post_events() -> Value {
    let event = reference("Event");
    let cloud = reference("CloudEvent");
    json!({
        "tags": ["events"],
        "summary": "Publish one event or a batch",
        "description": "Answers 202 once every accepted event is on disk. A batch with at least one event kept \
            answers 202 with one result an event; a batch of which nothing was kept answers with a problem that \
            lists every event's own in `items`. In NDJSON a broken line is refused alone; in a JSON list it \
            refuses the request. Unknown envelope fields are refused by name: put data into `payload`. The \
            idempotency key defaults to `{event_type}:{tenant_id}:{event_id}` when the sender gives `event_id` \
            (for CloudEvents the source is part of it); the same key with the same payload answers as a \
            duplicate, with another payload as 409. The tenant is the event's `tenant_id`, else X-Tenant-ID, \
            else the credential's only one. Attributes of CloudEvents that the envelope does not know are kept \
            as `ce_<name>`. CloudEvents binary mode is read too.",
        "parameters": [
            query("topic", "Topic of events that name none themselves.", json!({ "type": "string" })),
            header("Idempotency-Key", "Idempotency key of a single event.", json!({ "type": "string", "maxLength": 512 })),
        ],
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": { "oneOf": [event, { "type": "array", "items": event, "minItems": 1, "maxItems": 10000 }] } },
            "application/x-ndjson": { "schema": { "type": "string", "description": "One event a line." } },
            "application/cloudevents+json": { "schema": cloud },
            "application/cloudevents-batch+json": { "schema": { "type": "array", "items": cloud } },
        } },
        "responses": { "202": answer("Kept, at least in part.", json!({ "application/json": { "schema": reference("EventResults") } })) },
    })
}

fn query_sql() -> Value {
    json!({
        "tags": ["data"],
        "summary": "Run one read-only SQL query",
        "description": "Over the tables of the credential's tenants and the zones of its roles. Answers JSON rows, \
            or CSV with `Accept: text/csv`. `levada-truncated` says whether a short answer was cut; a longer \
            CSV was cut if it has `levada-max-rows` rows.",
        "requestBody": body("SqlRequest"),
        "responses": { "200": answer("The result.", json!({
            "application/json": { "schema": reference("SqlResult") },
            "text/csv": { "schema": { "type": "string" } },
        })) },
    })
}

fn topics(id: &str) -> Value {
    if id == "listTopics" {
        return json!({
            "tags": ["data"], "summary": "List topics, with the caller's lanes",
            "responses": { "200": json_answer("Topics.", "Topics") },
        });
    }
    json!({
        "tags": ["data"],
        "summary": "Read messages of a topic",
        "description": "Only messages of the caller's tenants; offsets are of the topic, so there may be gaps. \
            With `wait_ms` the call waits for the first message.",
        "parameters": [
            path("topic", "The topic."),
            query("from", "An offset, `start` (default) or `end`.", json!({ "type": "string" })),
            query("limit", "At most this many messages.", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })),
            query("wait_ms", "Wait this long for a message.", json!({ "type": "integer", "minimum": 0, "maximum": 30000 })),
        ],
        "responses": { "200": json_answer("Messages, and where to read on.", "Messages") },
    })
}

fn dead_letters(id: &str) -> Value {
    if id == "listDeadLetters" {
        return json!({
            "tags": ["operations"],
            "summary": "List dead letters, newest first",
            "parameters": [
                query("topic", "A topic or its dead-letter topic.", json!({ "type": "string" })),
                query("pipeline", "Only of this pipeline.", json!({ "type": "string" })),
                query("code", "Only with this code.", json!({ "type": "string" })),
                query("after", "Go on after this offset, towards older ones; needs `topic`.", json!({ "type": "integer", "minimum": 0 })),
                query("limit", "At most this many.", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })),
            ],
            "responses": { "200": json_answer("Dead letters.", "DeadLetters") },
        });
    }
    json!({
        "tags": ["operations"],
        "summary": "Send dead letters again to the topic they came from",
        "description": "Each is sent once; what fails again is a new dead letter.",
        "requestBody": body("ResendRequest"),
        "responses": { "200": json_answer("What was sent.", "ResendResult") },
    })
}

fn keys(id: &str) -> Value {
    match id {
        "listKeys" => json!({
            "tags": ["keys"],
            "summary": "List API keys",
            "description": "Keys whose tenants all are the caller's. Never a secret. Needs the role admin.",
            "responses": { "200": json_answer("Keys.", "Keys") },
        }),
        "createKey" => json!({
            "tags": ["keys"],
            "summary": "Create an API key",
            "description": "The key is in this answer and never shown again. Its tenants lie within the creator's.",
            "requestBody": body("CreateKey"),
            "responses": { "201": json_answer("The key, with its secret.", "CreatedKey") },
        }),
        _ => json!({
            "tags": ["keys"],
            "summary": "Revoke an API key",
            "description": "Effective at once.",
            "parameters": [path("id", "The key's id, not its secret.")],
            "responses": { "200": json_answer("The revoked key.", "Key") },
        }),
    }
}

fn quotas() -> Value {
    json!({
        "tags": ["operations"],
        "summary": "List the caller's quotas and what is held of them",
        "description": "An owner is a tenant; a key of several tenants is an owner of its own. Administrators of the \
            platform also see what others hold, and the memory of the process.",
        "responses": { "200": json_answer("Quotas.", "Quotas") },
    })
}

fn operations(id: &str) -> Value {
    let tags = json!(["operations"]);
    match id {
        "listPipelines" => json!({
            "tags": tags,
            "summary": "List pipelines with their counts",
            "description": "Of a shared pipeline a caller sees the counts of its own tenants.",
            "responses": { "200": json_answer("Pipelines.", "Pipelines") },
        }),
        "listModels" => json!({
            "tags": tags, "summary": "List gold models",
            "responses": { "200": json_answer("Models.", "Models") },
        }),
        "runModel" => json!({
            "tags": tags,
            "summary": "Run a gold model now",
            "parameters": [path("name", "The model.")],
            "responses": { "200": json_answer("The run.", "ModelRun") },
        }),
        _ => json!({
            "tags": tags,
            "summary": "Overview for the caller's tenants",
            "responses": { "200": json_answer("The overview.", "Status") },
        }),
    }
}

fn health(id: &str) -> Value {
    let tags = json!(["health"]);
    let (summary, code, description, content) = match id {
        "getHealth" => ("Whether the process runs", "200", "It runs.", json_content("Health")),
        "getReadiness" => (
            "Whether the process may take traffic",
            "200",
            "It may; `degraded` lists failed pipelines and models, with a key those that it sees and why.",
            json_content("Readiness"),
        ),
        "getMetrics" => (
            "Metrics in the Prometheus text format",
            "200",
            "Metrics of the whole platform; needs a key for all tenants unless configured otherwise.",
            json!({ "text/plain": { "schema": { "type": "string" } } }),
        ),
        "getOpenApi" => (
            "This document",
            "200",
            "OpenAPI 3.1.",
            json!({ "application/json": { "schema": { "type": "object" } } }),
        ),
        other => panic!("the operation {other} has no documentation"),
    };
    json!({ "tags": tags, "summary": summary, "responses": { code: answer(description, content) } })
}

pub(super) fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": schema })
}

pub(super) fn path(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" } })
}

pub(super) fn body(schema: &str) -> Value {
    json!({ "required": true, "content": json_content(schema) })
}

fn json_content(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference(schema) } })
}

fn answer(description: &str, content: Value) -> Value {
    json!({ "description": description, "content": content })
}

pub(super) fn json_answer(description: &str, schema: &str) -> Value {
    answer(description, json_content(schema))
}
