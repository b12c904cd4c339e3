//! A second tenant sees nothing and changes nothing, at every address that exists.
//!
//! The addresses come from the OpenAPI document: a new route without a case here fails.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use levada_bus::DeadLetter;
use levada_core::Attributes;
use serde_json::{Value, json};

use super::support::{Answer, Call, FIGURE, Gateway, MARKER, create_key, only, tenant, topic};

/// Figures of tenant a or of the whole platform, which tenant b must not learn.
const TELLTALE: [&str; 2] = ["77700000", "155400000"];

async fn with_data_of_a() -> Gateway {
    let gateway = Gateway::start().await;
    let event =
        |kind: &str| json!({"type": kind, "event_id": format!("{MARKER}-{kind}"), "data": {"text": MARKER}});
    gateway
        .publish("client-a", json!([event("order.x"), event("secret.x"), event("other")]).to_string())
        .await;
    for name in ["orders", "a-private"] {
        let letter = DeadLetter {
            tenant: tenant("a"),
            code: format!("code-{MARKER}"),
            reason: MARKER.into(),
            stage: "validate".into(),
            attempts: 1,
            pipeline: format!("pipeline-{MARKER}"),
            position: "0".into(),
            attributes: Attributes::new(),
            ordering_key: None,
            body: Bytes::from(format!("{{\"text\":\"{MARKER}\"}}")),
            idempotency_key: "one".into(),
            resendable: true,
        };
        gateway.state.bus.dead_letter(&topic(name), vec![letter]).await.expect("a dead letter");
        gateway.visible(&format!("{name}-dlq"), 1).await;
    }
    gateway.publish("client-b", r#"{"type":"order.x","data":"of b"}"#).await;
    super::subscriptions::blocked_subscription_of_a(&gateway).await;
    gateway
}

/// What the platform's admin and tenant a see of everything.
async fn snapshot(gateway: &Gateway) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/v1/topics",
        "/v1/topics/orders/messages",
        "/v1/topics/a-private/messages",
        "/v1/topics/events/messages",
        "/v1/dead-letters",
        "/v1/keys",
        "/v1/pipelines",
        "/v1/models",
        "/v1/subscriptions",
        "/v1/pubsub/topics/project-a",
        "/v1/pubsub/topics/home",
    ] {
        for key in ["admin", "admin-a"] {
            seen.push(gateway.get(key, path).send().await.json());
        }
    }
    seen
}

/// Attempts at what is tenant a's, for one operation, as calls without a credential.
fn attempts(gateway: &Gateway, method: &str, path: &str, key_of_a: &str) -> Vec<Call> {
    let get = |path: &str| gateway.call(Method::GET, path);
    let post = |path: &str, body: String| gateway.call(Method::POST, path).json(body);
    let of_a = |kind: &str, extra: Value| {
        let mut event = json!({"type": kind, "data": 1});
        event.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        post("/v1/events", event.to_string())
    };
    match (method, path) {
        ("post", "/v1/events") => vec![
            of_a("order.y", json!({"tenant_id": "a"})),
            of_a("order.y", json!({"topic": "a-private"})),
            of_a("order.y", json!({"topic": "orders-dlq"})),
            post("/v1/events?topic=a-private", r#"{"type":"secret.x","data":1}"#.into()),
        ],
        ("post", "/v1/sql") => vec![
            post(path, json!({"sql": "select * from silver.of_a"}).to_string()),
            post(path, json!({"sql": "select * from bronze.orders"}).to_string()),
            post(path, json!({"sql": "show tables"}).to_string()),
        ],
        ("get", "/v1/topics/{topic}/messages") => vec![
            get("/v1/topics/a-private/messages"),
            get("/v1/topics/a-private-dlq/messages"),
            get("/v1/topics/orders/messages?from=0&limit=1000"),
            get("/v1/topics/orders-dlq/messages"),
            get("/v1/topics/events/messages?from=0"),
        ],
        ("get", "/v1/dead-letters") => vec![
            get(path),
            get("/v1/dead-letters?topic=a-private"),
            get("/v1/dead-letters?topic=orders&limit=1000"),
            get(&format!("/v1/dead-letters?code=code-{MARKER}")),
        ],
        ("post", "/v1/dead-letters/resend") => vec![
            post(path, json!({"topic": "orders", "all": true}).to_string()),
            post(path, json!({"topic": "orders-dlq", "offsets": [0]}).to_string()),
            post(path, json!({"topic": "a-private", "offsets": [0]}).to_string()),
        ],
        ("post", "/v1/keys") => vec![
            post(path, json!({"name": "k", "tenants": ["a"], "roles": ["client"]}).to_string()),
            post(path, json!({"name": "k", "tenants": "all", "roles": ["client"]}).to_string()),
        ],
        ("delete", "/v1/keys/{id}") => vec![gateway.call(Method::DELETE, &format!("/v1/keys/{key_of_a}"))],
        ("post", "/v1/models/{name}/run") => vec![
            post("/v1/models/a_model/run", String::new()),
            post("/v1/models/shared_model/run", String::new()),
        ],
        ("get", "/v1/subscriptions") => vec![get(path), get("/v1/subscriptions?after=a/aaa&limit=1000")],
        (method, path) if path.starts_with("/v1/subscriptions/{project}/{id}") => {
            let body = super::subscriptions::attempt(method, path);
            let address = |of: &str| path.replace("{project}/{id}", of).replace("{message_id}", "0");
            let call = |of: &str| match method {
                "get" => get(&address(of)),
                "patch" => gateway.call(Method::PATCH, &address(of)).json(body.clone()),
                _ => post(&address(of), body.clone()),
            };
            super::subscriptions::OF_A.into_iter().map(call).collect()
        }
        (method, path) if path.starts_with("/v1/pubsub/topics/{project}") => {
            let places = [("project-a", "orders"), ("project-a", "orders-dead"), ("home", "shared")];
            let address =
                |(project, id): (&str, &str)| path.replace("{project}", project).replace("{id}", id);
            let call = |place| match method {
                "get" => get(&address(place)),
                _ => gateway
                    .call(Method::PATCH, &address(place))
                    .json(json!({"deduplication": {"attribute": "order", "window_s": 60}}).to_string()),
            };
            places.into_iter().map(call).collect()
        }
        ("get", "/v1/topics" | "/v1/keys" | "/v1/pipelines" | "/v1/models" | "/v1/status" | "/v1/quotas") => {
            vec![get(path)]
        }
        ("get", "/healthz" | "/readyz" | "/metrics" | "/openapi.json") => vec![get(path)],
        _ => panic!("{method} {path} has no isolation case: add one"),
    }
}

fn assert_tells_nothing(answer: &Answer, what: &str) {
    let text = answer.text();
    assert!(!text.contains(MARKER), "{what}: {text}");
    for figure in TELLTALE {
        assert!(!text.contains(figure), "{what} tells {figure}: {text}");
    }
    assert!(answer.status.as_u16() < 500, "{what}: {text}");
}

fn operations() -> Vec<(String, String, bool)> {
    let document = levada_http::openapi_document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let closed = operation["security"].as_array().is_some_and(|s| !s.is_empty());
            operations.push((method.clone(), path.clone(), closed));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_tenant_sees_nothing_and_changes_nothing_anywhere() {
    let gateway = with_data_of_a().await;
    let before = snapshot(&gateway).await;
    let keys = gateway.get("admin-a", "/v1/keys").send().await.json();
    let key_of_a = keys["keys"][0]["id"].as_str().expect("a key of tenant a").to_owned();
    for (method, path, _) in operations() {
        for key in ["admin-b", "client-b"] {
            for (n, call) in attempts(&gateway, &method, &path, &key_of_a).into_iter().enumerate() {
                let answer = call.bearer(gateway.key(key)).send().await;
                let what = format!("{key} {method} {path} #{n}");
                if path != "/openapi.json" {
                    assert_tells_nothing(&answer, &what);
                }
            }
        }
        for call in attempts(&gateway, &method, &path, &key_of_a) {
            let answer = call.bearer(gateway.key("admin-b")).header("x-tenant-id", "a").send().await;
            if path.starts_with("/v1/") {
                answer.problem(403, "tenant-forbidden");
            }
        }
    }
    assert_eq!(gateway.operations.runs.load(Ordering::SeqCst), 0, "no model ran");
    assert_eq!(snapshot(&gateway).await, before, "nothing of tenant a or the platform has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_closed_address_is_closed_without_a_key_and_with_a_dead_one() {
    let gateway = with_data_of_a().await;
    let before = snapshot(&gateway).await;
    let (id, dead) =
        create_key(&gateway.ring, "dead", levada_core::TenantSet::All, &[levada_core::Role::Admin]);
    gateway.ring.revoke(&id).expect("revoked");
    let before_keys = gateway.get("admin", "/v1/keys").send().await.json();
    for (method, path, closed) in operations() {
        for call in attempts(&gateway, &method, &path, &id) {
            let answer = call.send().await;
            if closed {
                answer.problem(401, "unauthenticated");
            } else {
                assert!(answer.status.is_success(), "{path}: {}", answer.text());
            }
        }
        if closed {
            for call in attempts(&gateway, &method, &path, &id) {
                call.bearer(&dead).send().await.problem(401, "unauthenticated");
            }
        }
    }
    assert_eq!(gateway.operations.runs.load(Ordering::SeqCst), 0);
    assert_eq!(gateway.get("admin", "/v1/keys").send().await.json(), before_keys);
    let after: Vec<Value> = snapshot(&gateway).await;
    let without_keys = |all: Vec<Value>| all.into_iter().filter(|v| v["keys"].is_null()).collect::<Vec<_>>();
    assert_eq!(without_keys(after), without_keys(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_does_see_its_own() {
    let gateway = with_data_of_a().await;
    let read = |key: &'static str, path: &'static str| {
        let call = gateway.get(key, path);
        async move { call.send().await.json() }
    };
    let orders = read("admin-a", "/v1/topics/orders/messages").await;
    assert_eq!(orders["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(orders["messages"][0]["payload"]["text"], MARKER);
    let orders = read("admin-b", "/v1/topics/orders/messages").await;
    assert_eq!(orders["messages"][0]["payload"], "of b");
    let letters = read("admin-a", "/v1/dead-letters").await;
    assert_eq!(letters["dead_letters"].as_array().map(Vec::len), Some(2));
    assert_eq!(letters["dead_letters"][0]["reason"], MARKER);
    let topics = read("admin-b", "/v1/topics").await;
    let names: Vec<&str> =
        topics["topics"].as_array().expect("topics").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["events", "orders", "orders-dlq"]);
    let orders = &topics["topics"][1];
    assert_eq!((&orders["published"], &orders["next"]), (&json!(1), &Value::Null), "{orders}");
    assert_eq!(read("admin", "/v1/topics").await["topics"][0]["name"], "a-private");
    let run = gateway.post("engineer-a", "/v1/models/a_model/run", "").send().await;
    assert_eq!((run.status.as_u16(), gateway.operations.runs.load(Ordering::SeqCst)), (200, 1));
    gateway.post("engineer-a", "/v1/models/shared_model/run", "").send().await.problem(403, "role-forbidden");
    let status = read("client-b", "/v1/status").await;
    assert_eq!((&status["tenants"], &status["events"]["accepted"]), (&json!(["b"]), &json!(1)));
    assert_eq!(status["dead_letters"], Value::Null);
}

/// The figures of a pipeline as a key sees them.
async fn figures(gateway: &Gateway, key: &str, pipeline: &str) -> Value {
    let answer = gateway.get(key, "/v1/pipelines").send().await.json();
    let all = answer["pipelines"].as_array().expect("pipelines");
    let found = all.iter().find(|p| p["name"] == pipeline).expect("the pipeline");
    json!([found["counts"], found["backlog"], found["epoch"], found["committed_at_ms"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_shared_pipeline_a_tenant_sees_its_own_figures_and_all_of_them() {
    let gateway = with_data_of_a().await;
    let (_, both) =
        create_key(&gateway.ring, "engineer-ab", only(&["a", "b"]), &[levada_core::Role::Engineer]);
    let counts = |n: u64| json!({"in": n, "out": n + 1, "dropped": n + 2, "dead": n + 3});
    // Of two.
    let sum = |n: u64| json!({"in": n, "out": n + 2, "dropped": n + 4, "dead": n + 6});
    let of_a = json!([counts(FIGURE), FIGURE + 100, FIGURE + 4, FIGURE + 5]);
    assert_eq!(figures(&gateway, "admin-a", "shared_pipeline").await, of_a);
    assert_eq!(figures(&gateway, "admin-b", "shared_pipeline").await, json!([counts(10), 20, 14, 15]));
    let of_all = json!([counts(FIGURE + 10), FIGURE + 120, FIGURE + 4, FIGURE + 5]);
    assert_eq!(figures(&gateway, "admin", "shared_pipeline").await, of_all);
    let answer = gateway.call(Method::GET, "/v1/pipelines").bearer(&both).send().await.json();
    let shared = &answer["pipelines"][1];
    let of_both = sum(FIGURE + 10);
    assert_eq!((&shared["counts"], &shared["backlog"]), (&of_both, &json!(FIGURE + 120)));
    assert_eq!((&shared["epoch"], &shared["committed_at_ms"]), (&json!(FIGURE + 4), &json!(FIGURE + 5)));
    assert_eq!(shared["error"], "the pipeline failed; its operator knows why");

    let nothing = json!({"in": 0, "out": 0, "dropped": 0, "dead": 0});
    let unseen = json!([nothing, null, null, null]);
    assert_eq!(figures(&gateway, "admin-b", "pipeline_of_others").await, unseen);
    let unknown = json!([counts(FIGURE), null, FIGURE + 4, FIGURE + 5]);
    assert_eq!(figures(&gateway, "admin-a", "pipeline_of_others").await, unknown, "nobody knows whose wait");

    let records = |key: &'static str| {
        let call = gateway.get(key, "/v1/status");
        async move { call.send().await.json()["records"].clone() }
    };
    assert_eq!(records("client-b").await, counts(10));
    assert_eq!(records("client-a").await, sum(2 * FIGURE));
    assert_eq!(records("admin").await, sum(2 * FIGURE + 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_sent_again_once() {
    let gateway = with_data_of_a().await;
    let resend = |body: Value| gateway.post("engineer-a", "/v1/dead-letters/resend", body.to_string()).send();
    let first = resend(json!({"topic": "orders", "all": true, "reason": "mended"})).await.json();
    gateway.visible("orders", 3).await;
    assert_eq!(first, json!({"sent": 1, "already_sent": 0, "refused": [], "more": false}));
    let again = resend(json!({"topic": "orders-dlq", "offsets": [0, 99]})).await.json();
    assert_eq!((&again["sent"], &again["already_sent"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&again["refused"][0]["offset"], &again["refused"][0]["code"]),
        (&json!(99), &json!("dead-letter-unknown"))
    );
    let orders = gateway.get("engineer-a", "/v1/topics/orders/messages").send().await.json();
    assert_eq!(orders["messages"].as_array().map(Vec::len), Some(2), "back in its topic");
    let letters = gateway.get("engineer-a", "/v1/dead-letters?topic=orders").send().await.json();
    assert_eq!(letters["dead_letters"][0]["resent"], true);
}
