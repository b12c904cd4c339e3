//! The same statements to PostgreSQL and to this server, on the same rows.
//!
//! The answers of PostgreSQL are golden files, which `cargo xtask compare sql` writes. What
//! differs is listed with its reason in `docs/sql-differences.md`: a difference that is not
//! listed fails here, and so does one that is listed and gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use levada_core::TenantId;
use levada_lake::{Owner, TableSpec};
use levada_testkit::sql::{self, Answer};

use super::stage::Stage;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql-differences.md")
}

fn columns(table: &str) -> Vec<(&'static str, DataType)> {
    let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    match table {
        "t" => vec![
            ("id", DataType::Int64),
            ("i", DataType::Int32),
            ("b", DataType::Int64),
            ("f", DataType::Float64),
            ("n", DataType::Decimal128(12, 2)),
            ("s", DataType::Utf8),
            ("d", DataType::Date32),
            ("ts", time(None)),
            ("tz", time(Some("UTC"))),
            ("ok", DataType::Boolean),
        ],
        _ => vec![("id", DataType::Int64), ("k", DataType::Utf8), ("v", DataType::Float64)],
    }
}

async fn load(stage: &Stage, table: &str) {
    let fields: Vec<Field> =
        columns(table).into_iter().map(|(name, of)| Field::new(name, of, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let file = File::open(folder().join(format!("{table}.csv"))).expect("the rows");
    let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema)).with_header(true).build(file);
    let rows: Vec<RecordBatch> = reader.expect("a reader").map(|batch| batch.expect("rows")).collect();
    let owner = Owner::Tenant(TenantId::new("acme").expect("a tenant"));
    let spec = TableSpec::new(owner, format!("silver.{table}").parse().expect("a name"), schema);
    stage.lake.ensure_table(&spec).await.expect("a table");
    let files = stage.lake.stage(&spec.key(), rows).await.expect("staged");
    stage.lake.commit(&spec.key(), "tests", 1, files).await.expect("committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_postgresql_or_listed() {
    let stage = Stage::new().await;
    load(&stage, "t").await;
    load(&stage, "u").await;
    let url = format!("postgres://anna@127.0.0.1:{}/levada", stage.address.port());
    let mut listed: BTreeMap<String, sql::Listed> = sql::listed(&page())
        .expect("the page of differences")
        .into_iter()
        .map(|one| (one.statement.clone(), one))
        .collect();
    let (mut asked, mut wrong) = (0, Vec::new());
    for theme in sql::themes(&folder()).expect("themes") {
        let golden = sql::golden(&folder(), &theme).expect("golden answers");
        let statements = sql::statements(&folder(), &theme).expect("statements");
        let of_golden: Vec<&String> = golden.iter().map(|(statement, _)| statement).collect();
        assert_eq!(of_golden, statements.iter().collect::<Vec<_>>(), "run: cargo xtask compare sql");
        let url = url.clone();
        let answers = tokio::task::spawn_blocking(move || sql::ask(&url, "lvd_acme", &statements));
        let answers = answers.await.expect("no panic").expect("answers");
        for ((statement, expected), (_, answer)) in golden.into_iter().zip(answers) {
            asked += 1;
            judge(&theme, statement, &expected, &answer, &mut listed, &mut wrong);
        }
    }
    for one in listed.values() {
        wrong.push(format!("listed, and no difference (or not asked): {}", one.statement));
    }
    assert!(asked >= 500, "only {asked} statements were asked");
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
}

/// One answer beside that of PostgreSQL, and beside the list.
fn judge(
    theme: &str,
    statement: String,
    expected: &Answer,
    answer: &Answer,
    listed: &mut BTreeMap<String, sql::Listed>,
    wrong: &mut Vec<String>,
) {
    let entry = format!("{statement};\n-- PostgreSQL: {}\n-- Levada: {}", expected.line(), answer.line());
    if expected == answer {
        return;
    }
    match listed.remove(&statement) {
        Some(one) if one.postgres == expected.line() && one.levada == answer.line() => {}
        Some(_) => wrong.push(format!("listed otherwise ({theme}):\n{entry}")),
        None => wrong.push(format!("not listed ({theme}):\n{entry}")),
    }
}
