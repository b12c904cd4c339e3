//! Gold models over tables that pipelines fill.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use levada_config::model::{Model, ModelSchedule, Owner};

use super::{World, by_id, name, pipeline, until};
use crate::{ModelState, Models, ModelsConfig, Pipelines};

fn model(text: &str, sql: &str, reads: &[&str], schedule: ModelSchedule) -> Model {
    Model {
        name: name(text),
        owner: Owner::Shared,
        file: PathBuf::from(format!("models/{text}.sql")),
        sql: sql.to_owned(),
        reads: reads.iter().map(|r| r.parse().expect("a table")).collect(),
        schedule,
        description: None,
        cluster_by: Vec::new(),
        waiting: None,
    }
}

fn start(world: &World, pipelines: &Pipelines, models: &[Model]) -> Models {
    let config = ModelsConfig {
        lake: world.lake.clone(),
        disk: Arc::clone(&world.disk),
        clock: world.parts.clock.clone(),
        signals: pipelines.signals().clone(),
    };
    Models::start(models, config)
}

const ON_CHANGE: ModelSchedule = ModelSchedule::OnChange { at_most_every: Duration::ZERO };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_follow_their_sources_in_order_and_run_by_command() {
    let world = World::fresh();
    let pipelines = world.start(&[pipeline(vec![by_id()])]).await;
    let models = [
        model("top", "select tenant_id, total from gold.totals where total > 5", &["gold.totals"], ON_CHANGE),
        model(
            "totals",
            "select tenant_id, sum(n) as total from silver.events group by tenant_id",
            &["silver.events"],
            ON_CHANGE,
        ),
        model(
            "by_hand",
            "select tenant_id, count(*) as rows from silver.events group by tenant_id",
            &["silver.events"],
            ModelSchedule::Manual,
        ),
        model(
            "no_tenant",
            "select count(*) as rows from silver.events",
            &["silver.events"],
            ModelSchedule::Manual,
        ),
    ];
    let runner = start(&world, &pipelines, &models);
    let names: Vec<_> = runner.status().iter().map(|m| m.name.to_string()).collect();
    assert_eq!(names, ["totals", "top", "by_hand", "no_tenant"]);
    let events = [("a", "1", r#"{"id":"x","n":4}"#), ("b", "2", r#"{"id":"y","n":9}"#)];
    assert!(world.publish("events", &events).await);
    until(&pipelines, |s| s.totals.rows_out == 2).await;
    let mut changes = pipelines.changes();
    let rows = |at: usize| runner.status()[at].rows;
    while rows(1) != Some(1) {
        tokio::time::timeout(super::PATIENCE, changes.changed()).await.expect("in time").expect("live");
    }
    assert_eq!(
        world.query("select tenant_id, total from gold.totals").await,
        Ok(vec!["a 4".into(), "b 9".into()])
    );
    assert_eq!(world.query("select * from gold.top").await, Ok(vec!["b 9".into()]));

    assert_eq!(rows(2), None, "only by command");
    let done = runner.run("by_hand").await.expect("runs");
    assert_eq!((done.rows, done.epoch, done.state), (Some(2), 1, ModelState::Idle));
    let again = runner.run("by_hand").await.expect("runs");
    assert_eq!((again.rows, again.epoch), (Some(2), 2));
    assert_eq!(
        world.query("select count(*) from gold.by_hand").await,
        Ok(vec!["2".into()]),
        "replaced, not added"
    );
    assert_eq!(runner.run("nowhere").await.map_err(|p| p.code).err().as_deref(), Some("model-unknown"));
    assert_eq!(runner.run("no_tenant").await.map_err(|p| p.code).err().as_deref(), Some("model-tenant"));
    assert!(matches!(runner.status()[3].state, ModelState::Failed { .. }));
    runner.stop(Duration::from_secs(10)).await;

    // After a restart only what has changed since runs again.
    let ran: Vec<_> = runner_epochs(&world, &pipelines, &models).await;
    assert_eq!(ran, [Some(1), Some(1)]);
    pipelines.stop(Duration::from_secs(10)).await;
}

/// Epochs of the first two models after a new runner had its first look at the sources.
async fn runner_epochs(world: &World, pipelines: &Pipelines, models: &[Model]) -> Vec<Option<u64>> {
    let before: Vec<_> = start(world, pipelines, models).status().iter().map(|m| m.epoch).collect();
    let runner = start(world, pipelines, models);
    // A command is answered after the first look and whatever it found due.
    runner.run("by_hand").await.expect("runs");
    let after: Vec<_> = runner.status().iter().map(|m| m.epoch).collect();
    runner.stop(Duration::from_secs(10)).await;
    before.iter().zip(&after).take(2).map(|(b, a)| (b == a).then_some(*a)).collect()
}
