//! Events go in, are answered, and lie in their topic as they came.

use http::Method;
use levada_core::attr;
use serde_json::{Value, json};

use super::support::{Gateway, tenant, topic};

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_kept_with_its_envelope_and_its_payload_byte_for_byte() {
    let gateway = Gateway::start().await;
    let payload = r#"{"total" : 12.50, "name":"caf\u00e9", "z":[1,2]}"#;
    let body = format!(
        r#"{{"event_type":"order.created","event_id":"e-1","timestamp":"2026-11-21T08:00:00Z","schema_version":"2",
            "source_service":"shop","causation_id":"cause","metadata":{{"correlation_id":"corr"}},"payload":{payload}}}"#
    );
    let call = gateway.post("client-a", "/v1/events", body);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = call.header("x-request-id", "req-7").header("traceparent", parent).send().await;
    assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    assert_eq!(answer.header("x-request-id"), "req-7");
    assert!(answer.header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    let result = &answer.json()["results"][0];
    assert_eq!(result, &json!({"status":202,"id":"e-1","topic":"orders","offset":0,"duplicate":false}));
    gateway.settled(&answer).await;
    let delivered = gateway.state.bus.read(&topic("orders"), 0, 10, 1 << 20).expect("read");
    assert_eq!(delivered.len(), 1);
    let message = &delivered[0].message;
    assert_eq!(message.tenant, tenant("a"));
    assert_eq!(message.body, payload.as_bytes());
    let expected = [
        (attr::TENANT_ID, "a"),
        (attr::EVENT_ID, "e-1"),
        (attr::EVENT_TYPE, "order.created"),
        (attr::SCHEMA_VERSION, "2"),
        (attr::TIMESTAMP, "2026-11-21T08:00:00Z"),
        (attr::SOURCE_SERVICE, "shop"),
        (attr::CORRELATION_ID, "corr"),
        (attr::CAUSATION_ID, "cause"),
        (attr::IDEMPOTENCY_KEY, "order.created:a:e-1"),
        (attr::TRACEPARENT, answer.header("traceparent")),
    ];
    for (name, value) in expected {
        assert_eq!(message.attributes.get(name), Some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_leaves_out_is_filled_in() {
    let gateway = Gateway::start().await;
    let answer = gateway.publish("client-a", r#"{"type":"x","data":1}"#).await;
    let delivered = gateway.state.bus.read(&topic("events"), 0, 10, 1 << 20).expect("read");
    let attributes = &delivered[0].message.attributes;
    assert_eq!(attributes.get(attr::EVENT_ID), answer["results"][0]["id"].as_str());
    assert_eq!(attributes.get(attr::TIMESTAMP), Some("2023-11-14T22:13:20.000Z"), "the clock's time");
    assert_eq!(attributes.get(attr::SOURCE_SERVICE), Some("client-a"), "the key's name");
    assert_eq!(attributes.get(attr::SCHEMA_VERSION), Some("1"));
    assert!(attributes.get(attr::CORRELATION_ID).is_some() && attributes.get(attr::TRACEPARENT).is_some());
    assert_eq!(attributes.get(attr::IDEMPOTENCY_KEY), None, "a made id protects nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_twice_is_kept_once_and_a_changed_one_is_a_conflict() {
    let gateway = Gateway::start().await;
    let event = |id: &str, n: u32| format!(r#"{{"type":"order.x","event_id":"{id}","data":{n}}}"#);
    let first = gateway.publish("client-a", event("1", 1)).await;
    let again = gateway.publish("client-a", event("1", 1)).await;
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    assert_eq!(again["results"][0]["id"], first["results"][0]["id"]);
    assert_eq!(again["results"][0]["offset"], first["results"][0]["offset"]);
    let changed = gateway.post("client-a", "/v1/events", event("1", 2)).send().await;
    changed.problem(409, "idempotency-conflict");
    let other = gateway.publish("client-b", event("1", 2)).await;
    assert_eq!(other["accepted"], 1, "another tenant's key is another key");
    let batch = format!("[{},{},{}]", event("2", 1), event("1", 3), event("2", 1));
    let mixed = gateway.publish("client-a", batch).await;
    assert_eq!(
        (&mixed["accepted"], &mixed["duplicates"], &mixed["rejected"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(mixed["results"][1]["status"], 409);
    assert_eq!(mixed["results"][1]["code"], "idempotency-conflict");
    let made = r#"{"type":"order.x","data":9}"#;
    for _ in 0..2 {
        assert_eq!(
            gateway.publish("client-a", made).await["accepted"],
            1,
            "without an id nothing is a duplicate"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_header_stands_for_one_event() {
    let gateway = Gateway::start().await;
    let send = |body: &'static str, key: &'static str| {
        gateway.post("client-a", "/v1/events", body).header("idempotency-key", key).send()
    };
    assert_eq!(send(r#"{"type":"x","data":1}"#, "k").await.json()["accepted"], 1);
    assert_eq!(send(r#"{"type":"x","data":1}"#, "k").await.json()["duplicates"], 1);
    send(r#"{"type":"x","data":2}"#, "k").await.problem(409, "idempotency-conflict");
    send(r#"{"type":"x","data":2,"idempotency_key":"j"}"#, "k").await.problem(422, "field-conflict");
    send(r#"[{"type":"x","data":3}]"#, "l").await.problem(400, "idempotency-key-on-batch");
    send(r#"{"type":"x","data":1}"#, "").await.problem(400, "header-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_spreads_over_topics_and_answers_in_order() {
    let gateway = Gateway::start().await;
    let types = ["order.a", "user.b", "secret.c", "order.d", "user.e"];
    let events: Vec<Value> = types
        .iter()
        .enumerate()
        .map(|(n, t)| json!({"type": t, "event_id": format!("{n}"), "data": n}))
        .collect();
    let answer = gateway.publish("client-a", json!(events).to_string()).await;
    let places: Vec<(String, String, u64)> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|r| {
            let text = |k: &str| r[k].as_str().expect("a text").to_owned();
            (text("id"), text("topic"), r["offset"].as_u64().expect("an offset"))
        })
        .collect();
    let expected = [
        ("0", "orders", 0),
        ("1", "events", 0),
        ("2", "a-private", 0),
        ("3", "orders", 1),
        ("4", "events", 1),
    ];
    assert_eq!(places, expected.map(|(id, topic, offset)| (id.to_owned(), topic.to_owned(), offset)));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_can_be_named_by_event_or_request_and_must_be_the_tenants() {
    let gateway = Gateway::start().await;
    let send = |key: &'static str, query: &str, body: &'static str| {
        gateway.post(key, &format!("/v1/events{query}"), body).send()
    };
    let topic_of = |answer: Value| answer["results"][0]["topic"].as_str().map(str::to_owned);
    assert_eq!(
        topic_of(send("client-a", "?topic=orders", r#"{"type":"x","data":1}"#).await.json()),
        Some("orders".into())
    );
    let named = r#"{"type":"x","topic":"events","data":1}"#;
    assert_eq!(topic_of(send("client-a", "?topic=orders", named).await.json()), Some("events".into()));
    let private = r#"{"type":"x","topic":"a-private","data":1}"#;
    assert_eq!(topic_of(send("client-a", "", private).await.json()), Some("a-private".into()));
    let foreign = send("client-b", "", private).await.problem(422, "topic-unknown");
    let missing = send("client-b", "", r#"{"type":"x","topic":"a-privat","data":1}"#)
        .await
        .problem(422, "topic-unknown");
    assert_eq!(foreign["hint"], missing["hint"], "another tenant's topic does not exist");
    send("client-a", "?topic=orders-dlq", r#"{"type":"x","data":1}"#).await.problem(422, "topic-unknown");
    send("client-a", "?tropic=orders", r#"{"type":"x","data":1}"#).await.problem(400, "query-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_comes_from_the_event_the_header_or_the_key() {
    let gateway = Gateway::start().await;
    let event = |tenant: &str| match tenant {
        "" => r#"{"type":"x","data":1}"#.to_owned(),
        t => format!(r#"{{"type":"x","tenant_id":"{t}","data":1}}"#),
    };
    let send = |key: &'static str, header: &'static str, event: String| {
        let call = gateway.post(key, "/v1/events", event);
        if header.is_empty() { call.send() } else { call.header("x-tenant-id", header).send() }
    };
    for (key, header, named) in [
        ("client-a", "", ""),
        ("client-a", "a", ""),
        ("client-a", "a", "a"),
        ("service-ab", "b", ""),
        ("service-ab", "", "b"),
        ("admin", "b", "b"),
        ("admin", "", "default"),
    ] {
        let answer = send(key, header, event(named)).await;
        assert_eq!(answer.status.as_u16(), 202, "{key} {header} {named}: {}", answer.text());
        gateway.settled(&answer).await;
    }
    send("service-ab", "", event("")).await.problem(422, "tenant-required");
    send("admin", "", event("")).await.problem(422, "tenant-required");
    let unknown = send("admin", "", event("nowhere")).await.problem(422, "tenant-unknown");
    assert!(unknown["detail"].as_str().is_some_and(|d| d.contains("nowhere")));
    send("admin", "nowhere", event("")).await.problem(422, "tenant-unknown");
    for (key, header, named) in [
        ("client-a", "", "b"),
        ("client-a", "b", ""),
        ("client-a", "b", "b"),
        ("client-a", "a", "b"),
        ("service-ab", "a", "b"),
        ("client-a", "", "nowhere"),
        ("client-a", "nowhere", ""),
        ("client-a", "", "../b"),
        ("service-ab", "default", ""),
        ("admin", "a", "b"),
    ] {
        send(key, header, event(named)).await.problem(403, "tenant-forbidden");
    }
    let lanes: Vec<_> = gateway.state.bus.read(&topic("events"), 0, 100, 1 << 20).expect("read");
    let tenants: Vec<&str> = lanes.iter().map(|d| d.message.tenant.as_str()).collect();
    assert_eq!(tenants, ["a", "a", "a", "b", "b", "b", "default"], "and nothing else was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_and_cloud_events_go_in_too() {
    let gateway = Gateway::start().await;
    let post = |kind: &str, body: &'static str| {
        gateway
            .call(Method::POST, "/v1/events")
            .bearer(gateway.key("client-a"))
            .header("content-type", kind)
            .body(body)
            .send()
    };
    let lines =
        post("application/x-ndjson", "{\"type\":\"l\",\"data\":1}\n{oops\n{\"type\":\"l\",\"data\":2}\n")
            .await;
    assert_eq!(lines.status.as_u16(), 202);
    assert_eq!((&lines.json()["accepted"], &lines.json()["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(lines.json()["results"][1]["code"], "json-invalid");
    let cloud = r#"{"specversion":"1.0","type":"c","source":"/one","id":"1","data":{"n":1}}"#;
    assert_eq!(post("application/cloudevents+json", cloud).await.json()["accepted"], 1);
    assert_eq!(post("application/cloudevents+json", cloud).await.json()["duplicates"], 1);
    let other_source = r#"[{"specversion":"1.0","type":"c","source":"/two","id":"1","data":{"n":2}}]"#;
    let batch = post("application/cloudevents-batch+json", other_source).await.json();
    assert_eq!(batch["accepted"], 1, "the same id of another source is another event: {batch}");
    let binary = gateway.call(Method::POST, "/v1/events").header("x-api-key", gateway.key("client-a"));
    let binary = binary.header("ce-specversion", "1.0").header("ce-type", "b").header("ce-source", "s");
    let binary =
        binary.header("ce-id", "9").header("content-type", "image/png").body(&b"\x89PNG"[..]).send().await;
    assert_eq!(binary.json()["accepted"], 1, "{}", binary.text());
    gateway.settled(&binary).await;
    let delivered = gateway.state.bus.read(&topic("events"), 0, 100, 1 << 20).expect("read");
    let last = &delivered.last().expect("a message").message;
    assert_eq!(
        (last.body.as_ref(), last.attributes.get(attr::CONTENT_TYPE)),
        (&b"\x89PNG"[..], Some("image/png"))
    );
    let shown = gateway.get("engineer-a", "/v1/topics/events/messages").send().await.json();
    let messages = shown["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), delivered.len());
    assert_eq!(messages[0]["payload"], 1);
    assert_eq!(messages.last().expect("one")["payload_base64"], "iVBORw==");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_where_it_stopped_and_waits_for_what_comes() {
    let gateway = Gateway::start().await;
    for n in 0..5 {
        gateway.publish("client-a", format!(r#"{{"type":"x","data":{n}}}"#)).await;
        gateway.publish("client-b", r#"{"type":"x","data":"b"}"#).await;
    }
    let read =
        |query: String| gateway.get("engineer-a", &format!("/v1/topics/events/messages{query}")).send();
    let mut seen = Vec::new();
    let mut next = 0;
    loop {
        let page = read(format!("?from={next}&limit=2")).await.json();
        let messages = page["messages"].as_array().expect("messages").clone();
        next = page["next"].as_u64().expect("next");
        if messages.is_empty() {
            break;
        }
        assert!(messages.len() <= 2);
        seen.extend(messages.iter().map(|m| m["payload"].clone()));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert_eq!(next, 10);
    let waiting = tokio::spawn(read("?from=10&wait_ms=30000".into()));
    gateway.publish("client-b", r#"{"type":"x","data":"not for a"}"#).await;
    gateway.publish("client-a", r#"{"type":"x","data":"at last"}"#).await;
    let page = waiting.await.expect("no panic").json();
    assert_eq!((&page["messages"][0]["payload"], &page["next"]), (&json!("at last"), &json!(12)), "{page}");
    read("?from=x".into()).await.problem(400, "query-invalid");
    assert_eq!(read("?from=end".into()).await.json()["messages"], json!([]));
    gateway.get("engineer-a", "/v1/topics/nowhere/messages").send().await.problem(404, "topic-unknown");
    gateway.get("client-a", "/v1/topics/events/messages").send().await.problem(403, "role-forbidden");
}
