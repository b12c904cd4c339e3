//! Ordering keys: the messages of a key follow one another. Cases about several that are under
//! way are in `together`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_bus::port::{Consumer, DeadLetterPolicy, PullLimits, Received, RetryPolicy};
use levada_core::Message;

use super::super::check::same;
use super::super::world::{Subscription, World, bodies, body, keyed, limits, message, name, owned};

super::cases! {
    "ordering":
    one_message_of_a_key_comes_to_who_wants_single_ones,
    keys_do_not_wait_for_each_other,
    messages_without_a_key_do_not_wait,
    keys_of_tenants_are_different_keys [Tenants],
    each_key_comes_in_order,
    what_follows_comes_after_what_was_given_back,
    what_follows_comes_after_what_was_not_acknowledged,
    what_follows_waits_for_the_backoff [ManualTime],
    what_follows_comes_after_the_dead_letter,
    what_follows_comes_after_a_seek,
    without_ordering_keys_mean_nothing,
    order_outlives_a_restart [Restart],
}

async fn ordered(world: &World, messages: Vec<Message>) -> Result<Subscription> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    world.send(&topic, messages).await?;
    Ok(subscription)
}

/// Takes and acknowledges one after another, and wants these.
async fn one_by_one(world: &World, subscription: &Subscription, wanted: &[&str]) -> Result<()> {
    for wanted in wanted {
        let received = world.take(subscription, 1).await?;
        same("the next message of the key", body(&received[0]), (*wanted).to_owned())?;
        world.nothing(subscription, "a message of the key is under way").await?;
        world.ack(subscription, &received).await?;
    }
    Ok(())
}

async fn one_message_of_a_key_comes_to_who_wants_single_ones(world: &mut World) -> Result<()> {
    let subscription = ordered(world, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]).await?;
    for wanted in ["k1", "k2", "k3"] {
        let received = world.expect_singly(&subscription, &[wanted]).await?;
        world.nothing_singly(&subscription, "a message of the key is under way").await?;
        world.ack(&subscription, &received).await?;
    }
    world.settled(&subscription)
}

async fn keys_do_not_wait_for_each_other(world: &mut World) -> Result<()> {
    let messages = vec![keyed("k", "k1"), keyed("k", "k2"), keyed("l", "l1"), keyed("l", "l2")];
    let subscription = ordered(world, messages).await?;
    let first = world.expect_singly(&subscription, &["k1", "l1"]).await?;
    world.nothing_singly(&subscription, "both keys have a message under way").await?;
    let of_l = first.iter().find(|r| body(r) == "l1").cloned().context("l1 came")?;
    world.ack(&subscription, &[of_l]).await?;
    world.expect(&subscription, &["l2"]).await?;
    world.nothing(&subscription, "k1 is still under way").await
}

async fn messages_without_a_key_do_not_wait(world: &mut World) -> Result<()> {
    let messages = vec![keyed("k", "k1"), keyed("k", "k2"), message("free1"), message("free2")];
    let subscription = ordered(world, messages).await?;
    world.expect_singly(&subscription, &["k1", "free1", "free2"]).await?;
    Ok(())
}

async fn keys_of_tenants_are_different_keys(world: &mut World) -> Result<()> {
    let of = |owner: &str, body: &str| Message { ordering_key: Some("k".into()), ..owned(owner, body) };
    let messages = vec![of("acme", "a1"), of("globex", "g1"), of("acme", "a2"), of("globex", "g2")];
    let subscription = ordered(world, messages).await?;
    let first = world.expect_singly(&subscription, &["a1", "g1"]).await?;
    world.ack(&subscription, &first).await?;
    world.expect_singly(&subscription, &["a2", "g2"]).await?;
    Ok(())
}

async fn each_key_comes_in_order(world: &mut World) -> Result<()> {
    const KEYS: usize = 7;
    let messages: Vec<Message> =
        (0..140).map(|n| keyed(&format!("key{}", n % KEYS), &format!("{n:03}"))).collect();
    let subscription = ordered(world, messages).await?;
    let (mut seen, mut failed, mut done) = (BTreeMap::<String, Vec<String>>::new(), 0, 0);
    for pull in 0.. {
        if done == 140 {
            break;
        }
        let consumer = [Consumer::Single, Consumer::Call, Consumer::Stream(1)][pull % 3];
        let received =
            subscription.pull(PullLimits { wait: world.patience(), consumer, ..limits(10) }).await?;
        ensure!(!received.is_empty(), "only {done} of 140 messages came");
        let mut stopped = Vec::new();
        for received in received.chunks(1) {
            let key = received[0].message.ordering_key.clone().context("a message lost its key")?;
            let number: usize = body(&received[0]).parse()?;
            // What is behind one that failed comes again after it.
            if stopped.contains(&key) {
                continue;
            }
            // Some fail once, so that order is kept by more than luck.
            if number.is_multiple_of(5) && received[0].delivery_attempt == 1 {
                world.nack(&subscription, received).await?;
                failed += 1;
                ensure!(failed <= 28, "messages fail for the first time more than once");
                stopped.push(key);
                continue;
            }
            seen.entry(key.to_string()).or_default().push(body(&received[0]));
            world.ack(&subscription, received).await?;
            done += 1;
        }
    }
    same("messages that failed once", failed, 28)?;
    for (key, bodies) in &seen {
        ensure!(bodies.is_sorted(), "{key} came as {bodies:?}");
        same("the messages of a key", bodies.len(), 140 / KEYS)?;
    }
    world.settled(&subscription)
}

async fn what_follows_comes_after_what_was_given_back(world: &mut World) -> Result<()> {
    let subscription = ordered(world, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]).await?;
    for attempt in 1..=3 {
        let received = world.take(&subscription, 1).await?;
        same("what comes", (body(&received[0]), received[0].delivery_attempt), ("k1".to_owned(), attempt))?;
        world.nack(&subscription, &received).await?;
    }
    one_by_one(world, &subscription, &["k1", "k2", "k3"]).await
}

async fn what_follows_comes_after_what_was_not_acknowledged(world: &mut World) -> Result<()> {
    let subscription = ordered(world, vec![keyed("k", "k1"), keyed("k", "k2")]).await?;
    world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    one_by_one(world, &subscription, &["k1", "k2"]).await
}

async fn what_follows_waits_for_the_backoff(world: &mut World) -> Result<()> {
    let (topic, subscription) = world
        .pair(|spec| {
            let backoff = Duration::from_secs(30);
            spec.ordered = true;
            spec.retry = Some(RetryPolicy { minimum_backoff: backoff, maximum_backoff: backoff });
        })
        .await?;
    world.send(&topic, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("l", "l1")]).await?;
    let first: Vec<Received> = world.expect_singly(&subscription, &["k1", "l1"]).await?;
    let of_k = first.into_iter().filter(|r| body(r) == "k1").collect::<Vec<_>>();
    world.nack(&subscription, &of_k).await?;
    world.nothing(&subscription, "k1 comes again after its backoff, and k2 after it").await?;
    world.send(&topic, vec![keyed("l", "l2"), keyed("m", "m1")]).await?;
    world.expect(&subscription, &["m1"]).await?;
    world.pass(Duration::from_secs(30)).await;
    one_by_one(world, &subscription, &["k1", "k2"]).await
}

async fn what_follows_comes_after_the_dead_letter(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |_| {}).await?;
    let (topic, subscription) = world
        .pair(|spec| {
            spec.ordered = true;
            spec.dead_letter = Some(DeadLetterPolicy { topic: name("dead"), max_delivery_attempts: 5 });
        })
        .await?;
    world.send(&topic, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]).await?;
    for _ in 0..5 {
        let received = world.expect(&subscription, &["k1"]).await?;
        world.nack(&subscription, &received).await?;
    }
    one_by_one(world, &subscription, &["k2", "k3"]).await?;
    world.expect(&graves, &["k1"]).await?;
    world.settled(&subscription)
}

async fn what_follows_comes_after_a_seek(world: &mut World) -> Result<()> {
    let (topic, subscription) = world
        .pair(|spec| {
            spec.ordered = true;
            spec.retain_acked = true;
        })
        .await?;
    world.send(&topic, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]).await?;
    for _ in 0..2 {
        let received = world.take(&subscription, 1).await?;
        world.ack(&subscription, &received).await?;
    }
    world.port().seek(&name("billing"), levada_bus::port::SeekTo::TimeMs(0)).await?;
    one_by_one(world, &subscription, &["k1", "k2", "k3"]).await
}

async fn without_ordering_keys_mean_nothing(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![keyed("k", "k1"), keyed("k", "k2"), keyed("k", "k3")]).await?;
    let received = world.expect(&subscription, &["k1", "k2", "k3"]).await?;
    same("messages of the key under way", bodies(&received).len(), 3)
}

async fn order_outlives_a_restart(world: &mut World) -> Result<()> {
    let messages = (1..=4).map(|n| keyed("k", &format!("k{n}"))).collect();
    let subscription = ordered(world, messages).await?;
    let received = world.expect(&subscription, &["k1"]).await?;
    world.ack(&subscription, &received).await?;
    world.expect(&subscription, &["k2"]).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    one_by_one(world, &subscription, &["k2", "k3", "k4"]).await
}
