//! Changes of a subscription, and that they take effect.

use std::time::Duration;

use anyhow::{Context, Result};
use levada_bus::port::{SeekTo, SubscriptionSpec};

use super::super::check::{Kind, refused, same};
use super::super::world::{LONG, World, name, tenant};

super::cases! {
    "update":
    settings_change,
    topic_filter_ordering_and_tenant_do_not,
    a_deadline_counts_for_the_next_lease,
    leases_go_on,
    retaining_counts_from_its_update_on,
    it_outlives_a_restart [Restart],
    it_is_noticed,
    a_delete_and_a_detach_are_noticed,
    nothing_else_is_noticed,
}

async fn settings_change(world: &mut World) -> Result<()> {
    let (_, subscription) = world.pair(|_| {}).await?;
    let mut spec = (*subscription.spec()).clone();
    spec.labels.insert("team".to_owned(), "billing".to_owned());
    spec.ack_deadline = Duration::from_secs(55);
    spec.retain_acked = true;
    spec.retention = Duration::from_secs(3600);
    spec.exactly_once = true;
    spec.expires_after = None;
    spec.weights.insert(tenant("globex"), 3);
    same("the answer", world.port().update_subscription(spec.clone()).await?, spec.clone())?;
    same("what the handle says", (*subscription.spec()).clone(), spec)
}

async fn topic_filter_ordering_and_tenant_do_not(world: &mut World) -> Result<()> {
    let (_, subscription) = world.pair(|spec| spec.filter = "attributes:kind".to_owned()).await?;
    let other = world.topic("other").await?;
    let kept = (*subscription.spec()).clone();
    let changed: [(&str, SubscriptionSpec); 4] = [
        ("another topic", SubscriptionSpec { topic: Some(other), ..kept.clone() }),
        ("another filter", SubscriptionSpec { filter: String::new(), ..kept.clone() }),
        ("another ordering", SubscriptionSpec { ordered: true, ..kept.clone() }),
        ("another tenant", SubscriptionSpec { tenant: Some(tenant("globex")), ..kept.clone() }),
    ];
    for (what, spec) in changed {
        refused(what, world.port().update_subscription(spec).await, Kind::InvalidArgument)?;
    }
    same("the settings", (*subscription.spec()).clone(), kept)
}

async fn a_deadline_counts_for_the_next_lease(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a", "b"]).await?;
    let before = world.take(&subscription, 1).await?;
    let unit = world.unit();
    world.update("billing", |spec| spec.ack_deadline = unit).await?;
    let after = world.take(&subscription, 1).await?;
    world.pass(unit).await;
    let again = world.take_for(&subscription, 1, Some(LONG)).await?;
    same("what comes again", again[0].message_id, after[0].message_id)?;
    world.nothing(&subscription, "the other lease is of before the change").await?;
    world.ack(&subscription, &before).await
}

async fn leases_go_on(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.update("billing", |spec| spec.retain_acked = true).await?;
    world.nothing(&subscription, "its lease goes on").await?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn retaining_counts_from_its_update_on(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.update("billing", |spec| spec.retain_acked = true).await?;
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    world.port().seek(&name("billing"), SeekTo::TimeMs(0)).await?;
    let again = world.expect(&subscription, &["a"]).await?;
    world.ack(&subscription, &again).await?;
    world.update("billing", |spec| spec.retain_acked = false).await?;
    world.port().seek(&name("billing"), SeekTo::TimeMs(0)).await?;
    world.nothing(&subscription, "what is acknowledged is not retained any more").await
}

async fn it_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let unit = world.unit();
    world.update("billing", |spec| spec.ack_deadline = unit).await?;
    let spec = subscription.spec();
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    same("the settings", subscription.spec(), spec)?;
    world.publish(&topic, &["a"]).await?;
    world.take(&subscription, 1).await?;
    world.pass(unit).await;
    world.take(&subscription, 1).await?;
    Ok(())
}

/// `changed` must resolve once this is done.
async fn noticed(world: &World, what: &str, change: impl Future<Output = Result<()>>) -> Result<()> {
    let subscription = world.subscription("billing")?;
    let changed = subscription.changed();
    change.await?;
    tokio::time::timeout(Duration::from_secs(30), changed)
        .await
        .with_context(|| format!("nobody was told of {what}"))
}

async fn it_is_noticed(world: &mut World) -> Result<()> {
    let (topic, _) = world.pair(|_| {}).await?;
    noticed(world, "an update", world.update("billing", |spec| spec.retain_acked = true)).await?;
    noticed(world, "the end of its topic", async { Ok(world.port().delete_topic(&topic).await?) }).await
}

async fn a_delete_and_a_detach_are_noticed(world: &mut World) -> Result<()> {
    world.pair(|_| {}).await?;
    noticed(world, "a detach", async { Ok(world.port().detach_subscription(&name("billing")).await?) })
        .await?;
    noticed(world, "a delete", async { Ok(world.port().delete_subscription(&name("billing")).await?) }).await
}

async fn nothing_else_is_noticed(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.subscribe("other", &topic, |_| {}).await?;
    let changed = subscription.changed();
    world.publish(&topic, &["a"]).await?;
    let received = world.take(&subscription, 1).await?;
    world.ack(&subscription, &received).await?;
    world.update("other", |spec| spec.retain_acked = true).await?;
    let early = tokio::time::timeout(Duration::from_millis(1), changed).await.is_ok();
    same("a change was told of", early, false)
}
