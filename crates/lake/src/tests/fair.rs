//! Queries of one caller do not hold up those of another, at whatever number.

use std::time::{Duration, Instant};

use super::*;

/// Computes without a pause until its deadline.
const LONG: &str = "select count(*) from generate_series(1, 500000) a join generate_series(1, 500000) b \
     on a.value * b.value < 0 and a.value + b.value < 0";

async fn run(session: SqlSession, sql: &'static str, timeout: Duration) -> Result<(), Problem> {
    let limits = QueryLimits { timeout, ..QueryLimits::default() };
    session.query(sql, Vec::new(), limits).await?.collect().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_queries_of_a_tenant_pass_the_long_ones_of_another() {
    let (lake, _dir) = real_lake();
    let (busy, quiet) = (session(&lake, &["a"]), session(&lake, &["b"]));
    let timeout = Duration::from_secs(5);
    let long: Vec<_> = (0..60).map(|_| tokio::spawn(run(busy.clone(), LONG, timeout))).collect();
    let began = Instant::now();
    let mut took = Vec::new();
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(one(&quiet, "select 1").await, "1");
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    let (middle, late) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{} short queries: half within {middle:?}, 99 of 100 within {late:?}", took.len());
    assert!(late < Duration::from_secs(1), "{took:?}");
    let mut refused = 0;
    for task in long {
        let problem = task.await.expect("a task").expect_err("it is endless");
        match problem.code.as_str() {
            "quota-exceeded" => refused += 1,
            "sql-timeout" => {}
            other => panic!("{other}: {problem}"),
        }
    }
    // Four run and thirty-two wait. Some of these get a place at the end of their time.
    assert!((24..=56).contains(&refused), "{refused} were refused");
    // The places are free again when nothing of the long ones runs any more.
    run(busy, "select 1", Duration::from_secs(20)).await.expect("a place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_gives_its_place_to_the_next() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let long: Vec<_> =
        (0..36).map(|_| tokio::spawn(run(session.clone(), LONG, Duration::from_secs(60)))).collect();
    tokio::task::yield_now().await;
    for task in &long {
        task.abort();
    }
    run(session, "select 1", Duration::from_secs(20)).await.expect("a place");
}
