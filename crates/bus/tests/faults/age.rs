//! What goes by its age, and what must not: a disk that cannot be read, an upkeep that comes too
//! early, and topics that several share.

use levada_bus::port::{BusPort, PortError, SeekTo, SubscriptionSpec, TopicSpec};
use levada_bus::{Bus, Retention, TopicConfig};
use levada_core::{Clock, TopicName};

use super::beside_others;
use super::ground::Ground;
use super::world::{
    Clocks, DAY, HOUR, World, acknowledge, bodies, drain, name, nothing, open, small_files, take,
};

/// Messages that fill several segments.
fn texts(of: &str) -> Vec<String> {
    (0..120).map(|n| format!("{of}-{n:03} {}", "x".repeat(600))).collect()
}

fn kept_for(days: u32) -> impl FnOnce(&mut SubscriptionSpec) {
    move |spec| (spec.retention, spec.expires_after) = (days * DAY, None)
}

/// Upkeep deletes whole segments that a checkpoint has seen: a few rounds see to all that may go.
async fn upkeep(world: World, ground: &Ground, clocks: &std::sync::Arc<Clocks>) -> World {
    world.maintain().await;
    world.close().await;
    let world = open(ground.disk(), clocks).await;
    world.maintain().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_aged_out_and_no_seek_acknowledges_while_the_disk_cannot_be_read() {
    let _turn = beside_others().await;
    for ground in Ground::both() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        world.subscribe("billing", &topic, |_| {}).await;
        let texts = texts("m");
        assert_eq!(world.publish_each(&topic, &texts).await.len(), texts.len());
        world.close().await;

        // Indexes are read when they are needed: none is in memory yet.
        let world = open(ground.disk(), &clocks).await;
        clocks.pass(HOUR);
        ground.set(|s| &s.reads_fail, true);
        for _ in 0..3 {
            drop(world.bus.maintain().await);
        }
        let to = SeekTo::TimeMs(clocks.now_ms());
        let error = world.port.seek(&name("billing"), to).await.expect_err("it cannot know what that means");
        assert!(matches!(error, PortError::Unavailable(_)), "{kind}: {error:?}");
        ground.set(|s| &s.reads_fail, false);
        assert_eq!(drain(&world.subscription("billing")).await.len(), texts.len(), "{kind}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upkeep_before_the_port_is_open_deletes_nothing_that_a_subscription_needs() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(1), Clocks::new());
    let world = open(ground.disk(), &clocks).await;
    let ticks = TopicName::new("ticks").expect("a topic");
    world.bus.ensure_topic(&ticks, TopicConfig::default()).expect("a topic");
    let (made, configured) = (world.topic("orders").await, "home/ticks".parse().expect("a name"));
    world.subscribe("of-made", &made, kept_for(31)).await;
    world.subscribe("of-configured", &configured, kept_for(31)).await;
    let texts = texts("m");
    world.publish_each(&made, &texts).await;
    world.publish_each(&configured, &texts).await;
    world.close().await;

    // Beyond the seven days of a topic of which nothing else is known.
    clocks.pass(10 * DAY);
    for _ in 0..3 {
        let (disk, time) = (ground.disk(), clocks.clone());
        let opened = tokio::task::spawn_blocking(move || Bus::open(disk, small_files(), time));
        let (bus, _) = opened.await.expect("no panic").expect("opens");
        bus.ensure_topic(&ticks, TopicConfig::default()).expect("a topic");
        bus.maintain().await.expect("the upkeep works");
        bus.close().await.expect("closes");
    }
    let world = open(ground.disk(), &clocks).await;
    for id in ["of-made", "of-configured"] {
        assert_eq!(drain(&world.subscription(id)).await.len(), texts.len(), "{id}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_several_subscriptions_keeps_what_the_longest_of_them_needs() {
    let _turn = beside_others().await;
    for ground in Ground::both() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let mut world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        for (id, days) in [("brief", 1), ("middle", 5), ("long", 20)] {
            world.subscribe(id, &topic, kept_for(days)).await;
        }
        let (old, new) = (texts("old"), texts("new"));
        world.publish_each(&topic, &old).await;
        clocks.pass(3 * DAY);
        world.publish_each(&topic, &new).await;
        world = upkeep(world, &ground, &clocks).await;
        assert_eq!(drain(&world.subscription("brief")).await.len(), new.len(), "{kind}: a day");
        clocks.pass(3 * DAY);
        world = upkeep(world, &ground, &clocks).await;
        assert_eq!(drain(&world.subscription("middle")).await.len(), new.len(), "{kind}: five days");
        let first = take(&world.subscription("long"), 1).await;
        assert_eq!(bodies(&first), [&old[0]], "{kind}: twenty days");
        acknowledge(&world.subscription("long"), &first).await;

        // Without the longest the next one decides, on the disk too.
        let before = ground.segments().len();
        world.port.delete_subscription(&name("long")).await.expect("deleted");
        world = upkeep(world, &ground, &clocks).await;
        let after = ground.segments().len();
        assert!(after < before, "{kind}: {before} segments before, {after} after");
        // And one that is made now does not bring back what is gone, nor miss what comes.
        let late = world.subscribe("late", &topic, kept_for(31)).await;
        nothing(&late, "it begins now").await;
        clocks.pass(10 * DAY);
        world.publish(&topic, &["last"]).await.expect("published");
        world = upkeep(world, &ground, &clocks).await;
        assert_eq!(bodies(&drain(&world.subscription("late")).await), ["last"], "{kind}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_the_folder_keeps_what_its_pipelines_or_its_subscriptions_need() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(2), Clocks::new());
    let ticks = TopicName::new("ticks").expect("a topic");
    // What the pipelines of the folder ask for, two days; said at each start.
    let pipelines = |world: &World| {
        let retention = Some(Retention { max_age: Some(2 * DAY), max_bytes: None });
        world.bus.ensure_topic(&ticks, TopicConfig { retention }).expect("a topic");
    };
    let mut world = open(ground.disk(), &clocks).await;
    pipelines(&world);
    let topic = "home/ticks".parse().expect("a name");
    world.subscribe("longer", &topic, kept_for(8)).await;
    world.subscribe("shorter", &topic, kept_for(1)).await;
    let texts = texts("m");
    world.publish_each(&topic, &texts).await;
    let first = |world: &World| world.bus.bounds(&ticks).expect("a topic").first;
    for (days, what) in [(1, "pipelines and one subscription need it"), (5, "one subscription needs it")] {
        clocks.pass(days * DAY);
        world = upkeep(world, &ground, &clocks).await;
        pipelines(&world);
        world.maintain().await;
        assert_eq!(first(&world), 0, "after {days} days more {what}");
    }
    nothing(&world.subscription("shorter"), "it keeps messages for a day").await;
    assert_eq!(take(&world.subscription("longer"), texts.len()).await.len(), texts.len());
    clocks.pass(3 * DAY);
    world = upkeep(world, &ground, &clocks).await;
    assert!(first(&world) > 0, "nobody needs it any more");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retention_of_the_topic_itself_counts_beside_its_subscriptions() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(3), Clocks::new());
    let mut world = open(ground.disk(), &clocks).await;
    let topic = name("orders");
    let spec = TopicSpec { retention: Some(10 * DAY), ..TopicSpec::new(topic.clone()) };
    world.port.create_topic(spec).await.expect("a topic");
    world.subscribe("brief", &topic, kept_for(1)).await;
    let texts = texts("m");
    let began_ms = clocks.now_ms();
    world.publish_each(&topic, &texts).await;
    drain(&world.subscription("brief")).await;
    clocks.pass(8 * DAY);
    world = upkeep(world, &ground, &clocks).await;
    world.port.seek(&name("brief"), SeekTo::TimeMs(began_ms)).await.expect("seeks");
    assert_eq!(drain(&world.subscription("brief")).await.len(), texts.len(), "the topic kept them");
    clocks.pass(3 * DAY);
    world = upkeep(world, &ground, &clocks).await;
    world.port.seek(&name("brief"), SeekTo::TimeMs(began_ms)).await.expect("seeks");
    let left = drain(&world.subscription("brief")).await.len();
    assert!(left < texts.len() / 2, "they are past the ten days: {left} of {} came", texts.len());
    world.close().await;
}
