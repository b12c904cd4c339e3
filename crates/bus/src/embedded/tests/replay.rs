//! Replays beside a subscription that goes on with its work.

use std::time::Duration;

use levada_core::ResourceName;

use super::{Port, bodies, fresh, ids, limits, message, name};
use crate::port::{BusPort, PortError, Replay, SeekTo, SubscriptionPort, SubscriptionSpec};
use crate::tests::START_MS;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn replay_of(source: &str, own: &str) -> SubscriptionSpec {
    let replay = Replay { source: name(source), until: 0 };
    SubscriptionSpec { replay: Some(replay), ..SubscriptionSpec::new(name(own), name("home/any")) }
}

async fn drain(port: &Port, subscription: &str) -> Vec<String> {
    let subscription = port.open_subscription(subscription);
    let mut found = Vec::new();
    loop {
        let received = subscription.pull(limits(100)).await.expect("pulls");
        if received.is_empty() {
            return found;
        }
        found.extend(bodies(&received).into_iter().map(str::to_owned));
        subscription.acknowledge(ids(&received)).await.expect("acknowledges");
    }
}

/// Uses a subscription, so that it does not expire, and takes nothing.
async fn look(subscription: &dyn SubscriptionPort) {
    let received = subscription.pull(limits(1)).await.expect("pulls");
    let back = ids(&received).into_iter().map(|id| (id, Duration::ZERO)).collect();
    subscription.modify_ack_deadlines(back).await.expect("given back");
}

async fn world() -> (Port, ResourceName) {
    let port = fresh();
    let topic = port.topic("home/bills").await;
    port.subscribe("home/billing", &topic, |_| {}).await;
    (port, topic)
}

#[tokio::test]
async fn a_replay_brings_what_was_acknowledged_and_ends_where_it_was_made() {
    let (port, topic) = world().await;
    port.publish(&topic, &["1", "2", "3"]).await;
    assert_eq!(drain(&port, "home/billing").await, ["1", "2", "3"]);
    let made = port.port.create_replay(replay_of("home/billing", "home/again"), SeekTo::TimeMs(0)).await;
    assert_eq!(made.expect("made").topic, Some(topic.clone()), "of the source, not of the request");
    port.publish(&topic, &["4"]).await;
    let again = port.open_subscription("home/again");
    assert_eq!((again.stats().backlog_messages, again.stats().replay_finished), (3, Some(false)));
    assert_eq!(drain(&port, "home/again").await, ["1", "2", "3"]);
    assert_eq!((again.stats().backlog_messages, again.stats().replay_finished), (0, Some(true)));
    assert_eq!(drain(&port, "home/billing").await, ["4"], "the source goes on by itself");
    let port = port.restart().await;
    assert_eq!(drain(&port, "home/again").await, [""; 0], "a finished one stays finished");
    assert_eq!(port.open_subscription("home/again").stats().replay_finished, Some(true));
}

#[tokio::test]
async fn a_replay_takes_tenant_and_filter_of_its_source_and_begins_at_a_time() {
    let port = fresh();
    let topic = port.topic("home/bills").await;
    port.subscribe("home/billing", &topic, |spec| {
        spec.tenant = Some(super::tenant("acme"));
        spec.filter = "attributes.kind = \"paid\"".to_owned();
    })
    .await;
    for (owner, kind, body) in
        [("acme", "paid", "early"), ("acme", "paid", "1"), ("globex", "paid", "2"), ("acme", "open", "3")]
    {
        let mut message = message(owner, body);
        message.attributes.set("kind", kind);
        port.try_publish(&topic, vec![message]).await.expect("published");
        port.world.clock.advance(Duration::from_secs(10));
    }
    let mut spec = replay_of("home/billing", "home/again");
    spec.filter = String::new();
    port.port.create_replay(spec, SeekTo::TimeMs(START_MS + 5_000)).await.expect("made");
    assert_eq!(drain(&port, "home/again").await, ["1"]);
}

#[tokio::test]
async fn what_a_replay_still_needs_stays_beyond_the_retention_and_not_for_ever() {
    let (port, topic) = world().await;
    for n in 0..400 {
        port.publish(&topic, &[&format!("{n:04} {}", "x".repeat(400))]).await;
    }
    assert_eq!(drain(&port, "home/billing").await.len(), 400);
    port.port.create_replay(replay_of("home/billing", "home/again"), SeekTo::TimeMs(0)).await.expect("made");
    let again = port.open_subscription("home/again");
    let first = again.pull(limits(10)).await.expect("pulls");
    again.acknowledge(ids(&first)).await.expect("acknowledges");
    for _ in 0..3 {
        port.world.clock.advance(10 * DAY);
        look(&*again).await;
        port.world.bus.maintain().await.expect("upkeep");
    }
    let rest = drain(&port, "home/again").await;
    assert_eq!(rest.len(), 390, "30 days later; the first is {:?}", rest.first().map(|r| &r[..4]));
    for _ in 0..3 {
        port.world.clock.advance(10 * DAY);
        look(&*again).await;
        port.publish(&topic, &["new"]).await;
        port.world.bus.maintain().await.expect("upkeep");
    }
    let kept = port.port.peek(&topic, None, 1_000).expect("looks").len();
    assert!(kept < 400, "what is delivered goes: {kept} are there");

    port.subscribe("home/later", &topic, |_| {}).await;
    let bodies: Vec<String> = (0..400).map(|n| format!("{n:04} {}", "y".repeat(400))).collect();
    for body in &bodies {
        port.publish(&topic, &[body]).await;
    }
    port.port.create_replay(replay_of("home/later", "home/lazy"), SeekTo::TimeMs(0)).await.expect("made");
    let lazy = port.open_subscription("home/lazy");
    for _ in 0..4 {
        port.world.clock.advance(10 * DAY);
        look(&*lazy).await;
        port.publish(&topic, &["new"]).await;
        port.world.bus.maintain().await.expect("upkeep");
    }
    let kept = port.port.peek(&topic, None, 1_000).expect("looks").len();
    assert!(kept < 400, "31 days are enough for a replay: {kept} are there");
}

#[tokio::test]
async fn a_rate_bounds_deliveries_and_can_change() {
    let (port, topic) = world().await;
    let bodies: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    port.publish(&topic, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let spec = SubscriptionSpec { max_rate_per_s: Some(10), ..replay_of("home/billing", "home/slow") };
    let spec = port.port.create_replay(spec, SeekTo::TimeMs(0)).await.expect("made");
    let slow = port.open_subscription("home/slow");
    let mut got = slow.pull(limits(100)).await.expect("pulls").len();
    for _ in 0..50 {
        port.world.clock.advance(Duration::from_millis(100));
        got += slow.pull(limits(100)).await.expect("pulls").len();
    }
    assert!((50..=53).contains(&got), "{got} in 5 s at 10 a second");
    let faster = SubscriptionSpec { max_rate_per_s: None, ..spec.clone() };
    port.port.update_subscription(faster).await.expect("changed");
    assert_eq!(slow.pull(limits(100)).await.expect("pulls").len(), 100 - got);
    let none = SubscriptionSpec { max_rate_per_s: Some(0), ..spec };
    let refused = port.port.update_subscription(none).await;
    assert!(matches!(refused, Err(PortError::InvalidArgument(_))), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused() {
    let (port, _) = world().await;
    let made =
        |spec: SubscriptionSpec| async { port.port.create_replay(spec, SeekTo::TimeMs(0)).await.map(drop) };
    let unknown = made(replay_of("home/nobody", "home/first")).await;
    assert!(matches!(unknown, Err(PortError::NotFound { what: "subscription", .. })), "{unknown:?}");
    let taken = made(replay_of("home/billing", "home/billing")).await;
    assert!(matches!(taken, Err(PortError::AlreadyExists { .. })), "{taken:?}");
    let plain = made(SubscriptionSpec::new(name("home/first"), name("home/bills"))).await;
    assert!(matches!(plain, Err(PortError::InvalidArgument(_))), "{plain:?}");
    made(replay_of("home/billing", "home/first")).await.expect("made");
    let twice = made(replay_of("home/first", "home/second")).await;
    assert!(matches!(twice, Err(PortError::InvalidArgument(_))), "{twice:?}");
    let as_ordinary = port.port.create_subscription(replay_of("home/billing", "home/third")).await;
    assert!(matches!(as_ordinary, Err(PortError::InvalidArgument(_))), "{as_ordinary:?}");
}
