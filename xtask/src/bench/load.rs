//! The load: one thread, many kept-alive connections, requests built before, answers hardly
//! looked at. It shares the machine with the server, so what it does not do matters.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::template::Template;

/// One connection's work.
pub struct Feed {
    /// Sent in turn.
    pub templates: Vec<Template>,
    /// The first id; the connection counts on from it.
    pub first: u64,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub time: Duration,
    /// Events of all connections together.
    pub events: u64,
}

/// What was acknowledged.
pub struct Sent {
    /// Per connection, how many events from its first id on.
    pub events: Vec<u64>,
    pub elapsed: Duration,
    /// Of requests, in microseconds, sorted.
    pub latencies: Vec<u32>,
}

impl Sent {
    pub fn total(&self) -> u64 {
        self.events.iter().sum()
    }

    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.elapsed.as_secs_f64()
    }

    /// In milliseconds.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 - 1.0) * share).round() as usize;
        f64::from(self.latencies.get(at).copied().unwrap_or_default()) / 1000.0
    }
}

/// Sends over one connection a feed until the time or the events are over. `id` makes the ids
/// of a connection's events from their numbers.
pub fn run(address: &str, feeds: Vec<Feed>, until: Until, id: fn(u64) -> u64) -> Result<Sent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let share = until.events.div_ceil(feeds.len() as u64);
        let mut connections = Vec::new();
        for feed in feeds {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connections.push((stream, feed));
        }
        let start = Instant::now();
        let end = start + until.time;
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|(stream, feed)| tokio::spawn(Sender::new(stream, feed, id).run(end, share)))
            .collect();
        let (mut events, mut latencies) = (Vec::new(), Vec::new());
        for task in tasks {
            let (count, mut times) = task.await??;
            events.push(count);
            latencies.append(&mut times);
        }
        let elapsed = start.elapsed();
        latencies.sort_unstable();
        Ok(Sent { events, elapsed, latencies })
    })
}

struct Sender {
    stream: TcpStream,
    feed: Feed,
    id: fn(u64) -> u64,
    buffer: Vec<u8>,
}

impl Sender {
    fn new(stream: TcpStream, feed: Feed, id: fn(u64) -> u64) -> Self {
        Self { stream, feed, id, buffer: Vec::with_capacity(64 << 10) }
    }

    async fn run(mut self, end: Instant, share: u64) -> Result<(u64, Vec<u32>)> {
        let (mut count, mut turn) = (0, 0);
        let mut times = Vec::new();
        while count < share {
            let start = Instant::now();
            if start >= end {
                break;
            }
            let which = turn % self.feed.templates.len();
            turn += 1;
            let template = &mut self.feed.templates[which];
            let request = template.fill(self.feed.first + count, self.id);
            self.stream.write_all(request).await?;
            count += template.events() as u64;
            self.answer().await?;
            times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok((count, times))
    }

    /// Reads one answer, which must be 202 and say its length.
    async fn answer(&mut self) -> Result<()> {
        self.buffer.clear();
        let (head, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(head) = find(&self.buffer, b"\r\n\r\n") {
                break (head + 4, content_length(&self.buffer[..head])?);
            }
        };
        while self.buffer.len() < head + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection within an answer");
            }
        }
        if !self.buffer.starts_with(b"HTTP/1.1 202") {
            bail!("not accepted: {}", String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(600)]));
        }
        Ok(())
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn content_length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    Ok(value.with_context(|| format!("an answer without a length: {head}"))?.parse()?)
}
