//! Figures that a change could quietly spoil: opening, sessions, staging. The bounds are
//! far from what is measured, so that a busy machine does not fail them.

use std::time::{Duration, Instant};

use super::*;

fn report(name: &str, took: Duration, bound: Duration) {
    println!("{name}: {took:?}");
    assert!(took < bound, "{name} took {took:?}, which is over {bound:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tables_open_at_once_and_sessions_cost_nothing() {
    let dir = TempDir::new().unwrap();
    let disk = || Arc::new(RealDisk::new(dir.path()).unwrap());
    let keys: Vec<TableKey> = (0..1000).map(|i| shared(&format!("silver.t{i}"))).collect();
    {
        let lake = open(disk(), LakeConfig::default());
        let began = Instant::now();
        for key in &keys {
            lake.ensure_table(&order_spec(key)).await.unwrap();
        }
        report("declaring 1,000 new tables", began.elapsed(), Duration::from_secs(1));
        // What a first commit leaves, without a thousand commits.
        for key in &keys {
            lake.slot(key).unwrap().store_description(Some("test/orders")).await.unwrap();
        }
        fill(&lake, &keys[500], 1, orders(&["a"], 0, 10, 1)).await;
    }
    let began = Instant::now();
    let lake = open(disk(), LakeConfig::default());
    report("opening 1,000 tables", began.elapsed(), Duration::from_secs(2));
    assert_eq!((lake.specs().len(), lake.loaded()), (1000, 0));

    let began = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(session(&lake, &["a"]));
    }
    report("a session", began.elapsed() / 100, Duration::from_millis(1));
    let session = session(&lake, &["a"]);
    let began = Instant::now();
    assert_eq!(one(&session, "select count(*) from silver.t500").await, "10");
    report("a first query", began.elapsed(), Duration::from_secs(2));
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(one(&session, "select count(*) from silver.t500 where id < 3").await, "3");
    }
    report("a query of a small table", began.elapsed() / 20, Duration::from_millis(200));
    assert_eq!(lake.loaded(), 1, "only the table that was asked for");
    let began = Instant::now();
    let columns =
        one(&session, "select count(*) from information_schema.columns where table_schema = 'silver'").await;
    assert_eq!(columns, "5000");
    report("all columns of the information schema", began.elapsed(), Duration::from_secs(2));
    assert_eq!(lake.loaded(), 1);
}

/// Twelve columns of the usual kinds.
fn wide(rows: usize) -> RecordBatch {
    let text = |f: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(f)))
    };
    let ints =
        |f: &dyn Fn(usize) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..rows).map(f))) };
    let scramble = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|i| NOW_MS * 1000 + i as i64 * 37));
    let floats = arrow::array::Float64Array::from_iter_values((0..rows).map(|i| scramble(i) as f64 / 100.0));
    let bools = arrow::array::BooleanArray::from((0..rows).map(|i| i % 3 == 0).collect::<Vec<_>>());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant_id", text(&|i| format!("tenant-{:03}", scramble(i) % 100))),
        ("event_id", text(&|i| format!("0190{:08x}-7{:03x}-8000-{:012x}", i, i % 4096, scramble(i)))),
        ("event_type", text(&|i| ["order.created", "order.paid", "order.sent"][i % 3].to_owned())),
        ("event_time", Arc::new(times.with_timezone("UTC"))),
        ("user_id", text(&|i| format!("user-{}", scramble(i) % 50_000))),
        ("country", text(&|i| ["DE", "FR", "PT", "GR", "US"][i % 5].to_owned())),
        ("amount", Arc::new(floats)),
        ("quantity", ints(&|i| (i % 17) as i64)),
        ("offset", ints(&|i| i as i64)),
        ("paid", Arc::new(bools)),
        ("campaign", text(&|i| format!("c{}", i % 40))),
        ("published_at", ints(&|i| NOW_MS + (i / 100) as i64)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staging_keeps_up_with_the_pipeline() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.wide");
    let rows = 300_000;
    let batches: Vec<RecordBatch> = {
        let all = wide(rows);
        (0..rows).step_by(4096).map(|at| all.slice(at, 4096.min(rows - at))).collect()
    };
    let mut spec = TableSpec::new(Owner::Shared, key.name.clone(), batches[0].schema());
    spec.cluster_by = vec!["event_time".into()];
    lake.ensure_table(&spec).await.unwrap();
    for epoch in 1..=3 {
        let began = Instant::now();
        let files = lake.stage(&key, batches.clone()).await.unwrap();
        let staged = began.elapsed();
        let bytes: u64 = files.iter().map(|f| f.size_bytes).sum();
        let began = Instant::now();
        lake.commit(&key, "bench", epoch, files).await.unwrap();
        let per_second = rows as f64 / staged.as_secs_f64();
        println!(
            "{rows} rows of 12 columns: staged in {staged:?} ({per_second:.0} rows/s, {bytes} bytes), committed in {:?}",
            began.elapsed()
        );
        assert!(per_second > 60_000.0, "staging alone is slower than the pipeline must be");
    }
    let session = session(&lake, &["tenant-007"]);
    let began = Instant::now();
    let sql = "select event_type, count(*), sum(amount) from silver.wide group by event_type order by 1";
    assert_eq!(super::rows(&session, sql).await.unwrap().len(), 3);
    println!("one tenant of a hundred in {} rows: {:?}", rows * 3, began.elapsed());
}
