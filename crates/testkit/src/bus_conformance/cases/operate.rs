//! What operators see and do: figures, and ordering keys that are blocked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_bus::port::{BlockedKey, DeadLetterPolicy, RetryPolicy, Unblock};
use levada_core::Message;

use super::super::check::{Kind, refused, same};
use super::super::world::{Subscription, World, keyed, owned, tenant};

super::cases! {
    "operate":
    figures_follow_the_messages [Stats],
    the_oldest_is_known [Stats, ManualTime],
    figures_of_the_backlog_outlive_a_restart [Stats, Restart],
    a_blocked_key_is_shown [Operators],
    the_longest_blocked_comes_first [Operators, ManualTime],
    a_blocking_message_can_be_skipped [Operators],
    a_blocked_key_can_be_parked [Operators],
    parking_needs_a_dead_letter [Operators],
    a_key_that_is_free_cannot_be_unblocked [Operators],
    a_skip_outlives_a_restart [Operators, Restart],
}

async fn figures_follow_the_messages(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let figures = |what: &str, wanted: (u64, u64, u64, u64, u64, u64)| {
        let s = subscription.stats();
        let found = (s.backlog_messages, s.leased, s.delivered, s.redelivered, s.acknowledged, s.expired);
        let what = format!("backlog, leased, delivered, redelivered, acknowledged, expired {what}");
        same(&what, found, wanted)
    };
    figures("of nothing", (0, 0, 0, 0, 0, 0))?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    figures("after a publish", (3, 0, 0, 0, 0, 0))?;
    ensure!(subscription.stats().oldest_unacked_ms.is_some(), "there is a backlog, and no oldest of it");
    let received = world.take(&subscription, 2).await?;
    figures("after a pull", (3, 2, 2, 0, 0, 0))?;
    world.ack(&subscription, &received[..1]).await?;
    figures("after an acknowledgement", (2, 1, 2, 0, 1, 0))?;
    world.nack(&subscription, &received[1..]).await?;
    figures("after one was given back", (2, 0, 2, 0, 1, 0))?;
    let rest = world.take_briefly(&subscription, 2).await?;
    figures("after the next pull", (2, 2, 4, 1, 1, 0))?;
    world.pass(world.unit()).await;
    let again = world.take(&subscription, 2).await?;
    figures("after leases have ended", (2, 2, 6, 3, 1, 2))?;
    world.ack(&subscription, &again).await?;
    drop(rest);
    figures("at the end", (0, 0, 6, 3, 3, 2))
}

async fn the_oldest_is_known(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let first_ms = world.now_ms();
    world.publish(&topic, &["a"]).await?;
    world.pass(Duration::from_secs(60)).await;
    let second_ms = world.now_ms();
    world.publish(&topic, &["b"]).await?;
    let received = world.take(&subscription, 2).await?;
    same("the oldest", subscription.stats().oldest_unacked_ms, Some(first_ms))?;
    let (a, b): (Vec<_>, Vec<_>) = received.into_iter().partition(|r| r.message.body == "a");
    world.ack(&subscription, &a).await?;
    same("the oldest that is left", subscription.stats().oldest_unacked_ms, Some(second_ms))?;
    world.ack(&subscription, &b).await?;
    same("the oldest of nothing", subscription.stats().oldest_unacked_ms, None)
}

async fn figures_of_the_backlog_outlive_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    let received = world.take(&subscription, 2).await?;
    world.ack(&subscription, &received[..1]).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let left = world.take(&subscription, 1).await?;
    let stats = subscription.stats();
    same("backlog and leases", (stats.backlog_messages, stats.leased), (2, 1))?;
    let rest = world.take(&subscription, 1).await?;
    world.ack(&subscription, &left).await?;
    world.ack(&subscription, &rest).await?;
    world.settled(&subscription)
}

async fn keys(world: &World, messages: Vec<Message>) -> Result<Subscription> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    world.send(&topic, messages).await?;
    Ok(subscription)
}

fn three() -> Vec<Message> {
    vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]
}

async fn a_blocked_key_is_shown(world: &mut World) -> Result<()> {
    let subscription = keys(world, three()).await?;
    same("blocked keys before a pull", subscription.blocked_keys(10), Vec::new())?;
    let before_ms = world.now_ms();
    let first = world.expect(&subscription, &["k1"]).await?;
    world.nack(&subscription, &first).await?;
    let again = world.expect(&subscription, &["k1"]).await?;
    world.nothing(&subscription, "the key is blocked").await?;
    let blocked = subscription.blocked_keys(10);
    same("blocked keys", blocked.len(), 1)?;
    let BlockedKey { tenant: owner, key, message_id, delivery_attempt, waiting, since_ms } = &blocked[0];
    same("tenant and key", (owner, key.as_str()), (&tenant("acme"), "k"))?;
    same("the message", (*message_id, *delivery_attempt), (again[0].message_id, 2))?;
    same("messages that wait", *waiting, 2)?;
    ensure!((before_ms..=world.now_ms()).contains(since_ms), "blocked since {since_ms}");
    if world.has(super::super::Need::Stats) {
        same("the figure of blocked keys", subscription.stats().blocked_keys, 1)?;
    }
    world.ack(&subscription, &again).await?;
    for wanted in ["k2", "k3"] {
        let received = world.expect(&subscription, &[wanted]).await?;
        world.ack(&subscription, &received).await?;
    }
    same("blocked keys at the end", subscription.blocked_keys(10), Vec::new())
}

async fn the_longest_blocked_comes_first(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    for key in ["k", "l", "m"] {
        world.send(&topic, vec![keyed(key, &format!("{key}1")), keyed(key, &format!("{key}2"))]).await?;
        world.take(&subscription, 1).await?;
        world.nothing(&subscription, "the key is blocked").await?;
        world.pass(Duration::from_secs(1)).await;
    }
    let shown = |limit| subscription.blocked_keys(limit).into_iter().map(|b| b.key).collect::<Vec<_>>();
    same("all of them", shown(10), ["k", "l", "m"].map(str::to_owned).to_vec())?;
    same("at most two", shown(2), ["k", "l"].map(str::to_owned).to_vec())
}

async fn a_blocking_message_can_be_skipped(world: &mut World) -> Result<()> {
    let (topic, subscription) = world
        .pair(|spec| {
            let backoff = Duration::from_secs(600);
            spec.ordered = true;
            spec.retry = Some(RetryPolicy { minimum_backoff: backoff, maximum_backoff: backoff });
        })
        .await?;
    world.send(&topic, three()).await?;
    let first = world.expect(&subscription, &["k1"]).await?;
    world.nack(&subscription, &first).await?;
    world.nothing(&subscription, "it comes again in ten minutes").await?;
    subscription.unblock(&tenant("acme"), "k", Unblock::Skip).await?;
    for wanted in ["k2", "k3"] {
        let received = world.expect(&subscription, &[wanted]).await?;
        world.ack(&subscription, &received).await?;
    }
    world.settled(&subscription)
}

async fn a_blocked_key_can_be_parked(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |spec| spec.ordered = true).await?;
    let (topic, subscription) = world
        .pair(|spec| {
            spec.ordered = true;
            spec.dead_letter = Some(DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 100 });
        })
        .await?;
    let mut messages = three();
    messages.push(keyed("l", "l1"));
    messages.push(Message { ordering_key: Some("k".into()), ..owned("globex", "other") });
    world.send(&topic, messages).await?;
    world.expect_singly(&subscription, &["k1", "l1", "other"]).await?;
    world.nothing_singly(&subscription, "all keys are blocked").await?;
    subscription.unblock(&tenant("acme"), "k", Unblock::Park).await?;
    for wanted in ["k1", "k2", "k3"] {
        let received = world.expect(&graves, &[wanted]).await?;
        let said = received[0].message.attributes.get("CloudPubSubDeadLetterSourceSubscription");
        same("the subscription that it comes from", said, Some("billing"))?;
        world.ack(&graves, &received).await?;
    }
    world.nothing(&graves, "the other keys were not parked").await?;
    world.send(&topic, vec![keyed("k", "k4")]).await?;
    world.expect(&subscription, &["k4"]).await?;
    Ok(())
}

async fn parking_needs_a_dead_letter(world: &mut World) -> Result<()> {
    let subscription = keys(world, three()).await?;
    let first = world.expect(&subscription, &["k1"]).await?;
    let parked = subscription.unblock(&tenant("acme"), "k", Unblock::Park).await;
    refused("parking without a dead letter", parked, Kind::FailedPrecondition)?;
    world.nothing(&subscription, "the key is still blocked").await?;
    world.ack(&subscription, &first).await?;
    world.expect(&subscription, &["k2"]).await?;
    Ok(())
}

async fn a_key_that_is_free_cannot_be_unblocked(world: &mut World) -> Result<()> {
    let subscription = keys(world, vec![keyed("k", "k1")]).await?;
    let received = world.expect(&subscription, &["k1"]).await?;
    world.ack(&subscription, &received).await?;
    for (owner, key) in [("acme", "k"), ("acme", "none"), ("globex", "k")] {
        let skipped = subscription.unblock(&tenant(owner), key, Unblock::Skip).await;
        refused(&format!("skipping {key} of {owner}"), skipped, Kind::FailedPrecondition)?;
    }
    Ok(())
}

async fn a_skip_outlives_a_restart(world: &mut World) -> Result<()> {
    let subscription = keys(world, three()).await?;
    let first = world.expect(&subscription, &["k1"]).await?;
    subscription.unblock(&tenant("acme"), "k", Unblock::Skip).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let next = world.expect(&subscription, &["k2"]).await?;
    let skipped = first.first().context("k1 came")?;
    ensure!(next[0].message_id > skipped.message_id, "the ids do not ascend");
    world.nothing(&subscription, "the key is blocked").await
}
