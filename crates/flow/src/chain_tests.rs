//! The chain as data: rows in, what comes out, what fails, what is dropped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema as ArrowSchema, SchemaRef};
use async_trait::async_trait;
use levada_config::model::{Check, Deduplicate, Enrich, Field, FieldType, Rule, Schema, Step, Validation};
use levada_core::{Attributes, Record, RecordBatchIn, SourceName, TenantId};
use levada_schema::Decoder;

use crate::chain::{Built, Chain, StepMaker};
use crate::rows;
use crate::shares::Shares;
use crate::steps::{BuildError, Fault, Passed, StepError, Transform};

const NOW_MS: i64 = 1_700_000_000_000;

fn name(text: &str) -> SourceName {
    SourceName::new(text).expect("a name")
}

fn schema() -> Schema {
    let field = |n: &str, kind| Field {
        name: name(n),
        path: vec![n.to_owned()],
        kind,
        numbers: None,
        required: false,
        description: None,
    };
    let fields = vec![
        field("id", FieldType::String),
        field("n", FieldType::Int64),
        field("email", FieldType::String),
        field("at", FieldType::Timestamp),
        field("day", FieldType::Date),
    ];
    Schema { file: PathBuf::from("s.json"), version: "1".into(), fields, json_schema: None }
}

fn dedup(key: &[&str]) -> Step {
    let key = key.iter().map(|k| name(k)).collect();
    Step::Deduplicate(Deduplicate { key, window: Duration::from_secs(3600), max_keys: 100 })
}

fn quality(rules: &[(&str, Check)]) -> Step {
    Step::Quality {
        rules: rules.iter().map(|(f, check)| Rule { field: name(f), check: check.clone() }).collect(),
    }
}

/// Makes a step that refuses rows whose `n` is 13: a stand-in for enrichment.
struct Maker;

struct Refuse13;

#[async_trait]
impl Transform for Refuse13 {
    async fn run(&self, batch: RecordBatch) -> Result<Passed, StepError> {
        let numbers = rows::numbers(&batch).expect("row numbers").clone();
        let n = batch.column_by_name("n").expect("a column").as_primitive::<Int64Type>().clone();
        let bad: Vec<bool> = (0..n.len()).map(|at| n.is_valid(at) && n.value(at) == 13).collect();
        let faults = (0..n.len()).filter(|at| bad[*at]).map(|at| Fault {
            row: numbers.value(at),
            stage: "stub".into(),
            code: "thirteen",
            reason: "13".into(),
            attempts: 1,
        });
        let faults = faults.collect();
        Ok(Passed { batch: rows::keep(&batch, bad.iter().map(|b| !b).collect())?, faults })
    }
}

impl StepMaker for Maker {
    fn enrich(&self, _: &Enrich, _: &ArrowSchema) -> Result<Built, BuildError> {
        Err(BuildError::new("enrich", "not in this test"))
    }

    fn sql(&self, _: &str, input: SchemaRef) -> Result<Built, BuildError> {
        Ok((Box::new(Refuse13), input))
    }
}

struct Bench {
    decoder: Decoder,
    chain: Chain,
    steps: Vec<Step>,
    /// Duplicates of the last run by tenant.
    dropped: BTreeMap<String, u64>,
}

impl Bench {
    fn new(steps: &[Step]) -> Self {
        let decoder = Decoder::new(&schema(), Validation::Strict).expect("a schema");
        let chain = Chain::build(steps, decoder.schema(), &Maker).expect("a chain");
        Self { decoder, chain, steps: steps.to_vec(), dropped: BTreeMap::new() }
    }

    /// Values of `n` that come out, `row code` of failures, and the number of duplicates.
    async fn run(&mut self, at_ms: i64, bodies: &[(&str, &str)]) -> (Vec<i64>, Vec<String>, u64) {
        let records: Vec<Record> = bodies
            .iter()
            .map(|(tenant, body)| Record {
                tenant: TenantId::new(tenant).expect("a tenant"),
                offset: 0,
                published_at_ms: at_ms,
                attributes: Attributes::new(),
                body: bytes::Bytes::copy_from_slice(body.as_bytes()),
                original: None,
            })
            .collect();
        let times = vec![at_ms; records.len()];
        let input = RecordBatchIn { records, ..RecordBatchIn::default() };
        let decoded = self.decoder.decode(&input).expect("decodes");
        assert!(decoded.failures.is_empty(), "{:?}", decoded.failures);
        let done = self.chain.process(&decoded.batch, decoded.rows, &times, NOW_MS).await.expect("no defect");
        let mut out = Vec::new();
        for batch in &done.batches {
            assert_eq!(batch.schema_ref(), self.chain.output());
            out.extend(batch.column_by_name("n").expect("n").as_primitive::<Int64Type>().iter().flatten());
        }
        for (name, step) in self.chain.names().iter().zip(&done.steps) {
            assert_eq!(step.rows_in, step.rows_out + step.dropped + step.dead, "{name}: {:?}", done.steps);
        }
        for neighbours in done.steps.windows(2) {
            assert_eq!(neighbours[0].rows_out, neighbours[1].rows_in, "{:?}", done.steps);
        }
        let (first, last) = (done.steps[0], done.steps[done.steps.len() - 1]);
        let rows: usize = done.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((first.rows_in, last.rows_out), (bodies.len() as u64, rows as u64));
        assert_eq!(done.duplicates, done.steps.iter().map(|s| s.dropped).sum::<u64>());
        self.dropped = BTreeMap::new();
        let mut shares = Shares::default();
        shares.tally(done.dropped, |totals| &mut totals.duplicates);
        for (tenant, share) in shares.iter() {
            self.dropped.insert(tenant.to_string(), share.totals.duplicates);
        }
        let failed = done.failed.iter().map(|f| format!("{} {}", f.fault.row, f.fault.code)).collect();
        (out, failed, done.duplicates)
    }

    /// As a restart finds it: a new chain with the state of the old one.
    fn restart(&mut self, states: &[Vec<(String, Vec<u8>)>]) {
        let mut chain = Chain::build(&self.steps, self.decoder.schema(), &Maker).expect("a chain");
        for (name, bytes) in states.iter().flatten() {
            assert!(chain.restore(name, bytes));
        }
        self.chain = chain;
    }
}

#[tokio::test]
async fn duplicates_are_dropped_per_tenant_and_within_the_window() {
    let mut bench = Bench::new(&[dedup(&["id"])]);
    let (a, b) = (("a", r#"{"id":"x","n":1}"#), ("b", r#"{"id":"x","n":2}"#));
    assert_eq!(bench.run(0, &[a, b, a]).await, (vec![1, 2], vec![], 1));
    assert_eq!(bench.run(1_000, &[a, b, b]).await, (vec![], vec![], 3));
    assert_eq!(bench.dropped, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    assert_eq!(bench.run(3_600_001, &[a]).await.0, [1], "the window is over");
    let keyless = ("a", r#"{"n":5}"#);
    assert_eq!(
        bench.run(3_600_001, &[keyless, keyless]).await.0,
        [5, 5],
        "without a key nothing is the same"
    );
}

#[tokio::test]
async fn a_row_that_fails_later_is_not_remembered() {
    let steps = [dedup(&["id"]), Step::Sql { query: String::new() }];
    let mut bench = Bench::new(&steps);
    let bad = ("a", r#"{"id":"x","n":13}"#);
    assert_eq!(bench.run(0, &[bad]).await, (vec![], vec!["0 thirteen".into()], 0));
    assert_eq!(bench.run(0, &[bad]).await.1, ["0 thirteen"], "sent again, it is tried again");
    let good = ("a", r#"{"id":"x","n":1}"#);
    assert_eq!(bench.run(0, &[good]).await.0, [1]);
    assert_eq!(bench.run(0, &[good, bad]).await, (vec![], vec![], 2));
}

#[tokio::test]
async fn a_repeat_takes_the_place_of_a_row_that_failed_in_the_same_batch() {
    let mut bench = Bench::new(&[dedup(&["id"]), Step::Sql { query: String::new() }]);
    let bad = ("a", r#"{"id":"x","n":13}"#);
    let good = ("a", r#"{"id":"x","n":7}"#);
    let got = bench.run(0, &[bad, bad, good, good]).await;
    assert_eq!(bench.dropped, BTreeMap::from([("a".to_owned(), 1)]));
    assert_eq!(got, (vec![7], vec!["0 thirteen".into(), "1 thirteen".into()], 1));
}

#[tokio::test]
async fn state_survives_as_snapshot_and_deltas() {
    let mut bench = Bench::new(&[dedup(&["id", "n"]), quality(&[("email", Check::Unique)])]);
    let row = |id: &str| format!(r#"{{"id":"{id}","n":1,"email":"{id}@x.org"}}"#);
    let (x, y) = (row("x"), row("y"));
    assert_eq!(bench.run(0, &[("a", &x)]).await.0, [1]);
    let snapshot = bench.chain.snapshot();
    bench.chain.take_deltas();
    assert_eq!(bench.run(0, &[("a", &y)]).await.0, [1]);
    let delta = bench.chain.take_deltas();
    bench.restart(&[snapshot, delta]);
    assert_eq!(bench.run(0, &[("a", &x), ("a", &y)]).await.2, 2);
    let other = r#"{"id":"z","n":1,"email":"x@x.org"}"#;
    assert_eq!(bench.run(0, &[("a", other)]).await.1, ["0 quality-unique"]);
    assert_eq!(bench.run(0, &[("b", other)]).await.0, [1], "another tenant's own");
    bench.restart(&[]);
    assert_eq!(bench.run(0, &[("a", &x)]).await.0, [1], "without state nothing is remembered");
}

#[tokio::test]
async fn every_check_lets_good_values_and_nulls_pass() {
    let seconds = Duration::from_secs;
    let cases: Vec<(&str, Check, &str, &str)> = vec![
        ("n", Check::NotNull, r#"{"n":1}"#, r#"{"id":"x"}"#),
        ("n", Check::Range { min: Some("1".into()), max: Some("5".into()) }, r#"{"n":5}"#, r#"{"n":6}"#),
        ("n", Check::Range { min: Some("1".into()), max: None }, r#"{"n":99}"#, r#"{"n":0}"#),
        ("id", Check::Range { min: Some("1".into()), max: None }, r#"{"id":"1.5"}"#, r#"{"id":"many"}"#),
        ("n", Check::Positive, r#"{"n":1}"#, r#"{"n":0}"#),
        ("id", Check::Regex { pattern: "^[a-z]+$".into() }, r#"{"id":"abc"}"#, r#"{"id":"aBc"}"#),
        ("id", Check::OneOf { values: vec!["a".into(), "b".into()] }, r#"{"id":"b"}"#, r#"{"id":"c"}"#),
        ("n", Check::OneOf { values: vec!["7".into()] }, r#"{"n":7}"#, r#"{"n":8}"#),
        ("email", Check::ValidEmail, r#"{"email":"a@b.org"}"#, r#"{"email":"a@b"}"#),
        ("email", Check::Unique, r#"{"email":"a"}"#, r#"{"email":"first"}"#),
        (
            "at",
            Check::NotInFuture { allowance: seconds(60) },
            r#"{"at":"2023-11-14T22:14:20Z"}"#,
            r#"{"at":"2023-11-14T22:14:21Z"}"#,
        ),
        (
            "day",
            Check::NotInFuture { allowance: seconds(0) },
            r#"{"day":"2023-11-14"}"#,
            r#"{"day":"2023-11-15"}"#,
        ),
    ];
    let mut codes = BTreeMap::new();
    for (field, check, good, bad) in cases {
        let mut bench = Bench::new(&[quality(&[(field, check.clone())])]);
        bench.run(0, &[("a", r#"{"email":"first","n":1}"#)]).await;
        let (_, failed, _) = bench.run(0, &[("a", good), ("a", bad)]).await;
        assert_eq!(failed.len(), 1, "{field} {check:?}: {failed:?}");
        let (row, code) = failed[0].split_once(' ').expect("row and code");
        assert_eq!(row, "1", "{field} {check:?}");
        codes.insert(code.to_owned(), ());
        if check != Check::NotNull {
            assert!(bench.run(0, &[("a", "{}")]).await.1.is_empty(), "{field} {check:?}: a null passes");
        }
    }
    let codes: Vec<_> = codes.into_keys().collect();
    assert_eq!(
        codes,
        [
            "quality-email",
            "quality-future",
            "quality-not-null",
            "quality-one-of",
            "quality-positive",
            "quality-range",
            "quality-regex",
            "quality-unique"
        ]
    );
}

#[tokio::test]
async fn the_first_broken_rule_is_the_reason_and_is_given_once() {
    let rules = [("n", Check::Positive), ("email", Check::ValidEmail)];
    let mut bench = Bench::new(&[quality(&rules)]);
    let got = bench.run(0, &[("a", r#"{"n":-1,"email":"no"}"#), ("a", r#"{"n":2,"email":"a@b.org"}"#)]).await;
    assert_eq!(got, (vec![2], vec!["0 quality-positive".into()], 0));
}

#[test]
fn a_step_that_cannot_work_is_refused_at_the_start() {
    let decoder = Decoder::new(&schema(), Validation::Strict).expect("a schema");
    let build =
        |step: Step| Chain::build(&[step], decoder.schema(), &Maker).map(|_| ()).map_err(|e| e.to_string());
    assert!(build(dedup(&["nowhere"])).is_err_and(|e| e.contains("nowhere")));
    assert!(build(quality(&[("nowhere", Check::NotNull)])).is_err_and(|e| e.contains("nowhere")));
    assert!(build(quality(&[("id", Check::Regex { pattern: "(".into() })])).is_err());
    assert!(build(quality(&[("n", Check::ValidEmail)])).is_err_and(|e| e.contains("Int64")));
    assert!(build(quality(&[("id", Check::NotInFuture { allowance: Duration::ZERO })])).is_err());
}

#[test]
fn steps_have_names_of_their_own() {
    let rules = |field| quality(&[(field, Check::NotNull)]);
    let bench = Bench::new(&[rules("id"), dedup(&["id"]), rules("n"), Step::Sql { query: String::new() }]);
    assert_eq!(bench.chain.names(), ["quality", "deduplicate", "quality#1", "sql"]);
}
