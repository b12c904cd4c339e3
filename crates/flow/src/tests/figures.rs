//! What a pipeline tells of itself: figures by tenant and by step, its last epochs, its lag.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_bus::TopicInfo;
use levada_config::model::{Check, Rule, Step};
use levada_core::TenantSet;

use super::{World, by_id, name, pipeline, tenant, until};
use crate::{PipelineStatus, Pipelines, TenantFigures, Totals};

fn quality() -> Step {
    Step::Quality { rules: vec![Rule { field: name("n"), check: Check::Positive }] }
}

fn info(world: &World) -> TopicInfo {
    world.bus.topics().into_iter().find(|t| t.name.as_str() == "events").expect("the topic")
}

fn only(text: &str) -> TenantSet {
    TenantSet::Only([tenant(text)].into())
}

/// `in out dropped dead` of each tenant.
fn totals(status: &PipelineStatus) -> BTreeMap<String, [u64; 4]> {
    let shown = |t: Totals| [t.records_in, t.rows_out, t.duplicates, t.dead_letters];
    status.by_tenant(None).into_iter().map(|(t, f)| (t.to_string(), shown(f.totals))).collect()
}

fn steps(status: &PipelineStatus) -> Vec<String> {
    let shown = |s: &crate::StepFigures| {
        let c = s.counts;
        format!("{} {} {} {} {}", s.name, c.rows_in, c.rows_out, c.dropped, c.dead)
    };
    status.steps.iter().map(shown).collect()
}

/// Number, rows of all and rows of the tenant `a`, newest first.
fn epochs(pipelines: &Pipelines) -> Vec<(u64, u64, Option<u64>)> {
    let first = pipeline(vec![]);
    let all = pipelines.epochs(&first.owner, &first.name);
    all.iter().map(|e| (e.epoch, e.rows, e.rows_of(&only("a")))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_told_apart_by_tenant_and_step_and_outlive_a_restart() {
    let world = World::fresh();
    let definition = [pipeline(vec![by_id(), quality()])];
    let pipelines = world.start(&definition).await;
    let first = [
        ("a", "1", r#"{"id":"x","n":1}"#),
        ("b", "2", r#"{"id":"x","n":1}"#),
        ("a", "3", r#"{"id":"x","n":1}"#),
        ("a", "4", r#"{"id":"#),
        ("b", "5", r#"{"id":"y","n":-1}"#),
        ("b", "6", r#"{"id":"z","n":2}"#),
    ];
    assert!(world.publish("events", &first).await);
    until(&pipelines, |s| s.totals.records_in == 6).await;
    assert!(world.publish("events", &[("b", "7", r#"{"id":"w","n":3}"#)]).await);
    let status = until(&pipelines, |s| s.totals.records_in == 7 && s.bronze_rows(&TenantSet::All) == 7).await;
    let apart = BTreeMap::from([("a".to_owned(), [3, 1, 1, 1]), ("b".to_owned(), [4, 3, 0, 1])]);
    assert_eq!(totals(&status), apart);
    let by_step = ["validate 7 6 0 1", "deduplicate 6 5 1 0", "quality 5 4 0 1"];
    assert_eq!(steps(&status), by_step);
    let seen = epochs(&pipelines);
    assert_eq!(seen[0], (status.epoch, 1, None), "the last epoch held nothing of a");
    assert_eq!(seen.iter().map(|e| e.1).sum::<u64>(), 4, "{seen:?}");
    assert_eq!(seen.iter().filter_map(|e| e.2).sum::<u64>(), 1, "{seen:?}");
    let last = |t: &str, s: &PipelineStatus| s.by_tenant(None)[&tenant(t)].epoch;
    assert_eq!(last("b", &status), Some(status.epoch));
    assert!(last("a", &status).is_some_and(|e| e < status.epoch), "{status:?}");
    assert_eq!((status.bronze_rows(&only("a")), status.bronze_rows(&only("c"))), (3, 0));
    pipelines.stop(Duration::from_secs(10)).await;

    let again = world.start(&definition).await;
    let back = until(&again, |s| s.epoch == status.epoch && s.bronze_rows(&TenantSet::All) == 7).await;
    assert_eq!(totals(&back), apart);
    assert_eq!(steps(&back), by_step);
    assert_eq!(epochs(&again), seen, "their manifests still exist");
    assert_eq!(back.by_tenant(None)[&tenant("a")], status.by_tenant(None)[&tenant("a")]);
    assert!(back.last_commit_ms.is_some());
    assert_eq!(back.bronze_rows(&only("a")), 3);
    assert!(world.publish("events", &[("a", "8", r#"{"id":"x","n":1}"#)]).await);
    let status = until(&again, |s| s.totals.records_in == 8).await;
    assert_eq!(totals(&status)["a"], [4, 1, 2, 1]);
    assert_eq!(steps(&status)[1], "deduplicate 7 5 2 0");
    assert_eq!(epochs(&again)[0].2, Some(0), "a record of a, and no row of it");
    again.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_a_lag_of_its_own() {
    let world = World::fresh();
    let mut slow = pipeline(vec![by_id()]);
    slow.epoch = Duration::from_secs(3600);
    let pipelines = world.start(std::slice::from_ref(&slow)).await;
    assert!(world.publish("events", &[("a", "1", r#"{"id":"1"}"#)]).await);
    until(&pipelines, |s| s.totals.records_in == 1).await;
    // Within the hour no second epoch is due: what comes now waits.
    let more = [("a", "2", r#"{"id":"2"}"#), ("b", "3", r#"{"id":"3"}"#), ("b", "4", r#"{"id":"4"}"#)];
    assert!(world.publish("events", &more).await);
    world.bus.end(&super::topic("events")).expect("the topic").wait_for(|end| *end == 4).await.expect("read");
    let backlog = |status: &PipelineStatus| {
        let figures = status.by_tenant(Some(&info(&world)));
        let of = |t: &str| figures.get(&tenant(t)).map(|f: &TenantFigures| f.backlog);
        (of("a"), of("b"), of("c"))
    };
    let status = pipelines.status().remove(0);
    assert_eq!(backlog(&status), (Some(Some(1)), Some(Some(2)), None));
    pipelines.stop(Duration::from_secs(10)).await;
    let again = world.start(&[slow]).await;
    let status = until(&again, |s| s.totals.records_in == 4 && s.epoch > 0).await;
    assert_eq!(backlog(&status), (Some(Some(0)), Some(Some(0)), None), "the stop committed what was read");
    again.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_own_pipeline_tells_nobody_apart() {
    let world = World::fresh();
    let mut own = pipeline(vec![by_id()]);
    own.owner = levada_config::model::Owner::Tenant(tenant("a"));
    let pipelines = world.start(&[own.clone()]).await;
    let events = [("a", "1", r#"{"id":"1"}"#), ("b", "2", r#"{"id":"2"}"#)];
    assert!(world.publish("events", &events).await);
    let status = until(&pipelines, |s| s.totals.records_in == 1 && s.bronze_rows(&TenantSet::All) == 1).await;
    assert!(status.by_tenant(Some(&info(&world))).is_empty());
    assert_eq!(status.full_name(), "a/events");
    assert_eq!((status.bronze_rows(&only("a")), status.bronze_rows(&only("b"))), (1, 0));
    assert_eq!(pipelines.epochs(&own.owner, &own.name)[0].rows, 1);
    pipelines.stop(Duration::from_secs(10)).await;
}
