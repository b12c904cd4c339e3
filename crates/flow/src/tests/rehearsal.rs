//! What a check says of steps and models before anything runs.

use std::path::PathBuf;
use std::sync::Arc;

use levada_config::model::{
    Limits, Model, ModelSchedule, Owner, Pipeline, Project, QueryLimitsConfig, ServerConfig, Step,
    TenantConfig,
};
use levada_config::{Place, Refused};
use levada_core::TextPosition;
use levada_disk::SimDisk;

use super::{World, by_id, name, pipeline, tenant};
use crate::rehearsal::rehearse;

fn sql(query: &str) -> Step {
    Step::Sql { query: query.to_owned() }
}

fn model(text: &str, sql: &str, reads: &[&str]) -> Model {
    Model {
        name: name(text),
        owner: Owner::Shared,
        file: PathBuf::from(format!("models/{text}.sql")),
        sql: sql.to_owned(),
        reads: reads.iter().map(|r| r.parse().expect("a table")).collect(),
        schedule: ModelSchedule::Manual,
        description: None,
        cluster_by: Vec::new(),
        waiting: None,
    }
}

fn project(pipelines: Vec<Pipeline>, models: Vec<Model>) -> Project {
    let limits = Limits { events_per_s: None, burst_events: None };
    Project {
        name: "test".into(),
        root: PathBuf::new(),
        server: ServerConfig {
            http: String::new(),
            postgres: None,
            data_dir: None,
            max_body_bytes: 1 << 20,
            limits,
            query: QueryLimitsConfig {
                memory_bytes: 1 << 20,
                timeout: std::time::Duration::from_secs(1),
                max_rows: 10,
            },
            namespaces: Vec::new(),
            memory_bytes: None,
            quotas: Vec::new(),
            egress: Vec::new(),
        },
        tenants: vec![TenantConfig {
            id: tenant("acme"),
            display_name: None,
            limits: None,
            quotas: Vec::new(),
        }],
        buckets: Default::default(),
        pipelines,
        models,
        inactive: Vec::new(),
    }
}

async fn refused(pipelines: Vec<Pipeline>, models: Vec<Model>) -> Vec<Refused> {
    let world = World::open(Arc::new(SimDisk::new(1))).expect("a world");
    rehearse(&project(pipelines, models), &world.lake, &world.parts.enrich).await
}

fn position(line: u32, column: u32) -> Option<TextPosition> {
    Some(TextPosition { line, column })
}

#[tokio::test]
async fn a_project_that_runs_has_nothing_refused() {
    let steps = vec![by_id(), sql("select id, n * 2 as twice from input where n > 1")];
    let models = vec![
        // Out of order, over bronze, and dividing by what is nothing while tables are empty.
        model("top", "select tenant_id, share from gold.shares where share > 1", &["gold.shares"]),
        model(
            "shares",
            "select tenant_id, sum(twice) / count(*) as share from silver.events group by tenant_id",
            &["silver.events"],
        ),
        model("raw", "select tenant_id, count(*) as n from bronze.events group by 1", &["bronze.events"]),
    ];
    assert_eq!(refused(vec![pipeline(steps)], models).await, []);
}

#[tokio::test]
async fn a_step_that_does_not_plan_is_named_with_its_place() {
    for (steps, index, at, said) in [
        (vec![by_id(), sql("select id\nfrom input\nwher n > 1")], 1, position(3, 6), "n"),
        (vec![by_id(), sql("select id,\n       m from input")], 1, position(2, 8), "`m`"),
        (vec![sql("select id, frobnicate(n) as m from input")], 0, position(1, 12), "frobnicate"),
        (vec![sql("select id from input where id + interval '1 day' > n")], 0, None, ""),
        // Only after the query it is known that the column is gone.
        (vec![sql("select n from input"), by_id()], 1, None, "`id`"),
    ] {
        let query = match &steps[index] {
            Step::Sql { query } => Some(query.clone()),
            _ => None,
        };
        let found = refused(vec![pipeline(steps)], Vec::new()).await;
        let [one] = found.as_slice() else { panic!("one is refused: {found:?}") };
        assert_eq!(one.place, Place::Step { index, query }, "{one:?}");
        assert!(at.is_none() || one.at == at, "{one:?}");
        assert!(one.reason.contains(said), "{one:?}");
        assert!(one.hint.as_ref().is_none_or(|hint| !hint.contains(crate::rows::ROW)), "{one:?}");
        assert_eq!((&one.owner, one.name.as_str()), (&Owner::Shared, "events"));
    }
}

#[tokio::test]
async fn a_model_that_does_not_plan_is_named_once_and_not_those_that_read_it() {
    let models = vec![
        model("broken", "select tenant_id,\n  amount\nfrom silver.events", &["silver.events"]),
        model("after", "select tenant_id, whatever from gold.broken", &["gold.broken"]),
        model("mixed", "select count(*) as n from silver.events", &["silver.events"]),
    ];
    let found = refused(vec![pipeline(vec![by_id()])], models).await;
    let names: Vec<&str> = found.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["broken", "mixed"]);
    assert_eq!(found[0].at, position(2, 3), "{:?}", found[0]);
    assert!(found[0].hint.as_deref().is_some_and(|hint| hint.contains("n")), "{:?}", found[0]);
    assert!(found[1].reason.contains("tenant_id"), "{:?}", found[1]);

    // The table of a pipeline that is refused has columns that nobody knows.
    let reads_it = model("reads_it", "select tenant_id, x from silver.events", &["silver.events"]);
    let found = refused(vec![pipeline(vec![sql("select y from input")])], vec![reads_it]).await;
    assert_eq!(found.len(), 1, "{found:?}");
}
