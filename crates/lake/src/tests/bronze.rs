//! Objects as they came, and their lines as a table.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::bronze::{self, Envelope, Payload};
use crate::{BronzeObject, LakeError};

fn object(owner: &str, source: &str, date: &str, name: &str, bytes: impl Into<Vec<u8>>) -> BronzeObject {
    BronzeObject {
        tenant: tenant(owner),
        source: source.parse().unwrap(),
        date: date.into(),
        name: name.into(),
        bytes: bytes::Bytes::from(bytes.into()),
    }
}

fn archive(first: u64, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for offset in first..first + n {
        let payload = format!("{{\"n\": {offset}}}");
        let envelope = Envelope {
            offset,
            event_id: &format!("e{offset}"),
            event_type: if offset.is_multiple_of(2) { "even" } else { "odd" },
            timestamp: "2026-11-20T10:00:00.5+01:00",
            published_at_ms: NOW_MS + i64::try_from(offset).unwrap(),
            attributes: &[("k", "v")],
            payload: Payload::Json(payload.as_bytes()),
        };
        bronze::encode_line(&envelope, &mut out);
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_queryable_whatever_their_compression() {
    let (lake, dir) = real_lake();
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&archive(10, 10)).unwrap();
    let objects = [
        object("a", "clicks", "2026-11-19", "1.events.ndjson", archive(0, 10)),
        object("a", "clicks", "2026-11-20", "2.events.ndjson.gz", gz.finish().unwrap()),
        object(
            "a",
            "clicks",
            "2026-11-20",
            "3.events.ndjson.zst",
            bronze::compress(&archive(20, 10_000)).unwrap(),
        ),
    ];
    for object in objects {
        assert!(lake.archive(object).await.unwrap().created);
    }
    assert!(dir.path().join("lake/tenant=a/bronze/source=clicks/date=2026-11-19/1.events.ndjson").is_file());
    let session = session(&lake, &["a"]);
    assert_eq!(one(&session, "select count(*) from bronze.clicks").await, "10020");
    assert_eq!(one(&session, "select count(distinct event_id) from bronze.clicks").await, "10020");
    let found = rows(
        &session,
        "select tenant_id, source, date, object, line, event_id, event_type, event_time, published_at, attributes, payload
         from bronze.clicks where event_id = 'e13'",
    );
    let wanted = [
        "a",
        "clicks",
        "2026-11-20",
        "2.events.ndjson.gz",
        "4",
        "e13",
        "odd",
        "2026-11-20T09:00:00.500Z",
        "2026-11-20T00:00:00.013Z",
        "{\"k\":\"v\"}",
        "{\"n\": 13}",
    ];
    assert_eq!(found.await.unwrap(), [wanted]);
    assert_eq!(one(&session, "select count(*) from bronze.clicks where date = '2026-11-19'").await, "10");
    assert_eq!(
        one(&session, "select count(*) from bronze.clicks where event_type = 'odd' and date < '2026-11-20'")
            .await,
        "5"
    );
    assert_eq!(one(&session, "select count(*) from bronze.clicks where object like '1%'").await, "10");
    assert_eq!(one(&session, "select max(line) from bronze.clicks where tenant_id = 'a'").await, "10000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn landed_files_keep_their_lines() {
    let (lake, _dir) = real_lake();
    let csv = "id,name\r\n1,\"x\"\r\n\r\n2,caf\u{e9}\nlast";
    lake.archive(object("a", "people", "2026-11-20", "people.csv", csv)).await.unwrap();
    let broken = [b"ok\n".as_slice(), &[0xff, 0xfe], b"\n{\"event_id\":1}\n"].concat();
    lake.archive(object("a", "odd", "2026-11-20", "x.events.ndjson", broken)).await.unwrap();
    let session = session(&lake, &["a"]);
    let found =
        rows(&session, "select line, payload, event_id from bronze.people order by line").await.unwrap();
    let wanted = [
        ["1", "id,name", "NULL"],
        ["2", "1,\"x\"", "NULL"],
        ["4", "2,caf\u{e9}", "NULL"],
        ["5", "last", "NULL"],
    ];
    assert_eq!(found, wanted);
    let found = rows(&session, "select line, payload from bronze.odd order by line").await.unwrap();
    assert_eq!(found.len(), 3, "a damaged line is shown as it is: {found:?}");
    assert_eq!(found[0], ["1", "ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_immutable() {
    let (lake, _dir) = real_lake();
    let first = || object("a", "clicks", "2026-11-20", "1.jsonl", "one\n");
    assert!(lake.archive(first()).await.unwrap().created);
    assert!(!lake.archive(first()).await.unwrap().created, "the same again");
    for other in ["two\n", "one", "onex"] {
        let refused = lake.archive(object("a", "clicks", "2026-11-20", "1.jsonl", other)).await;
        assert!(matches!(refused, Err(LakeError::ObjectConflict { .. })), "{other}");
    }
    assert_eq!(one(&session(&lake, &["a"]), "select payload from bronze.clicks").await, "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_could_lead_elsewhere_are_refused() {
    let (lake, _dir) = real_lake();
    for (date, name) in [
        ("2026-11-20", "../x"),
        ("2026-11-20", "a/b"),
        ("2026-11-20", ".hidden"),
        ("2026-11-20", ""),
        ("2026-11-20", "a b"),
        ("2026-11-20", "a%2fb"),
        ("2026-13-20", "x"),
        ("../2026-11-20", "x"),
        ("2026-1-2", "x"),
    ] {
        assert!(lake.archive(object("a", "clicks", date, name, "x")).await.is_err(), "{date} {name:?}");
    }
    assert!(lake.archive(object("a", "clicks", "2026-11-20", &"x".repeat(201), "x")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_found_again_after_a_restart() {
    let (lake, dir) = real_lake();
    lake.archive(object("a", "clicks", "2026-11-20", "1.jsonl", "one\ntwo\n")).await.unwrap();
    drop(lake);
    let lake = open(Arc::new(RealDisk::new(dir.path()).unwrap()), LakeConfig::default());
    assert_eq!(one(&session(&lake, &["a"]), "select count(*) from bronze.clicks").await, "2");
    assert_eq!(
        rows(&session(&lake, &["b"]), "select * from bronze.clicks").await.unwrap_err().code,
        "sql-unknown-table"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_archive_is_an_error_and_not_an_end() {
    let (lake, _dir) = real_lake();
    let mut zst = bronze::compress(&archive(0, 5000)).unwrap();
    zst.truncate(zst.len() / 2);
    lake.archive(object("a", "clicks", "2026-11-20", "1.events.ndjson.zst", zst)).await.unwrap();
    assert!(rows(&session(&lake, &["a"]), "select count(*) from bronze.clicks").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_landed_file_that_is_empty_or_broken_hides_no_other() {
    let (lake, _dir) = real_lake();
    let gzip = |text: &[u8]| {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(text).unwrap();
        gz.finish().unwrap()
    };
    let whole = gzip(b"a\nb\n");
    let objects = [
        ("1-nothing.csv.gz", vec![]),
        ("2-of-nothing.csv.gz", gzip(b"")),
        ("3-whole.csv.gz", whole.clone()),
        ("4-cut.csv.gz", whole[..whole.len() - 4].to_vec()),
        ("5-none.csv.gz", b"not gzip at all".to_vec()),
        ("6-nothing.csv.zst", vec![]),
        ("7-plain.csv", vec![]),
    ];
    for (name, bytes) in objects {
        lake.archive(object("a", "files", "2026-11-20", name, bytes)).await.unwrap();
    }
    let query = "select object, line, payload from bronze.files order by object, line";
    assert_eq!(
        rows(&session(&lake, &["a"]), query).await.unwrap(),
        [
            ["3-whole.csv.gz", "1", "a"],
            ["3-whole.csv.gz", "2", "b"],
            ["4-cut.csv.gz", "1", "a"],
            ["4-cut.csv.gz", "2", "b"],
            ["4-cut.csv.gz", "3", "NULL"],
            ["5-none.csv.gz", "1", "NULL"]
        ],
        "a line without a payload tells where an object breaks off"
    );
}

#[test]
fn the_stored_format_is_as_it_was() {
    let golden = include_bytes!("../../testdata/archive-v1.events.ndjson");
    let mut out = archive(0, 2);
    let envelope = Envelope {
        offset: 2,
        event_id: "é\"\\",
        event_type: "t",
        timestamp: "2026-11-20T10:00:00Z",
        published_at_ms: NOW_MS,
        attributes: &[],
        payload: Payload::Bytes(&[0, 255]),
    };
    bronze::encode_line(&envelope, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(golden));
}
