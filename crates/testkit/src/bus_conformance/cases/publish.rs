//! Publishing: ids, refusals of single items, and that messages come as they were.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use levada_bus::port::Publication;
use levada_core::{Message, TenantContext};

use super::super::check::same;
use super::super::world::{World, keyed, message, owned, publication, sorted, tenant, with};

super::cases! {
    "publish":
    ids_ascend_and_are_those_of_the_deliveries,
    an_item_is_refused_alone,
    a_message_above_the_limit_is_refused_alone,
    nothing_published_is_nothing_answered,
    messages_come_as_they_were,
    each_subscription_gets_every_message,
    a_subscription_begins_where_it_was_made,
    publishers_at_once_lose_nothing,
    what_was_answered_outlives_a_restart [Restart],
}

async fn ids_ascend_and_are_those_of_the_deliveries(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let mut published = world.publish(&topic, &["a", "b", "c"]).await?;
    published.extend(world.publish(&topic, &["d", "e"]).await?);
    ensure!(published.is_sorted_by(|a, b| a < b), "the ids do not ascend: {published:?}");
    let mut delivered: Vec<(u64, String)> = Vec::new();
    for received in world.take(&subscription, 5).await? {
        delivered.push((received.message_id, super::super::world::body(&received)));
    }
    delivered.sort();
    let wanted = published.into_iter().zip(["a", "b", "c", "d", "e"].map(str::to_owned));
    same("ids and bodies of the deliveries", delivered, wanted.collect())
}

async fn an_item_is_refused_alone(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let context = TenantContext::system(tenant("globex"), "conformance");
    let foreign = Publication::new(context, message("foreign"));
    let items = vec![publication(message("a")), foreign, publication(message("b"))];
    let results = world.port().publish(&topic, items).await?;
    same("the number of results", results.len(), 3)?;
    let refused = results[1].as_ref().err().context("a message of another tenant was accepted")?;
    ensure!(refused.status == 403, "refused with {refused:?}, not with 403");
    let ids = [results[0].clone()?, results[2].clone()?];
    let received = world.expect(&subscription, &["a", "b"]).await?;
    let delivered: BTreeSet<u64> = received.iter().map(|r| r.message_id).collect();
    same("the ids of the accepted", delivered, ids.into_iter().collect())?;
    world.nothing(&subscription, "the other item was refused").await
}

async fn a_message_above_the_limit_is_refused_alone(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let huge = Message { body: Bytes::from(vec![7; 10_000_001]), ..message("") };
    let items = vec![publication(huge), publication(message("small"))];
    let results = world.port().publish(&topic, items).await?;
    let refused = results[0].as_ref().err().context("a message above 10,000,000 bytes was accepted")?;
    ensure!((400..500).contains(&refused.status), "refused with {refused:?}, not as the caller's mistake");
    results[1].clone()?;
    world.expect(&subscription, &["small"]).await?;
    world.nothing(&subscription, "the large message was refused").await
}

async fn nothing_published_is_nothing_answered(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    same("the results", world.port().publish(&topic, Vec::new()).await?.len(), 0)?;
    world.nothing(&subscription, "nothing was published").await
}

async fn messages_come_as_they_were(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let all_bytes = Message { body: (0..=255u8).collect::<Vec<u8>>().into(), ..message("") };
    let attributes = [("kind", "größe"), ("empty", ""), ("\u{1f600}", "z\0\n\"")];
    let sent = vec![all_bytes, with(message(""), &attributes), keyed("key", "k"), owned("globex", "other")];
    let before_ms = world.now_ms();
    let ids = world.send(&topic, sent.clone()).await?;
    let after_ms = world.now_ms();
    let mut received = world.take(&subscription, sent.len()).await?;
    received.sort_by_key(|r| r.message_id);
    same("the ids", received.iter().map(|r| r.message_id).collect(), ids)?;
    for (received, sent) in received.iter().zip(&sent) {
        let found = &received.message;
        same("the body", &found.body, &sent.body)?;
        same("the tenant", &found.tenant, &sent.tenant)?;
        same("the ordering key", &found.ordering_key, &sent.ordering_key)?;
        same("the number of attributes", found.attributes.len(), sent.attributes.len())?;
        for (name, value) in sent.attributes.iter() {
            same("an attribute", found.attributes.get(name), Some(value))?;
        }
        same("the attempt of a first delivery", received.delivery_attempt, 1)?;
        let at = received.published_at_ms;
        ensure!(
            (before_ms..=after_ms).contains(&at),
            "published at {at}, not between {before_ms} and {after_ms}"
        );
    }
    Ok(())
}

async fn each_subscription_gets_every_message(world: &mut World) -> Result<()> {
    let (topic, first) = world.pair(|_| {}).await?;
    let second = world.subscribe("second", &topic, |_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.expect(&first, &["a", "b"]).await?;
    world.ack(&first, &received).await?;
    world.expect(&second, &["a", "b"]).await?;
    world.nothing(&first, "everything is acknowledged there").await
}

async fn a_subscription_begins_where_it_was_made(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    world.publish(&topic, &["before"]).await?;
    let subscription = world.subscribe("billing", &topic, |_| {}).await?;
    world.publish(&topic, &["after"]).await?;
    world.expect(&subscription, &["after"]).await?;
    world.nothing(&subscription, "the rest was published before it was made").await
}

async fn publishers_at_once_lose_nothing(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let calls: Vec<Vec<Message>> = (0..16)
        .map(|call| (0..10).map(|n| owned(&format!("tenant-{}", call % 3), &format!("{call}/{n}"))).collect())
        .collect();
    let mut wanted: Vec<String> =
        calls.iter().flatten().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect();
    wanted.sort();
    let world = &*world;
    let ids = try_join_all(calls.into_iter().map(|call| world.send(&topic, call))).await?;
    let distinct: BTreeSet<u64> = ids.iter().flatten().copied().collect();
    same("distinct ids", distinct.len(), 160)?;
    let received = world.take(&subscription, 160).await?;
    same("the messages", sorted(&received), wanted)?;
    let delivered: BTreeSet<u64> = received.iter().map(|r| r.message_id).collect();
    same("the ids of the deliveries", delivered, distinct)
}

async fn what_was_answered_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let first = world.publish(&topic, &["a", "b"]).await?;
    drop(subscription);
    world.restart().await?;
    let second = world.publish(&topic, &["c"]).await?;
    ensure!(second[0] > first[1], "the ids begin anew: {first:?}, then {second:?}");
    let subscription = world.subscription("billing")?;
    let received = world.expect(&subscription, &["a", "b", "c"]).await?;
    let mut ids: Vec<u64> = received.iter().map(|r| r.message_id).collect();
    ids.sort_unstable();
    same("the ids", ids, [first, second].concat())
}
