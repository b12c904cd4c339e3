//! Names: what is there, what is not, and lists in pages.

use std::time::Duration;

use anyhow::{Result, ensure};
use levada_bus::port::{Page, PageRequest, PushConfig, SeekTo, SubscriptionSpec, TopicSpec};
use levada_core::ResourceName;

use super::super::check::{Kind, refused, same};
use super::super::world::{World, message, name, name_in, project, publication};

super::cases! {
    "catalog":
    a_topic_reads_back_as_it_was_made,
    a_topic_name_is_taken_once,
    a_topic_that_is_not_there_is_not_found,
    a_subscription_reads_back_as_it_was_made,
    a_subscription_name_is_taken_once_and_needs_a_topic,
    a_subscription_that_is_not_there_is_not_found,
    topics_come_in_pages_of_one_project,
    subscriptions_and_snapshots_come_in_pages,
    subscriptions_of_a_topic_are_its_own,
    subscriptions_that_push_are_known,
    all_of_it_outlives_a_restart [Restart],
}

const HOUR: Duration = Duration::from_secs(3600);

async fn a_topic_reads_back_as_it_was_made(world: &mut World) -> Result<()> {
    let mut spec = TopicSpec::new(name("orders"));
    spec.labels.insert("team".to_owned(), "billing".to_owned());
    spec.retention = Some(24 * HOUR);
    spec.kms_key_name = "projects/p/locations/l/keyRings/r/cryptoKeys/k".to_owned();
    spec.allowed_persistence_regions = vec!["europe-west1".to_owned()];
    same("the answer of making a topic", world.port().create_topic(spec.clone()).await?, spec.clone())?;
    same("the topic", world.port().topic(&spec.name)?, spec.clone())?;
    spec.labels.clear();
    spec.retention = None;
    same("the answer of changing it", world.port().update_topic(spec.clone()).await?, spec.clone())?;
    same("the changed topic", world.port().topic(&spec.name)?, spec)
}

async fn a_topic_name_is_taken_once(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let again = world.port().create_topic(TopicSpec::new(topic.clone())).await;
    refused("a topic of a taken name", again, Kind::AlreadyExists("topic"))?;
    world.port().create_topic(TopicSpec::new(name_in("globex", "orders"))).await?;
    world.port().delete_topic(&topic).await?;
    world.topic("orders").await?;
    Ok(())
}

async fn a_topic_that_is_not_there_is_not_found(world: &mut World) -> Result<()> {
    let (port, none, missing) = (world.port(), name("none"), Kind::NotFound("topic"));
    refused("a topic", port.topic(&none), missing)?;
    refused("an update", port.update_topic(TopicSpec::new(none.clone())).await, missing)?;
    refused("a delete", port.delete_topic(&none).await, missing)?;
    refused("a publish", port.publish(&none, vec![publication(message("a"))]).await, missing)?;
    refused("its subscriptions", port.topic_subscriptions(&none, &PageRequest::default()), missing)?;
    refused("its snapshots", port.topic_snapshots(&none, &PageRequest::default()), missing)?;
    let topic = world.topic("orders").await?;
    port.delete_topic(&topic).await?;
    refused("a second delete", port.delete_topic(&topic).await, missing)
}

async fn a_subscription_reads_back_as_it_was_made(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let mut spec = SubscriptionSpec::new(name("billing"), topic);
    spec.labels.insert("team".to_owned(), "billing".to_owned());
    spec.ack_deadline = Duration::from_secs(33);
    spec.retain_acked = true;
    spec.retention = HOUR;
    spec.ordered = true;
    spec.exactly_once = true;
    spec.filter = "attributes:kind".to_owned();
    spec.expires_after = Some(48 * HOUR);
    same("the answer", world.port().create_subscription(spec.clone()).await?, spec.clone())?;
    same("the subscription", (*world.subscription("billing")?.spec()).clone(), spec)
}

async fn a_subscription_name_is_taken_once_and_needs_a_topic(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let spec = SubscriptionSpec::new(name("billing"), topic);
    world.port().create_subscription(spec.clone()).await?;
    let again = world.port().create_subscription(spec.clone()).await;
    refused("a subscription of a taken name", again, Kind::AlreadyExists("subscription"))?;
    let of_none = SubscriptionSpec::new(name("other"), name("none"));
    let of_none = world.port().create_subscription(of_none).await;
    refused("a subscription of a topic that is not there", of_none, Kind::NotFound("topic"))?;
    let without = SubscriptionSpec { name: name("other"), topic: None, ..spec };
    refused(
        "a subscription without a topic",
        world.port().create_subscription(without).await,
        Kind::InvalidArgument,
    )?;
    refused(
        "what was refused",
        world.port().subscription(&name("other")).map(drop),
        Kind::NotFound("subscription"),
    )
}

async fn a_subscription_that_is_not_there_is_not_found(world: &mut World) -> Result<()> {
    let (port, none, missing) = (world.port(), name("none"), Kind::NotFound("subscription"));
    let topic = world.topic("orders").await?;
    refused("a subscription", port.subscription(&none).map(drop), missing)?;
    let spec = SubscriptionSpec::new(none.clone(), topic);
    refused("an update", port.update_subscription(spec).await, missing)?;
    refused("a detach", port.detach_subscription(&none).await, missing)?;
    refused("a delete", port.delete_subscription(&none).await, missing)?;
    refused("a seek", port.seek(&none, SeekTo::TimeMs(0)).await, missing)?;
    let snapshot = port.create_snapshot(name("then"), &none, Default::default()).await;
    refused("a snapshot", snapshot, missing)
}

/// Walks a list in pages of two; each has its size, and only the last has no next.
async fn walk<T>(
    world: &World,
    total: usize,
    list: impl Fn(&World, &PageRequest) -> Result<Page<T>>,
) -> Result<Vec<T>> {
    let (mut found, mut request) = (Vec::new(), PageRequest { size: 2, after: None });
    loop {
        let page = list(world, &request)?;
        found.extend(page.items);
        ensure!(found.len() <= total, "a list of {total} goes on after {}", found.len());
        match page.next {
            Some(next) => {
                same("the items so far of a list that goes on, modulo the page", found.len() % 2, 0)?;
                request.after = Some(next);
            }
            None => break,
        }
    }
    same("the items of all pages", found.len(), total)?;
    let whole = list(world, &PageRequest::default())?;
    same("the items of a page without size", whole.items.len(), total)?;
    same("what follows the only page", whole.next, None)?;
    Ok(found)
}

async fn topics_come_in_pages_of_one_project(world: &mut World) -> Result<()> {
    for id in ["topic-e", "topic-a", "topic-c", "topic-b", "topic-f", "topic-d"] {
        world.topic(id).await?;
        world.port().create_topic(TopicSpec::new(name_in("globex", id))).await?;
    }
    let of = project("acme");
    let found = walk(world, 6, |world, request| Ok(world.port().topics(&of, request))).await?;
    let found: Vec<ResourceName> = found.into_iter().map(|topic| topic.name).collect();
    let wanted = ["topic-a", "topic-b", "topic-c", "topic-d", "topic-e", "topic-f"].map(name);
    same("the topics in the order of their names", found, wanted.to_vec())?;
    let none = world.port().topics(&project("nobody"), &PageRequest::default());
    same("the topics of a project without any", none.items.len(), 0)
}

async fn subscriptions_and_snapshots_come_in_pages(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    for id in ["sub-c", "sub-a", "sub-e", "sub-b", "sub-d"] {
        world.subscribe(id, &topic, |_| {}).await?;
        world.port().create_snapshot(name(id), &name(id), Default::default()).await?;
        let other = SubscriptionSpec::new(name_in("globex", id), topic.clone());
        world.port().create_subscription(other).await?;
    }
    let wanted = ["sub-a", "sub-b", "sub-c", "sub-d", "sub-e"].map(name).to_vec();
    let of = project("acme");
    let found = walk(world, 5, |world, request| Ok(world.port().subscriptions(&of, request))).await?;
    same("the subscriptions", found.into_iter().map(|s| s.name).collect(), wanted.clone())?;
    let found = walk(world, 5, |world, request| Ok(world.port().snapshots(&of, request))).await?;
    same("the snapshots", found.into_iter().map(|s| s.name).collect(), wanted.clone())?;
    let of_topic = topic.clone();
    let snapshots =
        move |world: &World, request: &PageRequest| Ok(world.port().topic_snapshots(&of_topic, request)?);
    same("the snapshots of the topic", walk(world, 5, snapshots).await?, wanted)?;
    let subscriptions =
        move |world: &World, request: &PageRequest| Ok(world.port().topic_subscriptions(&topic, request)?);
    same("the subscriptions of the topic", walk(world, 10, subscriptions).await?.len(), 10)
}

async fn subscriptions_of_a_topic_are_its_own(world: &mut World) -> Result<()> {
    let (orders, bills) = (world.topic("orders").await?, world.topic("bills").await?);
    world.subscribe("of-orders", &orders, |_| {}).await?;
    world.subscribe("of-bills", &bills, |_| {}).await?;
    world.port().create_snapshot(name("then"), &name("of-bills"), Default::default()).await?;
    let all = PageRequest::default();
    let port = world.port();
    same("of orders", port.topic_subscriptions(&orders, &all)?.items, vec![name("of-orders")])?;
    same("snapshots of orders", port.topic_snapshots(&orders, &all)?.items, Vec::new())?;
    same("snapshots of bills", port.topic_snapshots(&bills, &all)?.items, vec![name("then")])?;
    port.delete_subscription(&name("of-orders")).await?;
    same("of orders after a delete", port.topic_subscriptions(&orders, &all)?.items, Vec::new())
}

async fn subscriptions_that_push_are_known(world: &mut World) -> Result<()> {
    let topic = world.topic("orders").await?;
    let push = PushConfig { endpoint: "https://example.com/push".to_owned(), ..PushConfig::default() };
    world.subscribe("pushing", &topic, |spec| spec.push = Some(push)).await?;
    world.subscribe("pulling", &topic, |_| {}).await?;
    same("those that push", world.port().push_subscriptions(), vec![name("pushing")])?;
    world.update("pushing", |spec| spec.push = None).await?;
    same("those that push after an update", world.port().push_subscriptions(), Vec::new())
}

async fn all_of_it_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.filter = "attributes:kind".to_owned()).await?;
    world.topic("deleted").await?;
    world.port().delete_topic(&name("deleted")).await?;
    world.update("billing", |spec| spec.ack_deadline = Duration::from_secs(44)).await?;
    world.port().create_snapshot(name("then"), &name("billing"), Default::default()).await?;
    let wanted = (world.port().topic(&topic)?, subscription.spec(), world.port().snapshot(&name("then"))?);
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    let found = (world.port().topic(&topic)?, subscription.spec(), world.port().snapshot(&name("then"))?);
    same("what is there after the restart", found, wanted)?;
    refused("the deleted topic", world.port().topic(&name("deleted")), Kind::NotFound("topic"))
}
