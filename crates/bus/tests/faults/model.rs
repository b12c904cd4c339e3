//! A simple model of a topic and its exactly-once subscription against the real bus: random
//! publishes, pulls, acknowledgements, ends of leases, seeks, snapshots, restarts and power losses.
//!
//! `LEVADA_SEED=n` begins with that seed, `LEVADA_CASES=n` runs so many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use levada_bus::port::{AckId, AckOutcome, BusPort, Received, SeekTo};
use levada_core::Clock;
use levada_disk::SimRng;

use super::beside_others;
use super::ground::Ground;
use super::world::{Clocks, World, body, drain, limits, message, name, open};

/// A debug build takes ten times as long.
const CASES: u64 = if cfg!(debug_assertions) { 150 } else { 2_000 };
const LIVES: u64 = 3;
const STEPS: usize = 40;
/// As of a subscription that says nothing else.
const DEADLINE: Duration = Duration::from_secs(10);
const SNAPSHOT: &str = "moment";

type Texts = BTreeSet<String>;

/// A lease as its consumer knows it.
struct Held {
    id: AckId,
    text: String,
    until: Duration,
}

/// What was acknowledged at a moment, and what may have been.
#[derive(Clone)]
struct Moment {
    acknowledged: Texts,
    doubtful: Texts,
}

/// What must be so.
#[derive(Default)]
struct Model {
    next: u64,
    /// Every message that was answered, with its time.
    published: BTreeMap<String, i64>,
    /// Sent without an answer: they may be there or not.
    unanswered: Texts,
    acknowledged: Texts,
    /// Acknowledged or moved by a seek without an answer: they may come again or not.
    doubtful: Texts,
    held: Vec<Held>,
    snapshot: Option<Moment>,
    came: BTreeMap<String, u32>,
}

impl Model {
    /// Takes note of what a pull brought, or says what is wrong with it.
    fn receive(&mut self, received: &[Received], now: Duration) -> Result<(), String> {
        self.held.retain(|held| held.until > now);
        for message in received {
            let text = body(message).to_owned();
            if !self.published.contains_key(&text) && !self.unanswered.contains(&text) {
                return Err(format!("{text} was never published"));
            }
            if self.acknowledged.contains(&text) {
                return Err(format!("{text} was acknowledged and came again"));
            }
            if self.held.iter().any(|held| held.text == text) {
                return Err(format!("{text} is on lease and came again"));
            }
            let came = self.came.entry(text.clone()).or_default();
            *came += 1;
            if message.delivery_attempt > *came {
                return Err(format!(
                    "{text} came {came} times, this is attempt {}",
                    message.delivery_attempt
                ));
            }
            self.doubtful.remove(&text);
            self.held.push(Held { id: message.ack_id, text, until: now + DEADLINE });
        }
        Ok(())
    }

    /// Acknowledgements are as of another moment now, and all leases have ended.
    fn become_as(&mut self, moment: Moment) {
        self.acknowledged = moment.acknowledged;
        self.doubtful = moment.doubtful;
        self.held.clear();
    }

    /// A seek had no answer: what differs may be either way.
    fn may_have_become(&mut self, moment: Moment) {
        let differs: Texts = self.acknowledged.symmetric_difference(&moment.acknowledged).cloned().collect();
        self.acknowledged.retain(|text| !differs.contains(text));
        self.doubtful.extend(differs);
        self.doubtful.extend(moment.doubtful);
        self.acknowledged.retain(|text| !self.doubtful.contains(text));
    }

    fn now(&self) -> Moment {
        Moment { acknowledged: self.acknowledged.clone(), doubtful: self.doubtful.clone() }
    }
}

async fn seek(world: &World, model: &mut Model, to: SeekTo, moment: Moment) -> bool {
    let done = world.port.seek(&name("model"), to).await.is_ok();
    if done {
        model.become_as(moment)
    } else {
        model.may_have_become(moment)
    }
    done
}

async fn publish(world: &World, clocks: &Clocks, rng: &mut SimRng, model: &mut Model) -> bool {
    let count = 1 + rng.below(5);
    let texts: Vec<String> = (model.next..model.next + count).map(|n| format!("m-{n}")).collect();
    model.next += count;
    // Each has a time of its own, so that a seek can go between them.
    clocks.pass(Duration::from_millis(2));
    let sent = texts.iter().map(|text| message("acme", text)).collect();
    let answered = world.send(&name("orders"), sent).await.is_ok();
    match answered {
        true => model.published.extend(texts.into_iter().map(|text| (text, clocks.now_ms()))),
        false => model.unanswered.extend(texts),
    }
    answered
}

/// Acknowledges some of what is held, or gives it back.
async fn end_leases(
    world: &World,
    clocks: &Clocks,
    rng: &mut SimRng,
    model: &mut Model,
) -> Result<bool, String> {
    let subscription = world.subscription("model");
    let (given, kept): (Vec<Held>, Vec<Held>) = model.held.drain(..).partition(|_| rng.one_in(2));
    model.held = kept;
    if rng.one_in(3) {
        let deadlines = given.iter().map(|held| (held.id, Duration::ZERO)).collect();
        return Ok(subscription.modify_ack_deadlines(deadlines).await.is_ok());
    }
    let Ok(outcomes) = subscription.acknowledge(given.iter().map(|held| held.id).collect()).await else {
        model.doubtful.extend(given.into_iter().map(|held| held.text));
        return Ok(false);
    };
    let mut all_kept = true;
    for (held, outcome) in given.into_iter().zip(outcomes) {
        match outcome {
            AckOutcome::Done => drop(model.acknowledged.insert(held.text)),
            AckOutcome::TransientFailure => {
                all_kept = false;
                model.doubtful.insert(held.text);
            }
            AckOutcome::InvalidAckId if held.until > clocks.monotonic() => {
                return Err(format!("the lease of {} had not ended", held.text));
            }
            AckOutcome::InvalidAckId => {}
        }
    }
    Ok(all_kept)
}

/// One random step; false once the disk is dead.
async fn step(world: &World, clocks: &Clocks, rng: &mut SimRng, model: &mut Model) -> Result<bool, String> {
    match rng.below(16) {
        0..5 => Ok(publish(world, clocks, rng, model).await),
        5..9 => {
            let pulled = world.subscription("model").pull(limits(1 + rng.below(8) as usize)).await;
            let Ok(received) = pulled else { return Ok(false) };
            model.receive(&received, clocks.monotonic()).map(|()| true)
        }
        9..12 => end_leases(world, clocks, rng, model).await,
        12 => {
            clocks.pass(Duration::from_secs(rng.below(15)));
            Ok(true)
        }
        13 => Ok(world.bus.maintain().await.is_ok()),
        14 => {
            let at_ms = clocks.now_ms() - rng.below(50).cast_signed();
            let before = model.published.iter().filter(|(_, published_ms)| **published_ms < at_ms);
            let acknowledged = before.map(|(text, _)| text.clone()).collect();
            let moment = Moment { acknowledged, doubtful: Texts::new() };
            Ok(seek(world, model, SeekTo::TimeMs(at_ms), moment).await)
        }
        _ => match model.snapshot.take() {
            Some(moment) => {
                let sought = seek(world, model, SeekTo::Snapshot(name(SNAPSHOT)), moment).await;
                Ok(sought && world.port.delete_snapshot(&name(SNAPSHOT)).await.is_ok())
            }
            None => {
                let made = world.port.create_snapshot(name(SNAPSHOT), &name("model"), BTreeMap::new()).await;
                model.snapshot = made.is_ok().then(|| model.now());
                Ok(made.is_ok())
            }
        },
    }
}

/// The next start finds what was answered; of what was not answered it may find the one or the other.
async fn start(ground: &Ground, clocks: &std::sync::Arc<Clocks>, model: &mut Model) -> Result<World, String> {
    let world = open(ground.disk(), clocks).await;
    model.held.clear();
    match (world.port.snapshot(&name(SNAPSHOT)), &model.snapshot) {
        (Err(_), Some(_)) => return Err("the snapshot is gone".to_owned()),
        (Ok(_), None) => world.port.delete_snapshot(&name(SNAPSHOT)).await.map_err(|e| e.to_string())?,
        _ => {}
    }
    Ok(world)
}

async fn one_case(seed: u64) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let (mut ground, clocks, mut model) = (Ground::simulated(seed), Clocks::new(), Model::default());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    world.subscribe("model", &topic, |spec| (spec.exactly_once, spec.retain_acked) = (true, true)).await;
    world.close().await;
    for _ in 0..LIVES {
        let world = start(&ground, &clocks, &mut model).await?;
        let loses_power = rng.one_in(2);
        if loses_power {
            ground.power_fails_after(rng.below(300));
        }
        for _ in 0..STEPS {
            if !step(&world, &clocks, &mut rng, &mut model).await? {
                break;
            }
        }
        if loses_power {
            let next = ground.after_the_end();
            world.abandon().await;
            ground = next;
        } else {
            world.close().await;
        }
    }
    let world = start(&ground, &clocks, &mut model).await?;
    let left = drain(&world.subscription("model")).await;
    model.receive(&left, clocks.monotonic())?;
    let came: BTreeSet<&str> = left.iter().map(body).collect();
    let missing = model.published.keys().filter(|text| {
        !came.contains(text.as_str())
            && !model.acknowledged.contains(*text)
            && !model.doubtful.contains(*text)
    });
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() {
        return Err(format!("lost: {missing:?}"));
    }
    let backlog = world.subscription("model").stats().backlog_messages;
    world.close().await;
    if backlog == 0 { Ok(()) } else { Err(format!("{backlog} messages stay in the backlog")) }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_agrees_with_the_model() {
    let _turn = beside_others().await;
    let (first, cases) = (setting("LEVADA_SEED", 0), setting("LEVADA_CASES", CASES));
    println!("seeds {first}..{}", first + cases);
    for seed in first..first + cases {
        if let Err(what) = one_case(seed).await {
            panic!("{what}; run it again with LEVADA_SEED={seed} LEVADA_CASES=1");
        }
    }
}
