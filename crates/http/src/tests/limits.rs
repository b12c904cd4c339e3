//! Rate limits as clients meet them, on a clock that moves only when told to.

use std::time::Duration;

use http::Method;
use levada_access::Rate;
use serde_json::{Value, json};

use super::support::{Answer, Gateway, Setup, tenant};

fn limited(per_s: f64, burst: f64) -> Setup {
    Setup { limits: Some(Rate { per_s, burst }), ..Setup::default() }
}

fn events(n: usize) -> String {
    Value::from(vec![json!({"type": "x", "data": 1}); n]).to_string()
}

fn figures(answer: &Answer) -> [&str; 3] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| answer.header(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_limited_by_event_and_told_when_to_come_back() {
    let gateway = Gateway::with(limited(10.0, 20.0)).await;
    let post = |key: &'static str, n: usize| gateway.post(key, "/v1/events", events(n)).send();
    let first = post("client-a", 15).await;
    assert_eq!(first.status.as_u16(), 202);
    assert_eq!(figures(&first), ["20", "5", "2"]);
    let refused = post("client-a", 10).await;
    let problem = refused.problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(problem["items"].as_array().map(Vec::len), Some(10));
    assert_eq!(figures(&refused)[1], "5", "a refused request costs nothing");
    assert_eq!(post("client-b", 20).await.status.as_u16(), 202, "another tenant is not touched");
    gateway.clock.advance(Duration::from_millis(500));
    assert_eq!(post("client-a", 10).await.status.as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_batch_of_many_tenants_only_the_exhausted_one_is_refused() {
    let gateway = Gateway::with(limited(1.0, 3.0)).await;
    gateway.publish("client-a", events(3)).await;
    let batch = json!([
        {"type": "order.x", "tenant_id": "a", "data": 1}, {"type": "order.x", "tenant_id": "b", "data": 2},
        {"type": "y", "tenant_id": "a", "data": 3}, {"type": "order.x", "tenant_id": "b", "data": 4},
    ]);
    let answer = gateway.post("service-ab", "/v1/events", batch.to_string()).send().await;
    assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    let statuses: Vec<i64> = answer.json()["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|r| r["status"].as_i64())
        .collect();
    assert_eq!(statuses, [429, 202, 429, 202]);
    gateway.settled(&answer).await;
    let kept = gateway.get("admin", "/v1/topics/orders/messages").send().await.json();
    let payloads: Vec<&Value> =
        kept["messages"].as_array().expect("messages").iter().map(|m| &m["payload"]).collect();
    assert_eq!(payloads, [2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_requests_cost_one_token_and_rubbish_is_not_free() {
    let gateway = Gateway::with(limited(1.0, 3.0)).await;
    let status = gateway.get("client-a", "/v1/status").send().await;
    assert_eq!(figures(&status), ["3", "2", "1"]);
    gateway.post("client-a", "/v1/events", "[7,8]").send().await.problem(422, "event-not-object");
    gateway.get("client-a", "/v1/status").send().await;
    let refused = gateway.get("client-a", "/v1/status").send().await;
    refused.problem(429, "rate-limited");
    assert_eq!(figures(&refused)[1], "0");
    assert_eq!(gateway.call(Method::GET, "/healthz").send().await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_rate_takes_effect_at_once_and_none_sends_no_headers() {
    let gateway = Gateway::with(limited(1.0, 1.0)).await;
    gateway.state.limits.set(tenant("a"), Some(Rate { per_s: 100.0, burst: 100.0 }));
    gateway.state.limits.set(tenant("b"), None);
    let a = gateway.post("client-a", "/v1/events", events(50)).send().await;
    assert_eq!((a.status.as_u16(), figures(&a)[0]), (202, "100"));
    let b = gateway.post("client-b", "/v1/events", events(5_000)).send().await;
    assert_eq!((b.status.as_u16(), figures(&b)[0]), (202, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_memory_are_bounded_over_all_requests() {
    let mut setup = Setup::default();
    setup.gateway.max_bodies_bytes = 64 << 10;
    let gateway = Gateway::with(setup).await;
    let body = |kib: usize| format!(r#"{{"type":"x","data":"{}"}}"#, "y".repeat(kib << 10));
    let key = gateway.key("client-a");
    let mut slow = gateway.raw().await;
    slow.write(&format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body(40).len()
    ))
    .await;
    slow.read_until("100 Continue").await;
    assert_eq!(
        gateway.post("client-a", "/v1/events", body(60)).send().await.status.as_u16(),
        202,
        "nothing came yet"
    );
    let whole = body(40);
    slow.write(&whole[..whole.len() - 1]).await;
    // The slow body fills the budget as it arrives; until it does, the probe gets through.
    let mut refused = None;
    for _ in 0..1_000 {
        let answer = gateway.post("client-a", "/v1/events", body(60)).send().await;
        if answer.status.as_u16() != 202 {
            refused = Some(answer);
            break;
        }
        tokio::task::yield_now().await;
    }
    refused.expect("the budget is held by the slow body").problem(429, "memory-exhausted");
    slow.write("}").await;
    assert!(slow.read_to_close().await.starts_with("HTTP/1.1 202"));
    assert_eq!(
        gateway.post("client-a", "/v1/events", body(60)).send().await.status.as_u16(),
        202,
        "free again"
    );
}
