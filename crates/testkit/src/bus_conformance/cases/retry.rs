//! Retry policies: how long a message that failed waits.

use std::time::Duration;

use anyhow::Result;
use levada_bus::port::RetryPolicy;

use super::super::check::same;
use super::super::world::{Subscription, World, bodies};

super::cases! {
    "retry":
    without_a_policy_it_comes_at_once,
    what_was_given_back_waits_for_its_backoff,
    the_backoff_grows_up_to_its_cap [ManualTime],
    what_was_not_acknowledged_waits_too [ManualTime],
    a_message_that_waits_holds_up_no_other,
    a_message_that_waits_can_be_acknowledged,
    a_changed_policy_counts_from_then_on [ManualTime],
}

const MINUTE: Duration = Duration::from_secs(60);

fn policy(minimum_backoff: Duration, maximum_backoff: Duration) -> Option<RetryPolicy> {
    Some(RetryPolicy { minimum_backoff, maximum_backoff })
}

/// Takes the one message and gives it back; then it must come after exactly this time.
async fn comes_after(world: &World, subscription: &Subscription, wait: Duration) -> Result<()> {
    let received = world.take(subscription, 1).await?;
    world.nack(subscription, &received).await?;
    let attempt = received[0].delivery_attempt;
    world.pass(wait - Duration::from_millis(1)).await;
    let why = format!("attempt {attempt} failed less than {wait:?} ago");
    world.nothing(subscription, &why).await?;
    world.pass(Duration::from_millis(1)).await;
    Ok(())
}

async fn without_a_policy_it_comes_at_once(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    for attempt in 1..=8 {
        let received = world.take(&subscription, 1).await?;
        same("the attempt", received[0].delivery_attempt, attempt)?;
        world.nack(&subscription, &received).await?;
    }
    Ok(())
}

async fn what_was_given_back_waits_for_its_backoff(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retry = policy(MINUTE, MINUTE)).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.nack(&subscription, &received).await?;
    world.nothing(&subscription, "it was given back less than a minute ago").await?;
    let unit = world.unit();
    let short = world.subscribe("short", &topic, |spec| spec.retry = policy(unit, unit)).await?;
    world.publish(&topic, &["b"]).await?;
    let received = world.expect(&short, &["b"]).await?;
    world.nack(&short, &received).await?;
    world.pass(unit).await;
    let again = world.expect(&short, &["b"]).await?;
    same("the attempt", again[0].delivery_attempt, 2)
}

async fn the_backoff_grows_up_to_its_cap(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retry = policy(MINUTE, 5 * MINUTE)).await?;
    world.publish(&topic, &["a"]).await?;
    for minutes in [1, 2, 4, 5, 5] {
        comes_after(world, &subscription, minutes * MINUTE).await?;
    }
    world.take(&subscription, 1).await?;
    Ok(())
}

async fn what_was_not_acknowledged_waits_too(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retry = policy(MINUTE, MINUTE)).await?;
    world.publish(&topic, &["a"]).await?;
    world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    world.nothing(&subscription, "its lease ended just now").await?;
    world.pass(MINUTE).await;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)
}

async fn a_message_that_waits_holds_up_no_other(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.retry = policy(10 * MINUTE, 10 * MINUTE)).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.nack(&subscription, &received).await?;
    let other = world.take(&subscription, 1).await?;
    same("two different messages", bodies(&other) == bodies(&received), false)?;
    world.publish(&topic, &["c"]).await?;
    world.expect(&subscription, &["c"]).await?;
    Ok(())
}

async fn a_message_that_waits_can_be_acknowledged(world: &mut World) -> Result<()> {
    let unit = world.unit();
    let (topic, subscription) = world.pair(|spec| spec.retry = policy(unit, unit)).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.nack(&subscription, &received).await?;
    world.ack(&subscription, &received).await?;
    world.pass(unit).await;
    world.nothing(&subscription, "it was acknowledged while it waited").await?;
    world.settled(&subscription)
}

async fn a_changed_policy_counts_from_then_on(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    world.update("billing", |spec| spec.retry = policy(3 * MINUTE, 3 * MINUTE)).await?;
    comes_after(world, &subscription, 3 * MINUTE).await?;
    world.update("billing", |spec| spec.retry = None).await?;
    let received = world.take(&subscription, 1).await?;
    world.nack(&subscription, &received).await?;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 3)
}
