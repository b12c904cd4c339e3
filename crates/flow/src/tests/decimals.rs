//! Decimals from an event to the table: exact in a new one, doubles in one that is older.

use std::sync::Arc;
use std::time::Duration;

use levada_config::model::{Check, Deduplicate, FieldType, Pipeline, Rule, Step};
use levada_disk::{Disk, SimDisk};

use super::{World, name, pipeline, until};

/// The pipeline `events` with a field `n` of this type, read strictly.
fn with(kind: FieldType, steps: Vec<Step>) -> Pipeline {
    let mut pipeline = pipeline(steps);
    pipeline.schema.as_mut().expect("a schema").fields[1].kind = kind;
    pipeline
}

const MONEY: FieldType = FieldType::Decimal { precision: 20, scale: 2 };

/// Publishes these values of `n`, each under an id of its own, and waits until all were read.
async fn run(world: &World, pipeline: Pipeline, from: u64, values: &[&str]) {
    let pipelines = world.start(&[pipeline]).await;
    let bodies: Vec<(String, String)> = values
        .iter()
        .enumerate()
        .map(|(at, n)| (format!("e{from}-{at}"), format!("{{\"id\":\"{from}-{at}\",\"n\":{n}}}")))
        .collect();
    let events: Vec<_> = bodies.iter().map(|(id, body)| ("t", id.as_str(), body.as_str())).collect();
    assert!(world.publish("events", &events).await);
    let all = from + values.len() as u64;
    until(&pipelines, |s| s.totals.records_in == all).await;
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_digit_reaches_the_table_and_its_sums() {
    let world = World::fresh();
    let values = ["12345678901234567.89", "0.1", "0.2", "\"-3.30\"", "1.005", "1e30", "1.500"];
    run(&world, with(MONEY, Vec::new()), 0, &values).await;
    let rows = world.query("select n from silver.events").await;
    assert_eq!(
        rows,
        Ok(["-3.30", "0.10", "0.20", "1.50", "12345678901234567.89"].map(str::to_owned).to_vec())
    );
    let total = world.query("select sum(n), min(n), max(n), count(distinct n) from silver.events").await;
    assert_eq!(total, Ok(vec!["12345678901234566.39 -3.30 12345678901234567.89 5".to_owned()]));
    let third =
        world.query("select count(*) from silver.events where n = 0.1 or n > 12345678901234567.88").await;
    assert_eq!(third, Ok(vec!["2".to_owned()]));
    let dead = world.dead_codes("events", 2).await;
    assert_eq!(dead, ["schema-decimal-scale validate 4", "schema-decimal-range validate 5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_keys_compare_decimals_by_value() {
    let world = World::fresh();
    let rules = [
        Check::Range { min: Some("0.1".into()), max: Some("99999999999999999.99".into()) },
        Check::OneOf { values: vec!["0.10".into(), "1.5".into(), "99999999999999999.99".into()] },
        Check::Positive,
    ];
    let rules = rules.map(|check| Rule { field: name("n"), check }).to_vec();
    let key = Deduplicate { key: vec![name("n")], window: Duration::from_secs(60), max_keys: 100 };
    let steps = vec![Step::Deduplicate(key), Step::Quality { rules }];
    let values = [
        "0.1",
        "0.100",
        "1.50",
        "\"1.5\"",
        "0.09",
        "99999999999999999.99",
        "99999999999999999.98",
        "100000000000000000",
    ];
    run(&world, with(MONEY, steps), 0, &values).await;
    let rows = world.query("select n from silver.events").await;
    assert_eq!(rows, Ok(["0.10", "1.50", "99999999999999999.99"].map(str::to_owned).to_vec()));
    let dead = world.dead_codes("events", 3).await;
    let want = ["quality-range quality 4", "quality-range quality 7", "quality-one-of quality 6"];
    assert_eq!(dead, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_doubles_goes_on_with_doubles() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    run(&World::open(Arc::clone(&disk)).expect("a world"), with(FieldType::Float64, Vec::new()), 0, &["0.1"])
        .await;
    let world = World::open(Arc::clone(&disk)).expect("the same world");
    // What a decimal would refuse, a double takes, as it did before.
    run(&world, with(MONEY, Vec::new()), 1, &["1.005", "1e30"]).await;
    let rows = world.query("select arrow_typeof(n), n from silver.events where n < 2").await;
    assert_eq!(rows, Ok(vec!["Float64 0.1".to_owned(), "Float64 1.005".to_owned()]));
    assert_eq!(world.dead_codes("events", 0).await, Vec::<String>::new());
    let world = World::open(disk).expect("the same world");
    let query = Step::Sql { query: "select id, tenant_id, n + 1 as n from input".to_owned() };
    run(&world, with(MONEY, vec![query]), 3, &["2.25"]).await;
    let rows = world.query("select arrow_typeof(n), n from silver.events where n > 2 and n < 4").await;
    assert_eq!(rows, Ok(vec!["Float64 3.25".to_owned()]), "what a query makes is cast");
}
