//! A message through the traced bus, over the embedded one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_bus::port::{
    AckOutcome, BusPort, Consumer, Publication, PullLimits, Received, SubscriptionPort, SubscriptionSpec,
    TopicSpec,
};
use levada_bus::{Bus, BusConfig, EmbeddedBus};
use levada_core::{ManualClock, Message, ProjectId, ResourceName, TenantContext, TenantId, attr};
use levada_disk::SimDisk;
use tokio::sync::mpsc;

use super::TracedBus;
use super::leases::{Leases, Room};
use crate::context::{SpanId, TraceId, TraceParent};
use crate::metrics::{Drops, Reason};
use crate::sampler::{Root, Sampler};
use crate::span::{Kind, Span, Value};
use crate::tracer::tests::caught;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TOPIC: &str = "shop/orders";

struct World {
    bus: TracedBus,
    spans: mpsc::Receiver<Span>,
    clock: Arc<ManualClock>,
    drops: Arc<Drops>,
    worker: Arc<dyn SubscriptionPort>,
}

fn name(id: &str) -> ResourceName {
    ResourceName::parse_path(&format!("projects/shop/topics/{id}"), "topics").unwrap()
}

impl World {
    async fn new(sampler: Sampler) -> Self {
        let (tracer, spans, clock, drops) = caught(sampler, 100);
        let disk = Arc::new(SimDisk::new(1));
        let (log, _) = Bus::open(disk, BusConfig::default(), clock.clone()).unwrap();
        let embedded = EmbeddedBus::open(log, ProjectId::new("shop").unwrap()).unwrap();
        let bus = TracedBus::new(Arc::new(embedded), tracer);
        bus.create_topic(TopicSpec::new(name("orders"))).await.unwrap();
        bus.create_subscription(SubscriptionSpec::new(name("worker"), name("orders"))).await.unwrap();
        let worker = bus.subscription(&name("worker")).unwrap();
        Self { bus, spans, clock, drops, worker }
    }

    /// Publishes one message with those attributes; its id.
    async fn publish(&self, attributes: &[(&str, &str)]) -> u64 {
        let tenant = TenantId::new("acme").unwrap();
        let message = Message {
            tenant: tenant.clone(),
            attributes: attributes.iter().copied().collect(),
            ordering_key: None,
            body: Bytes::from_static(b"twelve bytes"),
        };
        let context = TenantContext::system(tenant.clone(), "test");
        let ids = self.bus.publish(&name("orders"), vec![Publication::new(context, message)]).await.unwrap();
        ids[0].clone().unwrap()
    }

    async fn pull(&self) -> Received {
        let wait = Duration::from_secs(10);
        let limits = PullLimits {
            max_messages: 1,
            max_bytes: 1 << 20,
            wait,
            ack_deadline: None,
            consumer: Consumer::Call,
        };
        self.worker.pull(limits).await.unwrap().remove(0)
    }

    fn spans(&mut self) -> Vec<Span> {
        std::iter::from_fn(|| self.spans.try_recv().ok()).collect()
    }

    fn sweep(&self) {
        self.bus.open.sweep(&self.bus.tracer);
    }
}

fn of<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[track_caller]
fn has(span: &Span, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(of(span, name), Some(value), "{name} of {span:?}");
    }
}

#[tokio::test]
async fn a_message_is_followed_from_publish_to_acknowledgement() {
    let mut world = World::new(Sampler::default()).await;
    let attributes = [(attr::CORRELATION_ID, "order-7"), (attr::EVENT_TYPE, "order.created")];
    let id = world.publish(&attributes).await;
    let publish = world.spans().remove(0);
    let trace = TraceId::of_correlation(&TenantId::new("acme").unwrap(), "order-7");
    assert_eq!((publish.trace, publish.parent, publish.kind), (trace, None, Kind::Producer));
    assert_eq!(publish.id, SpanId::of_publish(TOPIC, id));
    has(
        &publish,
        &[
            ("messaging.destination.name", TOPIC.into()),
            ("messaging.message.id", id.to_string().into()),
            ("messaging.operation.type", "send".into()),
            ("messaging.message.body.size", Value::Int(12)),
            ("messaging.message.conversation_id", "order-7".into()),
            ("levada.correlation_id", "order-7".into()),
            ("levada.tenant_id", "acme".into()),
            ("levada.event_type", "order.created".into()),
        ],
    );

    let received = world.pull().await;
    assert_eq!(received.message.attributes, attributes.into_iter().collect(), "it comes as it went");
    assert!(world.spans().is_empty(), "not settled yet");
    world.clock.advance(Duration::from_millis(250));
    let outcome = world.worker.acknowledge(vec![received.ack_id]).await.unwrap();
    assert_eq!(outcome, [AckOutcome::Done]);
    let process = world.spans().remove(0);
    assert_eq!((process.trace, process.parent, process.kind), (trace, Some(publish.id), Kind::Consumer));
    assert_ne!(process.id, publish.id);
    assert_eq!(process.end_ns - process.start_ns, 250_000_000);
    assert_eq!(process.failure, None);
    has(
        &process,
        &[
            ("messaging.destination.name", TOPIC.into()),
            ("messaging.destination.subscription.name", "shop/worker".into()),
            ("messaging.message.id", id.to_string().into()),
            ("levada.delivery_attempt", Value::Int(1)),
            ("levada.tenant_id", "acme".into()),
            ("levada.correlation_id", "order-7".into()),
            ("levada.outcome", "acked".into()),
        ],
    );
    world.worker.acknowledge(vec![received.ack_id]).await.unwrap();
    assert!(world.spans().is_empty(), "a delivery ends once");
}

#[tokio::test]
async fn the_publishers_context_is_gone_on_with() {
    let mut world = World::new(Sampler::default()).await;
    let parent = TraceParent::parse(PARENT).unwrap();
    for attribute in [attr::TRACEPARENT, "googclient_traceparent"] {
        let id = world.publish(&[(attribute, PARENT), ("tracestate", "vendor=1")]).await;
        let received = world.pull().await;
        world.worker.acknowledge(vec![received.ack_id]).await.unwrap();
        let spans = world.spans();
        let [publish, process] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((publish.trace, publish.parent), (parent.trace, Some(parent.span)));
        assert_eq!((process.trace, process.parent), (parent.trace, Some(SpanId::of_publish(TOPIC, id))));
        assert_eq!((&*publish.state, &*process.state), ("vendor=1", "vendor=1"));
    }
}

#[tokio::test]
async fn what_is_given_back_or_expires_says_so() {
    let mut world = World::new(Sampler::default()).await;
    world.publish(&[]).await;
    let first = world.pull().await;
    world.worker.modify_ack_deadlines(vec![(first.ack_id, Duration::ZERO)]).await.unwrap();
    let second = world.pull().await;
    world.clock.advance(Duration::from_secs(9));
    world.worker.modify_ack_deadlines(vec![(second.ack_id, Duration::from_secs(20))]).await.unwrap();
    world.clock.advance(Duration::from_secs(15));
    world.sweep();
    let spans = world.spans();
    let [publish, nacked] = spans.as_slice() else { panic!("the longer lease holds: {spans:?}") };
    has(nacked, &[("levada.outcome", "nacked".into()), ("levada.delivery_attempt", Value::Int(1))]);
    assert_eq!(nacked.trace, publish.trace, "found by the message's place alone");

    world.clock.advance(Duration::from_secs(7));
    world.sweep();
    let expired = world.spans().remove(0);
    has(&expired, &[("levada.outcome", "expired".into()), ("levada.delivery_attempt", Value::Int(2))]);
    assert_eq!(
        expired.end_ns - expired.start_ns,
        29_000_000_000,
        "when the lease ended, not when it was seen"
    );
    assert!(expired.failure.is_some());
    assert_ne!(expired.id, nacked.id);
}

#[tokio::test]
async fn what_is_not_sampled_leaves_nothing_behind() {
    for sampler in [Sampler::new(Root::Never), Sampler::default()] {
        let mut world = World::new(sampler).await;
        let unsampled = PARENT.replace("-01", "-00");
        world.publish(&[(attr::TRACEPARENT, &unsampled), (attr::CORRELATION_ID, "c")]).await;
        let received = world.pull().await;
        assert!(world.bus.open.of(&name("worker")).is_empty());
        world.worker.acknowledge(vec![received.ack_id]).await.unwrap();
        assert!(world.spans().is_empty());
    }
}

#[tokio::test]
async fn a_publish_that_fails_is_told() {
    let mut world = World::new(Sampler::default()).await;
    let tenant = TenantId::new("acme").unwrap();
    let context = TenantContext::system(tenant.clone(), "test");
    let message = Message {
        tenant,
        attributes: Default::default(),
        ordering_key: None,
        body: Bytes::from_static(b"x"),
    };
    let published = world.bus.publish(&name("missing"), vec![Publication::new(context, message)]).await;
    assert!(published.is_err());
    let span = world.spans().remove(0);
    has(&span, &[("error.type", "not_found".into())]);
    assert_eq!(span.failure.as_deref(), Some("not_found"));
}

#[tokio::test]
async fn open_deliveries_are_bounded_and_their_room_comes_back() {
    let mut world = World::new(Sampler::default()).await;
    let leases = Leases::new(&name("worker"), Arc::new(Room::new(1)));
    let topic: Arc<str> = TOPIC.into();
    world.publish(&[]).await;
    world.publish(&[]).await;
    let (first, second) = (world.pull().await, world.pull().await);
    world.spans();
    let (tracer, lease) = (world.bus.tracer.clone(), Duration::from_secs(10));
    leases.delivered(&tracer, &topic, &[first.clone(), second.clone()], lease);
    assert_eq!(world.drops.of(Reason::TooManyOpen), 1);
    leases.settle(&tracer, [(first.ack_id, super::leases::End::Acked)].into_iter());
    leases.delivered(&tracer, &topic, &[second], lease);
    assert_eq!(world.drops.of(Reason::TooManyOpen), 1, "there is room again");
    assert_eq!(world.spans().len(), 1);
}

#[tokio::test]
async fn a_subscription_that_nobody_uses_is_forgotten() {
    let world = World::new(Sampler::default()).await;
    world.sweep();
    assert_eq!(world.bus.open.by_name.lock().len(), 1, "the worker has a handle");
    let World { bus, worker, .. } = world;
    drop(worker);
    bus.open.sweep(&bus.tracer);
    assert!(bus.open.by_name.lock().is_empty());
}
