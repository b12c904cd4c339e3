//! Appends that are answered before their fsync: what a kill and a power loss leave of them.
//!
//! `LEVADA_SEED=n` begins with that seed, `LEVADA_CASES=n` runs so many.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, TopicName};
use levada_disk::{Fault, FaultError, OpKind, SimDisk, SimRng};
use levada_log::{Append, Durability, Log, LogConfig, TopicId, verify};

const CLASSES: [(Durability, &str); 3] = [
    (Durability::Fsync, "topic-fsync"),
    (Durability::Interval, "topic-interval"),
    (Durability::Memory, "topic-memory"),
];
/// Nothing is synced by the time of day in a test that does not want it.
const NEVER_MS: u64 = 3_600_000;

fn config(sync_interval_ms: u64) -> LogConfig {
    LogConfig {
        commit_file_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        group_bytes: 16 << 10,
        queue_bytes: 32 << 10,
        index_interval_bytes: 1 << 10,
        min_free_bytes: 0,
        sync_interval_ms,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk, sync_interval_ms: u64) -> (Log, Vec<TopicId>) {
    let clock = Arc::new(ManualClock::new(1_000));
    let log = Log::open(Arc::new(disk.clone()), "log", config(sync_interval_ms), clock).unwrap().0;
    let names: Vec<TopicName> = CLASSES.iter().map(|(_, name)| TopicName::new(name).unwrap()).collect();
    let topics = log.ensure_topics(&names).unwrap();
    (log, topics)
}

fn record(topic: TopicId, body: &str) -> Append {
    Append {
        topic,
        lane: 0,
        key_id: 0,
        timestamp_ms: 1_000,
        head: Bytes::from_static(b"head"),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// Every body of a topic; its offsets have no gaps.
fn bodies(log: &Log, topic: TopicId) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let records = log.read(topic, found.len() as u64, 1_000, 1 << 20).unwrap();
        if records.is_empty() {
            return found;
        }
        for record in records {
            assert_eq!(record.offset, found.len() as u64);
            found.push(String::from_utf8(record.body.to_vec()).unwrap());
        }
    }
}

/// The next operation of a kind on the commit log fails.
fn next(kind: OpKind, error: FaultError) -> Fault {
    Fault { kind, path: "log/commit/*".to_owned(), nth: 1, error }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Random appends of all classes, then a kill or a power loss, several times on one disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_keeps_what_it_promises() {
    let first = setting("LEVADA_SEED", 0);
    for seed in first..first + setting("LEVADA_CASES", 150) {
        let mut rng = SimRng::new(seed);
        let mut disk = SimDisk::new(seed);
        let mut model: [Vec<String>; 3] = Default::default();
        for round in 0..3 {
            let interval_ms = if rng.one_in(3) { 1 } else { NEVER_MS };
            let (log, topics) = open(&disk, interval_ms);
            // A memory class may be behind a kill; what is there is known at the start.
            for (class, topic) in topics.iter().enumerate() {
                let found = bodies(&log, *topic);
                assert!(model[class].starts_with(&found), "seed {seed}: {found:?} of {:?}", model[class]);
                model[class] = found;
            }
            let mut flushed = model.clone();
            for n in 0..rng.below(60) {
                let class = rng.below(3) as usize;
                let texts: Vec<String> = (0..1 + rng.below(3))
                    .map(|i| format!("{round}-{n}-{i} {}", "x".repeat(rng.below(900) as usize)))
                    .collect();
                let records = texts.iter().map(|text| record(topics[class], text)).collect();
                let offsets = log.append_as(records, CLASSES[class].0).await.unwrap();
                assert_eq!(offsets[0], model[class].len() as u64, "seed {seed}");
                model[class].extend(texts);
                if rng.one_in(20) {
                    log.flush().await.unwrap();
                    flushed = model.clone();
                }
            }
            let seen: Vec<u64> = topics.iter().map(|topic| log.bounds(*topic).next).collect();
            let power = rng.one_in(2);
            disk = if power { disk.crash() } else { disk.restart() };
            drop(log);
            let report = verify(&disk, "log", &mut |_| {}).unwrap();
            assert!(report.damage.is_empty(), "seed {seed}: {:?}", report.damage);
            let (log, topics) = open(&disk, NEVER_MS);
            for (class, topic) in topics.iter().enumerate() {
                let (durability, name) = CLASSES[class];
                let found = bodies(&log, *topic);
                assert!(model[class].starts_with(&found), "seed {seed} {name}: not what was written");
                assert!(found.len() as u64 >= seen[class], "seed {seed} {name}: readers saw more");
                assert!(found.len() >= flushed[class].len(), "seed {seed} {name}: a flush was answered");
                let whole = match durability {
                    Durability::Fsync => true,
                    Durability::Interval => !power,
                    Durability::Memory => false,
                };
                assert!(
                    !whole || found == model[class],
                    "seed {seed} {name}: power {power}, lost answered records"
                );
                model[class] = found;
            }
            disk = disk.restart();
            drop(log);
        }
    }
}

#[tokio::test]
async fn readers_see_a_record_within_the_interval_and_not_before_it_is_durable() {
    let disk = SimDisk::new(1);
    let (log, topics) = open(&disk, NEVER_MS);
    let mut end = log.watch(topics[1]);
    log.append_as(vec![record(topics[1], "early")], Durability::Interval).await.unwrap();
    assert_eq!(*end.borrow_and_update(), 0, "answered, and not durable yet");
    log.append(vec![record(topics[0], "sure")]).await.unwrap();
    end.wait_for(|end| *end == 1).await.unwrap();
    drop(log);
    let (log, topics) = open(&disk, 5);
    let mut end = log.watch(topics[2]);
    log.append_as(vec![record(topics[2], "soon")], Durability::Memory).await.unwrap();
    end.wait_for(|end| *end == 1).await.unwrap();
}

#[tokio::test]
async fn a_sync_that_fails_later_poisons_and_is_told_to_the_next() {
    let disk = SimDisk::new(1);
    let (log, topics) = open(&disk, NEVER_MS);
    log.append_as(vec![record(topics[1], "early")], Durability::Interval).await.unwrap();
    disk.fail(next(OpKind::SyncData, FaultError::Io));
    assert!(log.flush().await.is_err());
    // A second fsync would succeed, as on Linux; it must not make anything count.
    assert!(log.flush().await.is_err());
    assert_eq!(log.bounds(topics[1]).next, 0, "what is not durable is not shown");
    let refused = log.append_as(vec![record(topics[1], "more")], Durability::Memory).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(log.stats().poisoned.is_some());
}

#[tokio::test]
async fn what_memory_could_not_write_is_counted() {
    let disk = SimDisk::new(1);
    let (log, topics) = open(&disk, NEVER_MS);
    log.append(vec![record(topics[0], "opens the file")]).await.unwrap();
    disk.fail(next(OpKind::Write, FaultError::DiskFull));
    log.append_as(vec![record(topics[2], "lost")], Durability::Memory).await.unwrap();
    log.flush().await.unwrap();
    assert_eq!(log.stats().lost_records, 1);
    let offsets = log.append_as(vec![record(topics[2], "kept")], Durability::Memory).await.unwrap();
    log.flush().await.unwrap();
    log.watch(topics[2]).wait_for(|end| *end == 1).await.unwrap();
    assert_eq!((offsets, bodies(&log, topics[2])), (vec![0], vec!["kept".to_owned()]));
}

#[tokio::test]
async fn a_close_makes_everything_durable() {
    let disk = SimDisk::new(1);
    let (log, topics) = open(&disk, NEVER_MS);
    for (class, (durability, _)) in CLASSES.iter().enumerate() {
        log.append_as(vec![record(topics[class], "last")], *durability).await.unwrap();
    }
    log.close().unwrap();
    let (log, topics) = open(&disk.crash(), NEVER_MS);
    for topic in topics {
        assert_eq!(bodies(&log, topic), ["last"]);
    }
}

/// Without the sync before a new commit file, a power loss could leave a hole in the middle.
#[tokio::test]
async fn a_commit_file_is_durable_before_the_next_begins() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (log, topics) = open(&disk, NEVER_MS);
        let body = "x".repeat(3_000);
        for _ in 0..60 {
            log.append_as(vec![record(topics[1], &body)], Durability::Interval).await.unwrap();
        }
        let crashed = disk.crash();
        drop(log);
        let (log, topics) = open(&crashed, NEVER_MS);
        assert!(bodies(&log, topics[1]).len() >= 20, "seed {seed}: the first file is whole");
    }
}
