//! Bits that flip on the disk: every one is noticed, by queries, by compaction and by the scrubber.

use std::path::PathBuf;

use super::*;

/// 3,000 orders with pages and a footer, in files of 1,000 rows.
async fn filled(dir: &TempDir, config: &LakeConfig) -> TableKey {
    let key = shared("silver.orders");
    let lake = reopened(dir, config);
    for epoch in 1..=3 {
        fill(&lake, &key, epoch, orders(&["a"], epoch * 1_000, 1_000, epoch)).await;
    }
    key
}

/// A lake that has read nothing yet.
fn reopened(dir: &TempDir, config: &LakeConfig) -> Lake {
    let disk = Arc::new(RealDisk::new(dir.path()).expect("a disk"));
    open(disk, config.clone())
}

fn data_files(dir: &TempDir) -> Vec<PathBuf> {
    let table = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders");
    let entries = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    files
}

fn flip(file: &PathBuf, bit: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(file, bytes).unwrap();
}

const QUERIES: [&str; 3] = [
    "select count(city), sum(id), sum(epoch), max(city), min(at), count(tenant_id) from silver.orders",
    "select id from silver.orders where id = 1500",
    "select max(at) from silver.orders where epoch = 2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_of_a_data_file_is_answered_as_good() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig::default();
    filled(&dir, &config).await;
    let file = &data_files(&dir)[1];
    let bits = std::fs::metadata(file).unwrap().len() as usize * 8;
    // The last ones are in the footer.
    let spread = (0..40).map(|i| (i * 7_919 + 13) * 97 % bits);
    for bit in spread.chain((1..=400).step_by(40).map(|back| bits - back)) {
        flip(file, bit);
        for sql in QUERIES {
            let lake = reopened(&dir, &config);
            let refused = rows(&session(&lake, &["a"]), sql).await;
            // A query whose filter leaves the file out does not read it.
            if sql == QUERIES[0] || refused.is_err() {
                let problem = refused.expect_err("a flipped bit is no answer");
                assert_eq!(problem.code, "data-damaged", "bit {bit}: {problem}");
                assert!(problem.detail.contains("silver.orders"), "{problem}");
                assert!(!problem.detail.contains("tenant="), "{problem}");
            }
        }
        flip(file, bit);
    }
    let lake = reopened(&dir, &config);
    assert_eq!(one(&session(&lake, &["a"]), "select count(*) from silver.orders where id > 0").await, "3000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_outlive_a_checkpoint_and_the_log_before_it() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig { checkpoint_commits: 2, ..LakeConfig::default() };
    let key = filled(&dir, &config).await;
    let lake = reopened(&dir, &config);
    for epoch in 4..=9 {
        fill(&lake, &key, epoch, orders(&["a"], epoch * 1_000, 10, epoch)).await;
    }
    drop(lake);
    let lake = reopened(&dir, &config);
    let slot = lake.slot(&key).unwrap();
    let state = lake.state(&slot).await.unwrap();
    assert!(state.files.len() == 9 && state.files.iter().all(|file| file.blocks.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrubber_finds_damage_and_loss_in_small_steps() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig::default();
    let key = filled(&dir, &config).await;
    let files = data_files(&dir);
    flip(&files[0], 4_321);
    std::fs::remove_file(&files[2]).unwrap();
    let lake = reopened(&dir, &config);
    let mut found = Vec::new();
    for _ in 0..4 {
        found.extend(lake.scrub(1).await);
    }
    let reasons: Vec<&str> = found.iter().map(|damage| damage.reason.as_str()).collect();
    assert!(
        reasons.len() == 2 && reasons[0].contains("checksum") && reasons[1].contains("gone"),
        "{found:?}"
    );
    assert!(found.iter().all(|damage| damage.table == "silver.orders"), "{found:?}");
    assert_eq!(lake.damage(), found);
    assert!(lake.compact(&key).await.is_err(), "damaged rows are not copied into a good file");
    lake.replace(&key, "test/orders", 9, vec![orders(&["a"], 0, 5, 9)]).await.unwrap();
    lake.scrub(1 << 30).await;
    assert_eq!(lake.damage(), [], "what left the table is no damage of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortened_file_is_damage() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig::default();
    filled(&dir, &config).await;
    let file = &data_files(&dir)[0];
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
    let problem =
        rows(&session(&reopened(&dir, &config), &["a"]), QUERIES[0]).await.expect_err("a byte is gone");
    assert_eq!(problem.code, "data-damaged", "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_bronze_that_changes_or_vanishes_is_noticed() {
    let (lake, dir) = real_lake();
    let object = |n: usize| crate::BronzeObject {
        tenant: tenant("a"),
        source: "orders".parse().unwrap(),
        date: "2026-11-20".into(),
        name: format!("{n}.csv"),
        bytes: bytes::Bytes::from(format!("id\n{n}\n")),
    };
    let kept: Vec<_> = (0..50).map(|n| lake.archive(object(n))).collect();
    for done in futures::future::join_all(kept).await {
        assert!(done.unwrap().created);
    }
    // A landed file is archived from the disk.
    std::fs::write(dir.path().join("landed.csv"), vec![b'x'; (2 << 20) + 5]).unwrap();
    let landed = lake.inner.disk.open("landed.csv", levada_disk::OpenMode::Read).unwrap();
    let name = crate::BronzeObject { name: "landed.csv".into(), ..object(0) };
    assert!(lake.archive_file(name.clone(), landed.clone()).await.unwrap().created);
    assert!(!lake.archive_file(name.clone(), landed).await.unwrap().created, "the same again is fine");
    let other = lake.inner.disk.open("lake/_rosters/orders.objects", levada_disk::OpenMode::Read).unwrap();
    assert!(matches!(lake.archive_file(name, other).await, Err(crate::LakeError::ObjectConflict { .. })));
    lake.scrub(1 << 30).await;
    assert_eq!(lake.damage(), []);
    let folder = dir.path().join("lake/tenant=a/bronze/source=orders/date=2026-11-20");
    std::fs::remove_file(folder.join("7.csv")).unwrap();
    flip(&folder.join("landed.csv"), 8 << 20);
    let mut found: Vec<String> =
        lake.scrub(1 << 30).await.into_iter().map(|d| format!("{} {}", d.table, d.reason)).collect();
    found.sort();
    assert_eq!(found, ["bronze.orders the object is gone", "bronze.orders the object is not what was kept"]);
}

fn log_files(dir: &TempDir) -> Vec<PathBuf> {
    let log = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders/_delta_log");
    let entries = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| !path.ends_with("_last_checkpoint")).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_of_the_log_hides_rows_or_makes_up_some() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig { checkpoint_commits: 3, ..LakeConfig::default() };
    filled(&dir, &config).await;
    let files = log_files(&dir);
    let is_checkpoint = |path: &&PathBuf| path.extension().is_some_and(|e| e == "parquet");
    assert_eq!(files.iter().filter(is_checkpoint).count(), 1, "{files:?}");
    let truth = one(&session(&reopened(&dir, &config), &["a"]), "select sum(id) from silver.orders").await;
    let mut refused = 0;
    for file in &files {
        let bits = std::fs::metadata(file).unwrap().len() as usize * 8;
        for bit in (0..12).map(|i| (i * 7_919 + 13) * 97 % bits) {
            flip(file, bit);
            let lake = reopened(&dir, &config);
            match rows(&session(&lake, &["a"]), "select sum(id) from silver.orders").await {
                // What lies before a checkpoint is not read.
                Ok(rows) => assert_eq!(rows, [[truth.clone()]], "{} bit {bit}", file.display()),
                Err(problem) => {
                    assert_eq!(problem.code, "data-damaged", "{} bit {bit}: {problem}", file.display());
                    assert!(problem.detail.contains("silver.orders"), "{problem}");
                    refused += 1;
                }
            }
            let found = lake.scrub(1 << 30).await;
            assert!(found.iter().any(|d| d.file.contains("_delta_log")), "{} bit {bit}", file.display());
            flip(file, bit);
        }
    }
    assert!(refused >= 12, "{refused}");
    let lake = reopened(&dir, &config);
    assert_eq!(lake.scrub(1 << 30).await, []);
    // Of other programs' files nothing is known, and they are read.
    std::fs::remove_dir_all(dir.path().join("lake/.sums")).unwrap();
    let lake = reopened(&dir, &config);
    assert_eq!(one(&session(&lake, &["a"]), "select sum(id) from silver.orders").await, truth);
    assert_eq!(lake.scrub(1 << 30).await, []);
}
