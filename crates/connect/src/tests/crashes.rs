//! Power fails at any operation, again and again, while a folder is read: each row arrives
//! exactly once all the same, and each fsync of the ledger is needed for that.

use levada_disk::{SimDisk, SimRng, SyncKind};

use super::*;

const FILES: usize = 600;

/// Stands for the pipeline: what one epoch manifest commits, position and rows together.
#[derive(Default)]
struct Sink {
    position: Option<Value>,
    rows: Vec<String>,
}

/// Reads until the end or until the disk fails; commits an epoch every few batches.
async fn run(bench: &Bench, sink: &mut Sink, rng: &mut SimRng) -> Result<(), ReadError> {
    let mut reader = bench.reader();
    reader.seek(sink.position.as_ref()).await?;
    let mut rows = Vec::new();
    let mut empty = 0;
    while empty < 3 {
        let batch = reader.read(2, usize::MAX, Duration::ZERO).await?;
        empty = if batch.is_empty() { empty + 1 } else { 0 };
        let object = batch.object.clone().unwrap_or_default();
        rows.extend(told(&[batch]).into_iter().map(|row| format!("{object}: {row}")));
        if rng.one_in(5) || empty == 3 {
            sink.rows.append(&mut rows);
            sink.position = Some(stored(&reader.position()));
        }
    }
    Ok(())
}

/// One life with a few power failures in it; `Err` says how the promise was broken.
async fn life(bench: &mut Bench, seed: u64, skip: Option<(SyncKind, &str)>) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let mut sink = Sink::default();
    let mut disk = SimDisk::new(seed);
    for _ in 0..4 {
        if let Some((kind, path)) = skip {
            disk.skip_syncs(kind, path);
        }
        disk.crash_after(rng.below(6000));
        bench.disk = Arc::new(disk.clone());
        if let Err(error) = run(bench, &mut sink, &mut rng).await
            && !disk.has_crashed()
        {
            return Err(format!("seed {seed}: {error}"));
        }
        disk = disk.crash();
    }
    bench.disk = Arc::new(disk);
    run(bench, &mut sink, &mut rng).await.map_err(|error| format!("seed {seed}: {error}"))?;
    sink.rows.sort();
    let expected: Vec<String> = (0..FILES)
        .flat_map(|f| (1..=3).map(move |l| format!("{f:04}.jsonl: {l} {{\"f\":{f},\"l\":{l}}}")))
        .collect();
    if sink.rows == expected { Ok(()) } else { Err(format!("seed {seed}: {} rows", sink.rows.len())) }
}

fn bench() -> Bench {
    let bench = Bench::new(FileFormat::Json);
    for f in 0..FILES {
        let rows: String = (1..=3).map(|l| format!("{{\"f\":{f},\"l\":{l}}}\n")).collect();
        bench.put(&format!("{f:04}.jsonl"), rows);
    }
    bench
}

#[tokio::test]
async fn each_row_arrives_exactly_once_whatever_the_crashes() {
    let mut bench = bench();
    for seed in 0..12 {
        life(&mut bench, seed, None).await.unwrap();
    }
}

#[tokio::test]
async fn the_ledger_needs_its_syncs() {
    let mut bench = bench();
    for (kind, path) in [(SyncKind::File, "*done.jsonl"), (SyncKind::Dir, "connect/orders")] {
        let mut broken = None;
        for seed in 100..130 {
            broken = life(&mut bench, seed, Some((kind, path))).await.err();
            if broken.is_some() {
                break;
            }
        }
        assert!(broken.is_some(), "without the sync of {path} every life went well");
    }
}
