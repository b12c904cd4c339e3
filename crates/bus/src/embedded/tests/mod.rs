//! The embedded bus over the simulated disk.

mod admin;
mod ahead;
mod behaviour;
mod bounds;
mod crash;
mod damage;
mod deduplicate;
mod durability;
mod meters;
mod owners;
mod redrive;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_core::{Attributes, ManualClock, Message, ProjectId, ResourceName, TenantContext, TenantId};
use levada_disk::{Disk, SimDisk};

use crate::port::{
    AckId, AckOutcome, BusPort, Consumer, PortError, Publication, PullLimits, Received, SubscriptionPort,
    SubscriptionSpec, TopicSpec,
};
use crate::tests::{START_MS, World, open as open_bus};
use crate::{EmbeddedBus, TopicConfig};

pub fn name(text: &str) -> ResourceName {
    text.parse().expect("a resource name")
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant")
}

/// A bus with its port.
pub struct Port {
    pub world: World,
    pub port: EmbeddedBus,
}

pub fn open(disk: Arc<dyn Disk>, clock: Arc<ManualClock>) -> Port {
    let world = open_bus(disk, clock);
    world.bus.ensure_topic(&crate::tests::topic("orders"), TopicConfig::default()).expect("topic");
    let port =
        EmbeddedBus::open(world.bus.clone(), ProjectId::new("home").expect("a project")).expect("opens");
    Port { world, port }
}

pub fn fresh() -> Port {
    open(Arc::new(SimDisk::new(1)), Arc::new(ManualClock::new(START_MS)))
}

/// A message of a tenant.
pub fn message(owner: &str, body: &str) -> Message {
    Message {
        tenant: tenant(owner),
        attributes: Attributes::default(),
        ordering_key: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// Some messages at once, without waiting.
pub fn limits(max_messages: usize) -> PullLimits {
    PullLimits {
        max_messages,
        max_bytes: 1 << 20,
        wait: Duration::ZERO,
        ack_deadline: None,
        consumer: Consumer::Call,
    }
}

/// A pull that brings one message of an ordering key at a time.
pub fn singly() -> PullLimits {
    PullLimits { consumer: Consumer::Single, ..limits(9) }
}

pub fn body(received: &Received) -> &str {
    std::str::from_utf8(&received.message.body).expect("text")
}

pub fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(body).collect()
}

pub fn ids(received: &[Received]) -> Vec<AckId> {
    received.iter().map(|r| r.ack_id).collect()
}

impl Port {
    /// Closes cleanly and opens again.
    pub async fn restart(self) -> Port {
        self.world.bus.close().await.expect("closes");
        let (disk, clock) = (self.world.disk.clone(), self.world.clock.clone());
        drop(self);
        open(disk, clock)
    }

    pub async fn topic(&self, topic: &str) -> ResourceName {
        let topic = name(topic);
        self.port.create_topic(TopicSpec::new(topic.clone())).await.expect("a topic");
        topic
    }

    /// Makes a subscription with settings.
    pub async fn subscribe(
        &self,
        subscription: &str,
        topic: &ResourceName,
        set: impl FnOnce(&mut SubscriptionSpec),
    ) -> Arc<dyn SubscriptionPort> {
        let mut spec = SubscriptionSpec::new(name(subscription), topic.clone());
        set(&mut spec);
        self.port.create_subscription(spec).await.expect("a subscription");
        self.open_subscription(subscription)
    }

    pub fn open_subscription(&self, subscription: &str) -> Arc<dyn SubscriptionPort> {
        self.port.subscription(&name(subscription)).expect("there")
    }

    pub async fn try_publish(
        &self,
        topic: &ResourceName,
        messages: Vec<Message>,
    ) -> Result<Vec<u64>, PortError> {
        let publication = |message: Message| {
            Publication::new(TenantContext::system(message.tenant.clone(), "test"), message)
        };
        let items = messages.into_iter().map(publication).collect();
        let results = self.port.publish(topic, items).await?;
        Ok(results.into_iter().map(|result| result.expect("accepted")).collect())
    }

    pub async fn publish(&self, topic: &ResourceName, bodies: &[&str]) -> Vec<u64> {
        let messages = bodies.iter().map(|body| message("acme", body)).collect();
        self.try_publish(topic, messages).await.expect("published")
    }

    /// Waits until what was published can be read: that is a moment after the answer.
    pub async fn visible(&self, topic: &ResourceName) {
        let log = self.port.inner.topic(topic).expect("a topic").log;
        let committed = log.committed.load(std::sync::atomic::Ordering::Acquire);
        let mut end = self.world.bus.inner.log.watch(log.id);
        end.wait_for(|end| *end >= committed).await.expect("the log runs");
    }

    pub fn advance(&self, by: Duration) {
        self.world.clock.advance(by);
    }
}

/// Acknowledges everything and expects it to be done.
pub async fn acknowledge(subscription: &Arc<dyn SubscriptionPort>, received: &[Received]) {
    let outcomes = subscription.acknowledge(ids(received)).await.expect("acknowledges");
    assert_eq!(outcomes, vec![AckOutcome::Done; received.len()]);
}

/// Gives everything back at once.
pub async fn refuse(subscription: &Arc<dyn SubscriptionPort>, received: &[Received]) {
    let deadlines = received.iter().map(|r| (r.ack_id, Duration::ZERO)).collect();
    subscription.modify_ack_deadlines(deadlines).await.expect("gives back");
}
