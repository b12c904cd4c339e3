//! Memory, time and rows of a query are bounded; a dropped query gives everything back.

use std::time::Duration;

use futures::StreamExt;

use super::*;

fn limits() -> QueryLimits {
    QueryLimits::default()
}

/// A query that would run for hours, in little memory.
const ENDLESS: &str = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_query_is_stopped_at_its_deadline() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let timeout = Duration::from_millis(300);
    let began = std::time::Instant::now();
    // On a busy machine the time may be over before the query has begun.
    let problem = match session.query(ENDLESS, vec![], QueryLimits { timeout, ..limits() }).await {
        Ok(output) => output.collect().await.unwrap_err(),
        Err(problem) => problem,
    };
    assert_eq!(problem.code, "sql-timeout");
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_per_query_and_in_all() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let hungry = "select array_agg(a.value) from generate_series(1, 20000000) a group by a.value % 1000000";
    let small = QueryLimits { memory_bytes: 1 << 20, ..limits() };
    let problem = match session.query(hungry, vec![], small).await {
        Ok(output) => output.collect().await.unwrap_err(),
        Err(problem) => problem,
    };
    assert_eq!(problem.code, "sql-memory", "{problem}");
    released(&lake).await;

    let dir = TempDir::new().unwrap();
    let config = LakeConfig { memory_bytes: 2 << 20, ..LakeConfig::default() };
    let tight = open(Arc::new(RealDisk::new(dir.path()).unwrap()), config);
    let session = super::session(&tight, &["a"]);
    let problem = session.query(hungry, vec![], limits()).await.unwrap().collect().await.unwrap_err();
    assert_eq!(problem.code, "sql-memory", "the pool of all queries is bounded too");
    assert_eq!(one(&session, "select count(*) from generate_series(1, 100)").await, "100");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_beyond_the_limit_are_cut_and_said_so() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    for (max_rows, sql, rows, cut) in [
        (10, "select * from generate_series(1, 100000)", 10, true),
        (10, "select * from generate_series(1, 10)", 10, false),
        (9, "select * from generate_series(1, 10)", 9, true),
        (0, "select 1", 0, true),
    ] {
        let output = session.query(sql, vec![], QueryLimits { max_rows, ..limits() }).await.unwrap();
        let truncation = output.truncation();
        let batches = output.collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows, "{sql} at {max_rows}");
        assert_eq!(truncation.is_truncated(), cut, "{sql} at {max_rows}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_stream_ends_the_query() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let sql = "select a.value, count(*) from generate_series(1, 3000000) a group by a.value";
    let mut output = session.query(sql, vec![], limits()).await.unwrap();
    assert!(output.stream.next().await.unwrap().is_ok());
    drop(output);
    released(&lake).await;
}

/// Waits until the tasks of ended queries have gone and given back what they held.
pub(super) async fn released(lake: &Lake) {
    let began = std::time::Instant::now();
    while lake.inner.engine.reserved_bytes() > 0 {
        let held = lake.inner.engine.reserved_bytes();
        assert!(began.elapsed() < Duration::from_secs(20), "{held} bytes are still reserved");
        tokio::task::yield_now().await;
    }
}
