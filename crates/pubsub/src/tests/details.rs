//! Details of the API that clients of Google's service rely on, through both doors.

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1 as pb;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use levada_core::{Authenticator, Principal, Problem, RandomIds, SystemClock};
use levada_disk::SimDisk;
use levada_pubsub::{
    Guards, MemoryPolicies, Parts, Projects, PubsubApi, PubsubConfig, StoredSchemas, router,
};
use levada_store::DocumentStore;
use prost::Message as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Nobody has a key; in development nobody needs one.
struct Nobody;

impl Authenticator for Nobody {
    fn is_valid(&self, _: &Principal) -> bool {
        true
    }

    fn authenticate(&self, _: &str) -> Result<Arc<Principal>, Problem> {
        Err(Problem::new(401, "unauthenticated", "there are no keys"))
    }
}

struct World(Router);

impl World {
    /// With the topic `orders`.
    async fn new() -> Self {
        let store = DocumentStore::open(Arc::new(SimDisk::new(1)), "schemas").expect("the store opens");
        let clock = Arc::new(SystemClock::new());
        let api = PubsubApi::new(Parts {
            bus: Arc::new(super::memory::MemoryBus::default()),
            authenticator: Arc::new(Nobody),
            projects: Arc::new(Projects::dev([])),
            schemas: Arc::new(StoredSchemas::open(store, clock.clone()).expect("the schemas open")),
            policies: Arc::new(MemoryPolicies::default()),
            clock,
            ids: Arc::new(RandomIds),
            guards: Guards::default(),
            config: PubsubConfig::default(),
        });
        let world = Self(router(&api));
        world.fine(Method::PUT, "topics/orders", json!({})).await;
        world
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.0.clone().oneshot(request).await.expect("an answer")
    }

    async fn raw(&self, method: Method, path: &str, encoding: &str, body: Vec<u8>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(format!("/v1/projects/demo/{path}"));
        if !encoding.is_empty() {
            request = request.header("content-encoding", encoding);
        }
        let answer = self.send(request.body(Body::from(body)).expect("a request")).await;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.raw(method, path, "", body).await
    }

    async fn fine(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn refused(&self, method: Method, path: &str, body: Value) -> String {
        let (status, answer) = self.ask(method, path, body).await;
        assert_ne!(status, 200, "{path}: {answer}");
        answer["error"]["status"].as_str().expect("a status").to_owned()
    }

    /// A unary call over gRPC: the head of its answer, and the message's bytes.
    async fn grpc(&self, path: &str, message: &impl prost::Message) -> (http::HeaderMap, Bytes) {
        let wire = message.encode_to_vec();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(wire.len()).expect("small").to_be_bytes());
        body.extend_from_slice(&wire);
        let request = Request::post(format!("/google.pubsub.v1.{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(body))
            .expect("a request");
        let answer = self.send(request).await;
        let headers = answer.headers().clone();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (headers, bytes.slice(bytes.len().min(5)..))
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_compressed_request_is_read_and_an_unknown_compression_is_named() {
    let world = World::new().await;
    let body = br#"{"messages":[{"data":"aGk="}]}"#;
    let publish = |encoding: &'static str, body: Vec<u8>| {
        let world = &world;
        async move { world.raw(Method::POST, "topics/orders:publish", encoding, body).await }
    };
    let (status, answer) = publish("gzip", gzip(body)).await;
    assert_eq!((status, answer["messageIds"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
    assert_eq!(publish("identity", body.to_vec()).await.0, 200);
    let (status, answer) = publish("br", body.to_vec()).await;
    assert_eq!((status, &answer["error"]["code"]), (415, &json!(415)), "{answer}");
    let (status, answer) = publish("gzip", body.to_vec()).await;
    assert_eq!((status, answer["error"]["status"].as_str()), (400, Some("INVALID_ARGUMENT")));
    // 200 MB of spaces in 200 KB.
    let (status, answer) = publish("gzip", gzip(&vec![b' '; 200 << 20])).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("exceeds the limit")));
}

#[tokio::test]
async fn a_query_takes_enums_by_number_and_selects_fields() {
    let world = World::new().await;
    let definition = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"string"}]}"#;
    let made = json!({ "type": 2, "definition": definition });
    world.fine(Method::POST, "schemas?schemaId=first", made).await;
    for (view, full) in [("0", true), ("1", false), ("2", true), ("FULL", true), ("BASIC", false)] {
        let shown = world.fine(Method::GET, &format!("schemas/first?view={view}"), Value::Null).await;
        assert_eq!(shown.get("definition").is_some(), full, "{view}");
        assert_eq!(shown["type"], "AVRO");
    }
    let listed = world.fine(Method::GET, "schemas?view=2&pageSize=1", Value::Null).await;
    assert_eq!(listed["schemas"][0]["definition"], definition);
    let of_google = "schemas/first?view=0&$alt=json;enum-encoding=int&key=secret&access_token=secret";
    assert_eq!(world.fine(Method::GET, of_google, Value::Null).await["type"], 2);
    let (status, answer) = world.ask(Method::GET, "schemas/first?view=HALF", Value::Null).await;
    assert_eq!(status, 400);
    assert_eq!(answer["error"]["details"][0]["fieldViolations"][0]["field"], "view", "{answer}");
    let some = world.fine(Method::GET, "topics?fields=topics(name)", Value::Null).await;
    assert_eq!(some, json!({ "topics": [{ "name": "projects/demo/topics/orders" }] }));
    for bad in ["topics?pageSize=1&pageSize=2", "topics?pageSize=x", "topics?nonsense=1", "topics?alt=proto"]
    {
        assert_eq!(world.refused(Method::GET, bad, Value::Null).await, "INVALID_ARGUMENT", "{bad}");
    }
}

#[tokio::test]
async fn a_call_whose_answer_cannot_be_written_does_nothing() {
    let world = World::new().await;
    let status = world.refused(Method::PUT, "topics/never?fields=nonsense", json!({})).await;
    assert_eq!(status, "INVALID_ARGUMENT");
    assert_eq!(world.refused(Method::GET, "topics/never", Value::Null).await, "NOT_FOUND");
}

#[tokio::test]
async fn an_action_is_found_however_its_path_is_encoded() {
    let world = World::new().await;
    let body = json!({ "messages": [{ "data": "aGk=" }] });
    for path in ["topics/orders%3Apublish", "topics/orders%3apublish", "%74opics/%6frders:publi%73h"] {
        world.fine(Method::POST, path, body.clone()).await;
    }
    assert_eq!(world.ask(Method::GET, "topics%2Forders", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_dead_letter_topic_must_exist_when_it_is_named_and_only_then() {
    let world = World::new().await;
    let policy = |topic: &str| json!({ "deadLetterTopic": format!("projects/demo/topics/{topic}") });
    let create =
        |dead: &str| json!({ "topic": "projects/demo/topics/orders", "deadLetterPolicy": policy(dead) });
    let (path, put, patch) = ("subscriptions/billing", Method::PUT, Method::PATCH);
    assert_eq!(world.refused(put.clone(), path, create("nowhere")).await, "NOT_FOUND");
    assert_eq!(world.refused(Method::GET, path, Value::Null).await, "NOT_FOUND", "nothing was made");
    world.fine(put.clone(), "topics/dead", json!({})).await;
    let mut attempts = create("dead");
    for (given, status) in [(4, "OUT_OF_RANGE"), (101, "OUT_OF_RANGE"), (-5, "OUT_OF_RANGE")] {
        attempts["deadLetterPolicy"]["maxDeliveryAttempts"] = json!(given);
        assert_eq!(world.refused(put.clone(), path, attempts.clone()).await, status, "{given}");
    }
    world.fine(put, path, create("dead")).await;
    let to = |dead: &str| json!({ "subscription": { "deadLetterPolicy": policy(dead) }, "updateMask": "deadLetterPolicy" });
    assert_eq!(world.refused(patch.clone(), path, to("nowhere")).await, "NOT_FOUND");
    world.fine(Method::DELETE, "topics/dead", Value::Null).await;
    let other = json!({ "subscription": { "ackDeadlineSeconds": 20 }, "updateMask": "ackDeadlineSeconds" });
    world.fine(patch.clone(), path, other).await;
    assert_eq!(world.refused(patch, path, to("dead")).await, "NOT_FOUND");
}

#[tokio::test]
async fn a_subscription_without_a_name_gets_one() {
    let world = World::new().await;
    let unnamed = pb::Subscription { topic: "projects/demo/topics/orders".into(), ..Default::default() };
    let mut names = Vec::new();
    for _ in 0..2 {
        let (_, bytes) = world.grpc("Subscriber/CreateSubscription", &unnamed).await;
        let made = pb::Subscription::decode(bytes).expect("a subscription");
        assert!(made.name.starts_with("projects/demo/subscriptions/subscription-"), "{}", made.name);
        let id = made.name.rsplit('/').next().expect("an id").to_owned();
        world.fine(Method::GET, &format!("subscriptions/{id}"), Value::Null).await;
        names.push(id);
    }
    assert_ne!(names[0], names[1]);
    let (headers, _) = world.grpc("Subscriber/CreateSubscription", &pb::Subscription::default()).await;
    assert_eq!(headers["grpc-status"], "3", "without a topic there is no project for it");
    let details = headers["grpc-status-details-bin"].as_bytes();
    let details = STANDARD_NO_PAD.decode(details.strip_suffix(b"=").unwrap_or(details)).expect("base64");
    let names_field = details.windows(5).any(|window| window == b"topic");
    assert!(names_field, "the refusal names its field: {details:?}");
}

#[tokio::test]
async fn what_exists_is_told_before_what_else_is_wrong() {
    let world = World::new().await;
    let (path, put, patch) = ("subscriptions/billing", Method::PUT, Method::PATCH);
    let of = |topic: &str| json!({ "topic": format!("projects/demo/topics/{topic}") });
    assert_eq!(world.refused(put.clone(), path, of("nowhere")).await, "NOT_FOUND");
    world.fine(put.clone(), path, of("orders")).await;
    assert_eq!(world.refused(put.clone(), path, of("nowhere")).await, "ALREADY_EXISTS");
    let wrong = |topic: &str, field: &str, value: Value| {
        let mut body = of(topic);
        body[field] = value;
        body
    };
    let retention = |topic| wrong(topic, "messageRetentionDuration", json!("1s"));
    assert_eq!(world.refused(put.clone(), path, retention("orders")).await, "ALREADY_EXISTS");
    let other = "subscriptions/other";
    assert_eq!(world.refused(put.clone(), other, retention("nowhere")).await, "NOT_FOUND");
    assert_eq!(world.refused(put.clone(), other, retention("orders")).await, "INVALID_ARGUMENT");
    let deadline = wrong("nowhere", "ackDeadlineSeconds", json!(601));
    assert_eq!(world.refused(put.clone(), path, deadline).await, "INVALID_ARGUMENT");
    let snapshot = |of: &str| json!({ "subscription": format!("projects/demo/subscriptions/{of}") });
    assert_eq!(world.refused(put.clone(), "snapshots/first", snapshot("nowhere")).await, "NOT_FOUND");
    world.fine(put.clone(), "snapshots/first", snapshot("billing")).await;
    assert_eq!(world.refused(put, "snapshots/first", snapshot("nowhere")).await, "ALREADY_EXISTS");
    let nothing = json!({ "messages": [] });
    assert_eq!(world.refused(Method::POST, "topics/nowhere:publish", nothing).await, "NOT_FOUND");
    for (kind, missing) in [
        ("subscription", "subscriptions/nowhere"),
        ("topic", "topics/nowhere"),
        ("snapshot", "snapshots/nowhere"),
    ] {
        assert_eq!(
            world.refused(patch.clone(), missing, json!({ kind: {} })).await,
            "NOT_FOUND",
            "{missing}"
        );
    }
}

#[tokio::test]
async fn dead_letters_look_as_googles_do_unless_a_subscription_asks() {
    let world = World::new().await;
    let put = Method::PUT;
    world.fine(put.clone(), "topics/dead", json!({})).await;
    let dead = "projects/demo/topics/dead";
    world.fine(put.clone(), "subscriptions/plain", json!({ "topic": dead })).await;
    let asks = json!({ "topic": dead, "labels": { "levada-dead-letter-details": "true" } });
    world.fine(put.clone(), "subscriptions/asks", asks).await;
    let wrong = json!({ "topic": dead, "labels": { "levada-dead-letter-details": "yes" } });
    assert_eq!(world.refused(put, "subscriptions/wrong", wrong).await, "INVALID_ARGUMENT");
    let letter = json!({ "messages": [{ "attributes": {
        "k": "v", "googclient_traceparent": "00-1", "levada.dead.reason": "bad", "levada.dead.code": "c",
        "CloudPubSubDeadLetterSourceSubscription": "billing",
    }}]});
    world.fine(Method::POST, "topics/dead:publish", letter).await;
    for (subscription, count) in [("plain", 3), ("asks", 5)] {
        let pull = json!({ "maxMessages": 1 });
        let pulled = world.fine(Method::POST, &format!("subscriptions/{subscription}:pull"), pull).await;
        let attributes =
            pulled["receivedMessages"][0]["message"]["attributes"].as_object().expect("attributes");
        assert_eq!(attributes.len(), count, "{subscription}: {attributes:?}");
        assert_eq!(attributes.get("levada.dead.reason").is_some(), count == 5);
    }
}

/// A request beyond one bound: its path, its body, the field and the bound that are named.
type Beyond = (&'static str, Value, &'static str, &'static str);

/// What would make a topic or a subscription larger than it may be, a field at a time.
fn beyond_bounds() -> Vec<Beyond> {
    let long = || "x".repeat(3_000_000);
    let regions = "message_storage_policy.allowed_persistence_regions";
    let pushed = |config: Value| {
        let mut config = config;
        config["pushEndpoint"] = json!("https://receiver.example/push");
        json!({ "topic": "projects/demo/topics/orders", "pushConfig": config })
    };
    let many: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("a{n}"), json!("v"))).collect();
    let labels: serde_json::Map<String, Value> =
        (0..64).map(|n| (format!("{}{n:02}", "語".repeat(61)), json!("語".repeat(63)))).collect();
    let schema = |field: &str| json!({ "schemaSettings": { "schema": "_deleted-schema_", "encoding": "JSON", field: long() } });
    let (topic, subscription) = ("topics/big", "subscriptions/big");
    vec![
        (topic, json!({ "kmsKeyName": "k".repeat(1_025) }), "kms_key_name", "1024"),
        (topic, json!({ "kmsKeyName": long() }), "kms_key_name", "1024"),
        (
            topic,
            json!({ "messageStoragePolicy": { "allowedPersistenceRegions": vec!["r"; 101] } }),
            regions,
            "100",
        ),
        (topic, json!({ "messageStoragePolicy": { "allowedPersistenceRegions": [long()] } }), regions, "64"),
        (topic, schema("firstRevisionId"), "schema_settings.first_revision_id", "64"),
        (topic, schema("lastRevisionId"), "schema_settings.last_revision_id", "64"),
        (topic, json!({ "labels": labels }), "topic", "16384"),
        (
            subscription,
            pushed(json!({ "attributes": { "x-goog-version": long() } })),
            "push_config.attributes",
            "1024",
        ),
        (subscription, pushed(json!({ "attributes": { long(): "v1" } })), "push_config.attributes", "256"),
        (subscription, pushed(json!({ "attributes": many })), "push_config.attributes", "16"),
        (
            subscription,
            pushed(json!({ "oidcToken": { "serviceAccountEmail": "a@b.example", "audience": long() } })),
            "push_config.oidc_token.audience",
            "1024",
        ),
        (
            subscription,
            pushed(json!({ "oidcToken": { "serviceAccountEmail": long() } })),
            "push_config.oidc_token.service_account_email",
            "320",
        ),
    ]
}

fn assert_names_the_bound(answer: &Value, field: &str, bound: &str) {
    let error = &answer["error"];
    assert_eq!(error["status"], "INVALID_ARGUMENT", "{field}: {answer}");
    assert_eq!(error["details"][0]["fieldViolations"][0]["field"], field, "{answer}");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains(bound) && text.len() < 300),
        "{answer}"
    );
}

#[tokio::test]
async fn no_text_of_a_resource_is_larger_than_its_bound_when_it_is_made_or_changed() {
    let world = World::new().await;
    for (path, body, field, bound) in beyond_bounds() {
        let (status, answer) = world.ask(Method::PUT, path, body).await;
        assert_eq!(status, 400, "{field}");
        assert_names_the_bound(&answer, field, bound);
        assert_eq!(world.refused(Method::GET, path, Value::Null).await, "NOT_FOUND", "nothing was made");
    }
    let regions = vec!["r".repeat(64); 100];
    let full = json!({
        "kmsKeyName": "k".repeat(1_024), "messageStoragePolicy": { "allowedPersistenceRegions": regions },
        "labels": { "team": "red" },
    });
    world.fine(Method::PUT, "topics/big", full).await;
    let subscription = json!({
        "topic": "projects/demo/topics/big",
        "pushConfig": { "pushEndpoint": "https://receiver.example/push", "attributes": { "x-goog-version": "v1" } },
    });
    world.fine(Method::PUT, "subscriptions/big", subscription).await;
    for (path, mut body, field, bound) in beyond_bounds() {
        body.as_object_mut().expect("an object").remove("topic");
        let mask = body.as_object().and_then(|fields| fields.keys().next()).expect("a field").clone();
        let kind = if path.starts_with("topics") { "topic" } else { "subscription" };
        let (_, answer) = world.ask(Method::PATCH, path, json!({ kind: body, "updateMask": mask })).await;
        assert_names_the_bound(&answer, field, bound);
        if kind == "subscription" {
            let body = json!({ "pushConfig": body["pushConfig"] });
            let (_, answer) = world.ask(Method::POST, &format!("{path}:modifyPushConfig"), body).await;
            assert_names_the_bound(&answer, field, bound);
        }
    }
    let kept = world.fine(Method::GET, "topics/big", Value::Null).await;
    assert_eq!(kept["kmsKeyName"].as_str().map(str::len), Some(1_024));
    assert_eq!(kept["labels"], json!({ "team": "red" }));
}

#[tokio::test]
async fn a_field_beyond_its_bound_is_refused_over_grpc_as_well() {
    let world = World::new().await;
    let topic = |bytes: usize| pb::Topic {
        name: "projects/demo/topics/big".to_owned(),
        kms_key_name: "k".repeat(bytes),
        ..pb::Topic::default()
    };
    let (headers, _) = world.grpc("Publisher/CreateTopic", &topic(9_400_000)).await;
    assert_eq!(headers["grpc-status"], "3");
    let told = headers["grpc-message"].to_str().expect("a text");
    assert!(told.contains("kms_key_name") && told.contains("1024"), "{told}");
    let (headers, made) = world.grpc("Publisher/CreateTopic", &topic(1_024)).await;
    assert!(headers.get("grpc-status").is_none() && !made.is_empty());
    let update = pb::UpdateTopicRequest {
        topic: Some(topic(1_025)),
        update_mask: Some(prost_types::FieldMask { paths: vec!["kms_key_name".to_owned()] }),
    };
    assert_eq!(world.grpc("Publisher/UpdateTopic", &update).await.0["grpc-status"], "3");
}
