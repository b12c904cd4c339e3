//! Ordering keys of which several messages are under way: who gets the next one, and what comes
//! again when one fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_bus::port::{
    Consumer, DeadLetterPolicy, KeyScope, PullLimits, Received, SubscriptionSpec, TopicSpec, Unblock,
};
use levada_core::Message;

use super::super::check::same;
use super::super::world::{Subscription, World, bodies, body, keyed, limits, name, owned, tenant};

super::cases! {
    "together":
    messages_of_a_key_come_together_in_order,
    a_call_gets_no_more_of_a_key_that_is_under_way,
    only_the_stream_with_the_key_gets_more,
    a_stream_that_waits_is_woken_for_its_key,
    another_stream_takes_over_when_nothing_is_under_way,
    what_follows_one_that_was_given_back_comes_again,
    what_follows_one_that_was_not_acknowledged_comes_again,
    what_was_acknowledged_too_early_comes_again,
    a_late_acknowledgement_does_not_overtake,
    an_early_acknowledgement_counts_in_the_end [Restart],
    a_confirmed_message_never_comes_again,
    only_the_one_that_fails_goes_to_the_dead_letter,
    skipping_lets_what_is_acknowledged_count [Operators],
    parking_takes_what_is_under_way [Operators],
    a_seek_ends_what_is_under_way,
    a_key_of_all_tenants_keeps_the_order_across_them [Tenants],
    tenants_take_turns_where_keys_are_their_own [Tenants],
    another_scope_of_keys_holds_for_what_waits [Tenants],
    parking_a_key_of_all_leaves_other_tenants_alone [Tenants, Operators],
}

/// A subscription with so many messages `k1`, `k2` of one key.
async fn key(world: &World, count: usize, set: impl FnOnce(&mut SubscriptionSpec)) -> Result<Subscription> {
    let (topic, subscription) = world
        .pair(|spec| {
            spec.ordered = true;
            set(spec);
        })
        .await?;
    world.send(&topic, (1..=count).map(|n| keyed("k", &format!("k{n}"))).collect()).await?;
    Ok(subscription)
}

/// Exactly these messages, in this order, as a stream gets them.
async fn stream(
    world: &World,
    subscription: &Subscription,
    number: u64,
    wanted: &[&str],
) -> Result<Vec<Received>> {
    let mut taken = Vec::new();
    while taken.len() < wanted.len() {
        let most = limits(wanted.len() - taken.len());
        let of_stream = PullLimits { wait: world.patience(), consumer: Consumer::Stream(number), ..most };
        let pulled = subscription.pull(of_stream).await?;
        ensure!(!pulled.is_empty(), "only {:?} of {wanted:?} came", bodies(&taken));
        taken.extend(pulled);
    }
    same("the messages that came", bodies(&taken), wanted.iter().map(|w| (*w).to_owned()).collect())?;
    Ok(taken)
}

async fn nothing(world: &World, subscription: &Subscription, consumer: Consumer, why: &str) -> Result<()> {
    let pulled = subscription.pull(PullLimits { wait: world.quiet(), consumer, ..limits(100) }).await?;
    ensure!(pulled.is_empty(), "{:?} came to {consumer:?}, though {why}", bodies(&pulled));
    Ok(())
}

async fn messages_of_a_key_come_together_in_order(world: &mut World) -> Result<()> {
    let subscription = key(world, 9, |_| {}).await?;
    let nine = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];
    let received = stream(world, &subscription, 1, &nine).await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn a_call_gets_no_more_of_a_key_that_is_under_way(world: &mut World) -> Result<()> {
    let subscription = key(world, 4, |_| {}).await?;
    let received = subscription.pull(PullLimits { wait: world.patience(), ..limits(2) }).await?;
    same("what one call brings", bodies(&received), vec!["k1".to_owned(), "k2".to_owned()])?;
    nothing(world, &subscription, Consumer::Call, "two of the key are under way").await?;
    world.ack(&subscription, &received[..1]).await?;
    nothing(world, &subscription, Consumer::Single, "one of the key is under way").await?;
    nothing(world, &subscription, Consumer::Stream(1), "one of the key is under way").await?;
    world.ack(&subscription, &received[1..]).await?;
    stream(world, &subscription, 1, &["k3", "k4"]).await?;
    Ok(())
}

async fn only_the_stream_with_the_key_gets_more(world: &mut World) -> Result<()> {
    let subscription = key(world, 3, |_| {}).await?;
    stream(world, &subscription, 1, &["k1"]).await?;
    nothing(world, &subscription, Consumer::Stream(2), "stream 1 has the key").await?;
    nothing(world, &subscription, Consumer::Call, "stream 1 has the key").await?;
    stream(world, &subscription, 1, &["k2", "k3"]).await?;
    Ok(())
}

async fn a_stream_that_waits_is_woken_for_its_key(world: &mut World) -> Result<()> {
    let subscription = key(world, 1, |_| {}).await?;
    stream(world, &subscription, 1, &["k1"]).await?;
    // Whoever of the two looks first finds the message.
    for next in ["k2", "k3", "k4"] {
        let wait = world.patience();
        let waiting = PullLimits { wait, consumer: Consumer::Stream(1), ..limits(10) };
        let other = PullLimits { wait: world.quiet(), consumer: Consumer::Stream(2), ..limits(10) };
        let publish = async {
            tokio::task::yield_now().await;
            world.send(&name("orders"), vec![keyed("k", next)]).await
        };
        let (got, others, sent) = tokio::join!(subscription.pull(waiting), subscription.pull(other), publish);
        sent?;
        same("what comes to the stream that has the key", bodies(&got?), vec![next.to_owned()])?;
        same("what comes to the other", bodies(&others?), Vec::new())?;
    }
    Ok(())
}

async fn another_stream_takes_over_when_nothing_is_under_way(world: &mut World) -> Result<()> {
    let subscription = key(world, 4, |_| {}).await?;
    let first = stream(world, &subscription, 1, &["k1", "k2"]).await?;
    world.ack(&subscription, &first).await?;
    stream(world, &subscription, 2, &["k3"]).await?;
    nothing(world, &subscription, Consumer::Stream(1), "stream 2 has the key").await
}

async fn what_follows_one_that_was_given_back_comes_again(world: &mut World) -> Result<()> {
    let subscription = key(world, 5, |_| {}).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3", "k4", "k5"]).await?;
    world.nack(&subscription, &received[2..3]).await?;
    let again = stream(world, &subscription, 1, &["k3", "k4", "k5"]).await?;
    let attempts: Vec<u32> = again.iter().map(|r| r.delivery_attempt).collect();
    same("their attempts: one has failed", attempts, vec![2, 1, 1])?;
    world.ack(&subscription, &again).await?;
    world.ack(&subscription, &received[..2]).await?;
    world.settled(&subscription)
}

async fn what_follows_one_that_was_not_acknowledged_comes_again(world: &mut World) -> Result<()> {
    let subscription = key(world, 3, |_| {}).await?;
    let received = world.take_briefly(&subscription, 3).await?;
    world.extend(&subscription, &received[1..], Duration::from_secs(600)).await?;
    world.pass(world.unit()).await;
    let again = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
    world.ack(&subscription, &again).await?;
    world.settled(&subscription)
}

async fn what_was_acknowledged_too_early_comes_again(world: &mut World) -> Result<()> {
    let subscription = key(world, 4, |_| {}).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3", "k4"]).await?;
    world.ack(&subscription, &received[2..3]).await?;
    world.nack(&subscription, &received[1..2]).await?;
    let again = stream(world, &subscription, 1, &["k2", "k3", "k4"]).await?;
    world.ack(&subscription, &again).await?;
    world.ack(&subscription, &received[..1]).await?;
    world.settled(&subscription)
}

async fn a_late_acknowledgement_does_not_overtake(world: &mut World) -> Result<()> {
    let subscription = key(world, 3, |_| {}).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
    world.nack(&subscription, &received[..1]).await?;
    // A consumer that had these three already works on.
    world.ack(&subscription, &received[1..]).await?;
    let again = stream(world, &subscription, 2, &["k1", "k2", "k3"]).await?;
    world.ack(&subscription, &again).await?;
    world.settled(&subscription)
}

async fn an_early_acknowledgement_counts_in_the_end(world: &mut World) -> Result<()> {
    let subscription = key(world, 4, |_| {}).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
    for early in [2, 1, 0] {
        world.ack(&subscription, &received[early..=early]).await?;
    }
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let rest = stream(world, &subscription, 1, &["k4"]).await?;
    world.ack(&subscription, &rest).await?;
    world.settled(&subscription)
}

async fn a_confirmed_message_never_comes_again(world: &mut World) -> Result<()> {
    let subscription = key(world, 4, |spec| spec.exactly_once = true).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3", "k4"]).await?;
    world.ack(&subscription, &received[2..3]).await?;
    world.nack(&subscription, &received[1..2]).await?;
    let again = stream(world, &subscription, 1, &["k2", "k4"]).await?;
    world.ack(&subscription, &again).await?;
    world.ack(&subscription, &received[..1]).await?;
    world.settled(&subscription)
}

async fn only_the_one_that_fails_goes_to_the_dead_letter(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |_| {}).await?;
    let policy = DeadLetterPolicy { topic: name("dead"), max_delivery_attempts: 5 };
    let subscription = key(world, 3, |spec| spec.dead_letter = Some(policy)).await?;
    for attempt in 1..=5 {
        let received = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
        let attempts: Vec<u32> = received.iter().map(|r| r.delivery_attempt).collect();
        same("their attempts", attempts, vec![attempt, 1, 1])?;
        world.nack(&subscription, &received[..1]).await?;
        if attempt == 5 {
            world.expect(&graves, &["k1"]).await?;
            // The other two stay with the stream.
            world.ack(&subscription, &received[1..]).await?;
        }
    }
    world.settled(&subscription)
}

async fn skipping_lets_what_is_acknowledged_count(world: &mut World) -> Result<()> {
    let subscription = key(world, 3, |_| {}).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
    world.ack(&subscription, &received[1..]).await?;
    subscription.unblock(&tenant("acme"), "k", Unblock::Skip).await?;
    nothing(world, &subscription, Consumer::Call, "one was skipped and two acknowledged").await?;
    world.settled(&subscription)
}

async fn parking_takes_what_is_under_way(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |spec| spec.ordered = true).await?;
    let policy = DeadLetterPolicy { topic: name("dead"), max_delivery_attempts: 5 };
    let subscription = key(world, 5, |spec| spec.dead_letter = Some(policy)).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2", "k3"]).await?;
    world.ack(&subscription, &received[1..2]).await?;
    nothing(world, &subscription, Consumer::Call, "the stream has the key").await?;
    subscription.unblock(&tenant("acme"), "k", Unblock::Park).await?;
    stream(world, &graves, 1, &["k1", "k3", "k4", "k5"]).await?;
    nothing(world, &subscription, Consumer::Call, "all of the key was parked").await?;
    world.settled(&subscription)
}

async fn a_seek_ends_what_is_under_way(world: &mut World) -> Result<()> {
    let subscription = key(world, 3, |spec| spec.retain_acked = true).await?;
    let received = stream(world, &subscription, 1, &["k1", "k2"]).await?;
    world.ack(&subscription, &received[1..]).await?;
    world.port().seek(&name("billing"), levada_bus::port::SeekTo::TimeMs(0)).await?;
    let again = stream(world, &subscription, 2, &["k1", "k2", "k3"]).await?;
    let first = again.first().context("a first one")?;
    same("the first", body(first), "k1".to_owned())?;
    world.ack(&subscription, &again).await?;
    world.settled(&subscription)
}

/// Messages of one key by two tenants: 100 of one, and then in turn.
async fn of_two_tenants(
    world: &World,
    scope: KeyScope,
    set: impl FnOnce(&mut SubscriptionSpec),
) -> Result<Subscription> {
    let spec = TopicSpec { ordering: Some(scope), ..TopicSpec::new(name("orders")) };
    world.port().create_topic(spec).await?;
    let subscription = world
        .subscribe("billing", &name("orders"), |spec| {
            spec.ordered = true;
            set(spec);
        })
        .await?;
    let of = |n: usize| {
        let owner = if n < 100 || n.is_multiple_of(2) { "acme" } else { "globex" };
        Message { ordering_key: Some("k".into()), ..owned(owner, &format!("{n:03}")) }
    };
    world.send(&name("orders"), (0..140).map(of).collect()).await?;
    Ok(subscription)
}

/// Everything that comes to a stream, acknowledged at once.
async fn drained(world: &World, subscription: &Subscription, count: usize) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let some = PullLimits { wait: world.patience(), consumer: Consumer::Stream(1), ..limits(9) };
        let received = subscription.pull(some).await?;
        ensure!(!received.is_empty(), "only {} of {count} messages came", seen.len());
        seen.extend(bodies(&received));
        world.ack(subscription, &received).await?;
    }
    Ok(seen)
}

async fn a_key_of_all_tenants_keeps_the_order_across_them(world: &mut World) -> Result<()> {
    let subscription = of_two_tenants(world, KeyScope::Global, |_| {}).await?;
    let seen = drained(world, &subscription, 140).await?;
    ensure!(seen.is_sorted(), "they came as {seen:?}");
    if world.has(super::super::Need::Stats) {
        let stats = subscription.stats();
        let delivered = |of: &str| stats.by_tenant.get(&tenant(of)).map(|lane| lane.delivered);
        same("deliveries by tenant", (delivered("acme"), delivered("globex")), (Some(120), Some(20)))?;
    }
    world.settled(&subscription)
}

async fn tenants_take_turns_where_keys_are_their_own(world: &mut World) -> Result<()> {
    let subscription = of_two_tenants(world, KeyScope::Tenant, |_| {}).await?;
    let seen = drained(world, &subscription, 140).await?;
    let place = |body: &str| seen.iter().position(|seen| seen == body).context("it came");
    ensure!(place("101")? < place("099")?, "the second tenant waits for the first: {seen:?}");
    let of_globex = |body: &&String| body.as_str() > "100" && body.ends_with(['1', '3', '5', '7', '9']);
    let (globex, acme): (Vec<&String>, Vec<&String>) = seen.iter().partition(of_globex);
    ensure!(globex.is_sorted() && acme.is_sorted(), "each tenant's come in order: {seen:?}");
    Ok(())
}

async fn another_scope_of_keys_holds_for_what_waits(world: &mut World) -> Result<()> {
    let subscription = of_two_tenants(world, KeyScope::Tenant, |_| {}).await?;
    let first = stream(world, &subscription, 1, &["000", "001"]).await?;
    world.ack(&subscription, &first[..1]).await?;
    let spec = TopicSpec { ordering: Some(KeyScope::Global), ..TopicSpec::new(name("orders")) };
    world.port().update_topic(spec).await?;
    let seen = drained(world, &subscription, 139).await?;
    same("the first", seen.first().map(String::as_str), Some("001"))?;
    ensure!(seen.is_sorted(), "they came as {seen:?}");
    world.settled(&subscription)
}

async fn parking_a_key_of_all_leaves_other_tenants_alone(world: &mut World) -> Result<()> {
    let dead = world.topic("dead").await?;
    let graves = world.subscribe("graves", &dead, |spec| spec.ordered = true).await?;
    let policy = DeadLetterPolicy { topic: name("dead"), max_delivery_attempts: 5 };
    let subscription =
        of_two_tenants(world, KeyScope::Global, |spec| spec.dead_letter = Some(policy)).await?;
    stream(world, &subscription, 1, &["000"]).await?;
    nothing(world, &subscription, Consumer::Call, "the stream has the key").await?;
    let foreign = subscription.unblock(&tenant("globex"), "k", Unblock::Skip).await;
    ensure!(foreign.is_err(), "the message that holds the key is another tenant's");
    subscription.unblock(&tenant("acme"), "k", Unblock::Park).await?;
    let seen = drained(world, &subscription, 20).await?;
    ensure!(seen.iter().all(|body| body.ends_with(['1', '3', '5', '7', '9'])), "{seen:?}");
    same("the letters", drained(world, &graves, 120).await?.len(), 120)?;
    world.settled(&subscription)
}
