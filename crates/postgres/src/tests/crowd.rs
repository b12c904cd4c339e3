//! Many clients at once, keys that are revoked meanwhile, and random bytes.

use std::time::Duration;

use levada_core::{MemoryBudget, Quota, Quotas, TenantQuotas};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::{holds, logged_in, logged_in_as, message, ready, rest, startup};
use super::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_log_in_keep_nobody_out() {
    let stage = Stage::with(|c| c.handshake_timeout = Duration::from_secs(60)).await;
    let mut silent = Vec::new();
    for n in 0..400 {
        let mut socket = TcpStream::connect(stage.address).await.expect("connected");
        if n % 2 == 0 {
            socket.write_all(&startup("anna")).await.expect("sent");
        }
        silent.push(socket);
    }
    drop(logged_in(&stage).await);
    let mut first = silent.swap_remove(0);
    assert!(holds(&rest(&mut first).await, "53300"), "the oldest made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_sessions_leave_places_to_others() {
    let stage = Stage::with(|c| {
        c.max_connections = 8;
        c.quotas = Quotas::new(&[(Quota::PostgresSessions, 3)], &TenantQuotas::new());
    })
    .await;
    let held = [logged_in(&stage).await, logged_in(&stage).await, logged_in(&stage).await];
    let refused = stage.psql("lvd_acme", "levada", "SELECT 1;").await;
    assert!(refused.errors.contains("postgres_sessions"), "{}", refused.errors);
    let refused = stage.psql("lvd_client", "levada", "SELECT 1;").await;
    assert!(refused.errors.contains("postgres_sessions"), "another key of the tenant: {}", refused.errors);
    assert_eq!(stage.psql("lvd_bolt", "levada", "SELECT 1;").await.good(), "1");
    drop(held);
    // The server notices in a moment.
    let again = async { while !stage.psql("lvd_acme", "levada", "SELECT 1;").await.errors.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("places come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_soon_after_its_key_was_revoked_while_it_waits_and_while_it_sends() {
    let stage = Stage::new().await;
    let (mut idle, mut sending) = (logged_in(&stage).await, logged_in(&stage).await);
    // More than sockets hold: the server cannot have sent it all before the key is gone.
    let sql =
        b"SELECT a.n, repeat('x', 1000) FROM silver.numbers a, (SELECT n FROM silver.numbers LIMIT 10) b\0";
    sending.write_all(&message(b'Q', sql)).await.expect("sent");
    let mut part = [0; 1024];
    assert!(sending.read(&mut part).await.expect("rows come") > 0);
    stage.keys.revoke("lvd_acme");
    let begun = std::time::Instant::now();
    assert!(holds(&rest(&mut idle).await, "57P01"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let ended = rest(&mut sending).await;
    let tail = &ended[ended.len().saturating_sub(300)..];
    assert!(holds(tail, "57P01"), "{}", String::from_utf8_lossy(tail));
    assert!(!holds(tail, "SELECT 1"), "the result did not end well");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_told_and_end_their_connection_alone() {
    let stage = Stage::new().await;
    for broken in [
        message(b'Q', b"SELECT 1"),
        message(b'Q', b"SELECT 1\0X\0\0\0\x04"),
        message(b'P', b"x"),
        message(b'B', b"\0\0\0\0\xff\xff"),
        message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xffab\0\0"),
        message(b'D', b""),
        message(b'E', b"\0\0"),
        message(b'?', b""),
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut socket = logged_in(&stage).await;
        socket.write_all(&broken).await.expect("sent");
        let answer = rest(&mut socket).await;
        assert!(
            answer.starts_with(b"E") && (holds(&answer, "08P01") || holds(&answer, "54000")),
            "{broken:?}"
        );
    }
    let mut socket = logged_in(&stage).await;
    socket.write_all(&message(b'Q', b"SELECT '\xff'\0")).await.expect("sent");
    assert!(holds(&rest(&mut socket).await, "22021"));
    for length in [0_u32, 7, 10_001, u32::MAX] {
        let mut socket = TcpStream::connect(stage.address).await.expect("connected");
        let mut bytes = startup("anna");
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        socket.write_all(&bytes).await.expect("sent");
        assert!(rest(&mut socket).await.starts_with(b"E"), "{length}");
    }
    assert_eq!(stage.psql("lvd_acme", "levada", "SELECT 1;").await.good(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_tenants_sessions_leave_room_to_others() {
    // 64 MiB for all, 16 for one owner: four sessions at their own bound.
    let stage = Stage::with(|c| c.memory = MemoryBudget::new(512 << 20)).await;
    let long = format!("select '{}'", "x".repeat(240_000));
    let parse = |n: usize| {
        let mut series = message(b'P', format!("s{n}\0{long}\0\0\0").as_bytes());
        series.extend(message(b'S', b""));
        series
    };
    let (mut held, mut states) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let mut socket = logged_in(&stage).await;
        for n in 0..20 {
            socket.write_all(&parse(n)).await.expect("sent");
            let seen = ready(&mut socket).await;
            if seen.starts_with(b"1") {
                continue;
            }
            states.push(if holds(&seen, "53200") { "53200" } else { "54000" });
            assert!(holds(&seen, "close prepared statements"), "{}", String::from_utf8_lossy(&seen));
            break;
        }
        held.push(socket);
    }
    assert_eq!(states[0], "54000", "a session alone");
    assert_eq!(states[5], "53200", "the owner");
    let mut other = logged_in_as(&stage, "lvd_bolt").await;
    other.write_all(&parse(0)).await.expect("sent");
    assert!(ready(&mut other).await.starts_with(b"1"), "another owner is not touched");
    drop(held);
    let again = async {
        let mut socket = logged_in(&stage).await;
        for n in 0.. {
            socket.write_all(&parse(n)).await.expect("sent");
            if ready(&mut socket).await.starts_with(b"1") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("what they held comes back");
}
