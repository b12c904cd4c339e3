//! Retention, the time index, the cost of a restart, many topics, and the stored format.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_core::{ManualClock, TenantId, TopicName};
use levada_disk::{Disk, OpenMode, SimDisk, create_dir_durable, read_all};
use levada_log::{Append, Engine, Log, LogConfig, Retention, TopicId};

fn config() -> LogConfig {
    LogConfig {
        commit_file_bytes: 256 << 10,
        segment_bytes: 4 << 10,
        queue_bytes: 64 << 10,
        index_interval_bytes: 512,
        min_free_bytes: 0,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Engine {
    Engine::open(Arc::new(disk.clone()), "log", config(), clock.clone()).unwrap().0
}

fn topic(engine: &Engine) -> TopicId {
    engine.topic(&TopicName::new("topic-a").unwrap()).unwrap()
}

fn record(topic: TopicId, timestamp_ms: i64) -> Append {
    let body = format!("body at {timestamp_ms:>8} {}", "x".repeat(100)).into();
    Append { topic, lane: 1, key_id: 2, timestamp_ms, head: Bytes::from_static(b"head"), body }
}

fn fill(engine: &mut Engine, topic: TopicId, times: impl IntoIterator<Item = i64>) {
    for time in times {
        engine.append(&[record(topic, time)]).unwrap();
    }
}

#[test]
fn retention_by_size_removes_the_oldest_segments_only() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::new(0)));
    let mut engine = open(&disk, &clock);
    let topic = topic(&engine);
    fill(&mut engine, topic, 0..60);
    let limit = Retention { max_bytes: Some(5_000), ..Retention::default() };
    assert_eq!(engine.retain(topic, limit).unwrap(), 0, "nothing goes before it is checkpointed");
    engine.checkpoint().unwrap();
    let removed = engine.retain(topic, limit).unwrap();
    let bounds = engine.bounds(topic).unwrap();
    assert!(removed > 0 && bounds.first == removed && bounds.next == 60, "{bounds:?}");
    assert!(bounds.bytes <= 5_000 && bounds.bytes > 1_000, "{bounds:?}");
    assert_eq!(engine.read(topic, 0, 1, 1).unwrap()[0].offset, removed, "reads start at the first kept");
    let on_disk: u64 = disk.list("log/topics/0").unwrap().iter().map(|e| e.len).sum();
    assert!(on_disk < 6_000, "{on_disk}");
    let mut engine = open(&disk.crash(), &clock);
    let after = engine.bounds(topic).unwrap();
    assert!(after.next == 60 && after.first <= removed);
    assert_eq!(engine.append(&[record(topic, 60)]).unwrap(), [60]);
}

#[test]
fn retention_by_age_also_empties_a_topic_that_has_gone_quiet() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::new(1_000)));
    let mut engine = open(&disk, &clock);
    let topic = topic(&engine);
    fill(&mut engine, topic, 0..50);
    engine.checkpoint().unwrap();
    let limit = Retention { max_age_ms: Some(5_000), ..Retention::default() };
    assert_eq!(engine.retain(topic, limit).unwrap(), 0);
    clock.advance(Duration::from_secs(10));
    engine.retain(topic, limit).unwrap();
    engine.checkpoint().unwrap();
    engine.retain(topic, limit).unwrap();
    let bounds = engine.bounds(topic).unwrap();
    assert_eq!((bounds.first, bounds.next), (50, 50));
    assert!(engine.read(topic, 0, 10, 1_000).unwrap().is_empty());
    let mut engine = open(&disk.crash(), &clock);
    assert_eq!(engine.append(&[record(topic, 11_000)]).unwrap(), [50], "offsets are never given twice");
    assert_eq!(engine.read(topic, 0, 10, 1_000).unwrap().len(), 1);
}

#[test]
fn a_time_finds_the_first_record_at_or_after_it_also_when_times_jump_back() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::new(0)));
    let mut engine = open(&disk, &clock);
    let topic = topic(&engine);
    let times: Vec<i64> = (0..150).map(|i| 1_000 + i * 10 - if i % 7 == 0 { 200 } else { 0 }).collect();
    fill(&mut engine, topic, times.iter().copied());
    let check = |engine: &Engine| {
        for time in [0, 800, 1_000, 1_001, 1_455, 2_000, 2_490, 2_491, 9_999] {
            let expected = times.iter().position(|t| *t >= time).unwrap_or(times.len());
            assert_eq!(engine.offset_at(topic, time).unwrap(), expected as u64, "time {time}");
        }
    };
    check(&engine);
    engine.checkpoint().unwrap();
    let engine = open(&disk.crash(), &clock);
    check(&engine);
    assert_eq!(engine.stats().index_rebuilds, 0);
}

#[test]
fn a_missing_or_damaged_index_is_rebuilt_from_its_segment() {
    for remove in [true, false] {
        let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::new(0)));
        let mut engine = open(&disk, &clock);
        let topic = topic(&engine);
        fill(&mut engine, topic, 0..60);
        engine.checkpoint().unwrap();
        let path = "log/topics/0/00000000000000000000.idx";
        let before = read_all(&disk, path).unwrap();
        if remove {
            disk.remove(path).unwrap()
        } else {
            disk.flip_bit(path, 40, 2).unwrap()
        }
        let engine = open(&disk, &clock);
        assert_eq!(engine.read(topic, 5, 1, 1).unwrap()[0].offset, 5);
        assert_eq!(engine.stats().index_rebuilds, 1);
        assert_eq!(read_all(&disk, path).unwrap(), before, "written again");
    }
}

#[test]
fn a_restart_costs_the_same_for_any_amount_of_old_segments() {
    let operations = |records: i64| {
        let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::new(0)));
        let mut engine = open(&disk, &clock);
        let topic = topic(&engine);
        fill(&mut engine, topic, 0..records);
        engine.checkpoint().unwrap();
        let before = disk.operations();
        let engine = open(&disk, &clock);
        assert_eq!(engine.bounds(topic).unwrap().next, records.cast_unsigned());
        disk.operations() - before
    };
    assert_eq!(operations(100), operations(2_000));
}

#[test]
fn thousands_of_topics_and_lanes_are_registered_with_few_syncs_and_come_back() {
    let disk = SimDisk::new(1);
    let config = LogConfig { commit_file_bytes: 4 << 20, queue_bytes: 2 << 20, open_files: 16, ..config() };
    let clock = Arc::new(ManualClock::new(0));
    let log = Log::open(Arc::new(disk.clone()), "log", config.clone(), clock.clone()).unwrap().0;
    let names: Vec<TopicName> = (0..2_000).map(|i| TopicName::new(&format!("topic-{i}")).unwrap()).collect();
    let tenants: Vec<TenantId> =
        (0..10_000).map(|i| TenantId::new(&format!("tenant-{i}")).unwrap()).collect();
    let before = disk.operations();
    let topics = log.ensure_topics(&names).unwrap();
    let lanes = log.ensure_lanes(&tenants).unwrap();
    assert_eq!(disk.operations() - before, 4, "one write and one sync each");
    let mut records: Vec<Append> = topics.iter().map(|t| record(*t, 1)).collect();
    records.reverse();
    let offsets = log.append_blocking(records).unwrap();
    assert!(offsets.len() == 2_000 && offsets.iter().all(|o| *o == 0));
    log.close().unwrap();
    let log = Log::open(Arc::new(disk.crash()), "log", config, clock).unwrap().0;
    assert_eq!(log.ensure_topics(&names).unwrap(), topics);
    assert_eq!(log.ensure_lanes(&tenants).unwrap(), lanes);
    assert_eq!(log.lane_name(lanes[9_999]).as_ref(), Some(&tenants[9_999]));
    for topic in topics {
        assert_eq!(log.bounds(topic).next, 1);
        assert_eq!(log.read(topic, 0, 10, 10_000).unwrap().len(), 1);
    }
    let mut seen = 0;
    log.scan_since(1, u64::MAX, |_, _| seen += 1).unwrap();
    assert_eq!(seen, 2_000);
    log.scan_since(2, u64::MAX, |_, _| seen += 1).unwrap();
    assert_eq!(seen, 2_000, "nothing is as young as that");
}

const GOLDEN: [&str; 6] = [
    "registry",
    "checkpoint",
    "commit/0000000000000001.log",
    "topics/0/00000000000000000000.seg",
    "topics/0/00000000000000000000.idx",
    "topics/0/00000000000000000002.seg",
];

/// A log of fixed contents: sealed and active segments, a checkpoint, a group behind it.
fn golden_log() -> SimDisk {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let config =
        LogConfig { commit_file_bytes: 24 << 10, segment_bytes: 300, queue_bytes: 8 << 10, ..config() };
    let mut engine = Engine::open(Arc::new(disk.clone()), "log", config, clock).unwrap().0;
    let topic = topic(&engine);
    engine.lane(&TenantId::new("acme").unwrap()).unwrap();
    fill(&mut engine, topic, 1_700_000_000_000..1_700_000_000_003);
    engine.checkpoint().unwrap();
    fill(&mut engine, topic, [1_700_000_000_003]);
    disk
}

fn golden_path(file: &str) -> std::path::PathBuf {
    let name = file.replace('/', "-");
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name)
}

#[test]
fn format_version_one_is_written_byte_for_byte() {
    let disk = golden_log();
    for file in GOLDEN {
        let bytes = read_all(&disk, &format!("log/{file}")).unwrap();
        let path = golden_path(file);
        if std::env::var_os("LEVADA_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{file} is no longer written as before");
    }
}

#[test]
fn format_version_one_is_read() {
    let disk = SimDisk::new(1);
    for file in GOLDEN {
        let path = format!("log/{file}");
        create_dir_durable(&disk, path.rsplit_once('/').unwrap().0).unwrap();
        let bytes = std::fs::read(golden_path(file)).unwrap();
        disk.open(&path, OpenMode::CreateNew).unwrap().write_at(0, &bytes).unwrap();
    }
    let clock = Arc::new(ManualClock::new(0));
    let (engine, recovery) = Engine::open(Arc::new(disk), "log", config(), clock).unwrap();
    assert_eq!((recovery.replayed_groups, recovery.quarantined), (1, vec![]));
    assert_eq!(engine.lane_name(0).unwrap().as_str(), "acme");
    let topic = topic(&engine);
    let records = engine.read(topic, 0, 10, 10_000).unwrap();
    assert_eq!(records.len(), 4);
    assert_eq!(engine.read(topic, 1, 1, 1).unwrap()[0].offset, 1, "by the index file");
    for (i, stored) in records.iter().enumerate() {
        let expected = record(topic, 1_700_000_000_000 + i as i64);
        assert_eq!(stored.offset, i as u64);
        assert_eq!((stored.lane, stored.key_id, stored.timestamp_ms), (1, 2, expected.timestamp_ms));
        assert_eq!((&stored.head, &stored.body), (&expected.head, &expected.body));
    }
    assert_eq!(engine.stats().index_rebuilds, 0);
}
