//! Power loss at a random moment: what was answered is there once, a retry adds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_core::ManualClock;
use levada_disk::{SimDisk, SimRng};

use super::{START_MS, World, event, open, topic};
use crate::TopicConfig;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// What a client knows: the keys that were answered, and all that it ever sent.
#[derive(Default)]
struct Client {
    answered: BTreeMap<String, u64>,
    sent: Vec<String>,
}

impl Client {
    /// Publishes until the disk dies.
    async fn publish(&mut self, world: &World, rng: &mut SimRng) {
        let orders = topic("orders");
        for _ in 0..200 {
            let count = 1 + rng.below(4);
            let mut keys = Vec::new();
            for _ in 0..count {
                let repeat = !self.sent.is_empty() && rng.one_in(5);
                let key = if repeat {
                    self.sent[rng.below(self.sent.len() as u64) as usize].clone()
                } else {
                    format!("k{}", self.sent.len())
                };
                self.sent.push(key.clone());
                keys.push(key);
            }
            let items = keys.iter().map(|k| event("acme", Some(k), k)).collect();
            let Ok(results) = world.bus.publish(&orders, items).await else { return };
            for (key, result) in keys.into_iter().zip(results) {
                if let Ok(published) = result {
                    self.answered.insert(key, published.offset);
                }
            }
        }
    }
}

async fn kept(world: &World) -> Vec<(u64, String)> {
    let orders = topic("orders");
    let records = world.bus.read(&orders, 0, 100_000, 1 << 30).expect("readable");
    records.iter().map(|d| (d.offset, String::from_utf8_lossy(&d.message.body).into_owned())).collect()
}

async fn one_case(seed: u64) {
    let mut rng = SimRng::new(seed);
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut disk = SimDisk::new(seed);
    let mut client = Client::default();
    for _ in 0..3 {
        let world = open(Arc::new(disk.clone()), clock.clone());
        world.bus.ensure_topic(&topic("orders"), TopicConfig::default()).expect("topic");
        for (key, offset) in &client.answered {
            let found = kept(&world).await;
            assert!(
                found.contains(&(*offset, key.clone())),
                "seed {seed}: answered {key} at {offset} is gone"
            );
        }
        disk.crash_after(20 + rng.below(300));
        client.publish(&world, &mut rng).await;
        let survived = disk.crash();
        drop(world);
        disk = survived;
    }
    let world = open(Arc::new(disk), clock);
    let keys: std::collections::BTreeSet<String> = client.sent.iter().cloned().collect();
    let items = keys.iter().map(|k| event("acme", Some(k), k)).collect::<Vec<_>>();
    let total = items.len() as u64;
    if total == 0 {
        return;
    }
    let results = world.bus.publish(&topic("orders"), items).await.expect("the log accepts");
    let last = results.iter().filter_map(|r| r.as_ref().ok()).map(|p| p.offset).max().unwrap_or(0);
    let mut end = world.bus.end(&topic("orders")).expect("topic");
    end.wait_for(|end| *end > last).await.expect("visible");
    let mut found: Vec<String> = kept(&world).await.into_iter().map(|(_, key)| key).collect();
    found.sort();
    assert_eq!(found, keys.into_iter().collect::<Vec<_>>(), "seed {seed}: each key once and nothing else");
}

#[tokio::test]
async fn what_was_answered_survives_power_loss_and_retries_add_nothing() {
    let first = number("LEVADA_SEED", 1);
    let cases = number("LEVADA_CASES", 200);
    println!("seeds {first}..{}", first + cases);
    for seed in first..first + cases {
        one_case(seed).await;
    }
}
