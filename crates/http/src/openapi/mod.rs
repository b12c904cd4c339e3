//! The OpenAPI 3.1 document, made from the table of routes.
//!
//! A route without documentation panics when the document is first made, which a test does.

mod operations;
mod pubsub_topics;
mod schemas;
mod subscriptions;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::routes::{Access, ENDPOINTS, Endpoint};

/// The document served at `/openapi.json`.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(build)
}

fn build() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        item[endpoint.method.as_str().to_ascii_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Levada",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events in, tables out. Every refusal is application/problem+json with a stable `code`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "events", "description": "Publish events" },
            { "name": "data", "description": "Query tables and read topics" },
            { "name": "operations", "description": "Pipelines, models, dead letters, status" },
            { "name": "subscriptions", "description": "Subscriptions and topics of the Pub/Sub bus" },
            { "name": "keys", "description": "API keys" },
            { "name": "health", "description": "Probes, metrics, this document" },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
            "parameters": {
                "tenant": {
                    "name": "X-Tenant-ID", "in": "header", "schema": { "type": "string" },
                    "description": "Narrows the request to one of the credential's tenants.",
                },
                "requestId": {
                    "name": "X-Request-ID", "in": "header", "schema": { "type": "string", "maxLength": 128 },
                    "description": "Names the request; made if absent, and always answered.",
                },
            },
            "responses": {
                "Problem": {
                    "description": "A refusal: `code` is stable, `detail` says what is wrong, `hint` what mends it.",
                    "content": { "application/problem+json": { "schema": reference("Problem") } },
                },
            },
            "schemas": schemas::all(),
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = operations::describe(endpoint.id);
    operation["operationId"] = json!(endpoint.id);
    operation["responses"]["default"] = json!({ "$ref": "#/components/responses/Problem" });
    let mut parameters = vec![json!({ "$ref": "#/components/parameters/requestId" })];
    operation["security"] = match endpoint.access {
        Access::Open => json!([]),
        Access::Configured => json!([{ "bearer": [] }, { "apiKey": [] }, {}]),
        Access::Key => {
            parameters.push(json!({ "$ref": "#/components/parameters/tenant" }));
            json!([{ "bearer": [] }, { "apiKey": [] }])
        }
    };
    if let Some(own) = operation["parameters"].as_array() {
        parameters.extend(own.iter().cloned());
    }
    operation["parameters"] = Value::from(parameters);
    operation
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_once_and_with_its_path_parameters() {
        let document = document();
        let mut ids = BTreeSet::new();
        for endpoint in ENDPOINTS {
            let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_ascii_lowercase()];
            assert!(ids.insert(endpoint.id), "{} comes twice", endpoint.id);
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{}", endpoint.id);
            let named: BTreeSet<&str> = endpoint.path.split(['{', '}']).skip(1).step_by(2).collect();
            let parameters = operation["parameters"].as_array().expect("a list");
            let documented: BTreeSet<&str> =
                parameters.iter().filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
            assert_eq!(named, documented, "{}", endpoint.path);
            let closed = operation["security"].as_array().is_some_and(|s| !s.is_empty());
            assert_eq!(closed, endpoint.access != Access::Open, "{}", endpoint.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| references(v, found));
                }
                Value::Array(list) => list.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        references(document(), &mut found);
        assert!(found.len() > 10);
        for reference in &found {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(document().pointer(pointer).is_some(), "{reference}");
        }
        for schema in document()["components"]["schemas"].as_object().expect("schemas").keys() {
            assert!(found.contains(&format!("#/components/schemas/{schema}")), "nothing uses {schema}");
        }
    }
}
