//! SQL over HTTP: shapes, formats, limits, and whose rows they are.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use http::Method;
use levada_core::TableName;
use levada_lake::{Owner, TableKey, TableSpec};
use serde_json::{Value, json};

use super::support::{Answer, Gateway, Setup, tenant};

async fn table(gateway: &Gateway, owner: Owner, name: &str, tenants: &[&str]) {
    let name: TableName = name.parse().expect("a table name");
    let schema = Arc::new(Schema::new(vec![
        Field::new("tenant_id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]));
    let rows = tenants.len() as i64;
    let notes: Vec<Option<String>> =
        tenants.iter().enumerate().map(|(n, t)| (n > 0).then(|| format!("of \"{t}\",\nline two"))).collect();
    let times =
        TimestampMicrosecondArray::from_iter((0..rows).map(|n| (n > 0).then_some(1_700_000_000_000_000 + n)));
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(StringArray::from_iter_values(tenants)),
            Arc::new(Int64Array::from_iter((0..rows).map(|n| (n > 0).then_some(9_007_199_254_740_993 + n)))),
            Arc::new(Float64Array::from_iter((0..rows).map(|n| (n > 0).then_some(n as f64 / 4.0)))),
            Arc::new(StringArray::from_iter(notes)),
            Arc::new(times.with_timezone("UTC")),
        ],
    )
    .expect("a batch");
    let key = TableKey::new(owner.clone(), name.clone());
    let lake = &gateway.state.lake;
    lake.ensure_table(&TableSpec::new(owner, name, schema)).await.expect("a table");
    let files = lake.stage(&key, vec![batch]).await.expect("staged");
    lake.commit(&key, "test/table", 1, files).await.expect("committed");
}

async fn with_tables() -> Gateway {
    with_tables_of(Setup::default()).await
}

async fn with_tables_of(setup: Setup) -> Gateway {
    let gateway = Gateway::with(setup).await;
    table(&gateway, Owner::Shared, "silver.shared", &["a", "a", "b", "a"]).await;
    table(&gateway, Owner::Tenant(tenant("a")), "silver.of_a", &["a", "a"]).await;
    table(&gateway, Owner::Shared, "gold.report", &["a", "b"]).await;
    gateway
}

async fn sql(gateway: &Gateway, key: &str, body: Value) -> Answer {
    gateway.post(key, "/v1/sql", body.to_string()).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_json_with_types_epochs_and_nothing_lost() {
    let gateway = with_tables().await;
    let query = "select n, price, note, at from silver.shared order by n nulls first";
    let answer = sql(&gateway, "engineer-a", json!({"sql": query})).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let result = answer.json();
    let names: Vec<&Value> =
        result["columns"].as_array().expect("columns").iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["n", "price", "note", "at"]);
    assert_eq!(result["columns"][0]["type"], "Int64");
    assert_eq!(result["rows"].as_array().map(Vec::len), Some(3));
    assert_eq!(result["rows"][0], json!([null, null, null, null]));
    assert_eq!(result["rows"][1][0].as_i64(), Some(9_007_199_254_740_994), "every digit of a big number");
    assert_eq!(result["rows"][1][1], 0.25);
    assert_eq!(result["rows"][1][2], "of \"a\",\nline two");
    assert!(
        result["rows"][1][3].as_str().is_some_and(|t| t.starts_with("2023-11-14T22:13:20.000001")),
        "{result}"
    );
    assert_eq!(result["truncated"], false);
    assert_eq!(result["as_of"][0]["table"], "silver.shared");
    assert_eq!(result["as_of"][0]["epochs"]["test/table"], 1);
    let empty =
        sql(&gateway, "engineer-a", json!({"sql": "select n from silver.shared where n = 0"})).await.json();
    assert_eq!((&empty["rows"], &empty["columns"][0]["name"]), (&json!([]), &json!("n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_quoted_and_has_a_head_even_without_rows() {
    let gateway = with_tables().await;
    let csv = |query: &str| {
        gateway
            .post("engineer-a", "/v1/sql", json!({"sql": query}).to_string())
            .header("accept", "text/csv")
            .send()
    };
    let answer = csv("select n, note from silver.of_a order by n nulls first").await;
    assert!(answer.header("content-type").starts_with("text/csv"));
    assert_eq!(answer.text(), "n,note\n,\n9007199254740994,\"of \"\"a\"\",\nline two\"\n");
    assert_eq!(answer.header("levada-truncated"), "false");
    assert_eq!(csv("select n, note from silver.of_a where n = 0").await.text(), "n,note\n");
    let other = gateway.post("engineer-a", "/v1/sql", r#"{"sql":"select 1"}"#).header("accept", "image/png");
    other.send().await.problem(406, "not-acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_sees_its_tenants_rows_and_its_roles_zones() {
    let gateway = with_tables().await;
    let count = |table: &str| json!({"sql": format!("select count(*) from {table}")});
    for (key, table, expected) in [
        ("engineer-a", "silver.shared", 3),
        ("analyst-a", "silver.shared", 3),
        ("admin-b", "silver.shared", 1),
        ("admin", "silver.shared", 4),
        ("engineer-a", "silver.of_a", 2),
        ("client-a", "gold.report", 1),
        ("client-b", "gold.report", 1),
        ("service-ab", "gold.report", 2),
        ("admin", "gold.report", 2),
    ] {
        let answer = sql(&gateway, key, count(table)).await;
        assert_eq!(answer.status.as_u16(), 200, "{key} {table}: {}", answer.text());
        assert_eq!(answer.json()["rows"][0][0], expected, "{key} {table}");
    }
    for (key, table) in [
        ("client-a", "silver.shared"),
        ("client-a", "silver.of_a"),
        ("admin-b", "silver.of_a"),
        ("client-b", "silver.of_a"),
        ("service-ab", "silver.shared"),
        ("admin-b", "silver.nowhere"),
    ] {
        let answer = sql(&gateway, key, count(table)).await;
        assert_eq!(answer.status.as_u16(), 404, "{key} {table}: {}", answer.text());
        answer.problem(404, "sql-unknown-table");
    }
    let narrowed =
        gateway.post("admin", "/v1/sql", count("silver.shared").to_string()).header("x-tenant-id", "b");
    assert_eq!(narrowed.send().await.json()["rows"][0][0], 1);
    for trick in [
        "select * from silver.shared where tenant_id = 'a' or true",
        "select s.* from silver.shared s join silver.shared t on true",
        "select * from (select * from silver.shared union all select * from silver.shared)",
        "explain select * from silver.shared",
    ] {
        let answer = sql(&gateway, "admin-b", json!({"sql": trick})).await;
        assert!(!answer.text().contains("of \\\"a\\\""), "{trick}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_stay_values() {
    let gateway = with_tables().await;
    let query = |sql_text: &str, params: Value| sql_owned(&gateway, sql_text.to_owned(), params);
    let one =
        query("select count(*) from silver.shared where note = $1", json!(["of \"a\",\nline two"])).await;
    assert_eq!(one.json()["rows"][0][0], 2, "{}", one.text());
    let injected = query("select count(*) from silver.shared where note = $1", json!(["x' or '1'='1"])).await;
    assert_eq!(injected.json()["rows"][0][0], 0);
    let typed = query(
        "select count(*) from silver.shared where n > $1 and price < $2",
        json!([9007199254740994i64, 100.5]),
    )
    .await;
    assert_eq!(typed.json()["rows"][0][0], 1, "{}", typed.text());
    query("select $1", json!([[1]])).await.problem(422, "sql-param");
}

async fn sql_owned(gateway: &Gateway, text: String, params: Value) -> Answer {
    sql(gateway, "engineer-a", json!({"sql": text, "params": params})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_cut_at_the_limit_and_say_so() {
    let mut setup = Setup::default();
    setup.gateway.query.max_rows = 2;
    let gateway = with_tables_of(setup).await;
    let all = sql(&gateway, "admin", json!({"sql": "select n from silver.shared"})).await;
    assert_eq!(
        (all.json()["rows"].as_array().map(Vec::len), &all.json()["truncated"]),
        (Some(2), &json!(true))
    );
    assert_eq!((all.header("levada-truncated"), all.header("levada-max-rows")), ("true", "2"));
    let one =
        sql(&gateway, "admin", json!({"sql": "select n from silver.shared", "max_rows": 1})).await.json();
    assert_eq!(one["rows"].as_array().map(Vec::len), Some(1));
    let more =
        sql(&gateway, "admin", json!({"sql": "select n from silver.shared", "max_rows": 100})).await.json();
    assert_eq!(more["rows"].as_array().map(Vec::len), Some(2), "a caller cannot raise the server's limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_results_are_streamed_whole() {
    let gateway = Gateway::start().await;
    let query = "select value as n, repeat('x', 100) as pad from generate_series(1, 50000)";
    let answer = sql(&gateway, "client-a", json!({"sql": query})).await;
    if answer.status.as_u16() == 200 {
        let result = answer.json();
        let rows = result["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 50_000);
        assert!(rows.iter().enumerate().all(|(n, row)| row[0] == n + 1), "each row once and in order");
        assert_eq!(answer.header("levada-truncated"), "", "unknown when the answer began");
        return;
    }
    // Table functions are closed: build the rows by a join instead.
    let digits = "(select 0 as d union all select 1 union all select 2 union all select 3 union all select 4 \
                   union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)";
    let query = format!(
        "select a.d + 10*b.d + 100*c.d + 1000*e.d as n, repeat('x', 100) as pad \
         from {digits} a cross join {digits} b cross join {digits} c cross join {digits} e order by n"
    );
    let answer = sql(&gateway, "client-a", json!({"sql": query})).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let result = answer.json();
    let rows = result["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 10_000);
    assert!(rows.iter().enumerate().all(|(n, row)| row[0] == n), "each row once and in order");
    assert_eq!(answer.header("levada-truncated"), "", "unknown when the answer began");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_query_is_refused() {
    let gateway = with_tables().await;
    for statement in [
        "drop table silver.shared",
        "insert into silver.shared values (1)",
        "delete from silver.shared",
        "create external table t stored as csv location '/etc/passwd'",
        "copy silver.shared to '/tmp/x.csv'",
        "set datafusion.execution.batch_size = 1",
        "select 1; select 2",
    ] {
        let answer = sql(&gateway, "admin", json!({"sql": statement})).await;
        assert!((400..500).contains(&answer.status.as_u16()), "{statement}: {}", answer.text());
        answer.problem(answer.status.as_u16(), answer.json()["code"].as_str().expect("a code"));
    }
    sql(&gateway, "admin", json!({"sql": "selekt 1"})).await.problem(400, "sql-syntax");
    sql(&gateway, "admin", json!({"sql": "x".repeat(300_000)})).await.problem(413, "sql-too-long");
    sql(&gateway, "admin", json!({"query": "select 1"})).await.problem(422, "body-invalid");
    gateway
        .call(Method::GET, "/v1/sql")
        .bearer(gateway.key("admin"))
        .send()
        .await
        .problem(405, "method-not-allowed");
    let count = sql(&gateway, "admin", json!({"sql": "select count(*) from silver.shared"})).await;
    assert_eq!(count.json()["rows"][0][0], 4, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_end_at_their_time_and_memory() {
    let mut setup = Setup::default();
    setup.gateway.query.timeout = std::time::Duration::from_millis(300);
    let gateway = with_tables_of(setup).await;
    let joins: Vec<String> = (0..14).map(|n| format!("silver.shared t{n}")).collect();
    let endless = format!("select count(*), sum(t0.n * t1.n) from {}", joins.join(" cross join "));
    let answer = sql(&gateway, "admin", json!({"sql": endless})).await;
    answer.problem(408, "sql-timeout");
    let quick = sql(&gateway, "admin", json!({"sql": "select 1"})).await;
    assert_eq!(quick.status.as_u16(), 200, "the turn is free again: {}", quick.text());
}
