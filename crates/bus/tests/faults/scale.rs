//! Ten thousand tenants, five thousand subscriptions, a hundred thousand ordering keys: each gets
//! what is its own, in order, and memory and time stay within bounds. Prints what was measured.

use std::collections::HashMap;
use std::time::Instant;

use levada_bus::BusConfig;
use levada_bus::port::{BusPort, PageRequest, PullLimits, Received};
use levada_core::{Message, ProjectId, TenantId};
use levada_log::LogConfig;

use super::alone;
use super::ground::Ground;
use super::world::{
    Clocks, SECOND, Subscription, acknowledge, body, keyed, limits, long_leases, message, open_with,
    resident_mib, take,
};

/// The machine's own files, so that the disk does not count as memory.
fn config() -> BusConfig {
    BusConfig { log: LogConfig { min_free_bytes: 0, ..LogConfig::default() }, ..BusConfig::default() }
}

/// A stopwatch that tells of memory too.
struct Figures {
    began: Instant,
    began_mib: u64,
}

impl Figures {
    fn begin() -> Self {
        Self { began: Instant::now(), began_mib: resident_mib() }
    }

    /// Prints, begins anew, and answers how many MiB more there are.
    fn tell(&mut self, what: &str) -> u64 {
        let grown_mib = resident_mib().saturating_sub(self.began_mib);
        println!("{what}: {:.2} s, {grown_mib} MiB more", self.began.elapsed().as_secs_f64());
        *self = Self::begin();
        grown_mib
    }
}

/// Takes so many, a thousand at once, and acknowledges each lot after a look at it.
async fn consume(subscription: &Subscription, count: usize, mut look: impl FnMut(&Received)) {
    let mut got = 0;
    while got < count {
        let received =
            subscription.pull(PullLimits { wait: 30 * SECOND, ..limits(1_000) }).await.expect("pulls");
        assert!(!received.is_empty(), "only {got} of {count} came");
        received.iter().for_each(&mut look);
        got += received.len();
        acknowledge(subscription, &received).await;
    }
    assert_eq!(got, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tenants_get_their_own_and_each_its_turn() {
    const TENANTS: usize = 10_000;
    const EACH: usize = 3;
    const BACKLOG: usize = 3_000;
    const GREEDY: &str = "greedy";
    let _turn = alone().await;
    let (ground, clocks) = (Ground::quick(), Clocks::new());
    let world = open_with(ground.disk(), &clocks, config()).await;
    let topic = world.topic("orders").await;
    let all = world.subscribe("all", &topic, long_leases).await;
    let one: TenantId = TenantId::new("t-07777").expect("a tenant");
    let own = world
        .subscribe("own", &topic, |spec| {
            long_leases(spec);
            spec.tenant = Some(one.clone());
        })
        .await;
    let mut figures = Figures::begin();
    // One tenant is first, with a backlog before everybody else's.
    let backlog: Vec<Message> = (0..BACKLOG).map(|_| message(GREEDY, &"b".repeat(1_024))).collect();
    for part in backlog.chunks(1_000) {
        world.send(&topic, part.to_vec()).await.expect("published");
    }
    for round in 0..EACH {
        for part in (0..TENANTS).collect::<Vec<_>>().chunks(1_000) {
            let messages =
                part.iter().map(|t| message(&format!("t-{t:05}"), &format!("{round} of t-{t:05}")));
            world.send(&topic, messages.collect()).await.expect("published");
        }
    }
    figures.tell("10,000 tenants: published 3 messages of each, and 3,000 of another");
    let mut got: HashMap<TenantId, usize> = HashMap::new();
    let mut backlog_before_all = 0;
    consume(&all, BACKLOG + TENANTS * EACH, |received| {
        let tenant = &received.message.tenant;
        let count = got.entry(tenant.clone()).or_default();
        *count += 1;
        if tenant.as_str() != GREEDY {
            assert_eq!(body(received), format!("{} of {tenant}", *count - 1));
        } else if got.len() <= TENANTS {
            backlog_before_all += 1;
        }
    })
    .await;
    let grown_mib = figures.tell("10,000 tenants: delivered and acknowledged");
    assert_eq!(got.len(), TENANTS + 1);
    println!("{backlog_before_all} messages of the backlog came before everybody had a message");
    // A turn has 4 KiB. What is found first are a few thousand messages, and those come before
    // the others are known.
    assert!(backlog_before_all < BACKLOG / 2, "{backlog_before_all}");
    assert!(grown_mib < 200, "{grown_mib} MiB");
    let mine = take(&own, EACH).await;
    assert!(mine.iter().all(|received| received.message.tenant == one));
    acknowledge(&own, &mine).await;
    assert_eq!(own.stats().backlog_messages, 0);
    drop((all, own));
    world.close().await;
    let mut figures = Figures::begin();
    let world = open_with(ground.disk(), &clocks, config()).await;
    figures.tell("10,000 tenants: opened again");
    assert!(world.subscription("all").pull(limits(10)).await.expect("pulls").is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_subscriptions_each_get_every_message() {
    const SUBSCRIPTIONS: usize = 5_000;
    const MESSAGES: usize = 10;
    let _turn = alone().await;
    let (ground, clocks) = (Ground::quick(), Clocks::new());
    let world = open_with(ground.disk(), &clocks, config()).await;
    let topic = world.topic("orders").await;
    let mut figures = Figures::begin();
    for n in 0..SUBSCRIPTIONS {
        world.subscribe(&format!("s-{n:04}"), &topic, long_leases).await;
    }
    figures.tell("5,000 subscriptions: made, each durable");
    let texts: Vec<String> = (0..MESSAGES).map(|n| format!("m-{n}")).collect();
    world.publish_each(&topic, &texts).await;
    for n in 0..SUBSCRIPTIONS {
        let subscription = world.subscription(&format!("s-{n:04}"));
        let received = take(&subscription, MESSAGES).await;
        let got: Vec<&str> = received.iter().map(body).collect();
        assert_eq!(got, texts, "s-{n:04}");
        // Half of them acknowledge half.
        if n % 2 == 0 {
            acknowledge(&subscription, &received[..MESSAGES / 2]).await;
        }
    }
    let grown_mib = figures.tell("5,000 subscriptions: 10 messages to each");
    assert!(grown_mib < 200, "{grown_mib} MiB");
    world.maintain().await;
    figures.tell("5,000 subscriptions: one upkeep");
    world.close().await;
    figures.tell("5,000 subscriptions: closed");
    let world = open_with(ground.disk(), &clocks, config()).await;
    figures.tell("5,000 subscriptions: opened again");
    let page = world.port.subscriptions(&ProjectId::new("acme").expect("a project"), &PageRequest::default());
    assert_eq!((page.items.len(), page.next.is_some()), (100, true));
    for n in (0..SUBSCRIPTIONS).step_by(499) {
        let subscription = world.subscription(&format!("s-{n:04}"));
        let left = if n % 2 == 0 { &texts[MESSAGES / 2..] } else { &texts[..] };
        let got: Vec<String> =
            take(&subscription, left.len()).await.iter().map(|r| body(r).to_owned()).collect();
        assert_eq!(got, left, "s-{n:04}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_ordering_keys_keep_their_orders() {
    const KEYS: usize = 100_000;
    const EACH: usize = 2;
    let _turn = alone().await;
    let (ground, clocks) = (Ground::quick(), Clocks::new());
    let world = open_with(ground.disk(), &clocks, config()).await;
    let topic = world.topic("orders").await;
    let ordered = world
        .subscribe("ordered", &topic, |spec| {
            long_leases(spec);
            spec.ordered = true;
        })
        .await;
    let mut figures = Figures::begin();
    for round in 0..EACH {
        for part in (0..KEYS).collect::<Vec<_>>().chunks(1_000) {
            let messages = part.iter().map(|key| keyed(&format!("key-{key}"), &round.to_string()));
            world.send(&topic, messages.collect()).await.expect("published");
        }
    }
    figures.tell("100,000 ordering keys: 2 messages of each published");
    // The first lot fails: its keys begin again, and the others do not wait for them.
    let first = take(&ordered, 1_000).await;
    assert!(first.iter().all(|received| body(received) == "0"));
    let mut next: HashMap<String, usize> = HashMap::with_capacity(KEYS);
    let mut in_order = |received: &Received| {
        let key = received.message.ordering_key.as_deref().expect("a key").to_owned();
        let expected = next.entry(key.clone()).or_default();
        assert_eq!(body(received), expected.to_string(), "{key}");
        *expected += 1;
    };
    consume(&ordered, (KEYS - 1_000) * EACH, &mut in_order).await;
    assert!(ordered.pull(limits(10)).await.expect("pulls").is_empty(), "all others wait for the first lot");
    super::world::refuse(&ordered, &first).await;
    consume(&ordered, 1_000 * EACH, &mut in_order).await;
    let grown_mib = figures.tell("100,000 ordering keys: delivered and acknowledged in order");
    assert_eq!((next.len(), next.values().all(|count| *count == EACH)), (KEYS, true));
    // The cache has 64 MiB of this at most, and the test itself notes every key.
    assert!(grown_mib < 250, "{grown_mib} MiB");
    assert_eq!(ordered.stats().backlog_messages, 0);
    drop(ordered);
    world.close().await;
}
