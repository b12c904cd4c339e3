//! Power loss at random moments, with everything unsynced gone: nothing that was answered is
//! lost, nothing that was confirmed comes again, keys keep their order, and a message that
//! failed too often is in one place.
//!
//! `LEVADA_SEED=n` begins with that seed, `LEVADA_CASES=n` runs so many.

use std::collections::{BTreeMap, BTreeSet};

use levada_disk::SimRng;

use super::*;
use crate::port::DeadLetterPolicy;

const TOPIC: &str = "acme/orders";
const KEYS: u64 = 4;

/// What a client knows.
#[derive(Default)]
struct Known {
    next: u64,
    /// Answered publishes, by key in their order.
    answered: BTreeMap<String, Vec<String>>,
    /// Acknowledgements that the exactly-once subscription confirmed.
    confirmed: BTreeSet<String>,
    /// Those whose answer never came: they may count or not.
    doubtful: BTreeSet<String>,
}

impl Known {
    fn all(&self) -> BTreeSet<String> {
        self.answered.values().flatten().cloned().collect()
    }

    fn is_done(&self, body: &str) -> bool {
        self.confirmed.contains(body) || self.doubtful.contains(body)
    }

    /// A message of a key may come when every earlier one is done, or came just before it.
    fn check_order(&self, received: &[Received], seed: u64) {
        for (at, message) in received.iter().enumerate() {
            let came = |other: &String| received[..at].iter().any(|earlier| body(earlier) == other);
            let key = message.message.ordering_key.as_deref().unwrap_or_default();
            assert!(!self.confirmed.contains(body(message)), "seed {seed}: {} was confirmed", body(message));
            if key.is_empty() {
                continue;
            }
            let Some(of_key) = self.answered.get(key) else { continue };
            let before = of_key.iter().take_while(|other| number(other) < number(body(message)));
            let open: Vec<_> = before.filter(|other| !self.is_done(other) && !came(other)).collect();
            assert!(open.is_empty(), "seed {seed}: {} came before {open:?}", body(message));
        }
    }
}

fn number(body: &str) -> u64 {
    body.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn set_up(port: &Port) {
    let topic = port.topic(TOPIC).await;
    let dead = port.topic("acme/dead").await;
    port.subscribe("acme/graves", &dead, |_| {}).await;
    port.subscribe("acme/exact", &topic, |spec| (spec.exactly_once, spec.ordered) = (true, true)).await;
    let policy = DeadLetterPolicy { topic: dead, max_delivery_attempts: 5 };
    port.subscribe("acme/failing", &topic, |spec| spec.dead_letter = Some(policy)).await;
}

/// One random step; `None` once the disk is dead.
async fn step(port: &Port, rng: &mut SimRng, known: &mut Known, seed: u64) -> Option<()> {
    match rng.below(10) {
        0..4 => {
            let mut messages = Vec::new();
            for _ in 0..1 + rng.below(4) {
                let key = rng.below(KEYS + 1);
                let mut sent = message("acme", &format!("m-{}", known.next));
                sent.ordering_key = (key < KEYS).then(|| format!("k{key}").into());
                known.next += 1;
                messages.push(sent);
            }
            port.try_publish(&name(TOPIC), messages.clone()).await.ok()?;
            for sent in messages {
                let text = String::from_utf8(sent.body.to_vec()).expect("text");
                known
                    .answered
                    .entry(sent.ordering_key.map_or(String::new(), String::from))
                    .or_default()
                    .push(text);
            }
        }
        4..7 => {
            let exact = port.open_subscription("acme/exact");
            let received = exact.pull(limits(1 + rng.below(6) as usize)).await.ok()?;
            known.check_order(&received, seed);
            let (taken, left): (Vec<_>, Vec<_>) = received.into_iter().partition(|_| !rng.one_in(3));
            known.doubtful.extend(taken.iter().map(|m| body(m).to_owned()));
            let outcomes = exact.acknowledge(ids(&taken)).await.ok()?;
            for (message, outcome) in taken.iter().zip(&outcomes) {
                if *outcome != AckOutcome::TransientFailure {
                    known.doubtful.remove(body(message));
                }
                if *outcome == AckOutcome::Done {
                    known.confirmed.insert(body(message).to_owned());
                }
            }
            refuse(&exact, &left).await;
        }
        7..9 => {
            let failing = port.open_subscription("acme/failing");
            let received = failing.pull(limits(1 + rng.below(6) as usize)).await.ok()?;
            refuse(&failing, &received).await;
        }
        _ => match rng.below(4) {
            0 => port.world.bus.maintain().await.ok()?,
            _ => port.advance(Duration::from_secs(rng.below(15))),
        },
    }
    Some(())
}

/// Everything that a subscription still has, each acknowledged.
async fn drain(port: &Port, subscription: &str) -> Vec<Received> {
    port.advance(Duration::from_secs(700));
    let subscription = port.open_subscription(subscription);
    let mut all = Vec::new();
    loop {
        let received = subscription.pull(limits(50)).await.expect("pulls");
        if received.is_empty() {
            return all;
        }
        acknowledge(&subscription, &received).await;
        all.extend(received);
    }
}

async fn one_case(seed: u64) {
    let mut rng = SimRng::new(seed);
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut disk = SimDisk::new(seed);
    let mut known = Known::default();
    let port = open(Arc::new(disk.clone()), clock.clone());
    set_up(&port).await;
    port.world.bus.close().await.expect("closes");
    drop(port);
    for _ in 0..3 {
        let port = open(Arc::new(disk.clone()), clock.clone());
        disk.crash_after(20 + rng.below(400));
        for _ in 0..200 {
            if step(&port, &mut rng, &mut known, seed).await.is_none() {
                break;
            }
        }
        if rng.one_in(4) {
            let _ = port.world.bus.close().await;
        }
        let survived = disk.crash();
        drop(port);
        disk = survived;
    }
    let port = open(Arc::new(disk), clock);
    let answered = known.all();
    let exact = drain(&port, "acme/exact").await;
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for message in &exact {
        let key = message.message.ordering_key.as_deref().unwrap_or_default();
        let before = last.insert(key, number(body(message)));
        assert!(
            key.is_empty() || before < Some(number(body(message))),
            "seed {seed}: key {key} out of order"
        );
    }
    let exact: Vec<String> = exact.iter().map(|m| body(m).to_owned()).collect();
    let seen: BTreeSet<String> = exact.iter().cloned().collect();
    assert_eq!(exact.len(), seen.len(), "seed {seed}: twice in one go");
    assert!(seen.is_disjoint(&known.confirmed), "seed {seed}: a confirmed message came again");
    let lost: Vec<_> = answered.iter().filter(|b| !seen.contains(*b) && !known.is_done(b)).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");

    let left: Vec<String> = drain(&port, "acme/failing").await.iter().map(|m| body(m).to_owned()).collect();
    let dead: Vec<String> = drain(&port, "acme/graves").await.iter().map(|m| body(m).to_owned()).collect();
    let (left_set, dead_set): (BTreeSet<_>, BTreeSet<_>) = (left.iter().collect(), dead.iter().collect());
    assert_eq!(dead.len(), dead_set.len(), "seed {seed}: a dead letter twice");
    assert!(left_set.is_disjoint(&dead_set), "seed {seed}: dead and alive");
    let lost: Vec<_> = answered.iter().filter(|b| !left_set.contains(b) && !dead_set.contains(b)).collect();
    assert!(lost.is_empty(), "seed {seed}: lost by the failing subscription: {lost:?}");
}

#[tokio::test]
async fn deliveries_survive_power_loss() {
    let (first, cases) = (setting("LEVADA_SEED", 1), setting("LEVADA_CASES", 150));
    println!("seeds {first}..{}", first + cases);
    for seed in first..first + cases {
        one_case(seed).await;
    }
}
