//! Files that grow after they were read, or while they wait: what was appended is read once, and
//! no row that is cut short is stored unless it rested for the long time; then it is told.

use std::io::Write;

use super::*;

fn append(bench: &Bench, name: &str, content: &[u8]) {
    let path = bench.landing.join(name);
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(content).unwrap();
}

/// What comes within so many seconds, looking once a second.
async fn after(bench: &Bench, reader: &mut FileReader, seconds: u64) -> Vec<String> {
    let mut batches = drain(reader, 10).await.unwrap();
    for _ in 0..seconds {
        bench.clock.advance(Duration::from_secs(1));
        batches.extend(drain(reader, 10).await.unwrap());
    }
    told(&batches)
}

#[tokio::test]
async fn a_row_that_is_cut_by_a_pause_is_read_whole() {
    for pause in [3, 6, 12, 20, 40, 59] {
        let bench = Bench::new(FileFormat::Csv);
        let mut reader = bench.reader();
        append(&bench, "a.csv", b"id,n,s\n1,100,a\n2,20");
        assert!(after(&bench, &mut reader, pause).await.is_empty(), "after {pause} s");
        append(&bench, "a.csv", b"0000,b\n3,300,c\n");
        let rows = after(&bench, &mut reader, 5).await;
        assert_eq!(
            rows,
            [
                r#"2 {"id":"1","n":"100","s":"a"}"#,
                r#"3 {"id":"2","n":"200000","s":"b"}"#,
                r#"4 {"id":"3","n":"300","s":"c"}"#
            ],
            "after {pause} s"
        );
        assert_eq!(bench.archive.0.lock().len(), 1, "one whole copy in bronze");
    }
}

#[tokio::test]
async fn what_is_appended_is_read_as_new_rows_and_kept_in_bronze_once() {
    type Case<'a> = (FileFormat, &'a [&'a [u8]], &'a [&'a str]);
    let cases: [Case<'_>; 3] = [
        (
            FileFormat::Csv,
            &[b"\xEF\xBB\xBFa,b\r\n1,x\r\n", b"2,\"y\r\nz\"\r\n3,w\r\n", b"4,v\r\n"],
            &[
                r#"2 {"a":"1","b":"x"}"#,
                r#"3 {"a":"2","b":"y\r\nz"}"#,
                r#"5 {"a":"3","b":"w"}"#,
                r#"6 {"a":"4","b":"v"}"#,
            ],
        ),
        (
            FileFormat::Json,
            &[b"{\"a\":1}", b"\n{\"a\":2}\n", b"{\"a\":3}\n"],
            &["1 {\"a\":1}", "2 {\"a\":2}", "3 {\"a\":3}"],
        ),
        (
            FileFormat::Json,
            &[b"{\"a\":1}\n{\n \"a\": 2\n}\n", b"{\n \"a\": 3\n}\n"],
            &["1 {\"a\":1}", "2 {\n \"a\": 2\n}", "5 {\n \"a\": 3\n}"],
        ),
    ];
    for (format, chunks, expected) in cases {
        for packed in [false, true] {
            let mut bench = Bench::new(format);
            bench.config.source.pattern = "*".to_owned();
            let mut reader = bench.reader();
            let mut rows = Vec::new();
            let mut all = Vec::new();
            for chunk in chunks {
                let bytes = if packed { gzip(chunk) } else { chunk.to_vec() };
                all.extend_from_slice(&bytes);
                append(&bench, "a", &bytes);
                rows.extend(after(&bench, &mut reader, 5).await);
                let mut again = bench.reader();
                again.seek(Some(&stored(&reader.position()))).await.unwrap();
                reader = again;
            }
            assert_eq!(rows, expected, "packed: {packed}");
            let kept: usize = bench.archive.0.lock().values().map(Bytes::len).sum();
            assert_eq!(kept, all.len(), "bronze holds each byte once; packed: {packed}");
        }
    }
}

#[tokio::test]
async fn a_file_that_was_empty_is_read_from_its_beginning() {
    for (first, rest) in [(&b""[..], &b"a,b\n1,x\n"[..]), (b"\n\n", b"a,b\n1,x\n"), (b"a,b\n", b"1,x\n")] {
        for packed in [false, true] {
            let bench = Bench::new(FileFormat::Csv);
            let mut reader = bench.reader();
            let pack = |text: &[u8]| if packed { gzip(text) } else { text.to_vec() };
            append(&bench, "a", &pack(first));
            assert!(after(&bench, &mut reader, 5).await.is_empty());
            append(&bench, "a", &pack(rest));
            let rows = after(&bench, &mut reader, 5).await;
            assert!(rows.len() == 1 && rows[0].ends_with(r#"{"a":"1","b":"x"}"#), "{first:?}: {rows:?}");
        }
    }
}

#[tokio::test]
async fn a_last_row_without_a_line_end_is_read_after_the_long_rest() {
    let bench = Bench::new(FileFormat::Csv);
    let mut reader = bench.reader();
    append(&bench, "a.csv", b"a,b\n1,x\n2,20");
    assert!(after(&bench, &mut reader, 58).await.is_empty());
    assert_eq!(after(&bench, &mut reader, 3).await, [r#"2 {"a":"1","b":"x"}"#, r#"3 {"a":"2","b":"20"}"#]);
    // Its line end comes later: the row was whole.
    append(&bench, "a.csv", b"\n3,z\n4,40");
    assert_eq!(after(&bench, &mut reader, 61).await, [r#"4 {"a":"3","b":"z"}"#, r#"5 {"a":"4","b":"40"}"#]);
    // It goes on later: what was stored is cut short, and that is told.
    append(&bench, "a.csv", b"000\n5,v\n");
    let mut batches = Vec::new();
    for _ in 0..5 {
        bench.clock.advance(Duration::from_secs(1));
        batches.extend(drain(&mut reader, 10).await.unwrap());
    }
    assert_eq!(told(&batches), ["5 !row-grew", r#"6 {"a":"5","b":"v"}"#]);
    let grown = batches.iter().flat_map(|b| &b.rejects).next().unwrap();
    assert_eq!((&grown.record.body[..], grown.reason.contains("had 4 bytes")), (&b"4,40000"[..], true));
}

#[tokio::test]
async fn an_unfinished_record_inside_brackets_or_quotes_is_held_back() {
    for (format, first, rest, expected) in [
        (
            FileFormat::Csv,
            "a,b\n1,x\n2,\"y\n",
            "z\"\n",
            &[r#"2 {"a":"1","b":"x"}"#, r#"3 {"a":"2","b":"y\nz"}"#][..],
        ),
        (FileFormat::Json, "{\"a\":1}\n{\n \"a\": 2\n", "}\n", &["1 {\"a\":1}", "2 {\n \"a\": 2\n}"]),
        (
            FileFormat::Json,
            "[{\"a\":1},\n{\"a\":{}}",
            ",\n{\"a\":3}]\n",
            &["1 {\"a\":1}", "2 {\"a\":{}}", "3 {\"a\":3}"],
        ),
        (
            FileFormat::Json,
            "[{\"a\":1},\n{\"a\":[2]",
            "},{\"a\":3}]",
            &["1 {\"a\":1}", "2 {\"a\":[2]}", "2 {\"a\":3}"],
        ),
        (FileFormat::Json, "{\"a\":1}\n12", "3\n", &["1 {\"a\":1}", "2 123"]),
        (FileFormat::Csv, "a,b", "c\n1,x\n", &[r#"2 {"a":"1","bc":"x"}"#]),
    ] {
        let bench = Bench::new(format);
        let mut reader = bench.reader();
        append(&bench, "a", first.as_bytes());
        let mut rows = after(&bench, &mut reader, 40).await;
        let mut again = bench.reader();
        again.seek(Some(&stored(&reader.position()))).await.unwrap();
        let kept = bench.archive.0.lock().len();
        rows.extend(after(&bench, &mut again, 5).await);
        assert_eq!(bench.archive.0.lock().len(), kept, "nothing new is kept: {first:?}");
        append(&bench, "a", rest.as_bytes());
        rows.extend(after(&bench, &mut again, 5).await);
        assert_eq!(rows, expected, "{first:?} then {rest:?}");
    }
}

#[tokio::test]
async fn what_never_ends_is_told_after_the_long_rest_and_read_on_when_it_grows() {
    let bench = Bench::new(FileFormat::Json);
    let mut reader = bench.reader();
    append(&bench, "a.json", b"[{\"a\":1},\n{\"a\":");
    assert_eq!(after(&bench, &mut reader, 61).await, ["1 {\"a\":1}", "2 !json-array-open"]);
    append(&bench, "a.json", b"2},\n{\"a\":3}]\n");
    assert_eq!(after(&bench, &mut reader, 5).await, ["2 {\"a\":2}", "3 {\"a\":3}"]);

    let packed = gzip(b"{\"a\":1}\n{\"a\":2}\n");
    let (cut, rest) = packed.split_at(packed.len() - 5);
    append(&bench, "b.json.gz", cut);
    assert!(after(&bench, &mut reader, 40).await.is_empty(), "a gzip stream without an end is not complete");
    assert_eq!(after(&bench, &mut reader, 25).await, ["1 {\"a\":1}", "2 {\"a\":2}", "3 !gzip-broken"]);
    append(&bench, "b.json.gz", rest);
    append(&bench, "b.json.gz", &gzip(b"{\"a\":3}\n"));
    assert_eq!(after(&bench, &mut reader, 5).await, ["3 {\"a\":3}"]);
}

#[tokio::test]
async fn what_is_no_text_is_refused_without_waiting_for_its_end() {
    let bench = Bench::new(FileFormat::Csv);
    let mut reader = bench.reader();
    append(&bench, "a.xlsx", b"PK\x03\x04\x14\0");
    assert_eq!(after(&bench, &mut reader, 5).await, ["1 !file-format"]);
}

#[tokio::test]
async fn files_that_rested_before_the_start_are_taken_at_once() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for (later_s, rows) in [(0, 0), (5, 1), (70, 3)] {
        let mut bench = Bench::new(FileFormat::Csv);
        bench.clock = Arc::new(ManualClock::new(i64::try_from(now.as_millis()).unwrap() + later_s * 1000));
        append(&bench, "whole.csv", b"a\n1\n");
        append(&bench, "open.csv", b"a\n1\n2");
        let read = told(&drain(&mut bench.reader(), 10).await.unwrap());
        assert_eq!(read.len(), rows, "{later_s} s later: {read:?}");
    }
}

#[tokio::test]
async fn a_rewritten_file_is_told_apart_from_an_appended_one() {
    let bench = Bench::new(FileFormat::Csv);
    let mut reader = bench.reader();
    append(&bench, "a.csv", b"a,b\n1,x\n");
    assert_eq!(after(&bench, &mut reader, 5).await.len(), 1);
    fs::write(bench.landing.join("a.csv"), b"a,b\n1,y\n2,z\n").unwrap();
    assert_eq!(after(&bench, &mut reader, 5).await, ["1 !file-changed"]);
    fs::write(bench.landing.join("a.csv"), b"a,b\n").unwrap();
    assert_eq!(after(&bench, &mut reader, 5).await, ["1 !file-changed"], "shorter");
    // Replaced as a whole by its old rows and new ones: only those are new.
    let bench = Bench::new(FileFormat::Csv);
    let mut reader = bench.reader();
    bench.put("a.csv", b"a,b\n1,x");
    assert_eq!(after(&bench, &mut reader, 1).await.len(), 1);
    bench.put("b.part", b"a,b\n1,x\n2,y");
    fs::rename(bench.landing.join("b.part"), bench.landing.join("a.csv")).unwrap();
    assert_eq!(after(&bench, &mut reader, 1).await, [r#"3 {"a":"2","b":"y"}"#]);
}

#[tokio::test]
async fn a_position_of_the_first_version_is_read() {
    let bench = Bench::new(FileFormat::Json);
    bench.put("a.jsonl", "{\"a\":1}\n");
    let hash = blake3::hash(b"{\"a\":1}\n").to_hex().to_string();
    let position = serde_json::json!({
        "version": 1,
        "done": [{"name": "a.jsonl", "size": 8, "modified_ns": 5, "blake3": hash}],
    });
    let mut reader = bench.reader();
    reader.seek(Some(&position)).await.unwrap();
    assert!(drain(&mut reader, 10).await.unwrap().is_empty());
    bench.put("a.jsonl", "{\"a\":1}\n{\"a\":2}\n");
    assert_eq!(
        told(&drain(&mut reader, 10).await.unwrap()),
        ["1 !file-changed"],
        "where it ended is not known"
    );

    // A file half read goes on, from the copy in bronze.
    let text = "{\"a\":1}\n{\"a\":2}\n";
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    bench.archive.0.lock().insert(format!("acme/{}-b.jsonl", &hash[..12]), text.into());
    let position = serde_json::json!({
        "version": 1,
        "current": {"name": "b.jsonl", "size": 16, "modified_ns": 5, "blake3": hash, "again": true,
                    "arrived_ms": 0, "line": 2, "offset": 8},
    });
    let mut reader = bench.reader();
    reader.seek(Some(&position)).await.unwrap();
    let batch = read(&mut reader, 1).await;
    assert_eq!(batch.object.as_deref(), Some(format!("b.jsonl@{}", &hash[..12]).as_str()));
    assert_eq!(told(&[batch]), ["2 {\"a\":2}"]);
}
