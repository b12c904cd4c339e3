//! Which files are taken, when, and how often.

use super::*;
use crate::listing;

#[test]
fn patterns_match_names() {
    for (pattern, name, fits) in [
        ("*", "", true),
        ("*.csv", "a.csv", true),
        ("*.csv", "a.csv.gz", false),
        ("a*b*c", "aXbYbZc", true),
        ("a*b*c", "aXbYbZ", false),
        ("day-??.json", "day-07.json", true),
        ("day-??.json", "day-7.json", false),
        ("é?.csv", "éà.csv", true),
    ] {
        assert_eq!(listing::matches(pattern, name), fits, "{pattern} on {name}");
    }
}

#[tokio::test]
async fn a_file_is_taken_once_it_rests_and_never_again() {
    let bench = Bench::new(FileFormat::Json);
    let mut reader = bench.reader();
    let path = bench.landing.join("a.jsonl");
    fs::write(&path, "{\"a\":1}\n").unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "it may still be written");
    bench.clock.advance(Duration::from_secs(2));
    fs::write(&path, "{\"a\":1}\n{\"a\":2}\n").unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "it has grown");
    bench.clock.advance(Duration::from_secs(2));
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "it has rested too short a time");
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(told(&drain(&mut reader, 10).await.unwrap()), ["1 {\"a\":1}", "2 {\"a\":2}"]);
    assert!(drain(&mut reader, 10).await.unwrap().is_empty());
    fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "touched, not changed");
    let mut again = bench.reader();
    again.seek(Some(&stored(&reader.position()))).await.unwrap();
    assert!(drain(&mut again, 10).await.unwrap().is_empty(), "known after a restart");
}

#[tokio::test]
async fn a_rename_or_times_set_at_the_end_prove_a_file_whole_and_a_chmod_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(FileFormat::Csv);
    let mut reader = bench.reader();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty());
    let part = bench.landing.join("a.csv.part");
    fs::write(&part, "a,b\n1,x").unwrap();
    fs::rename(&part, bench.landing.join("a.csv")).unwrap();
    assert_eq!(told(&drain(&mut reader, 10).await.unwrap()), [r#"2 {"a":"1","b":"x"}"#], "renamed");

    let folder = bench.landing.join("../elsewhere");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("c.csv"), "a,b\n3,z").unwrap();
    fs::rename(&folder, bench.landing.join("day")).unwrap();
    assert_eq!(
        told(&drain(&mut reader, 10).await.unwrap()),
        [r#"2 {"a":"3","b":"z"}"#],
        "its folder moved in"
    );

    let path = bench.landing.join("b.csv");
    fs::write(&path, "a,b\n1,x\n2,y").unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty());
    std::thread::sleep(Duration::from_millis(1100));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "a chmod proves nothing");
    fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(drain(&mut reader, 10).await.unwrap()[0].records.len(), 2, "its copier set its own time");
}

#[tokio::test]
async fn names_that_say_unfinished_and_links_are_left_alone() {
    let mut bench = Bench::new(FileFormat::Json);
    let unfinished =
        ["a.jsonl.tmp", "b.jsonl.part", "b.jsonl.filepart", "b.jsonl.PARTIAL", "b.jsonl.swp", "b.jsonl~"];
    for name in unfinished.into_iter().chain([".hidden.jsonl", "c.csv", ".d/e.jsonl"]) {
        bench.put(name, "{}\n");
    }
    bench.put("deep/er/f.jsonl", "{\"f\":1}\n");
    let outside = bench.landing.join("../secret.jsonl");
    fs::write(&outside, "{\"secret\":1}\n").unwrap();
    std::os::unix::fs::symlink(&outside, bench.landing.join("link.jsonl")).unwrap();
    bench.config.source.pattern = "*.jsonl*".to_owned();
    let batches = drain(&mut bench.reader(), 10).await.unwrap();
    assert_eq!(told(&batches), ["1 {\"f\":1}"]);
    assert_eq!(batches[0].object.as_deref(), Some("deep/er/f.jsonl"));
    fs::rename(bench.landing.join("a.jsonl.tmp"), bench.landing.join("a.jsonl")).unwrap();
    let told_now = told(&drain(&mut bench.reader(), 10).await.unwrap());
    assert_eq!(told_now.len(), 2, "renamed in: {told_now:?}");
}

#[tokio::test]
async fn a_changed_file_is_a_new_version_or_a_reject() {
    for (policy, rows, rejects) in
        [(ChangedFile::NewVersion, 3, vec![]), (ChangedFile::Reject, 1, vec!["file-changed"])]
    {
        let mut bench = Bench::new(FileFormat::Json);
        bench.config.changed = policy;
        let mut reader = bench.reader();
        bench.put("a.jsonl", "{\"a\":1}\n");
        let mut batches = drain(&mut reader, 10).await.unwrap();
        bench.put("a.jsonl", "{\"a\":3}\n{\"a\":2}\n");
        batches.extend(drain(&mut reader, 10).await.unwrap());
        let mut again = bench.reader();
        again.seek(Some(&stored(&reader.position()))).await.unwrap();
        batches.extend(drain(&mut again, 10).await.unwrap());
        assert_eq!(batches.iter().map(|b| b.records.len()).sum::<usize>(), rows, "{policy:?}");
        assert_eq!(codes(&batches), rejects, "{policy:?}");
        let objects: Vec<&str> = batches.iter().filter_map(|b| b.object.as_deref()).collect();
        assert!(objects[0] == "a.jsonl" && objects[1].starts_with("a.jsonl@"), "{objects:?}");
        let kept = bench.archive.0.lock().len();
        assert_eq!(kept, if policy == ChangedFile::Reject { 1 } else { 2 }, "versions in bronze");

        // What is appended to a version that was not read is not read either.
        bench.put("a.jsonl", "{\"a\":3}\n{\"a\":2}\n{\"a\":9}\n");
        let more = drain(&mut again, 10).await.unwrap();
        let nine: &[&str] =
            if policy == ChangedFile::Reject { &["1 !file-changed"] } else { &["3 {\"a\":9}"] };
        assert_eq!(told(&more), nine);
        assert!(more[0].object.as_deref().unwrap().starts_with("a.jsonl@"), "no line of two versions meets");
    }
}

#[tokio::test]
async fn a_file_that_changes_or_goes_while_it_is_read_is_read_as_it_was() {
    for (what, change) in [
        ("removed", (|path| fs::remove_file(path).unwrap()) as fn(&Path)),
        ("cut", |path| fs::write(path, "{").unwrap()),
    ] {
        let bench = Bench::new(FileFormat::Json);
        bench.put("a.jsonl", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
        let mut reader = bench.reader();
        assert_eq!(told(&[read(&mut reader, 1).await]), ["1 {\"a\":1}"]);
        change(&bench.landing.join("a.jsonl"));
        assert_eq!(told(&[read(&mut reader, 1).await]), ["2 {\"a\":2}"], "{what}");
        let position = stored(&reader.position());
        // The spooled copy is gone too: the bronze copy serves.
        fs::remove_dir_all(bench._dir.path().join("data/connect/orders/spool")).unwrap();
        let mut again = bench.reader();
        again.seek(Some(&position)).await.unwrap();
        assert_eq!(told(&[read(&mut again, 1).await]), ["3 {\"a\":3}"], "{what}");
    }
}

#[tokio::test]
async fn the_rest_of_a_file_that_is_nowhere_is_told_as_lost() {
    let bench = Bench::new(FileFormat::Json);
    bench.put("a.jsonl", "{\"a\":1}\n{\"a\":2}\n");
    let mut reader = bench.reader();
    read(&mut reader, 1).await;
    let position = stored(&reader.position());
    fs::remove_dir_all(bench._dir.path().join("data/connect/orders/spool")).unwrap();
    fs::remove_file(bench.landing.join("a.jsonl")).unwrap();
    bench.archive.0.lock().clear();
    let mut again = bench.reader();
    again.seek(Some(&position)).await.unwrap();
    let batches = drain(&mut again, 10).await.unwrap();
    assert_eq!(told(&batches), ["2 !file-lost"]);
}

#[tokio::test]
async fn a_schedule_opens_the_folder_at_its_times_only() {
    let mut bench = Bench::new(FileFormat::Json);
    bench.config.source.schedule = Some("0 3 * * *".to_owned());
    bench.put("a.jsonl", "{\"a\":1}\n");
    let mut reader = bench.reader();
    // 22:13 UTC: nothing is due.
    assert!(drain(&mut reader, 10).await.unwrap().is_empty());
    bench.clock.advance(Duration::from_secs(5 * 3600));
    assert_eq!(told(&drain(&mut reader, 10).await.unwrap()), ["1 {\"a\":1}"]);
    bench.put("b.jsonl", "{\"b\":1}\n");
    assert!(drain(&mut reader, 10).await.unwrap().is_empty(), "the run is over");
    let position = stored(&reader.position());
    // Three nights pass while nothing runs: they count once, at once.
    bench.clock.advance(Duration::from_secs(72 * 3600));
    let mut again = bench.reader();
    again.seek(Some(&position)).await.unwrap();
    assert_eq!(told(&drain(&mut again, 10).await.unwrap()), ["1 {\"b\":1}"]);
}

#[tokio::test]
async fn a_schedule_that_is_none_is_refused() {
    let mut bench = Bench::new(FileFormat::Json);
    bench.config.source.schedule = Some("every day".to_owned());
    let archive: Arc<dyn Archive> = bench.archive.clone();
    let made = FileReader::new(bench.config.clone(), archive, bench.disk.clone(), "c", bench.clock.clone());
    assert!(made.err().unwrap().message.contains("every day"));
}

#[tokio::test]
async fn a_file_too_large_is_told_and_left() {
    let mut bench = Bench::new(FileFormat::Json);
    bench.config.limits.file_bytes = 10;
    bench.put("big.jsonl", "{\"a\":\"0123456789\"}\n");
    let batches = drain(&mut bench.reader(), 10).await.unwrap();
    assert_eq!(codes(&batches), ["file-too-large"]);
}

#[tokio::test]
async fn a_position_of_many_files_stays_small_and_forgets_none() {
    let bench = Bench::new(FileFormat::Json);
    for i in 0..1000 {
        bench.put(&format!("{i:04}.jsonl"), format!("{{\"i\":{i}}}\n"));
    }
    let mut reader = bench.reader();
    let mut rows = 0;
    let mut positions = vec![];
    for batch in drain(&mut reader, 1).await.unwrap() {
        rows += batch.records.len();
        positions.push(stored(&reader.position()));
    }
    assert_eq!(rows, 1000);
    let position = stored(&reader.position());
    assert!(position.to_string().len() < 60_000, "{} bytes", position.to_string().len());
    let mut again = bench.reader();
    again.seek(Some(&position)).await.unwrap();
    assert!(drain(&mut again, 1).await.unwrap().is_empty());

    let ledger = bench._dir.path().join("data/connect/orders/done.jsonl");
    let mut bytes = fs::read(&ledger).unwrap();
    bytes[100] ^= 1;
    fs::write(&ledger, bytes).unwrap();
    let error = bench.reader().seek(Some(&position)).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("done.jsonl"), "{error}");
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let bench = Bench::new(FileFormat::Json);
    let rows: String = (0..200).map(|i| format!("{{\"i\":{i}}}\n")).collect();
    bench.put("a.jsonl", rows);
    let mut reader = bench.reader();
    let mut seen = Vec::new();
    for turn in 0..2000 {
        let read = reader.read(3, usize::MAX, Duration::ZERO);
        if turn % 2 == 0 {
            // Polled once, then dropped.
            tokio::select! { biased; batch = read => seen.extend(told(&[batch.unwrap()])), () = std::future::ready(()) => {} }
        } else {
            seen.extend(told(&[read.await.unwrap()]));
        }
    }
    let expected: Vec<String> = (0..200).map(|i| format!("{} {{\"i\":{i}}}", i + 1)).collect();
    assert_eq!(seen, expected);
}
