//! The weather service down, slow and lying: what cannot be enriched is a dead letter, nothing
//! wrong gets into the table, and "send again" mends it once the service is well.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use levada_testkit::Request;
use serde_json::{Value, json};

use crate::inputs::Observation;
use crate::weather_service::{Mood, WeatherService};
use crate::world::{World, event};

const PIPELINE: &str = "\
pipeline: visits
source:
  events: {topic: visits, event_types: [visit]}
schema: {file: schemas/visits.json}
steps:
  - enrich:
      name: observation
      url: \"${WEATHER}/v1/observations/{station}/{at}\"
      fields:
        - {name: temp, type: FLOAT64}
        - {name: humid, type: FLOAT64}
      ttl: 1h
      timeout: 300ms
      attempts: 2
      breaker_failures: 1000
      breaker_open: 1s
epoch: 300ms
";
const FIELDS: &str = r#"{"source_id": "visits", "version": "1", "fields": [
  {"name": "station", "type": "STRING", "mode": "REQUIRED"},
  {"name": "at", "type": "TIMESTAMP", "mode": "REQUIRED"}
]}"#;

#[test]
fn a_service_that_is_down_slow_or_lying_costs_dead_letters_only() -> Result<()> {
    let service = WeatherService::start(&observations())?;
    let world = World::of(
        &[
            ("levada.yaml", "name: visits\ntenants: [acme]\n"),
            ("pipelines/visits.yaml", PIPELINE),
            ("schemas/visits.json", FIELDS),
        ],
        &[("WEATHER", &service.url)],
    )?;
    let key = world.key(&["acme"], &["engineer"])?;
    let moods = [Mood::Down, Mood::Slow(2_000), Mood::Html, Mood::WrongTypes, Mood::Failing];
    let mut dead = 0;
    for (hour, mood) in moods.into_iter().enumerate() {
        service.be(mood);
        let visits: Vec<Value> = (0..3).map(|n| visit(&format!("{hour}-{n}"), hour, n)).collect();
        world.publish(&key, &visits)?;
        dead += visits.len();
        levada_testkit::eventually(&format!("{mood:?}: {dead} dead letters"), crate::world::SOON, || {
            let seen = world.dead_letters(&key)?.len();
            Ok(if seen == dead {
                levada_testkit::wait::Look::Done(())
            } else {
                levada_testkit::wait::Look::NotYet(seen.to_string())
            })
        })?;
    }
    service.be(Mood::Well);
    world.publish(&key, &[visit("well", 10, 0)])?;
    world.await_count(&key, "select count(*) from silver.visits", 1)?;
    for letter in world.dead_letters(&key)? {
        ensure!(letter["stage"].as_str().is_some_and(|s| s.contains("enrich")), "{letter}");
        ensure!(letter["reason"].as_str().is_some_and(|r| !r.is_empty()), "{letter}");
        ensure!(letter["payload"]["station"] == "JFK", "the original is kept: {letter}");
    }
    let resend =
        Request::post("/v1/dead-letters/resend").key(&key).json(&json!({ "topic": "visits", "all": true }));
    let sent = world.send(&resend)?.expect(200)?.json()?;
    ensure!(sent["sent"] == dead, "{sent}");
    world.await_count(&key, "select count(*) from silver.visits", dead as u64 + 1)?;
    let rows = world.sql(&key, "select count(temp), sum(temp) from silver.visits")?;
    let expected: f64 = (0..moods.len()).map(|hour| 3.0 * temp(hour)).sum::<f64>() + temp(10);
    ensure!(rows[0][0] == dead + 1, "no row without its weather: {rows:?}");
    ensure!(rows[0][1].as_f64().context("a sum")? == expected, "{rows:?} instead of {expected}");
    let again = world.send(&resend)?.expect(200)?.json()?;
    ensure!(again["sent"] == 0, "sent once only: {again}");
    Ok(())
}

fn temp(hour: usize) -> f64 {
    50.0 + hour as f64
}

fn observations() -> Vec<Observation> {
    (0..24)
        .map(|hour| Observation {
            origin: "JFK".to_owned(),
            time: format!("2013-05-05T{hour:02}:00:00Z"),
            values: HashMap::from([("temp".to_owned(), Some(temp(hour))), ("humid".to_owned(), None)]),
        })
        .collect()
}

fn visit(id: &str, hour: usize, minute: usize) -> Value {
    event(
        "acme",
        "visit",
        id,
        json!({ "station": "JFK", "at": format!("2013-05-05T{hour:02}:{minute:02}:00Z") }),
    )
}
