//! Fairness among tenants inside one subscription.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use levada_core::{Message, ResourceName, TenantId};

use super::super::check::same;
use super::super::world::{Subscription, World, body, limits, owned, tenant};

super::cases! {
    "fair":
    a_message_comes_soon_behind_anothers_backlog [Tenants],
    tenants_share_equally [Tenants],
    tenants_share_by_their_weights [Tenants],
    weights_change [Tenants],
    weights_outlive_a_restart [Tenants, Restart],
    a_tenant_that_acknowledges_nothing_holds_up_no_other [Tenants],
    figures_are_by_tenant [Tenants, Stats],
}

/// Publishes so many messages of a tenant with about 1 KiB each.
async fn backlog(world: &World, topic: &ResourceName, owner: &str, count: usize) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let some = left.min(200);
        let messages: Vec<Message> = (0..some).map(|n| owned(owner, &format!("{owner} {n:01000}"))).collect();
        world.send(topic, messages).await?;
        left -= some;
    }
    Ok(())
}

/// How many of the next messages are whose.
async fn shares(world: &World, subscription: &Subscription, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut shares = BTreeMap::new();
    for _ in 0..count / 100 {
        let received = world.take(subscription, 100).await?;
        for received in &received {
            *shares.entry(received.message.tenant.as_str().to_owned()).or_default() += 1;
        }
        world.ack(subscription, &received).await?;
    }
    Ok(shares)
}

/// Of the next messages of both, `acme` must have about this many times as many.
async fn ratio(world: &World, subscription: &Subscription, wanted: f64) -> Result<()> {
    let shares = shares(world, subscription, 1_600).await?;
    let of = |owner: &str| shares.get(owner).copied().unwrap_or(0) as f64;
    let found = of("acme") / of("globex").max(1.0);
    ensure!(
        (wanted * 0.7..wanted * 1.4).contains(&found),
        "shares of {shares:?}: {found:.2} to 1, not about {wanted} to 1"
    );
    Ok(())
}

fn weight(of_acme: u32) -> BTreeMap<TenantId, u32> {
    BTreeMap::from([(tenant("acme"), of_acme)])
}

async fn a_message_comes_soon_behind_anothers_backlog(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    for _ in 0..20 {
        world.send(&topic, (0..1_000).map(|n| owned("acme", &format!("m{n}"))).collect()).await?;
    }
    // The backlog is being delivered when the other comes.
    let received = world.take(&subscription, 10).await?;
    world.ack(&subscription, &received).await?;
    world.send(&topic, vec![owned("globex", "small")]).await?;
    let mut before = 0;
    for _ in 0..20 {
        let pulled = subscription.pull(limits(100)).await?;
        if let Some(place) = pulled.iter().position(|r| body(r) == "small") {
            before += place;
            ensure!(before <= 1_500, "it came behind {before} messages of the other");
            return Ok(());
        }
        before += pulled.len();
        world.ack(&subscription, &pulled).await?;
    }
    anyhow::bail!("it did not come within the next {before} messages of the other")
}

async fn tenants_share_equally(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    backlog(world, &topic, "acme", 2_000).await?;
    backlog(world, &topic, "globex", 1_000).await?;
    ratio(world, &subscription, 1.0).await
}

async fn tenants_share_by_their_weights(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.weights = weight(3)).await?;
    backlog(world, &topic, "globex", 1_500).await?;
    backlog(world, &topic, "acme", 1_500).await?;
    ratio(world, &subscription, 3.0).await
}

async fn weights_change(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    backlog(world, &topic, "globex", 1_500).await?;
    backlog(world, &topic, "acme", 1_500).await?;
    world.update("billing", |spec| spec.weights = weight(4)).await?;
    ratio(world, &subscription, 4.0).await
}

async fn weights_outlive_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.weights = weight(3)).await?;
    backlog(world, &topic, "globex", 1_500).await?;
    backlog(world, &topic, "acme", 1_500).await?;
    drop(subscription);
    world.restart().await?;
    ratio(world, &world.subscription("billing")?, 3.0).await
}

async fn a_tenant_that_acknowledges_nothing_holds_up_no_other(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    for _ in 0..3 {
        world.send(&topic, (0..1_000).map(|n| owned("acme", &format!("m{n}"))).collect()).await?;
        world.take(&subscription, 1_000).await?;
    }
    world.nothing(&subscription, "all are on lease").await?;
    world.send(&topic, vec![owned("globex", "small")]).await?;
    world.expect(&subscription, &["small"]).await?;
    Ok(())
}

async fn figures_are_by_tenant(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![owned("acme", "a1"), owned("acme", "a2"), owned("globex", "g1")]).await?;
    let received = world.take(&subscription, 3).await?;
    let of_acme: Vec<_> = received.into_iter().filter(|r| r.message.tenant == tenant("acme")).collect();
    world.ack(&subscription, &of_acme[..1]).await?;
    let stats = subscription.stats();
    for (owner, backlog, delivered) in [("acme", 1, 2), ("globex", 1, 1)] {
        let figures =
            stats.by_tenant.get(&tenant(owner)).with_context(|| format!("no figures of {owner}"))?;
        same(
            &format!("backlog and deliveries of {owner}"),
            (figures.backlog_messages, figures.delivered),
            (backlog, delivered),
        )?;
        ensure!(figures.delivered_bytes >= 2 * figures.delivered, "bytes delivered to {owner}: {figures:?}");
    }
    Ok(())
}
