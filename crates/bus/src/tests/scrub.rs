//! The upkeep finds damage in messages that nobody reads, a few bytes a call.

use std::sync::Arc;

use levada_core::ManualClock;
use levada_disk::{Disk, SimDisk};

use super::{START_MS, event, open_with, topic};
use crate::{BusConfig, TopicConfig};

#[tokio::test]
async fn upkeep_finds_a_flipped_bit_and_the_other_messages_stay_readable() {
    for scrub_bytes in [0, 10_000] {
        let disk = SimDisk::new(1);
        let config = BusConfig { scrub_bytes, ..super::config() };
        let world = open_with(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)), config);
        let orders = topic("orders");
        world.bus.ensure_topic(&orders, TopicConfig::default()).expect("topic");
        for n in 0..120 {
            let item = event("acme", None, &format!("{n} {}", "x".repeat(1_000)));
            world.bus.publish(&orders, vec![item]).await.expect("published").remove(0).expect("accepted");
        }
        let mut end = world.bus.end(&orders).expect("topic");
        end.wait_for(|end| *end == 120).await.expect("visible");
        let folders = disk.list("log/topics").expect("folders");
        let mut paths = folders.iter().flat_map(|f| {
            let dir = format!("log/topics/{}", f.name);
            disk.list(&dir).expect("segments").into_iter().map(move |e| format!("{dir}/{}", e.name))
        });
        let path = paths.rfind(|p| p.ends_with("/00000000000000000000.seg")).expect("a segment");
        disk.flip_bit(&path, 20_000, 3).expect("flipped");
        for _ in 0..20 {
            world.bus.maintain().await.expect("upkeep goes on");
        }
        let stats = world.bus.log_stats();
        if scrub_bytes == 0 {
            assert_eq!((stats.scrubbed_bytes, stats.quarantined), (0, 0), "it can be turned off");
            continue;
        }
        assert_eq!((stats.scrub_rounds, stats.quarantined), (1, 1), "{stats:?}");
        let before = world.bus.read(&orders, 0, 1_000, 1 << 20).expect("readable");
        let damaged = before.last().expect("some").offset + 1;
        let resume = world.bus.read(&orders, damaged, 1, 1).expect_err("damaged").resumes_at();
        let after = world.bus.read(&orders, resume.expect("an offset"), 1_000, 1 << 20).expect("readable");
        assert_eq!(before.len() + after.len(), 119, "one message is lost, the rest is there");
        assert_eq!(world.bus.log_stats().quarantined, 1, "the reader found the same place");
    }
}
