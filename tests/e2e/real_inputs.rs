//! The main job on real inputs, in the project that `levada init` writes: a year of weather as
//! a file, check-ins enriched by a REST service made from it, and GitHub webhooks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::inputs::{self, Observation};
use crate::weather_service::WeatherService;
use crate::world::{Rows, World, event};

const TENANTS: [&str; 2] = ["northwind", "lakeside"];
const CHECK_INS: usize = 3000;

#[test]
fn weather_check_ins_and_webhooks_reach_their_tables() -> Result<()> {
    let Some(folder) = inputs::folder()? else { return Ok(()) };
    let (file, observations) = inputs::weather(&folder)?;
    let service = WeatherService::start(&observations)?;
    let world = World::starter(&[("LEVADA_WEATHER_URL", &service.url)])?;
    let all = world.key(&[], &["engineer", "analyst"])?;

    world.land("landing/weather", "nyc-2013-hourly.csv", &file)?;
    let sent = check_ins(&world, &observations)?;
    let bodies = webhooks(&world, &folder)?;

    weather(&world, &all, &observations)?;
    archived(&world, &file)?;
    enriched(&world, &all, &sent)?;
    by_station_and_day(&world, &all, &sent)?;
    webhooks_are_queryable(&world, &all, &bodies)?;
    ensure!(service.requests() < 3 * CHECK_INS as u64, "the cache saves requests");
    Ok(())
}

/// A check-in that must arrive.
struct CheckIn {
    tenant: &'static str,
    user: u64,
    station: String,
    time: String,
    temp: Option<f64>,
}

/// Publishes check-ins, some of them twice, some at stations or hours that nobody knows.
fn check_ins(world: &World, observations: &[Observation]) -> Result<Vec<CheckIn>> {
    let mut dice = Dice::new(2013);
    let mut unique = BTreeMap::new();
    for _ in 0..CHECK_INS {
        let at = &observations[dice.below(observations.len() as u64) as usize];
        let check_in = CheckIn {
            tenant: TENANTS[dice.below(2) as usize],
            user: dice.below(200),
            station: at.origin.clone(),
            time: format!("{}{:02}:00Z", &at.time[..14], dice.below(60)),
            temp: at.values["temp"],
        };
        unique.insert(
            (check_in.tenant, check_in.user, check_in.station.clone(), check_in.time.clone()),
            check_in,
        );
    }
    let sent: Vec<CheckIn> = unique.into_values().collect();
    let payload =
        |c: &CheckIn| json!({ "user_id": format!("u{}", c.user), "station": c.station, "time": c.time });
    let mut events: Vec<Value> = Vec::new();
    for (n, check_in) in sent.iter().enumerate() {
        events.push(event(check_in.tenant, "user.checked_in", &format!("c{n}"), payload(check_in)));
        if n % 20 == 0 {
            // The same check-in under another event id: dropped by its key.
            events.push(event(check_in.tenant, "user.checked_in", &format!("again{n}"), payload(check_in)));
        }
    }
    for n in 0..7 {
        let nowhere =
            json!({ "user_id": "u1", "station": "XXX", "time": format!("2013-05-05T05:{n:02}:00Z") });
        events.push(event("lakeside", "user.checked_in", &format!("nowhere{n}"), nowhere));
    }
    for n in 0..3 {
        let unknown =
            json!({ "user_id": "u1", "station": "JFK", "time": format!("2011-05-05T05:{n:02}:00Z") });
        events.push(event("northwind", "user.checked_in", &format!("unknown{n}"), unknown));
    }
    let publisher = world.key(&TENANTS, &["client"])?;
    world.publish(&publisher, &events)?;
    // A client that sends everything again after a lost answer changes nothing.
    world.publish(&publisher, &events[..500])?;
    Ok(sent)
}

fn weather(world: &World, key: &str, observations: &[Observation]) -> Result<()> {
    world.await_count(key, "select count(*) from silver.weather", 26_115)?;
    ensure!(observations.len() == 26_115);
    let mut by_origin: BTreeMap<&str, (u64, u64, u64, f64)> = BTreeMap::new();
    for row in observations {
        let cell = by_origin.entry(&row.origin).or_default();
        cell.0 += 1;
        cell.1 += u64::from(row.values["temp"].is_some());
        cell.2 += u64::from(row.values["wind_gust"].is_some());
        cell.3 += row.values["temp"].unwrap_or_default();
    }
    let query = "select origin, count(*), count(temp), count(wind_gust), sum(temp) from silver.weather \
                 group by origin order by origin";
    let rows = world.sql(key, query)?;
    ensure!(rows.len() == by_origin.len());
    for (row, (origin, (count, temps, gusts, sum))) in rows.iter().zip(&by_origin) {
        ensure!(row[..4] == [json!(origin), json!(count), json!(temps), json!(gusts)], "{row:?}");
        let found = row[4].as_f64().context("a sum")?;
        ensure!((found - sum).abs() < 1e-6 * sum.abs(), "{origin}: {found} instead of {sum}");
    }
    let psycopg = world.psycopg(key, "select count(*), count(temp), min(time_hour) from silver.weather")?;
    ensure!(psycopg[0][0] == 26_115 && psycopg[0][1] == 26_114, "{psycopg}");
    ensure!(psycopg[0][2].as_str().is_some_and(|t| t.starts_with("2013-01-01 06:00:00")), "{psycopg}");
    Ok(())
}

/// The file lies in bronze as it came.
fn archived(world: &World, file: &[u8]) -> Result<()> {
    let mut found = Vec::new();
    walk(world.data(), &mut |path| {
        if path.to_string_lossy().contains("source=weather")
            && path.to_string_lossy().ends_with("nyc-2013-hourly.csv")
        {
            found.push(path.to_owned());
        }
    })?;
    ensure!(found.len() == 1, "copies in bronze: {found:?}");
    ensure!(fs::read(&found[0])? == file, "the copy differs from the file");
    let path = found[0].to_string_lossy();
    ensure!(path.contains("tenant=default/") && path.contains("/date="), "{path}");
    Ok(())
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, visit)? } else { visit(&path) }
    }
    Ok(())
}

fn enriched(world: &World, key: &str, sent: &[CheckIn]) -> Result<()> {
    world.await_count(key, "select count(*) from silver.checkins", sent.len() as u64)?;
    for tenant in TENANTS {
        let own: Vec<&CheckIn> = sent.iter().filter(|c| c.tenant == tenant).collect();
        let theirs = world.key(&[tenant], &["analyst"])?;
        let query = "select count(*), count(temp), sum(temp) from silver.checkins";
        let row = &world.sql(&theirs, query)?[0];
        let temps: Vec<f64> = own.iter().filter_map(|c| c.temp).collect();
        ensure!(row[0] == own.len() && row[1] == temps.len(), "{tenant}: {row:?} instead of {}", own.len());
        let (found, sum) = (row[2].as_f64().context("a sum")?, temps.iter().sum::<f64>());
        ensure!((found - sum).abs() < 1e-6 * sum, "{tenant}: {found} instead of {sum}");
        let psycopg = world.psycopg(&theirs, "select count(*) from silver.checkins")?;
        ensure!(psycopg[0][0] == own.len(), "{psycopg}");
    }
    let mut dead: BTreeMap<String, usize> = BTreeMap::new();
    let engineer = world.key(&[], &["engineer"])?;
    levada_testkit::eventually("ten dead letters", crate::world::SOON, || {
        let letters = world.dead_letters(&engineer)?;
        Ok(if letters.len() == 10 {
            for letter in letters {
                *dead.entry(letter["payload"]["station"].to_string()).or_default() += 1;
            }
            levada_testkit::wait::Look::Done(())
        } else {
            levada_testkit::wait::Look::NotYet(format!("{} dead letters", letters.len()))
        })
    })?;
    ensure!(dead == BTreeMap::from([("\"JFK\"".to_owned(), 3), ("\"XXX\"".to_owned(), 7)]), "{dead:?}");
    Ok(())
}

fn by_station_and_day(world: &World, key: &str, sent: &[CheckIn]) -> Result<()> {
    let mut days: BTreeMap<(&str, &str, &str), (u64, std::collections::BTreeSet<u64>)> = BTreeMap::new();
    for c in sent {
        let day = days.entry((c.tenant, &c.station, &c.time[..10])).or_default();
        day.0 += 1;
        day.1.insert(c.user);
    }
    let expected: Rows = days
        .iter()
        .map(|((tenant, station, day), (count, users))| {
            vec![json!(tenant), json!(station), json!(day), json!(count), json!(users.len())]
        })
        .collect();
    let query = "select tenant_id, station, cast(day as varchar) as on_day, check_ins, users from gold.station_days \
                 order by tenant_id, station, on_day";
    world.await_rows(key, query, &expected)
}

/// Event type, repository and sender of each body.
type Webhook = (String, String, String);

fn webhooks(world: &World, folder: &Path) -> Result<Vec<Webhook>> {
    let mut events = Vec::new();
    let mut bodies = Vec::new();
    for (name, _, body) in inputs::webhooks(folder)? {
        let kind = name.split('.').next().unwrap_or_default();
        let event_type = format!("github.{kind}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        bodies.push((
            event_type.clone(),
            text(&body["repository"]["full_name"]),
            text(&body["sender"]["login"]),
        ));
        events.push(event("northwind", &event_type, &name, body));
    }
    ensure!(events.len() == 105);
    // The bodies are large: a few a request.
    let publisher = world.key(&["northwind"], &["service"])?;
    for part in events.chunks(10) {
        world.publish(&publisher, part)?;
    }
    Ok(bodies)
}

fn webhooks_are_queryable(world: &World, key: &str, bodies: &[Webhook]) -> Result<()> {
    world.await_count(key, "select count(*) from silver.webhooks", 105)?;
    for (column, pick) in [
        ("event_type", (|w| &w.0) as fn(&Webhook) -> &String),
        ("repository", |w| &w.1),
        ("sender", |w| &w.2),
    ] {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for body in bodies {
            *counts.entry(pick(body)).or_default() += 1;
        }
        let expected: Rows = counts.iter().map(|(name, n)| vec![json!(name), json!(n)]).collect();
        let query =
            format!("select {column}, count(*) from silver.webhooks group by {column} order by {column}");
        let found = world.sql(key, &query)?;
        ensure!(found == expected, "{column}: {found:?} instead of {expected:?}");
        ensure!(world.psycopg(key, &query)? == json!(expected), "{column} through psycopg");
    }
    let pulls = bodies.iter().filter(|w| w.0 == "github.pull_request").count();
    let query = "select count(*) from gold.webhook_activity where event_type = 'github.pull_request'";
    let distinct: std::collections::BTreeSet<&String> =
        bodies.iter().filter(|w| w.0 == "github.pull_request").map(|w| &w.1).collect();
    world.await_count(key, query, distinct.len() as u64)?;
    let query = "select sum(events) from gold.webhook_activity where event_type = 'github.pull_request'";
    world.await_count(key, query, pulls as u64)
}
