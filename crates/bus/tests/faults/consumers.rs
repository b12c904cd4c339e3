//! Consumers that are slow, that stop, and that never acknowledge, beside others.

use std::sync::Arc;
use std::time::Duration;

use levada_bus::BusConfig;
use levada_bus::port::PullLimits;
use tokio::time::Instant;

use super::ground::Ground;
use super::world::{
    Clocks, Subscription, World, acknowledge, counted, limits, long_leases, message, name, open_with,
    resident_mib, take,
};
use super::{alone, beside_others};

/// Publishes so many messages of so many bytes, a thousand a request.
pub async fn fill(world: &World, from: usize, to: usize, body_bytes: usize) {
    for part in (from..to).collect::<Vec<_>>().chunks(1_000) {
        let filler = "x".repeat(body_bytes.saturating_sub(9));
        let messages = part.iter().map(|n| message("acme", &format!("{n:08} {filler}"))).collect();
        world.send(&name("orders"), messages).await.expect("published");
    }
}

/// Takes and acknowledges so many, as fast as they come; how long that took.
async fn consume(subscription: &Subscription, count: usize) -> Duration {
    let began = Instant::now();
    let mut got = 0;
    while got < count {
        let wait = Duration::from_secs(60);
        let received = subscription.pull(PullLimits { wait, ..limits(1_000) }).await.expect("pulls");
        assert!(!received.is_empty(), "only {got} of {count} came");
        got += received.len();
        acknowledge(subscription, &received).await;
    }
    assert_eq!(got, count);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_gets_everything_and_holds_no_fast_one_up() {
    const MESSAGES: usize = 20_000;
    let _turn = beside_others().await;
    for ground in Ground::both() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = Arc::new(open_with(ground.disk(), &clocks, BusConfig::default()).await);
        let topic = world.topic("orders").await;
        let fast = world.subscribe("fast", &topic, long_leases).await;
        let slow = world.subscribe("slow", &topic, long_leases).await;
        let publishing = {
            let world = world.clone();
            tokio::spawn(async move { fill(&world, 0, MESSAGES, 100).await })
        };
        // One message a pull, and an acknowledgement each: far behind the other.
        let crawling = {
            let slow = slow.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for _ in 0..200 {
                    let one = take(&slow, 1).await;
                    acknowledge(&slow, &one).await;
                    taken.extend(one);
                }
                taken
            })
        };
        let took = consume(&fast, MESSAGES).await;
        publishing.await.expect("no panic");
        let mut taken = crawling.await.expect("no panic");
        assert_eq!(slow.stats().backlog_messages, (MESSAGES - 200) as u64, "{kind}: the slow one is behind");
        assert_eq!(fast.stats().backlog_messages, 0, "{kind}");
        println!("{kind}: the fast one took {MESSAGES} messages in {took:?} beside the slow one");
        taken.extend(take(&slow, MESSAGES - 200).await);
        assert!(counted(&taken).len() == MESSAGES && taken.len() == MESSAGES, "{kind}: each came once");
        drop((fast, slow));
        Arc::into_inner(world).expect("nobody else has it").close().await;
    }
}

/// Messages of 4 KiB that nobody acknowledges stay on disk: in memory there is a cache with a bound
/// and a short entry a message, up to another bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_never_acknowledges_costs_bounded_memory_and_nobody_else() {
    const MESSAGES: usize = 120_000;
    const BYTES: usize = 4_096;
    const PARTS: usize = 4;
    let _turn = alone().await;
    let (ground, clocks) = (Ground::quick(), Clocks::new());
    let world = open_with(ground.disk(), &clocks, BusConfig::default()).await;
    let topic = world.topic("orders").await;
    let never = world.subscribe("never", &topic, long_leases).await;
    let other = world.subscribe("other", &topic, long_leases).await;
    let (mut held, mut grown_mib, before_mib) = (0, Vec::new(), resident_mib());
    for part in 0..PARTS {
        let first = part * (MESSAGES / PARTS);
        fill(&world, first, first + MESSAGES / PARTS, BYTES).await;
        loop {
            let received = never.pull(limits(1_000)).await.expect("pulls");
            held += received.len();
            if received.is_empty() {
                break;
            }
        }
        consume(&other, MESSAGES / PARTS).await;
        grown_mib.push(resident_mib().saturating_sub(before_mib));
    }
    println!(
        "{held} of {MESSAGES} messages of {BYTES} bytes on lease; after each quarter {grown_mib:?} MiB more"
    );
    let stats = never.stats();
    // One tenant may have three quarters of the leases.
    assert_eq!((held, stats.leased, stats.backlog_messages), (75_000, 75_000, MESSAGES as u64));
    assert_eq!(other.stats().backlog_messages, 0, "the other one has everything");
    // Bodies of 470 MiB. The cache may have 64 MiB of them; the rest is buffers of the log.
    assert!(grown_mib[3] < 300, "{grown_mib:?} MiB");
    // And it can begin to acknowledge at any time.
    clocks.pass(Duration::from_secs(601));
    consume(&never, MESSAGES).await;
    drop((never, other));
    world.close().await;
}
