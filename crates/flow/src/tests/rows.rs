//! What becomes of events on their way to silver, bronze and the dead letter.

use std::time::Duration;

use levada_config::model::{Check, Owner, Rule, Step};
use levada_core::{Principal, Role, TenantSet, attr};

use super::{World, by_id, name, pipeline, tenant, topic, until};
use crate::RunState;

fn quality() -> Step {
    Step::Quality { rules: vec![Rule { field: name("n"), check: Check::Positive }] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_become_rows_archive_and_dead_letters() {
    let world = World::fresh();
    let pipelines = world.start(&[pipeline(vec![by_id(), quality()])]).await;
    let good: Vec<(String, String)> =
        (0..50).map(|i| (format!("e{i}"), format!(r#"{{"id":"k{i}","n":{}}}"#, i + 1))).collect();
    let mut events: Vec<(&str, &str, &str)> = good
        .iter()
        .enumerate()
        .map(|(i, (id, body))| (["a", "b"][i % 2], id.as_str(), body.as_str()))
        .collect();
    events.push(("a", "again", r#"{"id":"k0","n":1}"#));
    events.push(("b", "other tenant", r#"{"id":"k0","n":1}"#));
    events.push(("a", "broken", r#"{"id":"#));
    events.push(("a", "negative", r#"{"id":"neg","n":-4}"#));
    assert!(world.publish("events", &events).await);
    let status = until(&pipelines, |s| s.totals.records_in == 54 && s.bronze_epoch > 0).await;
    let totals = status.totals;
    assert_eq!((totals.rows_out, totals.duplicates, totals.dead_letters), (51, 1, 2));
    assert_eq!(status.state, RunState::Running);
    assert!(status.latency_p50_ms.is_some_and(|ms| ms < 10_000));

    let counts =
        world.query("select tenant_id, count(*), sum(n) from silver.events group by tenant_id").await;
    assert_eq!(counts, Ok(vec!["a 25 625".into(), "b 26 651".into()]));
    let envelope =
        world.query("select _event_id, _event_type, _source_offset from silver.events where id = 'k7'").await;
    assert_eq!(envelope, Ok(vec!["e7 thing.made 7".into()]));
    let dead = world.dead_codes("events", 2).await;
    assert_eq!(dead, ["schema-malformed validate 52", "quality-positive quality 53"]);
    let letters = world.dead("events", 2).await;
    assert_eq!(&letters[1].message.body[..], br#"{"id":"neg","n":-4}"#, "the original bytes");
    assert_eq!(letters[1].message.attributes.get(attr::EVENT_ID), Some("negative"));
    assert_eq!(letters[1].message.tenant, tenant("a"));
    pipelines.stop(Duration::from_secs(10)).await;
    let bronze = world.query("select tenant_id, count(*) from bronze.events group by tenant_id").await;
    assert_eq!(bronze, Ok(vec!["a 28".into(), "b 26".into()]), "everything as it came, bad ones included");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_pipeline_has_committed_what_it_read_and_goes_on_from_there() {
    let world = World::fresh();
    let mut slow = pipeline(vec![by_id()]);
    slow.epoch = Duration::from_secs(3600);
    let pipelines = world.start(std::slice::from_ref(&slow)).await;
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x"}"#)]).await);
    until(&pipelines, |s| s.totals.rows_out == 1).await;
    assert!(world.publish("events", &[("a", "2", r#"{"id":"y"}"#)]).await);
    // Within the hour no second epoch is due: it is the stop that commits what was read.
    let cell = super::until(&pipelines, |s| s.backlog == 0 && s.epoch == 1).await;
    assert_eq!(cell.epoch, 1);
    pipelines.stop(Duration::from_secs(10)).await;
    let again = world.start(&[slow]).await;
    assert!(world.publish("events", &[("a", "3", r#"{"id":"x"}"#), ("a", "4", r#"{"id":"z"}"#)]).await);
    let status = until(&again, |s| s.totals.records_in == 4).await;
    assert_eq!((status.totals.rows_out, status.totals.duplicates), (3, 1), "keys outlive the restart");
    assert_eq!(
        world.query("select id from silver.events").await,
        Ok(vec!["x".into(), "y".into(), "z".into()])
    );
    again.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_mended_is_sent_again_and_arrives_once() {
    let world = World::fresh();
    let strict = pipeline(vec![by_id(), quality()]);
    let pipelines = world.start(std::slice::from_ref(&strict)).await;
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x","n":0}"#)]).await);
    until(&pipelines, |s| s.totals.dead_letters == 1).await;
    pipelines.stop(Duration::from_secs(10)).await;
    // The rule was wrong and is gone.
    let mended = world.start(&[pipeline(vec![by_id()])]).await;
    let operator = Principal {
        id: "k".into(),
        name: "operator".into(),
        tenants: TenantSet::All,
        roles: [Role::Admin].into_iter().collect(),
    };
    let dlq = topic("events").dead_letter().expect("a name");
    let outcome = world.bus.resend(&operator, &dlq, None).await.expect("sends");
    assert_eq!((outcome.sent, outcome.refused.len()), (1, 0));
    until(&mended, |s| s.totals.rows_out == 1).await;
    assert_eq!(world.query("select id, n from silver.events").await, Ok(vec!["x 0".into()]));
    mended.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_own_pipeline_never_sees_another_tenant() {
    let world = World::fresh();
    let mut own = pipeline(vec![]);
    own.owner = Owner::Tenant(tenant("a"));
    let pipelines = world.start(&[own]).await;
    assert!(
        world.publish("events", &[("b", "1", r#"{"id":"secret"}"#), ("a", "2", r#"{"id":"mine"}"#)]).await
    );
    until(&pipelines, |s| s.totals.rows_out == 1 && s.bronze_epoch == 1).await;
    let owner = levada_lake::Owner::Tenant(tenant("a"));
    let silver =
        world.lake.execute_model("select tenant_id, id from silver.events", &owner).await.expect("runs");
    assert_eq!(super::lines(&silver), ["a mine"]);
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_step_keeps_the_envelope_and_costs_a_bad_row_only_itself() {
    let world = World::fresh();
    let query = "select upper(id) as id, 100 / n as share from input where id <> 'skip'".to_owned();
    let rule = Rule { field: name("share"), check: Check::Range { min: None, max: Some("50".into()) } };
    let steps = vec![Step::Sql { query }, Step::Quality { rules: vec![rule] }];
    let pipelines = world.start(&[pipeline(steps)]).await;
    let bodies = [
        r#"{"id":"a","n":4}"#,
        r#"{"id":"b","n":0}"#,
        r#"{"id":"skip","n":5}"#,
        r#"{"id":"c","n":1}"#,
        r#"{"id":"d","n":10}"#,
    ];
    let events: Vec<_> = bodies.iter().map(|body| ("t", "e", *body)).collect();
    assert!(world.publish("events", &events).await);
    until(&pipelines, |s| s.totals.records_in == 5).await;
    let rows = world.query("select tenant_id, id, share, _source_offset from silver.events").await;
    assert_eq!(rows, Ok(vec!["t A 25 0".into(), "t D 10 4".into()]));
    let dead = world.dead_codes("events", 2).await;
    assert_eq!(dead, ["sql-failed sql 1", "quality-range quality 3"], "both lead back to their events");
    assert_eq!(&world.dead("events", 2).await[1].message.body[..], bodies[3].as_bytes());
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_made_of_several_stand_for_themselves() {
    let world = World::fresh();
    let query = "select tenant_id, id, sum(n) as total from input group by tenant_id, id".to_owned();
    let rule = Rule { field: name("total"), check: Check::Positive };
    let pipelines =
        world.start(&[pipeline(vec![Step::Sql { query }, Step::Quality { rules: vec![rule] }])]).await;
    let events = [
        ("t", "1", r#"{"id":"a","n":4}"#),
        ("t", "2", r#"{"id":"a","n":5}"#),
        ("t", "3", r#"{"id":"b","n":-1}"#),
    ];
    assert!(world.publish("events", &events).await);
    until(&pipelines, |s| s.totals.records_in == 3).await;
    assert_eq!(world.query("select tenant_id, id, total from silver.events").await, Ok(vec!["t a 9".into()]));
    let dead = world.dead("events", 1).await;
    assert_eq!(dead.len(), 1);
    let body: serde_json::Value = serde_json::from_slice(&dead[0].message.body).expect("JSON");
    assert_eq!((&body["id"], &body["total"]), (&"b".into(), &"-1".into()));
    assert_eq!(dead[0].message.tenant, tenant("t"));
    pipelines.stop(Duration::from_secs(10)).await;
}
