//! Operating Pub/Sub topics and subscriptions of the built binary, by API and command line.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use levada_testkit::wait::Look;
use levada_testkit::{Answer, Request, eventually};
use serde_json::{Value, json};

use crate::world::{self, World};

const SETTINGS: &str = "name: shop
tenants: [acme, globex]
pubsub:
  projects:
    - shared-events
    - {id: acme-prod, tenant: acme}
";

struct Shop {
    world: World,
    key: String,
}

impl Shop {
    /// A platform with a key of acme's engineers.
    fn open() -> Result<Self> {
        let world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
        let key = world.key(&["acme"], &["engineer"])?;
        Ok(Self { world, key })
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.world.send(&Request::new(method, &format!("/v1/{path}")).json(body).key(&self.key))
    }

    fn pubsub(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(method, &format!("projects/acme-prod/{path}"), body)?.expect(200)?.json()
    }

    /// The command line with the engineers' key.
    fn run(&self, args: &[&str]) -> Result<Output> {
        let data = world::text(self.world.data()).to_owned();
        let mut all = vec!["--project", data.as_str(), "--key", &self.key];
        all.extend_from_slice(args);
        world::levada(&all)
    }

    fn ran(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{args:?}: {out}\n{err}");
        Ok(format!("{out}{err}"))
    }

    fn show(&self, subscription: &str) -> Result<Value> {
        self.call("GET", &format!("subscriptions/acme-prod/{subscription}"), &json!({}))?.expect(200)?.json()
    }

    fn publish(&self, topic: &str, data: &str, attributes: &Value) -> Result<String> {
        let body = json!({ "messages": [{ "data": data, "attributes": attributes }] });
        let answer = self.pubsub("POST", &format!("topics/{topic}:publish"), &body)?;
        Ok(answer["messageIds"][0].as_str().context("a message id")?.to_owned())
    }

    /// What can be pulled now.
    fn pull(&self, subscription: &str) -> Result<Vec<Value>> {
        let body = json!({ "maxMessages": 100, "returnImmediately": true });
        let answer = self.pubsub("POST", &format!("subscriptions/{subscription}:pull"), &body)?;
        Ok(answer["receivedMessages"].as_array().cloned().unwrap_or_default())
    }

    fn ack(&self, subscription: &str, received: &[Value]) -> Result<()> {
        let ids: Vec<&Value> = received.iter().map(|r| &r["ackId"]).collect();
        let path = format!("subscriptions/{subscription}:acknowledge");
        self.pubsub("POST", &path, &json!({ "ackIds": ids })).map(drop)
    }

    /// Pulls until there are so many, and acknowledges them; their data in base64.
    fn take(&self, subscription: &str, count: usize) -> Result<Vec<String>> {
        let mut all = Vec::new();
        eventually(&format!("{count} messages of {subscription}"), world::SOON, || {
            let received = self.pull(subscription)?;
            if !received.is_empty() {
                self.ack(subscription, &received)?;
            }
            all.extend(received.iter().filter_map(|r| r["message"]["data"].as_str().map(str::to_owned)));
            Ok(if all.len() >= count {
                Look::Done(())
            } else {
                Look::NotYet(format!("{} so far", all.len()))
            })
        })?;
        Ok(all)
    }
}

#[test]
fn tenants_are_weighed_and_a_restart_keeps_it() -> Result<()> {
    let mut shop = Shop::open()?;
    shop.pubsub("PUT", "topics/orders", &json!({}))?;
    shop.pubsub("PUT", "subscriptions/billing", &json!({ "topic": "projects/acme-prod/topics/orders" }))?;
    let said = shop.ran(&["subscriptions", "weigh", "acme-prod/billing", "acme=5"])?;
    ensure!(said.contains("acme 5"), "{said}");
    let refused = shop.run(&["subscriptions", "weigh", "acme-prod/billing", "globex=2"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("tenant-forbidden"), "{said}");
    // What the Pub/Sub API changes leaves the weights alone.
    let update = json!({ "subscription": { "ackDeadlineSeconds": 30 }, "updateMask": "ackDeadlineSeconds" });
    shop.pubsub("PATCH", "subscriptions/billing", &update)?;
    shop.world.levada.kill();
    shop.world.restart()?;
    let shown = shop.show("billing")?;
    ensure!(shown["weights"] == json!({ "acme": 5 }) && shown["ack_deadline_s"] == 30.0, "{shown}");
    ensure!(shop.ran(&["subscriptions", "show", "acme-prod/billing"])?.contains("acme 5"));
    shop.ran(&["subscriptions", "weigh", "acme-prod/billing", "acme=-"])?;
    ensure!(shop.show("billing")?["weights"] == json!({}));
    Ok(())
}

#[test]
fn a_dead_letter_is_edited_and_processed() -> Result<()> {
    let shop = Shop::open()?;
    for topic in ["orders", "dead"] {
        shop.pubsub("PUT", &format!("topics/{topic}"), &json!({}))?;
    }
    let schema = json!({ "type": "AVRO", "definition":
        r#"{"type":"record","name":"Order","fields":[{"name":"amount","type":"int"}]}"# });
    let path = "projects/acme-prod/schemas?schemaId=order";
    shop.call("POST", path, &schema)?.expect(200)?;
    let of = |topic: &str| format!("projects/acme-prod/topics/{topic}");
    let policy = json!({ "deadLetterTopic": of("dead"), "maxDeliveryAttempts": 5 });
    let settings =
        json!({ "topic": of("orders"), "enableMessageOrdering": true, "deadLetterPolicy": policy });
    shop.pubsub("PUT", "subscriptions/billing", &settings)?;
    shop.pubsub("PUT", "subscriptions/letters", &json!({ "topic": of("dead") }))?;
    let body = json!({ "messages": [
        { "data": "eyJhbW91bnQiOiJ4In0=", "attributes": { "kind": "order", "retry": "no" }, "orderingKey": "k" },
    ] });
    shop.pubsub("POST", "topics/orders:publish", &body)?;
    eventually("the message is on lease", world::SOON, || {
        let got = shop.pull("billing")?.len();
        Ok(if got == 1 { Look::Done(()) } else { Look::NotYet("nothing yet".to_owned()) })
    })?;
    let park = ["subscriptions", "park", "acme-prod/billing", "--ordering-key", "k", "--tenant", "acme"];
    shop.ran(&park)?;
    // From now on the topic takes only what keeps its schema.
    let settings = json!({ "schema": "projects/acme-prod/schemas/order", "encoding": "JSON" });
    let update = json!({ "topic": { "schemaSettings": settings }, "updateMask": "schemaSettings" });
    shop.pubsub("PATCH", "topics/orders", &update)?;
    let letter: Value = eventually("the dead letter is there", world::SOON, || {
        let said = shop.run(&["subscriptions", "messages", "acme-prod/letters", "--json"])?;
        Ok(match serde_json::from_slice(&said.stdout) {
            Ok(letter) => Look::Done(letter),
            Err(_) => Look::NotYet("not yet".to_owned()),
        })
    })?;
    let id = letter["message_id"].as_str().context("an id")?;
    let resend = |rest: &[&str]| {
        let mut all = vec!["subscriptions", "resend", "acme-prod/letters", id];
        all.extend_from_slice(rest);
        shop.run(&all)
    };
    let refused = resend(&["--set", "by=hand"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("body-invalid"), "the schema holds: {said}");
    let file = shop.world.project.join("mended.json");
    std::fs::write(&file, r#"{"amount":7}"#)?;
    let sent = resend(&["--data", world::text(&file), "--set", "by=hand", "--unset", "retry"])?;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let mended = eventually("the edited message is delivered", world::SOON, || {
        let received = shop.pull("billing")?;
        Ok(received.first().cloned().map_or(Look::NotYet("nothing yet".to_owned()), Look::Done))
    })?;
    let message = &mended["message"];
    ensure!(message["data"] == "eyJhbW91bnQiOjd9" && message["orderingKey"] == "k", "{mended}");
    let attributes = message["attributes"].as_object().context("attributes")?;
    ensure!(attributes["kind"] == "order" && attributes["by"] == "hand", "{mended}");
    ensure!(!attributes.contains_key("retry") && !attributes.contains_key("levada.dead.code"), "{mended}");
    ensure!(attributes.contains_key("googclient_schemarevisionid"), "{mended}");
    ensure!(shop.pull("letters")?.is_empty(), "it has left the dead letters");
    let again = resend(&["--data", world::text(&file)])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(said.contains("message-not-waiting"), "not twice by mistake: {said}");
    Ok(())
}

#[test]
fn a_topic_drops_duplicates_when_it_is_told_to() -> Result<()> {
    let mut shop = Shop::open()?;
    shop.pubsub("PUT", "topics/orders", &json!({}))?;
    shop.pubsub("PUT", "subscriptions/billing", &json!({ "topic": "projects/acme-prod/topics/orders" }))?;
    shop.ran(&["topics", "set", "acme-prod/orders", "--deduplicate", "order", "--window", "6h"])?;
    let first = shop.publish("orders", "MQ==", &json!({ "order": "1" }))?;
    ensure!(shop.publish("orders", "MQ==", &json!({ "order": "1" }))? == first);
    // An update by the Pub/Sub API leaves it alone, and so does a kill.
    let update = json!({ "topic": { "labels": { "team": "a" } }, "updateMask": "labels" });
    shop.pubsub("PATCH", "topics/orders", &update)?;
    shop.world.levada.kill();
    shop.world.restart()?;
    ensure!(shop.publish("orders", "MQ==", &json!({ "order": "1" }))? == first);
    ensure!(shop.publish("orders", "Mg==", &json!({ "order": "2" }))? != first);
    ensure!(shop.take("billing", 2)? == ["MQ==", "Mg=="]);
    let shown = shop.ran(&["topics", "show", "projects/acme-prod/topics/orders"])?;
    ensure!(shown.contains("by order within 21600 s"), "{shown}");
    let listed = shop.ran(&["topics", "list", "--pubsub-project", "acme-prod"])?;
    ensure!(listed.contains("acme-prod/orders") && listed.contains("fsync"), "{listed}");
    shop.ran(&["topics", "set", "acme-prod/orders", "--no-deduplication"])?;
    ensure!(shop.publish("orders", "MQ==", &json!({ "order": "1" }))? != first);
    for class in ["memory", "interval"] {
        let shown = shop.ran(&["topics", "set", "acme-prod/orders", "--durability", class])?;
        ensure!(shown.contains(class), "{shown}");
        shop.publish("orders", "Mw==", &json!({}))?;
    }
    ensure!(shop.take("billing", 3)?.len() == 3, "what was answered early is delivered all the same");
    let platform = json!({ "deduplication": { "attribute": "order", "window_s": 60 } });
    shop.call("PATCH", "pubsub/topics/shop/events", &platform)?.expect(403)?;
    Ok(())
}

#[test]
fn a_replay_brings_everything_once_more_beside_its_source() -> Result<()> {
    let mut shop = Shop::open()?;
    shop.pubsub("PUT", "topics/orders", &json!({}))?;
    // Exactly once: a kill right after an acknowledgement leaves it.
    let settings = json!({
        "topic": "projects/acme-prod/topics/orders",
        "filter": "attributes.kind = \"paid\"",
        "enableExactlyOnceDelivery": true,
    });
    shop.pubsub("PUT", "subscriptions/billing", &settings)?;
    for (data, kind) in [("MQ==", "paid"), ("Mg==", "open"), ("Mw==", "paid")] {
        shop.publish("orders", data, &json!({ "kind": kind }))?;
    }
    ensure!(shop.take("billing", 2)? == ["MQ==", "Mw=="]);
    let replay = ["subscriptions", "replay", "acme-prod/billing", "--name", "again", "--from", "earliest"];
    let said = shop.ran(&[&replay[..], &["--rate", "500"]].concat())?;
    ensure!(said.contains("acme-prod/again"), "{said}");
    shop.publish("orders", "NA==", &json!({ "kind": "paid" }))?;
    let shown = shop.show("again")?;
    ensure!(shown["state"] == "replaying" && shown["max_rate_per_s"] == 500, "{shown}");
    shop.world.levada.kill();
    shop.world.restart()?;
    ensure!(shop.take("again", 2)? == ["MQ==", "Mw=="], "what was before it, and nothing after");
    let shown = shop.show("again")?;
    ensure!(shown["replay"] == json!({ "source": "acme-prod/billing", "finished": true }), "{shown}");
    ensure!(shop.ran(&["subscriptions", "show", "acme-prod/again"])?.contains("finished"));
    ensure!(shop.take("billing", 1)? == ["NA=="], "its source goes on by itself");
    ensure!(shop.pull("again")?.is_empty());
    shop.ran(&["subscriptions", "rate", "acme-prod/billing", "100"])?;
    ensure!(shop.show("billing")?["max_rate_per_s"] == 100);
    Ok(())
}
