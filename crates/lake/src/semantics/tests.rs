//! Answers that must be PostgreSQL's, where rows, models and pipelines are at hand. The many
//! statements that need no rows are compared with PostgreSQL itself, in the tests of its door.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;

use super::{SqlSettings, TimeZone, arithmetic};
use crate::tests::{cells, fill, one, orders, real_lake, rows, session, shared};
use crate::{Lake, Owner, TableSpec};

/// `gold.numbers` of tenant `a`: `n` and `f`.
async fn numbers(n: Vec<Option<i64>>, f: Vec<Option<f64>>) -> (Lake, TempDir) {
    let (lake, dir) = real_lake();
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
    ]));
    let owner = Owner::Tenant(levada_core::TenantId::new("a").expect("a tenant"));
    let spec = TableSpec::new(owner, "gold.numbers".parse().expect("a name"), Arc::clone(&schema));
    lake.ensure_table(&spec).await.expect("a table");
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(n)), Arc::new(Float64Array::from(f))];
    let batch = RecordBatch::try_new(schema, columns).expect("a batch");
    let files = lake.stage(&spec.key(), vec![batch]).await.expect("staged");
    lake.commit(&spec.key(), "test/numbers", 1, files).await.expect("committed");
    (lake, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_total_beyond_64_bits_is_an_error_in_every_shape() {
    let n = vec![Some(i64::MAX), Some(1), None, Some(i64::MIN), Some(5)];
    let (lake, _dir) = numbers(n, vec![None; 5]).await;
    let session = session(&lake, &["a"]);
    for sql in [
        "select sum(n) from numbers where n > 0",
        "select sum(n) from numbers where n > 0 group by n > 0",
        "select sum(distinct n) from numbers where n > 0",
        "select sum(n) over (order by n) from numbers where n > 0",
        "select sum(n) over () from numbers where n > 0",
        "select sum(n + 1) from numbers",
        "select -n from numbers",
        "select n * 2 from numbers",
        "select abs(n) from numbers",
        "select n - 1 from numbers",
        "select n from numbers where n + 1 < 0",
    ] {
        let problem = rows(&session, sql).await.expect_err(sql);
        assert_eq!((problem.code.as_str(), problem.status), ("sql-execution", 422), "{sql}: {problem}");
        let says = |words| problem.detail.contains(words);
        assert!(says("out of range") || says("overflow"), "{sql}: {problem}");
    }
    // Whatever the order, a total that fits is answered; a null takes no part in it.
    assert_eq!(one(&session, "select sum(n) from numbers").await, "5");
    assert_eq!(one(&session, "select sum(n::numeric) from numbers where n > 0").await, "9223372036854775813");
    assert_eq!(one(&session, "select sum(n) from numbers where n is null").await, "NULL");
    let owner = Owner::Tenant(levada_core::TenantId::new("a").expect("a tenant"));
    let model = lake.execute_model("select sum(n) as total from gold.numbers where n > 0", &owner);
    assert_eq!(model.await.expect_err("a model").code, "sql-execution");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelines_step_checks_its_arithmetic() {
    let (lake, _dir) = real_lake();
    let input = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let batch = |n: Vec<Option<i64>>| {
        RecordBatch::try_new(Arc::clone(&input), vec![Arc::new(Int64Array::from(n)) as ArrayRef])
            .expect("a batch")
    };
    let program =
        lake.compile("select n + 1 as m, n * 0.5 as half from input", Arc::clone(&input)).expect("a program");
    let good = program.run(batch(vec![Some(1), None])).await.expect("rows");
    assert_eq!(cells(&good), [["2", "0.5"], ["NULL", "NULL"]]);
    let problem = program.run(batch(vec![Some(1), Some(i64::MAX)])).await.expect_err("an overflow");
    assert!(problem.detail.contains("bigint out of range"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nulls_are_seen_by_not_in() {
    let (lake, _dir) = numbers(vec![Some(1), Some(2), None], vec![None, Some(1.0), Some(2.0)]).await;
    let session = session(&lake, &["a"]);
    for (filter, count) in [
        ("1 not in (select n from numbers where n is null)", "0"),
        ("9 not in (select n from numbers)", "0"),
        ("9 not in (select n from numbers where n is not null)", "3"),
        ("n not in (select n from numbers where n > 100)", "3"),
        ("n not in (select n from numbers where n = 1)", "1"),
        ("9 not in (select b.n from numbers b where b.f = numbers.f)", "2"),
        ("not (n in (select n from numbers where n = 1))", "1"),
        ("n not in (select n from numbers) or n = 2", "1"),
        ("n in (select n from numbers)", "2"),
    ] {
        assert_eq!(
            one(&session, &format!("select count(*) from numbers where {filter}")).await,
            count,
            "{filter}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floats_have_one_nan_and_fail_where_they_leave_their_range() {
    let f = vec![Some(0.0), Some(f64::NAN), Some(f64::INFINITY), Some(1e308)];
    let (lake, _dir) = numbers(vec![None; 4], f).await;
    let session = session(&lake, &["a"]);
    for (sql, answer) in [
        ("select count(*) from numbers where f - f = 'NaN'", "2"),
        ("select count(*) from numbers where f - f > 100", "2"),
        ("select count(*) from (select f - f as g from numbers group by 1)", "2"),
        ("select max(f) from numbers", "NaN"),
        ("select f from numbers order by f desc limit 1", "NaN"),
        ("select count(*) from (select f from numbers intersect select 'NaN'::float8)", "1"),
        ("select count(*) from numbers where f = 'NaN'", "1"),
        ("select count(*) from numbers where f <> 0 and 1 / f < 1", "2"),
    ] {
        assert_eq!(one(&session, sql).await, answer, "{sql}");
    }
    for sql in ["select 1 / f from numbers", "select f * 10 from numbers", "select sqrt(-1 - f) from numbers"]
    {
        assert_eq!(rows(&session, sql).await.expect_err(sql).code, "sql-execution", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_times_in_its_zone_and_names_by_its_path() {
    let (lake, _dir) = real_lake();
    fill(&lake, &shared("silver.orders"), 1, orders(&["a"], 0, 20, 1)).await;
    let plain = session(&lake, &["a"]);
    let in_vienna = |path: &[&str]| {
        plain.clone().with_settings(SqlSettings {
            time_zone: TimeZone::parse("Europe/Vienna").expect("a zone"),
            search_path: path.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    let vienna = in_vienna(&["silver", "gold"]);
    for (sql, answer) in [
        ("select timestamptz '2024-01-15 11:00:00' = timestamptz '2024-01-15 10:00:00Z'", "true"),
        ("select (timestamptz '2024-06-30 22:30:00Z')::date", "2024-07-01"),
        ("select extract(hour from timestamptz '2024-07-01 02:00:00Z')", "4"),
        (
            "select date_trunc('day', timestamptz '2024-06-30 22:30:00Z') = timestamptz '2024-06-30 22:00:00Z'",
            "true",
        ),
        (
            "select timestamptz '2024-03-30 12:00:00Z' + interval '1 day' = timestamptz '2024-03-31 11:00:00Z'",
            "true",
        ),
        (
            "select timestamptz '2024-03-30 12:00:00Z' + interval '24 hours' = timestamptz '2024-03-31 12:00:00Z'",
            "true",
        ),
        ("select (timestamptz '2024-07-01 02:00:00Z')::text", "2024-07-01 04:00:00+02"),
        ("select to_char(timestamptz '2024-07-01 02:00:00Z', 'HH24:MI TZ')", "04:00 CEST"),
        (
            "select timestamp '2024-07-01 02:00:00' at time zone 'UTC' = timestamptz '2024-07-01 04:00:00'",
            "true",
        ),
        ("select count(*) from orders", "20"),
        ("select count(*) from orders o where o.id < 5 and o.id + 1 > 2", "3"),
        ("select count(*) from orders where orders.id < 5 and orders.id + 1 > 2", "3"),
    ] {
        assert_eq!(one(&vienna, sql).await, answer, "{sql}");
    }
    assert_eq!(
        rows(&plain, "select * from orders").await.expect_err("gold has none").code,
        "sql-unknown-table"
    );
    let nowhere = in_vienna(&["public"]);
    assert_eq!(
        rows(&nowhere, "select * from orders").await.expect_err("no schema").code,
        "sql-unknown-table"
    );
    assert_eq!(one(&nowhere, "select count(*) from silver.orders").await, "20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clauses_are_followed_or_refused() {
    let (lake, _dir) = real_lake();
    fill(&lake, &shared("silver.orders"), 1, orders(&["a"], 0, 2_000, 1)).await;
    let session = session(&lake, &["a"]);
    let sampled: u64 = one(&session, "select count(*) from silver.orders tablesample bernoulli (10)")
        .await
        .parse()
        .expect("a count");
    // Far outside chance: fifteen standard deviations of two thousand coins.
    assert!((50..400).contains(&sampled), "{sampled} of 2000");
    for sql in [
        "select * from silver.orders tablesample bernoulli (10) repeatable (1)",
        "select * from silver.orders tablesample bernoulli (101)",
        "select * from silver.orders order by id fetch first 2 rows with ties",
        "select * from generate_series(1, 2) with ordinality",
    ] {
        assert_eq!(rows(&session, sql).await.expect_err(sql).code, "sql-unsupported", "{sql}");
    }
    let first = rows(&session, "select id from silver.orders order by id fetch first 2 rows only").await;
    assert_eq!(first.expect("rows"), [["0"], ["1"]]);
}

/// What checking costs, printed: `cargo test --release -p levada-lake --lib costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn costs_of_checked_arithmetic() {
    use arrow::compute::kernels::numeric;
    let rows = 8192;
    let left = Int64Array::from_iter_values(0..rows);
    let right = Int64Array::from_iter_values((0..rows).map(|n| n * 3));
    let floats = Float64Array::from_iter_values((0..rows).map(|n| n as f64));
    let time = |what: &str, run: &dyn Fn() -> ArrayRef| {
        let started = Instant::now();
        let rounds = 20_000;
        let total: usize = (0..rounds).map(|_| run().len()).sum();
        let per_row = started.elapsed().as_nanos() as f64 / total as f64;
        println!("{what:<28} {per_row:.3} ns a row");
    };
    time("add, wrapping", &|| numeric::add_wrapping(&left, &right).expect("a sum"));
    time("add, the engine's checked", &|| numeric::add(&left, &right).expect("a sum"));
    time("add, checked here", &|| arithmetic::add(&left, &right).expect("a sum"));
    time("multiply, wrapping", &|| numeric::mul_wrapping(&left, &right).expect("a product"));
    time("multiply, checked here", &|| arithmetic::multiply(&left, &right).expect("a product"));
    time("float multiply, unchecked", &|| numeric::mul(&floats, &floats).expect("a product"));
    time("float multiply, checked here", &|| arithmetic::multiply(&floats, &floats).expect("a product"));
}
