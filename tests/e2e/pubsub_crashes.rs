//! Kills at random moments while messages are published and taken: none that was answered is
//! lost, none whose acknowledgement was confirmed comes again, and keys keep their order.
//!
//! Twice `LEVADA_E2E_KILLS` kills; 100 there is the full campaign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use levada_testkit::{Connection, Request};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::world::World;

const PUBLISHERS: u64 = 2;
const KEYS: u64 = 16;
/// A publisher waits while so many messages are not taken yet: what is left at the end is small.
const AHEAD: usize = 2_000;
const TOPIC: &str = "/v1/projects/jobs/topics/work";
const SUBSCRIPTION: &str = "/v1/projects/jobs/subscriptions/worker";
const SETTINGS: &str = "name: crashes\npubsub:\n  projects:\n    - {id: jobs, tenant: default}\n";

/// What clients know: messages by key and number.
#[derive(Default)]
struct Known {
    answered: BTreeMap<String, BTreeSet<u64>>,
    confirmed: BTreeSet<(String, u64)>,
    /// Acknowledged without an answer: they may come again or not.
    doubtful: BTreeSet<(String, u64)>,
    published: usize,
}

impl Known {
    fn is_done(&self, key: &str, n: u64) -> bool {
        let message = (key.to_owned(), n);
        self.confirmed.contains(&message) || self.doubtful.contains(&message)
    }

    /// Whether a message may come now.
    fn check(&self, key: &str, n: u64) -> Result<()> {
        ensure!(!self.confirmed.contains(&(key.to_owned(), n)), "{key}/{n} was confirmed and came again");
        let earlier = self.answered.get(key).map(|all| all.range(..n)).into_iter().flatten();
        let open: Vec<_> = earlier.filter(|m| !self.is_done(key, **m)).collect();
        ensure!(open.is_empty(), "{key}/{n} came before {open:?}");
        Ok(())
    }
}

fn kills() -> u64 {
    let kills: Option<u64> = std::env::var("LEVADA_E2E_KILLS").ok().and_then(|n| n.parse().ok());
    2 * kills.unwrap_or(12)
}

#[test]
fn messages_survive_kills_in_order_and_confirmed_ones_never_come_again() -> Result<()> {
    let mut dice = Dice::new(1741);
    let mut world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let admin = world.admin.clone();
    let topic = Request::new("PUT", TOPIC).key(&admin).json(&json!({}));
    world.send(&topic)?.expect(200)?;
    let settings = json!({
        "topic": "projects/jobs/topics/work",
        "enableExactlyOnceDelivery": true,
        "enableMessageOrdering": true,
    });
    world.send(&Request::new("PUT", SUBSCRIPTION).key(&admin).json(&settings))?.expect(200)?;
    let key = world.key(&["default"], &["engineer"])?;
    let known: Arc<Mutex<Known>> = Arc::default();
    let mut next = 0;
    for kill in 0..kills() {
        next = thread::scope(|scope| -> Result<u64> {
            let stop = Arc::new(AtomicBool::new(false));
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|p| {
                    let (address, key) = (world.levada.http.clone(), key.clone());
                    let (stop, known) = (stop.clone(), known.clone());
                    scope.spawn(move || publish(&address, &key, p, next, &stop, &known))
                })
                .collect();
            let taker = {
                let (address, key) = (world.levada.http.clone(), key.clone());
                let (stop, known) = (stop.clone(), known.clone());
                scope.spawn(move || take(&address, &key, &stop, &known))
            };
            thread::sleep(Duration::from_millis(20 + dice.below(500)));
            world.levada.kill();
            stop.store(true, Ordering::SeqCst);
            taker.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
            Ok(publishers.into_iter().map(|p| p.join().unwrap_or(next)).max().unwrap_or(next))
        })
        .with_context(|| format!("kill {kill}"))?;
        world.restart().with_context(|| format!("after kill {kill}"))?;
    }
    drain(&world, &key, &known)?;
    let known = known.lock().unwrap();
    let answered: usize = known.answered.values().map(BTreeSet::len).sum();
    println!(
        "{answered} messages answered, {} confirmed, {} in doubt",
        known.confirmed.len(),
        known.doubtful.len()
    );
    for (key, numbers) in &known.answered {
        let lost: Vec<_> = numbers.iter().filter(|n| !known.is_done(key, **n)).collect();
        ensure!(lost.is_empty(), "lost of {key}: {lost:?}");
    }
    ensure!(answered > 0, "nothing was published");
    Ok(())
}

/// Publishes until the server goes; the number after the last that was tried.
fn publish(address: &str, key: &str, p: u64, first: u64, stop: &AtomicBool, known: &Mutex<Known>) -> u64 {
    let mut n = first;
    let Ok(mut connection) = Connection::open(address) else { return n };
    while !stop.load(Ordering::SeqCst) {
        let ahead = {
            let known = known.lock().unwrap();
            known.published.saturating_sub(known.confirmed.len())
        };
        if ahead > AHEAD {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let numbers: Vec<u64> = (n..n + 1 + n % 7).collect();
        n += numbers.len() as u64;
        let named = |n: u64| format!("p{p}k{}", n % KEYS);
        let message = |n: &u64| json!({ "attributes": { "n": n.to_string() }, "orderingKey": named(*n) });
        let body = json!({ "messages": numbers.iter().map(message).collect::<Vec<_>>() });
        let request = Request::post(&format!("{TOPIC}:publish")).key(key).json(&body);
        match connection.send(&request) {
            Ok(answer) if answer.status == 200 => {
                let mut known = known.lock().unwrap();
                known.published += numbers.len();
                for n in numbers {
                    known.answered.entry(named(n)).or_default().insert(n);
                }
            }
            // The server is gone, or going.
            _ => break,
        }
    }
    n
}

/// Pulls once and acknowledges; how many came. `None` when the server is gone.
fn pull(connection: &mut Connection, key: &str, known: &Mutex<Known>) -> Result<Option<usize>> {
    let body = json!({ "maxMessages": 50, "returnImmediately": true });
    let request = Request::post(&format!("{SUBSCRIPTION}:pull")).key(key).json(&body);
    let answer = match connection.send(&request) {
        Ok(answer) if answer.status == 200 => answer.json()?,
        _ => return Ok(None),
    };
    let mut messages = Vec::new();
    for received in answer["receivedMessages"].as_array().into_iter().flatten() {
        let message = &received["message"];
        let named = message["orderingKey"].as_str().context("no key")?.to_owned();
        let n: u64 = message["attributes"]["n"].as_str().context("no number")?.parse()?;
        let mut known = known.lock().unwrap();
        known.check(&named, n)?;
        // A pull brings several of a key, in order. From here on each is acknowledged.
        known.doubtful.insert((named.clone(), n));
        messages.push((named, n, received["ackId"].clone()));
    }
    if messages.is_empty() {
        return Ok(Some(0));
    }
    let names = || messages.iter().map(|(key, n, _)| (key.clone(), *n));
    let ids: Vec<&Value> = messages.iter().map(|(_, _, id)| id).collect();
    let request =
        Request::post(&format!("{SUBSCRIPTION}:acknowledge")).key(key).json(&json!({ "ackIds": ids }));
    match connection.send(&request) {
        Ok(answer) if answer.status == 200 => {}
        Ok(answer) if answer.status < 500 => bail!("an acknowledgement was refused: {}", answer.text()),
        _ => return Ok(None),
    }
    let mut known = known.lock().unwrap();
    for message in names() {
        known.doubtful.remove(&message);
        known.confirmed.insert(message);
    }
    Ok(Some(messages.len()))
}

fn take(address: &str, key: &str, stop: &AtomicBool, known: &Mutex<Known>) -> Result<()> {
    let Ok(mut connection) = Connection::open(address) else { return Ok(()) };
    while !stop.load(Ordering::SeqCst) {
        if pull(&mut connection, key, known)?.is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes what is left.
fn drain(world: &World, key: &str, known: &Mutex<Known>) -> Result<()> {
    let mut connection = Connection::open(&world.levada.http)?;
    let (mut empty, end) = (0, Instant::now() + Duration::from_secs(120));
    // Twice in a row nothing: no lease is open either, since every message was acknowledged.
    while empty < 2 {
        ensure!(Instant::now() < end, "the subscription does not become empty");
        match pull(&mut connection, key, known)?.context("the server is gone")? {
            0 => empty += 1,
            _ => empty = 0,
        }
    }
    Ok(())
}
