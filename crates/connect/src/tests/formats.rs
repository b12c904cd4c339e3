//! What each format yields, row by row, bad rows included; in batches of every size, since a
//! batch may end anywhere and a restart may happen after any batch.

use super::*;

/// Reads one file in batches of 1, 2, 3 and many rows, each time with a restart through the
/// stored position after every batch, and compares what was told.
async fn check(format: FileFormat, name: &str, content: &[u8], expected: &[&str]) {
    for rows in [1, 2, 3, 1000] {
        let bench = Bench::new(format);
        bench.put(name, content);
        let mut told_all = Vec::new();
        let mut position: Option<Value> = None;
        for _ in 0..expected.len() + 2 {
            let mut reader = bench.reader();
            reader.seek(position.as_ref()).await.unwrap();
            let batch = read(&mut reader, rows).await;
            told_all.extend(told(&[batch]));
            position = Some(stored(&reader.position()));
        }
        assert_eq!(told_all, expected, "{name} in batches of {rows}");
    }
}

#[tokio::test]
async fn csv_rows_become_objects_of_texts() {
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("plain", b"a,b\n1,x\n2,y\n", &[r#"2 {"a":"1","b":"x"}"#, r#"3 {"a":"2","b":"y"}"#]),
        ("no last line feed", b"a,b\n1,x", &[r#"2 {"a":"1","b":"x"}"#]),
        (
            "crlf and bom",
            b"\xEF\xBB\xBFa,b\r\n1,x\r\n2,\r\n",
            &[r#"2 {"a":"1","b":"x"}"#, r#"3 {"a":"2","b":""}"#],
        ),
        (
            "quotes",
            b"a,b\n\"1,5\",\"say \"\"hi\"\"\"\n3,4\n",
            &[r#"2 {"a":"1,5","b":"say \"hi\""}"#, r#"3 {"a":"3","b":"4"}"#],
        ),
        (
            "a field of two lines",
            b"a,b\n1,\"x\ny\"\n2,z\n",
            &[r#"2 {"a":"1","b":"x\ny"}"#, r#"4 {"a":"2","b":"z"}"#],
        ),
        ("blank lines", b"\na,b\n\n1,x\n\n\n2,y\n\n", &[r#"4 {"a":"1","b":"x"}"#, r#"7 {"a":"2","b":"y"}"#]),
        ("an unnamed column", b",a\n1,2\n", &[r#"2 {"column_1":"1","a":"2"}"#]),
        ("repeated columns", b",a,a\n1,2,3\n", &["1 !csv-header"]),
        ("a NUL", b"a,b\n1,x\0y\n2,z\n", &["2 !csv-nul", r#"3 {"a":"2","b":"z"}"#]),
        (
            "carriage returns alone",
            b"a,b\r1,x\r\r2,y,z\r3,w",
            &[r#"2 {"a":"1","b":"x"}"#, "4 !csv-ragged-row", r#"5 {"a":"3","b":"w"}"#],
        ),
        ("control characters", b"a\n\x01\\\t\n", &["2 {\"a\":\"\\u0001\\\\\\t\"}"]),
        (
            "ragged rows",
            b"a,b\n1\n2,x\n3,y,z\n4,w\n",
            &["2 !csv-ragged-row", r#"3 {"a":"2","b":"x"}"#, "4 !csv-ragged-row", r#"5 {"a":"4","b":"w"}"#],
        ),
        ("invalid utf-8", b"a,b\n\xC3,\xA9\n2,x\n", &["2 !invalid-utf8", r#"3 {"a":"2","b":"x"}"#]),
        (
            "a quote never closed",
            b"a,b\n1,\"x\n2,y\n3,z\n",
            &["2 !csv-open-quote", r#"3 {"a":"2","b":"y"}"#, r#"4 {"a":"3","b":"z"}"#],
        ),
        (
            "a quote closed lines later",
            b"a,b\n1,\"x\n2,y\n3,\"z\"\n4,w\n",
            &[
                "2 !csv-open-quote",
                r#"3 {"a":"2","b":"y"}"#,
                r#"4 {"a":"3","b":"z"}"#,
                r#"5 {"a":"4","b":"w"}"#,
            ],
        ),
        (
            "a quote inside a bare field",
            b"a,b\n5\",x\n6,y",
            &[r#"2 {"a":"5\"","b":"x"}"#, r#"3 {"a":"6","b":"y"}"#],
        ),
        ("header only", b"a,b\n", &[]),
        ("empty", b"", &[]),
        ("utf-16", b"\xFF\xFEa\0,\0b\0", &["1 !file-encoding"]),
        ("utf-16 without a mark", b"a\0,\0b\0\n\0", &["1 !file-encoding"]),
        ("a workbook", b"PK\x03\x04\x14\0\x06\0", &["1 !file-format"]),
        ("zstd", b"\x28\xB5\x2F\xFD\x04\0", &["1 !file-format"]),
        ("a column that is called as Parquet begins", b"PAR1,b\n1,2\n", &[r#"2 {"PAR1":"1","b":"2"}"#]),
        ("broken header", b"a,\xFF\n1,2\n", &["1 !csv-header"]),
    ];
    for (name, content, expected) in cases {
        check(FileFormat::Csv, name, content, expected).await;
    }
}

#[tokio::test]
async fn json_lines_and_arrays_yield_their_values() {
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("lines", b"{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}", &["1 {\"a\":1}", "3 {\"a\":2}", "4 {\"a\":3}"]),
        (
            "broken lines",
            b"{\"a\":1}\n{\"a\":\n\xFF\xFF\n{\"a\":4}\n",
            &["1 {\"a\":1}", "2 !json-syntax", "3 !invalid-utf8", "4 {\"a\":4}"],
        ),
        (
            "array",
            b" [ {\"a\":[1,2]},\n{\"a\":\"]},{\\\"\"} ,{}]\n",
            &["1 {\"a\":[1,2]}", "2 {\"a\":\"]},{\\\"\"}", "2 {}"],
        ),
        (
            "array with a bad element",
            b"[{\"a\":1},\n{\"a\":},\n{\"a\":3}]",
            &["1 {\"a\":1}", "2 !json-syntax", "3 {\"a\":3}"],
        ),
        ("array cut short", b"[{\"a\":1},\n{\"a\":", &["1 {\"a\":1}", "2 !json-array-open"]),
        ("array never closed", b"[{\"a\":1}, \n", &["1 {\"a\":1}", "2 !json-array-open"]),
        ("text after the array", b"[{\"a\":1}]\nrest\n", &["1 {\"a\":1}", "2 !json-trailing"]),
        ("empty array", b"[]", &[]),
        (
            "objects over many lines",
            b"{\n  \"a\": 1,\n  \"b\": [\n    {\"c\": 2}\n  ]\n}\n{\"a\":3}\n\n{\n\"a\": 4\n}{\n\"a\": 5}",
            &[
                "1 {\n  \"a\": 1,\n  \"b\": [\n    {\"c\": 2}\n  ]\n}",
                "7 {\"a\":3}",
                "9 {\n\"a\": 4\n}",
                "11 {\n\"a\": 5}",
            ],
        ),
        ("two on a line", b"{\"a\":1} {\"a\":2}{\"a\":3}\n", &["1 {\"a\":1}", "1 {\"a\":2}", "1 {\"a\":3}"]),
        ("text behind a value", b"{\"a\":1} x\n{\"a\":2}\n", &["1 !json-syntax", "2 {\"a\":2}"]),
        (
            "a broken object over many lines makes no row of its parts",
            b"{\n  \"a\": [\n    {\"b\": 1},\n    {\"b\": 2}\n  ],\n  oops\n}\n{\"a\":9}\n",
            &["1 !json-syntax", "8 {\"a\":9}"],
        ),
        (
            "an object that the file cuts short",
            b"{\"a\":1}\n{\n  \"a\": [\n    {\"b\": 2}\n",
            &["1 {\"a\":1}", "2 !json-syntax"],
        ),
    ];
    for (name, content, expected) in cases {
        check(FileFormat::Json, name, content, expected).await;
    }
}

#[tokio::test]
async fn a_record_that_is_too_long_costs_itself_only() {
    let long = "x".repeat(200_000);
    let csv = format!("a,b\n1,{long}\n2,y\n3,\"{long}\n4,z\n");
    let expected =
        ["2 !line-too-long", r#"3 {"a":"2","b":"y"}"#, "4 !line-too-long", r#"5 {"a":"4","b":"z"}"#];
    check(FileFormat::Csv, "long.csv", csv.as_bytes(), &expected).await;
    let lines = format!("{{\"a\":\"{long}\"}}\n{{\"a\":2}}\n");
    check(FileFormat::Json, "long.jsonl", lines.as_bytes(), &["1 !line-too-long", "2 {\"a\":2}"]).await;
    let array = format!("[{{\"a\":\"{long}\"}},\n{{\"a\":2}}]");
    check(FileFormat::Json, "long.json", array.as_bytes(), &["1 !line-too-long", "2 {\"a\":2}"]).await;
}

#[tokio::test]
async fn a_value_of_many_lines_may_be_too_long_too() {
    let inner: String = (0..9000).map(|i| format!("  \"k{i}\": [{i}],\n")).collect();
    let text = format!("{{\n{inner}  \"z\": 1\n}}\n{{\"a\":2}}\n");
    check(FileFormat::Json, "long.json", text.as_bytes(), &["1 !line-too-long", "9004 {\"a\":2}"]).await;
}

#[tokio::test]
async fn gzip_is_known_by_its_bytes() {
    let two = [gzip(b"{\"a\":1}\n"), gzip(b"{\"a\":2}\n")].concat();
    check(FileFormat::Json, "plain-name.jsonl", &two, &["1 {\"a\":1}", "2 {\"a\":2}"]).await;
    check(FileFormat::Json, "nothing.jsonl.gz", &gzip(b""), &[]).await;
    check(FileFormat::Json, "empty.jsonl.gz", b"", &[]).await;
    check(FileFormat::Json, "twice.jsonl.gz", &gzip(&two), &["1 !file-format"]).await;
    let zip = b"PK\x03\x04\x14\0\x06\0";
    check(FileFormat::Json, "zip.jsonl.gz", &gzip(zip), &["1 !file-format"]).await;
    let bench = Bench::new(FileFormat::Json);
    bench.put("plain-name.jsonl", &two);
    bench.put("empty.jsonl.gz", b"");
    drain(&mut bench.reader(), 10).await.unwrap();
    let mut ends: Vec<String> =
        bench.archive.0.lock().keys().map(|k| k.rsplit('.').next().unwrap().to_owned()).collect();
    ends.sort();
    assert_eq!(ends, ["gz", "raw"], "a bronze name ends as the lake reads it");
}

#[tokio::test]
async fn gzip_is_read_and_what_breaks_is_told_with_its_place() {
    let rows: String =
        (0..5000).map(|i| format!("{{\"i\":{i},\"noise\":\"{}\"}}\n", i * 7919 % 104_729)).collect();
    let packed = gzip(rows.as_bytes());
    let two_members = [gzip(b"{\"a\":1}\n"), gzip(b"{\"a\":2}\n")].concat();
    check(FileFormat::Json, "two.jsonl.gz", &two_members, &["1 {\"a\":1}", "2 {\"a\":2}"]).await;

    let bench = Bench::new(FileFormat::Json);
    bench.put("whole.jsonl.gz", &packed);
    bench.put("cut.jsonl.gz", &packed[..packed.len() / 2]);
    bench.put("not.jsonl.gz", rows.as_bytes());
    let mut reader = bench.reader();
    let batches = drain(&mut reader, 1000).await.unwrap();
    let count = |name: &str| -> usize {
        batches.iter().filter(|b| b.object.as_deref() == Some(name)).map(|b| b.records.len()).sum()
    };
    assert_eq!(count("whole.jsonl.gz"), 5000);
    assert_eq!(count("not.jsonl.gz"), 0);
    let cut = count("cut.jsonl.gz");
    assert!((1000..4999).contains(&cut), "rows before the break are kept: {cut}");
    assert_eq!(codes(&batches), ["gzip-broken", "gzip-broken"]);
    let line_of = |name: &str| {
        let batch = batches.iter().rfind(|b| b.object.as_deref() == Some(name)).unwrap();
        batch.rejects[0].record.offset
    };
    assert_eq!(line_of("cut.jsonl.gz"), cut as u64 + 1);
    assert_eq!(line_of("not.jsonl.gz"), 1);
}

#[tokio::test]
async fn a_gzip_bomb_is_cut() {
    let mut bench = Bench::new(FileFormat::Json);
    bench.config.limits.ratio = 100;
    bench
        .put("bomb.jsonl.gz", gzip(format!("{{\"a\":\"{}\"}}\n", "0".repeat(900)).repeat(90_000).as_bytes()));
    let mut reader = bench.reader();
    let batches = drain(&mut reader, 1 << 20).await.unwrap();
    assert_eq!(codes(&batches), ["gzip-broken"]);
    let rows: usize = batches.iter().map(|b| b.records.len()).sum();
    assert!((1..80_000).contains(&rows), "{rows} rows came out");
}

#[tokio::test]
async fn a_year_of_weather_comes_out_whole_and_verbatim() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/weather/nyc-2013-hourly.csv");
    let Ok(content) = fs::read(&file) else {
        assert!(std::env::var_os("CI").is_none(), "the real input is missing: {}", file.display());
        return;
    };
    let bench = Bench::new(FileFormat::Csv);
    bench.put("nyc-2013-hourly.csv", &content);
    let mut reader = bench.reader();
    let batches = drain(&mut reader, 4096).await.unwrap();
    assert!(codes(&batches).is_empty());
    let mut rebuilt = content.split(|b| *b == b'\n').next().unwrap().to_vec();
    rebuilt.push(b'\n');
    let mut rows = 0;
    for batch in &batches {
        assert!(batch.textual);
        for record in &batch.records {
            rows += 1;
            assert_eq!(record.offset, rows + 1);
            assert_eq!(record.tenant.as_str(), "acme");
            rebuilt.extend_from_slice(record.original());
            rebuilt.push(b'\n');
        }
    }
    assert_eq!(rows, 26_115);
    assert!(rebuilt == content, "the originals are the file, byte for byte");
    let first: Value = serde_json::from_slice(&batches[0].records[0].body).unwrap();
    assert_eq!(first["time_hour"], "2013-01-01T06:00:00Z");
    assert_eq!(first["wind_gust"], "NA");
    assert_eq!(bench.archive.0.lock().values().next().unwrap(), &content);
}
