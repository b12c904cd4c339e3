//! What SQL answers: results, types, parameters, and errors that help.

use arrow::array::BooleanArray;

use super::*;
use crate::Param;

async fn lake() -> (Lake, TempDir) {
    let (lake, dir) = real_lake();
    fill(&lake, &shared("silver.orders"), 1, orders(&["a"], 0, 20, 1)).await;
    (lake, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong_and_what_mends_it() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["a"]);
    for (sql, code, status, says) in [
        ("selec 1", "sql-syntax", 400, "selec"),
        ("select * from silver.order", "sql-unknown-table", 404, "silver.orders"),
        ("select nam from silver.orders", "sql-unknown-column", 400, "city"),
        ("select o.nam from silver.orders o", "sql-unknown-column", 400, "city"),
        ("select id from silver.orders a, silver.orders b", "sql-ambiguous-column", 400, "alias"),
        ("select nope(id) from silver.orders", "sql-unknown-function", 400, "nope"),
        ("select 1 / (id - id) from silver.orders", "sql-execution", 422, "ivi"),
        ("select cast(city as int) from silver.orders", "sql-execution", 422, "a-city"),
        ("drop table silver.orders", "sql-not-allowed", 403, "DROP TABLE"),
        ("select * from silver.orders where id = $1", "sql-parameters", 400, "1 parameters"),
        ("select count(*) from silver.orders group by", "sql-syntax", 400, ""),
        ("select id, count(*) from silver.orders", "sql-invalid", 400, "GROUP BY"),
    ] {
        let problem = rows(&session, sql).await.expect_err(sql);
        assert_eq!((problem.code.as_str(), problem.status), (code, status), "{sql}: {problem}");
        assert!(problem.to_string().contains(says), "{sql}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_take_the_type_that_the_query_wants() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["a"]);
    let ask = async |sql: &str, params: Vec<Param>| {
        let output = session.query(sql, params, QueryLimits::default()).await?;
        Ok::<_, Problem>(cells(&output.collect().await?))
    };
    let text = |value: &str| Param::Text(value.to_owned());
    let sql = "select count(*) from silver.orders where id < $1 and city <> $2";
    for params in
        [vec![Param::Int(5), text("x")], vec![text("5"), text("x")], vec![Param::Float(5.0), text("x")]]
    {
        assert_eq!(ask(sql, params).await.unwrap(), [["5"]]);
    }
    assert_eq!(ask(sql, vec![Param::Null, text("x")]).await.unwrap(), [["0"]]);
    assert_eq!(ask(sql, vec![text("five"), text("x")]).await.unwrap_err().code, "sql-parameters");
    assert_eq!(ask(sql, vec![Param::Int(5)]).await.unwrap_err().code, "sql-parameters");
    let sql = "select count(*) from silver.orders where at >= $1";
    let since = Param::Timestamp((NOW_MS + 15) * 1000);
    assert_eq!(ask(sql, vec![since]).await.unwrap(), [["5"]]);
    assert_eq!(ask(sql, vec![text("2026-11-20T00:00:00.015Z")]).await.unwrap(), [["5"]]);
    let limited = ask(
        "select id from silver.orders order by id limit $1 offset $2",
        vec![Param::Int(2), Param::Int(3)],
    );
    assert_eq!(limited.await.unwrap(), [["3"], ["4"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_statement_is_described() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["a"]);
    let sql = "select id, city, count(*) as n from silver.orders where id > $1 and at < $2 group by id, city";
    let described = session.describe(sql).await.unwrap();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(described.params, [Some(DataType::Int64), Some(time)]);
    let names: Vec<&str> = described.schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "city", "n"]);
    let described = session.describe("describe silver.orders").await.unwrap();
    assert_eq!(described.schema.field(0).name(), "column_name");
    assert_eq!(session.describe("drop table x").await.unwrap_err().code, "sql-not-allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_and_show_answer() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["a"]);
    let columns = rows(&session, "describe silver.orders").await.unwrap();
    assert_eq!(columns[0], ["tenant_id", "text", "NO"]);
    assert_eq!(columns[4], ["at", "timestamp with time zone", "YES"]);
    assert!(format!("{:?}", rows(&session, "show tables").await.unwrap()).contains("orders"));
    let plan = format!("{:?}", rows(&session, "explain select id from silver.orders").await.unwrap());
    assert!(plan.contains("TableScan"), "{plan}");
    let info = session.tables();
    assert_eq!((info.len(), info[0].name.as_str(), info[0].columns.len()), (1, "silver.orders", 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_can_add_relations_but_not_shadow_the_lake() {
    let (lake, _dir) = lake().await;
    let mut session = session(&lake, &["a"]);
    let schema = Arc::new(Schema::new(vec![Field::new("ok", DataType::Boolean, true)]));
    let batch =
        || RecordBatch::try_new(schema.clone(), vec![Arc::new(BooleanArray::from(vec![true]))]).unwrap();
    session.add_relation("pg_catalog", "pg_am", batch()).unwrap();
    assert_eq!(one(&session, "select ok from pg_catalog.pg_am").await, "true");
    assert_eq!(one(&session, "select ok from pg_am").await, "true", "a bare name is looked up there too");
    for schema in ["silver", "gold", "bronze", "information_schema"] {
        assert!(session.add_relation(schema, "orders", batch()).is_err());
    }
    let listed =
        rows(&session, "select table_name from information_schema.tables where table_schema = 'pg_catalog'");
    assert_eq!(listed.await.unwrap(), [["pg_am"]]);
    let fresh = super::session(&lake, &["a"]);
    assert_eq!(rows(&fresh, "select * from pg_catalog.pg_am").await.unwrap_err().code, "sql-unknown-table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_prune_without_changing_answers() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    for epoch in 1..=10 {
        fill(&lake, &key, epoch, orders(&["a", "b"], epoch * 100, 50, epoch)).await;
    }
    let session = session(&lake, &["a"]);
    for (filter, count) in [
        ("id = 520", 1),
        ("id between 510 and 519", 10),
        ("id >= 1000", 50),
        ("id < 0", 0),
        ("city = 'a-city-3' and id < 200", 7),
        ("at >= '2026-11-20T00:00:01Z'", 50),
        ("epoch in (3, 4)", 100),
        ("epoch is null", 0),
        ("not (epoch = 3)", 450),
        ("id = 520 or id = 920", 2),
    ] {
        let found = one(&session, &format!("select count(*) from silver.orders where {filter}")).await;
        assert_eq!(found, count.to_string(), "{filter}");
    }
}

#[tokio::test]
async fn a_pattern_that_cannot_be_compiled_is_the_statements_fault() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let groups = format!("{}a{}", "(".repeat(300), "|b)*".repeat(300));
    for sql in [
        "select regexp_replace(value::text, '\\w{300}\\d{300}', 'x', 'g') from range(0, 3)".to_owned(),
        "select regexp_like(value::text, '(') from range(0, 3)".to_owned(),
        "select value::text ~ ('(' || value) from range(0, 3)".to_owned(),
        format!("select 'aaaa' || value similar to '{groups}' from range(0, 3)"),
    ] {
        let problem = match session.query(&sql, Vec::new(), QueryLimits::default()).await {
            Ok(output) => output.collect().await.expect_err(&sql),
            Err(problem) => problem,
        };
        assert_eq!((problem.code.as_str(), problem.status), ("sql-execution", 422), "{sql}: {problem}");
    }
}

#[tokio::test]
async fn what_nests_too_deep_is_told() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let nested = |open: &str, close: &str| format!("select {}1{}", open.repeat(60), close.repeat(60));
    for sql in [
        nested("case when true then ", " end"),
        nested("not (", ")"),
        nested("not ", ""),
        nested("cast(", " as int)"),
        nested("(", ")"),
        nested("abs(", ")"),
    ] {
        let problem = session.query(&sql, Vec::new(), QueryLimits::default()).await.expect_err(&sql);
        assert_eq!(problem.code, "sql-too-deep", "{sql}: {problem}");
    }
}

#[tokio::test]
async fn a_column_of_several_tables_is_named_with_its_table() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let from = "from (select 1 as n, 2 as k) x cross join (select 1 as n, 3 as m) y";
    for sql in [
        format!("select count(*) {from} where n = y.n and x.n = 5"),
        format!("select x.n {from} where x.n * y.n > n"),
        format!("select x.n, y.m {from} order by x.n + y.n + n"),
        format!("select x.n {from} group by x.n, y.n having max(x.n + y.n + n) > 1"),
        format!("select x.n as n {from} where n = y.n and x.n = 5"),
        "select 1 from (select 1 as n) x join (select 1 as n) y on x.n = y.n and n = 1".to_owned(),
        format!("select sum(n) from (select x.n, y.n {from}) t"),
        format!("select t.n from (select * {from}) t"),
        format!(
            "with t as (select x.n, y.n {from}) select k from (select 7 as k) z where k > (select max(t.n) from t)"
        ),
        format!("select m from (select * {from}) t where n = 1"),
    ] {
        let problem = match session.query(&sql, Vec::new(), QueryLimits::default()).await {
            Ok(output) => output.collect().await.expect_err(&sql),
            Err(problem) => problem,
        };
        assert_eq!(problem.code, "sql-ambiguous-column", "{sql}: {problem}");
        assert!(problem.detail.contains("`n`"), "{problem}");
    }
    for (sql, answer) in [
        (format!("select k {from} where x.n = y.n"), "2"),
        (format!("select x.n + y.n as n {from} order by n"), "2"),
        ("select n from (select 1 as n) x join (select 1 as n) y using (n) where x.n = y.n".to_owned(), "1"),
        ("select n from (select 1 as n) x natural join (select 1 as n) y where x.n = y.n".to_owned(), "1"),
        (format!("select m from (select * {from}) t"), "3"),
        (format!("select count(*) from (select x.n, y.n {from}) t"), "1"),
        (format!("select max(u.k) from (select x.n, y.n as k {from}) u where u.n = 1"), "1"),
    ] {
        assert_eq!(one(&session, &sql).await, answer, "{sql}");
    }
}
