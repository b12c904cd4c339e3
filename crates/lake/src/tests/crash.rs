//! Power cuts on the simulated disk: what was committed stays, once; what was only staged
//! is never seen; and every fsync is there for a reason.

use levada_disk::{Fault, FaultError, OpKind, SimDisk, SimRng, SyncKind};

use super::*;
use crate::StagedFile;

const APP: &str = "test/orders";
const ROWS: i64 = 8;

fn config() -> LakeConfig {
    LakeConfig { checkpoint_commits: 4, compact_files: 6, ..LakeConfig::default() }
}

/// What the outside world remembers of one run of the program.
#[derive(Default)]
struct Memory {
    /// Epochs whose commit was answered.
    committed: BTreeSet<i64>,
    /// A durable manifest whose commit was not answered.
    manifest: Option<(i64, Vec<StagedFile>)>,
    /// Epochs begun, answered or not.
    last: i64,
}

/// Stages and commits epochs until the disk fails or `epochs` are done.
async fn run(disk: &SimDisk, key: &TableKey, memory: &mut Memory, epochs: i64, rng: &mut SimRng) {
    let Ok(lake) = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()) else { return };
    lake.ensure_table(&order_spec(key)).await.expect("declaring needs no disk");
    if let Some((epoch, files)) = memory.manifest.clone() {
        if lake.commit(key, APP, epoch, files).await.is_err() {
            return;
        }
        memory.committed.insert(epoch);
        memory.manifest = None;
    }
    for _ in 0..epochs {
        memory.last += 1;
        let epoch = memory.last;
        let Ok(files) = lake.stage(key, vec![orders(&["a", "b"], epoch * 100, ROWS, epoch)]).await else {
            return;
        };
        if rng.one_in(4) {
            // Never committed: a failed batch.
            continue;
        }
        memory.manifest = Some((epoch, files.clone()));
        if lake.commit(key, APP, epoch, files).await.is_err() {
            return;
        }
        memory.manifest = None;
        memory.committed.insert(epoch);
        if rng.one_in(5) && lake.compact(key).await.is_err() {
            return;
        }
    }
}

/// Rolls the manifest forward and compares the table with the memory.
async fn check(disk: &SimDisk, key: &TableKey, memory: &mut Memory) -> Result<(), String> {
    let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).map_err(|e| e.to_string())?;
    lake.ensure_table(&order_spec(key)).await.map_err(|e| e.to_string())?;
    if let Some((epoch, files)) = memory.manifest.take() {
        lake.commit(key, APP, epoch, files).await.map_err(|e| format!("rolling {epoch} forward: {e}"))?;
        memory.committed.insert(epoch);
    }
    let session = session(&lake, &["a", "b"]);
    let sql = "select epoch, count(*), count(distinct id) from silver.orders group by epoch order by epoch";
    let found = rows(&session, sql).await.map_err(|e| e.to_string())?;
    let wanted: Vec<Vec<String>> = memory
        .committed
        .iter()
        .map(|epoch| vec![epoch.to_string(), (ROWS * 2).to_string(), ROWS.to_string()])
        .collect();
    if found != wanted {
        return Err(format!("wanted {wanted:?}, found {found:?}"));
    }
    let last = memory.committed.last().copied();
    match lake.epoch(key, APP).await {
        Ok(epoch) if epoch == last => Ok(()),
        other => Err(format!("last epoch should be {last:?}, is {other:?}")),
    }
}

/// One history: several runs, each ended by a power cut or a kill at a random moment.
async fn history(seed: u64, skip: Option<(SyncKind, &str)>) -> Result<u64, String> {
    let mut rng = SimRng::new(seed);
    let key = shared("silver.orders");
    let mut disk = SimDisk::new(seed);
    let mut memory = Memory::default();
    for _ in 0..4 {
        if let Some((kind, pattern)) = skip {
            disk.skip_syncs(kind, pattern);
        }
        if rng.below(3) > 0 {
            disk.crash_after(rng.below(700));
        }
        run(&disk, &key, &mut memory, 6, &mut rng).await;
        disk = if rng.one_in(4) { disk.restart() } else { disk.crash() };
        check(&disk, &key, &mut memory).await.map_err(|error| format!("seed {seed}: {error}"))?;
        // What the check rolled forward must be as durable as any commit.
        disk = disk.crash();
        check(&disk, &key, &mut memory).await.map_err(|error| format!("seed {seed}, again: {error}"))?;
    }
    Ok(disk.operations())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_epochs_survive_power_cuts_exactly_once() {
    for seed in 0..150 {
        history(seed, None).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Runs histories without one kind of fsync: the check must find the loss.
async fn is_missed(kind: SyncKind, pattern: &str) {
    for seed in 0..60 {
        if history(seed, Some((kind, pattern))).await.is_err() {
            return;
        }
    }
    panic!("60 histories without {kind:?} of {pattern} lost nothing: the test would not see it missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_files_the_check_is_red() {
    is_missed(SyncKind::File, "lake/.tmp/*").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_the_log_directory_the_check_is_red() {
    is_missed(SyncKind::Dir, "*/_delta_log").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_the_data_directory_the_check_is_red() {
    is_missed(SyncKind::Dir, "*/table=orders").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_parent_directories_the_check_is_red() {
    for dir in ["", "lake", "lake/tenant=_shared", "lake/tenant=_shared/silver", "*/dataset=main"] {
        is_missed(SyncKind::Dir, dir).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_found_after_a_kill_is_made_durable_before_it_counts() {
    let key = shared("silver.orders");
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).unwrap();
        fill(&lake, &key, 1, orders(&["a"], 0, ROWS, 1)).await;
        let files = lake.stage(&key, vec![orders(&["a"], 100, ROWS, 2)]).await.unwrap();
        // The log entry gets its name, and the program dies before the name is durable.
        disk.skip_syncs(SyncKind::Dir, "*/_delta_log");
        lake.commit(&key, APP, 2, files.clone()).await.unwrap();
        let disk = disk.restart();
        let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).unwrap();
        let again = lake.commit(&key, APP, 2, files).await.unwrap();
        assert!(!again.applied, "the entry is there");
        let lake = Lake::open(Arc::new(disk.crash()), "lake", config(), clock()).unwrap();
        assert_eq!(lake.epoch(&key, APP).await.unwrap(), Some(2), "seed {seed}: and now it stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_stops_all_writing() {
    let key = shared("silver.orders");
    for path in ["lake/.tmp/*", "*/_delta_log", "*/table=orders"] {
        let disk = SimDisk::new(7);
        let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).unwrap();
        fill(&lake, &key, 1, orders(&["a"], 0, ROWS, 1)).await;
        for kind in [OpKind::SyncData, OpKind::SyncDir] {
            disk.fail(Fault { kind, path: path.into(), nth: 1, error: FaultError::Io });
        }
        let mut result = Ok(());
        for _ in 0..3 {
            result = match lake.stage(&key, vec![orders(&["a"], 100, ROWS, 2)]).await {
                Ok(files) => lake.commit(&key, APP, 2, files).await.map(|_| ()),
                Err(error) => Err(error),
            };
            assert!(result.is_err(), "{path}: nothing is accepted after a failed fsync");
        }
        assert!(result.is_err_and(|error| error.to_string().contains("fsync")), "{path}");
        let lake = Lake::open(Arc::new(disk.crash()), "lake", config(), clock()).unwrap();
        assert_eq!(lake.epoch(&key, APP).await.unwrap(), Some(1));
        assert_eq!(
            one(&session(&lake, &["a"]), "select count(*) from silver.orders").await,
            ROWS.to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    let key = shared("silver.orders");
    let disk = SimDisk::new(3);
    let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).unwrap();
    fill(&lake, &key, 1, orders(&["a"], 0, ROWS, 1)).await;
    disk.set_capacity(Some(1));
    assert!(lake.stage(&key, vec![orders(&["a"], 100, ROWS, 2)]).await.is_err());
    assert_eq!(one(&session(&lake, &["a"]), "select count(*) from silver.orders").await, ROWS.to_string());
    disk.set_capacity(None);
    fill(&lake, &key, 2, orders(&["a"], 100, ROWS, 2)).await;
    assert_eq!(
        one(&session(&lake, &["a"]), "select count(*) from silver.orders").await,
        (2 * ROWS).to_string()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_object_survives_a_power_cut() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let lake = Lake::open(Arc::new(disk.clone()), "lake", config(), clock()).unwrap();
        let object = crate::BronzeObject {
            tenant: tenant("a"),
            source: "clicks".parse().unwrap(),
            date: "2026-11-20".into(),
            name: "1.jsonl".into(),
            bytes: format!("{{\"seed\":{seed}}}\n").into(),
        };
        lake.archive(object).await.unwrap();
        let lake = Lake::open(Arc::new(disk.crash()), "lake", config(), clock()).unwrap();
        let found = one(&session(&lake, &["a"]), "select payload from bronze.clicks").await;
        assert_eq!(found, format!("{{\"seed\":{seed}}}"));
    }
}
