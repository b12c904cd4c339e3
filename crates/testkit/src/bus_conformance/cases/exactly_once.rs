//! Exactly-once: only the newest lease that has not ended counts, and what is confirmed
//! never comes again.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use levada_bus::port::{AckOutcome, DeadLetterPolicy};

use super::super::check::same;
use super::super::world::{LONG, Subscription, World, bodies, body, ids};

super::cases! {
    "exactly-once":
    an_ended_lease_is_invalid,
    only_the_newest_lease_counts,
    a_lease_given_back_is_over,
    an_ended_lease_cannot_be_moved_or_given_back,
    a_confirmation_may_be_repeated,
    a_message_under_way_comes_to_nobody_else,
    acknowledgements_at_once_are_each_confirmed,
    one_id_at_once_from_two_sides_is_confirmed_to_both,
    confirmed_attempts_do_not_move_to_the_dead_letter,
    what_is_confirmed_never_comes_again [Restart],
    a_restart_ends_leases [Restart],
    a_seek_ends_leases,
    it_begins_with_an_update,
}

async fn exactly_once(world: &World, bodies: &[&str]) -> Result<Subscription> {
    let (topic, subscription) = world.pair(|spec| spec.exactly_once = true).await?;
    world.publish(&topic, bodies).await?;
    Ok(subscription)
}

async fn invalid(world: &World, subscription: &Subscription, id: levada_bus::port::AckId) -> Result<()> {
    let outcome = world.ack_one(subscription, id).await?;
    same("the outcome of acknowledging an ended lease", outcome, AckOutcome::InvalidAckId)
}

async fn an_ended_lease_is_invalid(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let received = world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    invalid(world, &subscription, received[0].ack_id).await?;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)?;
    world.ack(&subscription, &again).await?;
    world.settled(&subscription)
}

async fn only_the_newest_lease_counts(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let first = world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    let second = world.take(&subscription, 1).await?;
    invalid(world, &subscription, first[0].ack_id).await?;
    world.nothing(&subscription, "its newest lease goes on").await?;
    world.ack(&subscription, &second).await?;
    // A client that sent it first, and repeats it, has not acknowledged the message.
    let late = world.ack_one(&subscription, first[0].ack_id).await?;
    same("the older id once the newer is confirmed", late, AckOutcome::InvalidAckId)?;
    world.settled(&subscription)
}

async fn a_lease_given_back_is_over(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.nack(&subscription, &received).await?;
    invalid(world, &subscription, received[0].ack_id).await?;
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)
}

async fn an_ended_lease_cannot_be_moved_or_given_back(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let received = world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    for by in [LONG, std::time::Duration::ZERO] {
        let outcome = world.modify_one(&subscription, received[0].ack_id, by).await?;
        same("the outcome of moving an ended lease", outcome, AckOutcome::InvalidAckId)?;
    }
    let again = world.take(&subscription, 1).await?;
    same("the attempt", again[0].delivery_attempt, 2)?;
    let outcome = world.modify_one(&subscription, received[0].ack_id, std::time::Duration::ZERO).await?;
    same("the outcome of giving back an older lease", outcome, AckOutcome::InvalidAckId)?;
    world.nothing(&subscription, "its newest lease goes on").await
}

async fn a_confirmation_may_be_repeated(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn a_message_under_way_comes_to_nobody_else(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    // Long enough that a machine that stalls does not end it.
    let lease = 5 * world.unit();
    let received = world.take_for(&subscription, 1, Some(lease)).await?;
    world.extend(&subscription, &received, LONG).await?;
    world.pass(lease).await;
    world.nothing(&world.subscription("billing")?, "its lease was extended").await?;
    world.ack(&subscription, &received).await
}

async fn acknowledgements_at_once_are_each_confirmed(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a", "b", "c", "d", "e", "f"]).await?;
    let received = world.take(&subscription, 6).await?;
    let calls = received.chunks(2).map(|pair| world.ack(&subscription, pair));
    futures::future::try_join_all(calls).await?;
    world.settled(&subscription)
}

async fn one_id_at_once_from_two_sides_is_confirmed_to_both(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    let other = world.subscription("billing")?;
    let both = tokio::join!(world.ack(&subscription, &received), world.ack(&other, &received));
    both.0.and(both.1)?;
    if world.has(super::super::Need::Stats) {
        same("acknowledged", subscription.stats().acknowledged, 1)?;
    }
    world.settled(&subscription)
}

async fn confirmed_attempts_do_not_move_to_the_dead_letter(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |_| {}).await?;
    let policy = DeadLetterPolicy { topic: dead, max_delivery_attempts: 5 };
    let (topic, subscription) = world
        .pair(|spec| {
            spec.exactly_once = true;
            spec.dead_letter = Some(policy);
        })
        .await?;
    world.publish(&topic, &["good"]).await?;
    for _ in 0..4 {
        let received = world.take(&subscription, 1).await?;
        world.nack(&subscription, &received).await?;
    }
    let last = world.take_for(&subscription, 1, Some(5 * world.unit())).await?;
    world.ack(&subscription, &last).await?;
    // The last lease would have ended by now, and the message would have moved.
    world.pass(5 * world.unit()).await;
    world.publish(&topic, &["bad"]).await?;
    for _ in 0..5 {
        let received = world.expect(&subscription, &["bad"]).await?;
        world.nack(&subscription, &received).await?;
    }
    let moved = world.expect(&graves, &["bad"]).await?;
    same("moved once", moved.len(), 1)?;
    world.nothing(&graves, "the other was confirmed in time").await?;
    world.settled(&subscription)
}

async fn what_is_confirmed_never_comes_again(world: &mut World) -> Result<()> {
    let all: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    let subscription = exactly_once(world, &all.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let received = world.take(&subscription, 40).await?;
    let confirmed: Vec<_> = received.iter().step_by(2).cloned().collect();
    world.ack(&subscription, &confirmed).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let left = world.take(&subscription, 20).await?;
    let confirmed: BTreeSet<String> = bodies(&confirmed).into_iter().collect();
    for received in &left {
        ensure!(!confirmed.contains(&body(received)), "{} was confirmed and came again", body(received));
    }
    world.nothing(&subscription, "the rest is on lease").await?;
    world.ack(&subscription, &left).await?;
    world.settled(&subscription)
}

async fn a_restart_ends_leases(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let before = world.take(&subscription, 1).await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    invalid(world, &subscription, before[0].ack_id).await?;
    let again = world.take(&subscription, 1).await?;
    invalid(world, &subscription, before[0].ack_id).await?;
    world.ack(&subscription, &again).await?;
    world.settled(&subscription)
}

async fn a_seek_ends_leases(world: &mut World) -> Result<()> {
    let subscription = exactly_once(world, &["a"]).await?;
    let before = world.take(&subscription, 1).await?;
    let seek = levada_bus::port::SeekTo::TimeMs(0);
    world.port().seek(&super::super::world::name("billing"), seek).await?;
    invalid(world, &subscription, before[0].ack_id).await?;
    let again = world.take(&subscription, 1).await?;
    ensure!(ids(&again) != ids(&before), "the ack id of before the seek");
    world.ack(&subscription, &again).await
}

async fn it_begins_with_an_update(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.update("billing", |spec| spec.exactly_once = true).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take_briefly(&subscription, 1).await?;
    world.pass(world.unit()).await;
    invalid(world, &subscription, received[0].ack_id).await?;
    world.take(&subscription, 1).await?;
    Ok(())
}
