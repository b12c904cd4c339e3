//! Events accepted a second: 1 KiB each, key checked, on disk before the 202.
//!
//! Afterwards every event is read back from the topic, and an order-free digest of ids and
//! contents is compared with that of what was sent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_testkit::{Connection, Levada, Request};
use serde::Deserialize;

use super::load::{self, Feed, Sent, Until};
use super::template::{ID, Template};
use super::{Bench, figure, note, project};

const EVENT_BYTES: usize = 1024;
const TOPIC: &str = "events";
/// Ids of different connections are this far apart.
const APART: u64 = 1 << 40;

pub fn batches(bench: &Bench) -> Result<()> {
    let until =
        Until { time: Duration::from_secs(bench.pick(6, 30)), events: bench.pick(500_000, 4_000_000) };
    measure(bench, "gateway_events", 12, 100, until)
}

pub fn singles(bench: &Bench) -> Result<()> {
    let until =
        Until { time: Duration::from_secs(bench.pick(8, 30)), events: bench.pick(250_000, 1_000_000) };
    measure(bench, "gateway_single_events", 256, 1, until)
}

fn measure(bench: &Bench, name: &str, connections: u64, batch: usize, until: Until) -> Result<()> {
    let project = project::empty(&bench.fresh("project")?)?;
    let levada = project::start(&project, &bench.fresh("data")?)?;
    let key = project::key(&levada, &["service"])?;
    // A short run first: connections, caches and the first segments are not what is measured.
    let warm = Until { time: Duration::from_secs(1), events: until.events / 20 };
    let before = load::run(&levada.http, feeds(&key, connections, batch, connections), warm, |id| id)?;
    let sent = load::run(&levada.http, feeds(&key, connections, batch, 0), until, |id| id)?;
    figure(&format!("{name}_per_s"), sent.rate(), "events/s");
    figure(&format!("{name}_request_p50"), sent.latency_ms(0.5), "ms");
    figure(&format!("{name}_request_p99"), sent.latency_ms(0.99), "ms");
    note(format_args!("{} events in {:.1} s; reading them back", sent.total(), sent.elapsed.as_secs_f64()));
    let expected = digest_of(&before, connections).plus(digest_of(&sent, 0));
    let found = read_back(&levada, expected.events)?;
    ensure!(found == expected, "the topic does not hold what was sent: {found:?} instead of {expected:?}");
    note("every event is in the topic, with its content");
    Ok(())
}

fn feeds(key: &str, connections: u64, batch: usize, offset: u64) -> Vec<Feed> {
    let template = Template::new("/v1/events", key, &vec![event(); batch]);
    let first = |i: u64| (offset + i + 1) * APART;
    (0..connections).map(|i| Feed { templates: vec![template.clone()], first: first(i) }).collect()
}

/// Fills an event of exactly [`EVENT_BYTES`].
fn event() -> String {
    let shape = |pad: &str| {
        format!(
            "{{\"tenant_id\":\"default\",\"event_id\":\"{ID}\",\"event_type\":\"bench.tick\",\
             \"timestamp\":\"2026-01-01T00:00:00Z\",\"payload\":{{\"id\":\"{ID}\",\"pad\":\"{pad}\"}}}}"
        )
    };
    shape(&pad(EVENT_BYTES - shape("").len()))
}

fn pad(length: usize) -> String {
    "abcdefghijklmnopqrstuvwxyz0123456789".chars().cycle().take(length).collect()
}

/// Count and order-free sum of hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    events: u64,
    sum: u64,
}

impl Digest {
    fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// FNV-1a over an event's id and the length of its pad.
fn hash(id: u64, pad: usize) -> u64 {
    let bytes = id.to_le_bytes().into_iter().chain((pad as u64).to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn digest_of(sent: &Sent, offset: u64) -> Digest {
    let event = event();
    let pad = event.len() - event.find("\"pad\":\"").map_or(0, |at| at + 7) - "\"}}".len();
    let mut digest = Digest { events: 0, sum: 0 };
    for (i, count) in sent.events.iter().enumerate() {
        let first = (offset + i as u64 + 1) * APART;
        digest.events += count;
        digest.sum = (first..first + count).fold(digest.sum, |sum, id| sum.wrapping_add(hash(id, pad)));
    }
    digest
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<Kept<'a>>,
    next: u64,
}

#[derive(Deserialize)]
struct Kept<'a> {
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    id: &'a str,
    pad: &'a str,
}

fn read_back(levada: &Levada, events: u64) -> Result<Digest> {
    let admin = levada.admin_key()?;
    let mut connection = Connection::open(&levada.http)?;
    let mut digest = Digest { events: 0, sum: 0 };
    let mut from = 0;
    // An event more than was sent would show as well.
    while digest.events <= events {
        let path = format!("/v1/topics/{TOPIC}/messages?from={from}&limit=1000");
        let answer = connection.send(&Request::get(&path).key(&admin))?.expect(200)?;
        let page: Page = serde_json::from_slice(&answer.body)?;
        if page.messages.is_empty() {
            break;
        }
        for message in &page.messages {
            let id = u64::from_str_radix(message.payload.id, 16).context("an id that was not sent")?;
            ensure!(
                message.payload.pad == pad(message.payload.pad.len()),
                "the content of {id:x} has changed"
            );
            digest.events += 1;
            digest.sum = digest.sum.wrapping_add(hash(id, message.payload.pad.len()));
        }
        from = page.next;
    }
    Ok(digest)
}
