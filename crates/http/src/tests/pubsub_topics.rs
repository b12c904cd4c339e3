//! Topics of the Pub/Sub bus: who sees and changes what Google's API has no field for.

use http::Method;
use levada_bus::port::BusPort;
use serde_json::{Value, json};

use super::subscriptions::topic;
use super::support::{Answer, Gateway};

async fn patch(gateway: &Gateway, caller: &str, of: &str, body: Value) -> Answer {
    let call = gateway.call(Method::PATCH, &format!("/v1/pubsub/topics/{of}"));
    call.bearer(gateway.key(caller)).json(body.to_string()).send().await
}

async fn world() -> Gateway {
    let gateway = Gateway::start().await;
    for name in ["project-a/bills", "project-a/orders", "project-b/secret", "home/shared"] {
        topic(&gateway, name).await;
    }
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_and_shown_with_their_settings() {
    let gateway = world().await;
    let names = async |caller: &str, query: &str| {
        let answer = gateway.get(caller, &format!("/v1/pubsub/topics/{query}")).send().await.json();
        let names: Vec<String> =
            answer["topics"].as_array().expect("a list").iter().map(|t| t["id"].to_string()).collect();
        (names.join(" "), answer["after"].clone())
    };
    assert_eq!(names("engineer-a", "project-a").await, ("\"bills\" \"orders\"".into(), Value::Null));
    let first = names("admin", "project-a?limit=1").await;
    assert_eq!(first, ("\"bills\"".into(), json!("project-a/bills")));
    assert_eq!(names("admin", "project-a?after=project-a/bills").await.0, "\"orders\"");
    assert!(names("engineer-a", "home").await.0.contains("shared"), "the platform's are for all to see");
    for hidden in ["project-b", "nowhere", "NO PROJECT"] {
        let path = hidden.replace(' ', "%20");
        assert_eq!(names("engineer-a", &path).await.0, "", "{hidden}");
    }
    let shown = gateway.get("engineer-a", "/v1/pubsub/topics/project-a/orders").send().await.json();
    let expected = json!({
        "name": "project-a/orders", "project": "project-a", "id": "orders", "tenant_id": "a",
        "durability": "fsync", "deduplication": null, "ordering": "tenant", "labels": {},
    });
    assert_eq!(shown, expected);
    let foreign = gateway.get("engineer-a", "/v1/pubsub/topics/project-b/secret").send().await;
    let foreign = foreign.problem(404, "topic-unknown");
    let absent = gateway.get("engineer-a", "/v1/pubsub/topics/project-b/absent").send().await;
    let absent = absent.problem(404, "topic-unknown");
    let words = |p: &Value, id: &str| p["detail"].as_str().expect("a text").replace(id, "X");
    assert_eq!(words(&foreign, "secret"), words(&absent, "absent"));
    let answer = gateway.get("client-a", "/v1/pubsub/topics/project-a/orders").send().await;
    answer.problem(403, "role-forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn deduplication_is_set_and_ended_by_who_owns_the_topic() {
    let gateway = world().await;
    let orders = "project-a/orders";
    let by_order = json!({"deduplication": {"attribute": "order", "window_s": 3600}});
    let changed = patch(&gateway, "engineer-a", orders, by_order.clone()).await.json();
    assert_eq!(changed["deduplication"], json!({"attribute": "order", "window_s": 3600.0}));
    let longer = patch(&gateway, "engineer-a", orders, json!({"deduplication": {"window_s": 7200}})).await;
    assert_eq!(longer.json()["deduplication"], json!({"attribute": "order", "window_s": 7200.0}));
    let kept = gateway.port.topic(&orders.parse().expect("a name")).expect("there");
    assert_eq!(kept.deduplication.expect("set").window.as_secs(), 7200);
    let untouched = patch(&gateway, "engineer-a", orders, json!({"durability": "fsync"})).await.json();
    assert_eq!(untouched["deduplication"]["window_s"], json!(7200.0));
    for bad in [
        json!({"deduplication": {"attribute": "", "window_s": 60}}),
        json!({"deduplication": {"attribute": "order", "window_s": 0}}),
        json!({"deduplication": {"attribute": "order", "window_s": 604_801}}),
        json!({"deduplication": {"attribute": "order", "window_s": 1.5}}),
        json!({"durability": "sometimes"}),
        json!({"ordering": "by key"}),
        json!({"labels": {}}),
    ] {
        patch(&gateway, "engineer-a", orders, bad).await.problem(422, "body-invalid");
    }
    let half = json!({"deduplication": {"attribute": "order"}});
    patch(&gateway, "engineer-a", "project-a/bills", half).await.problem(422, "body-invalid");
    let ended = patch(&gateway, "engineer-a", orders, json!({"deduplication": null})).await.json();
    assert_eq!(ended["deduplication"], Value::Null);

    patch(&gateway, "client-a", orders, by_order.clone()).await.problem(403, "role-forbidden");
    patch(&gateway, "admin-b", orders, by_order.clone()).await.problem(404, "topic-unknown");
    patch(&gateway, "engineer-a", "home/shared", by_order.clone()).await.problem(403, "tenant-forbidden");
    patch(&gateway, "platform-engineer", "home/shared", by_order).await.json();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_of_durability_is_set_and_shown_wherever_the_topic_is() {
    let gateway = world().await;
    for class in ["interval", "memory", "fsync"] {
        let set =
            patch(&gateway, "engineer-a", "project-a/orders", json!({"durability": class})).await.json();
        let shown = gateway.get("engineer-a", "/v1/pubsub/topics/project-a/orders").send().await.json();
        assert_eq!((&set["durability"], &shown["durability"]), (&json!(class), &json!(class)));
    }
    let memory = json!({"durability": "memory", "deduplication": {"attribute": "n", "window_s": 1}});
    patch(&gateway, "engineer-a", "project-a/orders", memory).await.json();
    let back = patch(&gateway, "engineer-a", "project-a/orders", json!({"durability": null})).await.json();
    assert_eq!((&back["durability"], &back["deduplication"]["attribute"]), (&json!("fsync"), &json!("n")));
    let topics = gateway.get("admin", "/v1/topics").send().await.json();
    let all = topics["topics"].as_array().expect("a list");
    assert!(all.iter().all(|topic| topic["durability"] == "fsync"), "{topics}");
    let own = gateway.get("engineer-a", "/v1/topics").send().await.json();
    assert_eq!(own["topics"][0]["commit_us_p99"], Value::Null, "how busy others are is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scope_of_ordering_keys_is_set_and_goes_back_to_the_default() {
    let gateway = world().await;
    let orders = "project-a/orders";
    for (set, shown) in [(json!("global"), "global"), (json!("tenant"), "tenant"), (Value::Null, "tenant")] {
        let answer = patch(&gateway, "engineer-a", orders, json!({"ordering": set})).await.json();
        let seen = gateway.get("engineer-a", "/v1/pubsub/topics/project-a/orders").send().await.json();
        assert_eq!((&answer["ordering"], &seen["ordering"]), (&json!(shown), &json!(shown)));
        let kept = gateway.port.topic(&orders.parse().expect("a name")).expect("there");
        assert_eq!(json!(kept.ordering), set, "what is not set is the default of the server");
        let untouched = patch(&gateway, "engineer-a", orders, json!({"durability": "fsync"})).await.json();
        assert_eq!(untouched["ordering"], shown);
    }
    patch(&gateway, "engineer-a", "home/shared", json!({"ordering": "global"}))
        .await
        .problem(403, "tenant-forbidden");
}
