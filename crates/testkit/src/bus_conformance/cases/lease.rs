//! Leases: how they end, and what an acknowledgement means when.

use std::time::Duration;

use anyhow::{Result, ensure};
use levada_bus::port::{AckId, AckOutcome};

use super::super::check::same;
use super::super::world::{LONG, World, body, ids};

super::cases! {
    "lease":
    a_lease_that_ends_brings_the_message_again,
    the_deadline_is_the_subscriptions_unless_the_pull_has_its_own,
    a_lease_ends_at_its_deadline_and_not_before [ManualTime],
    a_message_given_back_comes_at_once_with_another_id,
    a_deadline_moves_forward,
    a_deadline_moves_backward,
    acknowledged_is_acknowledged,
    a_late_acknowledgement_counts,
    the_id_of_an_older_lease_counts,
    an_acknowledgement_may_be_repeated,
    an_id_that_never_was_is_invalid,
    another_handle_may_acknowledge,
    a_deadline_of_an_ended_lease_moves_nothing,
    progress_outlives_a_restart [Restart],
}

async fn a_lease_that_ends_brings_the_message_again(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let published = world.publish(&topic, &["a"]).await?;
    let first = world.take_briefly(&subscription, 1).await?;
    world.nothing(&subscription, "the lease has not ended").await.or_else(|error| {
        // On a busy machine real time may have passed.
        if world.has(super::super::Need::ManualTime) { Err(error) } else { Ok(()) }
    })?;
    world.pass(world.unit()).await;
    let (mut last, mut attempt) = (first[0].ack_id, 1);
    for _ in 0..3 {
        let again = world.take_briefly(&subscription, 1).await?;
        same("the id of the message", again[0].message_id, published[0])?;
        ensure!(again[0].delivery_attempt > attempt, "attempt {} again", again[0].delivery_attempt);
        ensure!(again[0].ack_id != last, "the ack id of the lease before");
        (last, attempt) = (again[0].ack_id, again[0].delivery_attempt);
        world.pass(world.unit()).await;
    }
    Ok(())
}

async fn the_deadline_is_the_subscriptions_unless_the_pull_has_its_own(world: &mut World) -> Result<()> {
    let unit = world.unit();
    let (topic, subscription) = world.pair(|spec| spec.ack_deadline = unit).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let long = world.take_for(&subscription, 1, Some(LONG)).await?;
    let short = world.take(&subscription, 1).await?;
    ensure!(body(&long[0]) != body(&short[0]), "the same message twice");
    world.pass(unit).await;
    let again = world.take_for(&subscription, 1, Some(LONG)).await?;
    same("what comes again", body(&again[0]), body(&short[0]))?;
    world.nothing(&subscription, "the other lease is a long one").await
}

async fn a_lease_ends_at_its_deadline_and_not_before(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ack_deadline = Duration::from_secs(17)).await?;
    world.publish(&topic, &["a"]).await?;
    world.take(&subscription, 1).await?;
    world.pass(Duration::from_millis(16_999)).await;
    world.nothing(&subscription, "its lease ends in a millisecond").await?;
    world.pass(Duration::from_millis(1)).await;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)
}

async fn a_message_given_back_comes_at_once_with_another_id(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let first = world.take(&subscription, 2).await?;
    world.nack(&subscription, &first[..1]).await?;
    let again = world.take(&subscription, 1).await?;
    same("what comes again", body(&again[0]), body(&first[0]))?;
    same("its attempt", again[0].delivery_attempt, 2)?;
    ensure!(again[0].ack_id != first[0].ack_id, "the ack id did not change");
    world.nothing(&subscription, "the other one is on lease").await
}

async fn a_deadline_moves_forward(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    // Long enough that a machine that stalls does not end it.
    let lease = 5 * world.unit();
    let received = world.take_for(&subscription, 1, Some(lease)).await?;
    world.extend(&subscription, &received, LONG).await?;
    world.pass(lease).await;
    world.nothing(&subscription, "its deadline was moved").await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn a_deadline_moves_backward(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.extend(&subscription, &received, world.unit()).await?;
    world.pass(world.unit()).await;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)
}

async fn acknowledged_is_acknowledged(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let bodies: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
    world.publish(&topic, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let received = world.take_briefly(&subscription, 30).await?;
    world.ack(&subscription, &received).await?;
    world.pass(world.unit()).await;
    world.nothing(&subscription, "everything was acknowledged").await?;
    world.settled(&subscription)
}

async fn a_late_acknowledgement_counts(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    world.ack(&subscription, &received).await?;
    world.nothing(&subscription, "it was acknowledged, if late").await?;
    world.settled(&subscription)
}

async fn the_id_of_an_older_lease_counts(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    let first = world.take(&subscription, 1).await?;
    world.nack(&subscription, &first).await?;
    let second = world.take_briefly(&subscription, 1).await?;
    world.ack(&subscription, &first).await?;
    world.pass(world.unit()).await;
    world.nothing(&subscription, "it was acknowledged by its first id").await?;
    world.ack(&subscription, &second).await?;
    world.settled(&subscription)
}

async fn an_acknowledgement_may_be_repeated(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 2).await?;
    world.ack(&subscription, &received[..1]).await?;
    world.ack(&subscription, &received[..1]).await?;
    let twice = vec![received[1].ack_id, received[1].ack_id];
    let outcomes = subscription.acknowledge(twice).await?;
    same("the outcomes of one id twice", outcomes, vec![AckOutcome::Done; 2])?;
    world.settled(&subscription)?;
    if world.has(super::super::Need::Stats) {
        same("acknowledged", subscription.stats().acknowledged, 2)?;
    }
    Ok(())
}

async fn an_id_that_never_was_is_invalid(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 2).await?;
    let none = AckId(u64::MAX - 1);
    let given = vec![received[0].ack_id, none, received[1].ack_id];
    let outcomes = subscription.acknowledge(given).await?;
    let wanted = vec![AckOutcome::Done, AckOutcome::InvalidAckId, AckOutcome::Done];
    same("the outcomes in the order of the ids", outcomes, wanted)?;
    let outcome = world.modify_one(&subscription, none, LONG).await?;
    same("the outcome of moving its deadline", outcome, AckOutcome::InvalidAckId)?;
    same("outcomes of no ids", subscription.acknowledge(Vec::new()).await?, Vec::new())
}

async fn another_handle_may_acknowledge(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let received = world.take(&subscription, 2).await?;
    drop(subscription);
    let other = world.subscription("billing")?;
    world.ack(&other, &received[..1]).await?;
    world.nack(&other, &received[1..]).await?;
    let again = world.take(&other, 1).await?;
    same("what comes again", body(&again[0]), body(&received[1]))
}

async fn a_deadline_of_an_ended_lease_moves_nothing(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let first = world.take(&subscription, 2).await?;
    world.ack(&subscription, &first[..1]).await?;
    world.nack(&subscription, &first[1..]).await?;
    // Neither brings back what is acknowledged nor holds what was given back.
    subscription
        .modify_ack_deadlines(ids(&first).into_iter().map(|id| (id, Duration::ZERO)).collect())
        .await?;
    subscription.modify_ack_deadlines(ids(&first).into_iter().map(|id| (id, LONG)).collect()).await?;
    let again = world.take(&subscription, 1).await?;
    same("what comes again", body(&again[0]), body(&first[1]))?;
    subscription.modify_ack_deadlines(vec![(first[1].ack_id, Duration::ZERO)]).await?;
    world.nothing(&subscription, "an older lease does not end the newest").await
}

async fn progress_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b", "c"]).await?;
    let mut received = world.take(&subscription, 3).await?;
    received.sort_by_key(|r| r.message_id);
    world.ack(&subscription, &received[1..2]).await?;
    world.nack(&subscription, &received[2..]).await?;
    let third = world.take(&subscription, 1).await?;
    same("the attempt of what was given back", third[0].delivery_attempt, 2)?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let mut left = world.expect(&subscription, &["a", "c"]).await?;
    left.sort_by_key(|r| r.message_id);
    let attempts = left.iter().map(|r| r.delivery_attempt).collect();
    same("the attempts, counted across the restart", attempts, vec![2, 3])?;
    for before in ids(&received) {
        ensure!(ids(&left).iter().all(|id| *id > before), "an ack id was given out twice");
    }
    world.nothing(&subscription, "b was acknowledged before the restart").await
}
