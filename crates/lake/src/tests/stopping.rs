//! A query that computes without a pause is answered at its deadline, and really stops: on
//! a runtime of one thread the next query finds its turn.

use std::time::{Duration, Instant};

use futures::StreamExt;
use levada_core::{Quota, Quotas, TenantQuotas};

use super::*;

/// What stopping and the next query may take on a busy machine.
const SOON: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_millis(300);

/// Half a million numbers, and the same again. No pair of them has the product that the
/// queries ask for, which only the pairs themselves tell.
const NUMBERS: &str = "with a as (select value as x, value / 10000000 as one from generate_series(1, 500000)), \
     b as (select value as y, value / 10000000 as one from generate_series(1, 500000)) ";

/// One query for each loop that would go on for many minutes.
const ENDLESS: [(&str, &str); 19] = [
    ("nested loop", "select count(*) from a join b on x * y < 0 and x + y < 0"),
    ("nested loop, left", "select count(*) from a left join b on x * y < 0"),
    ("nested loop, full", "select count(*) from a full join b on x * y < 0"),
    ("nested loop, a filter above", "select x, y from a, b where x * y < 0"),
    ("nested loop, semi", "select count(*) from a where exists (select 1 from b where x * y < 0)"),
    ("nested loop, anti", "select count(*) from a where not exists (select 1 from b where x * y < 0)"),
    ("nested loop, mark", "select count(*) from a where x = 0 or exists (select 1 from b where x * y < 0)"),
    ("nested loop, semi without filter", "select count(*) from a left semi join b on true"),
    ("one hot key", "select count(*) from a join b on a.one = b.one and x * y < 0"),
    ("one hot key, left", "select count(*) from a left join b on a.one = b.one and x * y < 0"),
    ("one hot key, all match", "select count(*) from a join b on a.one = b.one"),
    ("one hot key, semi", "select count(*) from a where one in (select one from b)"),
    ("one hot key, mark", "select count(*) from a where x = 0 or one in (select one from b)"),
    ("one hot key, anti", "select count(*) from a where one not in (select one from b)"),
    (
        "window, an aggregate",
        "select max(m) from (select median(x) over (order by x rows between current row and unbounded following) \
         as m from a)",
    ),
    (
        "window, an aggregate of what came before",
        "select max(m) from (select median(x) over (order by x) as m from a)",
    ),
    (
        "window, a function",
        "select max(m) from (select last_value(nullif(x, 7)) ignore nulls \
         over (order by x rows between current row and unbounded following) as m from a)",
    ),
    ("cross join", "select count(*) from a cross join b"),
    (
        "recursion",
        "select count(*) from (with recursive t as (select 1 as n union all select n from t) select n from t)",
    ),
];

/// A lake whose queries run one after the other, on one thread: the next one begins when nothing
/// of the last one runs any more.
fn one_thread() -> (Lake, TempDir) {
    let dir = TempDir::new().expect("a temporary directory");
    let disk = Arc::new(RealDisk::new(dir.path()).expect("a disk"));
    (open(disk, LakeConfig { query_threads: 1, quotas: one_query(), ..LakeConfig::default() }), dir)
}

fn one_query() -> Quotas {
    Quotas::new(&[(Quota::Queries, 1)], &TenantQuotas::new())
}

fn limits() -> QueryLimits {
    QueryLimits { timeout: TIMEOUT, ..QueryLimits::default() }
}

/// A query gets the thread of queries within a short time.
async fn next_query_runs(session: &SqlSession, after: &str) {
    let began = Instant::now();
    assert_eq!(one(session, "select count(*) from generate_series(1, 100)").await, "100");
    assert!(began.elapsed() < SOON, "{after}: the next query took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_loops_are_answered_at_the_deadline_and_end() {
    let (lake, _dir) = one_thread();
    let session = session(&lake, &["a"]);
    for (name, sql) in ENDLESS {
        let sql = format!("{NUMBERS}{sql}");
        let began = Instant::now();
        let answer = match session.query(&sql, vec![], limits()).await {
            Ok(output) => output.collect().await,
            Err(problem) => Err(problem),
        };
        let (problem, took) = (answer.expect_err(name), began.elapsed());
        assert_eq!(problem.code, "sql-timeout", "{name}: {problem}");
        assert!(took >= TIMEOUT && took < SOON, "{name}: answered after {took:?}");
        next_query_runs(&session, name).await;
        println!("{name}: answered after {took:?}, all over after {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_loops_end_with_their_stream() {
    let (lake, _dir) = one_thread();
    let session = session(&lake, &["a"]);
    for (name, sql) in ENDLESS {
        let mut output =
            session.query(&format!("{NUMBERS}{sql}"), vec![], QueryLimits::default()).await.unwrap();
        let rows = tokio::time::timeout(TIMEOUT, output.stream.next()).await;
        assert!(rows.is_err(), "{name} ended by itself: {rows:?}");
        drop(output);
        next_query_runs(&session, name).await;
    }
}

#[tokio::test]
async fn a_caller_with_one_thread_goes_on_while_queries_compute() {
    let (lake, _dir) = one_thread();
    let session = session(&lake, &["a"]);
    let sql = format!("{NUMBERS}{}", ENDLESS[0].1);
    let timeout = Duration::from_secs(1);
    let query = async {
        let began = Instant::now();
        let output = session.query(&sql, vec![], QueryLimits { timeout, ..limits() }).await;
        let answer = match output {
            Ok(output) => output.collect().await,
            Err(problem) => Err(problem),
        };
        assert_eq!(answer.unwrap_err().code, "sql-timeout");
        began.elapsed()
    };
    let ticks = async {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    };
    let (took, longest) = tokio::join!(query, ticks);
    assert!(took < timeout + SOON, "answered after {took:?}");
    assert!(longest < Duration::from_millis(500), "the caller's thread stood still for {longest:?}");
}

#[tokio::test]
async fn the_last_handle_of_a_lake_may_go_anywhere() {
    let (lake, _dir) = one_thread();
    let sql = format!("{NUMBERS}{}", ENDLESS[0].1);
    let output = session(&lake, &["a"]).query(&sql, vec![], limits()).await.unwrap();
    drop(lake);
    // Now the query has the last handle, and drops it on its own thread.
    assert_eq!(output.collect().await.unwrap_err().code, "sql-timeout");
}

#[tokio::test]
async fn a_result_that_nobody_reads_holds_no_memory_after_its_time() {
    let (lake, _dir) = one_thread();
    let sql = "select value, count(*) from generate_series(1, 1000000) group by value";
    let output = session(&lake, &["a"]).query(sql, vec![], limits()).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < TIMEOUT || lake.inner.engine.reserved_bytes() > 0 {
        assert!(began.elapsed() < TIMEOUT + SOON, "{} bytes", lake.inner.engine.reserved_bytes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(output.collect().await.unwrap_err().code, "sql-timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_answers_right() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let small = "with a as (select value as x, value % 3 as r, nullif(value % 5, 0) as n from generate_series(1, 20)), \
         b as (select value as y, value % 2 as s from generate_series(1, 9)) ";
    for (sql, answer) in [
        ("select count(*) from a join b on x * y > 100", "27"),
        ("select count(*) from a full join b on x * y > 100", "43"),
        ("select count(*) from a where exists (select 1 from b)", "20"),
        ("select count(*) from a where not exists (select 1 from b)", "0"),
        ("select count(*) from a where x = 3 or exists (select 1 from b where y > 9)", "1"),
        ("select count(*) from a where r in (select s from b)", "13"),
        ("select count(*) from a where r not in (select s from b)", "7"),
        ("select count(*) from a where x = 2 or r in (select s from b)", "14"),
        ("select count(*) from a join b on r = s and x < y", "12"),
        ("select count(*) from a where x > (select max(y) from b)", "11"),
        (
            "select count(*) from (with recursive t as (select 1 as k union all \
             select k + 1 from t join b on s = 1 and y = 1 where k < 7) select k from t)",
            "7",
        ),
        (
            "select sum(m) from (select sum(x) over (order by x rows between 1 preceding and current row) m from a)",
            "400",
        ),
        ("select sum(m) from (select count(*) over (partition by r) m from a)", "134"),
        ("select sum(m) from (select sum(x) filter (where r = 0) over (order by x desc) m from a)", "819"),
        (
            "select max(m) from (select median(x) over (order by x rows between current row and unbounded following) m from a)",
            "20.0",
        ),
        ("select sum(m) from (select first_value(x) over (partition by r order by x desc) m from a)", "381"),
        ("select sum(m) from (select last_value(n) ignore nulls over (order by x) m from a)", "56"),
        ("select sum(m) from (select row_number() over (order by x desc) m from a where r = 1)", "28"),
        ("select sum(m) from (select rank() over (order by r) m from a)", "153"),
        ("select sum(m) from (select lag(x, 2, 0) over (order by x) m from a)", "171"),
        ("select max(x) from (select x, row_number() over (order by x) m from a) where m <= 4", "4"),
    ] {
        assert_eq!(one(&session, &format!("{small}{sql}")).await, answer, "{sql}");
    }
    let columns = session.describe("select count(*) over () from generate_series(1, 2)").await.unwrap();
    let rows =
        session.query("select count(*) over () from generate_series(1, 2)", vec![], limits()).await.unwrap();
    assert_eq!(columns.schema.field(0).name(), rows.schema.field(0).name());
}
