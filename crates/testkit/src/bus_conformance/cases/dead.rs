//! Dead letters: after how many failures a message moves, and what it is then.

use anyhow::{Context, Result, ensure};
use levada_bus::port::{DeadLetterPolicy, Received, SubscriptionSpec};
use levada_core::ResourceName;

use super::super::check::same;
use super::super::world::{Subscription, World, message, with};

super::cases! {
    "dead-letter":
    a_message_moves_after_its_attempts,
    the_dead_letter_says_where_it_comes_from,
    leases_that_end_are_attempts_too,
    what_is_acknowledged_in_time_does_not_move,
    a_move_outlives_a_restart [Restart],
    attempts_outlive_a_restart [Restart],
    without_its_topic_nothing_is_lost,
    a_policy_counts_from_its_update_on,
    a_policy_ends_with_an_update,
    moving_costs_the_other_messages_nothing,
    a_dead_letter_can_be_worked_on_like_any_message,
    it_is_counted [Stats],
}

const ATTEMPTS: u32 = 5;

struct Scene {
    topic: ResourceName,
    dead: ResourceName,
    subscription: Subscription,
    graves: Subscription,
}

async fn scene(world: &World, set: impl FnOnce(&mut SubscriptionSpec)) -> Result<Scene> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |_| {}).await?;
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: ATTEMPTS };
    let (topic, subscription) = world
        .pair(|spec| {
            spec.dead_letter = Some(policy);
            set(spec);
        })
        .await?;
    Ok(Scene { topic, dead, subscription, graves })
}

/// Takes what there is and gives it back, so many times.
async fn fail(world: &World, subscription: &Subscription, times: u32) -> Result<Vec<Received>> {
    let mut last = Vec::new();
    for _ in 0..times {
        last = world.take(subscription, 1).await?;
        world.nack(subscription, &last).await?;
    }
    Ok(last)
}

async fn a_message_moves_after_its_attempts(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    for attempt in 1..=ATTEMPTS {
        world.nothing(&scene.graves, &format!("only {} attempts failed", attempt - 1)).await?;
        let received = fail(world, &scene.subscription, 1).await?;
        same("the attempt", received[0].delivery_attempt, attempt)?;
    }
    world.nothing(&scene.subscription, "it has moved").await?;
    let moved = world.expect(&scene.graves, &["bad"]).await?;
    same("the attempt there", moved[0].delivery_attempt, 1)?;
    world.nothing(&scene.graves, "it moved once").await?;
    world.settled(&scene.subscription)
}

async fn the_dead_letter_says_where_it_comes_from(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    let mut sent = with(message("bad"), &[("kind", "x"), ("empty", "")]);
    sent.ordering_key = Some("k".into());
    world.send(&scene.topic, vec![sent]).await?;
    fail(world, &scene.subscription, ATTEMPTS).await?;
    let moved = world.expect(&scene.graves, &["bad"]).await?;
    let attributes = &moved[0].message.attributes;
    let said = |what: &str| attributes.get(&format!("CloudPubSubDeadLetterSource{what}"));
    same("the count of deliveries", said("DeliveryCount"), Some("5"))?;
    same("the subscription", said("Subscription"), Some("billing"))?;
    same("its project", said("SubscriptionProject"), Some("acme"))?;
    let published = said("TopicPublishTime").context("without the time of its publish")?;
    ensure!(published.contains('T') && published.ends_with('Z'), "{published} is not a time of RFC 3339");
    same("its own attributes", (attributes.get("kind"), attributes.get("empty")), (Some("x"), Some("")))?;
    // A bus may say more, by names of its own.
    let others = attributes.iter().filter(|(name, _)| !name.starts_with("levada.")).count();
    same("the number of attributes", others, 6)?;
    same("its tenant", moved[0].message.tenant.as_str(), "acme")
}

async fn leases_that_end_are_attempts_too(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    for _ in 1..ATTEMPTS {
        world.take_briefly(&scene.subscription, 1).await?;
        world.pass(world.unit()).await;
    }
    let last = world.take_briefly(&scene.subscription, 1).await?;
    same("the attempt", last[0].delivery_attempt, ATTEMPTS)?;
    world.pass(world.unit()).await;
    world.nothing(&scene.subscription, "its last lease has ended").await?;
    world.expect(&scene.graves, &["bad"]).await?;
    Ok(())
}

async fn what_is_acknowledged_in_time_does_not_move(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["good"]).await?;
    fail(world, &scene.subscription, ATTEMPTS - 1).await?;
    let last = world.take(&scene.subscription, 1).await?;
    world.ack(&scene.subscription, &last).await?;
    world.nothing(&scene.subscription, "it was acknowledged").await?;
    world.nothing(&scene.graves, "it was acknowledged at its last attempt").await
}

async fn a_move_outlives_a_restart(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    fail(world, &scene.subscription, ATTEMPTS).await?;
    drop(scene);
    world.restart().await?;
    let (subscription, graves) = (world.subscription("billing")?, world.subscription("graves")?);
    world.nothing(&subscription, "it has moved").await?;
    world.expect(&graves, &["bad"]).await?;
    world.nothing(&graves, "it moved once").await
}

async fn attempts_outlive_a_restart(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    fail(world, &scene.subscription, ATTEMPTS - 2).await?;
    drop(scene);
    world.restart().await?;
    let (subscription, graves) = (world.subscription("billing")?, world.subscription("graves")?);
    let last = fail(world, &subscription, 2).await?;
    same("the attempt", last[0].delivery_attempt, ATTEMPTS)?;
    world.nothing(&subscription, "it has moved").await?;
    world.expect(&graves, &["bad"]).await?;
    Ok(())
}

async fn without_its_topic_nothing_is_lost(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.port().delete_topic(&scene.dead).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    let last = fail(world, &scene.subscription, ATTEMPTS + 3).await?;
    same("the attempt", last[0].delivery_attempt, ATTEMPTS + 3)?;
    // Once there is one of that name again, it takes what failed.
    world.topic("dead").await?;
    let graves = world.subscribe("new-graves", &scene.dead, |_| {}).await?;
    fail(world, &scene.subscription, 1).await?;
    world.expect(&graves, &["bad"]).await?;
    world.nothing(&scene.graves, "the deleted topic gets nothing any more").await?;
    world.nothing(&scene.subscription, "it has moved").await
}

async fn a_policy_counts_from_its_update_on(world: &mut World) -> Result<()> {
    let scene = scene(world, |spec| spec.dead_letter = None).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    let last = fail(world, &scene.subscription, ATTEMPTS + 2).await?;
    same("the attempt without a policy", last[0].delivery_attempt, ATTEMPTS + 2)?;
    let policy = DeadLetterPolicy { topic: scene.dead.clone(), max_delivery_attempts: ATTEMPTS };
    world.update("billing", |spec| spec.dead_letter = Some(policy)).await?;
    fail(world, &scene.subscription, 1).await?;
    world.expect(&scene.graves, &["bad"]).await?;
    world.nothing(&scene.subscription, "it has moved").await
}

async fn a_policy_ends_with_an_update(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    fail(world, &scene.subscription, ATTEMPTS - 1).await?;
    world.update("billing", |spec| spec.dead_letter = None).await?;
    let last = fail(world, &scene.subscription, 3).await?;
    same("the attempt", last[0].delivery_attempt, ATTEMPTS + 2)?;
    world.nothing(&scene.graves, "the policy is gone").await
}

async fn moving_costs_the_other_messages_nothing(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad", "good"]).await?;
    let mut good = None;
    while good.is_none() {
        let received = world.take(&scene.subscription, 1).await?;
        if received[0].message.body == "good" {
            good = Some(received);
        } else {
            world.nack(&scene.subscription, &received).await?;
        }
    }
    let good = good.context("it came")?;
    same("the attempt of the other", good[0].delivery_attempt, 1)?;
    world.publish(&scene.topic, &["late"]).await?;
    let mut failures = 0;
    while failures < 2 * ATTEMPTS {
        let limits = super::super::world::limits(1);
        let received = scene.subscription.pull(limits).await?;
        let Some(first) = received.first() else { break };
        if first.message.body == "late" {
            world.ack(&scene.subscription, &received).await?;
        } else {
            world.nack(&scene.subscription, &received).await?;
        }
        failures += 1;
    }
    world.expect(&scene.graves, &["bad"]).await?;
    world.ack(&scene.subscription, &good).await?;
    world.nothing(&scene.graves, "the others did not fail").await?;
    world.settled(&scene.subscription)
}

async fn a_dead_letter_can_be_worked_on_like_any_message(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad"]).await?;
    fail(world, &scene.subscription, ATTEMPTS).await?;
    let moved = world.take(&scene.graves, 1).await?;
    world.nack(&scene.graves, &moved).await?;
    let again = world.take(&scene.graves, 1).await?;
    same("its attempt there", again[0].delivery_attempt, 2)?;
    world.ack(&scene.graves, &again).await?;
    world.settled(&scene.graves)
}

async fn it_is_counted(world: &mut World) -> Result<()> {
    let scene = scene(world, |_| {}).await?;
    world.publish(&scene.topic, &["bad", "worse"]).await?;
    fail(world, &scene.subscription, 2 * ATTEMPTS).await?;
    let stats = scene.subscription.stats();
    same("dead letters and acknowledged", (stats.dead_lettered, stats.acknowledged), (2, 0))?;
    same("the backlog of the dead letter", scene.graves.stats().backlog_messages, 2)?;
    world.settled(&scene.subscription)
}
