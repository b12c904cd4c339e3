//! What the log does when the disk fails, fills up or forgets: it poisons, waits or
//! quarantines, and always names what it found.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, TopicName};
use levada_disk::{Disk, Fault, FaultError, OpKind, SimDisk, SyncKind, read_all};
use levada_log::{Append, Engine, Log, LogConfig, LogError, Recovery, TopicId};

const BLOCK: u64 = 4096;

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

fn try_open(disk: &SimDisk, config: LogConfig) -> Result<(Engine, Recovery), LogError> {
    Engine::open(Arc::new(disk.clone()), "log", config, Arc::new(ManualClock::new(0)))
}

fn open(disk: &SimDisk) -> (Engine, TopicId) {
    let engine = try_open(disk, config()).unwrap().0;
    let topic = engine.topic(&TopicName::new("topic-a").unwrap()).unwrap();
    (engine, topic)
}

fn record(topic: TopicId, n: u64) -> Append {
    Append {
        topic,
        lane: 0,
        key_id: 0,
        timestamp_ms: n.cast_signed(),
        head: Bytes::from_static(b"head"),
        body: format!("body {n} {}", "x".repeat(100)).into(),
    }
}

/// Appends records `from..to`, a group each.
fn fill(engine: &mut Engine, topic: TopicId, from: u64, to: u64) {
    for n in from..to {
        assert_eq!(engine.append(&[record(topic, n)]).unwrap(), [n]);
    }
}

fn offsets(engine: &Engine, topic: TopicId, from: u64) -> Vec<u64> {
    let mut out: Vec<u64> = Vec::new();
    loop {
        let next = out.last().map_or(from, |o| o + 1);
        let records = engine.read(topic, next, 100, 1 << 20).unwrap();
        if records.is_empty() {
            return out;
        }
        for r in &records {
            assert!(r.body.starts_with(format!("body {} ", r.timestamp_ms).as_bytes()));
        }
        out.extend(records.iter().map(|r| r.offset));
    }
}

fn span(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn a_failed_sync_of_the_commit_log_poisons_it_for_good() {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    fill(&mut engine, topic, 0, 5);
    disk.fail(Fault { kind: OpKind::SyncData, path: "log/commit/*".into(), nth: 1, error: FaultError::Io });
    for _ in 0..2 {
        let error = engine.append(&[record(topic, 5)]).unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }) && !error.is_retryable(), "{error}");
    }
    assert!(engine.stats().poisoned.is_some());
    assert_eq!(offsets(&engine, topic, 0), span(0..5), "what was confirmed stays readable");
    // A new process reads the unconfirmed group from the page cache; if it shows it, it
    // must have made it durable by its own means.
    let killed = disk.restart();
    let (engine, topic) = open(&killed);
    let seen = offsets(&engine, topic, 0);
    let (mut engine, topic) = open(&killed.crash());
    assert_eq!(offsets(&engine, topic, 0), seen);
    fill(&mut engine, topic, seen.len() as u64, 10);
}

#[test]
fn a_failed_sync_at_a_checkpoint_poisons_too() {
    for path in ["log/topics/*.seg", "log/checkpoint.tmp"] {
        let disk = SimDisk::new(1);
        let (mut engine, topic) = open(&disk);
        fill(&mut engine, topic, 0, 5);
        disk.fail(Fault { kind: OpKind::SyncData, path: path.into(), nth: 1, error: FaultError::Io });
        assert!(matches!(engine.checkpoint(), Err(LogError::Poisoned { .. })), "{path}");
        assert!(matches!(engine.append(&[record(topic, 5)]), Err(LogError::Poisoned { .. })), "{path}");
        let (engine, topic) = open(&disk.crash());
        assert_eq!(offsets(&engine, topic, 0), span(0..5), "{path}");
    }
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else_until_there_is_space() {
    for capacity in (258..330).step_by(3).map(|kib| kib << 10) {
        let disk = SimDisk::new(capacity);
        disk.set_capacity(Some(capacity));
        let (mut engine, topic) = open(&disk);
        let mut confirmed = 0;
        let error = loop {
            match engine.append(&[record(topic, confirmed)]) {
                Ok(offsets) => assert_eq!(offsets, [confirmed]),
                Err(error) => break error,
            }
            confirmed += 1;
        };
        assert!(matches!(error, LogError::Full) && error.is_retryable(), "{error}");
        assert!(matches!(engine.append(&[record(topic, confirmed)]), Err(LogError::Full)));
        let visible = offsets(&engine, topic, 0);
        assert!(visible.len() as u64 + 1 >= confirmed, "readable: {} of {confirmed}", visible.len());
        disk.set_capacity(None);
        fill(&mut engine, topic, confirmed, confirmed + 50);
        assert_eq!(offsets(&engine, topic, 0), span(0..confirmed + 50));
        let (engine, topic) = open(&disk.crash());
        assert_eq!(offsets(&engine, topic, 0), span(0..confirmed + 50), "capacity {capacity}");
    }
}

#[test]
fn appends_are_refused_before_the_last_space_is_gone() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(1 << 20));
    let config = LogConfig { min_free_bytes: 900 << 10, ..config() };
    let mut engine = try_open(&disk, config).unwrap().0;
    let topic = engine.topic(&TopicName::new("topic-a").unwrap()).unwrap();
    assert_eq!(engine.append(&[record(topic, 0)]).unwrap(), [0], "the space is looked at once per MiB");
    drop(engine);
    let config = LogConfig { min_free_bytes: 900 << 10, ..self::config() };
    let mut engine = try_open(&disk, config).unwrap().0;
    assert!(matches!(engine.append(&[record(topic, 0)]), Err(LogError::Full)));
    disk.set_capacity(Some(8 << 20));
    assert_eq!(engine.append(&[record(topic, 1)]).unwrap(), [1]);
}

#[test]
fn the_threads_go_on_by_themselves_once_there_is_space() {
    let disk = SimDisk::new(1);
    let log = Log::open(Arc::new(disk.clone()), "log", config(), Arc::new(ManualClock::new(0))).unwrap().0;
    let topic = log.topic(&TopicName::new("topic-a").unwrap()).unwrap();
    disk.set_capacity(Some(262 << 10));
    let mut confirmed = 0;
    while log.append_blocking(vec![record(topic, confirmed)]).is_ok() {
        confirmed += 1;
    }
    disk.set_capacity(None);
    // The demultiplexer tries again every 100 ms; until then the answer is `Full`.
    loop {
        match log.append_blocking(vec![record(topic, confirmed)]) {
            Ok(offsets) => break assert_eq!(offsets, [confirmed]),
            Err(error) => assert!(matches!(error, LogError::Full), "{error}"),
        }
        std::thread::yield_now();
    }
    log.close().unwrap();
    let (engine, topic) = open(&disk.crash());
    assert_eq!(offsets(&engine, topic, 0), span(0..confirmed + 1));
}

/// Where a record begins in a segment: all bodies of numbers of one length are equal long.
fn segments(disk: &SimDisk, topic: TopicId) -> Vec<(String, u64, u64)> {
    let dir = format!("log/topics/{topic}");
    let entries = disk.list(&dir).unwrap().into_iter().filter(|e| e.name.ends_with(".seg"));
    entries
        .map(|e| (format!("{dir}/{}", e.name), e.name.trim_end_matches(".seg").parse().unwrap(), e.len))
        .collect()
}

#[test]
fn a_flipped_bit_in_an_old_record_is_named_and_quarantined_and_the_rest_stays_readable() {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    fill(&mut engine, topic, 0, 10);
    fill(&mut engine, topic, 10, 100);
    engine.checkpoint().unwrap();
    drop(engine);
    let before = segments(&disk, topic);
    assert!(before.len() > 2, "{before:?}");
    let (path, base, _) = before[1].clone();
    let record_len = 48 + 4 + "body 10 ".len() as u64 + 100;
    let damaged = base + 3;
    disk.flip_bit(&path, 32 + 3 * record_len + 60, 5).unwrap();
    let (engine, topic) = open(&disk);
    let good = engine.read(topic, 0, 1_000, 1 << 20).unwrap();
    assert_eq!(good.last().unwrap().offset, damaged - 1, "good records come first");
    for _ in 0..2 {
        let Err(LogError::Corrupt(damage)) = engine.read(topic, damaged, 10, 1 << 20) else {
            panic!("the damage was not noticed");
        };
        assert_eq!((damage.topic, damage.offset, damage.resume), (topic, damaged, damaged + 1));
        assert_eq!((&damage.file, damage.position), (&path, 32 + 3 * record_len));
    }
    assert_eq!(offsets(&engine, topic, damaged + 1), span(damaged + 1..100));
    let found = engine.quarantined();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].bytes, engine.stats().quarantined), (record_len, 1));
    let original = read_all(&disk, &path).unwrap();
    let at = 32 + 3 * record_len as usize;
    let copy = found[0].copy.clone().unwrap();
    let after_crash = disk.crash();
    let copied = read_all(&after_crash, &copy).unwrap();
    assert_eq!(copied, original[at..at + record_len as usize], "the copy is durable");
    assert_eq!(segments(&after_crash, topic), before, "nothing was cut away");
}

#[test]
fn a_damaged_header_costs_what_lies_before_the_next_index_entry() {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    fill(&mut engine, topic, 0, 100);
    engine.checkpoint().unwrap();
    let (path, base, _) = segments(&disk, topic)[1].clone();
    let record_len = 48 + 4 + "body 10 ".len() as u64 + 100;
    disk.flip_bit(&path, 32 + record_len + 44, 0).unwrap();
    drop(engine);
    let (engine, topic) = open(&disk);
    let Err(LogError::Corrupt(damage)) = engine.read(topic, base + 1, 10, 1 << 20) else {
        panic!("the damage was not noticed");
    };
    assert_eq!(damage.offset, base + 1);
    assert!((base + 2..base + 6).contains(&damage.resume), "{damage}");
    assert_eq!(offsets(&engine, topic, damage.resume), span(damage.resume..100));
}

#[test]
fn quarantined_copies_need_their_syncs() {
    let survives = |skip: Option<(SyncKind, &str)>| {
        (0..60).all(|seed| {
            let disk = SimDisk::new(seed);
            let (mut engine, topic) = open(&disk);
            fill(&mut engine, topic, 0, 60);
            engine.checkpoint().unwrap();
            let (path, base, _) = segments(&disk, topic)[0].clone();
            disk.flip_bit(&path, 32 + 60, 5).unwrap();
            if let Some((kind, pattern)) = skip {
                disk.skip_syncs(kind, pattern);
            }
            assert!(engine.read(topic, base, 10, 1 << 20).is_err());
            let found = engine.quarantined()[0].clone();
            let copy = read_all(&disk.crash(), &found.copy.unwrap()).unwrap_or_default();
            copy.len() as u64 == found.bytes && copy.ends_with(b"xxx")
        })
    };
    assert!(survives(None));
    assert!(!survives(Some((SyncKind::File, "log/quarantine/*"))));
    assert!(!survives(Some((SyncKind::Dir, "log/quarantine"))));
    assert!(!survives(Some((SyncKind::Dir, "log"))));
}

const COMMIT_FILE: &str = "log/commit/0000000000000001.log";

#[test]
fn a_torn_group_at_the_end_is_cut() {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    fill(&mut engine, topic, 0, 4);
    let disk = disk.crash();
    disk.flip_bit(COMMIT_FILE, BLOCK * 4 + 100, 1).unwrap();
    let (mut engine, recovery) = try_open(&disk, config()).unwrap();
    assert_eq!((recovery.replayed_groups, recovery.cut_bytes), (3, BLOCK), "{recovery:?}");
    assert_eq!(recovery.quarantined, []);
    assert_eq!(offsets(&engine, topic, 0), span(0..3));
    fill(&mut engine, topic, 3, 6);
}

#[test]
fn damage_in_the_middle_of_the_commit_log_is_quarantined_and_no_offset_is_given_twice() {
    for at in [BLOCK * 2 + 3, BLOCK * 2 + 100] {
        let disk = SimDisk::new(1);
        let (mut engine, topic) = open(&disk);
        fill(&mut engine, topic, 0, 4);
        let disk = disk.crash();
        disk.flip_bit(COMMIT_FILE, at, 1).unwrap();
        let damaged = read_all(&disk, COMMIT_FILE).unwrap()[BLOCK as usize * 2..BLOCK as usize * 3].to_vec();
        let (mut engine, recovery) = try_open(&disk, config()).unwrap();
        assert_eq!((recovery.replayed_groups, recovery.cut_bytes), (3, 0), "{recovery:?}");
        let [found] = &recovery.quarantined[..] else { panic!("{recovery:?}") };
        assert_eq!((found.file.as_str(), found.position, found.bytes), (COMMIT_FILE, BLOCK * 2, BLOCK));
        assert_eq!(read_all(&disk, found.copy.as_ref().unwrap()).unwrap(), damaged);
        assert_eq!(offsets(&engine, topic, 0), [0, 2, 3]);
        let next = engine.append(&[record(topic, 9)]).unwrap()[0];
        assert!(next > 3, "the lost records may have had offsets up to {next}");
        let (engine, recovery) = try_open(&disk.crash(), config()).unwrap();
        assert_eq!(recovery.quarantined, [], "reported once");
        assert_eq!(offsets(&engine, topic, 0), [0, 2, 3, next]);
    }
}

#[test]
fn a_commit_file_with_a_damaged_header_still_gives_its_groups() {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    fill(&mut engine, topic, 0, 4);
    let disk = disk.crash();
    disk.flip_bit(COMMIT_FILE, 9, 1).unwrap();
    let (engine, _) = try_open(&disk, config()).unwrap();
    assert_eq!(offsets(&engine, topic, 0), span(0..4));
}

#[test]
fn a_damaged_checkpoint_or_registry_is_named_and_nothing_is_guessed() {
    for file in ["log/checkpoint", "log/registry"] {
        let disk = SimDisk::new(1);
        let (mut engine, topic) = open(&disk);
        fill(&mut engine, topic, 0, 4);
        engine.lane(&levada_core::TenantId::new("acme").unwrap()).unwrap();
        engine.checkpoint().unwrap();
        disk.flip_bit(file, 14, 1).unwrap();
        match try_open(&disk, config()) {
            Err(LogError::CorruptFile { file: named, .. }) => assert_eq!(named, file),
            other => panic!("{file}: {other:?}"),
        }
        disk.flip_bit(file, 14, 1).unwrap();
        assert_eq!(offsets(&open(&disk).0, topic, 0), span(0..4), "nothing was overwritten");
        disk.remove(file).unwrap();
        assert!(matches!(try_open(&disk, config()), Err(LogError::CorruptFile { .. })), "{file} missing");
    }
}
