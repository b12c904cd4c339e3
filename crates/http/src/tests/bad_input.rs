//! Bad input, one test a kind: what is refused, how, and that the good part is kept.

use http::Method;
use levada_disk::Disk;
use serde_json::{Value, json};

use super::support::{Gateway, PATIENCE, Setup, topic};

const GOOD: &str = r#"{"type":"x","data":1}"#;

fn small_bodies() -> Setup {
    let mut setup = Setup::default();
    setup.gateway.max_body_bytes = 1_000;
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused_by_its_declared_length() {
    let gateway = Gateway::with(small_bodies()).await;
    let body = |len: usize| format!(r#"{{"type":"x","data":"{}"}}"#, "y".repeat(len - 22));
    let exact = gateway.post("client-a", "/v1/events", body(1_000)).send().await;
    assert_eq!(exact.status.as_u16(), 202, "{}", exact.text());
    let over = gateway.post("client-a", "/v1/events", body(1_001)).send().await;
    assert!(over.problem(413, "body-too-large")["detail"].as_str().is_some_and(|d| d.contains("1000")));
    let huge = gateway.post("client-a", "/v1/events", vec![b'x'; 8 << 20]).send().await;
    huge.problem(413, "body-too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused_without_a_declared_length() {
    let gateway = Gateway::with(small_bodies()).await;
    let mut raw = gateway.raw().await;
    let key = gateway.key("client-a");
    raw.write(&format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    ))
    .await;
    for _ in 0..20 {
        raw.write(&format!("64\r\n{}\r\n", "z".repeat(100))).await;
    }
    raw.write("0\r\n\r\n").await;
    let answer = raw.read_to_close().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body-too-large"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_json_is_refused_with_its_place_and_nothing_is_kept() {
    let gateway = Gateway::start().await;
    for body in [r#"{"type":"x","data":{"a":"#, r#"[{"type":"x","data":1},{"type":"x","#] {
        let problem = gateway.post("client-a", "/v1/events", body).send().await.problem(400, "json-invalid");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("line 1, column")), "{problem}");
    }
    assert!(!gateway.state.bus.has_topic(&topic("events")), "nothing was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_keeps_nothing() {
    let gateway = Gateway::start().await;
    let key = gateway.key("client-a");
    let mut raw = gateway.raw().await;
    raw.write(&format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/x-ndjson\r\n\
         content-length: 400\r\nexpect: 100-continue\r\n\r\n"
    ))
    .await;
    raw.read_until("100 Continue").await;
    raw.write(&format!("{GOOD}\n{GOOD}\n")).await;
    drop(raw);
    // Whatever the server made of it is done before this one is answered on the same topic.
    let after = gateway.publish("client-a", r#"{"type":"x","data":"after"}"#).await;
    assert_eq!(after["results"][0]["offset"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf8_is_refused() {
    let gateway = Gateway::start().await;
    let body = &b"{\"type\":\"x\",\"data\":\"\xc3\x28\"}"[..];
    gateway.post("client-a", "/v1/events", body).send().await.problem(400, "utf8-invalid");
    gateway.post("client-a", "/v1/events", &b"\xff\xfe\x00"[..]).send().await.problem(400, "utf8-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_an_item_problem_that_names_the_field() {
    let gateway = Gateway::start().await;
    let problem = gateway
        .post("client-a", "/v1/events", r#"{"type":5,"data":1}"#)
        .send()
        .await
        .problem(422, "field-type");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("`type`") && d.contains("a number")));
    gateway.post("client-a", "/v1/events", "7").send().await.problem(422, "event-not-object");
    gateway.post("client-a", "/v1/events", r#"{"data":1}"#).send().await.problem(422, "field-missing");
    let time = r#"{"type":"x","timestamp":"yesterday","data":1}"#;
    gateway.post("client-a", "/v1/events", time).send().await.problem(422, "field-invalid");
    let all_bad = gateway
        .post("client-a", "/v1/events", r#"[1,{"data":1}]"#)
        .send()
        .await
        .problem(422, "batch-refused");
    let codes: Vec<&Value> = all_bad["items"].as_array().expect("items").iter().map(|i| &i["code"]).collect();
    assert_eq!(codes, ["event-not-object", "field-missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_bombs_are_refused_at_once() {
    let gateway = Gateway::start().await;
    for body in ["[".repeat(1_000_000), format!("{{\"type\":\"x\",\"data\":{}", "{\"a\":".repeat(200_000))] {
        gateway.post("client-a", "/v1/events", body).send().await.problem(400, "json-too-deep");
    }
    assert_eq!(gateway.publish("client-a", GOOD).await["accepted"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_with_some_bad_keep_the_good_ones_and_one_more_is_too_many() {
    let gateway = Gateway::start().await;
    let event = |n: usize| match n % 1_000 {
        17 => json!({"type": "x", "event_id": format!("{n}")}),
        18 => json!({"type": "x", "tenant_id": "b", "data": n}),
        19 => json!([n]),
        _ => json!({"type": "x", "event_id": format!("{n}"), "data": n}),
    };
    let batch: Vec<Value> = (0..10_000).map(event).collect();
    let answer = gateway.publish("client-a", json!(batch).to_string()).await;
    assert_eq!(
        (&answer["accepted"], &answer["duplicates"], &answer["rejected"]),
        (&json!(9_970), &json!(0), &json!(30))
    );
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 10_000);
    for (n, result) in results.iter().enumerate() {
        match n % 1_000 {
            17 => assert_eq!((&result["status"], &result["code"]), (&json!(422), &json!("payload-missing"))),
            18 => assert_eq!((&result["status"], &result["code"]), (&json!(403), &json!("tenant-forbidden"))),
            19 => assert_eq!((&result["status"], &result["code"]), (&json!(422), &json!("event-not-object"))),
            _ => assert_eq!((&result["status"], &result["id"]), (&json!(202), &json!(n.to_string()))),
        }
        if result["status"] != 202 {
            assert_eq!(result["index"], n);
        }
    }
    assert_eq!(gateway.state.bus.bounds(&topic("events")).expect("bounds").next, 9_970);
    let too_many = vec![GOOD; 10_001].join("\n");
    let call = gateway.call(Method::POST, "/v1/events").bearer(gateway.key("client-a"));
    call.header("content-type", "application/x-ndjson")
        .body(too_many)
        .send()
        .await
        .problem(413, "batch-too-large");
    assert_eq!(
        gateway.state.bus.bounds(&topic("events")).expect("bounds").next,
        9_970,
        "and none of them was kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_content_type_is_refused_with_the_ones_that_are_read() {
    let gateway = Gateway::start().await;
    let call = || gateway.call(Method::POST, "/v1/events").bearer(gateway.key("client-a")).body(GOOD);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"] {
        let problem =
            call().header("content-type", kind).send().await.problem(415, "content-type-unsupported");
        assert!(problem["hint"].as_str().is_some_and(|h| h.contains("application/json")));
    }
    call().send().await.problem(415, "content-type-unsupported");
    let gzip = call().header("content-type", "application/json").header("content-encoding", "gzip");
    gzip.send().await.problem(415, "content-encoding-unsupported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_answered_as_unavailable_and_ingestion_recovers() {
    let gateway = Gateway::start().await;
    gateway.publish("client-a", GOOD).await;
    let roomy = 1 << 40;
    gateway.disk.set_capacity(Some(roomy));
    let used = roomy - gateway.disk.free_bytes().expect("known");
    // Less than the log leaves to others; it looks every mebibyte.
    gateway.disk.set_capacity(Some(used + (4 << 20)));
    let large = format!(r#"{{"type":"x","data":"{}"}}"#, "y".repeat(64 << 10));
    let mut kept = 1;
    let refused = loop {
        let answer = gateway.post("client-a", "/v1/events", large.clone()).send().await;
        if answer.status.as_u16() != 202 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "the log goes on writing");
    };
    let problem = refused.problem(503, "log-unavailable");
    assert_eq!(refused.header("retry-after"), problem["retry_after_s"].to_string());
    assert!(!problem.to_string().contains("commit/"), "no path of the machine is told");
    gateway.disk.set_capacity(None);
    // As a client that obeys Retry-After would: again, until the log has found the space.
    let again = async {
        loop {
            let answer = gateway.post("client-a", "/v1/events", GOOD).send().await;
            if answer.status.as_u16() == 202 {
                return answer.json();
            }
            answer.problem(503, "log-unavailable");
            tokio::task::yield_now().await;
        }
    };
    let after = tokio::time::timeout(PATIENCE, again).await.expect("it recovers in time");
    assert_eq!(after["results"][0]["offset"], kept, "the refused ones were not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_that_says_no_is_a_problem() {
    let gateway = Gateway::start().await;
    gateway.call(Method::GET, "/nowhere").send().await.problem(404, "not-found");
    gateway.call(Method::GET, "/v1/nowhere").send().await.problem(404, "not-found");
    let wrong = gateway.get("client-a", "/v1/events").send().await;
    wrong.problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), "POST");
    gateway.call(Method::DELETE, "/healthz").send().await.problem(405, "method-not-allowed");
    gateway.call(Method::GET, "/v1/events").send().await.problem(401, "unauthenticated");
    gateway.call(Method::OPTIONS, "/v1/events").send().await.problem(401, "unauthenticated");
    gateway.post("admin", "/v1/keys", "{").send().await.problem(400, "json-invalid");
    gateway.post("admin", "/v1/keys", r#"{"nome":"x"}"#).send().await.problem(422, "body-invalid");
    gateway
        .post("admin", "/v1/keys", r#"{"name":"x","roles":["king"]}"#)
        .send()
        .await
        .problem(422, "body-invalid");
    let text = gateway
        .call(Method::POST, "/v1/keys")
        .bearer(gateway.key("admin"))
        .header("content-type", "text/plain");
    text.body("{}").send().await.problem(415, "content-type-unsupported");
    gateway.get("admin", "/v1/dead-letters?limit=many").send().await.problem(400, "query-invalid");
    gateway.get("admin", "/v1/dead-letters?after=3").send().await.problem(400, "query-invalid");
    gateway
        .post("admin", "/v1/dead-letters/resend", r#"{"topic":"orders"}"#)
        .send()
        .await
        .problem(422, "body-invalid");
    gateway
        .post("admin", "/v1/dead-letters/resend", r#"{"topic":"x!","all":true}"#)
        .send()
        .await
        .problem(404, "topic-unknown");
    gateway.post("admin", "/v1/models/nope/run", "").send().await.problem(404, "model-unknown");
    gateway.get("admin", "/v1/topics/%ff/messages").send().await.problem(400, "path-invalid");
}
