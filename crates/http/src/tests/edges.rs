//! The listener at its edges: slow clients, too many of them, panics, HTTP/2, the drain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use levada_core::Quota;
use levada_http::{ApiProblem, RequestContext, ServerConfig};
use tokio::net::TcpStream;

use super::support::{Answer, Call, Gateway, MARKER, PATIENCE, Setup};

const EVENT: &str = r#"{"type":"x","data":1}"#;

fn server(change: impl FnOnce(&mut ServerConfig)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.server);
    setup
}

fn head(gateway: &Gateway, extra: &str) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{extra}\r\n",
        gateway.key("client-a"),
        EVENT.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_a_head_are_closed() {
    let gateway = Gateway::with(server(|s| s.head_timeout = Duration::from_millis(200))).await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut raw = gateway.raw().await;
        raw.write(start).await;
        let answer = raw.read_to_close().await;
        assert!(!answer.contains("200 OK"), "{start:?}: {answer}");
    }
    let mut raw = gateway.raw().await;
    raw.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(raw.read_until("}").await.starts_with("HTTP/1.1 200"));
    raw.write("GET /healthz HTTP/1.1\r\n").await;
    raw.read_to_close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_given_up() {
    let mut setup = Setup::default();
    setup.gateway.body_timeout = Duration::from_millis(200);
    let gateway = Gateway::with(setup).await;
    let mut raw = gateway.raw().await;
    raw.write(&head(&gateway, "connection: close\r\n")).await;
    raw.write(&EVENT[..5]).await;
    let answer = raw.read_to_close().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let gateway = Gateway::with(server(|s| {
        s.head_timeout = Duration::from_millis(100);
        s.idle_timeout = Duration::from_millis(100);
    }))
    .await;
    let stream = TcpStream::connect(gateway.address).await.expect("connected");
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .expect("a handshake");
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/healthz", gateway.address);
    let request = Request::get(uri).body(Full::default()).expect("a request");
    let answer = Answer::read(sender.send_request(request).await.expect("an answer")).await;
    assert_eq!(answer.status.as_u16(), 200);
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("closed in time");
    assert!(ended.expect("no panic").is_ok(), "a clean end");
    assert!(sender.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls_is_served_on_the_same_port() {
    let gateway = Gateway::start().await;
    let stream = TcpStream::connect(gateway.address).await.expect("connected");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    let calls = (0..20).map(|n| {
        let mut sender = sender.clone();
        let request = Request::post(format!("http://{}/v1/events", gateway.address))
            .header("x-api-key", gateway.key("client-a"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(format!(r#"{{"type":"x","event_id":"{n}","data":1}}"#))))
            .expect("a request");
        async move { Answer::read(sender.send_request(request).await.expect("an answer")).await }
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_in_use_stay_and_one_more_of_the_same_address_is_closed() {
    let gateway = Gateway::with(server(|s| s.max_connections = 2)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut slow = gateway.raw().await;
        slow.write(&head(&gateway, "expect: 100-continue\r\nconnection: close\r\n")).await;
        slow.read_until("100 Continue").await;
        held.push(slow);
    }
    let mut third = gateway.raw().await;
    assert_eq!(third.read_to_close().await, "", "there is no place for a third");
    for mut slow in held {
        slow.write(EVENT).await;
        assert!(slow.read_to_close().await.starts_with("HTTP/1.1 202"));
    }
    assert_eq!(gateway.call(Method::GET, "/healthz").send().await.status.as_u16(), 200, "now there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bound_are_shed() {
    let mut setup = Setup::default();
    setup.gateway.max_requests = 1;
    let gateway = Gateway::with(setup).await;
    let mut slow = gateway.raw().await;
    slow.write(&head(&gateway, "expect: 100-continue\r\nconnection: close\r\n")).await;
    slow.read_until("100 Continue").await;
    let shed = gateway.call(Method::GET, "/openapi.json").send().await;
    shed.problem(503, "overloaded");
    assert_eq!(shed.header("retry-after"), "1");
    slow.write(EVENT).await;
    assert!(slow.read_to_close().await.starts_with("HTTP/1.1 202"));
    assert_eq!(gateway.call(Method::GET, "/openapi.json").send().await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_request_and_further_routes_live_in_the_same_frame() {
    let extra = Router::new()
        .route(
            "/boom",
            get(|| async {
                if true {
                    panic!("secret detail of the panic")
                }
            }),
        )
        .route("/page", get(|| async { ([("content-security-policy", "default-src 'self'")], "a page") }))
        .route(
            "/no",
            get(|| async { Err::<(), _>(ApiProblem::from(levada_core::Problem::new(418, "teapot", "no"))) }),
        )
        .route(
            "/id",
            get(|request: axum::extract::Request| async move { RequestContext::of(request.extensions()).id }),
        );
    let gateway = Gateway::with(Setup { extra, ..Setup::default() }).await;
    let boom = gateway.call(Method::GET, "/boom").send().await;
    assert!(!boom.problem(500, "internal").to_string().contains("secret detail"));
    let page = gateway.call(Method::GET, "/page").send().await;
    assert_eq!(
        (page.text().as_str(), page.header("content-security-policy")),
        ("a page", "default-src 'self'")
    );
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    gateway.call(Method::GET, "/no").send().await.problem(418, "teapot");
    let id = gateway.call(Method::GET, "/id").header("x-request-id", "mine").send().await;
    assert_eq!(id.text(), "mine");
    gateway.call(Method::POST, "/page").send().await.problem(405, "method-not-allowed");
    assert_eq!(gateway.publish("client-a", EVENT).await["accepted"], 1, "the process lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_the_security_headers_and_no_cors() {
    let gateway = Gateway::start().await;
    for call in [
        gateway.call(Method::GET, "/healthz"),
        gateway.call(Method::GET, "/nowhere"),
        gateway.get("client-a", "/v1/status"),
    ] {
        let answer = call.header("origin", "https://evil.example").send().await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
        assert!(!answer.header("x-request-id").is_empty() && !answer.header("traceparent").is_empty());
    }
    let preflight = gateway.call(Method::OPTIONS, "/v1/sql").header("origin", "https://evil.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await;
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
    assert_eq!(preflight.status.as_u16(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_checks_and_tells_no_secrets() {
    let gateway = Gateway::start().await;
    let counted = serde_json::json!([{"kind": "pipeline", "count": 2}, {"kind": "model", "count": 1}]);
    let ready = gateway.call(Method::GET, "/readyz").send().await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()),
        (200, serde_json::json!({"status": "degraded", "failed": [], "degraded": counted})),
        "failed pipelines of some tenants do not take the server out of a load balancer"
    );
    gateway.operations.broken.store(true, Ordering::SeqCst);
    let not = gateway.call(Method::GET, "/readyz").send().await;
    assert_eq!(
        (not.status.as_u16(), not.json()),
        (503, serde_json::json!({"status": "unready", "failed": ["log"], "degraded": counted}))
    );
    assert_eq!(gateway.call(Method::GET, "/healthz").send().await.status.as_u16(), 200, "but it lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_failed_parts_to_those_who_may_see_them() {
    let gateway = Gateway::start().await;
    let parts = async |call: Call| {
        let told = call.send().await.json();
        let parts = told["degraded"].as_array().expect("a list").iter().flat_map(|kind| {
            let named = kind["parts"].as_array().cloned().unwrap_or_default();
            named.into_iter().map(|p| format!("{} {}", p["name"], p["reason"]).replace('"', ""))
        });
        parts.collect::<Vec<_>>()
    };
    let everything = parts(gateway.call(Method::GET, "/readyz").bearer(gateway.key("admin"))).await;
    assert_eq!(
        everything,
        ["a_pipeline", "shared_pipeline", "a_model"].map(|name| format!("{name} {MARKER}")).to_vec()
    );
    let own = parts(gateway.call(Method::GET, "/readyz").bearer(gateway.key("admin-b"))).await;
    assert_eq!(own, ["shared_pipeline the pipeline failed; its operator knows why"]);
    assert!(parts(gateway.call(Method::GET, "/readyz").bearer("lvd_wrong")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let mut gateway = Gateway::start().await;
    let mut idle = gateway.raw().await;
    idle.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.read_until("}").await;
    let mut slow = gateway.raw().await;
    slow.write(&head(&gateway, "expect: 100-continue\r\n")).await;
    slow.read_until("100 Continue").await;
    let waiting = gateway.get("engineer-a", "/v1/topics/orders/messages?from=1&wait_ms=30000");
    gateway.publish("client-a", r#"{"type":"order.x","data":1}"#).await;
    let waiting = tokio::spawn(waiting.send());
    gateway.in_flight(1).await;
    gateway.holds(Quota::WaitingReads, 1).await;
    gateway.stop();
    idle.read_to_close().await;
    assert!(gateway.state.is_draining());
    assert!(TcpStream::connect(gateway.address).await.is_err(), "the port is closed");
    waiting.await.expect("a waiting read returns at once");
    slow.write(EVENT).await;
    let answer = slow.read_to_close().await;
    assert!(
        answer.starts_with("HTTP/1.1 202") && answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    let bus = gateway.state.bus.clone();
    assert_eq!(gateway.stopped().await, 0, "nothing was cut");
    let mut end = bus.end(&super::support::topic("events")).expect("the topic exists");
    let kept = tokio::time::timeout(PATIENCE, end.wait_for(|end| *end == 1)).await;
    assert!(kept.is_ok_and(|end| end.is_ok()), "and the event is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_ends_at_its_deadline() {
    let mut gateway = Gateway::with(server(|s| s.drain_timeout = Duration::from_millis(200))).await;
    let mut slow = gateway.raw().await;
    slow.write(&head(&gateway, "expect: 100-continue\r\n")).await;
    slow.read_until("100 Continue").await;
    gateway.stop();
    assert_eq!(gateway.stopped().await, 1, "the one that never finished was cut");
}
