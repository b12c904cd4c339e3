//! Bad input at the gateway and in files: each is answered with a problem that says what is
//! wrong, or kept as a dead letter; what is good beside it goes on.

use std::fs;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use levada_testkit::{Connection, Levada, Options, Request, skipping_is_failure};
use serde_json::{Value, json};

use crate::world::{World, event};

const PIPELINE: &str = "\
pipeline: orders
source:
  events: {topic: orders, event_types: [\"order.*\"]}
schema: {file: schemas/orders.json, validation: strict}
epoch: 500ms
";
const FILES: &str = "\
pipeline: stock
source:
  files: {location: landing, pattern: \"*.csv*\", format: csv, null_values: [NA]}
schema: {file: schemas/orders.json}
epoch: 500ms
";
const FIELDS: &str = r#"{"source_id": "orders", "version": "1", "fields": [
  {"name": "item", "type": "STRING", "mode": "REQUIRED"},
  {"name": "pieces", "type": "INT64", "mode": "REQUIRED"},
  {"name": "price", "type": "FLOAT64"},
  {"name": "sold_at", "type": "TIMESTAMP"}
]}"#;

fn world() -> Result<World> {
    World::of(
        &[
            ("levada.yaml", "name: bad_input\ntenants: [acme]\nmax_body: 2MiB\n"),
            ("pipelines/orders.yaml", PIPELINE),
            ("pipelines/stock.yaml", FILES),
            ("schemas/orders.json", FIELDS),
        ],
        &[],
    )
}

fn order(id: &str, pieces: Value) -> Value {
    event("acme", "order.placed", id, json!({ "item": "drum", "pieces": pieces }))
}

#[test]
fn the_gateway_says_what_is_wrong() -> Result<()> {
    let world = world()?;
    let key = world.key(&["acme"], &["client"])?;
    let post =
        |content_type: &str, body: Vec<u8>| Request::post("/v1/events").key(&key).bytes(content_type, body);
    let json_body = |value: &Value| post("application/json", value.to_string().into_bytes());
    let mut deep = vec![b'['; 100_000];
    deep.extend(vec![b']'; 100_000]);
    let mut broken_text = order("x", json!(1)).to_string().into_bytes();
    let at = broken_text.iter().position(|b| *b == b'd').context("a letter")?;
    broken_text[at] = 0xFF;
    let cases: Vec<(&str, Request, u16)> = vec![
        ("oversized", post("application/json", vec![b' '; 3 << 20]), 413),
        ("truncated", post("application/json", br#"{"event_type":"order.placed","payload":{"#.to_vec()), 400),
        ("invalid UTF-8", post("application/json", broken_text), 400),
        ("deep", post("application/json", deep), 400),
        ("no JSON", post("application/json", b"hello".to_vec()), 400),
        ("empty", post("application/json", Vec::new()), 400),
        ("no object", json_body(&json!(5)), 422),
        (
            "wrong type in the envelope",
            json_body(&json!({ "event_type": 5, "tenant_id": "acme", "payload": {} })),
            422,
        ),
        ("no payload", json_body(&json!({ "event_type": "order.placed", "tenant_id": "acme" })), 422),
        (
            "unknown field",
            json_body(&json!({ "event_type": "order.placed", "tenat_id": "acme", "payload": {} })),
            422,
        ),
        ("foreign tenant", json_body(&event("default", "order.placed", "f", json!({}))), 403),
        ("unknown tenant", json_body(&event("nobody", "order.placed", "f", json!({}))), 403),
        ("mismatched header", json_body(&order("h", json!(1))).header("x-tenant-id", "default"), 403),
        ("media type", post("image/png", vec![1, 2, 3]), 415),
        ("no key", Request::post("/v1/events").json(&order("k", json!(1))), 401),
        ("wrong key", Request::post("/v1/events").key("lvd_none_such").json(&order("k", json!(1))), 401),
        (
            "unknown topic",
            Request::post("/v1/events?topic=nowhere").key(&key).json(&order("t", json!(1))),
            422,
        ),
        ("unknown address", Request::get("/v1/nothing").key(&key), 404),
        ("wrong method", Request::new("DELETE", "/v1/events").key(&key), 405),
        ("SQL that is none", Request::post("/v1/sql").key(&key).json(&json!({ "sql": "selec 1" })), 400),
    ];
    for (what, request, status) in cases {
        let answer = world.send(&request).with_context(|| what.to_owned())?;
        let close = answer.status == status
            || (status == 400 && answer.status == 422)
            || (status == 422 && answer.status == 400);
        ensure!(close, "{what}: {} instead of {status}: {}", answer.status, answer.text());
        let problem = answer.json()?;
        let kind = answer.header("content-type").unwrap_or_default();
        ensure!(kind.starts_with("application/problem+json"), "{what}: {kind}");
        ensure!(problem["code"].is_string() && problem["detail"].is_string(), "{what}: {problem}");
        ensure!(problem["request_id"].is_string(), "{what}: {problem}");
    }
    // After all of that it still works.
    world.publish(&key, &[order("good", json!(1))])?;
    let analyst = world.key(&["acme"], &["analyst"])?;
    world.await_count(&analyst, "select count(*) from silver.orders", 1)
}

#[test]
fn a_revoked_key_is_refused_at_once() -> Result<()> {
    let world = world()?;
    let body = json!({ "name": "short-lived", "tenants": ["acme"], "roles": ["client", "analyst"] });
    let created =
        world.send(&Request::post("/v1/keys").key(&world.admin).json(&body))?.expect(201)?.json()?;
    let (id, key) = (created["id"].as_str().context("id")?, created["key"].as_str().context("key")?);
    let mut open = Connection::open(&world.levada.http)?;
    let request = Request::post("/v1/events").key(key).json(&order("r1", json!(1)));
    open.send(&request)?.expect(202)?;
    let by_header = Request::post("/v1/events").header("x-api-key", key).json(&order("r2", json!(1)));
    open.send(&by_header)?.expect(202)?;
    world.psycopg(key, "select 1")?;
    let status = world.send(&Request::new("DELETE", &format!("/v1/keys/{id}")).key(&world.admin))?.status;
    ensure!(status < 300, "{status}");
    open.send(&request)?.expect(401)?;
    ensure!(world.psycopg(key, "select 1").is_err(), "the other door closes too");
    Ok(())
}

#[test]
fn of_a_batch_of_ten_thousand_the_good_ones_are_kept() -> Result<()> {
    let world = world()?;
    let key = world.key(&["acme"], &["client"])?;
    let bad = |n: usize| n % 100 == 7;
    let events: Vec<Value> = (0..10_000)
        .map(|n| match (bad(n), n % 200) {
            (true, 7) => {
                json!({ "event_type": "order.placed", "tenant_id": "acme", "event_id": format!("n{n}") })
            }
            (true, _) => {
                event("default", "order.placed", &format!("n{n}"), json!({ "item": "x", "pieces": 1 }))
            }
            (false, _) => order(&format!("n{n}"), json!(n)),
        })
        .collect();
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let request = Request::post("/v1/events").key(&key).bytes("application/x-ndjson", lines.join("\n"));
    let answer = world.send(&request)?.expect(202)?.json()?;
    ensure!(answer["accepted"] == 9_900 && answer["rejected"] == 100, "{:.500}", answer.to_string());
    let results = answer["results"].as_array().context("results")?;
    for (n, result) in results.iter().enumerate() {
        let status = result["status"].as_u64().context("a status")?;
        ensure!(bad(n) == (status != 202), "item {n}: {result}");
        ensure!(!bad(n) || status == if n % 200 == 7 { 422 } else { 403 }, "item {n}: {result}");
    }
    let analyst = world.key(&["acme"], &["analyst"])?;
    world.await_count(&analyst, "select count(distinct pieces) from silver.orders", 9_900)?;
    // The same again: every good one is known, and the same key with another payload conflicts.
    let again = world.send(&request)?.expect(202)?.json()?;
    ensure!(again["duplicates"] == 9_900 && again["accepted"] == 0, "{:.500}", again.to_string());
    let other = Request::post("/v1/events").key(&key).json(&order("n1", json!(-1)));
    let conflict = world.send(&other)?.expect(409)?.json()?;
    ensure!(conflict["code"] == "idempotency-conflict", "{conflict}");
    ensure!(world.count(&analyst, "select count(*) from silver.orders")? == 9_900);
    Ok(())
}

#[test]
fn a_wrong_type_is_a_dead_letter_with_its_original() -> Result<()> {
    let world = world()?;
    let key = world.key(&["acme"], &["client"])?;
    let engineer = world.key(&["acme"], &["engineer"])?;
    world.publish(&key, &[order("w1", json!("many")), order("w2", json!(2)), order("w3", Value::Null)])?;
    world.await_count(&engineer, "select count(*) from silver.orders", 1)?;
    let dead = levada_testkit::eventually("two dead letters", crate::world::SOON, || {
        let dead = world.dead_letters(&engineer)?;
        Ok(if dead.len() == 2 {
            levada_testkit::wait::Look::Done(dead)
        } else {
            levada_testkit::wait::Look::NotYet(format!("{}", dead.len()))
        })
    })?;
    let many = dead.iter().find(|d| d["payload"]["pieces"] == "many").context("its original is kept")?;
    ensure!(many["reason"].as_str().is_some_and(|r| r.contains("pieces")), "{many}");
    ensure!(many["pipeline"] == "orders" && many["source_topic"] == "orders", "{many}");
    ensure!(many["position"].as_str().is_some_and(|p| !p.is_empty()), "{many}");
    Ok(())
}

#[test]
fn a_ragged_file_gives_its_good_rows_and_names_the_bad_lines() -> Result<()> {
    let world = world()?;
    let engineer = world.key(&[], &["engineer"])?;
    let mut file = b"item,pieces,price,sold_at\n\
        drum,1,2.5,2024-05-05T10:00:00Z\n\
        flute,2\n\
        \"harp, large\",3,NA,NA\n\
        lute,4,1,2,3\n\
        viola,five,1.5,NA\n\
        horn,6,1.5,NA\n"
        .to_vec();
    file.extend_from_slice(b"\xFF\xFE,7,1,NA\n\"open,8,1,NA\nbell,9,1,NA\n");
    world.land("landing", "stock.csv", &file)?;
    world.await_count(&engineer, "select count(*) from silver.stock", 4)?;
    let items = world.sql(&engineer, "select item from silver.stock order by pieces")?;
    ensure!(json!(items) == json!([["drum"], ["harp, large"], ["horn"], ["bell"]]), "{items:?}");
    let dead = levada_testkit::eventually("five dead letters", crate::world::SOON, || {
        let dead = world.dead_letters(&engineer)?;
        Ok(if dead.len() == 5 {
            levada_testkit::wait::Look::Done(dead)
        } else {
            levada_testkit::wait::Look::NotYet(format!("{dead:?}"))
        })
    })?;
    let at = |line: u64| {
        let place = format!("stock.csv:{line}");
        dead.iter()
            .find(|d| d["position"].as_str().is_some_and(|p| p.ends_with(&place)))
            .map(|d| d["code"].clone())
    };
    ensure!(at(3) == Some(json!("csv-ragged-row")), "{dead:?}");
    ensure!(at(5) == Some(json!("csv-ragged-row")), "{dead:?}");
    ensure!(at(6).is_some(), "a wrong type: {dead:?}");
    ensure!(at(8) == Some(json!("invalid-utf8")), "{dead:?}");
    ensure!(at(9) == Some(json!("csv-open-quote")), "{dead:?}");

    // A broken gzip file beside it stops nothing.
    world.land("landing", "broken.csv.gz", b"\x1f\x8b\x08 this is not gzip")?;
    world.land("landing", "more.csv", b"item,pieces,price,sold_at\ngong,10,1,NA\n")?;
    world.await_count(&engineer, "select count(*) from silver.stock", 5)?;
    world.await_dead(&engineer, "gzip-broken", 1)?;

    // Another header: the file is told once, and no row of nulls appears.
    world.land("landing", "foreign.csv", b"item;pieces;price;sold_at\ngong;12;1;NA\ngong;13;1;NA\n")?;
    let dead = world.await_dead(&engineer, "csv-header", 1)?;
    let reason = dead[0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("delimiter: ';'") && reason.contains("`sold_at`"), "{reason}");

    // What is appended is read as new rows, and the row that is cut by the pause is read whole.
    let mut slow = fs::File::options().append(true).open(world.project.join("landing/more.csv"))?;
    slow.write_all(b"gong,11,1,NA\nharp,1")?;
    // The pause is the case: longer than a file must rest.
    std::thread::sleep(std::time::Duration::from_secs(5));
    slow.write_all(b"4,2,NA\n")?;
    world.await_count(&engineer, "select count(*) from silver.stock", 7)?;
    ensure!(
        world.count(&engineer, "select count(*) from silver.stock where item = 'harp' and pieces = 14")? == 1
    );

    // The same name with other content: no key tells old rows from new, so it is told, not read.
    world.land("landing", "more.csv", b"item,pieces,price,sold_at\ngong,12,1,NA\ngong,11,1,NA\n")?;
    world.await_dead(&engineer, "file-changed", 1)?;
    ensure!(world.count(&engineer, "select count(*) from silver.stock")? == 7);
    // Neither the broken file nor an empty one hides the others in bronze.
    world.land("landing", "empty.csv.gz", b"")?;
    ensure!(world.count(&engineer, "select count(*) from bronze.stock where payload like 'gong%'")? >= 4);
    Ok(())
}

/// A full disk refuses new events, loses none that were accepted, and recovers with room.
#[test]
fn a_full_disk_refuses_and_recovers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir_all(&data)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(&data).status();
    if !mounted.is_ok_and(|status| status.success()) {
        ensure!(!skipping_is_failure(), "a small disk cannot be mounted");
        println!("skipped: a small disk cannot be mounted here");
        return Ok(());
    }
    let _unmount = Unmount(data.clone());
    let project = dir.path().join("project");
    for (name, text) in [
        ("levada.yaml", "name: full\ntenants: [acme]\n"),
        ("pipelines/orders.yaml", PIPELINE),
        ("schemas/orders.json", FIELDS),
    ] {
        fs::create_dir_all(project.join(name).parent().context("a folder")?)?;
        fs::write(project.join(name), text)?;
    }
    let filler = data.join("filler");
    let options = Options::new(&project, &data);
    let mut levada = Levada::start(&options)?;
    let admin = levada.admin_key()?;
    let publish = |levada: &Levada, n: u64| {
        let events = json!([event(
            "acme",
            "order.placed",
            &format!("n{n}"),
            json!({ "item": "x".repeat(2000), "pieces": n })
        )]);
        levada.send(&Request::post("/v1/events").key(&admin).json(&events))
    };
    let mut accepted = Vec::new();
    for n in 0..20 {
        ensure!(publish(&levada, n)?.status == 202);
        accepted.push(n);
    }
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "status=none"])
        .arg(format!("of={}", filler.display()))
        .status()?;
    ensure!(!full.success(), "the disk was filled");
    let mut refused = 0;
    for n in 20..2000 {
        let answer = publish(&levada, n)?;
        if answer.status == 202 {
            accepted.push(n);
            continue;
        }
        ensure!(matches!(answer.status, 503 | 507), "{}: {}", answer.status, answer.text());
        refused += 1;
        if refused > 20 {
            break;
        }
    }
    ensure!(refused > 0, "a full disk takes no more events");
    fs::remove_file(&filler)?;
    // Whatever state the refusals left, a restart with room serves everything accepted.
    levada.kill();
    let levada = Levada::start(&options)?;
    let last = 1_000_000;
    ensure!(publish(&levada, last)?.status == 202, "with room it accepts again");
    accepted.push(last);
    let query = json!({ "sql": "select count(*), sum(pieces) from silver.orders where pieces >= 0" });
    let sum: u64 = accepted.iter().sum();
    levada_testkit::eventually("every accepted event is in silver", crate::world::SOON, || {
        let answer = levada.send(&Request::post("/v1/sql").key(&admin).json(&query))?;
        let seen = answer.json()?["rows"][0].clone();
        // One that was refused may have reached the log before the disk was full: never fewer.
        let count = seen[0].as_u64().unwrap_or(0);
        Ok(if count as usize >= accepted.len() && seen[1].as_u64().unwrap_or(0) >= sum {
            levada_testkit::wait::Look::Done(())
        } else {
            levada_testkit::wait::Look::NotYet(seen.to_string())
        })
    })
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
