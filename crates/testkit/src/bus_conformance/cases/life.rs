//! How subscriptions and messages end: detached, deleted, without topic, too old.

use std::time::Duration;

use anyhow::{Result, ensure};
use levada_bus::port::{AckId, PageRequest, PullLimits, SeekTo};

use super::super::check::{Kind, refused, same};
use super::super::world::{LONG, World, limits, message, name, publication};

super::cases! {
    "life":
    a_detached_subscription_is_of_no_use,
    a_deleted_subscription_is_gone_and_begins_anew,
    a_pull_that_waits_ends_with_the_subscription,
    a_deleted_topic_leaves_its_backlog,
    a_topic_made_again_is_another_one,
    a_topic_made_again_is_another_one_after_a_restart [Restart],
    what_nobody_uses_expires [ManualTime],
    old_messages_go [ManualTime],
    a_detach_outlives_a_restart [Restart],
}

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn a_detached_subscription_is_of_no_use(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 1).await?;
    let port = world.port();
    port.detach_subscription(&name("billing")).await?;
    let wrong = Kind::FailedPrecondition;
    refused("a pull", subscription.pull(limits(1)).await.map(drop), wrong)?;
    refused("an acknowledge", subscription.acknowledge(vec![received[0].ack_id]).await, wrong)?;
    let deadlines = vec![(received[0].ack_id, LONG)];
    refused("a change of deadlines", subscription.modify_ack_deadlines(deadlines).await, wrong)?;
    refused("a seek", port.seek(&name("billing"), SeekTo::TimeMs(0)).await, wrong)?;
    ensure!(world.subscription("billing")?.spec().detached, "it does not say that it is detached");
    let listed = port.topic_subscriptions(&topic, &PageRequest::default())?.items;
    same("the subscriptions of the topic", listed, Vec::new())?;
    world.settled(&subscription)
}

async fn a_deleted_subscription_is_gone_and_begins_anew(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    world.take(&subscription, 1).await?;
    world.port().delete_subscription(&name("billing")).await?;
    let missing = Kind::NotFound("subscription");
    refused("a pull", subscription.pull(limits(1)).await.map(drop), missing)?;
    refused("an acknowledge", subscription.acknowledge(vec![AckId(1)]).await, missing)?;
    refused("a change of deadlines", subscription.modify_ack_deadlines(Vec::new()).await, missing)?;
    refused("a subscription", world.port().subscription(&name("billing")).map(drop), missing)?;
    let anew = world.subscribe("billing", &topic, |_| {}).await?;
    world.nothing(&anew, "nothing was published since it was made").await?;
    world.publish(&topic, &["c"]).await?;
    world.expect(&anew, &["c"]).await?;
    refused("a pull by the old handle", subscription.pull(limits(1)).await.map(drop), missing)
}

async fn a_pull_that_waits_ends_with_the_subscription(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let detached = world.subscribe("detached", &topic, |_| {}).await?;
    let patient = PullLimits { wait: world.patience(), ..limits(1) };
    let end = async {
        tokio::task::yield_now().await;
        world.port().delete_subscription(&name("billing")).await?;
        world.port().detach_subscription(&name("detached")).await
    };
    let (deleted, detached, ended) = tokio::join!(subscription.pull(patient), detached.pull(patient), end);
    ended?;
    refused("a pull of a deleted one", deleted.map(drop), Kind::NotFound("subscription"))?;
    // One that waited to its end would answer that nothing came.
    refused("a pull of a detached one", detached.map(drop), Kind::FailedPrecondition)
}

async fn a_deleted_topic_leaves_its_backlog(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let first = world.take(&subscription, 1).await?;
    world.port().delete_topic(&topic).await?;
    let published = world.port().publish(&topic, vec![publication(message("x"))]).await;
    refused("a publish", published, Kind::NotFound("topic"))?;
    same("the topic of the subscription", subscription.spec().topic.clone(), None)?;
    let second = world.take(&subscription, 1).await?;
    world.ack(&subscription, &first).await?;
    world.ack(&subscription, &second).await?;
    world.settled(&subscription)?;
    // What does not touch the topic can still be changed.
    world.update("billing", |spec| spec.ack_deadline = Duration::from_secs(30)).await
}

async fn a_topic_made_again_is_another_one(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["old"]).await?;
    world.port().delete_topic(&topic).await?;
    world.topic("orders").await?;
    let anew = world.subscribe("anew", &topic, |_| {}).await?;
    world.publish(&topic, &["new"]).await?;
    world.expect(&subscription, &["old"]).await?;
    world.nothing(&subscription, "the new one is another topic").await?;
    world.expect(&anew, &["new"]).await?;
    world.nothing(&anew, "the old one was another topic").await?;
    let listed = world.port().topic_subscriptions(&topic, &PageRequest::default())?.items;
    same("the subscriptions of the new one", listed, vec![name("anew")])
}

async fn a_topic_made_again_is_another_one_after_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["old"]).await?;
    world.port().delete_topic(&topic).await?;
    drop(subscription);
    world.restart().await?;
    world.topic("orders").await?;
    world.publish(&topic, &["new"]).await?;
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    same("the topic of the subscription", subscription.spec().topic.clone(), None)?;
    world.expect(&subscription, &["old"]).await?;
    world.nothing(&subscription, "the new one is another topic").await
}

async fn what_nobody_uses_expires(world: &mut World) -> Result<()> {
    let (topic, unused) = world.pair(|spec| spec.expires_after = Some(3 * DAY)).await?;
    let used = world.subscribe("used", &topic, |spec| spec.expires_after = Some(3 * DAY)).await?;
    world.subscribe("forever", &topic, |spec| spec.expires_after = None).await?;
    for _ in 0..4 {
        world.pass(DAY).await;
        world.nothing(&used, "nothing was published").await?;
        world.maintain().await?;
    }
    refused(
        "an expired one",
        world.port().subscription(&name("billing")).map(drop),
        Kind::NotFound("subscription"),
    )?;
    refused("a pull of it", unused.pull(limits(1)).await.map(drop), Kind::NotFound("subscription"))?;
    world.subscription("used")?;
    world.pass(300 * DAY).await;
    world.maintain().await?;
    world.subscription("forever")?;
    Ok(())
}

async fn old_messages_go(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retention = DAY).await?;
    let keeps = world.subscribe("keeps", &topic, |spec| spec.retention = 3 * DAY).await?;
    world.publish(&topic, &["old"]).await?;
    world.pass(DAY / 2).await;
    world.publish(&topic, &["new"]).await?;
    // The other one sees both, so that the upkeep does, too.
    let both = world.expect(&keeps, &["old", "new"]).await?;
    world.nack(&keeps, &both).await?;
    world.pass(DAY / 2 + Duration::from_secs(1)).await;
    world.maintain().await?;
    world.expect(&subscription, &["new"]).await?;
    world.nothing(&subscription, "the other is older than the retention").await?;
    world.expect(&keeps, &["old", "new"]).await?;
    Ok(())
}

async fn a_detach_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    world.port().detach_subscription(&name("billing")).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    refused("a pull", subscription.pull(limits(1)).await.map(drop), Kind::FailedPrecondition)
}
