//! Topics that answer before the fsync: subscriptions never stand behind what a power loss
//! leaves.

use std::sync::Arc;

use levada_core::ManualClock;
use levada_disk::{SimDisk, SimRng};

use super::{bodies, ids, limits, name, open};
use crate::port::{BusPort, Durability, TopicSpec};
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
