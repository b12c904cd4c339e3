//! Decoding as data: each case is a schema, a body and what must come out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use levada_config::model::{Field, FieldType, Schema, TimeNumber, Validation};
use levada_core::{Attributes, Record, RecordBatchIn, SourceName, TenantId, attr};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::{Decoded, Decoder, parse_timestamp};

mod numbers;

fn field(name: &str, kind: FieldType) -> Field {
    Field {
        name: SourceName::new(name).expect("a name"),
        path: vec![name.to_owned()],
        kind,
        numbers: None,
        required: false,
        description: None,
    }
}

fn at(path: &[&str], mut field: Field) -> Field {
    field.path = path.iter().map(|p| (*p).to_owned()).collect();
    field
}

fn required(mut field: Field) -> Field {
    field.required = true;
    field
}

fn schema(fields: Vec<Field>) -> Schema {
    Schema { file: PathBuf::from("s.json"), version: "1".into(), fields, json_schema: None }
}

fn every_type() -> Schema {
    use FieldType::*;
    schema(vec![
        required(field("s", String)),
        field("i", Int64),
        field("f", Float64),
        field("b", Bool),
        field("t", Timestamp),
        field("d", Date),
        field("j", Json),
    ])
}

/// A field whose numbers have a meaning.
fn numbers(mut field: Field, form: TimeNumber) -> Field {
    field.numbers = Some(form);
    field
}

fn record(body: &[u8]) -> Record {
    Record {
        tenant: TenantId::default_tenant(),
        offset: 7,
        published_at_ms: 1_700_000_000_123,
        attributes: [(attr::EVENT_ID, "e-1"), (attr::EVENT_TYPE, "t.made")].into_iter().collect(),
        body: bytes::Bytes::copy_from_slice(body),
        original: None,
    }
}

fn decode(schema: &Schema, validation: Validation, textual: bool, bodies: &[&[u8]]) -> Decoded {
    let records = bodies.iter().map(|b| record(b)).collect();
    let input = RecordBatchIn { records, textual, ..RecordBatchIn::default() };
    Decoder::new(schema, validation).expect("a schema").decode(&input).expect("a batch")
}

/// The schema's columns of the first row, or the code and field of its failure.
fn one(schema: &Schema, validation: Validation, textual: bool, body: &str) -> Result<String, String> {
    let out = decode(schema, validation, textual, &[body.as_bytes()]);
    if let Some(f) = out.failures.first() {
        assert_eq!(out.batch.num_rows(), 0);
        assert!(!f.reason.is_empty());
        return Err(f.field.as_ref().map_or(f.code.to_owned(), |field| format!("{} {field}", f.code)));
    }
    let options = FormatOptions::default().with_null("-");
    let columns = &out.batch.columns()[1..out.batch.num_columns() - 5];
    let cells = columns.iter().map(|c| {
        // The zone as an offset: arrow's formatter knows names of zones only with another feature.
        let offset =
            c.as_primitive_opt::<TimestampMicrosecondType>().map(|t| t.clone().with_timezone("+00:00"));
        let column: &dyn Array = offset.as_ref().map_or(c.as_ref(), |t| t);
        ArrayFormatter::try_new(column, &options).expect("printable").value(0).to_string()
    });
    Ok(cells.collect::<Vec<_>>().join(" | "))
}

#[track_caller]
fn check(validation: Validation, textual: bool, body: &str, want: Result<&str, &str>) {
    let got = one(&every_type(), validation, textual, body);
    assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{validation:?} {body}");
}

#[test]
fn strict_takes_exact_types_only() {
    let ok = |body, want| check(Validation::Strict, false, body, Ok(want));
    let no = |body, want| check(Validation::Strict, false, body, Err(want));
    ok(
        r#"{"s":"a\u00e9","i":9007199254740993,"f":10.357019999999999,"b":true,"t":"2013-01-01T06:00:00Z","d":"2013-01-01","j":{"x":[1]}}"#,
        r#"aé | 9007199254740993 | 10.357019999999999 | true | 2013-01-01T06:00:00Z | 2013-01-01 | {"x":[1]}"#,
    );
    ok(r#" {"f":3,"s":""} "#, " | - | 3.0 | - | - | - | -");
    ok(r#"{"s":"x","j":"text","i":null}"#, r#"x | - | - | - | - | - | "text""#);
    no(r#"{"i":1}"#, "schema-required s");
    no(r#"{"s":null}"#, "schema-required s");
    no(r#"{"s":1}"#, "schema-type s");
    no(r#"{"s":"x","i":"1"}"#, "schema-type i");
    no(r#"{"s":"x","i":1.5}"#, "schema-type i");
    no(r#"{"s":"x","i":1.0}"#, "schema-type i");
    no(r#"{"s":"x","i":9223372036854775808}"#, "schema-type i");
    no(r#"{"s":"x","f":1e999}"#, "schema-type f");
    no(r#"{"s":"x","f":"1"}"#, "schema-type f");
    no(r#"{"s":"x","b":"true"}"#, "schema-type b");
    no(r#"{"s":"x","t":"2013-01-01 06:00:00"}"#, "schema-type t");
    no(r#"{"s":"x","t":1356998400}"#, "schema-timestamp-unit t");
    no(r#"{"s":"x","d":20130101}"#, "schema-timestamp-unit d");
    no(r#"{"s":"x","d":"2013-02-30"}"#, "schema-type d");
    no(r#"{"s":"x","z":1}"#, "schema-unknown-field z");
    no(r#"{"s":"x","s":"y"}"#, "schema-duplicate-key s");
}

#[test]
fn lenient_converts_what_loses_nothing() {
    let ok = |body, want| check(Validation::Lenient, false, body, Ok(want));
    let no = |body, want| check(Validation::Lenient, false, body, Err(want));
    ok(
        r#"{"s":1.50,"i":"42","f":" 2.5 ","b":1,"t":"2013-01-01 06:00:00","d":"2013-01-01T00:00:00Z","z":{"a":1}}"#,
        "1.50 | 42 | 2.5 | true | 2013-01-01T06:00:00Z | 2013-01-01 | -",
    );
    ok(
        r#"{"s":{"a":1},"i":12.0,"t":"20130101T000000Z"}"#,
        r#"{"a":1} | 12 | - | - | 2013-01-01T00:00:00Z | - | -"#,
    );
    ok(r#"{"s":"a","s":"b","i":9007199254740993.0}"#, "b | 9007199254740993 | - | - | - | - | -");
    ok(r#"{"s":"x","i":1e16,"b":"t"}"#, "x | 10000000000000000 | - | true | - | - | -");
    ok(r#"{"s":"NA","b":"FALSE"}"#, "NA | - | - | false | - | - | -");
    no(r#"{"i":1}"#, "schema-required s");
    no(r#"{"s":"x","i":1.5}"#, "schema-type i");
    no(r#"{"s":"x","i":9223372036854775808}"#, "schema-type i");
    no(r#"{"s":"x","i":1e400}"#, "schema-type i");
    no(r#"{"s":"x","i":"1,000"}"#, "schema-type i");
    no(r#"{"s":"x","f":"1,000.5"}"#, "schema-type f");
    no(r#"{"s":"x","f":1e400}"#, "schema-type f");
    no(r#"{"s":"x","t":1356998400}"#, "schema-timestamp-unit t");
    no(r#"{"s":"x","f":"NaN"}"#, "schema-type f");
    no(r#"{"s":"x","f":"inf"}"#, "schema-type f");
    no(r#"{"s":"x","d":"2013-01-01T01:00:00Z"}"#, "schema-type d");
    no(r#"{"s":"x","b":2}"#, "schema-type b");
}

#[test]
fn textual_values_are_parsed_and_na_is_null() {
    let ok = |body, want| check(Validation::Strict, true, body, Ok(want));
    let no = |body, want| check(Validation::Strict, true, body, Err(want));
    ok(
        r#"{"s":"EWR","i":"2013","f":"39.02","b":"true","t":"2013-01-01T06:00:00Z","d":"2013-01-01","j":"[1]"}"#,
        "EWR | 2013 | 39.02 | true | 2013-01-01T06:00:00Z | 2013-01-01 | [1]",
    );
    ok(r#"{"s":"x","i":"NA","f":"","b":"NA","t":"","d":"NA","j":""}"#, "x | - | - | - | - | - | -");
    no(r#"{"s":"NA"}"#, "schema-required s");
    no(r#"{"s":"x","f":"warm"}"#, "schema-type f");
    no(r#"{"s":"x","j":"{"}"#, "schema-type j");
    no(r#"{"s":"x","i":"12,5"}"#, "schema-type i");
    for number in
        ["20240115", "2024", "202401151000", "20240115100000", "45306", "1705312800", "1705312800.5"]
    {
        for column in ["t", "d"] {
            let body = format!(r#"{{"s":"x","{column}":"{number}"}}"#);
            check(Validation::Strict, true, &body, Err(&format!("schema-timestamp-unit {column}")));
        }
    }
}

#[test]
fn bad_bodies_fail_one_by_one_and_the_others_stand() {
    let deep = format!("{{\"s\":\"x\",\"j\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_unknown = format!("{{\"z\":{}1{},\"s\":\"x\"}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let bodies: [&[u8]; 12] = [
        b"",
        b"null",
        b"[1]",
        b"{\"s\":\"x\"",
        b"{\"s\":\"x\"}{}",
        b"{\"s\":\"\xff\"}",
        b"{\"s\":\"\\ud800\"}",
        b"\"s\"",
        b"{\"s\":\"a\nb\"}",
        deep.as_bytes(),
        deep_unknown.as_bytes(),
        b"{\"s\":\"fine\"}",
    ];
    let out = decode(&every_type(), Validation::Lenient, false, &bodies);
    let codes: Vec<_> = out.failures.iter().map(|f| (f.index, f.code)).collect();
    let malformed = "schema-malformed";
    let not_object = "schema-not-object";
    assert_eq!(
        codes,
        [
            (0, malformed),
            (1, not_object),
            (2, not_object),
            (3, malformed),
            (4, malformed),
            (5, malformed),
            (6, "schema-type"),
            (7, not_object),
            (8, malformed)
        ]
    );
    assert_eq!(out.rows, [9, 10, 11], "nesting that no column looks into is only skipped");
    assert_eq!(out.batch.num_rows(), 3);
}

#[test]
fn paths_reach_into_objects_arrays_and_the_envelope() {
    use FieldType::*;
    let s = schema(vec![
        at(&["repository", "full_name"], required(field("repo", String))),
        at(&["repository"], field("repository", Json)),
        at(&["repository", "owner", "id"], field("owner_id", Int64)),
        at(&["labels", "1", "name"], field("second_label", String)),
        at(&["@", "event_type"], field("kind", String)),
        at(&["@", "tenant_id"], field("owner", String)),
    ]);
    let body = r#"{"labels":[{"name":"a"},{"name":"b"}],"repository":{"owner":{"id":5},"full_name":"x/y"}}"#;
    assert_eq!(
        one(&s, Validation::Strict, false, body),
        Ok(r#"x/y | {"owner":{"id":5},"full_name":"x/y"} | 5 | b | t.made | default"#.to_owned())
    );
    for missing in [r#"{"repository":3}"#, r#"{"repository":null}"#, r#"{"repository":[]}"#, "{}"] {
        assert_eq!(one(&s, Validation::Strict, false, missing), Err("schema-required repo".to_owned()));
    }
    let twice = r#"{"repository":{"full_name":"a"},"repository":{"owner":{"id":1}}}"#;
    assert_eq!(
        one(&s, Validation::Lenient, false, twice),
        Err("schema-required repo".to_owned()),
        "last counts"
    );
}

#[test]
fn a_field_without_a_path_takes_the_whole_body() {
    let s = schema(vec![at(&[], field("raw", FieldType::Json)), field("n", FieldType::Int64)]);
    let body = r#" {"n":1,"other":[1, 2]} "#;
    assert_eq!(
        one(&s, Validation::Strict, false, body),
        Ok(r#"{"n":1,"other":[1, 2]} | 1"#.to_owned()),
        "nothing is undeclared then"
    );
}

#[test]
fn a_source_names_its_own_null_texts() {
    let decoder = Decoder::new(&every_type(), Validation::Strict).expect("a schema");
    let decoder = decoder.null_texts(&["-".to_owned()]);
    let records = vec![record(br#"{"s":"NA","i":"-"}"#), record(br#"{"s":"-"}"#)];
    let out = decoder.decode(&RecordBatchIn { records, textual: true, ..RecordBatchIn::default() });
    let out = out.expect("a batch");
    assert_eq!((out.rows, out.failures.len()), (vec![0], 1));
}

#[test]
fn the_envelope_fills_the_system_columns() {
    let mut late = record(br#"{"s":"x"}"#);
    late.tenant = TenantId::new("acme").expect("a tenant");
    late.attributes.set(attr::TIMESTAMP, "2013-01-01T06:00:00Z");
    let mut bare = record(br#"{"s":"y"}"#);
    bare.attributes = Attributes::new();
    let input = RecordBatchIn { records: vec![late, bare], ..RecordBatchIn::default() };
    let decoder = Decoder::new(&every_type(), Validation::Strict).expect("a schema");
    let batch = decoder.decode(&input).expect("a batch").batch;
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let want = "tenant_id s i f b t d j _event_id _event_type _event_time _ingested_at _source_offset";
    assert_eq!(names.join(" "), want);
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "acme");
    assert_eq!(batch.column(8).as_string::<i32>().value(0), "e-1");
    assert!(batch.column(8).is_null(1));
    let times = batch.column(10).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(Some(times.value(0)), parse_timestamp("2013-01-01T06:00:00Z"));
    assert_eq!(times.value(1), 1_700_000_000_123_000, "without a time of its own, when it arrived");
    assert_eq!(batch.column(12).as_primitive::<Int64Type>().value(1), 7);
}

#[test]
fn a_payload_cannot_claim_another_tenant() {
    let s = schema(vec![field("tenant_id", FieldType::String), field("n", FieldType::Int64)]);
    assert_eq!(one(&s, Validation::Lenient, false, r#"{"tenant_id":"default","n":1}"#), Ok("1".to_owned()));
    let other = one(&s, Validation::Lenient, false, r#"{"tenant_id":"acme","n":1}"#);
    assert_eq!(other, Err("schema-tenant-mismatch tenant_id".to_owned()));
}

#[test]
fn a_json_schema_document_is_checked_besides() {
    let mut s = schema(vec![field("n", FieldType::Int64), field("email", FieldType::String)]);
    s.json_schema = Some(serde_json::json!({
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}, "email": {"type": "string", "pattern": "@"}},
        "additionalProperties": false
    }));
    let run = |validation, textual, body: &str| one(&s, validation, textual, body).map(|_| ());
    assert_eq!(run(Validation::Strict, false, r#"{"n":1,"email":"a@b"}"#), Ok(()));
    assert_eq!(run(Validation::Strict, false, r#"{"n":0}"#), Err("schema-invalid n".to_owned()));
    assert_eq!(run(Validation::Strict, false, r#"{"n":1,"z":2}"#), Err("schema-invalid".to_owned()));
    assert_eq!(run(Validation::Lenient, false, r#"{"n":"1","z":2}"#), Ok(()), "coerced, undeclared dropped");
    assert_eq!(run(Validation::Lenient, false, r#"{"n":"0"}"#), Err("schema-invalid n".to_owned()));
    assert_eq!(run(Validation::Strict, true, r#"{"n":"3","email":"NA"}"#), Ok(()));
    assert_eq!(
        run(Validation::Strict, true, r#"{"n":"3","email":"x"}"#),
        Err("schema-invalid email".to_owned())
    );
    s.json_schema = Some(serde_json::json!({"type": 5}));
    assert!(Decoder::new(&s, Validation::Strict).is_err());
}

/// Random JSON, biased to what breaks parsers; sometimes damaged.
fn random_json(rng: &mut SmallRng, depth: u32) -> String {
    let atoms = [
        "null",
        "true",
        "0",
        "-0",
        "1e400",
        "-1E-400",
        "9223372036854775807",
        "1e-99999999999",
        "20240115",
        "123456789012345678901234567890123456789012345678901234567890",
        r#""20240115T10Z""#,
        "-9223372036854775809",
        "0.1",
        "1.0",
        r#""""#,
        r#""NA""#,
        r#""\ud83d\ude00""#,
        r#""\ud800""#,
        r#""a\u0000b""#,
        r#""2013-01-01""#,
        r#""2013-01-01T00:00:00Z""#,
        r#""NaN""#,
        "NaN",
        "01",
        "\"é\"",
    ];
    let keys = ["s", "i", "f", "b", "t", "d", "j", "zz", "\\u0073", "s"];
    match rng.random_range(0..10) {
        0..=5 if depth > 0 => atoms[rng.random_range(0..atoms.len())].to_owned(),
        6 if depth > 0 && depth < 5 => {
            let items: Vec<_> = (0..rng.random_range(0..3)).map(|_| random_json(rng, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ if depth < 5 => {
            let items: Vec<_> = (0..rng.random_range(0..8))
                .map(|_| {
                    format!("\"{}\":{}", keys[rng.random_range(0..keys.len())], random_json(rng, depth + 1))
                })
                .collect();
            format!("{{{}}}", items.join(" , "))
        }
        _ => "1".to_owned(),
    }
}

/// What serde_json's tree says of a body, for the fields that need no conversion.
fn reference(body: &[u8]) -> Option<BTreeMap<String, serde_json::Value>> {
    serde_json::from_slice(body).ok()
}

#[test]
fn random_bodies_never_panic_and_agree_with_a_tree() {
    let seed = std::env::var("LEVADA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed_u64);
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let s = every_type();
    for case in 0..20_000 {
        let mut body = random_json(&mut rng, 0).into_bytes();
        if rng.random_range(0..4) == 0 && !body.is_empty() {
            let at = rng.random_range(0..body.len());
            match rng.random_range(0..3) {
                0 => body.truncate(at),
                1 => body[at] = rng.random_range(0..=255),
                _ => body.insert(at, b'"'),
            }
        }
        for validation in [Validation::Strict, Validation::Lenient] {
            let out = decode(&s, validation, case % 3 == 0, &[&body]);
            assert_eq!(out.batch.num_rows() + out.failures.len(), 1);
            let Some(tree) = reference(&body) else { continue };
            if out.failures.is_empty() && validation == Validation::Strict && case % 3 != 0 {
                let text = out.batch.column(1).as_string::<i32>().value(0);
                assert_eq!(tree["s"].as_str(), Some(text), "case {case}");
                let int = out.batch.column(2);
                let got = (!int.is_null(0)).then(|| int.as_primitive::<Int64Type>().value(0));
                assert_eq!(tree.get("i").and_then(serde_json::Value::as_i64), got, "case {case}");
                let float = out.batch.column(3);
                let got = (!float.is_null(0)).then(|| float.as_primitive::<Float64Type>().value(0));
                assert_eq!(tree.get("f").and_then(serde_json::Value::as_f64), got, "case {case}");
            }
        }
    }
}
