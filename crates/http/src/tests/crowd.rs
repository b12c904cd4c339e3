//! Many connections, requests and bodies of one caller: the others and the health checks go on.

use std::time::{Duration, Instant};

use http::Method;
use levada_core::{MemoryBudget, Quota, Quotas, TenantQuotas};
use serde_json::Value;

use super::support::{Gateway, Raw, Setup};

fn quotas(limits: &[(Quota, u64)]) -> Quotas {
    Quotas::new(limits, &TenantQuotas::new())
}

/// A request whose body was announced, and of which so many bytes came.
async fn unfinished(gateway: &Gateway, key: &str, bytes: usize) -> Raw {
    let mut slow = gateway.raw().await;
    let key = gateway.key(key);
    slow.write(&format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: 1000000\r\n\r\n{}",
        " ".repeat(bytes)
    ))
    .await;
    slow
}

const EVENT: &str = r#"{"type":"x","data":1}"#;

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_whoever_comes() {
    let mut setup = Setup::default();
    setup.server.max_connections = 40;
    setup.server.max_peer_connections = 30;
    let gateway = Gateway::with(setup).await;
    let mut busy = unfinished(&gateway, "client-a", 10).await;
    gateway.in_flight(1).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut raw = gateway.raw().await;
        raw.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(raw.read_until("}").await.contains("200"), "a newcomer is answered");
        idle.push(raw);
    }
    let mut silent: Vec<Raw> = Vec::new();
    for _ in 0..100 {
        silent.push(gateway.raw().await);
    }
    assert_eq!(gateway.post("client-b", "/v1/events", EVENT).send().await.status.as_u16(), 202);
    assert_eq!(idle[0].read_to_close().await, "", "the one that was idle longest made room");
    busy.write(&format!("{EVENT}{}", " ".repeat(1_000_000 - 10 - EVENT.len()))).await;
    assert!(busy.read_to_close().await.starts_with("HTTP/1.1 202"), "what is in use stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_caller_leave_room_and_health_checks_need_none() {
    let mut setup = Setup { quotas: quotas(&[(Quota::Requests, 3)]), ..Setup::default() };
    setup.gateway.max_requests = 6;
    let gateway = Gateway::with(setup).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(unfinished(&gateway, "client-a", 10).await);
    }
    gateway.holds(Quota::Requests, 3).await;
    gateway.post("engineer-a", "/v1/events", EVENT).send().await.problem(429, "quota-exceeded");
    assert_eq!(gateway.post("client-b", "/v1/events", EVENT).send().await.status.as_u16(), 202);
    for _ in 0..3 {
        slow.push(unfinished(&gateway, "client-b", 10).await);
    }
    gateway.in_flight(6).await;
    gateway.post("service-ab", "/v1/events", EVENT).send().await.problem(503, "overloaded");
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(gateway.call(Method::GET, probe).send().await.status.as_u16(), 200, "{probe}");
    }
    assert_eq!(gateway.get("admin", "/metrics").send().await.status.as_u16(), 200);
    drop(slow);
    gateway.in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_hold_no_place_and_have_a_share() {
    let mut setup = Setup { quotas: quotas(&[(Quota::WaitingReads, 4)]), ..Setup::default() };
    setup.gateway.max_requests = 4;
    let gateway = Gateway::with(setup).await;
    gateway.publish("client-a", r#"{"type":"order.x","data":1}"#).await;
    let path = "/v1/topics/orders/messages?from=1&wait_ms=30000";
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(gateway.get("engineer-a", path).send())).collect();
    gateway.holds(Quota::WaitingReads, 4).await;
    gateway.in_flight(0).await;
    gateway.get("admin-a", path).send().await.problem(429, "quota-exceeded");
    let other = tokio::spawn(gateway.get("admin-b", path).send());
    gateway.holds(Quota::WaitingReads, 5).await;
    gateway.publish("client-b", r#"{"type":"order.x","data":2}"#).await;
    let own = other.await.expect("an answer").json();
    assert_eq!(own["messages"][0]["payload"], 2);
    gateway.publish("client-a", r#"{"type":"order.x","data":3}"#).await;
    for answer in waiting {
        assert_eq!(answer.await.expect("an answer").json()["messages"][0]["payload"], 3);
    }
    gateway.holds(Quota::WaitingReads, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_ends_soon_after_its_key_was_revoked() {
    let gateway = Gateway::start().await;
    gateway.publish("client-a", r#"{"type":"order.x","data":1}"#).await;
    let path = "/v1/topics/orders/messages?from=1&wait_ms=30000";
    let waiting = tokio::spawn(gateway.get("engineer-a", path).send());
    gateway.holds(Quota::WaitingReads, 1).await;
    let id = gateway.ring.list().into_iter().find(|k| k.name == "engineer-a").expect("the key").id;
    gateway.ring.revoke(&id).expect("revoked");
    let begun = Instant::now();
    let answer = waiting.await.expect("an answer");
    answer.problem(401, "unauthenticated");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_of_one_tenant_leave_memory_to_others() {
    let mut setup = Setup { memory: MemoryBudget::new(4 << 20), ..Setup::default() };
    setup.gateway.max_body_bytes = 256 << 10;
    let gateway = Gateway::with(setup).await;
    // A mebibyte for bodies, of which a caller has a quarter.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut raw = gateway.raw().await;
        let key = gateway.key("client-a");
        raw.write(&format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             content-length: 110000\r\n\r\n{}",
            " ".repeat(100_000)
        ))
        .await;
        slow.push(raw);
    }
    while gateway.state.bodies.share().used() < 200_000 {
        tokio::task::yield_now().await;
    }
    let large = format!(r#"{{"type":"x","data":"{}"}}"#, "y".repeat(100_000));
    gateway.post("engineer-a", "/v1/events", large.clone()).send().await.problem(429, "memory-exhausted");
    assert_eq!(gateway.post("client-b", "/v1/events", large.clone()).send().await.status.as_u16(), 202);
    drop(slow);
    while gateway.state.bodies.share().used() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.post("client-a", "/v1/events", large).send().await.status.as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_shown_and_keys_are_bounded() {
    let gateway = Gateway::with(Setup { quotas: quotas(&[(Quota::Keys, 6)]), ..Setup::default() }).await;
    let make = || gateway.post("admin-a", "/v1/keys", r#"{"name":"more","roles":["client"]}"#).send();
    // Four keys of the tenant are there from the start.
    let first = make().await;
    assert_eq!((first.status.as_u16(), make().await.status.as_u16()), (201, 201));
    make().await.problem(429, "quota-exceeded");
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    gateway.call(Method::DELETE, &format!("/v1/keys/{id}")).bearer(gateway.key("admin-a")).send().await;
    assert_eq!(make().await.status.as_u16(), 201, "a revoked key is none");
    let shown = async |key: &str| gateway.get(key, "/v1/quotas").send().await.json();
    let own = shown("client-a").await;
    let rows = own["quotas"].as_array().expect("rows");
    assert_eq!(rows.len(), Quota::ALL.len());
    assert!(rows.iter().all(|row| row["owner"] == "a") && own.get("memory").is_none());
    let keys = rows.iter().find(|row| row["quota"] == "keys").expect("the quota");
    assert_eq!((&keys["held"], &keys["limit"], &keys["refused"]), (&Value::from(6), &6.into(), &1.into()));
    let all = shown("admin").await;
    let is_of_a = |row: &&Value| row["owner"] == "a" && row["quota"] == "keys";
    assert!(all["quotas"].as_array().expect("rows").iter().any(|row| is_of_a(&row)));
    assert_eq!(all["memory"][0]["name"], "memory");
    assert!(all["memory"].as_array().expect("rows").iter().any(|row| row["name"] == "request bodies"));
    let other = shown("client-b").await;
    assert!(other["quotas"].as_array().expect("rows").iter().all(|row| row["owner"] == "b"));
}
