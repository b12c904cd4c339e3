//! Subscriptions of the Pub/Sub bus: listed, shown, and their blocked keys freed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use levada_bus::port::{
    BusPort, Consumer, DeadLetterPolicy, Publication, PullLimits, Received, SubscriptionPort,
    SubscriptionSpec, TopicSpec,
};
use levada_core::{Attributes, Message, ResourceName, TenantContext};
use serde_json::{Value, json};

use super::support::{Gateway, MARKER, PATIENCE, tenant};

/// Subscriptions that only tenant a and the platform see.
pub const OF_A: [&str; 3] = ["project-a/ordered", "home/of-tenant-a", "home/everything"];

/// What an operation on a subscription is asked with.
pub fn attempt(method: &str, path: &str) -> String {
    match path.rsplit('/').next() {
        Some("{id}") if method == "patch" => json!({"weights": {"a": 5}}).to_string(),
        Some("resend") => json!({"json": {"n": 1}}).to_string(),
        Some("replays") => json!({"name": "again", "from": "earliest"}).to_string(),
        Some("redrive") => json!({"limit": 5}).to_string(),
        Some("{id}" | "messages" | "blocked-keys" | "blocked-keys:skip" | "blocked-keys:park") => {
            json!({"tenant": "a", "key": "k"}).to_string()
        }
        _ => panic!("{path} has no attempt: add one"),
    }
}

fn name(text: &str) -> ResourceName {
    text.parse().expect("a name")
}

pub async fn topic(gateway: &Gateway, topic: &str) {
    gateway.port.create_topic(TopicSpec::new(name(topic))).await.expect("a topic");
}

pub async fn subscribe(
    gateway: &Gateway,
    subscription: &str,
    topic: &str,
    set: impl FnOnce(&mut SubscriptionSpec),
) -> Arc<dyn SubscriptionPort> {
    let mut spec = SubscriptionSpec::new(name(subscription), name(topic));
    set(&mut spec);
    gateway.port.create_subscription(spec).await.expect("a subscription");
    gateway.port.subscription(&name(subscription)).expect("there")
}

pub async fn publish(gateway: &Gateway, topic: &str, owner: &str, key: Option<&str>, bodies: &[&str]) {
    let message = |body: &&str| Message {
        tenant: tenant(owner),
        attributes: Attributes::new(),
        ordering_key: key.map(Into::into),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let publication =
        |message: Message| Publication::new(TenantContext::system(message.tenant.clone(), "test"), message);
    let items = bodies.iter().map(message).map(publication);
    let published = gateway.port.publish(&name(topic), items.collect()).await.expect("published");
    assert!(published.iter().all(Result::is_ok), "{published:?}");
}

pub async fn pull(subscription: &Arc<dyn SubscriptionPort>, max_messages: usize) -> Vec<Received> {
    let limits = PullLimits {
        max_messages,
        max_bytes: 1 << 20,
        wait: Duration::ZERO,
        ack_deadline: None,
        consumer: Consumer::Single,
    };
    subscription.pull(limits).await.expect("pulls")
}

/// What comes first, when it comes.
pub async fn pull_some(subscription: &Arc<dyn SubscriptionPort>) -> Vec<Received> {
    let limits = PullLimits {
        max_messages: 10,
        max_bytes: 1 << 20,
        wait: PATIENCE,
        ack_deadline: None,
        consumer: Consumer::Single,
    };
    subscription.pull(limits).await.expect("pulls")
}

/// In tenant a's project an ordered subscription, of which one message is on lease and two
/// wait for it; in the platform's project one of a's, one of b's and one of everybody's.
pub async fn blocked_subscription_of_a(gateway: &Gateway) {
    topic(gateway, "project-a/orders").await;
    topic(gateway, "project-a/orders-dead").await;
    topic(gateway, "home/shared").await;
    let policy = DeadLetterPolicy { topic: name("project-a/orders-dead"), max_delivery_attempts: 7 };
    let ordered = subscribe(gateway, OF_A[0], "project-a/orders", |s| {
        s.ordered = true;
        s.dead_letter = Some(policy);
        s.labels.insert("team".into(), MARKER.into());
    });
    let ordered = ordered.await;
    subscribe(gateway, OF_A[1], "home/shared", |s| s.tenant = Some(tenant("a"))).await;
    subscribe(gateway, "home/of-tenant-b", "home/shared", |s| s.tenant = Some(tenant("b"))).await;
    subscribe(gateway, OF_A[2], "home/shared", |_| {}).await;
    publish(gateway, "project-a/orders", "a", Some("k"), &["1", "2", "3"]).await;
    assert_eq!(pull(&ordered, 10).await.len(), 1);
}

async fn names(gateway: &Gateway, key: &str, query: &str) -> Value {
    let answer = gateway.get(key, &format!("/v1/subscriptions{query}")).send().await.json();
    answer["subscriptions"].as_array().expect("a list").iter().map(|s| s["name"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_listed_to_who_may_see_them_and_page_by_page() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    let all = json!([OF_A[2], OF_A[1], "home/of-tenant-b", OF_A[0]]);
    assert_eq!(names(&gateway, "admin", "").await, all);
    assert_eq!(names(&gateway, "platform-engineer", "").await, all);
    assert_eq!(names(&gateway, "engineer-a", "").await, json!([OF_A[1], OF_A[0]]));
    assert_eq!(names(&gateway, "admin-b", "").await, json!(["home/of-tenant-b"]));
    let narrowed = gateway.get("admin", "/v1/subscriptions").header("x-tenant-id", "b").send().await.json();
    assert_eq!(narrowed["subscriptions"].as_array().map(Vec::len), Some(1));
    gateway.get("client-a", "/v1/subscriptions").send().await.problem(403, "role-forbidden");

    let first = gateway.get("admin", "/v1/subscriptions?limit=3").send().await.json();
    assert_eq!(first["after"], "home/of-tenant-b");
    assert_eq!(names(&gateway, "admin", "?limit=3&after=home/of-tenant-b").await, json!([OF_A[0]]));
    let last = gateway.get("admin", "/v1/subscriptions?after=home/of-tenant-b").send().await.json();
    assert_eq!(last["after"], Value::Null);
    for bad in ["?after=noslash", "?limit=x", "?what=1"] {
        gateway.get("admin", &format!("/v1/subscriptions{bad}")).send().await.problem(400, "query-invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_shown_with_its_settings_and_figures() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    gateway.clock.advance(Duration::from_secs(5));
    let path = format!("/v1/subscriptions/{}", OF_A[0]);
    let shown = gateway.get("engineer-a", &path).send().await.json();
    assert_eq!((&shown["name"], &shown["tenant_id"]), (&json!(OF_A[0]), &json!("a")));
    assert_eq!((&shown["topic"], &shown["delivery"]), (&json!("project-a/orders"), &json!("pull")));
    assert_eq!((&shown["ordered"], &shown["ack_deadline_s"]), (&json!(true), &json!(10.0)));
    assert_eq!(shown["dead_letter"], json!({"topic": "project-a/orders-dead", "max_delivery_attempts": 7}));
    let stats = &shown["stats"];
    let figures = ["backlog_messages", "leased", "delivered", "redelivered", "acknowledged", "blocked_keys"];
    let figures: Vec<u64> = figures.iter().map(|f| stats[f].as_u64().expect("a count")).collect();
    assert_eq!(figures, [3, 1, 1, 0, 0, 1], "{stats}");
    assert_eq!((&stats["oldest_unacked_age_s"], &stats["backlog_is_exact"]), (&json!(5.0), &json!(true)));
    let lane = json!([{
        "tenant_id": "a", "weight": 1, "backlog_messages": 3, "delivered": 1,
        "delivered_bytes": stats["tenants"][0]["delivered_bytes"], "share": 1.0,
    }]);
    assert_eq!(stats["tenants"], lane);
    for missing in ["project-a/none", "nowhere/none-at-all", "home/x", "UPPER/none"] {
        let answer = gateway.get("admin", &format!("/v1/subscriptions/{missing}")).send().await;
        answer.problem(404, "subscription-unknown");
    }
    // Of another tenant and not there at all: the same words.
    let foreign = gateway.get("admin-b", &path).send().await.problem(404, "subscription-unknown");
    let absent = gateway.get("admin-b", "/v1/subscriptions/project-a/absent").send().await;
    let absent = absent.problem(404, "subscription-unknown");
    let words = |p: &Value, id: &str| p["detail"].as_str().expect("a text").replace(id, "X");
    assert_eq!(words(&foreign, "ordered"), words(&absent, "absent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_learns_nothing_of_others_from_the_figures_of_a_shared_topic() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    let waits = ["x"; 30];
    publish(&gateway, "home/shared", "a", None, &waits).await;
    publish(&gateway, "home/shared", "b", None, &waits[..4]).await;
    let everything = gateway.port.subscription(&name("home/everything")).expect("there");
    assert_eq!(pull(&everything, 100).await.len(), 34, "all of them can be read");
    for (key, of, backlog) in [("admin-b", "home/of-tenant-b", 4), ("engineer-a", OF_A[1], 30)] {
        let shown = gateway.get(key, &format!("/v1/subscriptions/{of}")).send().await.json();
        assert_eq!(shown["stats"]["backlog_messages"], backlog, "{shown}");
        assert_eq!(shown["stats"]["tenants"].as_array().map(Vec::len), Some(1));
    }
    let all = gateway.get("admin", "/v1/subscriptions/home/everything").send().await.json();
    assert_eq!(all["tenant_id"], Value::Null);
    let share: f64 = (0..2).map(|n| all["stats"]["tenants"][n]["share"].as_f64().expect("a share")).sum();
    assert!((share - 1.0).abs() < 1e-9, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_keys_are_seen_skipped_and_parked() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    gateway.clock.advance(Duration::from_secs(3));
    let path = format!("/v1/subscriptions/{}/blocked-keys", OF_A[0]);
    let blocked = gateway.get("engineer-a", &path).send().await.json();
    let key = &blocked["blocked_keys"][0];
    assert_eq!((&key["key"], &key["tenant_id"], &key["waiting"]), (&json!("k"), &json!("a"), &json!(2)));
    assert_eq!((&key["delivery_attempt"], &key["blocked_s"]), (&json!(1), &json!(3.0)));

    let unblock = async |caller: &'static str, how: &str, body: Value| {
        let call = gateway.post(caller, &format!("{path}:{how}"), body.to_string());
        tokio::time::timeout(PATIENCE, call.send()).await.expect("an answer")
    };
    let of_a = json!({"tenant": "a", "key": "k"});
    unblock("client-a", "skip", of_a.clone()).await.problem(403, "role-forbidden");
    unblock("admin-b", "skip", of_a.clone()).await.problem(404, "subscription-unknown");
    unblock("engineer-a", "skip", json!({"tenant": "b", "key": "k"})).await.problem(403, "tenant-forbidden");
    unblock("engineer-a", "skip", json!({"tenant": "a", "key": ""})).await.problem(422, "body-invalid");
    unblock("engineer-a", "skip", json!({"tenant": "a"})).await.problem(422, "body-invalid");
    unblock("engineer-a", "park", json!({"tenant": "a", "key": "other"}))
        .await
        .problem(409, "subscription-state");

    let done = unblock("engineer-a", "skip", of_a.clone()).await.json();
    assert_eq!(done, json!({"tenant_id": "a", "key": "k", "done": "skipped"}));
    let ordered = gateway.port.subscription(&name(OF_A[0])).expect("there");
    let next = pull(&ordered, 10).await;
    assert_eq!(next.iter().map(|r| &*r.message.body).collect::<Vec<_>>(), [b"2"], "the next of the key");
    let dead = subscribe(&gateway, "project-a/dead", "project-a/orders-dead", |_| {}).await;
    let done = unblock("admin-a", "park", of_a.clone()).await.json();
    assert_eq!(done["done"], "parked");
    assert!(pull(&ordered, 10).await.is_empty());
    assert_eq!(pull(&dead, 10).await.len(), 2, "what blocked and what waited behind it");
    let left = gateway.get("engineer-a", &path).send().await.json();
    assert_eq!(left, json!({"blocked_keys": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_to_where_they_came_from() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    subscribe(&gateway, "project-a/dead", "project-a/orders-dead", |_| {}).await;
    let ordered = gateway.port.subscription(&name(OF_A[0])).expect("there");
    ordered.unblock(&tenant("a"), "k", levada_bus::port::Unblock::Park).await.expect("parked");
    publish(&gateway, "project-a/orders-dead", "a", None, &["no source"]).await;
    let redrive = async |caller: &'static str, body: Value| {
        gateway.post(caller, "/v1/subscriptions/project-a/dead/redrive", body.to_string()).send().await
    };
    redrive("client-a", json!({})).await.problem(403, "role-forbidden");
    redrive("admin-b", json!({})).await.problem(404, "subscription-unknown");
    for bad in [
        json!({"limit": 0}),
        json!({"limit": 10_001}),
        json!({"rate_per_s": 0}),
        json!({"rate_per_s": -1}),
        json!({"filter": "attributes."}),
        json!({"what": 1}),
    ] {
        redrive("engineer-a", bad).await.problem(422, "body-invalid");
    }
    let filtered = redrive("engineer-a", json!({"filter": "attributes:nothing"})).await.json();
    assert_eq!(filtered, json!({"published": 0, "skipped": 4, "refused": [], "more": false}));
    let done = redrive("engineer-a", json!({"limit": 3, "rate_per_s": 1000})).await.json();
    assert_eq!((&done["published"], &done["more"]), (&json!(3), &json!(true)));
    let rest = redrive("engineer-a", json!({})).await.json();
    assert_eq!((&rest["published"], &rest["more"]), (&json!(0), &json!(false)));
    assert_eq!(rest["refused"][0]["code"], "redrive-source-unknown");
    let again = pull(&ordered, 10).await;
    assert_eq!(again.iter().map(|r| &*r.message.body).collect::<Vec<_>>(), [b"1"], "in order of its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_edited_and_sent_once() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    subscribe(&gateway, "project-a/dead", "project-a/orders-dead", |_| {}).await;
    let ordered = gateway.port.subscription(&name(OF_A[0])).expect("there");
    ordered.unblock(&tenant("a"), "k", levada_bus::port::Unblock::Park).await.expect("parked");
    let browse = "/v1/subscriptions/project-a/dead/messages";
    // What was just written can be read a moment later.
    let second = loop {
        let letters = gateway.get("engineer-a", browse).send().await.json();
        if letters["messages"].as_array().is_some_and(|all| all.len() == 3) {
            break letters["messages"][1]["message_id"].as_str().expect("an id").to_owned();
        }
    };
    let resend = async |caller: &'static str, id: &str, body: Value| {
        gateway.post(caller, &format!("{browse}/{id}/resend"), body.to_string()).send().await
    };
    resend("client-a", &second, json!({})).await.problem(403, "role-forbidden");
    resend("admin-b", &second, json!({})).await.problem(404, "subscription-unknown");
    resend("engineer-a", "999", json!({})).await.problem(404, "message-unknown");
    resend("engineer-a", "x", json!({})).await.problem(400, "path-invalid");
    for bad in [
        json!({"data": "!"}),
        json!({"data": "YQ==", "json": 1}),
        json!({"attributes": {"n": 1}}),
        json!({"attributes": {"tenant_id": "b"}}),
        json!({"attributes": {"CloudPubSubDeadLetterSourceSubscription": "x"}}),
        json!({"what": 1}),
    ] {
        resend("engineer-a", &second, bad).await.problem(422, "body-invalid");
    }
    let edit = json!({"json": {"mended": true}, "attributes": {"by": "hand", "levada.none": null}});
    let sent = resend("engineer-a", &second, edit).await.json();
    assert_eq!((&sent["topic"], &sent["acknowledged"]), (&json!("project-a/orders"), &json!(true)));
    let again = pull_some(&ordered).await;
    assert_eq!(again[0].message.body, "{\"mended\":true}");
    assert_eq!(again[0].message.attributes.iter().collect::<Vec<_>>(), [("by", "hand")]);
    resend("engineer-a", &second, json!({})).await.problem(409, "message-not-waiting");
    let all_the_same = json!({"even_if_taken": true, "data": "YQ=="});
    assert_eq!(resend("engineer-a", &second, all_the_same).await.json()["acknowledged"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_looked_at_without_being_consumed() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    let shared = "/v1/subscriptions/home/of-tenant-a/messages";
    publish(&gateway, "home/shared", "b", None, &["of b"]).await;
    publish(&gateway, "home/shared", "a", None, &["{\"n\":1}", "{\"n\":2}"]).await;
    let everything = gateway.port.subscription(&name("home/everything")).expect("there");
    assert_eq!(pull(&everything, 10).await.len(), 3, "all of them can be read");
    let first = gateway.get("engineer-a", &format!("{shared}?limit=1")).send().await.json();
    assert_eq!(first["messages"][0]["payload"], json!({"n": 2}), "the newest first");
    let before = &first["before"];
    let rest = gateway.get("engineer-a", &format!("{shared}?before={before}")).send().await.json();
    assert_eq!(rest["messages"].as_array().map(Vec::len), Some(1), "and nothing of b: {rest}");
    assert_eq!((&rest["messages"][0]["payload"], &rest["before"]), (&json!({"n": 1}), &Value::Null));
    let all = gateway.get("admin", "/v1/subscriptions/home/everything/messages").send().await.json();
    assert_eq!(all["messages"].as_array().map(Vec::len), Some(3));
    gateway.get("admin-b", shared).send().await.problem(404, "subscription-unknown");
    for bad in ["?filter=attributes.", "?before=x", "?limit=-1"] {
        gateway.get("admin", &format!("{shared}{bad}")).send().await.problem(400, "query-invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_weighed_by_a_merge_patch() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    let patch = async |caller: &'static str, of: &str, body: Value| {
        let call = gateway.call(Method::PATCH, &format!("/v1/subscriptions/{of}"));
        call.bearer(gateway.key(caller)).json(body.to_string()).send().await
    };
    let everything = OF_A[2];
    let changed = patch("admin", everything, json!({"weights": {"a": 5, "b": 7}})).await.json();
    assert_eq!(changed["weights"], json!({"a": 5, "b": 7}));
    let changed = patch("admin", everything, json!({"weights": {"b": null}})).await.json();
    assert_eq!(changed["weights"], json!({"a": 5}));
    let untouched = patch("admin", everything, json!({})).await.json();
    assert_eq!(untouched["weights"], json!({"a": 5}));
    let shown = gateway.get("admin", &format!("/v1/subscriptions/{everything}")).send().await.json();
    assert_eq!(shown["weights"], json!({"a": 5}));
    let merge = gateway.call(Method::PATCH, &format!("/v1/subscriptions/{everything}"));
    let merge = merge.bearer(gateway.key("admin")).header("content-type", "application/merge-patch+json");
    assert_eq!(merge.body(json!({"weights": null}).to_string()).send().await.json()["weights"], json!({}));

    for bad in [
        json!({"weights": {"a": 0}}),
        json!({"weights": {"a": 1001}}),
        json!({"weights": {"a": 1.5}}),
        json!({"weights": {"No Tenant": 1}}),
        json!({"weights": [1]}),
        json!({"ack_deadline_s": 1}),
    ] {
        patch("admin", everything, bad).await.problem(422, "body-invalid");
    }
    let of_a = json!({"weights": {"a": 2}});
    patch("client-a", OF_A[1], of_a.clone()).await.problem(403, "role-forbidden");
    patch("admin-a", everything, of_a.clone()).await.problem(404, "subscription-unknown");
    patch("admin-b", OF_A[1], of_a.clone()).await.problem(404, "subscription-unknown");
    patch("engineer-a", OF_A[1], json!({"weights": {"b": 2}})).await.problem(403, "tenant-forbidden");
    assert_eq!(patch("engineer-a", OF_A[1], of_a).await.json()["weights"], json!({"a": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_made_consumed_and_finished() {
    let gateway = Gateway::start().await;
    blocked_subscription_of_a(&gateway).await;
    publish(&gateway, "home/shared", "a", None, &["1", "2"]).await;
    let of_a = gateway.port.subscription(&name(OF_A[1])).expect("there");
    let mut received = pull_some(&of_a).await;
    while received.len() < 2 {
        received.extend(pull_some(&of_a).await);
    }
    of_a.acknowledge(received.iter().map(|r| r.ack_id).collect()).await.expect("acknowledged");
    let replay = async |caller: &'static str, body: Value| {
        let path = format!("/v1/subscriptions/{}/replays", OF_A[1]);
        gateway.post(caller, &path, body.to_string()).send().await
    };
    let earliest = json!({"name": "again", "from": "earliest", "rate_per_s": 500});
    replay("client-a", earliest.clone()).await.problem(403, "role-forbidden");
    replay("admin-b", earliest.clone()).await.problem(404, "subscription-unknown");
    let none = json!({"name": "again", "from": {"snapshot": "none"}});
    replay("engineer-a", none).await.problem(404, "snapshot-unknown");
    for bad in [
        json!({"name": "again"}),
        json!({"name": "again", "from": "yesterday"}),
        json!({"name": "again", "from": {"snapshot": "NO/NAME/AT/ALL"}}),
        json!({"name": "again", "from": {"snapshot": "s", "what": 1}}),
        json!({"name": "a", "from": "earliest"}),
        json!({"name": "again", "from": "earliest", "rate_per_s": 0}),
    ] {
        replay("engineer-a", bad).await.problem(422, "body-invalid");
    }
    let made = replay("engineer-a", earliest.clone()).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!((&made["name"], &made["max_rate_per_s"]), (&json!("home/again"), &json!(500)));
    assert_eq!(made["replay"], json!({"source": OF_A[1], "finished": false}));
    replay("engineer-a", earliest).await.problem(409, "subscription-state");
    let path = "/v1/subscriptions/home/again";
    let call = gateway.call(Method::PATCH, path).bearer(gateway.key("engineer-a"));
    let unbound = call.json(json!({"max_rate_per_s": null}).to_string()).send().await.json();
    assert_eq!(unbound["max_rate_per_s"], Value::Null);
    let again = gateway.port.subscription(&name("home/again")).expect("there");
    let received = pull(&again, 10).await;
    assert_eq!(received.iter().map(|r| &*r.message.body).collect::<Vec<_>>(), [b"1", b"2"]);
    again.acknowledge(received.iter().map(|r| r.ack_id).collect()).await.expect("acknowledged");
    let shown = gateway.get("engineer-a", path).send().await.json();
    assert_eq!((&shown["state"], &shown["replay"]["finished"]), (&json!("finished"), &json!(true)));
    gateway.get("admin-b", path).send().await.problem(404, "subscription-unknown");
    let late = json!({"name": "empty", "from": "2100-01-01T00:00:00Z"});
    assert_eq!(replay("engineer-a", late).await.json()["state"], "finished");
}
