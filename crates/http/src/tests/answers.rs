//! Readers that read slowly or not at all: what they asked for waits within their part of the
//! memory, and others are answered.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use levada_core::MemoryBudget;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use super::support::{Gateway, PATIENCE, Raw, Setup};

/// Of this, an owner's answers have a sixteenth.
const MEMORY: usize = 64 << 20;
const OWN: usize = MEMORY / 16;
/// About 30 MB, far more than the sockets of the system take.
const LONG_QUERY: &str = "select repeat('x', 1500) || value as x from generate_series(1, 20000)";

fn small() -> Setup {
    Setup { memory: MemoryBudget::new(MEMORY), ..Setup::default() }
}

/// A client that asks and reads nothing yet; the system keeps little for it.
async fn asks(gateway: &Gateway, request: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut raw = Raw(socket.connect(gateway.address).await.expect("connected"));
    raw.write(request).await;
    raw
}

fn sql_request(gateway: &Gateway, key: &str, query: &str) -> String {
    let body = json!({"sql": query}).to_string();
    format!(
        "POST /v1/sql HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        gateway.key(key),
        body.len()
    )
}

fn messages_request(gateway: &Gateway, key: &str) -> String {
    format!(
        "GET /v1/topics/orders/messages?from=start&limit=1000 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
         connection: close\r\n\r\n",
        gateway.key(key)
    )
}

fn used(gateway: &Gateway) -> usize {
    gateway.state.answers.share().used()
}

async fn all_is_given_back(gateway: &Gateway) {
    let free = async {
        while used(gateway) > 0 || gateway.state.admission.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("everything is given back in time");
}

/// Watches the account for a while and gives the most that it came to.
async fn most_used(gateway: &Gateway, time: Duration) -> usize {
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < time {
        most = most.max(used(gateway));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    most
}

async fn publish_megabytes(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        let event = json!({"type": "order.x", "data": "y".repeat(100_000)});
        gateway.publish("client-a", Value::from(vec![event; 10]).to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_goes_on_only_when_its_reader_reads() {
    let gateway = Gateway::with(small()).await;
    let request = sql_request(&gateway, "analyst-a", LONG_QUERY);
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(asks(&gateway, &request).await);
    }
    let most = most_used(&gateway, Duration::from_millis(2_000)).await;
    assert!(0 < most && most <= OWN, "{most} of {OWN} bytes");
    assert_eq!(gateway.state.admission.in_flight(), 10, "each is still being answered");
    let other = gateway.post("client-b", "/v1/sql", json!({"sql": "select 1 as x"}).to_string()).send().await;
    assert_eq!(other.status.as_u16(), 200, "another tenant is answered: {}", other.text());
    let read = slow.pop().expect("one").read_to_close().await;
    assert!(read.starts_with("HTTP/1.1 200") && read.ends_with("\r\n0\r\n\r\n"), "it comes whole");
    assert!(read.len() > 30_000_000 && read.contains("x20000\"]"));
    drop(slow);
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_messages_share_the_part_of_their_owner_and_the_rest_are_refused() {
    let gateway = Gateway::with(small()).await;
    publish_megabytes(&gateway, 12).await;
    let request = messages_request(&gateway, "engineer-a");
    let mut slow = Vec::new();
    for _ in 0..40 {
        slow.push(asks(&gateway, &request).await);
    }
    let most = most_used(&gateway, Duration::from_millis(4_000)).await;
    assert!(0 < most && most <= OWN, "{most} of {OWN} bytes");
    let other = gateway.get("platform-engineer", "/v1/topics/orders/messages?limit=2").send().await;
    assert_eq!(other.json()["messages"].as_array().map(Vec::len), Some(2), "another owner is answered");
    let mut refused = 0;
    let mut begun = Vec::new();
    for mut raw in slow {
        let head = raw.read_until("\r\n").await;
        if head.starts_with("HTTP/1.1 429") {
            refused += 1;
            let rest = raw.read_to_close().await;
            assert!(format!("{head}{rest}").contains("\"code\":\"memory-exhausted\""), "{head}{rest}");
        } else {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            begun.push(raw);
        }
    }
    assert!(refused > 0 && !begun.is_empty(), "{refused} refused, {} begun", begun.len());
    let whole = begun.pop().expect("one").read_to_close().await;
    assert!(whole.contains("],\"next\":") && whole.ends_with("\r\n0\r\n\r\n"), "it comes whole");
    drop(begun);
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_many_pieces_are_those_that_were_published() {
    let gateway = Gateway::with(small()).await;
    publish_megabytes(&gateway, 3).await;
    let large = json!({"type": "order.x", "data": "z".repeat(1_000_000)});
    gateway.publish("client-a", large.to_string()).await;
    gateway.publish("client-b", r#"{"type":"order.x","data":"of b"}"#).await;
    let answer = gateway.get("engineer-a", "/v1/topics/orders/messages?limit=1000").send().await.json();
    let messages = answer["messages"].as_array().expect("messages");
    let offsets: Vec<u64> = messages.iter().filter_map(|message| message["offset"].as_u64()).collect();
    assert_eq!(offsets, (0..31).collect::<Vec<_>>());
    assert_eq!(messages[30]["payload"].as_str().map(str::len), Some(1_000_000));
    assert!(answer["next"].as_u64() >= Some(31), "{}", answer["next"]);
    let some = gateway.get("engineer-a", "/v1/topics/orders/messages?from=3&limit=17").send().await.json();
    assert_eq!((some["messages"].as_array().map(Vec::len), &some["next"]), (Some(17), &json!(20)));
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_wider_than_its_owners_part_is_refused_and_one_within_comes_whole() {
    let gateway = Gateway::with(small()).await;
    let query = |bytes: usize| json!({"sql": format!("select repeat('x', {bytes}) as x")}).to_string();
    let wide = gateway.post("analyst-a", "/v1/sql", query(3_000_000)).send().await;
    assert_eq!(wide.json()["rows"][0][0].as_str().map(str::len), Some(3_000_000));
    gateway.post("analyst-a", "/v1/sql", query(5_000_000)).send().await.problem(429, "memory-exhausted");
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_room_is_refused() {
    let gateway = Gateway::with(small()).await;
    let owner = levada_core::QuotaOwner::Tenant(super::support::tenant("a"));
    let held = gateway.state.answers.take(&owner, OWN).expect("there is room");
    for path in ["/v1/topics", "/v1/keys", "/v1/pipelines", "/v1/dead-letters", "/v1/subscriptions"] {
        gateway.get("admin-a", path).send().await.problem(429, "memory-exhausted");
        assert_eq!(gateway.get("admin-b", path).send().await.status.as_u16(), 200, "{path}");
    }
    drop(held);
    assert_eq!(gateway.get("admin-a", "/v1/topics").send().await.status.as_u16(), 200);
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_breaks_off_once_its_key_was_revoked() {
    let gateway = Gateway::with(small()).await;
    let mut slow = asks(&gateway, &sql_request(&gateway, "analyst-a", LONG_QUERY)).await;
    slow.read_until("\r\n\r\n").await;
    let id = gateway.ring.list().into_iter().find(|key| key.name == "analyst-a").expect("the key").id;
    gateway.ring.revoke(&id).expect("revoked");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let read = slow.read_to_close().await;
    assert!(read.len() < 25_000_000 && !read.ends_with("\r\n0\r\n\r\n"), "{} bytes came", read.len());
    all_is_given_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut() {
    let mut setup = small();
    setup.server.write_timeout = Duration::from_millis(300);
    let gateway = Gateway::with(setup).await;
    let _plain = asks(&gateway, &sql_request(&gateway, "analyst-a", LONG_QUERY)).await;
    gateway.in_flight(1).await;
    all_is_given_back(&gateway).await;
    // The socket of HTTP/2 takes everything; the window of the stream does not.
    let stream = TcpStream::connect(gateway.address).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{}/v1/sql", gateway.address))
        .header("x-api-key", gateway.key("analyst-a"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(json!({"sql": LONG_QUERY}).to_string())))
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    all_is_given_back(&gateway).await;
    drop(answer);
    let _ = tokio::time::timeout(PATIENCE, connection).await.expect("the connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_has_no_room_is_refused_before_anything_is_kept() {
    let gateway = Gateway::with(small()).await;
    let owner = levada_core::QuotaOwner::Tenant(super::support::tenant("a"));
    let held = gateway.state.answers.take(&owner, OWN).expect("there is room");
    let event = json!({"type": "order.x", "data": 1});
    let batch = |of: &Value| Value::from(vec![of.clone(); 1_000]).to_string();
    for of in [&event, &json!(1)] {
        gateway.post("client-a", "/v1/events", batch(of)).send().await.problem(429, "memory-exhausted");
    }
    gateway.publish("client-a", event.to_string()).await;
    assert_eq!(gateway.publish("client-b", batch(&event)).await["accepted"], 1_000);
    assert_eq!(*gateway.state.bus.end(&super::support::topic("orders")).expect("the topic").borrow(), 1_001);
    drop(held);
    let refused = gateway.post("client-a", "/v1/events", batch(&json!(1))).send().await;
    assert_eq!(refused.problem(422, "event-not-object")["items"].as_array().map(Vec::len), Some(1_000));
    all_is_given_back(&gateway).await;
}
