//! From publish to queryable silver: 12 columns, strict validation, deduplication by key, 100
//! tenants whose sizes follow Zipf's law.
//!
//! The clock runs from the first request until a query sees the last row. One event in a
//! hundred repeats the row before it under a new event id, and must be dropped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use levada_testkit::{Connection, Levada, Request};
use serde_json::Value;

use super::load::{self, Feed, Sent, Until};
use super::template::{ID, NUMBER, Template, number};
use super::{Bench, figure, note, project};

const TENANTS: u64 = 100;
const CONNECTIONS: u64 = 8;
const BATCH: u64 = 500;
/// Different requests a connection sends in turn: together they are skewed as tenants are.
const TEMPLATES: u64 = 20;
/// Between the first ids of two connections; a multiple of 100, so that repeats fall alike in each.
const APART: u64 = 100 << 34;
const GIVE_UP: Duration = Duration::from_secs(600);

pub fn run(bench: &Bench) -> Result<()> {
    let project = bench.fresh("project")?;
    write_project(&project)?;
    let levada = project::start(&project, &bench.fresh("data")?)?;
    let publish = project::key(&levada, &["service"])?;
    let query = project::key(&levada, &["analyst"])?;
    let until = Until { time: Duration::from_secs(bench.pick(15, 90)), events: u64::MAX / 2 };

    let start = Instant::now();
    let sent = load::run(&levada.http, feeds(&publish), until, repeat_every_hundredth)?;
    note(format_args!("{} events accepted in {:.1} s", sent.total(), sent.elapsed.as_secs_f64()));
    let expected = Expected::of(&sent);
    let drained = wait_for(&levada, &query, expected.rows, start)?;
    let seconds = drained.as_secs_f64();
    figure("silver_events_per_s", sent.total() as f64 / seconds, "events/s");
    figure("silver_accepted_per_s", sent.rate(), "events/s");
    figure("silver_drain_after_load", seconds - sent.elapsed.as_secs_f64(), "s");
    verify(&levada, &query, &expected)?;
    freshness(&levada)?;
    figure("silver_resident", levada.resident_bytes()? as f64 / f64::from(1 << 20), "MiB");
    Ok(())
}

/// Every hundredth event is the row of the one before it once more.
fn repeat_every_hundredth(n: u64) -> u64 {
    if n % 100 == 99 { n - 1 } else { n }
}

fn write_project(folder: &std::path::Path) -> Result<()> {
    let tenants: String = (0..TENANTS).map(|t| format!("  - t{t:03}\n")).collect();
    project::write(folder, "levada.yaml", &format!("name: bench\ntenants:\n{tenants}"))?;
    let fields = [
        ("reading_id", "STRING", "REQUIRED"),
        ("device", "STRING", "REQUIRED"),
        ("site", "STRING", "REQUIRED"),
        ("seq", "INT64", "REQUIRED"),
        ("level", "INT64", "NULLABLE"),
        ("value", "FLOAT64", "REQUIRED"),
        ("ratio", "FLOAT64", "NULLABLE"),
        ("ok", "BOOL", "REQUIRED"),
        ("taken_at", "TIMESTAMP", "REQUIRED"),
        ("day", "DATE", "REQUIRED"),
        ("note", "STRING", "NULLABLE"),
        ("extra", "JSON", "NULLABLE"),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, kind, mode)| {
            format!("{{\"name\": \"{name}\", \"type\": \"{kind}\", \"mode\": \"{mode}\"}}")
        })
        .collect();
    let schema = format!(
        "{{\"source_id\": \"readings\", \"version\": \"1.0\", \"fields\": [\n{}\n]}}\n",
        fields.join(",\n")
    );
    project::write(folder, "schemas/readings.json", &schema)?;
    let pipeline = "pipeline: readings\n\
        source:\n  events:\n    event_types: [\"reading.*\"]\n\
        schema:\n  file: schemas/readings.json\n  validation: strict\n\
        steps:\n  - deduplicate:\n      key: [reading_id]\n      window: 1h\n      max_keys: 20000000\n";
    project::write(folder, "pipelines/readings.yaml", pipeline)
}

fn feeds(key: &str) -> Vec<Feed> {
    let mut deal = Deal::new();
    (0..CONNECTIONS)
        .map(|c| {
            let templates = (0..TEMPLATES).map(|_| {
                let mut tenant = 0;
                let events: Vec<String> = (0..BATCH)
                    .map(|i| {
                        // A repeated row belongs to the tenant of the row that it repeats.
                        if i % 100 != 99 {
                            tenant = deal.next();
                        }
                        event(tenant)
                    })
                    .collect();
                Template::new("/v1/events", key, &events)
            });
            Feed { templates: templates.collect(), first: (c + 1) * APART }
        })
        .collect()
}

fn event(tenant: u64) -> String {
    format!(
        "{{\"tenant_id\":\"t{tenant:03}\",\"event_type\":\"reading.taken\",\"timestamp\":\"2026-01-01T00:00:00Z\",\
         \"payload\":{{\"reading_id\":\"{ID}\",\"device\":\"device-{tenant:03}-a\",\"site\":\"site-{}\",\
         \"seq\":{NUMBER},\"level\":{},\"value\":{}.25,\"ratio\":0.5,\"ok\":true,\
         \"taken_at\":\"2026-01-01T00:00:00Z\",\"day\":\"2026-01-01\",\
         \"note\":\"reading of tenant {tenant:03}, within limits, no action needed\",\
         \"extra\":{{\"firmware\":\"4.2.1\",\"battery\":87}}}}}}",
        tenant % 7,
        tenant % 5,
        tenant + 10,
    )
}

/// Deals tenants by Zipf's law: tenant k gets a share proportional to 1/(k+1). Shares, not
/// chance: each run is the same.
struct Deal {
    owed: Vec<f64>,
}

impl Deal {
    fn new() -> Self {
        Self { owed: vec![0.0; TENANTS as usize] }
    }

    fn next(&mut self) -> u64 {
        let all: f64 = (1..=TENANTS).map(|k| 1.0 / k as f64).sum();
        for (k, owed) in self.owed.iter_mut().enumerate() {
            *owed += 1.0 / (k as f64 + 1.0) / all;
        }
        let most = (0..self.owed.len()).max_by(|a, b| self.owed[*a].total_cmp(&self.owed[*b])).unwrap_or(0);
        self.owed[most] -= 1.0;
        most as u64
    }
}

/// What the table must hold.
#[derive(Debug, PartialEq)]
struct Expected {
    rows: u64,
    /// Of all rows: the sum of (seq mod 1000003) * (level + 1) + length of the note + tenth of value.
    checksum: u64,
    /// Per tenant.
    counts: Vec<u64>,
}

impl Expected {
    fn of(sent: &Sent) -> Self {
        let mut expected = Self { rows: 0, checksum: 0, counts: vec![0; TENANTS as usize] };
        let mut deal = Deal::new();
        let per_connection = TEMPLATES * BATCH;
        for (c, count) in sent.events.iter().enumerate() {
            let mut tenant = 0;
            let tenants: Vec<u64> = (0..per_connection)
                .map(|i| {
                    if i % 100 != 99 {
                        tenant = deal.next();
                    }
                    tenant
                })
                .collect();
            let first = (c as u64 + 1) * APART;
            for i in (0..*count).filter(|i| (first + i) % 100 != 99) {
                let tenant = tenants[(i % per_connection) as usize];
                expected.rows += 1;
                expected.counts[tenant as usize] += 1;
                expected.checksum += number(first + i) % 1_000_003 * (tenant % 5 + 1) + tenant + 10;
            }
        }
        expected
    }
}

fn wait_for(levada: &Levada, key: &str, rows: u64, start: Instant) -> Result<Duration> {
    let mut connection = Connection::open(&levada.http)?;
    loop {
        let answer = project::sql(&mut connection, key, "select count(*) as n from silver.readings")?;
        let seen = cell(&answer, 0, 0)?;
        match seen.cmp(&rows) {
            std::cmp::Ordering::Equal => return Ok(start.elapsed()),
            std::cmp::Ordering::Greater => bail!("{seen} rows in silver, only {rows} were sent"),
            std::cmp::Ordering::Less => {}
        }
        if start.elapsed() > GIVE_UP {
            bail!("{seen} of {rows} rows in silver after {GIVE_UP:?}");
        }
        // A query that runs all the time would take the processor from what is measured.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn verify(levada: &Levada, key: &str, expected: &Expected) -> Result<()> {
    let mut connection = Connection::open(&levada.http)?;
    let query = "select count(*) as n, count(distinct reading_id) as ids, \
                 sum(seq % 1000003 * (level + 1) + cast(value as bigint)) as s from silver.readings";
    let all = project::sql(&mut connection, key, query)?;
    ensure!(cell(&all, 0, 0)? == expected.rows, "rows: {all}");
    ensure!(cell(&all, 0, 1)? == expected.rows, "distinct ids: {all}");
    ensure!(cell(&all, 0, 2)? == expected.checksum, "checksum: {all} instead of {}", expected.checksum);
    let query = "select tenant_id, count(*) as n from silver.readings group by tenant_id order by tenant_id";
    let by_tenant = project::sql(&mut connection, key, query)?;
    let used: Vec<u64> = expected.counts.iter().copied().filter(|n| *n > 0).collect();
    for (row, count) in used.iter().enumerate() {
        ensure!(cell(&by_tenant, row, 1)? == *count, "row {row} of the counts by tenant: {by_tenant}");
    }
    note(format_args!("{} rows of {} tenants verified by SQL", expected.rows, used.len()));
    Ok(())
}

/// A cell of a result, whether its rows are arrays or objects.
fn cell(answer: &Value, row: usize, column: usize) -> Result<u64> {
    let row = answer["rows"].get(row).with_context(|| format!("no row {row} in {answer}"))?;
    let value = match row {
        Value::Array(cells) => cells.get(column),
        Value::Object(cells) => {
            let name = answer["columns"][column]["name"].as_str().context("no column name")?;
            cells.get(name)
        }
        _ => None,
    };
    let value = value.with_context(|| format!("no column {column} in {answer}"))?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.with_context(|| format!("not a count: {value}"))
}

/// What the server itself measured from publish to queryable, under this load.
fn freshness(levada: &Levada) -> Result<()> {
    let status = levada.send(&Request::get("/v1/status").key(&levada.admin_key()?))?.expect(200)?.json()?;
    for (name, key) in [("silver_latency_p50", "p50_ms"), ("silver_latency_p99", "p99_ms")] {
        if let Some(value) = find(&status, key) {
            figure(name, value, "ms");
        }
    }
    Ok(())
}

fn find(value: &Value, key: &str) -> Option<f64> {
    match value {
        Value::Object(map) => {
            map.get(key).and_then(Value::as_f64).or_else(|| map.values().find_map(|v| find(v, key)))
        }
        _ => None,
    }
}
