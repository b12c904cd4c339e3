//! Seeks by time: what was published before is acknowledged, what was at or after is not,
//! as far as it is kept.

use std::time::Duration;

use anyhow::Result;
use levada_bus::port::{SeekTo, TopicSpec};

use super::super::check::same;
use super::super::world::{World, bodies, message, name};

super::cases! {
    "seek":
    forward_acknowledges_what_came_before,
    backward_brings_back_what_is_retained,
    backward_brings_back_only_what_is_kept,
    a_retention_of_the_topic_keeps_it_for_all,
    the_time_itself_counts_as_after [ManualTime],
    a_time_to_come_drops_what_there_is,
    after_a_time_to_come_messages_come_also_after_a_restart [Restart],
    not_further_back_than_the_retention [ManualTime],
    to_the_end_empties_it,
    attempts_begin_anew,
    another_subscription_does_not_notice,
    it_outlives_a_restart [Restart],
    wakes_a_pull_that_waits,
}

const MINUTE: Duration = Duration::from_secs(60);

async fn seek(world: &World, to_ms: i64) -> Result<()> {
    world.port().seek(&name("billing"), SeekTo::TimeMs(to_ms)).await?;
    Ok(())
}

/// A moment between what was published before and what comes after.
async fn between(world: &World) -> i64 {
    world.pass(world.unit()).await;
    let at = world.now_ms();
    world.pass(world.unit()).await;
    at
}

async fn forward_acknowledges_what_came_before(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let middle = between(world).await;
    world.publish(&topic, &["c"]).await?;
    seek(world, middle).await?;
    let received = world.expect(&subscription, &["c"]).await?;
    world.nothing(&subscription, "the rest was published before").await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn backward_brings_back_what_is_retained(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retain_acked = true).await?;
    world.publish(&topic, &["a"]).await?;
    let middle = between(world).await;
    world.publish(&topic, &["b", "c"]).await?;
    let received = world.take(&subscription, 3).await?;
    world.ack(&subscription, &received).await?;
    seek(world, middle).await?;
    let again = world.expect(&subscription, &["b", "c"]).await?;
    world.nothing(&subscription, "the rest was published before").await?;
    world.ack(&subscription, &again).await?;
    seek(world, 0).await?;
    world.expect(&subscription, &["a", "b", "c"]).await?;
    Ok(())
}

async fn backward_brings_back_only_what_is_kept(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    let received = world.take(&subscription, 3).await?;
    let (acked, leased): (Vec<_>, Vec<_>) = received.into_iter().partition(|r| r.message.body != "b");
    world.ack(&subscription, &acked).await?;
    same("on lease", bodies(&leased), vec!["b".to_owned()])?;
    seek(world, 0).await?;
    world.expect(&subscription, &["b"]).await?;
    world.nothing(&subscription, "the rest was acknowledged, and is not retained").await
}

async fn a_retention_of_the_topic_keeps_it_for_all(world: &mut World) -> Result<()> {
    let mut spec = TopicSpec::new(name("orders"));
    spec.retention = Some(60 * MINUTE);
    world.port().create_topic(spec).await?;
    let subscription = world.subscribe("billing", &name("orders"), |_| {}).await?;
    world.publish(&name("orders"), &["a", "b"]).await?;
    let received = world.take(&subscription, 2).await?;
    world.ack(&subscription, &received).await?;
    seek(world, 0).await?;
    world.expect(&subscription, &["a", "b"]).await?;
    // Also for one that was made later: it seeks to before it was there.
    let later = world.subscribe("later", &name("orders"), |_| {}).await?;
    world.nothing(&later, "nothing was published since it was made").await?;
    world.port().seek(&name("later"), SeekTo::TimeMs(0)).await?;
    world.expect(&later, &["a", "b"]).await?;
    Ok(())
}

async fn the_time_itself_counts_as_after(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retain_acked = true).await?;
    world.publish(&topic, &["a"]).await?;
    world.pass(MINUTE).await;
    let at = world.now_ms();
    world.publish(&topic, &["b"]).await?;
    world.pass(MINUTE).await;
    world.publish(&topic, &["c"]).await?;
    seek(world, at).await?;
    let received = world.expect(&subscription, &["b", "c"]).await?;
    world.ack(&subscription, &received).await?;
    seek(world, at + 1).await?;
    world.expect(&subscription, &["c"]).await?;
    world.nothing(&subscription, "b was published a millisecond before the time").await
}

async fn a_time_to_come_drops_what_there_is(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retain_acked = true).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let held = world.take(&subscription, 1).await?;
    // The year 3000, as people purge a subscription.
    seek(world, 32_503_680_000_000).await?;
    world.publish(&topic, &["c"]).await?;
    world.expect(&subscription, &["c"]).await?;
    world.nothing(&subscription, "the rest was published before the seek").await?;
    drop(held);
    world.port().create_snapshot(name("then"), &name("billing"), Default::default()).await?;
    world.publish(&topic, &["d"]).await?;
    world.port().seek(&name("billing"), SeekTo::Snapshot(name("then"))).await?;
    let received = world.expect(&subscription, &["c", "d"]).await?;
    world.nothing(&subscription, "what the first seek dropped is dropped").await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn after_a_time_to_come_messages_come_also_after_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    seek(world, world.now_ms() + 3_600_000).await?;
    drop(subscription);
    world.restart().await?;
    world.publish(&topic, &["b"]).await?;
    let subscription = world.subscription("billing")?;
    let received = world.expect(&subscription, &["b"]).await?;
    world.nothing(&subscription, "it was published before the seek").await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn not_further_back_than_the_retention(world: &mut World) -> Result<()> {
    let (topic, subscription) = world
        .pair(|spec| {
            spec.retain_acked = true;
            spec.retention = 60 * MINUTE;
        })
        .await?;
    world.publish(&topic, &["old"]).await?;
    world.pass(40 * MINUTE).await;
    world.publish(&topic, &["new"]).await?;
    let received = world.take(&subscription, 2).await?;
    world.ack(&subscription, &received).await?;
    world.pass(30 * MINUTE).await;
    seek(world, 0).await?;
    world.expect(&subscription, &["new"]).await?;
    world.nothing(&subscription, "the other is older than the retention").await
}

async fn to_the_end_empties_it(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    world.take(&subscription, 2).await?;
    world.pass(world.unit()).await;
    seek(world, world.now_ms()).await?;
    world.nothing(&subscription, "everything was published before").await?;
    world.settled(&subscription)?;
    world.publish(&topic, &["d"]).await?;
    world.expect(&subscription, &["d"]).await?;
    Ok(())
}

async fn attempts_begin_anew(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    for _ in 0..3 {
        let received = world.take(&subscription, 1).await?;
        world.nack(&subscription, &received).await?;
    }
    seek(world, 0).await?;
    let received = world.take(&subscription, 1).await?;
    same("the attempt after a seek", received[0].delivery_attempt, 1)
}

async fn another_subscription_does_not_notice(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let other = world.subscribe("other", &topic, |_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&other, 1).await?;
    world.pass(world.unit()).await;
    seek(world, world.now_ms()).await?;
    world.nothing(&subscription, "everything was published before").await?;
    world.take(&other, 1).await?;
    world.ack(&other, &received).await
}

async fn it_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retain_acked = true).await?;
    let other = world.subscribe("other", &topic, |_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 2).await?;
    world.ack(&subscription, &received).await?;
    world.pass(world.unit()).await;
    seek(world, 0).await?;
    world.port().seek(&name("other"), SeekTo::TimeMs(world.now_ms())).await?;
    drop((subscription, other));
    world.restart().await?;
    let (subscription, other) = (world.subscription("billing")?, world.subscription("other")?);
    world.expect(&subscription, &["a", "b"]).await?;
    world.nothing(&other, "it was sought to the end").await
}

async fn wakes_a_pull_that_waits(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retain_acked = true).await?;
    world.send(&topic, vec![message("a")]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    let again = world.woken_by(&subscription, seek(world, 0)).await?;
    same("what comes", bodies(&again), vec!["a".to_owned()])
}
