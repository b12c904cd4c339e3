//! Publish-side deduplication by an attribute.

use std::sync::Arc;
use std::time::Duration;

use levada_core::{ManualClock, Message, ResourceName, TenantContext};
use levada_disk::{SimDisk, SimRng};

use super::{Port, fresh, message, name, open, tenant};
use crate::port::{BusPort, Deduplication, PortError, Publication, TopicSpec};
use crate::tests::START_MS;

const HOUR: Duration = Duration::from_secs(3600);

fn order(owner: &str, id: &str) -> Message {
    let mut message = message(owner, "order");
    message.attributes.set("order_id", id);
    message
}

fn spec(topic: &str, window: Duration) -> TopicSpec {
    let deduplication = Some(Deduplication { attribute: "order_id".to_owned(), window });
    TopicSpec { deduplication, ..TopicSpec::new(name(topic)) }
}

async fn world(window: Duration) -> (Port, ResourceName) {
    let port = fresh();
    port.port.create_topic(spec("home/bills", window)).await.expect("made");
    (port, name("home/bills"))
}

async fn send(port: &Port, topic: &ResourceName, owner: &str, id: &str) -> u64 {
    port.try_publish(topic, vec![order(owner, id)]).await.expect("published")[0]
}

fn kept(port: &Port, topic: &ResourceName) -> usize {
    port.port.peek(topic, None, 1_000).expect("looks").len()
}

#[tokio::test]
async fn the_same_value_of_one_tenant_is_one_message() {
    let (port, topic) = world(HOUR).await;
    let first = send(&port, &topic, "acme", "7").await;
    assert_eq!(send(&port, &topic, "acme", "7").await, first, "answered with the first's id");
    assert_ne!(send(&port, &topic, "globex", "7").await, first, "another tenant's is another message");
    assert_ne!(send(&port, &topic, "acme", "8").await, first);
    let plain = |body: &str| message("acme", body);
    let without = port.try_publish(&topic, vec![plain("a"), plain("a")]).await.expect("published");
    assert_ne!(without[0], without[1], "without the attribute nothing is looked at");
    let batch = vec![order("acme", "9"), order("acme", "9"), order("acme", "7")];
    let batch = port.try_publish(&topic, batch).await.expect("published");
    assert_eq!((batch[0], batch[2]), (batch[1], first), "inside of one call too");
    assert_eq!(kept(&port, &topic), 6);
}

#[tokio::test]
async fn a_value_is_free_again_when_its_window_has_ended() {
    let (port, topic) = world(HOUR).await;
    let first = send(&port, &topic, "acme", "7").await;
    port.world.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(send(&port, &topic, "acme", "7").await, first);
    port.world.clock.advance(Duration::from_secs(2));
    let second = send(&port, &topic, "acme", "7").await;
    assert_ne!(second, first, "the window counts from the first");
    assert_eq!(send(&port, &topic, "acme", "7").await, second);
}

#[tokio::test]
async fn windows_outlive_restarts_upkeep_and_retention() {
    let (mut port, topic) = world(7 * 24 * HOUR).await;
    let first = send(&port, &topic, "acme", "7").await;
    for day in 1..=6 {
        // Segments are small here, and nobody subscribes: only the window keeps them.
        for n in 0..100 {
            send(&port, &topic, "acme", &format!("{day}-{n}")).await;
        }
        port.world.clock.advance(24 * HOUR);
        port.world.bus.maintain().await.expect("upkeep");
        port = port.restart().await;
        assert_eq!(send(&port, &topic, "acme", "7").await, first, "day {day}");
    }
    assert_eq!(kept(&port, &topic), 601);
    port.world.clock.advance(24 * HOUR + Duration::from_secs(1));
    port = port.restart().await;
    assert_ne!(send(&port, &topic, "acme", "7").await, first, "7 days have passed, restarts or not");
}

#[tokio::test]
async fn it_counts_from_when_it_was_switched_on() {
    let port = fresh();
    let topic = port.topic("home/bills").await;
    let before = send(&port, &topic, "acme", "7").await;
    port.port.update_topic(spec("home/bills", HOUR)).await.expect("changed");
    let first = send(&port, &topic, "acme", "7").await;
    assert_ne!(first, before);
    let port = port.restart().await;
    assert_eq!(send(&port, &topic, "acme", "7").await, first);
    port.port.update_topic(TopicSpec::new(topic.clone())).await.expect("switched off");
    assert_ne!(send(&port, &topic, "acme", "7").await, first);
    let port = port.restart().await;
    assert_ne!(send(&port, &topic, "acme", "7").await, first);
    let other = Deduplication { attribute: "other".to_owned(), window: HOUR };
    let other = TopicSpec { deduplication: Some(other), ..TopicSpec::new(topic.clone()) };
    port.port.update_topic(other).await.expect("changed");
    assert_ne!(send(&port, &topic, "acme", "7").await, send(&port, &topic, "acme", "7").await);
}

#[tokio::test]
async fn a_message_sent_again_on_purpose_is_not_a_duplicate() {
    let (port, topic) = world(HOUR).await;
    let first = send(&port, &topic, "acme", "7").await;
    let again = Publication::again(TenantContext::system(tenant("acme"), "test"), order("acme", "7"));
    let again = port.port.publish(&topic, vec![again]).await.expect("answers").remove(0).expect("accepted");
    assert_ne!(again, first);
    assert_eq!(send(&port, &topic, "acme", "7").await, first);
}

#[tokio::test]
async fn settings_that_promise_nothing_are_refused() {
    let (port, _) = world(HOUR).await;
    let with = |attribute: &str, window| TopicSpec {
        deduplication: Some(Deduplication { attribute: attribute.to_owned(), window }),
        ..TopicSpec::new(name("home/other"))
    };
    for wrong in [
        with("", HOUR),
        with(&"a".repeat(257), HOUR),
        with("order_id", Duration::from_millis(999)),
        with("order_id", 7 * 24 * HOUR + Duration::from_secs(1)),
    ] {
        let refused = port.port.create_topic(wrong).await;
        assert!(matches!(refused, Err(PortError::InvalidArgument(_))), "{refused:?}");
    }
}

/// Whatever was answered before a power loss is a duplicate after it, and what was not is
/// there once at most.
#[tokio::test]
async fn after_a_power_loss_nothing_comes_twice() {
    for seed in 0..40 {
        let mut disk = Arc::new(SimDisk::new(seed));
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut rng = SimRng::new(seed);
        let mut port = open(disk.clone(), clock.clone());
        port.port.create_topic(spec("home/bills", HOUR)).await.expect("made");
        let topic = name("home/bills");
        let mut answered = std::collections::BTreeMap::new();
        for _ in 0..4 {
            for _ in 0..rng.below(40) {
                let id = rng.below(60).to_string();
                let offset = send(&port, &topic, "acme", &id).await;
                let first = *answered.entry(id.clone()).or_insert(offset);
                assert_eq!(first, offset, "seed {seed}: {id} came twice");
                if rng.below(12) == 0 {
                    port.world.bus.maintain().await.expect("upkeep");
                }
            }
            disk = Arc::new(disk.crash());
            port = open(disk.clone(), clock.clone());
        }
        assert_eq!(kept(&port, &topic), answered.len(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_dead_letter_that_is_sent_again_is_no_duplicate_of_its_event() {
    let port = fresh();
    let kept = port.port.topic(&name("home/orders")).expect("the folder's topic");
    let settings = TopicSpec { retention: kept.retention, ..spec("home/orders", HOUR) };
    port.port.update_topic(settings).await.expect("its settings");
    let first = send(&port, &name("home/orders"), "acme", "7").await;
    let bus = &port.world.bus;
    let letter = crate::DeadLetter {
        tenant: tenant("acme"),
        code: "enrich-unavailable".into(),
        reason: "the service is down".into(),
        stage: "enrich".into(),
        attempts: 5,
        pipeline: "orders".into(),
        position: first.to_string(),
        attributes: order("acme", "7").attributes,
        ordering_key: None,
        body: bytes::Bytes::from_static(b"order"),
        idempotency_key: "orders:0:enrich".into(),
        resendable: true,
    };
    let (origin, dead) = (crate::tests::topic("orders"), crate::tests::topic("orders-dlq"));
    bus.dead_letter(&origin, vec![letter]).await.expect("written");
    let mut end = bus.end(&dead).expect("topic");
    end.wait_for(|end| *end >= 1).await.expect("visible");
    let acme = crate::tests::principal(&["acme"]);
    assert_eq!(bus.resend(&acme, &dead, None).await.expect("sent").sent, 1);
    let mut end = bus.end(&origin).expect("topic");
    let copy = end.wait_for(|end| *end >= first + 2);
    let copy = tokio::time::timeout(Duration::from_secs(20), copy).await;
    copy.expect("the copy is a message of its own").expect("the log is open");
}
