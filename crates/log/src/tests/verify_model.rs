//! One flipped bit anywhere in any file: a verification at rest tells just the records that
//! a start then shows, and calls a log clean only when nothing was lost.
//!
//! `LEVADA_SEED=n` runs one seed again, `LEVADA_CASES=n` runs so many.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, TenantId, TopicName};
use levada_disk::{Disk, SimDisk, SimRng};
use levada_log::{Append, Engine, LogConfig, LogError, TopicId, verify};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn open(disk: &SimDisk) -> Result<(Engine, levada_log::Recovery), LogError> {
    let config = LogConfig {
        commit_file_bytes: 64 << 10,
        segment_bytes: 2 << 10,
        queue_bytes: 256 << 10,
        index_interval_bytes: 512,
        min_free_bytes: 0,
        ..LogConfig::default()
    };
    Engine::open(Arc::new(disk.clone()), "log", config, Arc::new(ManualClock::new(0)))
}

/// A log with some history; all its records were confirmed.
fn log(rng: &mut SimRng) -> (SimDisk, u64) {
    let mut disk = SimDisk::new(rng.next_u64());
    let mut count = 0;
    for _ in 0..=rng.below(2) {
        let mut engine = open(&disk).unwrap().0;
        let lane = engine.lane(&TenantId::new("acme").unwrap()).unwrap();
        for _ in 0..rng.below(40) {
            let topic = TopicName::new(&format!("topic-{}", rng.below(3))).unwrap();
            let topic = engine.topic(&topic).unwrap();
            let records: Vec<_> = (0..=rng.below(4)).map(|_| record(rng, topic, lane)).collect();
            count += engine.append(&records).unwrap().len() as u64;
            if rng.one_in(10) {
                engine.checkpoint().unwrap();
            }
        }
        drop(engine);
        disk = if rng.one_in(2) { disk.crash() } else { disk.restart() };
    }
    (disk, count)
}

fn record(rng: &mut SimRng, topic: TopicId, lane: u32) -> Append {
    let body: Vec<u8> = (0..rng.below(400)).map(|_| rng.next_u64() as u8).collect();
    let timestamp_ms = rng.below(1_000).cast_signed();
    Append { topic, lane, key_id: 0, timestamp_ms, head: Bytes::from_static(b"h"), body: body.into() }
}

fn files(disk: &SimDisk, dir: &str) -> Vec<(String, u64)> {
    let entries = disk.list(dir).unwrap().into_iter();
    entries
        .flat_map(|entry| {
            let path = format!("{dir}/{}", entry.name);
            if entry.is_dir { files(disk, &path) } else { vec![(path, entry.len)] }
        })
        .collect()
}

/// How many records of a topic a reader gets who passes over damage.
fn readable(engine: &Engine, topic: TopicId) -> u64 {
    let (mut from, mut count) = (0, 0);
    loop {
        match engine.read(topic, from, 10, 1 << 20) {
            Ok(records) => {
                let Some(last) = records.last() else { return count };
                count += records.len() as u64;
                from = last.offset + 1;
            }
            Err(LogError::Corrupt(damage)) => from = damage.resume,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the seed did, for the sums at the end.
fn one_case(seed: u64) -> &'static str {
    let mut rng = SimRng::new(seed);
    let (disk, appended) = log(&mut rng);
    let files: Vec<_> = files(&disk, "log").into_iter().filter(|f| f.1 > 0).collect();
    let (path, len) = files[rng.below(files.len() as u64) as usize].clone();
    // Most of a commit file is empty: its beginning is where the groups are.
    let at = if rng.one_in(2) { rng.below(len) } else { rng.below(len.min(20_000)) };
    disk.flip_bit(&path, at, rng.below(8) as u8).unwrap();
    let what = format!("seed {seed}: a flip at byte {at} of {path}");

    let report = verify(&disk, "log", &mut |_| {}).unwrap();
    let told: BTreeMap<TopicId, u64> = report.topics.iter().map(|t| (t.id, t.records)).collect();
    let (engine, recovery) = match open(&disk) {
        Ok(opened) => opened,
        Err(error) => {
            let at_fault =
                |f: &levada_log::Finding| matches!(f.file.as_str(), "log/registry" | "log/checkpoint");
            assert!(
                report.damage.iter().any(at_fault),
                "{what}: the start says {error}, the verification {report:#?}"
            );
            return "refused";
        }
    };
    let found: BTreeMap<TopicId, u64> = told.keys().map(|t| (*t, readable(&engine, *t))).collect();
    assert_eq!(told, found, "{what}: {report:#?}\n{recovery:#?}");
    let total: u64 = told.values().sum();
    if report.is_clean() && report.commit.torn_tail.is_none() {
        assert_eq!((total, &recovery.quarantined[..]), (appended, &[][..]), "{what}: {report:#?}");
        assert_eq!(engine.quarantined(), [], "{what}");
        "clean"
    } else if total < appended {
        let loses = report.damage.iter().any(|f| f.fault.loses_records());
        assert!(loses || report.commit.torn_tail.is_some(), "{what}: {report:#?}");
        "lost"
    } else {
        "harmless"
    }
}

#[test]
fn a_verification_tells_what_a_start_shows_after_any_flipped_bit() {
    let seeds = match number("LEVADA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LEVADA_CASES").unwrap_or(1_000),
    };
    println!("seeds {seeds:?}");
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    let all = seeds.end - seeds.start > 1;
    for seed in seeds {
        *sums.entry(one_case(seed)).or_default() += 1;
    }
    println!("{sums:?}");
    assert!(!all || sums.len() == 4, "each outcome was met: {sums:?}");
}
