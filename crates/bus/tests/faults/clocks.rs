//! The wall clock is set forward and back by hours and days.
//!
//! Leases, retries and the idle time of nobody go by a clock that cannot jump. What a user means by
//! the time of day goes by the wall clock: the age of messages, schedules, the life of snapshots.

use levada_bus::port::{BusPort, DeadLetterPolicy, RetryPolicy, SeekTo};
use levada_core::{Clock, Message};

use super::beside_others;
use super::ground::Ground;
use super::world::{
    Clocks, DAY, HOUR, SECOND, acknowledge, bodies, drain, keyed, limits, message, name, nothing, open,
    refuse, sorted, take,
};

fn with(message: Message, attributes: &[(&str, &str)]) -> Message {
    Message { attributes: attributes.iter().copied().collect(), ..message }
}

/// A jump and what it is called.
type Jump = (&'static str, fn(&Clocks));

/// Hours and days, in both directions.
const JUMPS: [Jump; 5] = [
    ("an hour forward", |clocks| clocks.jump_forward(HOUR)),
    ("an hour back", |clocks| clocks.jump_back(HOUR)),
    ("two days forward", |clocks| clocks.jump_forward(2 * DAY)),
    ("two days back", |clocks| clocks.jump_back(2 * DAY)),
    ("back before the epoch", |clocks| clocks.jump_back(40_000 * DAY)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_retries_take_no_notice_of_a_jump() {
    let _turn = beside_others().await;
    for (what, jump) in JUMPS {
        let (ground, clocks) = (Ground::simulated(1), Clocks::new());
        let world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        let retry = RetryPolicy { minimum_backoff: 20 * SECOND, maximum_backoff: 20 * SECOND };
        let leased = world.subscribe("leased", &topic, |spec| spec.exactly_once = true).await;
        let failing = world.subscribe("failing", &topic, |spec| spec.retry = Some(retry)).await;
        world.publish(&topic, &["a"]).await.expect("published");
        let (lease, failed) = (take(&leased, 1).await, take(&failing, 1).await);
        refuse(&failing, &failed).await;

        jump(&clocks);
        world.maintain().await;
        clocks.pass(9 * SECOND);
        nothing(&leased, &format!("{what}: its lease of 10 s goes on")).await;
        acknowledge(&leased, &lease).await;
        clocks.pass(10 * SECOND);
        nothing(&failing, &format!("{what}: its backoff of 20 s goes on")).await;
        clocks.pass(SECOND);
        assert_eq!(bodies(&take(&failing, 1).await), ["a"], "{what}: the retry came when it was due");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_blocked_or_delivered_twice_by_a_jump_and_a_restart_behind_it() {
    let _turn = beside_others().await;
    for (what, jump) in JUMPS {
        let (ground, clocks) = (Ground::simulated(2), Clocks::new());
        let world = open(ground.disk(), &clocks).await;
        let (topic, dead) = (world.topic("orders").await, world.topic("dead").await);
        world.subscribe("graves", &dead, |_| {}).await;
        let policy = DeadLetterPolicy { topic: dead, max_delivery_attempts: 5 };
        let ordered = world
            .subscribe("ordered", &topic, |spec| {
                (spec.exactly_once, spec.ordered, spec.dead_letter) = (true, true, Some(policy));
            })
            .await;
        let texts: Vec<String> = (0..30).map(|n| format!("m-{n:02}")).collect();
        let of = |range: std::ops::Range<usize>| range.map(|n| keyed("key", &texts[n])).collect::<Vec<_>>();
        world.send(&topic, of(0..10)).await.expect("published");
        let first = take(&ordered, 1).await;
        acknowledge(&ordered, &first).await;
        jump(&clocks);
        world.maintain().await;
        world.send(&topic, of(10..20)).await.expect("published");
        for expected in &texts[1..15] {
            let next = take(&ordered, 1).await;
            assert_eq!(bodies(&next), [expected], "{what}");
            acknowledge(&ordered, &next).await;
        }
        drop(ordered);
        world.close().await;

        let world = open(ground.disk(), &clocks).await;
        world.maintain().await;
        world.send(&topic, of(20..30)).await.expect("published");
        let ordered = world.subscription("ordered");
        for expected in &texts[15..] {
            let next = take(&ordered, 1).await;
            assert_eq!(bodies(&next), [expected], "{what}, after a restart");
            acknowledge(&ordered, &next).await;
        }
        nothing(&ordered, what).await;
        nothing(&world.subscription("graves"), what).await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_two_days_deletes_nothing_that_is_kept_for_seven() {
    let _turn = beside_others().await;
    for ground in Ground::both() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        let subscription = world.subscribe("billing", &topic, |_| {}).await;
        let brief = world.subscribe("brief", &topic, |spec| spec.retention = DAY).await;
        let texts: Vec<String> = (0..200).map(|n| format!("m-{n:03} {}", "x".repeat(500))).collect();
        assert_eq!(world.publish_each(&topic, &texts).await.len(), 200);
        clocks.jump_forward(2 * DAY);
        for _ in 0..3 {
            world.maintain().await;
        }
        nothing(&brief, "by the clock the messages are older than the day that it keeps them").await;
        world.publish(&topic, &["new"]).await.expect("published");
        assert_eq!(bodies(&drain(&brief).await), ["new"], "{kind}");
        drop((subscription, brief));
        world.close().await;

        // A restart keeps to it, and so does the clock when it is set right again.
        let world = open(ground.disk(), &clocks).await;
        world.maintain().await;
        clocks.jump_back(2 * DAY);
        world.maintain().await;
        let found = drain(&world.subscription("billing")).await;
        assert_eq!(found.len(), 201, "{kind}: nothing is gone that has its seven days");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_published_while_the_clock_was_behind_age_by_what_it_said() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(3), Clocks::new());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    let subscription = world.subscribe("billing", &topic, |_| {}).await;
    world.publish(&topic, &["right"]).await.expect("published");
    clocks.jump_back(6 * DAY);
    world.publish(&topic, &["behind"]).await.expect("published");
    clocks.jump_forward(6 * DAY);
    world.publish(&topic, &["right again"]).await.expect("published");
    world.maintain().await;
    assert_eq!(sorted(&take(&subscription, 3).await), ["behind", "right", "right again"]);
    // A day and a half on the odd one is past its seven days by its own time. What was published
    // before it is not, and with it the odd one stays: never too early, at most too late.
    clocks.pass(DAY + DAY / 2);
    world.maintain().await;
    assert_eq!(sorted(&take(&subscription, 3).await), ["behind", "right", "right again"]);
    clocks.pass(6 * DAY);
    world.maintain().await;
    nothing(&subscription, "all are older than seven days").await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_follow_the_time_of_day() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(4), Clocks::new());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    let subscription = world.subscribe("billing", &topic, |spec| spec.ack_deadline = 600 * SECOND).await;
    let tomorrow = clocks.now_ms() + 86_400_000;
    let at = rfc3339(tomorrow);
    let scheduled = vec![
        with(message("acme", "tomorrow"), &[("levada.deliver_at", &at)]),
        with(message("acme", "in an hour"), &[("levada.delay_ms", "3600000")]),
        message("acme", "now"),
    ];
    world.send(&topic, scheduled).await.expect("published");
    assert_eq!(bodies(&drain(&subscription).await), ["now"]);
    clocks.jump_back(2 * HOUR);
    clocks.pass(2 * HOUR);
    nothing(&subscription, "by the time of day it is as early as before").await;
    world.publish(&topic, &["unscheduled"]).await.expect("published");
    assert_eq!(bodies(&drain(&subscription).await), ["unscheduled"], "what waits stops nothing else");
    clocks.pass(HOUR);
    assert_eq!(bodies(&drain(&subscription).await), ["in an hour"]);
    clocks.jump_forward(DAY);
    assert_eq!(bodies(&take(&subscription, 1).await), ["tomorrow"]);
    world.close().await;
}

fn rfc3339(at_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(at_ms).expect("a time").to_rfc3339()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_not_idle_because_the_clock_was_set_forward() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(5), Clocks::new());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    // Messages are kept 31 days, the subscription goes after 31 days without use.
    let subscription = world.subscribe("billing", &topic, |spec| spec.retention = 31 * DAY).await;
    world.publish(&topic, &["a"]).await.expect("published");
    take(&subscription, 1).await;
    clocks.jump_forward(32 * DAY);
    world.maintain().await;
    world.port.subscription(&name("billing")).expect("it was used a moment ago");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_to_a_time_is_by_the_times_that_messages_have() {
    let _turn = beside_others().await;
    let (ground, clocks) = (Ground::simulated(6), Clocks::new());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    let subscription = world.subscribe("billing", &topic, |spec| spec.retain_acked = true).await;
    world.publish(&topic, &["one"]).await.expect("published");
    let between_ms = clocks.now_ms() + 1;
    clocks.pass(HOUR);
    world.publish(&topic, &["two"]).await.expect("published");
    clocks.jump_back(DAY);
    world.publish(&topic, &["three"]).await.expect("published");
    drain(&subscription).await;
    let seek = || world.port.seek(&name("billing"), SeekTo::TimeMs(between_ms));
    seek().await.expect("seeks");
    // The time is still to come: messages that say an earlier one are acknowledged.
    assert_eq!(bodies(&subscription.pull(limits(10)).await.expect("pulls")), ["two"]);
    clocks.jump_forward(DAY);
    seek().await.expect("seeks");
    // The time is past: from the first message that says it everything comes, so that none is missing.
    assert_eq!(sorted(&subscription.pull(limits(10)).await.expect("pulls")), ["three", "two"]);
    world.close().await;
}
