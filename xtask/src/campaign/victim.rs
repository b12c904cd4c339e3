//! The tenant that works: events and queries by a timetable.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::{self, Client};

const EVENTS_PER_S: u32 = 500;
const QUERIES_PER_S: u32 = 20;
/// Each takes every so many-th request of the timetable.
const EVENT_CONNECTIONS: u32 = 50;
const QUERY_CONNECTIONS: u32 = 10;
/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Victim {
    pub http: SocketAddr,
    pub key: String,
}

/// From the planned time of a request to its answer, in milliseconds, sorted.
#[derive(Debug, Default)]
pub struct Latencies {
    publish: Vec<f64>,
    query: Vec<f64>,
    pub failed: u64,
    pub first_failure: Option<String>,
}

impl Latencies {
    pub fn publish_ms(&self, share: f64) -> f64 {
        percentile(&self.publish, share)
    }

    pub fn query_ms(&self, share: f64) -> f64 {
        percentile(&self.query, share)
    }

    pub fn answered(&self) -> usize {
        self.publish.len() + self.query.len()
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    let value = sorted.get(at).copied().unwrap_or(f64::INFINITY);
    (value * 10.0).round() / 10.0
}

/// Works for a time and waits for the last answers.
pub async fn work(victim: &Victim, time: Duration) -> Result<Latencies> {
    let start = Instant::now() + Duration::from_millis(50);
    let publishing = spawn(victim, EVENT_CONNECTIONS, EVENTS_PER_S, start, time, |key, n| {
        let body = format!("{{\"event_type\":\"tick.made\",\"payload\":{{\"n\":{n},\"s\":\"x\"}}}}");
        client::post("/v1/events", key, &body)
    });
    let asking = spawn(victim, QUERY_CONNECTIONS, QUERIES_PER_S, start, time, |key, n| {
        client::query(
            key,
            &format!("select count(*), max(n) from silver.ticks where n >= {n} and n < {n} + 100"),
        )
    });
    let mut all = Latencies::default();
    let (events, queries) = (publishing.await?, asking.await?);
    for (from, into) in [(events, &mut all.publish), (queries, &mut all.query)] {
        all.failed += from.failed;
        all.first_failure = all.first_failure.take().or(from.why);
        *into = from.times;
        into.sort_by(f64::total_cmp);
    }
    ensure!(all.answered() > 0, "the server answered nothing: {:?}", all.first_failure);
    Ok(all)
}

#[derive(Default)]
struct Seen {
    times: Vec<f64>,
    failed: u64,
    why: Option<String>,
}

/// Starts connections that share a timetable.
fn spawn(
    victim: &Victim,
    connections: u32,
    per_s: u32,
    start: Instant,
    time: Duration,
    request: fn(&str, u32) -> Vec<u8>,
) -> tokio::task::JoinHandle<Seen> {
    let total = per_s * u32::try_from(time.as_secs()).unwrap_or(u32::MAX / per_s);
    let tasks: Vec<_> = (0..connections)
        .map(|first| {
            let victim = victim.clone();
            let turns = (first..total).step_by(connections as usize);
            tokio::spawn(async move {
                let (mut seen, mut client) = (Seen::default(), None);
                for n in turns {
                    let planned = start + Duration::from_secs(1) * n / per_s;
                    tokio::time::sleep_until(planned.into()).await;
                    let bytes = request(&victim.key, n);
                    match tokio::time::timeout(PATIENCE, ask(&victim, &mut client, &bytes)).await {
                        Ok(Ok(())) => seen.times.push(planned.elapsed().as_secs_f64() * 1e3),
                        Ok(Err(error)) => seen.fail(&mut client, error.to_string()),
                        Err(_) => seen.fail(&mut client, "no answer in time".to_owned()),
                    }
                }
                seen
            })
        })
        .collect();
    tokio::spawn(async move {
        let mut all = Seen::default();
        for task in tasks {
            let Ok(seen) = task.await else { continue };
            all.times.extend(seen.times);
            all.failed += seen.failed;
            all.why = all.why.or(seen.why);
        }
        all
    })
}

impl Seen {
    fn fail(&mut self, client: &mut Option<Client>, why: String) {
        self.failed += 1;
        self.why.get_or_insert(why);
        *client = None;
    }
}

async fn ask(victim: &Victim, client: &mut Option<Client>, request: &[u8]) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::open(IpAddr::V4(Ipv4Addr::LOCALHOST), victim.http).await?),
    };
    let answer = client.send(request).await?;
    ensure!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    Ok(())
}
