//! The Pub/Sub API of the built binary: Google's own Python client, projects and tenants,
//! and what a kill leaves. The other clients are in `pubsub_clients.rs`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_testkit::{Answer, Request, program, python};
use serde_json::{Value, json};

use crate::world::{self, World};

const SETTINGS: &str = "name: shop
tenants: [acme, globex]
pubsub:
  projects:
    - shared-events
    - {id: acme-prod, tenant: acme}
";

#[test]
fn the_official_python_client_works_unmodified() -> Result<()> {
    let world = World::of_with(&[("levada.yaml", "name: python\n")], &[], &["--dev"])?;
    let output = Command::new(python::interpreter()?)
        .arg(program::workspace().join("tests/python/pubsub_client.py"))
        .env("PUBSUB_EMULATOR_HOST", &world.levada.http)
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}\n{}", world.levada.log_tail());
    Ok(())
}

/// The tests that Google runs against its cloud, over gRPC and REST; the script says what is left
/// out and why.
#[test]
fn the_system_tests_of_googles_python_client_pass() -> Result<()> {
    let world = World::of_with(&[("levada.yaml", "name: system\n")], &[], &["--dev"])?;
    let output = Command::new(python::interpreter()?)
        .arg(program::workspace().join("tests/python/google_system_tests.py"))
        .env("PUBSUB_EMULATOR_HOST", &world.levada.http)
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}\n{}", world.levada.log_tail());
    // Fewer would mean that they were not found, or skipped.
    let passed = out.lines().last().and_then(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("passed"))?;
        words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
    });
    println!("{}", out.lines().last().unwrap_or_default());
    ensure!(passed.is_some_and(|passed| passed >= 60), "{out}");
    Ok(())
}

#[test]
fn development_mode_stays_on_loopback() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("levada.yaml"), "name: open\n")?;
    let project = world::text(dir.path()).to_owned();
    let output = world::levada(&["up", &project, "--dev", "--listen", "0.0.0.0:0", "--postgres", "off"])?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("loopback only"), "{said}");
    Ok(())
}

fn call(world: &World, method: &str, key: &str, path: &str, body: &Value) -> Result<Answer> {
    let request = Request::new(method, &format!("/v1/projects/{path}")).json(body);
    world.send(&if key.is_empty() { request } else { request.key(key) })
}

fn message(data: &str, attributes: &Value) -> Value {
    json!({ "messages": [{ "data": data, "attributes": attributes }] })
}

/// The data (base64) of what a pull brings now, acknowledged.
fn pull(world: &World, key: &str, subscription: &str) -> Result<Vec<String>> {
    let path = format!("{subscription}:pull");
    let body = json!({ "maxMessages": 100, "returnImmediately": true });
    let answer = call(world, "POST", key, &path, &body)?.expect(200)?.json()?;
    let received = answer["receivedMessages"].as_array().cloned().unwrap_or_default();
    let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
    if !ids.is_empty() {
        let path = format!("{subscription}:acknowledge");
        call(world, "POST", key, &path, &json!({ "ackIds": ids }))?.expect(200)?;
    }
    Ok(received.iter().filter_map(|m| m["message"]["data"].as_str().map(str::to_owned)).collect())
}

/// Pulls until there are so many.
fn await_pull(world: &World, key: &str, subscription: &str, count: usize) -> Result<Vec<String>> {
    let mut all = Vec::new();
    levada_testkit::eventually(&format!("{count} messages of {subscription}"), world::SOON, || {
        all.extend(pull(world, key, subscription)?);
        ensure!(all.len() <= count, "more than was published: {all:?}");
        Ok(match all.len() == count {
            true => levada_testkit::wait::Look::Done(()),
            false => levada_testkit::wait::Look::NotYet(format!("{} so far", all.len())),
        })
    })?;
    all.sort();
    Ok(all)
}

#[test]
fn projects_belong_to_somebody_and_tenants_are_kept_apart() -> Result<()> {
    let world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let platform = world.key(&[], &["engineer"])?;
    let acme = world.key(&["acme"], &["engineer"])?;
    let globex = world.key(&["globex"], &["engineer"])?;
    let topic = json!({});
    call(&world, "PUT", "", "shared-events/topics/orders", &topic)?.expect(401)?;
    call(&world, "PUT", &platform, "unknown/topics/orders", &topic)?.expect(404)?;
    call(&world, "PUT", &platform, "shared-events/topics/orders", &topic)?.expect(200)?;
    // A tenant has no say over the topics that all share.
    call(&world, "PUT", &acme, "shared-events/topics/mine", &topic)?.expect(403)?;
    call(&world, "DELETE", &acme, "shared-events/topics/orders", &topic)?.expect(403)?;
    // Another tenant's project does not exist, whatever is in it.
    call(&world, "PUT", &acme, "acme-prod/topics/own", &topic)?.expect(200)?;
    let foreign = call(&world, "GET", &globex, "acme-prod/topics/own", &topic)?.expect(404)?;
    let missing = call(&world, "GET", &globex, "no-such/topics/own", &topic)?.expect(404)?;
    ensure!(
        foreign.text().replace("acme-prod", "") == missing.text().replace("no-such", ""),
        "{} {}",
        foreign.text(),
        missing.text()
    );

    let of = |topic: &str| json!({ "topic": format!("projects/shared-events/topics/{topic}") });
    for (key, name) in [(&platform, "all"), (&acme, "acme-sub"), (&globex, "globex-sub")] {
        call(&world, "PUT", key, &format!("shared-events/subscriptions/{name}"), &of("orders"))?
            .expect(200)?;
    }
    call(&world, "GET", &globex, "shared-events/subscriptions/acme-sub", &topic)?.expect(404)?;
    let body = json!({ "maxMessages": 1, "returnImmediately": true });
    call(&world, "POST", &globex, "shared-events/subscriptions/acme-sub:pull", &body)?.expect(404)?;

    let publish = "shared-events/topics/orders:publish";
    call(&world, "POST", &acme, publish, &message("YWNtZQ==", &json!({})))?.expect(200)?;
    call(&world, "POST", &globex, publish, &message("Z2xvYmV4", &json!({})))?.expect(200)?;
    let forged = message("Zm9yZ2Vk", &json!({ "tenant_id": "acme" }));
    call(&world, "POST", &globex, publish, &forged)?.expect(403)?;
    call(&world, "POST", &platform, publish, &message("bm9ib2R5", &json!({})))?.expect(400)?;

    ensure!(await_pull(&world, &acme, "shared-events/subscriptions/acme-sub", 1)? == ["YWNtZQ=="]);
    ensure!(await_pull(&world, &globex, "shared-events/subscriptions/globex-sub", 1)? == ["Z2xvYmV4"]);
    let all = await_pull(&world, &platform, "shared-events/subscriptions/all", 2)?;
    ensure!(all == ["YWNtZQ==", "Z2xvYmV4"], "{all:?}");
    Ok(())
}

#[test]
fn a_topic_that_the_api_made_is_not_hidden_by_one_of_the_folder() -> Result<()> {
    let mut world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let key = world.admin.clone();
    for topic in ["orders", "bills-dlq", "free"] {
        call(&world, "PUT", &key, &format!("shop/topics/{topic}"), &json!({}))?.expect(200)?;
    }
    let (subscription, of) = ("shop/subscriptions/worker", json!({ "topic": "projects/shop/topics/orders" }));
    call(&world, "PUT", &key, subscription, &of)?.expect(200)?;
    let publish = message("aGVsbG8=", &json!({ "tenant_id": "acme" }));
    call(&world, "POST", &key, "shop/topics/orders:publish", &publish)?.expect(200)?;
    world.levada.terminate(world::SOON)?;
    let pipeline = |topic: &str| {
        format!(
            "pipeline: {topic}\nsource: {{events: {{topic: {topic}}}}}\nschema: {{file: schemas/any.json}}\n"
        )
    };
    let write = |name: &str, text: &str| -> Result<()> {
        let path = world.project.join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(std::fs::write(path, text)?)
    };
    write("schemas/any.json", r#"{"fields": [{"name": "n", "type": "INT64"}]}"#)?;
    // As often as it is tried: a start that is refused must not take the name.
    for topic in ["orders", "bills", "orders"] {
        write(&format!("pipelines/{topic}.yaml"), &pipeline(topic))?;
        let output =
            world::levada(&["up", world::text(&world.project), "--data", world::text(world.data())])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("topic-taken"), "{topic}: {said}");
        ensure!(said.contains(&format!("pipelines/{topic}.yaml")) && said.contains("mend"), "{said}");
        std::fs::remove_file(world.project.join(format!("pipelines/{topic}.yaml")))?;
    }
    world.restart()?;
    ensure!(await_pull(&world, &key, subscription, 1)? == ["aGVsbG8="]);
    call(&world, "DELETE", &key, "shop/topics/orders", &json!({}))?.expect(200)?;
    world.levada.terminate(world::SOON)?;
    std::fs::write(world.project.join("pipelines/orders.yaml"), pipeline("orders"))?;
    world.restart()?;
    call(&world, "GET", &key, "shop/topics/orders", &json!({}))?.expect(200)?;
    Ok(())
}

#[test]
fn the_home_project_cannot_be_given_to_a_tenant() -> Result<()> {
    // It has the topics of the gateway, and with them everybody's events.
    const TAKEN: &str = "name: shop
tenants: [acme, globex]
pubsub:
  projects:
    - {id: shop, tenant: acme}
";
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("levada.yaml"), TAKEN)?;
    let checked = world::levada(&["check", world::text(dir.path())])?;
    if !checked.status.success() {
        // Told before it runs: so much the better.
        let said = String::from_utf8_lossy(&checked.stderr);
        ensure!(said.contains("shop"), "{said}");
        return Ok(());
    }
    let world = World::of(&[("levada.yaml", TAKEN)], &[])?;
    let acme = world.key(&["acme"], &["engineer"])?;
    let platform = world.key(&[], &["engineer"])?;
    call(&world, "PUT", &platform, "shop/topics/orders", &json!({}))?.expect(200)?;
    call(&world, "PUT", &acme, "shop/topics/mine", &json!({}))?.expect(403)?;
    call(&world, "DELETE", &acme, "shop/topics/orders", &json!({}))?.expect(403)?;
    let of = json!({ "topic": "projects/shop/topics/orders" });
    call(&world, "PUT", &acme, "shop/subscriptions/acme-sub", &of)?.expect(200)?;
    let publish = "shop/topics/orders:publish";
    for tenant in ["globex", "acme"] {
        let body = message("eA==", &json!({ "tenant_id": tenant }));
        call(&world, "POST", &platform, publish, &body)?.expect(200)?;
    }
    let got = await_pull(&world, &acme, "shop/subscriptions/acme-sub", 1)?;
    ensure!(got.len() == 1 && pull(&world, &acme, "shop/subscriptions/acme-sub")?.is_empty());
    Ok(())
}

#[test]
fn what_was_answered_comes_after_a_kill_and_what_was_confirmed_does_not() -> Result<()> {
    let mut world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let key = world.key(&["acme"], &["engineer"])?;
    call(&world, "PUT", &key, "acme-prod/topics/jobs", &json!({}))?.expect(200)?;
    let subscription = "acme-prod/subscriptions/worker";
    let settings = json!({ "topic": "projects/acme-prod/topics/jobs", "enableExactlyOnceDelivery": true });
    call(&world, "PUT", &key, subscription, &settings)?.expect(200)?;
    let publish = |world: &World, data: &str| -> Result<()> {
        let body = message(data, &json!({}));
        call(world, "POST", &key, "acme-prod/topics/jobs:publish", &body)?.expect(200)?;
        Ok(())
    };
    publish(&world, "Zmlyc3Q=")?;
    ensure!(await_pull(&world, &key, subscription, 1)? == ["Zmlyc3Q="]);
    publish(&world, "c2Vjb25k")?;
    world.levada.kill();
    world.restart()?;
    ensure!(await_pull(&world, &key, subscription, 1)? == ["c2Vjb25k"]);
    let status = world.levada.terminate(Duration::from_secs(30))?;
    ensure!(status.success(), "{}", world.levada.log_tail());
    world.restart()?;
    let left = pull(&world, &key, subscription)?;
    ensure!(left.is_empty(), "confirmed messages came again: {left:?}");
    let listed = call(&world, "GET", &key, "acme-prod/subscriptions", &json!({}))?.expect(200)?.json()?;
    let names = listed["subscriptions"].as_array().context("a list")?.len();
    ensure!(names == 1, "{listed}");
    Ok(())
}
