//! What cases are written with: a bus, short ways to use it, and checks with a message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use levada_bus::port::{
    AckId, AckOutcome, BusPort, Consumer, Publication, PullLimits, Received, SubscriptionPort,
    SubscriptionSpec, SubscriptionStats, TopicSpec,
};
use levada_core::{Attributes, Message, ProjectId, ResourceId, ResourceName, TenantContext, TenantId};

use super::check::same;
use super::{Need, Running, Traits};

pub(super) type Subscription = Arc<dyn SubscriptionPort>;

/// A deadline that no case reaches by itself.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// The project and the tenant of what does not say otherwise.
const HOME: &str = "acme";

/// A bus under test.
pub struct World {
    running: Box<dyn Running>,
    traits: Traits,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("traits", &self.traits).finish_non_exhaustive()
    }
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant")
}

pub(super) fn project(name: &str) -> ProjectId {
    ProjectId::new(name).expect("a project")
}

pub(super) fn name_in(of: &str, id: &str) -> ResourceName {
    ResourceName::new(project(of), ResourceId::new(id).expect("an id"))
}

/// A name in the project of most cases.
pub(super) fn name(id: &str) -> ResourceName {
    name_in(HOME, id)
}

pub(super) fn message(body: &str) -> Message {
    owned(HOME, body)
}

/// A message of another tenant.
pub(super) fn owned(owner: &str, body: &str) -> Message {
    Message {
        tenant: tenant(owner),
        attributes: Attributes::default(),
        ordering_key: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub(super) fn with(message: Message, attributes: &[(&str, &str)]) -> Message {
    Message { attributes: attributes.iter().copied().collect(), ..message }
}

pub(super) fn keyed(key: &str, body: &str) -> Message {
    Message { ordering_key: Some(key.into()), ..message(body) }
}

pub(super) fn publication(message: Message) -> Publication {
    Publication::new(TenantContext::system(message.tenant.clone(), "conformance"), message)
}

pub(super) fn body(received: &Received) -> String {
    String::from_utf8_lossy(&received.message.body).into_owned()
}

pub(super) fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(body).collect()
}

pub(super) fn ids(received: &[Received]) -> Vec<AckId> {
    received.iter().map(|r| r.ack_id).collect()
}

/// Bodies in the order of their texts: without an ordering key none is promised.
pub(super) fn sorted(received: &[Received]) -> Vec<String> {
    let mut bodies = bodies(received);
    bodies.sort();
    bodies
}

/// So many messages at once, without waiting.
pub(super) fn limits(max_messages: usize) -> PullLimits {
    PullLimits {
        max_messages,
        max_bytes: 16 << 20,
        wait: Duration::ZERO,
        ack_deadline: None,
        consumer: Consumer::Call,
    }
}

impl World {
    pub(super) fn new(running: Box<dyn Running>, traits: Traits) -> Self {
        Self { running, traits }
    }

    pub(super) fn port(&self) -> Arc<dyn BusPort> {
        self.running.port()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.running.now_ms()
    }

    pub(super) fn has(&self, need: Need) -> bool {
        self.traits.offers.contains(&need)
    }

    /// The short deadline of this platform.
    pub(super) fn unit(&self) -> Duration {
        self.traits.unit
    }

    /// How long a message that must come may take.
    pub(super) fn patience(&self) -> Duration {
        self.traits.patience
    }

    pub(super) fn quiet(&self) -> Duration {
        self.traits.quiet
    }

    /// Lets so much time pass; on a real clock a little more.
    pub(super) async fn pass(&self, by: Duration) {
        let more = if self.has(Need::ManualTime) { Duration::ZERO } else { self.traits.unit / 2 };
        self.running.pass(by + more).await;
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        self.running.restart().await.context("the restart failed")
    }

    pub(super) async fn maintain(&self) -> Result<()> {
        self.running.maintain().await.context("the upkeep failed")
    }

    pub(super) async fn topic(&self, id: &str) -> Result<ResourceName> {
        self.port().create_topic(TopicSpec::new(name(id))).await.context("cannot make a topic")?;
        Ok(name(id))
    }

    /// A subscription with settings. Its leases last, unless a case has them end.
    pub(super) async fn subscribe(
        &self,
        id: &str,
        topic: &ResourceName,
        set: impl FnOnce(&mut SubscriptionSpec),
    ) -> Result<Subscription> {
        let mut spec = SubscriptionSpec::new(name(id), topic.clone());
        spec.ack_deadline = LONG;
        set(&mut spec);
        self.port().create_subscription(spec).await.context("cannot make a subscription")?;
        self.subscription(id)
    }

    /// A topic `orders` with a subscription `billing`.
    pub(super) async fn pair(
        &self,
        set: impl FnOnce(&mut SubscriptionSpec),
    ) -> Result<(ResourceName, Subscription)> {
        let topic = self.topic("orders").await?;
        let subscription = self.subscribe("billing", &topic, set).await?;
        Ok((topic, subscription))
    }

    pub(super) fn subscription(&self, id: &str) -> Result<Subscription> {
        self.port().subscription(&name(id)).with_context(|| format!("cannot open the subscription {id}"))
    }

    /// Changes the settings of a subscription.
    pub(super) async fn update(&self, id: &str, set: impl FnOnce(&mut SubscriptionSpec)) -> Result<()> {
        let mut spec = (*self.subscription(id)?.spec()).clone();
        set(&mut spec);
        self.port().update_subscription(spec).await.context("cannot update the subscription")?;
        Ok(())
    }

    /// Publishes messages that are all to be accepted.
    pub(super) async fn send(&self, topic: &ResourceName, messages: Vec<Message>) -> Result<Vec<u64>> {
        let items = messages.into_iter().map(publication).collect();
        let results = self.port().publish(topic, items).await.context("the publish failed")?;
        results.into_iter().map(|result| result.context("an item was refused")).collect()
    }

    pub(super) async fn publish(&self, topic: &ResourceName, bodies: &[&str]) -> Result<Vec<u64>> {
        self.send(topic, bodies.iter().map(|body| message(body)).collect()).await
    }

    /// Exactly so many messages, waiting for them, with leases of `deadline`.
    pub(super) async fn take_for(
        &self,
        subscription: &Subscription,
        count: usize,
        deadline: Option<Duration>,
    ) -> Result<Vec<Received>> {
        let until = Instant::now() + self.traits.patience;
        let mut taken: Vec<Received> = Vec::new();
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            let limits = PullLimits { wait, ack_deadline: deadline, ..limits(count - taken.len()) };
            let pulled = subscription.pull(limits).await.context("the pull failed")?;
            let most = limits.max_messages;
            ensure!(pulled.len() <= most, "a pull of at most {most} messages brought {}", pulled.len());
            taken.extend(pulled);
            if taken.len() == count {
                return Ok(taken);
            }
            ensure!(
                Instant::now() < until,
                "{count} messages did not come within {:?}, only {:?}",
                self.traits.patience,
                bodies(&taken)
            );
        }
    }

    pub(super) async fn take(&self, subscription: &Subscription, count: usize) -> Result<Vec<Received>> {
        self.take_for(subscription, count, None).await
    }

    /// As [`World::take`], with leases that end after [`World::unit`].
    pub(super) async fn take_briefly(
        &self,
        subscription: &Subscription,
        count: usize,
    ) -> Result<Vec<Received>> {
        self.take_for(subscription, count, Some(self.unit())).await
    }

    /// Exactly these messages, in any order.
    pub(super) async fn expect(&self, subscription: &Subscription, wanted: &[&str]) -> Result<Vec<Received>> {
        let taken = self.take(subscription, wanted.len()).await?;
        let mut wanted: Vec<String> = wanted.iter().map(|body| (*body).to_owned()).collect();
        wanted.sort();
        same("the messages that came", sorted(&taken), wanted)?;
        Ok(taken)
    }

    /// As [`World::expect`], by pulls that bring one message of a key at a time.
    pub(super) async fn expect_singly(
        &self,
        subscription: &Subscription,
        wanted: &[&str],
    ) -> Result<Vec<Received>> {
        let mut taken = Vec::new();
        while taken.len() < wanted.len() {
            let most = limits(wanted.len() - taken.len());
            let single = PullLimits { wait: self.traits.patience, consumer: Consumer::Single, ..most };
            let pulled = subscription.pull(single).await.context("the pull failed")?;
            ensure!(!pulled.is_empty(), "only {:?} of {wanted:?} came", bodies(&taken));
            taken.extend(pulled);
        }
        let mut wanted: Vec<String> = wanted.iter().map(|body| (*body).to_owned()).collect();
        wanted.sort();
        same("the messages that came", sorted(&taken), wanted)?;
        Ok(taken)
    }

    /// Nothing comes by a pull that brings one message of a key at a time; `why` says why not.
    pub(super) async fn nothing_singly(&self, subscription: &Subscription, why: &str) -> Result<()> {
        let single = PullLimits { wait: self.traits.quiet, consumer: Consumer::Single, ..limits(100) };
        let pulled = subscription.pull(single).await.context("the pull failed")?;
        ensure!(pulled.is_empty(), "{:?} came, though {why}", bodies(&pulled));
        Ok(())
    }

    /// What a pull brings that is waiting while `meanwhile` is done. It must not take until the
    /// end of its wait.
    pub(super) async fn woken_by(
        &self,
        subscription: &Subscription,
        meanwhile: impl Future<Output = Result<()>>,
    ) -> Result<Vec<Received>> {
        let wait = self.traits.patience;
        let began = Instant::now();
        let meanwhile = async {
            tokio::task::yield_now().await;
            meanwhile.await
        };
        let (pulled, done) = tokio::join!(subscription.pull(PullLimits { wait, ..limits(100) }), meanwhile);
        done?;
        let (pulled, took) = (pulled.context("the pull failed")?, began.elapsed());
        ensure!(took < wait.mul_f64(0.9), "a pull that waits for {wait:?} was not woken: it took {took:?}");
        Ok(pulled)
    }

    /// Nothing may come now; `why` says why not.
    pub(super) async fn nothing(&self, subscription: &Subscription, why: &str) -> Result<()> {
        let limits = PullLimits { wait: self.traits.quiet, ..limits(100) };
        let pulled = subscription.pull(limits).await.context("the pull failed")?;
        ensure!(pulled.is_empty(), "{:?} came, though {why}", bodies(&pulled));
        Ok(())
    }

    /// Acknowledges, and wants each to be done.
    pub(super) async fn ack(&self, subscription: &Subscription, received: &[Received]) -> Result<()> {
        let outcomes = subscription.acknowledge(ids(received)).await.context("the acknowledge failed")?;
        same("the outcomes of acknowledging", outcomes, vec![AckOutcome::Done; received.len()])
    }

    /// Gives back at once, and wants each to be done.
    pub(super) async fn nack(&self, subscription: &Subscription, received: &[Received]) -> Result<()> {
        self.extend(subscription, received, Duration::ZERO).await
    }

    pub(super) async fn extend(
        &self,
        subscription: &Subscription,
        received: &[Received],
        by: Duration,
    ) -> Result<()> {
        let deadlines = received.iter().map(|r| (r.ack_id, by)).collect();
        let outcomes =
            subscription.modify_ack_deadlines(deadlines).await.context("the change of deadlines failed")?;
        same("the outcomes of changing deadlines", outcomes, vec![AckOutcome::Done; received.len()])
    }

    /// The outcome of acknowledging one id.
    pub(super) async fn ack_one(&self, subscription: &Subscription, id: AckId) -> Result<AckOutcome> {
        let outcomes = subscription.acknowledge(vec![id]).await.context("the acknowledge failed")?;
        outcomes.first().copied().context("the acknowledge answered no outcome")
    }

    /// The outcome of moving one deadline.
    pub(super) async fn modify_one(
        &self,
        subscription: &Subscription,
        id: AckId,
        by: Duration,
    ) -> Result<AckOutcome> {
        let outcomes =
            subscription.modify_ack_deadlines(vec![(id, by)]).await.context("the change failed")?;
        outcomes.first().copied().context("the change of a deadline answered no outcome")
    }

    /// Nothing is unacknowledged, where the platform has exact figures.
    pub(super) fn settled(&self, subscription: &Subscription) -> Result<()> {
        if !self.has(Need::Stats) {
            return Ok(());
        }
        let SubscriptionStats { backlog_messages, leased, oldest_unacked_ms, .. } = subscription.stats();
        same(
            "backlog, leases and the oldest of it",
            (backlog_messages, leased, oldest_unacked_ms),
            (0, 0, None),
        )
    }
}
