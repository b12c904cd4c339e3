//! A second tenant sees nothing of the first, through every construct we can think of.

use super::*;
use crate::{BronzeObject, Param};

/// Tables of three kinds with rows of `a` and `b`; values of `a` hold the text `a-city`.
async fn lake() -> (Lake, TempDir) {
    let (lake, dir) = real_lake();
    let mut names = vec!["a", "b"];
    names.sort_unstable();
    fill(&lake, &shared("silver.orders"), 1, orders(&names, 0, 50, 1)).await;
    fill(&lake, &shared("silver.orders"), 2, orders(&["a"], 1000, 50, 2)).await;
    fill(&lake, &shared("gold.totals"), 1, orders(&["a"], 0, 5, 1)).await;
    for owner in ["a", "b"] {
        let key = owned(owner, "gold.own");
        let spec = TableSpec { tenant_column: None, ..order_spec(&key) };
        lake.ensure_table(&spec).await.unwrap();
        lake.replace(&key, "model", 1, vec![orders(&[owner], 0, 3, 1)]).await.unwrap();
    }
    let key = owned("a", "gold.secret_plans");
    lake.ensure_table(&TableSpec { tenant_column: None, ..order_spec(&key) }).await.unwrap();
    lake.replace(&key, "model", 1, vec![orders(&["a"], 0, 3, 1)]).await.unwrap();
    for (owner, source) in [("a", "clicks"), ("b", "clicks"), ("a", "private_feed")] {
        let object = BronzeObject {
            tenant: tenant(owner),
            source: source.parse().unwrap(),
            date: "2026-11-20".into(),
            name: "1.csv".into(),
            bytes: format!("{owner}-city,1\n{owner}-city,2\n").into(),
        };
        lake.archive(object).await.unwrap();
    }
    (lake, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_construct_shows_rows_of_another_tenant() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    let queries = [
        "select city from silver.orders",
        "select * from silver.orders",
        "select city from silver.orders as x",
        "select o.city from silver.orders o where true",
        "select city from silver.orders where tenant_id = 'a'",
        "select city from silver.orders where tenant_id = 'a' or true",
        "select city from silver.orders where tenant_id <> 'b' or tenant_id = 'a' or 1 = 1",
        "select city from silver.orders where tenant_id in ('a', 'b')",
        "select city from silver.orders where tenant_id like '%' or tenant_id is null",
        "select city from silver.orders where not (tenant_id = 'b')",
        "select city from silver.orders union all select city from silver.orders",
        "select city from silver.orders union select city from silver.orders where tenant_id = 'a'",
        "select city from silver.orders except select city from silver.orders where tenant_id = 'b'",
        "select city from (select * from silver.orders) t",
        "with x as (select * from silver.orders) select city from x",
        "with orders as (select * from silver.orders) select city from orders",
        "with recursive r as (select city, id from silver.orders union all select city, id + 1000000 from r where id < 10) select city from r",
        "select (select max(city) from silver.orders where tenant_id = 'a')",
        "select min(city) from silver.orders",
        "select array_agg(city) from silver.orders",
        "select string_agg(city, ',') from silver.orders",
        "select city from silver.orders where exists (select 1 from silver.orders x where x.tenant_id = 'a')",
        "select x.city from silver.orders o join silver.orders x on x.id = o.id",
        "select x.city from silver.orders o right join silver.orders x on x.id = o.id and x.tenant_id = 'a'",
        "select x.city from silver.orders o full join silver.orders x on x.id = o.id + 1",
        "select x.city from silver.orders o cross join silver.orders x",
        "select x.city from (values (1)) v, lateral (select city from silver.orders) x",
        "select city from silver.orders order by tenant_id limit 5",
        "select city from silver.orders order by id desc limit 5 offset 1",
        "select distinct on (tenant_id) city from silver.orders",
        "select first_value(city) over (order by tenant_id) from silver.orders",
        "select lag(city) over (order by tenant_id, id) from silver.orders",
        "select city from silver.orders tablesample (100)",
        "select city, count(*) from silver.orders group by rollup (city)",
        "select city from levada.silver.orders",
        "select city from silver.\"orders\"",
        "select unnest(array_agg(city)) from silver.orders",
        "select case when tenant_id = 'a' then city else city end from silver.orders",
        "select coalesce(city, tenant_id) from silver.orders where id >= 1000",
        "select city from silver.orders where id in (select id from silver.orders where tenant_id = 'a')",
        "select * from gold.totals",
        "select city from gold.own",
        "select city from b.gold.own",
        "select payload from bronze.clicks",
        "select payload from bronze.clicks where tenant_id = 'a' or true",
        "select payload, object from b.bronze.clicks",
        "table silver.orders",
        "select city from gold.own natural join silver.orders",
        "select corr(id, epoch), max(city) from silver.orders group by tenant_id having tenant_id <> 'z'",
    ];
    for sql in queries {
        match rows(&session, sql).await {
            Ok(rows) => {
                let text = format!("{rows:?}");
                assert!(!text.contains("a-city"), "{sql} shows {text}");
            }
            Err(problem) => {
                assert!(!problem.to_string().contains("a-city"), "{sql} tells {problem}");
                assert_ne!(problem.code, "sql-internal", "{sql}: {problem}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_bounds_and_plans_are_those_of_the_callers_rows() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    for (sql, answer) in [
        ("select count(*) from silver.orders", "50"),
        ("select count(1) from silver.orders", "50"),
        ("select count(tenant_id) from silver.orders", "50"),
        ("select max(id) from silver.orders", "49"),
        ("select max(epoch) from silver.orders", "1"),
        ("select min(tenant_id) from silver.orders", "b"),
        ("select max(at) = to_timestamp_millis(1795132800049) from silver.orders", "true"),
        ("select count(*) from silver.orders where tenant_id = 'a'", "0"),
        ("select count(*) from silver.orders where id >= 1000", "0"),
        ("select count(distinct tenant_id) from silver.orders", "1"),
        ("select approx_distinct(tenant_id) from silver.orders", "1"),
        ("select count(*) from gold.totals", "0"),
        ("select count(*) from gold.own", "3"),
        ("select count(*) from bronze.clicks", "2"),
        ("select count(*) from silver.orders where id = (select max(id) from silver.orders)", "1"),
    ] {
        assert_eq!(one(&session, sql).await, answer, "{sql}");
    }
    let plan =
        format!("{:?}", rows(&session, "explain select * from silver.orders where id > 5").await.unwrap());
    for leak in ["parquet", "file_groups", "part-", "rows=", "Exact"] {
        assert!(!plan.contains(leak), "the plan tells {leak}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_expression_is_never_tried_on_hidden_rows() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    // Each fails on rows of `a` only: if it were evaluated there, the error would tell.
    for filter in [
        "1 / (case when tenant_id = 'a' then 0 else 1 end) > 0",
        "1 / (case when id >= 1000 then 0 else 1 end) = 1",
        "cast(substr(city, 1, 1) as int) > 0 or tenant_id = 'b'",
        "cast((case when tenant_id = 'a' then 'x' else '1' end) as int) = 1",
        "1000 / (epoch - 2) <> 0",
        "(case when tenant_id = 'a' then cast(city as int) else 1 end) = 1",
    ] {
        for sql in [
            format!("select count(*) from silver.orders where {filter}"),
            format!("select count(*) from silver.orders where id < 2000 and {filter}"),
            format!(
                "select count(*) from silver.orders o join silver.orders x on o.id = x.id and o.{filter}"
            )
            .replace("o.1", "1")
            .replace("o.(", "(")
            .replace("o.cast", "cast"),
        ] {
            if let Err(problem) = rows(&session, &sql).await {
                // Ambiguous columns and errors on the caller's own rows are the caller's.
                let own = problem.code == "sql-ambiguous-column" || sql.contains("substr");
                assert!(own, "{sql}: {problem}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_and_missing_tables_are_the_same() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    for (hidden, missing) in [
        ("gold.secret_plans", "gold.no_such_table"),
        ("a.gold.own", "z.gold.own"),
        ("a.gold.secret_plans", "z.gold.secret_plans"),
        ("bronze.private_feed", "bronze.no_such_feed"),
        ("a.bronze.clicks", "z.bronze.clicks"),
        ("a.silver.orders", "b.silver.orders"),
        ("secret_plans", "no_such_table"),
    ] {
        let mut answers = Vec::new();
        for name in [hidden, missing] {
            for sql in [
                format!("select * from {name}"),
                format!("describe {name}"),
                format!("explain select 1 from {name}"),
            ] {
                let problem = rows(&session, &sql).await.expect_err(&sql);
                assert_eq!(problem.code, "sql-unknown-table", "{sql}");
                answers.push(problem.to_string().replace(name, "?"));
            }
        }
        let (hidden, missing) = answers.split_at(3);
        assert_eq!(hidden, missing);
        assert!(!answers[0].contains("secret") && !answers[0].contains("private"), "{}", answers[0]);
    }
    assert_eq!(one(&super::session(&lake, &["a"]), "select count(*) from gold.secret_plans").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_information_schema_lists_only_what_is_visible() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    let tables = rows(
        &session,
        "select table_schema, table_name from information_schema.tables
         where table_schema <> 'information_schema' order by 1, 2",
    );
    let tables: Vec<String> = tables.await.unwrap().into_iter().map(|row| row.join(".")).collect();
    assert_eq!(tables, ["bronze.clicks", "gold.own", "gold.totals", "silver.orders"]);
    for sql in [
        "select * from information_schema.tables",
        "select * from information_schema.columns",
        "select * from information_schema.views",
        "select * from information_schema.schemata",
        "select * from information_schema.df_settings",
        "show tables",
        "show columns from gold.own",
        "describe silver.orders",
    ] {
        let text = format!("{:?}", rows(&session, sql).await.unwrap());
        for leak in ["secret", "private", "tenant=a", "_shared", "a-city"] {
            assert!(!text.contains(leak), "{sql} shows {leak}");
        }
    }
    let columns = one(
        &session,
        "select count(*) from information_schema.columns where table_schema = 'silver' and table_name = 'orders'",
    );
    assert_eq!(columns.await, "5");
    let names: Vec<String> = session.tables().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["bronze.clicks", "silver.orders", "gold.own", "gold.totals"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_belong_to_roles() {
    let (lake, _dir) = lake().await;
    for (role, zones) in [
        (Role::Engineer, vec!["bronze", "silver", "gold"]),
        (Role::Admin, vec!["bronze", "silver", "gold"]),
        (Role::Analyst, vec!["silver", "gold"]),
        (Role::Client, vec!["gold"]),
        (Role::Service, vec!["gold"]),
    ] {
        let session = lake.session(&principal(&["a"], &[role]), None).unwrap();
        for (zone, table) in [("bronze", "bronze.clicks"), ("silver", "silver.orders"), ("gold", "gold.own")]
        {
            let answer = rows(&session, &format!("select * from {table}")).await;
            assert_eq!(answer.is_ok(), zones.contains(&zone), "{role:?} {zone}");
            if let Err(problem) = answer {
                assert_eq!(problem.code, "sql-unknown-table");
            }
        }
        let listed = format!("{:?}", rows(&session, "show tables").await.unwrap());
        for zone in ["bronze", "silver", "gold"] {
            assert_eq!(listed.contains(&format!("\"{zone}\"")), zones.contains(&zone), "{role:?} {zone}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_several_tenants_sees_theirs_and_can_be_narrowed() {
    let (lake, _dir) = lake().await;
    let both = principal(&["a", "b"], &[Role::Engineer]);
    let session = lake.session(&both, None).unwrap();
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "150");
    let problem = rows(&session, "select * from gold.own").await.unwrap_err();
    assert_eq!(problem.code, "sql-ambiguous-table");
    assert!(problem.hint.unwrap().contains("a.gold.own"));
    assert_eq!(one(&session, "select count(*) from a.gold.own").await, "3");
    assert_eq!(one(&session, "select count(*) from gold.secret_plans").await, "3", "only one tenant has it");

    let narrowed = lake.session(&both, Some(&tenant("b"))).unwrap();
    assert_eq!(one(&narrowed, "select count(*) from silver.orders").await, "50");
    assert_eq!(
        rows(&narrowed, "select * from gold.secret_plans").await.unwrap_err().code,
        "sql-unknown-table"
    );
    assert_eq!(lake.session(&both, Some(&tenant("c"))).unwrap_err().code, "tenant-forbidden");

    let root = lake.session(&platform(), None).unwrap();
    assert_eq!(one(&root, "select count(*) from silver.orders").await, "150");
    let nobody = lake.session(&principal(&[], &[Role::Admin]), None).unwrap();
    assert_eq!(one(&nobody, "select count(*) from silver.orders").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_values_and_never_sql() {
    let (lake, _dir) = lake().await;
    let session = session(&lake, &["b"]);
    let attack = Param::Text("a' or '1'='1".into());
    let limits = QueryLimits::default();
    let output = session.query("select city from silver.orders where tenant_id = $1", vec![attack], limits);
    assert!(output.await.unwrap().collect().await.unwrap().iter().all(|batch| batch.num_rows() == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_tenant_belong_to_nobody() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    let mut spec = order_spec(&key);
    let fields: Vec<Field> =
        order_schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    spec.schema = Arc::new(Schema::new(fields));
    lake.ensure_table(&spec).await.unwrap();
    let batch = orders(&["a"], 0, 3, 1);
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(StringArray::from(vec![None, Some("a"), None]));
    let batch = RecordBatch::try_new(Arc::clone(&spec.schema), columns).unwrap();
    let staged = lake.stage(&key, vec![batch]).await.unwrap();
    lake.commit(&key, "x", 1, staged).await.unwrap();
    assert_eq!(one(&session(&lake, &["a", "b"]), "select count(*) from silver.orders").await, "1");
}
