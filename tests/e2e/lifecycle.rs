//! Starting, draining and describing itself.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_testkit::{Connection, Request};
use serde_json::json;

use crate::world::{World, event};

const SETTINGS: &str = "name: small\ntenants:\n  - id: acme\n    limits: {events_per_s: 10, burst: 50}\n";

#[test]
fn it_answers_what_a_platform_asks_and_drains_on_sigterm() -> Result<()> {
    let mut world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/openapi.json", 200), ("/metrics", 401), ("/v1/status", 401)]
    {
        let found = world.send(&Request::get(path))?.status;
        ensure!(found == status, "{path}: {found} instead of {status}");
    }
    let metrics = world.send(&Request::get("/metrics").key(&world.admin))?.expect(200)?.text();
    ensure!(metrics.contains("# TYPE"), "{metrics:.500}");
    let request = Request::get("/v1/status").key(&world.admin).header("x-request-id", "my-request-7");
    let answer = world.send(&request)?.expect(200)?;
    ensure!(answer.header("x-request-id") == Some("my-request-7"), "{:?}", answer.headers);

    // Events that were answered before the signal are there after the next start.
    let mut open = Connection::open(&world.levada.http)?;
    let events: Vec<_> =
        (0..100).map(|n| event("default", "kept", &format!("k{n}"), json!({ "n": n }))).collect();
    open.send(&Request::post("/v1/events").key(&world.admin).json(&json!(events)))?.expect(202)?;
    let status = world.levada.terminate(Duration::from_secs(30))?;
    ensure!(status.success(), "{status}: {}", world.levada.log_tail());
    ensure!(!world.data().join("run.json").exists(), "a stopped server is not announced");
    world.restart()?;
    let messages = world.get(&world.admin, "/v1/topics/events/messages?limit=1000")?;
    ensure!(messages["messages"].as_array().map(Vec::len) == Some(100), "{:.500}", messages.to_string());
    Ok(())
}

#[test]
fn a_pipeline_that_failed_is_told_at_the_start_and_by_readyz() -> Result<()> {
    let pipeline = "pipeline: orders\nsource: {events: {topic: orders, event_types: [order]}}\n\
                    schema: {file: schemas/orders.json}\n";
    let schema = |kind: &str| format!(r#"{{"fields": [{{"name": "n", "type": "{kind}"}}]}}"#);
    let files = [
        ("levada.yaml", SETTINGS),
        ("pipelines/orders.yaml", pipeline),
        ("schemas/orders.json", &schema("INT64")),
    ];
    let mut world = World::of(&files, &[])?;
    let readiness = |world: &World| world.send(&Request::get("/readyz"))?.expect(200)?.json();
    ensure!(readiness(&world)?["status"] == "ready", "{}", readiness(&world)?);
    world.publish(&world.admin, &[event("acme", "order", "k1", json!({ "n": 1 }))])?;
    world.await_count(&world.admin, "select count(*) from silver.orders", 1)?;
    world.levada.terminate(Duration::from_secs(30))?;

    // The folder is in order by itself, but the table that is there has another type.
    std::fs::write(world.project.join("schemas/orders.json"), schema("STRING"))?;
    world.restart()?;
    let told = readiness(&world)?;
    ensure!(told["status"] == "degraded", "{told}");
    ensure!(told["degraded"] == json!([{ "kind": "pipeline", "count": 1 }]), "{told}");
    let told = world.get(&world.admin, "/readyz")?;
    let part = &told["degraded"][0]["parts"][0];
    ensure!(part["name"] == "orders" && part["reason"].as_str().is_some_and(|r| r.contains('n')), "{told}");
    levada_testkit::eventually("the first lines tell of it", crate::world::SOON, || {
        let said = world.levada.log_tail();
        Ok(if said.contains("failed      pipeline orders: ") && said.contains("ready without 1 part") {
            levada_testkit::wait::Look::Done(())
        } else {
            levada_testkit::wait::Look::NotYet(said)
        })
    })
}

#[test]
fn a_tenant_over_its_rate_is_told_when_to_come_back() -> Result<()> {
    let world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let key = world.key(&["acme"], &["client"])?;
    let batch = |from: u64| {
        let events: Vec<_> =
            (from..from + 40).map(|n| event("acme", "x", &format!("e{n}"), json!(n))).collect();
        Request::post("/v1/events").key(&key).json(&json!(events))
    };
    world.send(&batch(0))?.expect(202)?;
    let refused = world.send(&batch(40))?.expect(429)?;
    let seconds: u64 = refused.header("retry-after").context("Retry-After")?.parse()?;
    ensure!((1..=60).contains(&seconds), "{seconds}");
    ensure!(refused.headers.iter().any(|(name, _)| name.starts_with("ratelimit")), "{:?}", refused.headers);
    // Another tenant is not held back by it.
    let other = event("default", "x", "d1", json!(1));
    world.send(&Request::post("/v1/events").key(&world.admin).json(&other))?.expect(202)?;
    thread::sleep(Duration::from_secs(seconds));
    world.send(&batch(40))?.expect(202)?;
    Ok(())
}

const FIELDS: &str = r#"{"source_id": "any", "version": "1", "fields": [
  {"name": "n", "type": "INT64", "mode": "REQUIRED"}
]}"#;

#[test]
fn a_topic_of_several_pipelines_is_kept_as_long_as_the_longest_asks_for() -> Result<()> {
    let pipeline = |name: &str, topic: &str, retention: &str| {
        let source = format!("source:\n  events: {{topic: {topic}}}\nschema: {{file: schemas/any.json}}");
        format!("pipeline: {name}\n{source}\n{retention}")
    };
    let files = [
        ("levada.yaml", "name: shop\n".to_owned()),
        ("schemas/any.json", FIELDS.to_owned()),
        ("pipelines/a.yaml", pipeline("a", "shared", "retention: 3d\n")),
        ("pipelines/b.yaml", pipeline("b", "shared", "retention: 20d\n")),
        ("pipelines/c.yaml", pipeline("c", "shared", "retention: 5d\n")),
        ("pipelines/d.yaml", pipeline("d", "own", "retention: 2d\n")),
        ("pipelines/e.yaml", pipeline("e", "silent", "")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut world = World::of(&files, &[])?;
    for _ in 0..2 {
        for (topic, days) in [("shared", 20), ("own", 2), ("silent", 7)] {
            let found = world.get(&world.admin, &format!("/v1/projects/shop/topics/{topic}"))?;
            let wanted = format!("{}s", days * 24 * 3_600);
            ensure!(found["messageRetentionDuration"] == wanted, "{topic}: {found}, not {wanted}");
        }
        world.levada.kill();
        world.restart()?;
    }
    Ok(())
}
