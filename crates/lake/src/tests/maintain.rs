//! Compaction and sweeping: the rows stay the same, the files do not.

use std::time::Duration;

use levada_core::Clock;
use levada_disk::SimDisk;

use super::*;

const APP: &str = "test/orders";

fn parquet_files(dir: &TempDir) -> usize {
    let table = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders");
    let names = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".parquet")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_keeps_every_row_and_the_epoch() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    for epoch in 1..=30 {
        fill(&lake, &key, epoch, orders(&["a", "b"], epoch * 100, 20, epoch)).await;
    }
    let session = session(&lake, &["a", "b"]);
    let sql = "select tenant_id, id, epoch, city, at from silver.orders order by 1, 2";
    let before = rows(&session, sql).await.unwrap();
    let done = lake.maintain(&key).await.unwrap();
    assert_eq!((done.files_compacted, done.files_written, done.files_deleted), (30, 1, 0));
    assert_eq!(rows(&session, sql).await.unwrap(), before);
    let stats = lake.table_stats(&key).await.unwrap();
    assert_eq!((stats.files, stats.rows), (1, 1200));
    assert_eq!(lake.epoch(&key, APP).await.unwrap(), Some(30));
    assert_eq!(lake.maintain(&key).await.unwrap(), crate::Maintained::default(), "nothing is left to do");
    fill(&lake, &key, 31, orders(&["a"], 0, 1, 31)).await;
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "1201");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_only_when_no_query_can_need_it() {
    let dir = TempDir::new().unwrap();
    // Files on a real disk carry the machine's time, so the lake's clock begins there.
    let clock = Arc::new(ManualClock::new(levada_core::SystemClock::new().now_ms()));
    let config = LakeConfig { retention: Duration::from_secs(3600), ..LakeConfig::default() };
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    let lake = Lake::open(disk, "lake", config, clock.clone()).unwrap();
    let key = shared("silver.orders");
    for epoch in 1..=4 {
        fill(&lake, &key, epoch, orders(&["a"], epoch * 10, 5, epoch)).await;
    }
    let orphan = lake.stage(&key, vec![orders(&["a"], 999, 5, 9)]).await.unwrap();
    assert_eq!(parquet_files(&dir), 5);
    clock.advance(Duration::from_secs(7200));
    lake.compact(&key).await.unwrap();
    assert_eq!(parquet_files(&dir), 6);
    // The four inputs are old, but a query that began before the compaction may read them.
    assert_eq!(lake.vacuum(&key).await.unwrap().files_deleted, 1, "the orphan goes");
    assert!(lake.commit(&key, APP, 5, orphan).await.is_err(), "a swept file cannot be committed");
    clock.advance(Duration::from_secs(7200));
    assert_eq!(lake.vacuum(&key).await.unwrap().files_deleted, 4);
    assert_eq!(parquet_files(&dir), 1);
    assert_eq!(one(&session(&lake, &["a"]), "select count(*) from silver.orders").await, "20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compaction_beside_commits_and_queries_loses_nothing() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    fill(&lake, &key, 1, orders(&["a"], 0, 10, 1)).await;
    let writer = {
        let (lake, key) = (lake.clone(), key.clone());
        tokio::spawn(async move {
            for epoch in 2..=60 {
                let files = lake.stage(&key, vec![orders(&["a"], epoch * 10, 10, epoch)]).await.unwrap();
                assert!(lake.commit(&key, APP, epoch, files).await.unwrap().applied);
            }
        })
    };
    let session = session(&lake, &["a"]);
    while !writer.is_finished() {
        lake.compact(&key).await.unwrap();
        let found = rows(&session, "select count(*), count(distinct id), max(epoch) * 10 from silver.orders")
            .await
            .unwrap();
        assert!(found[0].iter().all(|cell| *cell == found[0][0]), "{found:?}");
    }
    writer.await.unwrap();
    assert_eq!(one(&session, "select count(distinct id) from silver.orders").await, "600");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_during_compaction_changes_nothing() {
    let key = shared("silver.orders");
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let lake = Lake::open(Arc::new(disk.clone()), "lake", LakeConfig::default(), clock()).unwrap();
        for epoch in 1..=6 {
            fill(&lake, &key, epoch, orders(&["a"], epoch * 10, 10, epoch)).await;
        }
        disk.crash_after(seed * 3);
        drop(lake.compact(&key).await);
        let lake = Lake::open(Arc::new(disk.crash()), "lake", LakeConfig::default(), clock()).unwrap();
        let found =
            rows(&session(&lake, &["a"]), "select count(*), count(distinct id) from silver.orders").await;
        assert_eq!(found.unwrap(), [["60", "60"]], "seed {seed}");
    }
}
