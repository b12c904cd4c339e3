//! Pulling: how much comes, how long it waits, who gets what.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use levada_bus::port::{PullLimits, RetryPolicy};

use super::super::check::same;
use super::super::world::{World, bodies, body, keyed, limits, message};

super::cases! {
    "pull":
    brings_no_more_messages_than_asked,
    brings_no_more_bytes_than_asked,
    the_first_message_always_fits,
    a_bound_of_bytes_costs_nobody_an_attempt,
    ends_empty_when_the_wait_ends,
    a_wait_ends_with_the_next_message,
    a_wait_ends_with_a_message_given_back,
    a_wait_ends_with_a_lease_that_ends,
    a_wait_ends_with_a_backoff_that_ends,
    a_wait_ends_with_a_key_that_becomes_free,
    a_pull_that_is_dropped_loses_nothing,
    what_is_on_lease_comes_to_nobody_else,
    pullers_at_once_get_disjoint_messages,
}

async fn brings_no_more_messages_than_asked(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c", "d", "e"]).await?;
    // `take` fails by itself when one pull brings too many.
    let first = world.take(&subscription, 2).await?;
    let second = world.take(&subscription, 3).await?;
    let all: BTreeSet<String> = first.iter().chain(&second).map(body).collect();
    same("different messages", all.len(), 5)?;
    world.nothing(&subscription, "all are on lease").await
}

fn of_1000_bytes(count: usize) -> Vec<levada_core::Message> {
    (0..count).map(|n| message(&format!("{n:01000}"))).collect()
}

async fn brings_no_more_bytes_than_asked(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, of_1000_bytes(7)).await?;
    let mut seen = BTreeSet::new();
    let until = Instant::now() + world.patience();
    while seen.len() < 7 {
        let bounded = PullLimits {
            max_bytes: 2_500,
            wait: until.saturating_duration_since(Instant::now()),
            ..limits(100)
        };
        let pulled = subscription.pull(bounded).await?;
        let bytes: usize = pulled.iter().map(|r| r.message.body.len()).sum();
        ensure!(bytes <= 2_500, "a pull of at most 2,500 bytes brought {bytes}");
        ensure!(!pulled.is_empty(), "only {} of 7 messages came", seen.len());
        seen.extend(pulled.iter().map(body));
    }
    world.nothing(&subscription, "all are on lease").await
}

async fn the_first_message_always_fits(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, of_1000_bytes(2)).await?;
    for _ in 0..2 {
        let bounded = PullLimits { max_bytes: 1, wait: world.patience(), ..limits(100) };
        same("the messages of a pull of one byte", subscription.pull(bounded).await?.len(), 1)?;
    }
    Ok(())
}

async fn a_bound_of_bytes_costs_nobody_an_attempt(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    world.send(&topic, of_1000_bytes(5)).await?;
    for _ in 0..5 {
        let bounded = PullLimits { max_bytes: 1_100, wait: world.patience(), ..limits(100) };
        let pulled = subscription.pull(bounded).await?;
        same("the attempts of a pull", pulled.iter().map(|r| r.delivery_attempt).collect(), vec![1])?;
        world.ack(&subscription, &pulled).await?;
    }
    world.settled(&subscription)
}

async fn ends_empty_when_the_wait_ends(world: &mut World) -> Result<()> {
    let (_, subscription) = world.pair(|_| {}).await?;
    let began = Instant::now();
    let wait = Duration::from_millis(150);
    let pulled = subscription.pull(PullLimits { wait, ..limits(1) }).await?;
    ensure!(pulled.is_empty(), "{} messages came from an empty topic", pulled.len());
    ensure!(began.elapsed() >= wait, "a pull that waits for {wait:?} ended after {:?}", began.elapsed());
    world.nothing(&subscription, "the topic is empty").await
}

async fn a_wait_ends_with_the_next_message(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let publish = async { world.publish(&topic, &["a"]).await.map(drop) };
    let received = world.woken_by(&subscription, publish).await?;
    same("the messages", bodies(&received), vec!["a".to_owned()])
}

async fn a_wait_ends_with_a_message_given_back(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    let first = world.take(&subscription, 1).await?;
    let other = world.subscription("billing")?;
    let received = world.woken_by(&other, world.nack(&subscription, &first)).await?;
    same("the messages", bodies(&received), vec!["a".to_owned()])
}

async fn a_wait_ends_with_a_lease_that_ends(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    world.take_briefly(&subscription, 1).await?;
    if world.has(super::super::Need::ManualTime) {
        world.pass(world.unit()).await;
    }
    let again = world.woken_by(&subscription, async { Ok(()) }).await?;
    same("the attempts", again.iter().map(|r| r.delivery_attempt).collect(), vec![2])
}

async fn a_wait_ends_with_a_backoff_that_ends(world: &mut World) -> Result<()> {
    let unit = world.unit();
    let policy = RetryPolicy { minimum_backoff: unit, maximum_backoff: unit };
    let (topic, subscription) = world.pair(|spec| spec.retry = Some(policy)).await?;
    world.publish(&topic, &["a"]).await?;
    let first = world.take(&subscription, 1).await?;
    world.nack(&subscription, &first).await?;
    if world.has(super::super::Need::ManualTime) {
        world.pass(unit).await;
    }
    let again = world.woken_by(&subscription, async { Ok(()) }).await?;
    same("the attempts", again.iter().map(|r| r.delivery_attempt).collect(), vec![2])
}

async fn a_wait_ends_with_a_key_that_becomes_free(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    world.send(&topic, vec![keyed("k", "k1"), keyed("k", "k2")]).await?;
    let first = world.take(&subscription, 1).await?;
    let other = world.subscription("billing")?;
    let next = world.woken_by(&other, world.ack(&subscription, &first)).await?;
    same("the messages", bodies(&next), vec!["k2".to_owned()])
}

async fn a_pull_that_is_dropped_loses_nothing(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ack_deadline = Duration::from_millis(50)).await?;
    for n in 0..20 {
        let waiting = subscription.pull(PullLimits { wait: world.patience(), ..limits(1) });
        let publish = world.publish(&topic, &["a"]);
        tokio::select! {
            biased;
            _ = async { for _ in 0..n { tokio::task::yield_now().await } } => {}
            _ = waiting => {}
        }
        publish.await?;
    }
    // Leases that a dropped pull left behind end by their deadline.
    let (mut seen, until) = (BTreeSet::new(), Instant::now() + Duration::from_secs(20));
    while seen.len() < 20 && Instant::now() < until {
        let wait = Duration::from_millis(20);
        let pulled = subscription.pull(PullLimits { wait, ..limits(20) }).await?;
        seen.extend(pulled.iter().map(|r| r.message_id));
        subscription.acknowledge(super::super::world::ids(&pulled)).await?;
        world.pass(Duration::from_millis(50)).await;
    }
    same("different messages", seen.len(), 20)
}

async fn what_is_on_lease_comes_to_nobody_else(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    world.take(&subscription, 1).await?;
    let other = world.subscription("billing")?;
    world.take(&other, 1).await?;
    world.nothing(&other, "both are on lease").await?;
    drop(other);
    world.nothing(&subscription, "leases outlive the handle that took them").await
}

async fn pullers_at_once_get_disjoint_messages(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let bodies: Vec<String> = (0..400).map(|n| format!("m{n}")).collect();
    world.publish(&topic, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let world = &*world;
    let puller = |_| {
        let subscription = subscription.clone();
        async move {
            let mut mine = Vec::new();
            for _ in 0..5 {
                let received = world.take(&subscription, 10).await?;
                world.ack(&subscription, &received).await?;
                mine.extend(received.iter().map(body));
            }
            anyhow::Ok(mine)
        }
    };
    let got: Vec<String> = try_join_all((0..8).map(puller)).await?.concat();
    let distinct: BTreeSet<&String> = got.iter().collect();
    same("messages, and different ones, of all pullers", (got.len(), distinct.len()), (400, 400))?;
    world.settled(&subscription)
}
