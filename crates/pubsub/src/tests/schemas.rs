//! The ten calls of SchemaService and a publish to a topic with a schema, over REST and a
//! simulated disk, through a restart.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use levada_bus::port::BusPort;
use levada_core::{
    Authenticator, Principal, Problem, ProjectId, RandomIds, Role, SystemClock, TenantId, TenantSet,
};
use levada_disk::SimDisk;
use levada_pubsub::{
    Guards, MemoryPolicies, Owner, Parts, Projects, PubsubApi, PubsubConfig, StoredSchemas, router,
};
use levada_store::DocumentStore;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Any key is an engineer of the one tenant.
struct Engineer;

impl Authenticator for Engineer {
    fn is_valid(&self, _: &levada_core::Principal) -> bool {
        true
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        let (tenants, roles) = (TenantSet::Only([acme()].into()), [Role::Engineer].into());
        Ok(Arc::new(Principal { id: secret.into(), name: secret.into(), tenants, roles }))
    }
}

fn acme() -> TenantId {
    TenantId::new("acme").expect("a tenant")
}

struct World {
    disk: SimDisk,
    bus: Arc<dyn BusPort>,
    router: Router,
}

impl World {
    fn new() -> Self {
        Self::on(SimDisk::new(1), Arc::new(super::memory::MemoryBus::default()))
    }

    fn on(disk: SimDisk, bus: Arc<dyn BusPort>) -> Self {
        let store = DocumentStore::open(Arc::new(disk.clone()), "schemas").expect("the store opens");
        let clock = Arc::new(SystemClock::new());
        let schemas = StoredSchemas::open(store, clock.clone()).expect("the schemas open");
        let demo = ProjectId::new("demo").expect("a project");
        let api = PubsubApi::new(Parts {
            bus: bus.clone(),
            authenticator: Arc::new(Engineer),
            projects: Arc::new(Projects::new([(demo, Owner::Tenant(acme()))])),
            schemas: Arc::new(schemas),
            policies: Arc::new(MemoryPolicies::default()),
            clock,
            ids: Arc::new(RandomIds),
            guards: Guards::default(),
            config: PubsubConfig::default(),
        });
        Self { disk, bus, router: router(&api) }
    }

    /// As after a power loss; topics stay, for they are another store's.
    fn crash(self) -> Self {
        Self::on(self.disk.crash(), self.bus)
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/projects/demo/{path}"))
            .header("authorization", "Bearer key")
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn fine(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// The status' name and the text of a refusal.
    async fn refused(&self, method: Method, path: &str, body: Value) -> (String, Value) {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(status.is_client_error(), "{path}: {status} {answer}");
        (answer["error"]["status"].as_str().unwrap_or_default().to_owned(), answer["error"].clone())
    }

    async fn publish(&self, bodies: &[&[u8]]) -> (StatusCode, Value) {
        let messages: Vec<Value> = bodies.iter().map(|body| json!({"data": STANDARD.encode(body)})).collect();
        self.ask(Method::POST, "topics/orders:publish", json!({ "messages": messages })).await
    }
}

fn avro(fields: &[&str]) -> Value {
    let fields: Vec<Value> =
        fields.iter().map(|name| json!({"name": name, "type": "int", "default": 0})).collect();
    let definition = json!({"type": "record", "name": "Order", "fields": fields});
    json!({"type": "AVRO", "definition": definition.to_string()})
}

fn proto(fields: &str) -> Value {
    let definition = format!("syntax = \"proto3\"; message Order {{ {fields} }}");
    json!({"type": "PROTOCOL_BUFFER", "definition": definition})
}

#[tokio::test]
async fn the_ten_calls_keep_schemas_and_revisions_through_a_power_loss() {
    let world = World::new();
    let made = world.fine(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    assert_eq!(made["name"], "projects/demo/schemas/orders");
    let first = made["revisionId"].as_str().expect("a revision").to_owned();
    let (code, _) = world.refused(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    assert_eq!(code, "ALREADY_EXISTS");

    let commit = |schema: Value| json!({ "schema": schema });
    let second = world.fine(Method::POST, "schemas/orders:commit", commit(avro(&["a", "b"]))).await;
    let second = second["revisionId"].as_str().expect("a revision").to_owned();
    let other = json!({"type": "AVRO", "definition": "\"int\""});
    let (code, error) = world.refused(Method::POST, "schemas/orders:commit", commit(other)).await;
    assert_eq!(code, "INVALID_ARGUMENT");
    let text = error["message"].as_str().expect("a text");
    assert!(text.starts_with("Compatibility checking failed to commit a schema revision"), "{text}");
    let (code, _) = world.refused(Method::POST, "schemas/orders:commit", commit(proto("int32 a = 1;"))).await;
    assert_eq!(code, "INVALID_ARGUMENT");

    let world = world.crash();
    let latest = world.fine(Method::GET, "schemas/orders", Value::Null).await;
    assert_eq!(latest["revisionId"], second.as_str());
    assert_eq!(latest["definition"], avro(&["a", "b"])["definition"]);
    let old = world.fine(Method::GET, &format!("schemas/orders@{first}"), Value::Null).await;
    assert_eq!(old["definition"], avro(&["a"])["definition"]);
    let list = world.fine(Method::GET, "schemas", Value::Null).await;
    assert_eq!(list["schemas"].as_array().map(Vec::len), Some(1), "{list}");
    let revisions = world.fine(Method::GET, "schemas/orders:listRevisions", Value::Null).await;
    assert_eq!(revisions["schemas"][0]["revisionId"], second.as_str());
    assert_eq!(revisions["schemas"][1]["revisionId"], first.as_str());

    let back = world.fine(Method::POST, "schemas/orders:rollback", json!({"revisionId": first})).await;
    assert_eq!(back["definition"], avro(&["a"])["definition"]);
    for revision in [back["revisionId"].as_str().expect("a revision"), &second] {
        world.fine(Method::DELETE, &format!("schemas/orders@{revision}:deleteRevision"), Value::Null).await;
    }
    let path = format!("schemas/orders@{first}:deleteRevision");
    assert_eq!(world.refused(Method::DELETE, &path, Value::Null).await.0, "FAILED_PRECONDITION");
    let path = format!("schemas/orders@{second}:deleteRevision");
    assert_eq!(world.refused(Method::DELETE, &path, Value::Null).await.0, "NOT_FOUND");
    world.fine(Method::DELETE, "schemas/orders", Value::Null).await;
    assert_eq!(world.refused(Method::GET, "schemas/orders", Value::Null).await.0, "NOT_FOUND");
}

#[tokio::test]
async fn definitions_and_messages_are_validated_on_request() {
    let world = World::new();
    for schema in [avro(&["a"]), proto("int32 a = 1;")] {
        world.fine(Method::POST, "schemas:validate", json!({ "schema": schema })).await;
    }
    for schema in [json!({"type": "AVRO", "definition": "{}"}), proto("int32 a = 0;")] {
        let (code, error) =
            world.refused(Method::POST, "schemas:validate", json!({ "schema": schema })).await;
        assert_eq!(code, "INVALID_ARGUMENT");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("not valid")), "{error}");
    }
    world.fine(Method::POST, "schemas?schemaId=orders", proto("int32 a = 1;")).await;
    let cases: [(Value, &str, &[u8], &[u8]); 5] = [
        (json!({"schema": avro(&["a"])}), "JSON", br#"{"a": 1}"#, br#"{"a": "x"}"#),
        (json!({"schema": avro(&["a"])}), "BINARY", &[2], &[2, 2]),
        (json!({"schema": proto("int32 a = 1;")}), "JSON", br#"{"a": 1}"#, br#"{"b": 1}"#),
        (json!({"schema": proto("int32 a = 1;")}), "BINARY", &[8, 1], &[16, 1]),
        (json!({"name": "projects/demo/schemas/orders"}), "BINARY", &[8, 1], &[16, 1]),
    ];
    for (mut request, encoding, fine, wrong) in cases {
        request["encoding"] = json!(encoding);
        request["message"] = json!(STANDARD.encode(fine));
        world.fine(Method::POST, "schemas:validateMessage", request.clone()).await;
        request["message"] = json!(STANDARD.encode(wrong));
        let (code, error) = world.refused(Method::POST, "schemas:validateMessage", request.clone()).await;
        assert_eq!(code, "INVALID_ARGUMENT", "{error}");
        let reason = error["details"][0]["reason"].as_str().expect("a reason");
        assert!(reason.starts_with(&format!("INVALID_{encoding}_")), "{error}");
    }
    let request = json!({"name": "projects/demo/schemas/none", "encoding": "JSON", "message": "e30="});
    assert_eq!(world.refused(Method::POST, "schemas:validateMessage", request).await.0, "NOT_FOUND");
}

#[tokio::test]
async fn a_topic_takes_what_a_revision_of_its_range_takes_and_nothing_else() {
    let world = World::new();
    let made = world.fine(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    let first = made["revisionId"].as_str().expect("a revision").to_owned();
    let commit = json!({ "schema": avro(&["a", "b"]) });
    let made = world.fine(Method::POST, "schemas/orders:commit", commit).await;
    let second = made["revisionId"].as_str().expect("a revision").to_owned();
    let settings = |first: &str| json!({"schema": "projects/demo/schemas/orders", "encoding": "JSON", "firstRevisionId": first});
    world.fine(Method::PUT, "topics/orders", json!({ "schemaSettings": settings("") })).await;

    // Once from a cold start, where definitions are compiled first, and once more.
    let world = world.crash();
    for _ in 0..2 {
        let (status, answer) = world.publish(&[br#"{"a": 1, "b": 2}"#, br#"{"a": 1}"#]).await;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = world.publish(&[br#"{"a": 1}"#, br#"{"a": "x"}"#, br#"{"a": 1}"#]).await;
        assert_eq!(status, 400, "{answer}");
        let error = &answer["error"];
        let text = error["message"].as_str().expect("a text");
        assert!(text.starts_with("Invalid data in message: Message failed schema validation."), "{text}");
        assert!(text.contains("$.a: the schema expects int, this is a text (message 2 of 3)"), "{text}");
        let info = &error["details"][0];
        assert_eq!(
            (&info["reason"], &info["domain"]),
            (&json!("INVALID_JSON_AVRO_MESSAGE"), &json!("pubsub.googleapis.com"))
        );
        let tried = info["metadata"]["revisionInfo"].as_str().expect("the revision");
        assert!(tried.contains(&format!("last checked revision: revision_id={first} failed")), "{tried}");
    }
    let all = json!({"topic": "projects/demo/topics/orders"});
    world.fine(Method::PUT, "subscriptions/all", all).await;
    let large = json!({"a": 1, "more": "x".repeat(100_000)}).to_string();
    assert_eq!(world.publish(&[large.as_bytes()]).await.0, 200);
    assert_eq!(world.publish(&[&large.as_bytes()[1..]]).await.0, 400);
    let pull = json!({"maxMessages": 10, "returnImmediately": true});
    let pulled = world.fine(Method::POST, "subscriptions/all:pull", pull).await;
    let attributes = &pulled["receivedMessages"][0]["message"]["attributes"];
    assert_eq!(attributes["googclient_schemaencoding"], "JSON", "{pulled}");
    assert_eq!(attributes["googclient_schemaname"], "projects/demo/schemas/orders");
    assert_eq!(attributes["googclient_schemarevisionid"], *first);

    let update = json!({"topic": {"schemaSettings": settings(&second)}, "updateMask": "schemaSettings"});
    world.fine(Method::PATCH, "topics/orders", update).await;
    assert_eq!(world.publish(&[br#"{"a": 1}"#]).await.0, 400, "the first revision is out of the range");
    assert_eq!(world.publish(&[br#"{"a": 1, "b": 2}"#]).await.0, 200);

    world.fine(Method::DELETE, &format!("schemas/orders@{second}:deleteRevision"), Value::Null).await;
    let (status, answer) = world.publish(&[br#"{"a": 1, "b": 2}"#]).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["status"]),
        (400, &json!("FAILED_PRECONDITION")),
        "{answer}"
    );
    world.fine(Method::DELETE, "schemas/orders", Value::Null).await;
    let (_, answer) = world.publish(&[br#"{"a": 1}"#]).await;
    let text = answer["error"]["message"].as_str().expect("a text");
    assert!(text.contains("was deleted"), "{text}");
}

#[tokio::test]
async fn a_deleted_schema_is_told_by_its_topics_and_does_not_come_back_under_its_name() {
    let world = World::new();
    world.fine(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    world.fine(Method::POST, "schemas?schemaId=other", avro(&["a"])).await;
    let settings =
        |schema: &str| json!({"schema": format!("projects/demo/schemas/{schema}"), "encoding": "JSON"});
    for (topic, schema) in [("orders", "orders"), ("more-orders", "orders"), ("others", "other")] {
        world
            .fine(Method::PUT, &format!("topics/{topic}"), json!({"schemaSettings": settings(schema)}))
            .await;
    }
    world.fine(Method::DELETE, "schemas/orders", Value::Null).await;
    let named = async |topic: &str| {
        let found = world.fine(Method::GET, &format!("topics/{topic}"), Value::Null).await;
        found["schemaSettings"]["schema"].as_str().map(str::to_owned)
    };
    for topic in ["orders", "more-orders"] {
        assert_eq!(named(topic).await.as_deref(), Some("_deleted-schema_"));
    }
    assert_eq!(named("others").await.as_deref(), Some("projects/demo/schemas/other"));
    let refused = async || {
        let (status, answer) = world.publish(&[br#"{"a": 1}"#]).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]["status"]),
            (400, &json!("FAILED_PRECONDITION")),
            "{answer}"
        );
    };
    refused().await;
    // The setting is kept by changes of something else, and by a schema that takes the name.
    let labels = json!({"topic": {"labels": {"team": "x"}}, "updateMask": "labels"});
    world.fine(Method::PATCH, "topics/orders", labels).await;
    world.fine(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    assert_eq!(named("orders").await.as_deref(), Some("_deleted-schema_"));
    refused().await;
    let update = json!({"topic": {"schemaSettings": settings("orders")}, "updateMask": "schemaSettings"});
    world.fine(Method::PATCH, "topics/orders", update).await;
    assert_eq!(world.publish(&[br#"{"a": 1}"#]).await.0, 200, "the new one was set");
}

#[tokio::test]
async fn a_schema_whose_delete_was_broken_off_is_unlinked_later() {
    let world = World::new();
    world.fine(Method::POST, "schemas?schemaId=orders", avro(&["a"])).await;
    let settings = json!({"schema": "projects/demo/schemas/orders", "encoding": "JSON"});
    let named = async |world: &World| {
        let found = world.fine(Method::GET, "topics/orders", Value::Null).await;
        found["schemaSettings"]["schema"].as_str().map(str::to_owned)
    };
    world.fine(Method::PUT, "topics/orders", json!({ "schemaSettings": settings })).await;
    // The schemas are lost, the topic stays: as if the process had ended between the two.
    let lost = || World::on(SimDisk::new(2), world.bus.clone());
    let again = lost();
    assert_eq!(named(&again).await.as_deref(), Some("projects/demo/schemas/orders"));
    assert_eq!(again.publish(&[br#"{"a": 1}"#]).await.0, 400);
    assert_eq!(named(&again).await.as_deref(), Some("_deleted-schema_"), "the publish noticed");

    let update = json!({"topic": {"schemaSettings": settings}, "updateMask": "schemaSettings"});
    world.fine(Method::PATCH, "topics/orders", update.clone()).await;
    let again = lost();
    assert_eq!(again.refused(Method::DELETE, "schemas/orders", Value::Null).await.0, "NOT_FOUND");
    assert_eq!(named(&again).await.as_deref(), Some("_deleted-schema_"), "the delete was finished");

    world.fine(Method::PATCH, "topics/orders", update).await;
    lost().fine(Method::POST, "schemas?schemaId=orders", avro(&["b"])).await;
    assert_eq!(named(&again).await.as_deref(), Some("_deleted-schema_"), "another schema has the name");
}
