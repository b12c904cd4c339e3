//! Verification at rest: a sound log is clean, each kind of damage is named at its place,
//! and nothing on the disk changes by it.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, TenantId, TopicName};
use levada_disk::{
    Disk, Fault as DiskFault, FaultError, OpKind, OpenMode, SimDisk, create_dir_durable, read_all,
};
use levada_log::{Append, Engine, Fault, Finding, LogConfig, TopicId, VerifyReport, verify};

const BLOCK: u64 = 4096;
const COMMIT_FILE: &str = "log/commit/0000000000000001.log";
/// Header, head and body of each record that `record` makes.
const RECORD: u64 = 48 + 4 + "body 10 ".len() as u64 + 100;

fn config() -> LogConfig {
    LogConfig {
        commit_file_bytes: 1 << 20,
        segment_bytes: 4 << 10,
        queue_bytes: 64 << 10,
        index_interval_bytes: 512,
        min_free_bytes: 0,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk) -> (Engine, TopicId) {
    let clock = Arc::new(ManualClock::new(0));
    let engine = Engine::open(Arc::new(disk.clone()), "log", config(), clock).unwrap().0;
    let topic = engine.topic(&TopicName::new("topic-a").unwrap()).unwrap();
    (engine, topic)
}

/// Numbers of two digits only, so that all records are equally long.
fn record(topic: TopicId, n: u64) -> Append {
    Append {
        topic,
        lane: 0,
        key_id: 0,
        timestamp_ms: n.cast_signed(),
        head: Bytes::from_static(b"head"),
        body: format!("body {n:>2} {}", "x".repeat(100)).into(),
    }
}

fn fill(engine: &mut Engine, topic: TopicId, numbers: std::ops::Range<u64>) {
    for n in numbers {
        engine.append(&[record(topic, n)]).unwrap();
    }
}

/// A log with several full segments, an active one, and three groups behind its checkpoint.
fn log() -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut engine, topic) = open(&disk);
    engine.lane(&TenantId::new("acme").unwrap()).unwrap();
    fill(&mut engine, topic, 0..96);
    engine.checkpoint().unwrap();
    fill(&mut engine, topic, 96..99);
    disk
}

fn segments(disk: &SimDisk) -> Vec<(String, u64, u64)> {
    let entries = disk.list("log/topics/0").unwrap().into_iter().filter(|e| e.name.ends_with(".seg"));
    entries
        .map(|e| {
            let base = e.name.trim_end_matches(".seg").parse().unwrap();
            (format!("log/topics/0/{}", e.name), base, e.len)
        })
        .collect()
}

/// Every file with its bytes.
fn contents(disk: &SimDisk, dir: &str) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in disk.list(dir).unwrap() {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir {
            out.extend(contents(disk, &path));
        } else {
            out.push((path.clone(), read_all(disk, &path).unwrap()));
        }
    }
    out
}

/// Verifies, and checks that the disk is as before and that progress was told to its end.
fn check(disk: &SimDisk) -> VerifyReport {
    let before = contents(disk, "log");
    let mut told = Vec::new();
    let report = verify(disk, "log", &mut |progress| told.push(progress)).unwrap();
    assert!(contents(disk, "log") == before, "a verification writes nothing");
    assert!(told.is_sorted_by_key(|p| p.done_bytes));
    let last = told.last().unwrap();
    assert_eq!((last.done_bytes, last.total_bytes), (report.bytes, report.bytes));
    report
}

fn only(report: &VerifyReport) -> &Finding {
    let [finding] = &report.damage[..] else { panic!("{report:#?}") };
    assert_eq!(report.damaged, 1);
    assert!(!report.is_clean());
    finding
}

fn cut(disk: &SimDisk, path: &str, len: u64) {
    disk.open(path, OpenMode::Existing).unwrap().set_len(len).unwrap();
}

fn write(disk: &SimDisk, path: &str, position: u64, bytes: &[u8]) {
    disk.open(path, OpenMode::Existing).unwrap().write_at(position, bytes).unwrap();
}

#[test]
fn the_golden_log_is_clean_and_its_numbers_are_right() {
    let disk = SimDisk::new(1);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    for file in [
        "registry",
        "checkpoint",
        "commit/0000000000000001.log",
        "topics/0/00000000000000000000.seg",
        "topics/0/00000000000000000000.idx",
        "topics/0/00000000000000000002.seg",
    ] {
        let path = format!("log/{file}");
        create_dir_durable(&disk, path.rsplit_once('/').unwrap().0).unwrap();
        let bytes = std::fs::read(folder.join(file.replace('/', "-"))).unwrap();
        disk.open(&path, OpenMode::CreateNew).unwrap().write_at(0, &bytes).unwrap();
    }
    let report = check(&disk);
    assert!(report.is_clean() && report.noticed == 0, "{report:#?}");
    let [topic] = &report.topics[..] else { panic!("{report:#?}") };
    assert_eq!(topic.name.as_ref().unwrap().as_str(), "topic-a");
    assert_eq!((topic.first, topic.next, topic.records, topic.segments), (0, 4, 4, 2));
    assert_eq!((report.commit.files, report.commit.groups, report.commit.replay_groups), (1, 4, 1));
    assert_eq!(report.commit.torn_tail, None);
}

#[test]
fn a_used_log_is_clean_and_agrees_with_what_a_start_finds() {
    let disk = log();
    let report = check(&disk);
    assert!(report.is_clean() && report.noticed == 0, "{report:#?}");
    let engine = open(&disk).0;
    let bounds = engine.bounds(TopicId(0)).unwrap();
    let topic = &report.topics[0];
    assert_eq!((topic.first, topic.next, topic.records), (bounds.first, bounds.next, 99));
    assert_eq!((topic.bytes, report.commit.replay_records), (bounds.bytes, 3));
}

#[test]
fn a_new_log_is_clean_and_no_log_is_an_error() {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    assert!(check(&disk).is_clean());
    for dir in ["", "elsewhere"] {
        let error = verify(&disk, dir, &mut |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("cannot "), "{error}");
    }
}

#[test]
fn a_flipped_bit_in_a_payload_of_an_old_segment_costs_one_record() {
    let disk = log();
    let (path, base, _) = segments(&disk)[1].clone();
    let at = 32 + 3 * RECORD;
    disk.flip_bit(&path, at + 60, 5).unwrap();
    let report = check(&disk);
    let found = only(&report);
    assert_eq!((&found.file, found.position, found.bytes), (&path, at, RECORD));
    assert_eq!((found.topic, found.offsets.clone()), (Some(TopicId(0)), Some(base + 3..base + 4)));
    assert_eq!(found.fault, Fault::RecordPayload);
    assert_eq!((report.topics[0].records, report.topics[0].next, report.topics[0].damaged), (98, 99, 1));
}

#[test]
fn a_flipped_bit_in_a_record_header_costs_what_readers_pass_over() {
    let disk = log();
    let (path, base, _) = segments(&disk)[1].clone();
    disk.flip_bit(&path, 32 + RECORD + 44, 0).unwrap();
    let report = check(&disk);
    let found = only(&report).clone();
    assert_eq!((&found.fault, found.position), (&Fault::RecordHeader, 32 + RECORD));
    let lost = found.offsets.unwrap();
    let (engine, topic) = open(&disk);
    let error = engine.read(topic, base + 1, 10, 1 << 20).unwrap_err();
    let levada_log::LogError::Corrupt(damage) = error else { panic!("{error}") };
    assert_eq!(lost, damage.offset..damage.resume, "as a reader sees it");
    assert_eq!(report.topics[0].records, 99 - (lost.end - lost.start));
    assert_eq!(found.bytes, RECORD * (lost.end - lost.start));
}

#[test]
fn the_header_of_a_segment_is_looked_at_too() {
    let disk = log();
    let (path, ..) = segments(&disk)[2].clone();
    disk.flip_bit(&path, 17, 0).unwrap();
    let report = check(&disk);
    assert_eq!((&only(&report).fault, &only(&report).file), (&Fault::SegmentHeader, &path));
    assert!(!Fault::SegmentHeader.loses_records());
    assert_eq!(report.topics[0].records, 99);
}

#[test]
fn a_truncated_segment_is_told_with_the_offsets_that_it_lost() {
    for (segment, records, more) in [(1, 4, 7), (1, 4, 0), (1, 0, 0), (2, 9, 60)] {
        let disk = log();
        let (path, base, _) = segments(&disk)[segment].clone();
        let next = segments(&disk)[segment + 1].1;
        let len = 32 + records * RECORD + more;
        cut(&disk, &path, len);
        let report = check(&disk);
        let found = only(&report);
        assert_eq!(found.fault, Fault::SegmentCut, "{segment} {records} {more}");
        assert_eq!((&found.file, found.position), (&path, 32 + records * RECORD));
        assert_eq!(found.offsets, Some(base + records..next));
        assert_eq!(report.topics[0].records, 99 - (next - base - records));
    }
}

#[test]
fn a_truncated_active_segment_lost_what_the_checkpoint_confirmed() {
    let disk = log();
    let (path, base, _) = segments(&disk).last().unwrap().clone();
    cut(&disk, &path, 32 + RECORD + 5);
    let report = check(&disk);
    let found = only(&report);
    assert_eq!((&found.fault, &found.file), (&Fault::SegmentCut, &path));
    assert_eq!(found.offsets, Some(base + 1..96));
    assert_eq!((report.topics[0].next, report.commit.replay_records), (99, 3));
}

#[test]
fn a_missing_segment_is_told_whether_its_index_is_there_or_not() {
    for (i, with_index) in [(1, false), (1, true), (2, true)] {
        let disk = log();
        let (path, base, _) = segments(&disk)[i].clone();
        let next = segments(&disk)[i + 1].1;
        disk.remove(&path).unwrap();
        if with_index {
            disk.remove(&path.replace(".seg", ".idx")).unwrap();
        }
        let report = check(&disk);
        let found = only(&report);
        let expected = if with_index { Fault::OffsetsMissing } else { Fault::SegmentMissing };
        assert_eq!((&found.fault, found.offsets.clone()), (&expected, Some(base..next)));
        assert!(with_index || found.file == path, "{found:?}");
    }
    let disk = log();
    let (path, base, _) = segments(&disk).last().unwrap().clone();
    disk.remove(&path).unwrap();
    let report = check(&disk);
    assert_eq!(only(&report).fault, Fault::SegmentMissing, "the active one");
    assert_eq!(only(&report).offsets, Some(base..96));
    for entry in disk.list("log/topics/0").unwrap() {
        disk.remove(&format!("log/topics/0/{}", entry.name)).unwrap();
    }
    let report = check(&disk);
    assert_eq!((&only(&report).fault, report.topics[0].records), (&Fault::SegmentMissing, 3));
}

#[test]
fn a_damaged_index_is_told_and_costs_nothing() {
    let disk = log();
    let path = segments(&disk)[1].0.replace(".seg", ".idx");
    disk.flip_bit(&path, 40, 2).unwrap();
    let report = check(&disk);
    let found = only(&report);
    assert_eq!((&found.fault, &found.file), (&Fault::IndexDamaged, &path));
    assert!(!found.fault.loses_records() && found.fault.mend().contains("rebuilt"), "{}", found.fault.mend());
    assert_eq!(report.topics[0].records, 99);

    disk.remove(&path).unwrap();
    let report = check(&disk);
    assert!(report.is_clean(), "without an index nothing is lost");
    assert_eq!((report.noticed, &report.notices[0].fault), (1, &Fault::IndexMissing));
}

#[test]
fn an_index_that_does_not_agree_with_its_segment_is_told() {
    let disk = log();
    let path = segments(&disk)[1].0.replace(".seg", ".idx");
    let mut bytes = read_all(&disk, &path).unwrap();
    // The position of the second entry, and the checksum made right again.
    bytes[32 + 24 + 8] ^= 1;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    write(&disk, &path, 0, &bytes);
    let report = check(&disk);
    assert_eq!((&only(&report).fault, &only(&report).file), (&Fault::IndexWrong, &path));
}

#[test]
fn a_torn_tail_of_the_commit_log_is_told_and_is_no_damage() {
    let disk = log();
    let last = BLOCK * 99;
    disk.flip_bit(COMMIT_FILE, last + 100, 1).unwrap();
    let report = check(&disk);
    assert!(report.is_clean(), "{report:#?}");
    let torn = report.commit.torn_tail.clone().unwrap();
    assert_eq!((torn.file.as_str(), torn.position, torn.bytes), (COMMIT_FILE, last, BLOCK));
    assert_eq!((report.topics[0].records, report.topics[0].next), (98, 98));
    let clock = Arc::new(ManualClock::new(0));
    let (engine, recovery) = Engine::open(Arc::new(disk), "log", config(), clock).unwrap();
    assert_eq!((recovery.cut_bytes, engine.bounds(TopicId(0)).unwrap().next), (BLOCK, 98));
}

#[test]
fn damage_in_the_middle_of_the_commit_log_names_the_group_and_the_offsets() {
    for at in [3, 100] {
        let disk = log();
        let group = BLOCK * 98;
        disk.flip_bit(COMMIT_FILE, group + at, 1).unwrap();
        let report = check(&disk);
        let [found, gap] = &report.damage[..] else { panic!("{report:#?}") };
        assert_eq!((&found.fault, found.position, found.bytes), (&Fault::CommitGroup, group, BLOCK));
        assert_eq!((&gap.fault, gap.offsets.clone()), (&Fault::OffsetsMissing, Some(97..98)));
        assert_eq!(report.commit.torn_tail, None);
        // A start takes note of it; what it passed over is no news afterwards.
        drop(open(&disk));
        let report = check(&disk);
        assert!(report.is_clean() && report.noticed > 0, "{report:#?}");
    }
}

#[test]
fn damage_before_the_checkpoint_is_worth_a_notice_only() {
    let disk = log();
    disk.flip_bit(COMMIT_FILE, BLOCK * 3 + 100, 1).unwrap();
    let report = check(&disk);
    assert!(report.is_clean());
    let [notice] = &report.notices[..] else { panic!("{report:#?}") };
    assert_eq!((&notice.fault, notice.position, notice.bytes), (&Fault::CommitGroup, BLOCK * 3, BLOCK));
}

#[test]
fn damaged_and_missing_commit_files_are_named() {
    let disk = log();
    disk.flip_bit(COMMIT_FILE, 9, 1).unwrap();
    let report = check(&disk);
    assert_eq!(only(&report).fault, Fault::CommitFileHeader);
    assert_eq!(report.topics[0].records, 99, "its groups are still found");
    disk.flip_bit(COMMIT_FILE, BLOCK + 9, 1).unwrap();
    let report = check(&disk);
    assert_eq!(only(&report).fault, Fault::CommitFileLost);
    assert_eq!(report.topics[0].records, 96, "a start takes the file as unused");
    disk.remove(COMMIT_FILE).unwrap();
    assert_eq!(only(&check(&disk)).fault, Fault::CommitFileMissing);
}

#[test]
fn the_checkpoint_and_the_registry_are_checked_and_the_rest_is_still_counted() {
    for file in ["log/checkpoint", "log/registry"] {
        let disk = log();
        disk.flip_bit(file, 14, 1).unwrap();
        let report = check(&disk);
        assert_eq!(only(&report).file, file);
        assert_eq!(report.topics[0].records, 99, "{file}");
        disk.remove(file).unwrap();
        let report = check(&disk);
        assert!(report.damage.iter().any(|f| f.file == file), "{report:#?}");
        assert_eq!(report.topics[0].records, 99, "{file} missing");
    }
}

#[test]
fn names_at_the_end_of_the_registry_that_records_use_cannot_have_been_unconfirmed() {
    let disk = log();
    let len = disk.metadata("log/registry").unwrap().len;
    // The last frame names the only tenant.
    disk.flip_bit("log/registry", len - 1, 0).unwrap();
    let report = check(&disk);
    let found = only(&report);
    assert!(matches!(&found.fault, Fault::Registry(reason) if reason.contains("tenant 0")), "{found:?}");
    assert_eq!(found.position + found.bytes, len);
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    let disk = log();
    let segment = segments(&disk)[1].0.clone();
    let index = segment.replace(".seg", ".idx");
    for (path, kind) in [
        (segment.as_str(), OpKind::Open),
        (segment.as_str(), OpKind::Read),
        (index.as_str(), OpKind::Read),
        (COMMIT_FILE, OpKind::Read),
        ("log/checkpoint", OpKind::Read),
        ("log/registry", OpKind::Open),
    ] {
        disk.fail(DiskFault { kind, path: path.into(), nth: 1, error: FaultError::Io });
        let report = verify(&disk, "log", &mut |_| {}).unwrap();
        let found = report.damage.iter().find(|f| matches!(f.fault, Fault::Unreadable(_)));
        let found = found.unwrap_or_else(|| panic!("{path}: {report:#?}"));
        assert_eq!(found.file, path);
        assert!(report.topics[0].records >= 99 - 26, "{path}: {report:#?}");
        assert!(check(&disk).is_clean(), "{path}: the next look finds it well again");
    }
}

#[test]
fn damage_of_a_whole_region_is_one_finding() {
    let disk = log();
    let (path, base, len) = segments(&disk)[1].clone();
    let next = segments(&disk)[2].1;
    write(&disk, &path, 32, &vec![0; (len - 32) as usize]);
    let report = check(&disk);
    let found = only(&report);
    assert_eq!((found.position, found.bytes, found.offsets.clone()), (32, len - 32, Some(base..next)));
}
