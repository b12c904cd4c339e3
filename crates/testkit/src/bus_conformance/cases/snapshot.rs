//! Snapshots: a state of acknowledgement to come back to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use levada_bus::port::{PortError, SeekTo, SnapshotSpec};
use levada_core::ResourceName;

use super::super::check::{Kind, refused, same};
use super::super::world::{World, bodies, name};

super::cases! {
    "snapshot":
    brings_back_what_was_not_acknowledged_then,
    also_another_subscription_may_seek_to_it,
    a_subscription_of_another_topic_may_not,
    reads_back_as_it_was_made,
    its_name_is_taken_once,
    one_that_is_not_there_is_not_found,
    its_labels_change,
    a_deleted_one_is_gone,
    expires_in_seven_days_less_its_oldest_message [ManualTime],
    of_too_old_a_backlog_is_refused [ManualTime],
    keeps_its_messages_while_it_lives [ManualTime],
    outlives_its_topic_and_its_subscription,
    outlives_a_restart [Restart],
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAY_MS: i64 = 24 * 3_600_000;

async fn take_snapshot(world: &World) -> Result<SnapshotSpec> {
    Ok(world.port().create_snapshot(name("then"), &name("billing"), BTreeMap::new()).await?)
}

async fn seek(world: &World, subscription: &ResourceName) -> Result<(), PortError> {
    world.port().seek(subscription, SeekTo::Snapshot(name("then"))).await
}

async fn brings_back_what_was_not_acknowledged_then(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    let received = world.take(&subscription, 3).await?;
    let (done, rest): (Vec<_>, Vec<_>) = received.into_iter().partition(|r| r.message.body == "b");
    world.ack(&subscription, &done).await?;
    take_snapshot(world).await?;
    world.ack(&subscription, &rest).await?;
    world.publish(&topic, &["d", "e"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    for _ in 0..2 {
        seek(world, &name("billing")).await?;
        let again = world.expect(&subscription, &["a", "c", "d", "e"]).await?;
        world.ack(&subscription, &again).await?;
        world.nothing(&subscription, "b was acknowledged before the snapshot").await?;
    }
    world.settled(&subscription)
}

async fn also_another_subscription_may_seek_to_it(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    take_snapshot(world).await?;
    let other = world.subscribe("other", &topic, |_| {}).await?;
    seek(world, &name("other")).await?;
    let came = world.take(&other, 1).await?;
    ensure!(bodies(&came) != bodies(&received), "{:?} was acknowledged before the snapshot", bodies(&came));
    world.nothing(&other, "the other was acknowledged before the snapshot").await
}

async fn a_subscription_of_another_topic_may_not(world: &mut World) -> Result<()> {
    let (_, _) = world.pair(|_| {}).await?;
    take_snapshot(world).await?;
    let bills = world.topic("bills").await?;
    let other = world.subscribe("other", &bills, |_| {}).await?;
    world.publish(&bills, &["a"]).await?;
    refused(
        "a seek to a snapshot of another topic",
        seek(world, &name("other")).await,
        Kind::FailedPrecondition,
    )?;
    world.expect(&other, &["a"]).await?;
    Ok(())
}

async fn reads_back_as_it_was_made(world: &mut World) -> Result<()> {
    let (topic, _) = world.pair(|_| {}).await?;
    let labels = BTreeMap::from([("team".to_owned(), "billing".to_owned())]);
    let made = world.port().create_snapshot(name("then"), &name("billing"), labels.clone()).await?;
    same(
        "its name, topic and labels",
        (&made.name, &made.topic, &made.labels),
        (&name("then"), &Some(topic), &labels),
    )?;
    ensure!(made.expires_at_ms > world.now_ms(), "it has expired");
    same("the snapshot", world.port().snapshot(&name("then"))?, made)
}

async fn its_name_is_taken_once(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    take_snapshot(world).await?;
    let again = world.port().create_snapshot(name("then"), &name("billing"), BTreeMap::new()).await;
    refused("a snapshot of a taken name", again, Kind::AlreadyExists("snapshot"))
}

async fn one_that_is_not_there_is_not_found(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    let (port, missing) = (world.port(), Kind::NotFound("snapshot"));
    refused("a snapshot", port.snapshot(&name("then")), missing)?;
    refused("a delete", port.delete_snapshot(&name("then")).await, missing)?;
    refused("a seek", seek(world, &name("billing")).await, missing)?;
    let made = take_snapshot(world).await?;
    port.delete_snapshot(&name("then")).await?;
    refused("an update", port.update_snapshot(made).await, missing)
}

async fn its_labels_change(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    let mut made = take_snapshot(world).await?;
    made.labels.insert("team".to_owned(), "billing".to_owned());
    same("the answer", world.port().update_snapshot(made.clone()).await?, made.clone())?;
    same("the snapshot", world.port().snapshot(&name("then"))?, made)
}

async fn a_deleted_one_is_gone(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    take_snapshot(world).await?;
    world.port().delete_snapshot(&name("then")).await?;
    refused("a deleted snapshot", world.port().snapshot(&name("then")), Kind::NotFound("snapshot"))?;
    take_snapshot(world).await?;
    Ok(())
}

async fn expires_in_seven_days_less_its_oldest_message(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let empty = take_snapshot(world).await?;
    same("the life of a snapshot of nothing", empty.expires_at_ms - world.now_ms(), 7 * DAY_MS)?;
    world.port().delete_snapshot(&name("then")).await?;
    world.publish(&topic, &["a"]).await?;
    world.pass(2 * DAY).await;
    let made = take_snapshot(world).await?;
    same("its life with a message of two days", made.expires_at_ms - world.now_ms(), 5 * DAY_MS)?;
    world.pass(5 * DAY - Duration::from_millis(1)).await;
    world.port().snapshot(&name("then"))?;
    world.pass(Duration::from_millis(1)).await;
    refused("an expired snapshot", world.port().snapshot(&name("then")), Kind::NotFound("snapshot"))?;
    refused("a seek to it", seek(world, &name("billing")).await, Kind::NotFound("snapshot"))?;
    world.maintain().await?;
    drop(subscription);
    refused("an expired snapshot", world.port().snapshot(&name("then")), Kind::NotFound("snapshot"))
}

async fn of_too_old_a_backlog_is_refused(world: &mut World) -> Result<()> {
    let (topic, _) = world.pair(|spec| spec.retention = 31 * DAY).await?;
    world.publish(&topic, &["a"]).await?;
    world.pass(7 * DAY - Duration::from_secs(1_800)).await;
    let made = world.port().create_snapshot(name("then"), &name("billing"), BTreeMap::new()).await;
    refused("a snapshot that would live for half an hour", made, Kind::FailedPrecondition)
}

async fn keeps_its_messages_while_it_lives(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retention = Duration::from_secs(600)).await?;
    world.publish(&topic, &["a"]).await?;
    take_snapshot(world).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    world.pass(6 * DAY).await;
    world.maintain().await?;
    seek(world, &name("billing")).await?;
    world.expect(&subscription, &["a"]).await?;
    Ok(())
}

async fn outlives_its_topic_and_its_subscription(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let other = world.subscribe("other", &topic, |_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    take_snapshot(world).await?;
    world.port().delete_subscription(&name("billing")).await?;
    world.port().delete_topic(&topic).await?;
    drop(subscription);
    same("the topic of the snapshot", world.port().snapshot(&name("then"))?.topic, None)?;
    let received = world.expect(&other, &["a"]).await?;
    world.ack(&other, &received).await?;
    seek(world, &name("other")).await?;
    world.expect(&other, &["a"]).await?;
    Ok(())
}

async fn outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let first = world.take(&subscription, 1).await?;
    world.ack(&subscription, &first).await?;
    take_snapshot(world).await?;
    let second = world.take(&subscription, 1).await?;
    world.ack(&subscription, &second).await?;
    drop(subscription);
    world.restart().await?;
    seek(world, &name("billing")).await?;
    let subscription = world.subscription("billing")?;
    let again = world.take(&subscription, 1).await?;
    same("what comes back", bodies(&again), bodies(&second))?;
    world.nothing(&subscription, "the other was acknowledged before the snapshot").await
}
