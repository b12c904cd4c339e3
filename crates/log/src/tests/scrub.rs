//! The scrubber finds damage that nobody has read, within its budget and its rounds, and
//! good records stay readable.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_core::{ManualClock, TopicName};
use levada_disk::{Disk, Fault, FaultError, OpKind, SimDisk, SimRng};
use levada_log::{Append, Engine, Log, LogConfig, LogError, Retention, Scrubbed, TopicId};

const HOUR: Duration = Duration::from_secs(3_600);
/// Header, head and body of each record.
const RECORD: u64 = 48 + 4 + 160;

fn config() -> LogConfig {
    LogConfig {
        commit_file_bytes: 1 << 20,
        segment_bytes: 4 << 10,
        queue_bytes: 256 << 10,
        index_interval_bytes: 512,
        min_free_bytes: 0,
        scrub_every_ms: 3_600_000,
        ..LogConfig::default()
    }
}

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    engine: Engine,
    topics: Vec<TopicId>,
}

/// Three topics with so many records each.
fn world(records: u64) -> World {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::new(0));
    let mut engine = Engine::open(Arc::new(disk.clone()), "log", config(), clock.clone()).unwrap().0;
    let topic = |name: &str| engine.topic(&TopicName::new(name).unwrap()).unwrap();
    let topics: Vec<_> = ["topic-a", "topic-b", "topic-c"].map(topic).to_vec();
    for n in 0..records {
        let records: Vec<_> = topics.iter().map(|topic| record(*topic, n)).collect();
        engine.append(&records).unwrap();
    }
    engine.checkpoint().unwrap();
    World { disk, clock, engine, topics }
}

fn record(topic: TopicId, n: u64) -> Append {
    let body = format!("{n:0>160}").into();
    Append { topic, lane: 0, key_id: 0, timestamp_ms: 1, head: Bytes::from_static(b"head"), body }
}

/// Path, base and length of a topic's segments that take no more records.
fn sealed(disk: &SimDisk, topic: TopicId) -> Vec<(String, u64, u64)> {
    let dir = format!("log/topics/{topic}");
    let entries = disk.list(&dir).unwrap().into_iter().filter(|e| e.name.ends_with(".seg"));
    let mut all: Vec<_> = entries
        .map(|e| (format!("{dir}/{}", e.name), e.name.trim_end_matches(".seg").parse().unwrap(), e.len))
        .collect();
    all.pop();
    all
}

/// Calls until a round has ended; answers what was done and how many calls it took.
fn round(engine: &Engine, budget: u64) -> (Scrubbed, u64) {
    let (mut sum, mut calls) = (Scrubbed::default(), 0);
    while !sum.ended_round {
        let done = engine.scrub(budget);
        assert!(done.bytes <= budget + RECORD, "{done:?} for {budget}");
        sum.bytes += done.bytes;
        sum.damaged += done.damaged;
        sum.ended_round = done.ended_round;
        calls += 1;
        assert!(calls < 10_000, "a round must end");
    }
    (sum, calls)
}

/// The offsets that can be read.
fn readable(engine: &Engine, topic: TopicId) -> Vec<u64> {
    let mut out = Vec::new();
    let mut from = 0;
    loop {
        match engine.read(topic, from, 10, 1 << 20) {
            Ok(records) if records.is_empty() => return out,
            Ok(records) => out.extend(records.iter().map(|r| r.offset)),
            Err(LogError::Corrupt(damage)) => {
                from = damage.resume;
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        from = out.last().map_or(from, |o| o + 1);
    }
}

#[test]
fn a_round_checks_every_full_segment_once_and_then_rests() {
    let world = world(100);
    let bytes: u64 =
        world.topics.iter().flat_map(|t| sealed(&world.disk, *t)).map(|(_, _, len)| len - 32).sum();
    assert!(bytes > 40_000);
    for budget in [1, 700, 10_000, 200 << 10, 4 << 20] {
        let (done, calls) = round(&world.engine, budget);
        assert_eq!((done.bytes, done.damaged), (bytes, 0), "budget {budget}");
        assert!(budget > 1 || calls > bytes / RECORD, "one record a call at least and at most");
        assert_eq!(world.engine.scrub(budget), Scrubbed::default(), "the next round is not due");
        world.clock.advance(HOUR);
    }
    assert_eq!(world.engine.scrub(0), Scrubbed::default(), "0 turns it off");
    let stats = world.engine.stats();
    assert_eq!((stats.scrubbed_bytes, stats.scrub_rounds, stats.quarantined), (5 * bytes, 5, 0));
}

#[test]
fn a_flipped_bit_is_found_within_two_rounds_wherever_it_is_and_good_records_stay_readable() {
    for seed in 0..60 {
        let world = world(60);
        let mut rng = SimRng::new(seed);
        let topic = world.topics[rng.below(3) as usize];
        let segments = sealed(&world.disk, topic);
        let (path, base, len) = segments[rng.below(segments.len() as u64) as usize].clone();
        // Before, within or behind where the scrubber is just now.
        for _ in 0..rng.below(6) {
            world.engine.scrub(5_000);
        }
        let at = 32 + rng.below(len - 32);
        world.disk.flip_bit(&path, at, rng.below(8) as u8).unwrap();
        let mut found = 0;
        for _ in 0..2 {
            found += round(&world.engine, 5_000).0.damaged;
            world.clock.advance(HOUR);
        }
        assert!(found >= 1, "seed {seed}: a flip at byte {at} of {path} was not found");
        let quarantined = world.engine.quarantined();
        assert_eq!(quarantined.len(), 1, "seed {seed}: {quarantined:?}");
        let start = 32 + (at - 32) / RECORD * RECORD;
        assert_eq!((&quarantined[0].file, quarantined[0].position), (&path, start), "seed {seed}");
        assert!(quarantined[0].copy.is_some());
        let first = base + (start - 32) / RECORD;
        let lost = first..first + quarantined[0].bytes / RECORD;
        for other in &world.topics {
            let good: Vec<u64> = (0..60).filter(|o| *other != topic || !lost.contains(o)).collect();
            assert_eq!(readable(&world.engine, *other), good, "seed {seed}");
        }
        assert_eq!(world.engine.quarantined(), quarantined, "a reader finds the same place");
        assert_eq!(world.engine.stats().quarantined, 1, "seed {seed}: counted once");
    }
}

#[test]
fn a_segment_that_was_cut_or_cannot_be_read_is_found_and_one_that_retention_removed_is_not_missed() {
    let mut world = world(100);
    let (path, ..) = sealed(&world.disk, world.topics[1])[0].clone();
    world.disk.open(&path, levada_disk::OpenMode::Existing).unwrap().set_len(32 + 3 * RECORD + 7).unwrap();
    assert_eq!(round(&world.engine, 4 << 20).0.damaged, 1);
    assert_eq!(world.engine.quarantined()[0].position, 32 + 3 * RECORD);

    world.clock.advance(HOUR);
    let (path, ..) = sealed(&world.disk, world.topics[2])[1].clone();
    world.disk.fail(Fault { kind: OpKind::Read, path: path.clone(), nth: 1, error: FaultError::Io });
    assert_eq!(round(&world.engine, 4 << 20).0.damaged, 2, "the cut one and the unreadable one");
    assert!(world.engine.quarantined().iter().any(|q| q.file == path));

    world.clock.advance(HOUR);
    world.engine.scrub(100);
    let keep = Retention { max_bytes: Some(5_000), ..Retention::default() };
    for topic in world.topics.clone() {
        assert!(world.engine.retain(topic, keep).unwrap() > 0);
    }
    assert_eq!(round(&world.engine, 4 << 20).0.damaged, 0, "what was damaged is gone");
}

#[test]
fn a_log_in_use_is_scrubbed_beside_its_threads() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::new(0));
    let log = Log::open(Arc::new(disk.clone()), "log", config(), clock).unwrap().0;
    let topic = log.topic(&TopicName::new("topic-a").unwrap()).unwrap();
    let scrubber = log.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut damaged = 0;
        while stopped.try_recv().is_err() {
            damaged += scrubber.scrub(2_000).damaged;
        }
        damaged
    });
    for n in 0..300 {
        log.append_blocking(vec![record(topic, n)]).unwrap();
    }
    stop.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), 0, "what is being written is no damage");
    log.close().unwrap();
    assert_eq!(log.scrub(1 << 20), Scrubbed::default(), "a closed log rests");
}
