//! Bytes that no good client sends, and the bounds of the server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::Stage;

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
    let mut socket = TcpStream::connect(stage.address).await.expect("connected");
    socket.write_all(&startup("anna")).await.expect("sent");
    socket.write_all(&message(b'p', b"lvd_acme\0")).await.expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let mut part = [0; 1024];
        let n = socket.read(&mut part).await.expect("read");
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&seen));
        seen.extend(&part[..n]);
    }
    socket
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
