//! A pipeline's SQL step.

use super::*;

fn compile(lake: &Lake, sql: &str) -> Result<crate::Program, Problem> {
    lake.compile(sql, order_schema())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_runs_on_each_batch_anew() {
    let (lake, _dir) = real_lake();
    let sql = "select id * 2 as twice, upper(city) as city, tenant_id from input where id % 2 = 0";
    let program = compile(&lake, sql).unwrap();
    let names: Vec<String> = program.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["twice", "city", "tenant_id"]);
    for first in [0, 10, 0, 7] {
        let found = cells(&program.run(orders(&["a"], first, 4, 1)).await.unwrap());
        let wanted: Vec<String> =
            (first..first + 4).filter(|id| id % 2 == 0).map(|id| (id * 2).to_string()).collect();
        assert_eq!(found.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), wanted);
    }
    assert!(program.run(orders(&["a"], 0, 0, 1)).await.unwrap().is_empty(), "no rows in, no rows out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_operators_start_fresh_on_every_run() {
    let (lake, _dir) = real_lake();
    for (sql, wanted) in [
        ("select count(*) as n from input", vec!["6"]),
        ("select city, count(*) from input group by city having count(*) > 5", vec![]),
        ("select i.id from input i join input j on i.id = j.id + 5", vec!["5"]),
        ("select id from input order by id desc limit 1", vec!["5"]),
        (
            "select id from (select id, row_number() over (order by id) as n from input) t where n = 2",
            vec!["1"],
        ),
        ("select id from input where id = (select max(id) from input)", vec!["5"]),
        ("with top as (select id from input order by id limit 1) select id from top", vec!["0"]),
        (
            "select id from input where id < 1 union all select id from input where id > 4 order by 1",
            vec!["0", "5"],
        ),
    ] {
        let program = compile(&lake, sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"));
        for _ in 0..3 {
            let found = cells(&program.run(orders(&["a"], 0, 6, 1)).await.unwrap());
            assert_eq!(found.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), wanted, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_may_overlap() {
    let (lake, _dir) = real_lake();
    let program = compile(&lake, "select sum(id) as total from input i join input using (id)");
    let program = match program {
        Ok(program) => program,
        Err(_) => {
            compile(&lake, "select sum(i.id) as total from input i join input j on i.id = j.id").unwrap()
        }
    };
    let runs = (0..16).map(|first| {
        let program = program.clone();
        tokio::spawn(
            async move { (first, cells(&program.run(orders(&["a"], first, 100, 1)).await.unwrap())) },
        )
    });
    for run in runs.collect::<Vec<_>>() {
        let (first, found) = run.await.unwrap();
        let wanted: i64 = (first..first + 100).sum();
        assert_eq!(found, [[wanted.to_string()]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_is_that_of_the_run() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    let lake = Lake::open(disk, "lake", LakeConfig::default(), clock.clone()).unwrap();
    let program = lake.compile("select cast(now() as timestamp) as t from input", order_schema()).unwrap();
    let first = cells(&program.run(orders(&["a"], 0, 1, 1)).await.unwrap());
    assert!(first[0][0].starts_with("2026-11-20T00:00:00"), "{first:?}");
    clock.advance(std::time::Duration::from_secs(60));
    let second = cells(&program.run(orders(&["a"], 0, 1, 1)).await.unwrap());
    assert!(second[0][0].starts_with("2026-11-20T00:01:00"), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_reads_its_input_and_nothing_else() {
    let (lake, _dir) = real_lake();
    fill(&lake, &shared("silver.orders"), 1, orders(&["a"], 0, 5, 1)).await;
    for (sql, code) in [
        ("select * from silver.orders", "sql-unknown-table"),
        ("select * from input join silver.orders using (id)", "sql-unknown-table"),
        ("select * from information_schema.tables", "sql-unknown-table"),
        ("insert into input values (1)", "sql-not-allowed"),
        ("create table x as select * from input", "sql-not-allowed"),
        ("explain select * from input", "sql-not-allowed"),
        ("show tables", "sql-not-allowed"),
        ("select nope from input", "sql-unknown-column"),
        ("select * from input where id = $1", "sql-parameters"),
        ("select nope(id) from input", "sql-unknown-function"),
        ("select id fro input where", "sql-syntax"),
    ] {
        let problem = compile(&lake, sql).expect_err(sql);
        assert_eq!(problem.code, code, "{sql}: {problem}");
    }
    let program = compile(&lake, "select 1 / (id - 3) as x from input").unwrap();
    let problem = program.run(orders(&["a"], 0, 5, 1)).await.unwrap_err();
    assert_eq!(problem.code, "sql-execution");
    assert_eq!(
        program.run(orders(&["a"], 10, 2, 1)).await.unwrap()[0].num_rows(),
        2,
        "the next batch is fine"
    );
    let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)])));
    assert!(program.run(other).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_read_what_their_owner_may() {
    let (lake, _dir) = real_lake();
    fill(&lake, &shared("silver.orders"), 1, orders(&["a", "b"], 0, 5, 1)).await;
    let sql = "select tenant_id, count(*) as n from silver.orders group by tenant_id order by 1";
    let own = lake.execute_model(sql, &Owner::Tenant(tenant("a"))).await.unwrap();
    assert_eq!(cells(&own), [["a", "5"]]);
    let all = lake.execute_model(sql, &Owner::Shared).await.unwrap();
    assert_eq!(cells(&all), [["a", "5"], ["b", "5"]]);
    let schema = lake.describe_model(sql, &Owner::Shared).await.unwrap();
    assert_eq!(schema.field(1).data_type(), &DataType::Int64);
    assert_eq!(lake.execute_model("drop table x", &Owner::Shared).await.unwrap_err().code, "sql-not-allowed");
}
