//! `levada log verify` on real folders: found, refused while locked, told as data.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use levada_core::{ManualClock, TopicName};
use levada_disk::RealDisk;
use levada_log::{Append, Log, LogConfig};

use super::{check, log};
use crate::args::{Cli, Command, LogArgs};
use crate::output::{Failure, Output, exit};

fn output(json: bool) -> Output {
    Output { json, color: false, progress: false }
}

/// A data folder with a log of a hundred records in several segments.
fn data() -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("temporary folder");
    File::create(temp.path().join("levada.lock")).expect("made");
    let disk = Arc::new(RealDisk::new(temp.path()).expect("disk"));
    let config = LogConfig {
        commit_file_bytes: 1 << 20,
        segment_bytes: 4 << 10,
        min_free_bytes: 0,
        ..LogConfig::default()
    };
    let (log, _) = Log::open(disk, "log", config, Arc::new(ManualClock::new(0))).expect("opens");
    let topic = log.topic(&TopicName::new("orders").expect("name")).expect("topic");
    let record = |n: u8| Append {
        topic,
        lane: 0,
        key_id: 0,
        timestamp_ms: i64::from(n),
        head: bytes::Bytes::new(),
        body: vec![n; 100].into(),
    };
    log.append_blocking((0..50).map(record).collect()).expect("appended");
    log.append_blocking((50..100).map(record).collect()).expect("appended");
    log.close().expect("closes");
    temp
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

/// Runs the command as typed.
fn run(json: bool, dir: &Path) -> Result<(), Failure> {
    let cli = Cli::try_parse_from(["levada", "log", "verify", dir.to_str().expect("text")]).expect("parses");
    let Command::Log(args) = cli.command else { panic!("another command") };
    let LogArgs { .. } = &args;
    log(&output(json), args)
}

#[test]
fn a_data_folder_and_its_log_folder_mean_the_same() {
    let data = data();
    let by_data = check(&output(false), data.path()).expect("checked");
    let by_log = check(&output(false), &data.path().join("log")).expect("checked");
    assert_eq!(by_data, by_log);
    assert!(by_data.1.is_clean() && by_data.1.topics[0].records == 100);
    run(false, data.path()).expect("clean");
    run(true, data.path()).expect("clean");
}

#[test]
fn damage_ends_with_one_and_is_told_with_place_and_mend() {
    let data = data();
    let segment = data.path().join("log/topics/0/00000000000000000000.seg");
    flip(&segment, 32 + 148 + 60);
    for json in [false, true] {
        let failure = run(json, data.path()).expect_err("damaged");
        assert_eq!((failure.code, failure.message.as_str()), (exit::FAILED, ""), "already printed");
    }
    let (folder, report) = check(&output(true), data.path()).expect("checked");
    let value = super::report::json(&folder, &report);
    assert_eq!(value["clean"], false);
    assert_eq!(value["topics"][0]["topic"], "orders");
    assert_eq!(value["topics"][0]["records"], 99);
    let damage = &value["damage"][0];
    assert_eq!(damage["code"], "record-payload");
    assert_eq!(damage["file"], "log/topics/0/00000000000000000000.seg");
    assert_eq!((&damage["position"], &damage["bytes"]), (&(32 + 148).into(), &148.into()));
    assert_eq!((&damage["first_offset"], &damage["next_offset"]), (&1.into(), &2.into()));
    assert!(damage["mend"].as_str().is_some_and(|mend| mend.contains("backup")), "{damage}");
}

#[test]
fn a_folder_whose_server_runs_is_refused_and_one_without_a_lock_file_is_not() {
    let data = data();
    let path = data.path().join("levada.lock");
    let server = File::open(&path).expect("opens");
    server.try_lock().expect("free");
    for dir in [data.path().to_owned(), data.path().join("log")] {
        let failure = run(false, &dir).expect_err("refused");
        assert_eq!(failure.code, exit::USAGE);
        assert!(failure.message.contains("a server runs on"), "{failure:?}");
    }
    drop(server);
    run(false, data.path()).expect("free again");
    let again = File::open(&path).expect("opens");
    again.try_lock().expect("the verification gave the lock up");
    drop(again);
    std::fs::remove_file(&path).expect("removed");
    run(false, data.path()).expect("a copy of a log has no lock");
    assert!(!path.exists(), "nothing was written");
}

#[test]
fn what_is_no_log_is_wrong_usage_and_a_project_is_pointed_to_its_data() {
    let temp = tempfile::tempdir().expect("temporary folder");
    for dir in [temp.path().to_owned(), temp.path().join("nowhere")] {
        let failure = run(false, &dir).expect_err("no log");
        assert_eq!(failure.code, exit::USAGE, "{failure:?}");
    }
    assert_eq!(std::fs::read_dir(temp.path()).expect("folder").count(), 0, "nothing was made");
    std::fs::create_dir(temp.path().join(".levada")).expect("made");
    std::fs::rename(data().path().join("log"), temp.path().join(".levada/log")).expect("moved");
    let failure = run(false, temp.path()).expect_err("a project");
    assert!(failure.hint.is_some_and(|hint| hint.contains(".levada")));
}
