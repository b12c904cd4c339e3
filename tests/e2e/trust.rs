//! What one tenant owns stays its own on the ways between projects, and nothing that it declares
//! makes the server call where only the server reaches.

use anyhow::{Context, Result, ensure};
use levada_testkit::wait::Look;
use levada_testkit::{Answer, Request, eventually};
use serde_json::{Value, json};

use crate::world::{self, SOON, World};

const SETTINGS: &str = "name: shop
tenants: [acme, globex]
pubsub:
  projects:
    - shared-events
    - {id: globex-own, tenant: globex}
";
const PRIVATE: &str = "\
pipeline: sales
source:
  events: {topic: acme-sales, event_types: [\"sale.*\"]}
schema: {file: schemas/sales.json}
";
const FIELDS: &str =
    r#"{"source_id": "sales", "version": "1", "fields": [{"name": "item", "type": "STRING"}]}"#;

fn call(world: &World, method: &str, key: &str, path: &str, body: &Value) -> Result<Answer> {
    let request = Request::new(method, path).key(key);
    world.send(&if body.is_null() { request } else { request.json(body) })
}

fn done(world: &World, method: &str, key: &str, path: &str, body: &Value) -> Result<Value> {
    call(world, method, key, path, body)?.expect(200)?.json()
}

fn message(attributes: &Value) -> Value {
    json!({ "messages": [{ "data": "eA==", "attributes": attributes }] })
}

/// Waits for one message of a subscription and takes it.
fn pull_one(world: &World, key: &str, subscription: &str) -> Result<Value> {
    let body = json!({ "maxMessages": 1, "returnImmediately": true });
    let received = eventually(subscription, SOON, || {
        let answer = done(world, "POST", key, &format!("{subscription}:pull"), &body)?;
        Ok(match answer["receivedMessages"].get(0) {
            Some(received) => Look::Done(received.clone()),
            None => Look::NotYet("nothing came".to_owned()),
        })
    })?;
    let ack = json!({ "ackIds": [received["ackId"]] });
    done(world, "POST", key, &format!("{subscription}:acknowledge"), &ack)?;
    Ok(received["message"].clone())
}

#[test]
fn a_forged_owner_does_not_reach_the_platform_through_dead_letters_or_redrive() -> Result<()> {
    let world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let own = world.key(&["globex"], &["engineer", "service"])?;
    let admin = world.admin.as_str();
    let shared = "/v1/projects/shared-events";
    done(&world, "PUT", admin, &format!("{shared}/topics/orders"), &json!({}))?;
    let orders = "projects/shared-events/topics/orders";
    done(&world, "PUT", admin, &format!("{shared}/subscriptions/all"), &json!({ "topic": orders }))?;

    // A letter in its own project that names another tenant, and a source on the platform's topic.
    let project = "/v1/projects/globex-own";
    done(&world, "PUT", &own, &format!("{project}/topics/dead"), &json!({}))?;
    let dead = json!({ "topic": "projects/globex-own/topics/dead" });
    done(&world, "PUT", &own, &format!("{project}/subscriptions/letters"), &dead)?;
    done(&world, "PUT", &own, &format!("{project}/subscriptions/source"), &json!({ "topic": orders }))?;
    let forged = json!({
        "tenant_id": "acme",
        "CloudPubSubDeadLetterSourceSubscription": "source",
        "CloudPubSubDeadLetterSourceSubscriptionProject": "globex-own",
    });
    done(&world, "POST", &own, &format!("{project}/topics/dead:publish"), &message(&forged))?;
    eventually("the letter is sent again", SOON, || {
        let path = "/v1/subscriptions/globex-own/letters/redrive";
        let answer = done(&world, "POST", &own, path, &json!({}))?;
        Ok(if answer["published"] == 1 { Look::Done(()) } else { Look::NotYet(answer.to_string()) })
    })?;
    let came = pull_one(&world, admin, &format!("{shared}/subscriptions/all"))?;
    ensure!(came["attributes"]["tenant_id"] == "globex", "{came}");
    Ok(())
}

#[test]
fn the_topic_of_a_private_pipeline_is_not_there_for_another_tenant() -> Result<()> {
    let files = [
        ("levada.yaml", SETTINGS),
        ("tenants/acme/pipelines/sales.yaml", PRIVATE),
        ("tenants/acme/schemas/sales.json", FIELDS),
    ];
    let world = World::of(&files, &[])?;
    let (acme, globex) =
        (world.key(&["acme"], &["engineer"])?, world.key(&["globex"], &["admin", "engineer"])?);
    let home = "/v1/projects/shop";
    let names = |key: &str| -> Result<String> {
        let topics = done(&world, "GET", key, &format!("{home}/topics"), &Value::Null)?;
        let listed = done(&world, "GET", key, "/v1/pubsub/topics/shop", &Value::Null)?;
        Ok(format!("{topics}{listed}"))
    };
    ensure!(names(&acme)?.matches("acme-sales").count() >= 2, "{}", names(&acme)?);
    ensure!(!names(&globex)?.contains("acme-sales"), "{}", names(&globex)?);
    let topic = |name: &str| format!("projects/shop/topics/{name}");
    let tries = |name: &str| -> Result<Vec<String>> {
        let of_topic = |method: &str, action: &str, body: &Value| {
            let answer = call(&world, method, &globex, &format!("{home}/topics/{name}{action}"), body)?;
            Ok::<_, anyhow::Error>(format!("{} {}", answer.status, answer.text().replace(name, "NAME")))
        };
        let subscribe = |id: &str, body: &Value| {
            let path = format!("/v1/projects/globex-own/subscriptions/{id}");
            let answer = call(&world, "PUT", &globex, &path, body)?;
            Ok::<_, anyhow::Error>(format!("{} {}", answer.status, answer.text().replace(name, "NAME")))
        };
        let policy = json!({ "deadLetterTopic": topic(name), "maxDeliveryAttempts": 5 });
        Ok(vec![
            of_topic("GET", "", &Value::Null)?,
            of_topic("GET", "/subscriptions", &Value::Null)?,
            of_topic("GET", ":getIamPolicy", &Value::Null)?,
            of_topic("POST", ":publish", &message(&json!({ "a": "b" })))?,
            subscribe("mine", &json!({ "topic": topic(name) }))?,
            subscribe("dead", &json!({ "topic": topic("events"), "deadLetterPolicy": policy }))?,
        ])
    };
    for (hidden, missing) in [("acme-sales", "acme-salez"), ("acme-sales-dlq", "acme-salez-dlq")] {
        let (found, none) = (tries(hidden)?, tries(missing)?);
        ensure!(found == none, "{hidden} answers as what is not there:\n{found:#?}\n{none:#?}");
        ensure!(found.iter().all(|answer| answer.starts_with("404")), "{found:#?}");
    }
    let event = message(&json!({ "event_type": "sale.made" }));
    done(&world, "POST", &acme, &format!("{home}/topics/acme-sales:publish"), &event)?;
    Ok(())
}

#[test]
fn development_mode_obeys_no_web_page() -> Result<()> {
    let world = World::of_with(&[("levada.yaml", "name: open\n")], &[], &["--dev"])?;
    // The client of these tests calls the server so.
    let own = "http://localhost";
    let put = |headers: &[(&str, &str)]| -> Result<u16> {
        let mut request = Request::new("PUT", "/v1/projects/any/topics/orders").json(&json!({}));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Ok(world.send(&request)?.status)
    };
    for foreign in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:3000"),
        ("sec-fetch-site", "cross-site"),
    ] {
        ensure!(put(&[foreign])? == 403, "{foreign:?}");
    }
    ensure!(put(&[("origin", own)])? == 200);
    ensure!(put(&[])? == 409, "it was made by the one before");
    Ok(())
}

#[test]
fn a_tenants_declaration_with_a_private_address_does_not_check() -> Result<()> {
    let enrich = |url: &str| {
        format!(
            "pipeline: visits\nsource:\n  events: {{topic: visits, event_types: [visit]}}\n\
             schema: {{file: schemas/visits.json}}\nsteps:\n  - enrich:\n      name: weather\n      \
             url: \"{url}/at/{{station}}\"\n      fields:\n        - {{name: temp, type: FLOAT64}}\n"
        )
    };
    let fields =
        r#"{"source_id": "visits", "version": "1", "fields": [{"name": "station", "type": "STRING"}]}"#;
    let check = |settings: &str, folder: &str, url: &str| -> Result<(bool, String)> {
        let dir = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().context("a folder")?)?;
            anyhow::Ok(std::fs::write(path, text)?)
        };
        write("levada.yaml", settings)?;
        write(&format!("{folder}pipelines/visits.yaml"), &enrich(url))?;
        write(&format!("{folder}schemas/visits.json"), fields)?;
        let output = world::levada(&["check", world::text(dir.path())])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (plain, own) = ("name: visits\ntenants: [acme]\n", "tenants/acme/");
    for url in ["http://127.0.0.1:9", "http://169.254.169.254", "http://10.1.2.3", "http://[::1]:9"] {
        let (passed, said) = check(plain, own, url)?;
        ensure!(!passed && said.contains("egress"), "{url}: {said}");
        let (passed, said) = check(plain, "", url)?;
        ensure!(passed, "the root folder's own host: {url}: {said}");
    }
    let (passed, said) = check(&format!("{plain}egress: [10.1.0.0/16]\n"), own, "http://10.1.2.3")?;
    ensure!(passed, "{said}");
    let (passed, said) = check(plain, own, "https://weather.example")?;
    ensure!(passed, "{said}");
    Ok(())
}
