//! Topics that answer before the fsync: subscriptions never stand behind what a power loss
//! leaves.

use std::sync::Arc;

use levada_core::ManualClock;
use levada_disk::{Fault, FaultError, OpKind, SimDisk, SimRng};

use super::{bodies, ids, limits, name, open};
use crate::port::{BusPort, Deduplication, Durability, TopicSpec};
use crate::tests::START_MS;

/// Random publishes, pulls, acknowledgements and subscriptions; then the power goes. What is
/// published afterwards arrives everywhere, whatever offsets were given out before.
#[tokio::test]
async fn after_a_power_loss_every_subscription_gets_what_comes() {
    for seed in 0..60 {
        let mut rng = SimRng::new(seed);
        let mut disk = Arc::new(SimDisk::new(seed));
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut port = open(disk.clone(), clock.clone());
        let class = if rng.one_in(2) { Durability::Interval } else { Durability::Memory };
        let spec = TopicSpec { durability: class, ..TopicSpec::new(name("home/bills")) };
        port.port.create_topic(spec).await.expect("made");
        let topic = name("home/bills");
        let mut subscriptions = 0;
        for round in 0..3 {
            for n in 0..rng.below(30) {
                match rng.below(6) {
                    0 if subscriptions < 5 => {
                        port.subscribe(&format!("home/sub-{subscriptions}"), &topic, |_| {}).await;
                        subscriptions += 1;
                    }
                    1 if subscriptions > 0 => {
                        let own = port.open_subscription(&format!("home/sub-{}", rng.below(subscriptions)));
                        let received = own.pull(limits(5)).await.expect("pulls");
                        own.acknowledge(ids(&received)).await.expect("acknowledges");
                    }
                    2 if rng.one_in(3) => port.world.bus.maintain().await.expect("upkeep"),
                    _ => drop(port.publish(&topic, &[&format!("{round}-{n}")]).await),
                }
            }
            disk = Arc::new(disk.crash());
            port = open(disk.clone(), clock.clone());
            assert_eq!(port.port.topic(&topic).expect("there").durability, class);
            let mark = format!("after {round}");
            port.publish(&topic, &[&mark]).await;
            for n in 0..subscriptions {
                let own = port.open_subscription(&format!("home/sub-{n}"));
                let mut seen = Vec::new();
                loop {
                    let received = own.pull(limits(100)).await.expect("pulls");
                    if received.is_empty() {
                        break;
                    }
                    seen.extend(bodies(&received).into_iter().map(str::to_owned));
                    own.acknowledge(ids(&received)).await.expect("acknowledges");
                }
                assert!(seen.contains(&mark), "seed {seed}: sub-{n} got {seen:?} and not {mark}");
            }
        }
    }
}

fn next_write(path: &str) -> Fault {
    Fault { kind: OpKind::Write, path: path.to_owned(), nth: 1, error: FaultError::DiskFull }
}

#[tokio::test]
async fn what_memory_could_not_write_is_no_place_to_begin_at() {
    let disk = SimDisk::new(1);
    let port = open(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)));
    let spec = TopicSpec { durability: Durability::Memory, ..TopicSpec::new(name("home/bills")) };
    let topic = port.port.create_topic(spec).await.expect("made").name;
    let other = port.topic("home/other").await;
    port.publish(&other, &["opens the commit file"]).await;
    disk.fail(next_write("log/commit/*"));
    assert_eq!(port.publish(&topic, &["lost"]).await, [0]);
    let own = port.subscribe("home/sub", &topic, |_| {}).await;
    assert_eq!(port.publish(&topic, &["kept"]).await, [0], "the place was free again");
    port.publish(&other, &["makes it durable"]).await;
    assert_eq!(bodies(&own.pull(limits(10)).await.expect("pulls")), ["kept"]);
}

#[tokio::test]
async fn a_setting_that_could_not_be_kept_is_not_in_force() {
    let disk = SimDisk::new(1);
    let port = open(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)));
    let topic = port.topic("home/bills").await;
    let deduplication =
        Some(Deduplication { attribute: "id".to_owned(), window: std::time::Duration::from_secs(60) });
    let spec = TopicSpec { deduplication, ..TopicSpec::new(topic.clone()) };
    disk.fail(next_write("bus/state/*"));
    port.port.update_topic(spec.clone()).await.expect_err("it cannot be written");
    assert_eq!(port.port.topic(&topic).expect("there").deduplication, None);
    let mut twice = super::message("acme", "a");
    twice.attributes.set("id", "7");
    let ids = port.try_publish(&topic, vec![twice.clone(), twice.clone()]).await.expect("published");
    assert_ne!(ids[0], ids[1], "nothing is taken for a duplicate");
    port.port.update_topic(spec).await.expect("now it can");
    let ids = port.try_publish(&topic, vec![twice.clone(), twice]).await.expect("published");
    assert_eq!(ids[0], ids[1]);
}
