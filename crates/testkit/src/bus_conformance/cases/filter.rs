//! Filters and subscriptions of one tenant: what does not match counts as acknowledged.

use anyhow::Result;
use levada_bus::port::{SeekTo, SubscriptionSpec};

use super::super::check::{Kind, refused, same};
use super::super::world::{World, message, name, owned, tenant, with};

super::cases! {
    "filter":
    only_what_matches_comes,
    what_does_not_match_counts_as_acknowledged,
    what_does_not_match_does_not_come_back_with_a_seek,
    a_filter_that_cannot_be_read_is_refused,
    a_filter_has_at_most_256_bytes,
    a_filter_outlives_a_restart [Restart],
    a_tenants_subscription_gets_its_messages_only,
    a_tenants_subscription_may_filter_too,
    a_tenants_snapshot_stays_its_own,
}

async fn only_what_matches_comes(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let filters = [
        ("all", "", &["1", "2", "3", "4"][..]),
        ("has", "attributes:kind", &["1", "2", "3"]),
        ("has-not", "NOT attributes:kind", &["4"]),
        ("minus", "-attributes:kind", &["4"]),
        ("equal", r#"attributes.kind = "order""#, &["1"]),
        ("unequal", r#"attributes.kind != "order""#, &["2", "3", "4"]),
        ("prefix", r#"hasPrefix(attributes.kind, "order")"#, &["1", "2"]),
        ("and", r#"attributes:kind AND attributes.eu = "1""#, &["2"]),
        ("or", r#"attributes.kind = "bill" OR attributes.eu = "1""#, &["2", "3"]),
        ("both", r#"attributes:kind AND (attributes:eu OR attributes.kind = "bill")"#, &["2", "3"]),
        ("quoted", r#"attributes."kind" = "bill""#, &["3"]),
    ];
    let mut subscriptions = Vec::new();
    for (id, filter, _) in filters {
        let id = format!("sub-{id}");
        subscriptions.push(world.subscribe(&id, &topic, |spec| spec.filter = filter.to_owned()).await?);
    }
    let messages = vec![
        with(message("1"), &[("kind", "order")]),
        with(message("2"), &[("kind", "order.eu"), ("eu", "1")]),
        with(message("3"), &[("kind", "bill")]),
        message("4"),
    ];
    world.send(&topic, messages).await?;
    for (subscription, (_, filter, wanted)) in subscriptions.iter().zip(filters) {
        let came = world.expect(subscription, wanted).await;
        came.map_err(|error| error.context(format!("the filter {filter}")))?;
        world.nothing(subscription, &format!("the filter {filter} does not match")).await?;
    }
    Ok(())
}

async fn what_does_not_match_counts_as_acknowledged(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.filter = "attributes:kind".to_owned()).await?;
    let mut messages: Vec<_> = (0..50).map(|n| message(&format!("m{n}"))).collect();
    messages.insert(25, with(message("wanted"), &[("kind", "x")]));
    world.send(&topic, messages).await?;
    let received = world.expect(&subscription, &["wanted"]).await?;
    world.ack(&subscription, &received).await?;
    world.nothing(&subscription, "nothing else matches").await?;
    world.settled(&subscription)
}

async fn what_does_not_match_does_not_come_back_with_a_seek(world: &mut World) -> Result<()> {
    let (topic, subscription) = world
        .pair(|spec| {
            spec.filter = "attributes:kind".to_owned();
            spec.retain_acked = true;
        })
        .await?;
    world.send(&topic, vec![message("other"), with(message("wanted"), &[("kind", "x")])]).await?;
    let received = world.expect(&subscription, &["wanted"]).await?;
    world.ack(&subscription, &received).await?;
    world.port().seek(&name("billing"), SeekTo::TimeMs(0)).await?;
    world.expect(&subscription, &["wanted"]).await?;
    world.nothing(&subscription, "nothing else matches").await
}

async fn a_filter_that_cannot_be_read_is_refused(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    for filter in [
        "kind = \"x\"",
        "attributes.kind = x",
        "attributes:a AND attributes:b OR attributes:c",
        "(attributes:a",
        "attributes.kind > \"1\"",
        "not attributes:a",
    ] {
        let mut spec = SubscriptionSpec::new(name("billing"), topic.clone());
        spec.filter = filter.to_owned();
        refused(filter, world.port().create_subscription(spec).await, Kind::InvalidArgument)?;
    }
    let made = world.port().subscription(&name("billing")).map(drop);
    refused("what was refused", made, Kind::NotFound("subscription"))
}

async fn a_filter_has_at_most_256_bytes(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    for (length, fits) in [(256, true), (257, false)] {
        let mut spec = SubscriptionSpec::new(name(&format!("sub-{length}")), topic.clone());
        spec.filter = format!("attributes:{}", "k".repeat(length - "attributes:".len()));
        let made = world.port().create_subscription(spec).await;
        if fits {
            made?;
        } else {
            refused("a filter of 257 bytes", made, Kind::InvalidArgument)?;
        }
    }
    Ok(())
}

async fn a_filter_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.filter = "attributes:kind".to_owned()).await?;
    drop(subscription);
    world.send(&topic, vec![message("other"), with(message("before"), &[("kind", "x")])]).await?;
    world.restart().await?;
    world.send(&topic, vec![message("another"), with(message("after"), &[("kind", "x")])]).await?;
    let subscription = world.subscription("billing")?;
    let received = world.expect(&subscription, &["before", "after"]).await?;
    world.ack(&subscription, &received).await?;
    world.nothing(&subscription, "nothing else matches").await?;
    world.settled(&subscription)
}

async fn a_tenants_subscription_gets_its_messages_only(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let own = world
        .subscribe("own", &topic, |spec| {
            spec.tenant = Some(tenant("globex"));
            spec.retain_acked = true;
        })
        .await?;
    // An attribute is not what makes a message another tenant's.
    let posing = with(message("posing"), &[("tenant_id", "globex")]);
    world.send(&topic, vec![message("other"), owned("globex", "own"), posing]).await?;
    let received = world.expect(&own, &["own"]).await?;
    world.ack(&own, &received).await?;
    world.nothing(&own, "the rest is another tenant's").await?;
    world.settled(&own)?;
    world.port().seek(&name("own"), SeekTo::TimeMs(0)).await?;
    world.expect(&own, &["own"]).await?;
    world.nothing(&own, "the rest is another tenant's after a seek, too").await
}

async fn a_tenants_subscription_may_filter_too(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let own = world
        .subscribe("own", &topic, |spec| {
            spec.tenant = Some(tenant("globex"));
            spec.filter = "attributes:kind".to_owned();
        })
        .await?;
    let kind = |message| with(message, &[("kind", "x")]);
    let messages = vec![kind(message("1")), owned("globex", "2"), kind(owned("globex", "3"))];
    world.send(&topic, messages).await?;
    world.expect(&own, &["3"]).await?;
    world.nothing(&own, "the rest does not match").await
}

async fn a_tenants_snapshot_stays_its_own(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let own = world.subscribe("own", &topic, |spec| spec.tenant = Some(tenant("globex"))).await?;
    world.send(&topic, vec![message("other"), owned("globex", "own")]).await?;
    let snapshot = world.port().create_snapshot(name("then"), &name("own"), Default::default()).await?;
    same("the tenant of the snapshot", snapshot.tenant, Some(tenant("globex")))?;
    let received = world.expect(&own, &["own"]).await?;
    world.ack(&own, &received).await?;
    world.port().seek(&name("own"), SeekTo::Snapshot(name("then"))).await?;
    world.expect(&own, &["own"]).await?;
    world.nothing(&own, "the rest is another tenant's").await
}
