//! Seeded crashes of bus, lake and manifests on one simulated disk.
//!
//! Each history runs several lives of a process. A life publishes events while pipelines
//! run, and ends at a random disk operation, by power loss or by a kill. At the end a life
//! without faults catches up, and then every event that was acknowledged is in silver (or,
//! when it is broken, in the dead letter) and in bronze exactly once. An event whose answer was
//! lost may be there, once. Nothing else is.
//!
//! `LEVADA_CASES` sets the number of histories, `LEVADA_SEED` the first seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use levada_bus::Delivered;
use levada_core::attr;
use levada_disk::{SimDisk, SimRng, SyncKind};

use super::{World, by_id, no_files, pipeline};
use crate::{PipelineStatus, Pipelines, Totals};

/// Events by id and whether they are broken.
#[derive(Default)]
struct Published {
    acknowledged: BTreeMap<String, bool>,
    in_doubt: BTreeMap<String, bool>,
    /// Bodies sent more than once: the repeats are duplicates.
    repeated: u64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Publishes batches until the disk is gone or enough was said.
async fn publish(world: &World, rng: &mut SimRng, said: &mut Published, life: u64) {
    for batch in 0..1 + rng.below(12) {
        let mut events = Vec::new();
        for n in 0..1 + rng.below(6) {
            let id = format!("{life}-{batch}-{n}");
            let broken = rng.one_in(5);
            let body =
                if broken { format!(r#"{{"id":7,"was":"{id}"}}"#) } else { format!(r#"{{"id":"{id}"}}"#) };
            events.push((id, body, broken));
        }
        if rng.one_in(3)
            && let Some((id, _)) = said.acknowledged.iter().find(|(_, broken)| !**broken)
        {
            said.repeated += 1;
            events.push((format!("again-{}", said.repeated), format!(r#"{{"id":"{id}"}}"#), false));
        }
        let owner = ["a", "b"][usize::from(rng.one_in(2))];
        // Repeats are a third tenant's: its first of each id is no duplicate, the others are.
        let items: Vec<_> = events
            .iter()
            .map(|(id, body, _)| {
                (if id.starts_with("again") { "r" } else { owner }, id.as_str(), body.as_str())
            })
            .collect();
        let ok = world.publish("events", &items).await;
        for (id, _, broken) in events {
            if ok {
                said.acknowledged.insert(id, broken)
            } else {
                said.in_doubt.insert(id, broken)
            };
        }
        if !ok {
            return;
        }
        if rng.one_in(3) {
            tokio::task::yield_now().await;
        }
    }
}

/// One life; errors of a dying disk are part of it.
async fn live(disk: &SimDisk, rng: &mut SimRng, said: &mut Published, life: u64) {
    let Ok(world) = World::open(Arc::new(disk.clone())) else { return };
    let Ok(pipelines) = Pipelines::start(&[pipeline(vec![by_id()])], world.parts.clone(), no_files()).await
    else {
        return;
    };
    publish(&world, rng, said, life).await;
    let records = world.bus.bounds(&super::topic("events")).map_or(0, |b| b.next);
    let mut changes = pipelines.changes();
    let caught_up = async {
        while !disk.has_crashed() && pipelines.status()[0].totals.records_in < records {
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
    };
    // A pipeline that cannot go on is judged by the last life, not waited for here.
    let _ = tokio::time::timeout(Duration::from_secs(5), caught_up).await;
    pipelines.stop(Duration::from_millis(if disk.has_crashed() { 0 } else { 2000 })).await;
    let _ = world.bus.close().await;
}

/// Lets everything arrive and compares it with what was published.
async fn check(disk: &SimDisk, said: &Published) -> Result<(), String> {
    let world = World::open(Arc::new(disk.clone()))?;
    let start = Pipelines::start(&[pipeline(vec![by_id()])], world.parts.clone(), no_files()).await;
    let pipelines = start.map_err(|e| e.to_string())?;
    let records = world.bus.bounds(&super::topic("events")).map_or(0, |b| b.next);
    let mut changes = pipelines.changes();
    let began = tokio::time::Instant::now();
    while pipelines.status()[0].totals.records_in < records {
        let status = pipelines.status().remove(0);
        if matches!(status.state, crate::RunState::Failed { .. }) || began.elapsed() > super::PATIENCE {
            return Err(format!("it does not catch up with {records} records: {status:?}"));
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
    }
    let status = pipelines.status().remove(0);
    let totals = status.totals;
    pipelines.stop(Duration::from_secs(30)).await;
    if totals.records_in != records {
        return Err(format!("{} records were read of {records}", totals.records_in));
    }
    // What was answered becomes visible a moment later, and at the latest with the next start.
    world.bus.close().await.map_err(|e| e.to_string())?;
    let world = World::open(Arc::new(disk.clone()))?;
    let in_topic = world.bus.read(&super::topic("events"), 0, 100_000, 1 << 30).map_err(|e| e.to_string())?;
    compare("the topic", &event_ids(&in_topic), said, None)?;
    let silver = world.query("select tenant_id || '/' || id from silver.events").await;
    let rows = world.query("select tenant_id, count(*) from silver.events group by tenant_id").await;
    same_by_tenant(&status, &rows.unwrap_or_default())?;
    let bronze = world.query("select event_id from bronze.events").await;
    let dead = event_ids(&world.dead("events", 0).await);
    // Without a single event there is no table either.
    let silver: Vec<String> =
        silver.unwrap_or_default().into_iter().filter(|id| !id.starts_with("r/")).collect();
    let silver: Vec<String> =
        silver.into_iter().filter_map(|id| id.split('/').nth(1).map(str::to_owned)).collect();
    compare("silver", &silver, said, Some(false))?;
    compare("dead letters", &dead, said, Some(true))?;
    compare("bronze", &bronze.unwrap_or_default(), said, None)
}

/// However often the process died: tenants' figures add up to the totals, and are what their
/// tables hold.
fn same_by_tenant(status: &PipelineStatus, rows: &[String]) -> Result<(), String> {
    let told = status.by_tenant(None);
    let mut sum = Totals::default();
    told.values().for_each(|figures| sum += figures.totals);
    if sum != status.totals {
        return Err(format!("{sum:?} of the tenants together, {:?} of all", status.totals));
    }
    let with_rows = told.iter().filter(|(_, f)| f.totals.rows_out > 0);
    let counted: Vec<String> = with_rows.map(|(t, f)| format!("{t} {}", f.totals.rows_out)).collect();
    if counted == rows { Ok(()) } else { Err(format!("{counted:?} were counted, silver holds {rows:?}")) }
}

fn event_ids(delivered: &[Delivered]) -> Vec<String> {
    delivered
        .iter()
        .map(|d| d.message.attributes.get(attr::EVENT_ID).unwrap_or_default().to_owned())
        .collect()
}

/// `broken`: which of the events belong here; `None` is all.
fn compare(place: &str, found: &[String], said: &Published, broken: Option<bool>) -> Result<(), String> {
    let mut once = BTreeSet::new();
    for id in found {
        if !once.insert(id.as_str()) {
            return Err(format!("{id} is twice in {place}"));
        }
        let known = said.acknowledged.get(id).or(said.in_doubt.get(id));
        match (known, broken) {
            (Some(is), Some(wanted)) if *is != wanted => {
                return Err(format!("{id} does not belong in {place}"));
            }
            (None, _) => return Err(format!("nobody published {id}, but it is in {place}")),
            _ => {}
        }
    }
    let due = said.acknowledged.iter().filter(|(id, is)| {
        broken.is_none_or(|wanted| wanted == **is) && (broken.is_none() || !id.starts_with("again"))
    });
    match due.map(|(id, _)| id).find(|id| !once.contains(id.as_str())) {
        Some(id) => Err(format!("{id} was acknowledged and is not in {place}")),
        None => Ok(()),
    }
}

async fn history(seed: u64, skip: Option<(SyncKind, &str)>) -> Result<u64, String> {
    let mut rng = SimRng::new(seed);
    let mut disk = SimDisk::new(seed);
    let mut said = Published::default();
    for life in 0..3 {
        if let Some((kind, pattern)) = skip {
            disk.skip_syncs(kind, pattern);
        }
        if !rng.one_in(4) {
            disk.crash_after(rng.below(900));
        }
        live(&disk, &mut rng, &mut said, life).await;
        disk = if rng.one_in(3) { disk.restart() } else { disk.crash() };
    }
    check(&disk, &said).await.map_err(|error| format!("seed {seed}: {error}"))?;
    // What was found and rolled forward is as durable as anything else.
    let disk = disk.crash();
    check(&disk, &said).await.map_err(|error| format!("seed {seed}, after one more power loss: {error}"))?;
    Ok(said.acknowledged.len() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_arrive_exactly_once_whatever_crashes() {
    let first = setting("LEVADA_SEED", 0);
    let mut acknowledged = 0;
    for seed in first..first + setting("LEVADA_CASES", 200) {
        println!("seed {seed}");
        acknowledged += history(seed, None).await.unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(acknowledged > 0, "the histories published something");
}

/// Runs histories without one kind of fsync: the comparison must find the loss.
async fn is_missed(kind: SyncKind, pattern: &str) {
    for seed in 0..60 {
        if let Err(error) = history(seed, Some((kind, pattern))).await {
            println!("{error}");
            return;
        }
    }
    panic!("60 histories without {kind:?} of {pattern} lost nothing: the test would not see it missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_manifests_the_check_is_red() {
    is_missed(SyncKind::File, "flow/_shared/events/silver/*").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_the_manifests_names_the_check_is_red() {
    is_missed(SyncKind::Dir, "flow/_shared/events/silver").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_archive_manifests_the_check_is_red() {
    is_missed(SyncKind::File, "flow/_shared/events/bronze/*").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fsync_of_the_archive_manifests_names_the_check_is_red() {
    is_missed(SyncKind::Dir, "flow/_shared/events/bronze").await;
}
