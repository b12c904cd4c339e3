//! Who sees and does what, through the REST door with keys of several tenants.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use levada_core::{
    Authenticator, Principal, Problem, ProjectId, RandomIds, SystemClock, TenantId, TenantSet,
};
use levada_pubsub::{
    Guards, MemoryPolicies, NoSchemas, Owner, Parts, Projects, PubsubApi, PubsubConfig, router,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Keys are written `tenant/role`.
struct Keys;

impl Authenticator for Keys {
    fn is_valid(&self, _: &levada_core::Principal) -> bool {
        true
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        let unknown = || Problem::new(401, "unauthenticated", "the key is unknown");
        let (tenant, role) = secret.split_once('/').ok_or_else(unknown)?;
        let tenants = match tenant {
            "all" => TenantSet::All,
            one => TenantSet::Only([TenantId::new(one).map_err(|_| unknown())?].into()),
        };
        let roles = [role.parse().map_err(|_| unknown())?].into();
        Ok(Arc::new(Principal { id: secret.into(), name: secret.into(), tenants, roles }))
    }
}

struct World(Router);

impl World {
    fn new() -> Self {
        let project = |name: &str| ProjectId::new(name).expect("a project");
        let acme = Owner::Tenant(TenantId::new("acme").expect("a tenant"));
        let api = PubsubApi::new(Parts {
            bus: Arc::new(super::memory::MemoryBus::default()),
            authenticator: Arc::new(Keys),
            projects: Arc::new(Projects::new([
                (project("shared"), Owner::Platform),
                (project("acme"), acme),
            ])),
            schemas: Arc::new(NoSchemas),
            policies: Arc::new(MemoryPolicies::default()),
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(RandomIds),
            guards: Guards::default(),
            config: PubsubConfig::default(),
        });
        Self(router(&api))
    }

    async fn ask(&self, key: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/projects/{path}"))
            .header("authorization", format!("Bearer {key}"))
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("a request");
        let answer = self.0.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn status(&self, key: &str, method: Method, path: &str, body: Value) -> u16 {
        self.ask(key, method, path, body).await.0.as_u16()
    }

    async fn publish(&self, key: &str, topic: &str, tenants: &[Option<&str>]) -> u16 {
        let message = |tenant: &Option<&str>| match tenant {
            Some(tenant) => json!({"data": "eA==", "attributes": {"tenant_id": tenant}}),
            None => json!({"data": "eA=="}),
        };
        let messages: Vec<Value> = tenants.iter().map(message).collect();
        self.status(key, Method::POST, &format!("{topic}:publish"), json!({ "messages": messages })).await
    }

    /// The tenants of what a subscription gives.
    async fn tenants(&self, key: &str, subscription: &str) -> Vec<String> {
        let body = json!({"maxMessages": 100, "returnImmediately": true});
        let (status, answer) = self.ask(key, Method::POST, &format!("{subscription}:pull"), body).await;
        assert_eq!(status, 200, "{answer}");
        let messages = answer["receivedMessages"].as_array().cloned().unwrap_or_default();
        let tenant =
            |m: &Value| m["message"]["attributes"]["tenant_id"].as_str().unwrap_or("none").to_owned();
        messages.iter().map(tenant).collect()
    }
}

#[tokio::test]
async fn tenants_share_topics_of_the_platform_and_see_their_own_only() {
    let world = World::new();
    let topic = "shared/topics/events";
    let make =
        |name: &str| (format!("shared/subscriptions/{name}"), json!({"topic": format!("projects/{topic}")}));
    assert_eq!(world.status("acme/engineer", Method::PUT, topic, json!({})).await, 403);
    assert_eq!(world.status("all/engineer", Method::PUT, topic, json!({})).await, 200);
    for (key, name) in [("acme/engineer", "acme"), ("other/engineer", "other"), ("all/engineer", "all-of-it")]
    {
        let (path, body) = make(name);
        assert_eq!(world.status(key, Method::PUT, &path, body).await, 200, "{name}");
    }

    assert_eq!(world.publish("acme/service", topic, &[None, Some("acme")]).await, 200);
    assert_eq!(world.publish("acme/service", topic, &[Some("acme"), Some("other")]).await, 403);
    assert_eq!(world.publish("other/client", topic, &[Some("other")]).await, 200);
    assert_eq!(world.publish("all/service", topic, &[None]).await, 400);
    assert_eq!(world.publish("acme/analyst", topic, &[None]).await, 403);

    assert_eq!(world.tenants("acme/service", "shared/subscriptions/acme").await, ["acme", "acme"]);
    assert_eq!(world.tenants("other/service", "shared/subscriptions/other").await, ["other"]);
    assert_eq!(
        world.tenants("all/service", "shared/subscriptions/all-of-it").await,
        ["acme", "acme", "other"]
    );

    let (_, listed) = world.ask("acme/engineer", Method::GET, "shared/subscriptions", Value::Null).await;
    assert_eq!(listed["subscriptions"].as_array().map(Vec::len), Some(1));
    let (_, listed) =
        world.ask("acme/engineer", Method::GET, "shared/topics/events/subscriptions", Value::Null).await;
    assert_eq!(listed["subscriptions"], json!(["projects/shared/subscriptions/acme"]));
    assert_eq!(world.status("acme/admin", Method::DELETE, topic, Value::Null).await, 403);
}

#[tokio::test]
async fn what_is_foreign_answers_like_what_is_missing() {
    let world = World::new();
    world.status("all/engineer", Method::PUT, "shared/topics/events", json!({})).await;
    let body = json!({"topic": "projects/shared/topics/events"});
    world.status("other/engineer", Method::PUT, "shared/subscriptions/foreign", body).await;
    world.status("acme/engineer", Method::PUT, "acme/topics/orders", json!({})).await;
    for (method, action, body) in [
        (Method::GET, "", Value::Null),
        (Method::DELETE, "", Value::Null),
        (Method::POST, ":pull", json!({"maxMessages": 1, "returnImmediately": true})),
        (Method::POST, ":acknowledge", json!({"ackIds": ["x"]})),
        (Method::POST, ":seek", json!({"time": "2026-01-01T00:00:00Z"})),
        (Method::POST, ":detach", Value::Null),
    ] {
        let ask = async |name: &str| {
            let path = format!("shared/subscriptions/{name}{action}");
            let (status, answer) = world.ask("acme/engineer", method.clone(), &path, body.clone()).await;
            (status.as_u16(), answer.to_string().replace(name, "NAME"))
        };
        let foreign = ask("foreign").await;
        assert_eq!(foreign.0, 404, "{action}");
        assert_eq!(foreign, ask("missing").await, "{action}");
    }
    let ask = async |project: &str| {
        let path = format!("{project}/topics/orders");
        let (status, answer) = world.ask("other/engineer", Method::GET, &path, Value::Null).await;
        (status.as_u16(), answer)
    };
    assert_eq!(ask("acme").await, ask("nowhere").await);
    assert_eq!(world.status("other/engineer", Method::GET, "acme/topics", Value::Null).await, 404);
    assert_eq!(world.status("other/engineer", Method::PUT, "acme/topics/theirs", json!({})).await, 404);
}

#[tokio::test]
async fn a_project_of_a_tenant_is_wholly_that_tenants() {
    let world = World::new();
    assert_eq!(world.status("acme/engineer", Method::PUT, "acme/topics/orders", json!({})).await, 200);
    let body = json!({"topic": "projects/acme/topics/orders"});
    assert_eq!(
        world.status("acme/engineer", Method::PUT, "acme/subscriptions/orders", body.clone()).await,
        200
    );
    assert_eq!(world.status("acme/service", Method::PUT, "acme/subscriptions/more", body).await, 403);
    assert_eq!(world.publish("acme/service", "acme/topics/orders", &[None, Some("any-value")]).await, 200);
    assert_eq!(world.tenants("acme/service", "acme/subscriptions/orders").await, ["none", "any-value"]);
    let without = Request::get("/v1/projects/acme/topics").body(Body::empty()).expect("a request");
    let answer = world.0.clone().oneshot(without).await.expect("an answer");
    assert_eq!(answer.status(), 401);
    assert!(answer.headers().contains_key("www-authenticate"));
}

#[tokio::test]
async fn a_name_that_another_tenant_took_is_neither_told_nor_shared() {
    let world = World::new();
    world.status("all/engineer", Method::PUT, "shared/topics/events", json!({})).await;
    let body = json!({"topic": "projects/shared/topics/events"});
    let path = "shared/subscriptions/jobs";
    let full = format!("projects/{path}");
    for key in ["acme/admin", "other/admin"] {
        let (status, made) = world.ask(key, Method::PUT, path, body.clone()).await;
        assert_eq!((status.as_u16(), &made["name"]), (200, &json!(full)), "{key}: {made}");
        assert_eq!(
            world.status(key, Method::PUT, path, body.clone()).await,
            409,
            "{key}: its own name is taken"
        );
    }
    assert_eq!(
        world.status("other/admin", Method::PUT, "shared/subscriptions/x~acme", body.clone()).await,
        400
    );
    world.publish("all/service", "shared/topics/events", &[Some("acme"), Some("other")]).await;
    for key in ["other/admin", "acme/admin"] {
        let of = key.split('/').next().expect("a tenant");
        assert_eq!(world.tenants(key, path).await, [of], "{key} has its own");
        let (_, shown) = world.ask(key, Method::GET, path, Value::Null).await;
        assert_eq!(shown["name"], full);
        for (list, member) in [
            ("shared/subscriptions", "subscriptions"),
            ("shared/topics/events/subscriptions", "subscriptions"),
        ] {
            let (_, listed) = world.ask(key, Method::GET, list, Value::Null).await;
            let names: Vec<&Value> = listed[member]
                .as_array()
                .expect("a list")
                .iter()
                .map(|item| if item.is_string() { item } else { &item["name"] })
                .collect();
            assert_eq!(names, [&json!(full)], "{key} {list}");
        }
        let change = json!({"subscription": {"ackDeadlineSeconds": 33}, "updateMask": "ackDeadlineSeconds"});
        let (status, changed) = world.ask(key, Method::PATCH, path, change).await;
        assert_eq!((status.as_u16(), &changed["name"]), (200, &json!(full)), "{changed}");

        let snapshot = "shared/snapshots/before";
        let of_it = json!({"subscription": full});
        let (status, made) = world.ask(key, Method::PUT, snapshot, of_it.clone()).await;
        assert_eq!((status.as_u16(), &made["name"]), (200, &json!(format!("projects/{snapshot}"))), "{made}");
        assert_eq!(world.status(key, Method::PUT, snapshot, of_it).await, 409);
        let seek = json!({"snapshot": format!("projects/{snapshot}")});
        assert_eq!(world.status(key, Method::POST, &format!("{path}:seek"), seek).await, 200, "{key}");
        let policy =
            json!({"policy": {"bindings": [{"role": "roles/viewer", "members": [format!("user:{of}")]}]}});
        assert_eq!(world.status(key, Method::POST, &format!("{path}:setIamPolicy"), policy).await, 200);
    }
    let (_, policy) =
        world.ask("acme/admin", Method::GET, &format!("{path}:getIamPolicy"), Value::Null).await;
    assert_eq!(policy["bindings"][0]["members"], json!(["user:acme"]), "each has its own policy");
    // The platform sees both, by the names under which they are kept.
    let (_, all) = world.ask("all/engineer", Method::GET, "shared/subscriptions", Value::Null).await;
    assert_eq!(all["subscriptions"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.status("acme/admin", Method::DELETE, path, Value::Null).await, 200);
    assert_eq!(world.status("acme/admin", Method::GET, path, Value::Null).await, 404);
    assert_eq!(world.status("other/admin", Method::GET, path, Value::Null).await, 200, "the other's stays");
}

#[tokio::test]
async fn a_policy_is_its_owners_and_ends_with_its_resource() {
    let world = World::new();
    world.status("all/admin", Method::PUT, "shared/topics/events", json!({})).await;
    let policy = json!({"policy": {"bindings": [{"role": "roles/viewer", "members": ["user:a"]}]}});
    let set = async |key: &str, path: &str| {
        world.status(key, Method::POST, &format!("{path}:setIamPolicy"), policy.clone()).await
    };
    let members = async |key: &str, path: &str| {
        let (status, kept) = world.ask(key, Method::GET, &format!("{path}:getIamPolicy"), Value::Null).await;
        assert_eq!(status.as_u16(), 200, "{path}: {kept}");
        kept["bindings"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(set("acme/admin", "shared/topics/events").await, 403, "a topic of the platform");
    assert_eq!(set("all/engineer", "shared/topics/events").await, 403);
    let tested = json!({"permissions": ["pubsub.topics.setIamPolicy", "pubsub.topics.publish"]});
    let (_, held) =
        world.ask("acme/admin", Method::POST, "shared/topics/events:testIamPermissions", tested).await;
    assert_eq!(held["permissions"], json!(["pubsub.topics.publish"]));

    let topic = json!({});
    let subscription = json!({"topic": "projects/acme/topics/orders"});
    let snapshot = json!({"subscription": "projects/acme/subscriptions/orders"});
    let made = [
        ("acme/topics/orders", topic),
        ("acme/subscriptions/orders", subscription),
        ("acme/snapshots/orders", snapshot),
    ];
    for (path, body) in &made {
        assert_eq!(world.status("acme/admin", Method::PUT, path, body.clone()).await, 200, "{path}");
        assert_eq!(set("acme/admin", path).await, 200, "{path}");
        assert_eq!(set("other/admin", path).await, 404, "{path}");
        assert_eq!(members("acme/admin", path).await, 1);
    }
    for (path, _) in made.iter().rev() {
        assert_eq!(world.status("acme/admin", Method::DELETE, path, Value::Null).await, 200, "{path}");
    }
    for (path, body) in &made {
        assert_eq!(world.status("acme/admin", Method::PUT, path, body.clone()).await, 200, "{path}");
        assert_eq!(members("acme/admin", path).await, 0, "{path}: made again, it has none");
    }
}

#[tokio::test]
async fn a_push_names_its_project_and_goes_to_public_addresses() {
    let world = World::new();
    world.status("acme/engineer", Method::PUT, "acme/topics/orders", json!({})).await;
    let mut made = 0;
    let mut push = async |config: Value| {
        made += 1;
        let body = json!({"topic": "projects/acme/topics/orders", "pushConfig": config});
        world.status("acme/engineer", Method::PUT, &format!("acme/subscriptions/push-{made}"), body).await
    };
    let endpoint = "https://hooks.example/acme";
    let token = |email: &str, audience: &str| json!({"pushEndpoint": endpoint, "oidcToken": {"serviceAccountEmail": email, "audience": audience}});
    assert_eq!(push(json!({"pushEndpoint": endpoint})).await, 200);
    assert_eq!(push(token("push@acme.iam.gserviceaccount.com", "")).await, 200);
    assert_eq!(push(token("push@acme.iam.gserviceaccount.com", "https://hooks.example")).await, 200);
    for forged in [
        token("push@other.iam.gserviceaccount.com", ""),
        token("admin@example.org", ""),
        token("push@acme.iam.gserviceaccount.com", "https://victim.example/push"),
        token("push@acme.iam.gserviceaccount.com", "anything"),
        json!({"pushEndpoint": "http://hooks.example/acme"}),
        json!({"pushEndpoint": "https://127.0.0.1/acme"}),
        json!({"pushEndpoint": "https://[::1]/acme"}),
        json!({"pushEndpoint": "https://169.254.169.254/latest/meta-data"}),
        json!({"pushEndpoint": "https://10.0.0.7:8443/x"}),
    ] {
        assert_eq!(push(forged.clone()).await, 400, "{forged}");
    }
}

#[tokio::test]
async fn a_tenant_header_that_cannot_be_read_is_refused_and_not_passed_over() {
    let world = World::new();
    let mut codes = Vec::new();
    for value in [&b"\xff"[..], "ü".as_bytes(), b"", b"Not Valid"] {
        let request = Request::get("/v1/projects/shared/topics")
            .header("authorization", "Bearer all/engineer")
            .header("x-tenant-id", http::HeaderValue::from_bytes(value).expect("a header"))
            .body(Body::empty())
            .expect("a request");
        let answer = world.0.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        codes.push((status, String::from_utf8_lossy(&body).contains("header-invalid")));
    }
    assert_eq!(codes, [(400, true); 4]);
}
