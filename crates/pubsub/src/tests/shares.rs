//! What one caller may take of what all share, through both doors.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use levada_access::{Rate, RateLimiter};
use levada_core::{
    Authenticator, ManualClock, MemoryBudget, OwnedMemory, Principal, Problem, ProjectId, Quota, Quotas,
    RandomIds, SystemClock, TenantId, TenantQuotas, TenantSet,
};
use levada_pubsub::{
    Guards, MemoryPolicies, NoSchemas, Owner, Parts, Projects, PubsubApi, PubsubConfig, router,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Keys are written `tenant/role`, and may be revoked.
#[derive(Default)]
struct Keys(Mutex<HashSet<String>>);

impl Authenticator for Keys {
    fn is_valid(&self, principal: &Principal) -> bool {
        !self.0.lock().expect("no panic before").contains(&principal.id)
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        let unknown = || Problem::new(401, "unauthenticated", "the key is unknown");
        let (tenant, role) = secret.split_once('/').ok_or_else(unknown)?;
        let tenants = TenantSet::Only([TenantId::new(tenant).map_err(|_| unknown())?].into());
        let roles = [role.parse().map_err(|_| unknown())?].into();
        Ok(Arc::new(Principal { id: secret.into(), name: secret.into(), tenants, roles }))
    }
}

struct World {
    api: PubsubApi,
    router: Router,
    keys: Arc<Keys>,
    quotas: Quotas,
    bodies: OwnedMemory,
}

const MIB: usize = 1 << 20;

impl World {
    /// Tenants `a` and `b` have a project each, with the topic `orders` and a subscription of it.
    async fn new(quotas: &[(Quota, u64)], guards: Guards) -> Self {
        let project = |name: &str| ProjectId::new(name).expect("a project");
        let owner = |name: &str| Owner::Tenant(TenantId::new(name).expect("a tenant"));
        let keys = Arc::new(Keys::default());
        let quotas = Quotas::new(quotas, &TenantQuotas::new());
        let bodies = guards.bodies.clone();
        let api = PubsubApi::new(Parts {
            bus: Arc::new(super::memory::MemoryBus::default()),
            authenticator: keys.clone(),
            projects: Arc::new(Projects::new([
                (project("project-a"), owner("a")),
                (project("project-b"), owner("b")),
            ])),
            schemas: Arc::new(NoSchemas),
            policies: Arc::new(MemoryPolicies::default()),
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(RandomIds),
            guards: Guards { quotas: quotas.clone(), ..guards },
            config: PubsubConfig::default(),
        });
        let world = Self { router: router(&api), api, keys, quotas, bodies };
        for tenant in ["a", "b"] {
            let (key, project) = (format!("{tenant}/engineer"), format!("project-{tenant}"));
            assert_eq!(world.put(&key, &format!("{project}/topics/orders"), json!({})).await, 200);
            let body = json!({ "topic": format!("projects/{project}/topics/orders") });
            assert_eq!(world.put(&key, &format!("{project}/subscriptions/orders"), body).await, 200);
        }
        world
    }

    fn send(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Body,
    ) -> impl Future<Output = (u16, Value)> + Send + use<> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/projects/{path}"))
            .header("authorization", format!("Bearer {key}"))
            .body(body)
            .expect("a request");
        let router = self.router.clone();
        async move {
            let answer = router.oneshot(request).await.expect("an answer");
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
            (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
        }
    }

    async fn put(&self, key: &str, path: &str, body: Value) -> u16 {
        self.send(key, Method::PUT, path, Body::from(body.to_string())).await.0
    }

    async fn publish(&self, tenant: &str, messages: usize) -> (u16, Value) {
        let body = json!({ "messages": vec![json!({"data": "eA=="}); messages] });
        let path = format!("project-{tenant}/topics/orders:publish");
        self.send(&format!("{tenant}/service"), Method::POST, &path, Body::from(body.to_string())).await
    }

    fn pull(&self, tenant: &str) -> tokio::task::JoinHandle<(u16, Value)> {
        let path = format!("project-{tenant}/subscriptions/orders:pull");
        let body = Body::from(json!({"maxMessages": 10}).to_string());
        tokio::spawn(self.send(&format!("{tenant}/service"), Method::POST, &path, body))
    }

    /// A unary call of gRPC; its status.
    async fn grpc(&self, key: &str, method: &str, body: Body) -> String {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/google.pubsub.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {key}"))
            .body(body)
            .expect("a request");
        let answer: Response<Body> = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        let trailers = body.collect().await.expect("a body").trailers().cloned().unwrap_or_default();
        let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status"));
        status.and_then(|s| s.to_str().ok()).expect("a status").to_owned()
    }

    async fn waiting(&self, tenant: &str, count: u64) {
        let reached = async {
            let held = || {
                let usage = self.quotas.usage();
                usage
                    .iter()
                    .filter(|u| u.quota == Quota::WaitingReads && u.owner.as_str() == tenant)
                    .map(|u| u.held)
                    .sum::<u64>()
            };
            while held() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("they wait in time");
    }
}

/// A body of which so many bytes come, and never the rest.
fn unfinished(bytes: usize) -> Body {
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; bytes]))]);
    Body::from_stream(begun.chain(futures::stream::pending()))
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out
}

#[tokio::test]
async fn the_role_is_asked_for_before_the_body_is_read() {
    let world = World::new(&[], Guards::default()).await;
    let publish = "project-a/topics/orders:publish";
    let asked = world.send("a/analyst", Method::POST, publish, unfinished(10));
    let (status, _) = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("at once");
    assert_eq!(status, 403);
    for (key, method, code) in [
        ("a/analyst", "Publisher/Publish", "7"),
        ("a/analyst", "Subscriber/Pull", "7"),
        ("nobody", "Publisher/Publish", "16"),
    ] {
        let asked = world.grpc(key, method, unfinished(10));
        assert_eq!(
            tokio::time::timeout(Duration::from_secs(5), asked).await.expect("at once"),
            code,
            "{method}"
        );
    }
}

#[tokio::test]
async fn unfinished_bodies_of_one_caller_hold_its_part_and_end_in_time() {
    let bodies = OwnedMemory::new(&MemoryBudget::unlimited(), "request bodies", 8 * MIB, 3 * MIB);
    let guards = Guards { bodies, body_timeout: Duration::from_secs(2), ..Guards::default() };
    let world = World::new(&[], guards).await;
    let path = "project-a/topics/orders:publish";
    let mut slow: Vec<_> =
        (0..30).map(|_| tokio::spawn(world.send("a/service", Method::POST, path, unfinished(MIB)))).collect();
    let grpc = "Publisher/Publish";
    let mut refused = 0;
    while slow.len() > 3 {
        let (first, _, rest) = futures::future::select_all(slow).await;
        assert_eq!(first.expect("an answer").0, 429, "beyond its part it is refused at once");
        refused += 1;
        slow = rest;
    }
    assert_eq!((refused, world.bodies.share().used()), (27, 3 * MIB));
    assert_eq!(world.grpc("a/service", grpc, unfinished(MIB)).await, "8", "by both doors");
    assert_eq!(world.publish("b", 1).await.0, 200, "another tenant is not touched");
    for late in slow {
        assert_eq!(late.await.expect("an answer").0, 504, "what does not come is not waited for");
    }
    assert_eq!(world.bodies.share().used(), 0);
    assert_eq!(world.publish("a", 1).await.0, 200);
}

#[tokio::test]
async fn what_grows_when_it_is_decoded_is_counted_before() {
    let bodies = OwnedMemory::new(&MemoryBudget::unlimited(), "request bodies", 64 * MIB, 64 * MIB);
    let world = World::new(&[], Guards { bodies, ..Guards::default() }).await;
    // Five million empty messages in ten megabytes.
    let bomb = frame(&b"\x12\0".repeat(5_000_000));
    assert_eq!(world.grpc("a/service", "Publisher/Publish", Body::from(bomb)).await, "8");
    let bomb = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(4_000_000));
    let path = "project-a/topics/orders:publish";
    assert_eq!(world.send("a/service", Method::POST, path, Body::from(bomb)).await.0, 429);
    assert_eq!(world.publish("a", 1_000).await.0, 200);
    assert_eq!(world.bodies.share().used(), 0);
}

#[tokio::test]
async fn a_tenants_rate_counts_messages_at_both_doors() {
    let clock = Arc::new(ManualClock::new(0));
    let limits = Arc::new(RateLimiter::new(Some(Rate { per_s: 10.0, burst: 20.0 }), clock.clone()));
    let world = World::new(&[], Guards { limits: Some(limits), ..Guards::default() }).await;
    assert_eq!(world.publish("a", 20).await.0, 200);
    let (status, answer) = world.publish("a", 1).await;
    assert_eq!((status, &answer["error"]["status"]), (429, &json!("RESOURCE_EXHAUSTED")));
    let retry = &answer["error"]["details"][0];
    assert_eq!(retry["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(retry["retryDelay"], "1s");
    let topic = b"projects/project-a/topics/orders";
    let mut request = vec![0x0a, topic.len() as u8];
    request.extend(topic);
    request.extend(b"\x12\x03\x0a\x01x");
    let publish = async || world.grpc("a/service", "Publisher/Publish", Body::from(frame(&request))).await;
    assert_eq!(publish().await, "8");
    assert_eq!(world.publish("b", 20).await.0, 200, "another tenant is not touched");
    clock.advance(Duration::from_secs(1));
    assert_eq!(publish().await, "0");
}

#[tokio::test]
async fn waiting_pulls_have_a_share() {
    let world = World::new(&[(Quota::WaitingReads, 2)], Guards::default()).await;
    let waiting = [world.pull("a"), world.pull("a")];
    world.waiting("a", 2).await;
    let (status, answer) = world.pull("a").await.expect("an answer");
    assert_eq!((status, &answer["error"]["status"]), (429, &json!("RESOURCE_EXHAUSTED")));
    let other = world.pull("b");
    world.waiting("b", 1).await;
    assert_eq!(world.publish("b", 1).await.0, 200);
    assert_eq!(other.await.expect("an answer").0, 200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    world.waiting("a", 0).await;
}

#[tokio::test]
async fn a_waiting_pull_ends_soon_after_its_key_was_revoked_and_takes_nothing_with_it() {
    let world = World::new(&[], Guards::default()).await;
    let waiting = world.pull("a");
    world.waiting("a", 1).await;
    world.keys.0.lock().expect("no panic before").insert("a/service".to_owned());
    let begun = Instant::now();
    let (status, answer) = waiting.await.expect("an answer");
    assert_eq!((status, &answer["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_tenant_keeps_so_many_topics_subscriptions_and_snapshots() {
    let quotas = [(Quota::Topics, 3), (Quota::Subscriptions, 2), (Quota::Snapshots, 1), (Quota::Policies, 1)];
    let world = World::new(&quotas, Guards::default()).await;
    let made = async |key: &str, kind: &str, count: usize, body: Value| {
        let mut statuses = Vec::new();
        for n in 0..count {
            let project = format!("project-{}", &key[..1]);
            statuses.push(world.put(key, &format!("{project}/{kind}/more-{n}"), body.clone()).await);
        }
        statuses
    };
    assert_eq!(made("a/engineer", "topics", 4, json!({})).await, [200, 200, 429, 429]);
    let subscription = json!({ "topic": "projects/project-a/topics/orders" });
    assert_eq!(made("a/engineer", "subscriptions", 2, subscription).await, [200, 429]);
    let snapshot = json!({ "subscription": "projects/project-a/subscriptions/orders" });
    assert_eq!(made("a/engineer", "snapshots", 2, snapshot).await, [200, 429]);
    assert_eq!(made("b/engineer", "topics", 1, json!({})).await, [200], "another tenant is not touched");
    let policy = async |key: &str, resource: &str| {
        let body = Body::from(json!({"policy": {"bindings": []}}).to_string());
        world.send(key, Method::POST, &format!("{resource}:setIamPolicy"), body).await.0
    };
    assert_eq!(policy("a/admin", "project-a/topics/orders").await, 200);
    assert_eq!(policy("a/admin", "project-a/topics/orders").await, 200, "it is no other");
    assert_eq!(policy("a/admin", "project-a/subscriptions/orders").await, 429);
    assert_eq!(policy("b/admin", "project-b/topics/orders").await, 200);
    world.api.note_stock().await.expect("counted");
    let held = |owner: &str, quota| {
        let usage = world.quotas.usage();
        usage.iter().find(|u| u.owner.as_str() == owner && u.quota == quota).map(|u| u.held)
    };
    let kinds = [Quota::Topics, Quota::Subscriptions, Quota::Snapshots, Quota::Policies];
    assert_eq!(kinds.map(|quota| held("a", quota)), [Some(3), Some(2), Some(1), Some(1)]);
    assert_eq!(kinds[..2].iter().map(|q| held("b", *q)).collect::<Vec<_>>(), [Some(2), Some(1)]);
    let delete = world.send("a/engineer", Method::DELETE, "project-a/topics/more-0", Body::empty());
    assert_eq!(delete.await.0, 200);
    assert_eq!(world.put("a/engineer", "project-a/topics/again", json!({})).await, 200, "room was made");
}
