//! Push against endpoints that answer as told.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use levada_core::{
    Authenticator, Egress, EgressRule, Principal, Problem, Quota, Quotas, RandomIds, SystemClock,
    TenantQuotas,
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::api::{Call, Parts, PubsubConfig};
use crate::messages::pb;
use crate::tests::memory::MemoryBus;
use crate::{Guards, MemoryPolicies, NoSchemas, Projects};

const TOPIC: &str = "projects/demo/topics/orders";

struct Nobody;

impl Authenticator for Nobody {
    fn is_valid(&self, _: &levada_core::Principal) -> bool {
        true
    }

    fn authenticate(&self, _: &str) -> Result<Arc<Principal>, Problem> {
        Err(Problem::new(401, "unauthenticated", "no keys"))
    }
}

type Seen = (HeaderMap, Vec<u8>);

/// Stands for no answer, ever.
const SILENCE: u16 = 0;

/// An endpoint that answers with these codes in turn, the last one for ever, and tells what came.
async fn endpoint(codes: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Seen>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let handler =
        move |State(sender): State<mpsc::UnboundedSender<Seen>>, headers: HeaderMap, body: bytes::Bytes| {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let code = codes[n.min(codes.len() - 1)];
            let _ = sender.send((headers, body.to_vec()));
            async move {
                if code == SILENCE {
                    std::future::pending::<()>().await;
                }
                StatusCode::from_u16(code).expect("a status")
            }
        };
    let router = Router::new().fallback(handler).with_state(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/push", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let builder =
                    hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            });
        }
    });
    (url, receiver)
}

async fn world() -> (PubsubApi, Call, PushConfig) {
    world_of(Projects::dev([]), Egress::default().with_loopback()).await
}

async fn world_of(projects: Projects, egress: Egress) -> (PubsubApi, Call, PushConfig) {
    world_with(projects, egress, Guards::default()).await
}

async fn world_with(projects: Projects, egress: Egress, guards: Guards) -> (PubsubApi, Call, PushConfig) {
    let api = PubsubApi::new(Parts {
        bus: Arc::new(MemoryBus::default()),
        authenticator: Arc::new(Nobody),
        projects: Arc::new(projects),
        schemas: Arc::new(NoSchemas),
        policies: Arc::new(MemoryPolicies::default()),
        clock: Arc::new(SystemClock::new()),
        ids: Arc::new(RandomIds),
        guards,
        config: PubsubConfig { egress, ..PubsubConfig::default() },
    });
    let call = api.call(&HeaderMap::new()).expect("a call");
    api.create_topic(&call, pb::Topic { name: TOPIC.into(), ..Default::default() }).await.expect("a topic");
    let key = PushKey::from_pkcs8(&PushKey::generate().expect("a key")).expect("a key");
    let config = PushConfig {
        min_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        ..PushConfig::new("https://levada.example", Arc::new(key))
    };
    (api, call, config)
}

async fn publish(api: &PubsubApi, call: &Call) {
    let message = pb::PubsubMessage {
        data: "hello".into(),
        attributes: [("k".to_owned(), "v".to_owned()), ("authorization".to_owned(), "no".to_owned())].into(),
        ordering_key: "key".into(),
        ..Default::default()
    };
    let request = pb::PublishRequest { topic: TOPIC.into(), messages: vec![message] };
    api.publish(call, request).await.expect("published");
}

async fn seen(receiver: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.expect("in time").expect("a post")
}

fn subscription(push_config: pb::PushConfig) -> pb::Subscription {
    pb::Subscription {
        name: "projects/demo/subscriptions/pushed".into(),
        topic: TOPIC.into(),
        push_config: Some(push_config),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_message_is_posted_in_its_envelope_until_the_endpoint_takes_it() {
    let (url, mut posts) = endpoint(&[500, 302, 204]).await;
    let (api, call, config) = world().await;
    let pusher = tokio::spawn({
        let api = api.clone();
        async move { api.push(config).await }
    });
    let oidc =
        pb::push_config::OidcToken { service_account_email: "a@example.org".into(), audience: "me".into() };
    let push = pb::PushConfig {
        push_endpoint: url,
        authentication_method: Some(pb::push_config::AuthenticationMethod::OidcToken(oidc)),
        ..Default::default()
    };
    api.create_subscription(&call, subscription(push)).await.expect("a subscription");
    publish(&api, &call).await;
    for _ in 0..3 {
        let (headers, body) = seen(&mut posts).await;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["message"]["data"], "aGVsbG8=");
        assert_eq!(body["message"]["attributes"]["k"], "v");
        assert_eq!(body["message"]["orderingKey"], "key");
        assert_eq!(body["message"]["messageId"], body["message"]["message_id"]);
        assert_eq!(body["subscription"], "projects/demo/subscriptions/pushed");
        assert!(headers["user-agent"].to_str().is_ok_and(|name| name.starts_with("Levada-PubSub/")));
        let token = headers["authorization"].to_str().expect("a token");
        assert_eq!(token.strip_prefix("Bearer ").map(|t| t.split('.').count()), Some(3));
    }
    // Had the third answer not acknowledged it, it would come before this one.
    publish(&api, &call).await;
    let (_, second) = seen(&mut posts).await;
    let second: Value = serde_json::from_slice(&second).expect("JSON");
    assert_eq!(second["message"]["messageId"], "2");
    api.drain();
    pusher.await.expect("no panic");
}

#[tokio::test]
async fn an_unwrapped_message_is_its_bytes_and_pushing_stops_when_it_is_turned_off() {
    let (url, mut posts) = endpoint(&[200]).await;
    let (api, call, config) = world().await;
    tokio::spawn({
        let api = api.clone();
        async move { api.push(config).await }
    });
    let bare = pb::push_config::Wrapper::NoWrapper(pb::push_config::NoWrapper { write_metadata: true });
    let push = pb::PushConfig { push_endpoint: url, wrapper: Some(bare), ..Default::default() };
    api.create_subscription(&call, subscription(push)).await.expect("a subscription");
    publish(&api, &call).await;
    let (headers, body) = seen(&mut posts).await;
    assert_eq!(body, b"hello");
    assert_eq!(headers["k"], "v");
    assert_eq!(headers["user-agent"], concat!("Levada-PubSub/", env!("CARGO_PKG_VERSION")));
    assert_eq!(headers["x-goog-pubsub-ordering-key"], "key");
    assert_eq!(headers["x-goog-pubsub-subscription-name"], "projects/demo/subscriptions/pushed");
    assert!(!headers.contains_key("authorization"), "an attribute is no credential");
    let off = pb::ModifyPushConfigRequest {
        subscription: "projects/demo/subscriptions/pushed".into(),
        push_config: Some(pb::PushConfig::default()),
    };
    api.modify_push_config(&call, off).await.expect("turned off");
    publish(&api, &call).await;
    let pull = pb::PullRequest {
        subscription: "projects/demo/subscriptions/pushed".into(),
        max_messages: 1,
        ..Default::default()
    };
    let pulled = api.pull(&call, pull).await.expect("pulled");
    assert_eq!(pulled.received_messages.len(), 1);
    assert!(posts.try_recv().is_err());
}

#[tokio::test]
async fn messages_do_not_go_where_only_this_machine_reaches() {
    let (url, mut posts) = endpoint(&[200]).await;
    let port: u16 =
        url.split(':').nth(2).and_then(|rest| rest.split('/').next()?.parse().ok()).expect("a port");
    let named = format!("http://localhost:{port}/push");
    let (api, call, config) = world_of(Projects::dev([]), Egress::default()).await;
    tokio::spawn({
        let api = api.clone();
        async move { api.push(config).await }
    });
    let create = |endpoint: String| {
        let push = pb::PushConfig { push_endpoint: endpoint, ..Default::default() };
        api.create_subscription(&call, subscription(push))
    };
    for literal in
        [&url, "http://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "https://2130706433/"]
    {
        let refused = create(literal.to_string()).await.expect_err(literal);
        assert_eq!(refused.code, tonic::Code::InvalidArgument);
        assert!(refused.message.contains("not allowed"), "{}", refused.message);
    }
    // What a name leads to shows at delivery. The message is not lost.
    create(named).await.expect("a name is no address");
    publish(&api, &call).await;
    let off = |endpoint: &str| pb::ModifyPushConfigRequest {
        subscription: "projects/demo/subscriptions/pushed".into(),
        push_config: Some(pb::PushConfig { push_endpoint: endpoint.to_owned(), ..Default::default() }),
    };
    let refused = api.modify_push_config(&call, off(&url)).await.expect_err("a change is checked too");
    assert_eq!(refused.code, tonic::Code::InvalidArgument);
    let waited = tokio::time::timeout(Duration::from_millis(300), posts.recv()).await;
    assert!(waited.is_err(), "nothing was posted");
    api.modify_push_config(&call, off("")).await.expect("turned off");
    let pull = pb::PullRequest {
        subscription: "projects/demo/subscriptions/pushed".into(),
        max_messages: 1,
        ..Default::default()
    };
    assert_eq!(api.pull(&call, pull).await.expect("pulled").received_messages.len(), 1);
}

#[tokio::test]
async fn egress_opens_what_it_names() {
    let (url, mut posts) = endpoint(&[200]).await;
    let port: u16 =
        url.split(':').nth(2).and_then(|rest| rest.split('/').next()?.parse().ok()).expect("a port");
    let egress = Egress::new([EgressRule::host("localhost", port)]);
    let (api, call, config) = world_of(Projects::dev([]), egress).await;
    tokio::spawn({
        let api = api.clone();
        async move { api.push(config).await }
    });
    let push = pb::PushConfig { push_endpoint: format!("http://localhost:{port}/"), ..Default::default() };
    api.create_subscription(&call, subscription(push)).await.expect("a subscription");
    publish(&api, &call).await;
    seen(&mut posts).await;
}

#[tokio::test]
async fn endpoints_that_hang_hold_their_own_posts_and_no_others() {
    // They do well until they may have many messages at a time, and then never answer.
    const THEN_SILENT: [u16; 61] = {
        let mut codes = [204; 61];
        codes[60] = SILENCE;
        codes
    };
    let quotas = Quotas::new(&[(Quota::PushPosts, 2)], &TenantQuotas::new());
    let guards = Guards { quotas, ..Guards::default() };
    let egress = Egress::default().with_loopback();
    let (api, call, config) = world_with(Projects::dev([]), egress, guards).await;
    let pusher = tokio::spawn({
        let (api, config) = (api.clone(), PushConfig { max_posts: 40, ..config });
        async move { api.push(config).await }
    });
    let mut hanging = Vec::new();
    for n in 0..5 {
        let (url, posts) = endpoint(&THEN_SILENT).await;
        let push = pb::PushConfig { push_endpoint: url, ..Default::default() };
        let made = pb::Subscription {
            name: format!("projects/demo/subscriptions/hanging-{n}"),
            ack_deadline_seconds: 600,
            ..subscription(push)
        };
        api.create_subscription(&call, made).await.expect("a subscription");
        hanging.push(posts);
    }
    for _ in 0..150 {
        publish_unordered(&api, &call).await;
    }
    for posts in &mut hanging {
        for _ in 0..61 {
            seen(posts).await;
        }
    }
    let (url, mut posts) = endpoint(&[204]).await;
    let push = pb::PushConfig { push_endpoint: url, ..Default::default() };
    api.create_subscription(&call, subscription(push)).await.expect("a subscription");
    for _ in 0..50 {
        publish_unordered(&api, &call).await;
        seen(&mut posts).await;
    }
    pusher.abort();
}

async fn publish_unordered(api: &PubsubApi, call: &Call) {
    let message = pb::PubsubMessage { data: "hello".into(), ..Default::default() };
    let request = pb::PublishRequest { topic: TOPIC.into(), messages: vec![message] };
    api.publish(call, request).await.expect("published");
}
