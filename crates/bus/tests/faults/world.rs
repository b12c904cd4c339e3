//! A bus on a ground, with short ways to use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use levada_bus::port::{
    AckId, AckOutcome, BusPort, Consumer, PortError, Publication, PullLimits, Received, SubscriptionPort,
    SubscriptionSpec, TopicSpec,
};
use levada_bus::{Bus, BusConfig, EmbeddedBus};
use levada_core::{Attributes, Clock, Message, ProjectId, ResourceName, TenantContext, TenantId};
use levada_disk::Disk;
use levada_log::LogConfig;

pub const START_MS: i64 = 1_780_000_000_000;
pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long a message that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Subscription = Arc<dyn SubscriptionPort>;

/// Two clocks that move when told to: time passes on both, the wall clock may also jump.
#[derive(Debug)]
pub struct Clocks {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

fn millis(by: Duration) -> i64 {
    i64::try_from(by.as_millis()).expect("not that long")
}

impl Clocks {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { wall_ms: START_MS.into(), monotonic_ms: 0.into() })
    }

    /// Lets time pass.
    pub fn pass(&self, by: Duration) {
        self.wall_ms.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic_ms.fetch_add(millis(by).unsigned_abs(), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock forward.
    pub fn jump_forward(&self, by: Duration) {
        self.wall_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock back.
    pub fn jump_back(&self, by: Duration) {
        self.wall_ms.fetch_sub(millis(by), Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// Small files, so that several are written.
pub fn small_files() -> BusConfig {
    let log = LogConfig {
        commit_file_bytes: 256 << 10,
        segment_bytes: 32 << 10,
        group_bytes: 64 << 10,
        index_interval_bytes: 1 << 10,
        min_free_bytes: 0,
        ..LogConfig::default()
    };
    BusConfig { log, ..BusConfig::default() }
}

pub struct World {
    pub bus: Bus,
    pub port: EmbeddedBus,
}

pub async fn open(disk: Arc<dyn Disk>, clocks: &Arc<Clocks>) -> World {
    open_with(disk, clocks, small_files()).await
}

pub async fn open_with(disk: Arc<dyn Disk>, clocks: &Arc<Clocks>, config: BusConfig) -> World {
    let clocks = clocks.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let bus = Bus::open(disk, config, clocks).expect("the bus opens").0;
        let home = ProjectId::new("home").expect("a project");
        let port = EmbeddedBus::open(bus.clone(), home).expect("the port opens");
        World { bus, port }
    });
    opened.await.expect("no panic")
}

/// A name in the project of all cases.
pub fn name(id: &str) -> ResourceName {
    format!("acme/{id}").parse().expect("a resource name")
}

pub fn message(tenant: &str, body: &str) -> Message {
    Message {
        tenant: TenantId::new(tenant).expect("a tenant"),
        attributes: Attributes::default(),
        ordering_key: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn keyed(key: &str, body: &str) -> Message {
    Message { ordering_key: Some(key.into()), ..message("acme", body) }
}

pub fn body(received: &Received) -> &str {
    std::str::from_utf8(&received.message.body).expect("text")
}

pub fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(body).collect()
}

/// Without an ordering key no order is promised.
pub fn sorted(received: &[Received]) -> Vec<&str> {
    let mut bodies = bodies(received);
    bodies.sort_unstable();
    bodies
}

pub fn ids(received: &[Received]) -> Vec<AckId> {
    received.iter().map(|r| r.ack_id).collect()
}

/// Leases that no case reaches the end of by itself.
pub fn long_leases(spec: &mut SubscriptionSpec) {
    spec.ack_deadline = 600 * SECOND;
}

/// So many at once, without waiting.
pub fn limits(max_messages: usize) -> PullLimits {
    PullLimits {
        max_messages,
        max_bytes: 16 << 20,
        wait: Duration::ZERO,
        ack_deadline: None,
        consumer: Consumer::Call,
    }
}

impl World {
    /// Ends the process cleanly.
    pub async fn close(self) {
        self.bus.close().await.expect("closes");
    }

    /// Ends it as it is. Its last handles go where blocking is allowed.
    pub async fn abandon(self) {
        tokio::task::spawn_blocking(move || drop(self)).await.expect("no panic");
    }

    pub async fn topic(&self, id: &str) -> ResourceName {
        self.port.create_topic(TopicSpec::new(name(id))).await.expect("a topic");
        name(id)
    }

    pub async fn subscribe(
        &self,
        id: &str,
        topic: &ResourceName,
        set: impl FnOnce(&mut SubscriptionSpec),
    ) -> Subscription {
        let mut spec = SubscriptionSpec::new(name(id), topic.clone());
        set(&mut spec);
        self.port.create_subscription(spec).await.expect("a subscription");
        self.subscription(id)
    }

    pub fn subscription(&self, id: &str) -> Subscription {
        self.port.subscription(&name(id)).expect("the subscription is there")
    }

    /// Publishes as one request.
    pub async fn send(&self, topic: &ResourceName, messages: Vec<Message>) -> Result<Vec<u64>, PortError> {
        let publication = |message: Message| {
            Publication::new(TenantContext::system(message.tenant.clone(), "test"), message)
        };
        let items = messages.into_iter().map(publication).collect();
        let results = self.port.publish(topic, items).await?;
        Ok(results.into_iter().map(|result| result.expect("the message is accepted")).collect())
    }

    pub async fn publish(&self, topic: &ResourceName, bodies: &[&str]) -> Result<Vec<u64>, PortError> {
        self.send(topic, bodies.iter().map(|body| message("acme", body)).collect()).await
    }

    /// Publishes bodies one request each; those that were answered.
    pub async fn publish_each(&self, topic: &ResourceName, bodies: &[String]) -> Vec<String> {
        let mut answered = Vec::new();
        for body in bodies {
            if self.publish(topic, &[body]).await.is_ok() {
                answered.push(body.clone());
            }
        }
        answered
    }

    pub async fn maintain(&self) {
        self.bus.maintain().await.expect("the upkeep works");
    }
}

/// Exactly so many, waiting for them.
pub async fn take(subscription: &Subscription, count: usize) -> Vec<Received> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let wanted = PullLimits { wait: PATIENCE, ..limits((count - taken.len()).min(1_000)) };
        let pulled = subscription.pull(wanted).await.expect("pulls");
        assert!(!pulled.is_empty(), "only {} of {count} messages came: {:?}", taken.len(), sorted(&taken));
        taken.extend(pulled);
    }
    taken
}

pub async fn acknowledge(subscription: &Subscription, received: &[Received]) {
    for part in received.chunks(1_000) {
        let outcomes = subscription.acknowledge(ids(part)).await.expect("acknowledges");
        assert_eq!(outcomes, vec![AckOutcome::Done; part.len()]);
    }
}

/// Gives everything back at once.
pub async fn refuse(subscription: &Subscription, received: &[Received]) {
    let deadlines = received.iter().map(|r| (r.ack_id, Duration::ZERO)).collect();
    subscription.modify_ack_deadlines(deadlines).await.expect("gives back");
}

/// Everything that is there now, acknowledged.
pub async fn drain(subscription: &Subscription) -> Vec<Received> {
    let mut all: Vec<Received> = Vec::new();
    loop {
        let pulled = subscription.pull(limits(1_000)).await.expect("pulls");
        if pulled.is_empty() {
            return all;
        }
        acknowledge(subscription, &pulled).await;
        all.extend(pulled);
    }
}

pub async fn nothing(subscription: &Subscription, why: &str) {
    let pulled = subscription.pull(limits(100)).await.expect("pulls");
    assert!(pulled.is_empty(), "{:?} came, though {why}", bodies(&pulled));
}

/// How often each body came.
pub fn counted(received: &[Received]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for message in received {
        *counted.entry(body(message).to_owned()).or_default() += 1;
    }
    counted
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
pub fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
