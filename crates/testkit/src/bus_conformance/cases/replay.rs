//! Replays: what a subscription got comes once more, to another one, and ends where it began.

use std::time::Duration;

use anyhow::Result;
use levada_bus::port::{Replay, SeekTo, SubscriptionSpec};

use super::super::check::{Kind, refused, same};
use super::super::world::{LONG, Subscription, World, message, name, with};

super::cases! {
    "replay":
    brings_what_was_acknowledged,
    ends_where_it_was_made,
    begins_at_its_time,
    begins_at_a_snapshot,
    takes_the_filter_of_its_source,
    the_source_does_not_notice,
    outlives_a_restart [Restart],
    keeps_to_its_rate [ManualTime],
    what_cannot_be_replayed_is_refused,
}

async fn replay(world: &World, id: &str, from: SeekTo, max_rate_per_s: Option<u32>) -> Result<Subscription> {
    let replay = Some(Replay { source: name("billing"), until: 0 });
    let spec = SubscriptionSpec {
        replay,
        max_rate_per_s,
        ack_deadline: LONG,
        ..SubscriptionSpec::new(name(id), name("orders"))
    };
    world.port().create_replay(spec, from).await?;
    world.subscription(id)
}

/// Publishes, and has the subscription acknowledge all of it.
async fn consumed(world: &World, subscription: &Subscription, bodies: &[&str]) -> Result<()> {
    world.publish(&name("orders"), bodies).await?;
    let received = world.expect(subscription, bodies).await?;
    world.ack(subscription, &received).await
}

async fn brings_what_was_acknowledged(world: &mut World) -> Result<()> {
    let (_, subscription) = world.pair(|_| {}).await?;
    consumed(world, &subscription, &["a", "b"]).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), None).await?;
    let received = world.expect(&again, &["a", "b"]).await?;
    same("whether it is finished", again.stats().replay_finished, Some(false))?;
    world.ack(&again, &received).await?;
    world.settled(&again)?;
    same("whether it is finished", again.stats().replay_finished, Some(true))
}

async fn ends_where_it_was_made(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    consumed(world, &subscription, &["a"]).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), None).await?;
    world.publish(&topic, &["b"]).await?;
    let received = world.expect(&again, &["a"]).await?;
    world.ack(&again, &received).await?;
    world.nothing(&again, "what came later is for the source").await?;
    world.expect(&subscription, &["b"]).await.map(drop)
}

async fn begins_at_its_time(world: &mut World) -> Result<()> {
    let (_, subscription) = world.pair(|_| {}).await?;
    consumed(world, &subscription, &["a"]).await?;
    world.pass(world.unit()).await;
    let from = world.now_ms();
    world.pass(world.unit()).await;
    consumed(world, &subscription, &["b"]).await?;
    let again = replay(world, "again", SeekTo::TimeMs(from), None).await?;
    world.expect(&again, &["b"]).await.map(drop)
}

async fn begins_at_a_snapshot(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    consumed(world, &subscription, &["a"]).await?;
    world.publish(&topic, &["b"]).await?;
    world.port().create_snapshot(name("moment"), &name("billing"), Default::default()).await?;
    let received = world.expect(&subscription, &["b"]).await?;
    world.ack(&subscription, &received).await?;
    let again = replay(world, "again", SeekTo::Snapshot(name("moment")), None).await?;
    world.expect(&again, &["b"]).await.map(drop)
}

async fn takes_the_filter_of_its_source(world: &mut World) -> Result<()> {
    let filter = "attributes.kind = \"paid\"";
    let (topic, subscription) = world.pair(|spec| spec.filter = filter.to_owned()).await?;
    let kinds = [("paid", "a"), ("open", "b"), ("paid", "c")];
    world.send(&topic, kinds.map(|(kind, body)| with(message(body), &[("kind", kind)])).into()).await?;
    let received = world.expect(&subscription, &["a", "c"]).await?;
    world.ack(&subscription, &received).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), None).await?;
    world.expect(&again, &["a", "c"]).await?;
    same("its filter", again.spec().filter.as_str(), filter)
}

async fn the_source_does_not_notice(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let held = world.take(&subscription, 1).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), None).await?;
    world.expect(&again, &["a", "b"]).await?;
    world.ack(&subscription, &held).await?;
    let rest = world.take(&subscription, 1).await?;
    world.ack(&subscription, &rest).await?;
    world.settled(&subscription)
}

async fn outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    consumed(world, &subscription, &["a", "b"]).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), None).await?;
    let first = world.take(&again, 1).await?;
    let gone = first[0].message.body.clone();
    world.ack(&again, &first).await?;
    world.restart().await?;
    world.publish(&topic, &["c"]).await?;
    let again = world.subscription("again")?;
    let rest = world.take(&again, 1).await?;
    anyhow::ensure!(rest[0].message.body != gone, "what was acknowledged came again");
    world.ack(&again, &rest).await?;
    world.nothing(&again, "it still ends where it was made").await
}

async fn keeps_to_its_rate(world: &mut World) -> Result<()> {
    let (topic, _) = world.pair(|_| {}).await?;
    let bodies: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    world.publish(&topic, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let again = replay(world, "again", SeekTo::TimeMs(0), Some(10)).await?;
    let mut got = 0;
    for _ in 0..30 {
        got += again.pull(super::super::world::limits(100)).await?.len();
        world.pass(Duration::from_millis(100)).await;
    }
    anyhow::ensure!((28..=33).contains(&got), "{got} messages in 3 s at 10 a second");
    Ok(())
}

async fn what_cannot_be_replayed_is_refused(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    let of = |source: &str, id: &str| SubscriptionSpec {
        replay: Some(Replay { source: name(source), until: 0 }),
        ..SubscriptionSpec::new(name(id), name("orders"))
    };
    let port = world.port();
    let make = |spec| port.create_replay(spec, SeekTo::TimeMs(0));
    refused("of nothing", make(of("nobody", "again")).await, Kind::NotFound("subscription"))?;
    refused(
        "a name that is taken",
        make(of("billing", "billing")).await,
        Kind::AlreadyExists("subscription"),
    )?;
    let plain = SubscriptionSpec { replay: None, ..of("billing", "again") };
    refused("without a source", make(plain).await, Kind::InvalidArgument)?;
    let still = SubscriptionSpec { max_rate_per_s: Some(0), ..of("billing", "again") };
    refused("a rate of nothing", make(still).await, Kind::InvalidArgument)
}
