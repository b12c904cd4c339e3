//! Kills at random moments of a running load: every event that got its 202 is in silver exactly
//! once, every row of every file too, and nothing else is.
//!
//! `LEVADA_E2E_KILLS` sets how many; `cargo xtask campaign kills` is the long way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use levada_testkit::{Connection, Request};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::world::{World, event};

const PUBLISHERS: u64 = 3;
const ROWS_PER_FILE: u64 = 500;
const PARTS: u64 = 16;
/// A publisher sends so many events a millisecond at most. Unbounded, each life would begin with
/// more to work off than the one before it, and the campaign would spend its time on that.
const PACE_EVENTS_PER_MS: u64 = 4;

const PIPELINE: &str = "\
pipeline: ticks
source:
  events: {event_types: [tick]}
schema: {file: schemas/ticks.json}
steps:
  - deduplicate: {key: [n], window: 1d}
epoch: 300ms
";
const FILES: &str = "\
pipeline: ledger
source:
  files: {location: landing, format: jsonl}
schema: {file: schemas/ticks.json}
epoch: 300ms
";
const FIELDS: &str = r#"{"source_id": "ticks", "version": "1", "fields": [
  {"name": "n", "type": "INT64", "mode": "REQUIRED"},
  {"name": "half", "type": "FLOAT64", "mode": "REQUIRED"}
]}"#;
const MODEL: &str = "\
--! schedule: on_change 1s
--! shared: true
select tenant_id, count(*) as n, sum(n) as total from silver.ticks group by tenant_id
";

fn kills() -> u64 {
    std::env::var("LEVADA_E2E_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

#[test]
fn what_was_acknowledged_is_in_silver_exactly_once_after_kills() -> Result<()> {
    let mut dice = Dice::new(4711);
    let mut world = World::of(
        &[
            ("levada.yaml", "name: crashes\ntenants: [a, b]\n"),
            ("pipelines/ticks.yaml", PIPELINE),
            ("pipelines/ledger.yaml", FILES),
            ("schemas/ticks.json", FIELDS),
            ("models/totals.sql", MODEL),
        ],
        &[],
    )?;
    let key = world.key(&["a", "b"], &["service"])?;
    let acknowledged: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
    let mut next = 0;
    let mut files = 0;
    for kill in 0..kills() {
        land(&world, &mut files)?;
        let ranges = thread::scope(|scope| {
            let stop = Arc::new(AtomicBool::new(false));
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|p| {
                    let (address, key) = (world.levada.http.clone(), key.clone());
                    let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                    let first = next + p * 1_000_000;
                    scope.spawn(move || publish(&address, &key, first, &stop, &acknowledged))
                })
                .collect();
            thread::sleep(Duration::from_millis(20 + dice.below(1200)));
            world.levada.kill();
            stop.store(true, Ordering::SeqCst);
            let tried: Vec<u64> = publishers.into_iter().map(|p| p.join().unwrap_or(0)).collect();
            tried
        });
        world.restart().with_context(|| format!("after kill {kill}"))?;
        // What had no answer is sent again, as a client would: now it is answered.
        for (p, tried) in ranges.iter().enumerate() {
            let first = next + p as u64 * 1_000_000;
            settle(&world, &key, first, *tried, &acknowledged)?;
        }
        next += PUBLISHERS * 1_000_000;
    }
    verify(&world, &acknowledged.lock().unwrap(), files)
}

/// A file in the landing folder, to be taken while the server is killed.
fn land(world: &World, files: &mut u64) -> Result<()> {
    let first = *files * ROWS_PER_FILE;
    let rows = (first..first + ROWS_PER_FILE).map(|n| format!("{{\"n\":{n},\"half\":{}}}\n", n as f64 / 2.0));
    world.land("landing", &format!("f{files:04}.jsonl"), rows.collect::<String>().as_bytes())?;
    *files += 1;
    Ok(())
}

fn tick(n: u64) -> Value {
    let tenant = if n.is_multiple_of(3) { "a" } else { "b" };
    event(tenant, "tick", &format!("t{n}"), json!({ "n": n, "half": n as f64 / 2.0 }))
}

/// Publishes batches until the server goes; returns how many events were tried.
fn publish(
    address: &str,
    key: &str,
    first: u64,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeMap<u64, u64>>,
) -> u64 {
    let mut tried = 0;
    let Ok(mut connection) = Connection::open(address) else { return 0 };
    let began = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        if u128::from(tried) > began.elapsed().as_millis() * u128::from(PACE_EVENTS_PER_MS) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let size = 1 + (first + tried) % 60;
        let from = first + tried;
        tried += size;
        let events: Vec<Value> = (from..from + size).map(tick).collect();
        let request = Request::post("/v1/events").key(key).json(&json!(events));
        match connection.send(&request) {
            Ok(answer) if answer.status == 202 => {
                acknowledged.lock().unwrap().insert(from, size);
            }
            // The server is gone, or going.
            _ => break,
        }
    }
    tried
}

/// Sends again what was tried and not acknowledged.
fn settle(
    world: &World,
    key: &str,
    first: u64,
    tried: u64,
    acknowledged: &Mutex<BTreeMap<u64, u64>>,
) -> Result<()> {
    let mut known = acknowledged.lock().unwrap();
    let mut at = first;
    while at < first + tried {
        if let Some(size) = known.get(&at) {
            at += size;
            continue;
        }
        let size = 1 + at % 60;
        let events: Vec<Value> = (at..at + size).map(tick).collect();
        world.publish(key, &events)?;
        known.insert(at, size);
        at += size;
    }
    Ok(())
}

fn verify(world: &World, acknowledged: &BTreeMap<u64, u64>, files: u64) -> Result<()> {
    let analyst = world.key(&[], &["analyst"])?;
    let all = || acknowledged.iter().flat_map(|(from, size)| *from..from + size);
    let (count, total) = (all().count() as u64, all().sum::<u64>());
    println!("{count} events acknowledged, {files} files");
    world.await_count(&analyst, "select count(*) from silver.ticks", count)?;
    // In parts: millions of distinct numbers at once are more than a query may hold.
    let mut distinct = 0;
    for part in 0..PARTS {
        let query = format!("select count(distinct n) from silver.ticks where n % {PARTS} = {part}");
        distinct += world.count(&analyst, &query)?;
    }
    ensure!(distinct == count, "{distinct} different events instead of {count}");
    let sums = &world.sql(&analyst, "select sum(n), sum(half) from silver.ticks")?[0];
    ensure!(sums[0] == total && sums[1].as_f64() == Some(total as f64 / 2.0), "{sums:?} instead of {total}");
    world.await_count(&analyst, "select sum(n) from gold.totals", count)?;
    world.await_count(&analyst, "select sum(total) from gold.totals", total)?;

    let rows = files * ROWS_PER_FILE;
    world.await_count(&analyst, "select count(*) from silver.ledger", rows)?;
    let sums = &world.sql(&analyst, "select count(distinct n), sum(n) from silver.ledger")?[0];
    ensure!(sums[0] == rows && sums[1] == rows * (rows - 1) / 2, "{sums:?}");

    let engineer = world.key(&[], &["engineer"])?;
    let dead = world.dead_letters(&engineer)?;
    ensure!(dead.is_empty(), "nothing was wrong with the events: {dead:?}");
    Ok(())
}
