//! Publish-side deduplication by an attribute.

use std::time::Duration;

use anyhow::Result;
use levada_bus::port::{Deduplication, Publication, TopicSpec};
use levada_core::{Message, ResourceName};

use super::super::check::{Kind, refused, same};
use super::super::world::{World, message, name, owned, publication, with};

super::cases! {
    "deduplication":
    the_same_value_is_one_message,
    inside_of_one_publish_too,
    each_tenant_for_itself,
    messages_without_the_attribute_are_left_alone,
    it_outlives_a_restart [Restart],
    it_ends_with_its_window [ManualTime],
    what_is_sent_again_on_purpose_counts,
    it_can_be_switched_off,
    settings_that_promise_nothing_are_refused,
}

const HOUR: Duration = Duration::from_secs(3600);

async fn topic(world: &World, window: Duration) -> Result<ResourceName> {
    let deduplication = Some(Deduplication { attribute: "order_id".to_owned(), window });
    let spec = TopicSpec { deduplication, ..TopicSpec::new(name("orders")) };
    Ok(world.port().create_topic(spec).await?.name)
}

fn order(id: &str, body: &str) -> Message {
    with(message(body), &[("order_id", id)])
}

async fn send(world: &World, topic: &ResourceName, message: Message) -> Result<u64> {
    Ok(world.send(topic, vec![message]).await?[0])
}

async fn the_same_value_is_one_message(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let subscription = world.subscribe("billing", &topic, |_| {}).await?;
    let first = send(world, &topic, order("7", "a")).await?;
    same("the id of a repeat", send(world, &topic, order("7", "again")).await?, first)?;
    send(world, &topic, order("8", "b")).await?;
    let received = world.expect(&subscription, &["a", "b"]).await?;
    world.ack(&subscription, &received).await?;
    world.nothing(&subscription, "a repeat is the first message").await
}

async fn inside_of_one_publish_too(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let subscription = world.subscribe("billing", &topic, |_| {}).await?;
    let ids = world.send(&topic, vec![order("7", "a"), order("8", "b"), order("7", "c")]).await?;
    same("the id of a repeat", ids[2], ids[0])?;
    world.expect(&subscription, &["a", "b"]).await.map(drop)
}

async fn each_tenant_for_itself(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let subscription = world.subscribe("billing", &topic, |_| {}).await?;
    send(world, &topic, order("7", "a")).await?;
    send(world, &topic, with(owned("globex", "b"), &[("order_id", "7")])).await?;
    world.expect(&subscription, &["a", "b"]).await.map(drop)
}

async fn messages_without_the_attribute_are_left_alone(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let subscription = world.subscribe("billing", &topic, |_| {}).await?;
    world.publish(&topic, &["a", "a"]).await?;
    world.expect(&subscription, &["a", "a"]).await.map(drop)
}

async fn it_outlives_a_restart(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let first = send(world, &topic, order("7", "a")).await?;
    world.restart().await?;
    same("the id of a repeat", send(world, &topic, order("7", "again")).await?, first)
}

async fn it_ends_with_its_window(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let first = send(world, &topic, order("7", "a")).await?;
    world.pass(HOUR - Duration::from_secs(1)).await;
    world.maintain().await?;
    same("the id of a repeat", send(world, &topic, order("7", "again")).await?, first)?;
    world.pass(Duration::from_secs(2)).await;
    anyhow::ensure!(send(world, &topic, order("7", "new")).await? != first, "the window has ended");
    Ok(())
}

async fn what_is_sent_again_on_purpose_counts(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let first = send(world, &topic, order("7", "a")).await?;
    let again = Publication { deduplicate: false, ..publication(order("7", "b")) };
    let ids = world.port().publish(&topic, vec![again]).await?;
    anyhow::ensure!(ids.first().is_some_and(|id| *id != Ok(first)), "{ids:?}: it was taken for the first");
    Ok(())
}

async fn it_can_be_switched_off(world: &mut World) -> Result<()> {
    let topic = topic(world, HOUR).await?;
    let first = send(world, &topic, order("7", "a")).await?;
    world.port().update_topic(TopicSpec::new(topic.clone())).await?;
    anyhow::ensure!(send(world, &topic, order("7", "b")).await? != first, "it is switched off");
    Ok(())
}

async fn settings_that_promise_nothing_are_refused(world: &mut World) -> Result<()> {
    for (what, attribute, window) in [
        ("no attribute", "", HOUR),
        ("a window too short", "order_id", Duration::from_millis(10)),
        ("a window too long", "order_id", 24 * 8 * HOUR),
    ] {
        let deduplication = Some(Deduplication { attribute: attribute.to_owned(), window });
        let spec = TopicSpec { deduplication, ..TopicSpec::new(name("orders")) };
        refused(what, world.port().create_topic(spec).await, Kind::InvalidArgument)?;
    }
    Ok(())
}
