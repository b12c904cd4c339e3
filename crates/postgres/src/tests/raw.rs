//! Bytes that no good client sends, and the bounds of the server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::Stage;

/// Reads until the server closes; a server that does not is a failure.
pub async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut seen)).await;
    drop(read.expect("the server closes"));
    seen
}

pub fn holds(seen: &[u8], state: &str) -> bool {
    String::from_utf8_lossy(seen).contains(state)
}

pub fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    body.extend(format!("user\0{user}\0database\0levada\0\0").bytes());
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.extend(body);
    message
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

/// A connection that is logged in and ready.
pub async fn logged_in(stage: &Stage) -> TcpStream {
    logged_in_as(stage, "lvd_acme").await
}

pub async fn logged_in_as(stage: &Stage, secret: &str) -> TcpStream {
    let mut socket = TcpStream::connect(stage.address).await.expect("connected");
    socket.write_all(&startup("anna")).await.expect("sent");
    socket.write_all(&message(b'p', format!("{secret}\0").as_bytes())).await.expect("sent");
    ready(&mut socket).await;
    socket
}

/// Reads until the server is ready for the next query.
pub async fn ready(socket: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let mut part = [0; 4096];
        let n = socket.read(&mut part).await.expect("read");
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&seen));
        seen.extend(&part[..n]);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_declined_and_what_is_not_the_protocol_is_closed() {
    let stage = Stage::new().await;
    let mut socket = TcpStream::connect(stage.address).await.expect("connected");
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.expect("sent");
    assert_eq!(socket.read_u8().await.expect("an answer"), b'N');
    for nonsense in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 4, 0, 0, 0, 0]] {
        let mut socket = TcpStream::connect(stage.address).await.expect("connected");
        socket.write_all(nonsense).await.expect("sent");
        drop(rest(&mut socket).await);
    }
    let answer = stage.psql("lvd_acme", "levada", "SELECT 1;").await;
    assert_eq!(answer.good(), "1", "others are served all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_bound_ends_the_connection_before_it_is_read() {
    let stage = Stage::new().await;
    let mut socket = logged_in(&stage).await;
    let mut huge = vec![b'Q'];
    huge.extend((64u32 << 20).to_be_bytes());
    socket.write_all(&huge).await.expect("sent");
    assert!(holds(&rest(&mut socket).await, "54000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_message_ends_only_its_own_connection() {
    let stage = Stage::new().await;
    for broken in [
        message(b'B', &[0]),
        message(b'P', b"x"),
        message(b'D', b""),
        message(b'?', b""),
        message(b'p', b"x\0"),
    ] {
        let mut socket = logged_in(&stage).await;
        socket.write_all(&broken).await.expect("sent");
        socket.shutdown().await.expect("no more to send");
        drop(rest(&mut socket).await);
    }
    assert_eq!(stage.psql("lvd_acme", "levada", "SELECT 1;").await.good(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_clients_and_their_leisure_are_bounded() {
    let stage = Stage::with(|c| {
        c.max_connections = 2;
        c.handshake_timeout = Duration::from_millis(700);
    })
    .await;
    let (_one, _two) = (logged_in(&stage).await, logged_in(&stage).await);
    let third = stage.psql("lvd_acme", "levada", "SELECT 1;").await;
    assert!(third.errors.contains("too many clients"), "{}", third.errors);
    let mut silent = TcpStream::connect(stage.address).await.expect("connected");
    assert!(holds(&rest(&mut silent).await, "the login took too long"));

    let stage = Stage::with(|c| c.idle_timeout = Duration::from_millis(300)).await;
    let mut idle = logged_in(&stage).await;
    assert!(holds(&rest(&mut idle).await, "57P05"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_clients_and_ends() {
    let mut stage = Stage::new().await;
    let mut idle = logged_in(&stage).await;
    stage.stop().await;
    assert!(holds(&rest(&mut idle).await, "57P01"));
    assert!(TcpStream::connect(stage.address).await.is_err(), "nobody listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_again_and_again_waits_and_no_other_one_does() {
    let stage = Stage::new().await;
    let attempt = async |key: &str| {
        let mut socket = TcpStream::connect(stage.address).await.expect("connected");
        socket.write_all(&startup("anna")).await.expect("sent");
        socket.write_all(&message(b'p', format!("{key}\0").as_bytes())).await.expect("sent");
        rest(&mut socket).await
    };
    for n in 0..10 {
        assert!(holds(&attempt("lvd_aaaaaaaaaa_wrong").await, "28P01"), "{n}");
    }
    let delayed = attempt("lvd_aaaaaaaaaa_wrong").await;
    assert!(holds(&delayed, "28000") && holds(&delayed, "too-many-sign-ins"));
    assert!(holds(&attempt("lvd_bbbbbbbbbb_wrong").await, "28P01"));
    logged_in(&stage).await;
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Sends messages and a Sync, and reads up to the answer to that.
async fn synced(socket: &mut TcpStream, messages: &[u8]) -> Vec<u8> {
    socket.write_all(messages).await.expect("sent");
    socket.write_all(&message(b'S', b"")).await.expect("sent");
    ready(socket).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_large_a_message_is_told_the_bound() {
    let stage = Stage::new().await;
    for bytes in [(1 << 20) + 1, 12 << 20] {
        let socket = logged_in(&stage).await;
        let (mut reading, mut writing) = socket.into_split();
        // As drivers do: the whole message first, the answer afterwards.
        let text = format!("SELECT '{}'\0", "x".repeat(bytes));
        writing.write_all(&message(b'Q', text.as_bytes())).await.expect("the server takes it in");
        let mut seen = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), reading.read_to_end(&mut seen)).await;
        read.expect("an end in time").expect("no reset before the answer");
        assert!(holds(&seen, "54000") && holds(&seen, "1048576"), "{}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_no_longer_than_a_startup_message() {
    let stage = Stage::new().await;
    let mut socket = TcpStream::connect(stage.address).await.expect("connected");
    socket.write_all(&startup("anna")).await.expect("sent");
    let mut huge = vec![b'p'];
    huge.extend(20_000u32.to_be_bytes());
    socket.write_all(&huge).await.expect("sent");
    assert!(holds(&rest(&mut socket).await, "54000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_parameter_is_bounded_when_a_statement_is_parsed() {
    let stage = Stage::new().await;
    let mut socket = logged_in(&stage).await;
    for sql in ["select $100000000", "select $4294967295", "select $65536"] {
        let begun = std::time::Instant::now();
        let seen = synced(&mut socket, &parse("", sql)).await;
        assert!(seen.starts_with(b"E"), "{sql}: {}", String::from_utf8_lossy(&seen));
        assert!(begun.elapsed() < Duration::from_secs(10), "{sql}: {:?}", begun.elapsed());
    }
    assert!(synced(&mut socket, &parse("", "select $1")).await.starts_with(b"1"), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_and_portals_of_a_session_have_a_bound() {
    let stage = Stage::new().await;
    let mut socket = logged_in(&stage).await;
    let long = format!("select '{}'", "x".repeat(240_000));
    let mut kept = 0;
    let refused = loop {
        let seen = synced(&mut socket, &parse(&format!("s{kept}"), &long)).await;
        if !seen.starts_with(b"1") {
            break seen;
        }
        kept += 1;
        assert!(kept < 100, "nothing refuses them");
    };
    assert!(holds(&refused, "54000") && holds(&refused, "4194304") && holds(&refused, "close prepared"));
    // A text of 240 kB is kept once, and not as the name of its column as well.
    assert_eq!(kept, 17);
    // Room comes back, and the unnamed statement makes room for its successor.
    let close = message(b'C', b"Ss0\0");
    assert!(synced(&mut socket, &close).await.starts_with(b"3"));
    for _ in 0..3 {
        assert!(synced(&mut socket, &parse("", &long)).await.starts_with(b"1"));
    }
    socket.write_all(&message(b'Q', b"DEALLOCATE ALL\0")).await.expect("sent");
    assert!(ready(&mut socket).await.starts_with(b"C"));
    // Many parameters in a few bytes of text.
    let mut kept = 0;
    while synced(&mut socket, &parse(&format!("p{kept}"), "select $60000")).await.starts_with(b"1") {
        kept += 1;
        assert!(kept < 20, "types of parameters are counted");
    }
    assert!(kept > 0);
    // Portals with their parameters are counted as well, and end with the series.
    socket.write_all(&message(b'Q', b"DEALLOCATE ALL\0")).await.expect("sent");
    ready(&mut socket).await;
    let bind = |n: usize, bytes: usize| {
        let mut body = format!("c{n}\0\0\0\0\0\u{1}").into_bytes();
        body.extend((bytes as u32).to_be_bytes());
        body.extend(vec![b'x'; bytes]);
        body.extend([0, 0]);
        message(b'B', &body)
    };
    for _ in 0..2 {
        let mut series = parse("", "select $1::text");
        series.extend((0..20).flat_map(|n| bind(n, 300_000)));
        let seen = synced(&mut socket, &series).await;
        assert!(holds(&seen, "54000"), "{}", String::from_utf8_lossy(&seen));
        assert_eq!(seen.windows(5).filter(|part| part == b"2\0\0\0\x04").count(), 13);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_setting_is_bounded() {
    let stage = Stage::new().await;
    let mut socket = logged_in(&stage).await;
    for (bytes, answer) in [(100, "SET"), (500_000, "54000")] {
        let set = format!("SET my.{} = 'x'\0", "n".repeat(bytes));
        socket.write_all(&message(b'Q', set.as_bytes())).await.expect("sent");
        assert!(holds(&ready(&mut socket).await, answer), "{bytes}");
    }
}
