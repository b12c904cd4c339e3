//! Streams against the bus in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use levada_core::{Authenticator, Principal, Problem, RandomIds, Role, SystemClock, TenantSet};
use tonic::Code;

use super::*;
use crate::api::{Parts, PubsubConfig};
use crate::tests::memory::MemoryBus;
use crate::{Guards, MemoryPolicies, NoSchemas, Projects};

const TOPIC: &str = "projects/demo/topics/orders";
const SUBSCRIPTION: &str = "projects/demo/subscriptions/orders";

/// One key, `good`, until it is revoked.
#[derive(Default)]
struct OneKey {
    revoked: AtomicBool,
}

impl Authenticator for OneKey {
    fn is_valid(&self, _: &Principal) -> bool {
        !self.revoked.load(Ordering::SeqCst)
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        if secret != "good" {
            return Err(Problem::new(401, "unauthenticated", "no such key"));
        }
        let (tenants, roles) = (TenantSet::All, [Role::Admin].into());
        Ok(Arc::new(Principal { id: "good".into(), name: "good".into(), tenants, roles }))
    }
}

/// An API with one topic and one subscription of it.
struct World {
    api: PubsubApi,
    call: Call,
    keys: Arc<OneKey>,
}

impl World {
    async fn new(config: PubsubConfig, subscription: pb::Subscription) -> Self {
        let keys = Arc::new(OneKey::default());
        let api = PubsubApi::new(Parts {
            bus: Arc::new(MemoryBus::default()),
            authenticator: keys.clone(),
            projects: Arc::new(Projects::dev([])),
            schemas: Arc::new(NoSchemas),
            policies: Arc::new(MemoryPolicies::default()),
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(RandomIds),
            guards: Guards::default(),
            config,
        });
        let call = api.call(&HeaderMap::new()).expect("a call");
        let topic = pb::Topic { name: TOPIC.into(), ..Default::default() };
        api.create_topic(&call, topic).await.expect("a topic");
        let named = pb::Subscription { name: SUBSCRIPTION.into(), topic: TOPIC.into(), ..subscription };
        api.create_subscription(&call, named).await.expect("a subscription");
        Self { api, call, keys }
    }

    async fn publish(&self, count: usize) {
        let message = |n: usize| pb::PubsubMessage { data: n.to_string().into(), ..Default::default() };
        let messages = (0..count).map(message).collect();
        let request = pb::PublishRequest { topic: TOPIC.into(), messages };
        self.api.publish(&self.call, request).await.expect("published");
    }

    fn open(&self, first: pb::StreamingPullRequest) -> Client {
        let (requests, mut requested) = mpsc::unbounded_channel();
        requests.send(Ok(first)).expect("a first request");
        let requested = futures::stream::poll_fn(move |cx| requested.poll_recv(cx)).boxed();
        let answers = open(self.api.clone(), self.call.clone(), requested).boxed();
        Client { requests: Some(requests), answers }
    }
}

/// The client's end of a stream.
struct Client {
    requests: Option<mpsc::UnboundedSender<Result<pb::StreamingPullRequest, Status>>>,
    answers: BoxStream<'static, Answer>,
}

impl Client {
    fn send(&self, request: pb::StreamingPullRequest) {
        self.requests.as_ref().expect("an open stream").send(Ok(request)).expect("sent");
    }

    /// The next answer for which `wanted` holds.
    async fn until<T>(&mut self, wanted: impl Fn(&Answer) -> Option<T>) -> T {
        let found = async {
            loop {
                let answer = self.answers.next().await.expect("the stream ended");
                if let Some(found) = wanted(&answer) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("in time")
    }

    async fn messages(&mut self) -> Vec<pb::ReceivedMessage> {
        self.until(|answer| {
            let messages = &answer.as_ref().expect("no refusal").received_messages;
            (!messages.is_empty()).then(|| messages.clone())
        })
        .await
    }

    async fn ends(&mut self) -> Code {
        self.until(|answer| answer.as_ref().err().map(|error| error.code)).await
    }
}

fn first() -> pb::StreamingPullRequest {
    pb::StreamingPullRequest {
        subscription: SUBSCRIPTION.into(),
        stream_ack_deadline_seconds: 60,
        ..Default::default()
    }
}

fn exactly_once() -> pb::Subscription {
    pb::Subscription { enable_exactly_once_delivery: true, ..Default::default() }
}

#[tokio::test]
async fn outstanding_messages_are_freed_by_acknowledgements_through_any_door() {
    let world = World::new(PubsubConfig::default(), pb::Subscription::default()).await;
    world.publish(6).await;
    let mut client = world.open(pb::StreamingPullRequest { max_outstanding_messages: 2, ..first() });
    let mut held = client.messages().await;
    while held.len() < 2 {
        held.extend(client.messages().await);
    }
    assert_eq!(held.len(), 2);
    let ids: Vec<String> = held.iter().map(|m| m.ack_id.clone()).collect();
    let unary = pb::AcknowledgeRequest { subscription: SUBSCRIPTION.into(), ack_ids: ids[..1].to_vec() };
    world.api.acknowledge(&world.call, unary).await.expect("acknowledged");
    assert_eq!(client.messages().await.len(), 1);
    client.send(pb::StreamingPullRequest { ack_ids: ids[1..].to_vec(), ..Default::default() });
    assert_eq!(client.messages().await.len(), 1);
    let nack = pb::ModifyAckDeadlineRequest {
        subscription: SUBSCRIPTION.into(),
        ack_ids: held.iter().map(|m| m.ack_id.clone()).collect(),
        ack_deadline_seconds: 0,
    };
    world.api.modify_ack_deadline(&world.call, nack).await.expect("late is no error");
}

#[tokio::test]
async fn a_stream_confirms_what_was_acknowledged_and_names_what_was_not() {
    let world = World::new(PubsubConfig::default(), exactly_once()).await;
    world.publish(2).await;
    let mut client = world.open(first());
    let mut held = client.messages().await;
    while held.len() < 2 {
        held.extend(client.messages().await);
    }
    let ids: Vec<String> = held.into_iter().map(|m| m.ack_id).collect();
    client.send(pb::StreamingPullRequest {
        ack_ids: vec![ids[0].clone(), "made-up".into()],
        modify_deadline_ack_ids: vec![ids[1].clone()],
        modify_deadline_seconds: vec![30],
        ..Default::default()
    });
    let confirmed = client
        .until(|answer| {
            let answer = answer.as_ref().expect("no refusal").clone();
            answer.acknowledge_confirmation.is_some().then_some(answer)
        })
        .await;
    let acked = confirmed.acknowledge_confirmation.expect("a confirmation");
    assert_eq!((acked.ack_ids, acked.invalid_ack_ids), (vec![ids[0].clone()], vec!["made-up".to_owned()]));
    let modified = confirmed.modify_ack_deadline_confirmation.expect("a confirmation");
    assert_eq!(modified.ack_ids, [ids[1].clone()]);
    assert!(confirmed.subscription_properties.is_some_and(|p| p.exactly_once_delivery_enabled));
}

#[tokio::test]
async fn a_stream_ends_for_the_documented_reasons() {
    type Act = fn(World) -> BoxFuture<'static, ()>;
    let delete: Act = |world| {
        Box::pin(async move {
            let request = pb::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.into() };
            world.api.delete_subscription(&world.call, request).await.expect("deleted");
        })
    };
    let detach: Act = |world| {
        Box::pin(async move {
            let request = pb::DetachSubscriptionRequest { subscription: SUBSCRIPTION.into() };
            world.api.detach_subscription(&world.call, request).await.expect("detached");
        })
    };
    let drain: Act = |world| Box::pin(async move { world.api.drain() });
    for (act, code) in
        [(delete, Code::NotFound), (detach, Code::FailedPrecondition), (drain, Code::Unavailable)]
    {
        let world = World::new(PubsubConfig::default(), pb::Subscription::default()).await;
        let mut client = world.open(first());
        client.until(|answer| answer.as_ref().is_ok().then_some(())).await;
        act(world).await;
        assert_eq!(client.ends().await, code);
    }
}

#[tokio::test]
async fn only_the_first_request_may_say_how_the_stream_is() {
    let world = World::new(PubsubConfig::default(), pb::Subscription::default()).await;
    let bad: Vec<pb::StreamingPullRequest> = vec![
        pb::StreamingPullRequest { subscription: SUBSCRIPTION.into(), ..Default::default() },
        pb::StreamingPullRequest { max_outstanding_messages: 1, ..Default::default() },
        pb::StreamingPullRequest { max_outstanding_bytes: -1, ..Default::default() },
        pb::StreamingPullRequest { protocol_version: 1, ..Default::default() },
        pb::StreamingPullRequest { stream_ack_deadline_seconds: 9, ..Default::default() },
        pb::StreamingPullRequest { ack_ids: vec!["made-up".into()], ..Default::default() },
        pb::StreamingPullRequest { modify_deadline_seconds: vec![10], ..Default::default() },
    ];
    for request in bad {
        let mut client = world.open(first());
        client.send(request.clone());
        assert_eq!(client.ends().await, Code::InvalidArgument, "{request:?}");
    }
    for request in [
        pb::StreamingPullRequest::default(),
        pb::StreamingPullRequest { stream_ack_deadline_seconds: 0, ..first() },
        pb::StreamingPullRequest { stream_ack_deadline_seconds: 601, ..first() },
    ] {
        assert_eq!(world.open(request.clone()).ends().await, Code::InvalidArgument, "{request:?}");
    }
    let mut fine = world.open(first());
    fine.send(pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..Default::default() });
    fine.send(pb::StreamingPullRequest { client_id: "again".into(), ..Default::default() });
    world.publish(1).await;
    assert_eq!(fine.messages().await.len(), 1);
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_told_of_changed_properties() {
    let config = PubsubConfig { keepalive: Duration::from_millis(50), ..PubsubConfig::default() };
    let world = World::new(config, pb::Subscription::default()).await;
    let mut client = world.open(pb::StreamingPullRequest { protocol_version: 1, ..first() });
    for _ in 0..3 {
        client.until(|answer| answer.as_ref().ok().map(|_| ())).await;
    }
    let update = pb::UpdateSubscriptionRequest {
        subscription: Some(pb::Subscription { name: SUBSCRIPTION.into(), ..exactly_once() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["enable_exactly_once_delivery".into()] }),
    };
    world.api.update_subscription(&world.call, update).await.expect("updated");
    client
        .until(|answer| {
            let properties = answer.as_ref().expect("no refusal").subscription_properties?;
            properties.exactly_once_delivery_enabled.then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_half_closed_stream_ends_after_its_acknowledgements() {
    let world = World::new(PubsubConfig::default(), pb::Subscription::default()).await;
    world.publish(1).await;
    let mut client = world.open(first());
    let held = client.messages().await;
    client.send(pb::StreamingPullRequest { ack_ids: vec![held[0].ack_id.clone()], ..Default::default() });
    client.requests = None;
    let rest = tokio::time::timeout(Duration::from_secs(20), client.answers.collect::<Vec<_>>());
    assert!(rest.await.expect("in time").iter().all(Result::is_ok));
    let seek = pb::PullRequest { subscription: SUBSCRIPTION.into(), max_messages: 1, ..Default::default() };
    let soon = Call {
        deadline: Some(tokio::time::Instant::now() + Duration::from_millis(200)),
        ..world.call.clone()
    };
    let pulled = world.api.pull(&soon, seek).await.expect("pulled");
    assert!(pulled.received_messages.is_empty(), "it was acknowledged");
}

#[tokio::test]
async fn streams_are_bounded_and_a_dropped_one_makes_room() {
    let config = PubsubConfig { max_streams: 1, ..PubsubConfig::default() };
    let world = World::new(config, pb::Subscription::default()).await;
    let mut one = world.open(first());
    one.until(|answer| answer.as_ref().is_ok().then_some(())).await;
    assert_eq!(world.open(first()).ends().await, Code::ResourceExhausted);
    drop(one);
    let room = async {
        while !matches!(world.open(first()).answers.next().await, Some(Ok(_))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), room).await.expect("room");
}

/// A call with the one key; what was opened before is not asked for one.
fn keyed(world: &World) -> Call {
    let headers =
        HeaderMap::from_iter([(http::header::AUTHORIZATION, "Bearer good".parse().expect("a value"))]);
    world.api.call(&headers).expect("a call")
}

#[tokio::test]
async fn no_message_leaves_a_stream_whose_key_was_revoked() {
    let world = World::new(PubsubConfig::default(), pb::Subscription::default()).await;
    world.publish(3).await;
    let world = World { call: keyed(&world), ..world };
    let mut waiting = world.open(pb::StreamingPullRequest { max_outstanding_messages: 1, ..first() });
    assert_eq!(waiting.messages().await.len(), 1);
    let mut unread = world.open(first());
    world.keys.revoked.store(true, Ordering::SeqCst);
    let begun = std::time::Instant::now();
    let left = unread.answers.next().await.expect("an answer");
    assert_eq!(left.expect_err("no message").code, Code::Unauthenticated);
    assert!(unread.answers.next().await.is_none());
    assert_eq!(waiting.ends().await, Code::Unauthenticated);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
