//! Another project: other names, tenants and types, and a hundred times the rows. Nothing in
//! the platform knows of it.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::world::{World, event};

/// A hundred times the rows of the weather file.
const ROWS: u64 = 2_611_500;
const FILES: u64 = 20;
/// A hundred times the webhooks.
const SCANS: u64 = 10_500;
const DEPOTS: [&str; 5] = ["Köln", "Linz", "Malmö", "Porto", "Żary"];
const TENANTS: [&str; 3] = ["nordwind", "suedmeer", "ostsee"];

const SETTINGS: &str = "name: parcels\ntenants: [nordwind, suedmeer, ostsee]\n";
const PARCELS: &str = "\
pipeline: parcels
source:
  files: {location: drop/parcels, pattern: \"*.csv.gz\", format: csv, null_values: [\"-\"]}
schema: {file: schemas/parcels.json}
";
const PARCEL_FIELDS: &str = r#"{"source_id": "parcels", "version": "2.1", "fields": [
  {"name": "parcel_no", "type": "INT64", "mode": "REQUIRED"},
  {"name": "depot", "type": "STRING", "mode": "REQUIRED"},
  {"name": "weight_g", "type": "INT64"},
  {"name": "fee", "type": "FLOAT64", "mode": "REQUIRED"},
  {"name": "fragile", "type": "BOOL", "mode": "REQUIRED"},
  {"name": "handed_over_at", "type": "TIMESTAMP", "mode": "REQUIRED"},
  {"name": "due_on", "type": "DATE", "mode": "REQUIRED"}
]}"#;
const SCANS_PIPELINE: &str = "\
pipeline: scans
source:
  events: {topic: belt.scans, event_types: [\"belt.*\"]}
schema: {file: schemas/scans.json}
steps:
  - deduplicate: {key: [scan_no], window: 2d}
  - quality:
      rules:
        - {field: gate, check: range, min: 1, max: 40}
  - sql: select *, gate % 2 = 0 as is_even from input
";
const SCAN_FIELDS: &str = r#"{"source_id": "scans", "version": "1.0", "fields": [
  {"name": "scan_no", "type": "INT64", "mode": "REQUIRED"},
  {"name": "gate", "type": "INT64", "mode": "REQUIRED"},
  {"name": "seen_at", "path": "seen.at", "type": "TIMESTAMP", "mode": "REQUIRED"}
]}"#;
const GATES: &str = "\
--! schedule: on_change 1s
--! shared: true
select tenant_id, gate, count(*) as scans from silver.scans group by tenant_id, gate
";

/// What the parcels table must hold.
#[derive(Debug, Default)]
struct Sums {
    weights: u64,
    weight_sum: u64,
    fee_cents: u64,
    fragile: u64,
    by_depot: [u64; 5],
}

#[test]
fn a_hundred_times_the_rows_under_other_names() -> Result<()> {
    let world = World::of(
        &[
            ("levada.yaml", SETTINGS),
            ("tenants/nordwind/pipelines/parcels.yaml", PARCELS),
            ("tenants/nordwind/schemas/parcels.json", PARCEL_FIELDS),
            ("pipelines/scans.yaml", SCANS_PIPELINE),
            ("schemas/scans.json", SCAN_FIELDS),
            ("models/gates.sql", GATES),
        ],
        &[],
    )?;
    let sums = land_parcels(&world)?;
    let gates = publish_scans(&world)?;

    let analyst = world.key(&["nordwind"], &["analyst"])?;
    world.await_count(&analyst, "select count(*) from silver.parcels", ROWS)?;
    let query = "select count(distinct parcel_no), count(weight_g), sum(weight_g), \
                 cast(round(sum(fee) * 100) as bigint), count(*) filter (where fragile), max(parcel_no) \
                 from silver.parcels";
    let found = &world.sql(&analyst, query)?[0];
    let expected = [ROWS, sums.weights, sums.weight_sum, sums.fee_cents, sums.fragile, ROWS - 1];
    ensure!(*found == expected.map(Value::from), "{found:?} instead of {expected:?}");
    for (depot, count) in DEPOTS.iter().zip(sums.by_depot) {
        let query = format!("select count(*) from silver.parcels where depot = '{depot}'");
        ensure!(world.psycopg(&analyst, &query)?[0][0] == count, "{depot}");
    }
    let day = "select count(*) from silver.parcels where due_on = date '2031-02-01' and handed_over_at < timestamp '2031-01-01'";
    ensure!(world.count(&analyst, day)? == 0);

    let everyone = world.key(&[], &["analyst"])?;
    for (tenant, counts) in TENANTS.iter().zip(&gates) {
        for (gate, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let query =
                format!("select scans from gold.gates where tenant_id = '{tenant}' and gate = {gate}");
            world.await_count(&everyone, &query, *count)?;
        }
    }
    let even: u64 = gates.iter().flat_map(|counts| counts.iter().step_by(2)).sum();
    world.await_count(&everyone, "select count(*) from silver.scans where is_even", even)?;
    let other = world.key(&["ostsee"], &["analyst"])?;
    let hidden = world.sql(&other, "select count(*) from silver.parcels");
    ensure!(hidden.is_err(), "a table of another tenant is not even named: {hidden:?}");
    Ok(())
}

fn land_parcels(world: &World) -> Result<Sums> {
    let mut dice = Dice::new(77);
    let mut sums = Sums::default();
    let mut parcel = 0;
    for file in 0..FILES {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all("parcel_no,depot,weight_g,fee,fragile,handed_over_at,due_on\r\n".as_bytes())?;
        let mut text = String::new();
        let last = ROWS * (file + 1) / FILES;
        while parcel < last {
            let roll = dice.roll();
            let depot = (roll % 5) as usize;
            let weight = (roll >> 8) % 40_000;
            let cents = (roll >> 24) % 10_000;
            let fragile = (roll >> 40).is_multiple_of(7);
            sums.by_depot[depot] += 1;
            sums.fee_cents += cents;
            sums.fragile += u64::from(fragile);
            let has_weight = weight >= 400;
            if has_weight {
                sums.weights += 1;
                sums.weight_sum += weight;
            }
            let weight = if has_weight { weight.to_string() } else { "-".to_owned() };
            let (hour, minute) = ((roll >> 48) % 24, (roll >> 54) % 60);
            text.push_str(&format!(
                "{parcel},\"{}\",{weight},{}.{:02},{fragile},2031-01-{:02}T{hour:02}:{minute:02}:00Z,2031-02-01\r\n",
                DEPOTS[depot],
                cents / 100,
                cents % 100,
                1 + (roll >> 60),
            ));
            parcel += 1;
        }
        gz.write_all(text.as_bytes())?;
        world
            .land("drop/parcels", &format!("day-{file:02}.csv.gz"), &gz.finish()?)
            .context("landing a file")?;
    }
    Ok(sums)
}

/// Scans by tenant and gate.
fn publish_scans(world: &World) -> Result<[[u64; 41]; 3]> {
    let mut dice = Dice::new(78);
    let mut gates = [[0; 41]; 3];
    let mut events = Vec::new();
    for scan in 0..SCANS {
        let tenant = dice.below(3) as usize;
        let gate = 1 + dice.below(40);
        gates[tenant][gate as usize] += 1;
        let payload = json!({ "scan_no": scan, "gate": gate, "seen": { "at": "2031-01-05T10:00:00+01:00" } });
        events.push(event(TENANTS[tenant], "belt.seen", &format!("s{scan}"), payload));
    }
    let publisher = world.key(&TENANTS, &["service"])?;
    world.publish(&publisher, &events)?;
    Ok(gates)
}
