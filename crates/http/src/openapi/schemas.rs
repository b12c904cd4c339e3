//! The shapes of requests and answers.

use levada_core::Quota;
use serde_json::{Map, Value, json};

use super::reference;

/// All schemas by name.
pub fn all() -> Value {
    let mut schemas = Map::new();
    let groups = [
        problems(),
        events(),
        data(),
        dead_letters(),
        super::subscriptions::schemas(),
        super::pubsub_topics::schemas(),
        keys(),
        quotas(),
        operations(),
        status(),
    ];
    for group in groups {
        if let Value::Object(group) = group {
            schemas.extend(group);
        }
    }
    Value::Object(schemas)
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

fn short() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 512 })
}

pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(super) fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(super) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An object of exactly these properties.
pub(super) fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn quotas() -> Value {
    let names: Vec<&str> = Quota::ALL.into_iter().map(Quota::name).collect();
    let quota = object(
        &["owner", "quota", "what", "held", "limit", "refused"],
        json!({
            "owner": text(),
            "quota": { "type": "string", "enum": names },
            "what": text(),
            "held": count(),
            "limit": count(),
            "refused": { "type": "integer", "minimum": 0, "description": "Since the program started." },
        }),
    );
    let memory = object(
        &["name", "used_bytes", "limit_bytes"],
        json!({
            "name": text(), "used_bytes": count(), "limit_bytes": count(),
        }),
    );
    json!({ "Quotas": object(&["quotas"], json!({ "quotas": list(quota), "memory": list(memory) })) })
}

fn problems() -> Value {
    json!({ "Problem": object(&["type", "code", "title", "status", "detail", "request_id"], json!({
        "type": { "type": "string", "format": "uri" },
        "code": text(), "title": text(), "status": { "type": "integer" }, "detail": text(), "hint": text(),
        "retry_after_s": count(), "request_id": text(),
        "items": list(reference("EventRefused")),
    })) })
}

fn events() -> Value {
    let metadata = json!({
        "type": "object",
        "description": "correlation_id, causation_id, and further short values, kept as attributes `metadata.<name>`",
        "maxProperties": 32,
        "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
    });
    let event = json!({
        "type": "object",
        "description": "`type` stands for `event_type`, `data` for `payload`.",
        "additionalProperties": false,
        "properties": {
            "event_type": short(), "type": short(), "tenant_id": short(), "event_id": short(),
            "schema_version": { "type": ["string", "number"] }, "timestamp": time(), "source_service": short(),
            "correlation_id": short(), "causation_id": short(), "idempotency_key": short(), "ordering_key": short(),
            "traceparent": short(), "topic": short(), "payload": {}, "data": {}, "metadata": metadata,
        },
        "anyOf": [{ "required": ["event_type"] }, { "required": ["type"] }],
    });
    let cloud = json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "const": "1.0" }, "id": short(), "source": short(), "type": short(), "time": time(),
            "datacontenttype": short(), "data": {}, "data_base64": text(), "tenantid": short(),
        },
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    });
    let kept = json!({ "status": { "const": 202 }, "id": text(), "topic": text(), "offset": count(), "duplicate": { "type": "boolean" } });
    let refused = json!({ "index": count(), "status": { "type": "integer" }, "code": text(), "detail": text(), "hint": text() });
    json!({
        "Event": event,
        "CloudEvent": cloud,
        "EventKept": object(&["status", "id", "topic", "offset", "duplicate"], kept),
        "EventRefused": object(&["index", "status", "code", "detail"], refused),
        "EventResults": object(&["accepted", "duplicates", "rejected", "results"], json!({
            "accepted": count(), "duplicates": count(), "rejected": count(),
            "results": list(json!({ "oneOf": [reference("EventKept"), reference("EventRefused")] })),
        })),
    })
}

fn data() -> Value {
    let message = json!({
        "offset": count(), "tenant_id": text(), "published_at": time(),
        "attributes": { "type": "object", "additionalProperties": text() },
        "ordering_key": text(), "payload": {}, "payload_base64": text(),
    });
    let lane = object(
        &["tenant_id", "published"],
        json!({ "tenant_id": text(), "published": count(), "published_bytes": count() }),
    );
    json!({
        "SqlRequest": object(&["sql"], json!({
            "sql": text(), "params": list(json!({ "type": ["string", "number", "boolean", "null"] })),
            "max_rows": { "type": "integer", "minimum": 1 },
        })),
        "SqlResult": object(&["columns", "rows", "as_of", "truncated"], json!({
            "columns": list(object(&["name", "type"], json!({ "name": text(), "type": text() }))),
            "rows": list(json!({ "type": "array" })),
            "as_of": list(object(&["table", "version", "epochs"], json!({
                "table": text(), "version": count(),
                "epochs": { "type": "object", "additionalProperties": { "type": "integer" } },
            }))),
            "truncated": { "type": "boolean" },
        })),
        "Topics": object(&["topics"], json!({ "topics": list(object(&["name", "published", "lanes"], json!({
            "name": text(), "first": count(), "next": count(), "bytes": count(), "duplicates": count(),
            "durability": { "enum": ["fsync", "interval", "memory"] }, "commit_us_p50": count(), "commit_us_p99": count(),
            "published": count(), "published_bytes": count(), "lanes": list(lane),
        }))) })),
        "Messages": object(&["messages", "next"], json!({
            "messages": list(object(&["offset", "tenant_id", "published_at", "attributes"], message)),
            "next": count(),
        })),
    })
}

fn dead_letters() -> Value {
    let letter = json!({
        "topic": text(), "offset": count(), "tenant_id": text(), "failed_at": time(), "code": text(), "reason": text(),
        "stage": text(), "attempts": count(), "pipeline": text(), "source_topic": text(), "position": text(),
        "resent": { "type": "boolean" }, "attributes": { "type": "object", "additionalProperties": text() },
        "ordering_key": text(), "payload": {}, "payload_base64": text(),
    });
    json!({
        "DeadLetters": object(&["dead_letters"], json!({
            "dead_letters": list(object(&["topic", "offset", "tenant_id", "code", "reason", "resent"], letter)),
            "after": count(),
        })),
        "ResendRequest": object(&["topic"], json!({
            "topic": text(), "offsets": { "type": "array", "items": count(), "maxItems": 10000 },
            "all": { "type": "boolean" }, "reason": { "type": "string", "maxLength": 500 },
        })),
        "ResendResult": object(&["sent", "already_sent", "refused", "more"], json!({
            "sent": count(), "already_sent": count(), "more": { "type": "boolean" },
            "refused": list(object(&["offset", "status", "code", "detail"], json!({
                "offset": count(), "status": { "type": "integer" }, "code": text(), "detail": text(), "hint": text(),
            }))),
        })),
    })
}

fn keys() -> Value {
    let role =
        json!({ "enum": ["admin", "engineer", "analyst", "steward", "security", "service", "client"] });
    let tenants = json!({ "oneOf": [{ "const": "all" }, list(text())] });
    let key = json!({
        "id": text(), "name": text(), "tenants": tenants, "roles": list(role.clone()),
        "state": { "enum": ["active", "expired", "revoked"] },
        "created_at": time(), "expires_at": or_null("string"), "revoked_at": or_null("string"),
    });
    let mut created = key.clone();
    created["key"] = json!({ "type": "string", "description": "The secret: shown once." });
    json!({
        "Key": object(&["id", "name", "tenants", "roles", "state", "created_at"], key),
        "CreatedKey": object(&["id", "key"], created),
        "Keys": object(&["keys"], json!({ "keys": list(reference("Key")) })),
        "CreateKey": object(&["name", "roles"], json!({
            "name": { "type": "string", "minLength": 1, "maxLength": 100 }, "tenants": tenants,
            "roles": { "type": "array", "items": role, "minItems": 1 },
            "expires_at": time(), "expires_in_s": count(),
        })),
    })
}

fn operations() -> Value {
    let counts = json!({ "in": count(), "out": count(), "dropped": count(), "dead": count() });
    json!({
        "PipelineCounts": object(&["in", "out", "dropped", "dead"], counts),
        "Pipelines": object(&["pipelines"], json!({ "pipelines": list(object(&["name", "state", "counts"], json!({
            "name": text(), "tenant": or_null("string"), "description": or_null("string"),
            "state": { "enum": ["running", "waiting", "failed", "stopped"] }, "source": text(), "sink": text(),
            "waiting": list(text()), "error": or_null("string"), "counts": reference("PipelineCounts"),
            "backlog": or_null("integer"), "epoch": or_null("integer"), "committed_at_ms": or_null("integer"),
        }))) })),
        "Models": object(&["models"], json!({ "models": list(object(&["name", "state"], json!({
            "name": text(), "tenant": or_null("string"), "description": or_null("string"), "reads": list(text()),
            "schedule": text(), "state": { "enum": ["ready", "running", "waiting", "failed"] },
            "reason": or_null("string"), "rows": or_null("integer"), "last_run_ms": or_null("integer"),
            "last_duration_ms": or_null("integer"),
        }))) })),
        "ModelRun": object(&["name", "rows", "duration_ms"], json!({
            "name": text(), "rows": count(), "duration_ms": count(), "epoch": or_null("integer"),
        })),
    })
}

fn status() -> Value {
    let by_state = json!({ "type": "object", "additionalProperties": count() });
    json!({
        "Status": object(&["version", "started_at", "uptime_s", "ready", "tenants", "events"], json!({
            "version": text(), "started_at": time(), "uptime_s": count(), "ready": { "type": "boolean" },
            "tenants": list(text()),
            "events": object(&[], json!({ "accepted": count(), "duplicates": count(), "rejected": count() })),
            "topics": count(), "pipelines": by_state, "records": reference("PipelineCounts"), "models": by_state,
            "dead_letters": by_state,
            "freshness": object(&[], json!({ "p50_ms": or_null("number"), "p99_ms": or_null("number") })),
            "checks": list(object(&["name", "ok"], json!({ "name": text(), "ok": { "type": "boolean" }, "detail": or_null("string") }))),
        })),
        "Health": object(&["status"], json!({ "status": { "const": "up" } })),
        "Readiness": object(&["status", "failed", "degraded"], json!({
            "status": { "enum": ["ready", "degraded", "unready", "draining"] }, "failed": list(text()),
            "degraded": list(object(&["kind", "count"], json!({
                "kind": { "enum": ["pipeline", "model", "table", "document"] }, "count": count(),
                "parts": list(object(&["name", "reason"], json!({
                    "name": text(), "tenant": or_null("string"), "reason": text(),
                }))),
            }))),
        })),
    })
}
