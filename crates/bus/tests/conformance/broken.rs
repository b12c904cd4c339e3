//! A bus that breaks one promise, to see that the suite notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use levada_bus::port::{
    AckId, AckOutcome, BlockedKey, BusPort, Page, PageRequest, PortError, Publication, PullLimits, Received,
    SeekTo, SnapshotSpec, SubscriptionPort, SubscriptionSpec, SubscriptionStats, TopicSpec, Unblock,
};
use levada_core::{Problem, ProjectId, ResourceName, TenantId};
use levada_testkit::bus_conformance::{Platform, Running, Traits};

use crate::platform::Simulated;

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, to see that the wrapper itself is harmless.
    None,
    /// Answers every tenth acknowledgement of all without making it.
    DropsAcknowledgements,
    /// Delivers messages of one key at once.
    IgnoresOrderingKeys,
    /// Stores the messages of a publish in the opposite order, and answers as if it had not.
    Reorders,
    /// Takes any lease's acknowledgement where only the newest counts.
    IsNotExactlyOnce,
    /// Delivers what a filter leaves out.
    IgnoresFilters,
    /// Delivers messages of all tenants to the subscription of one.
    IgnoresTenants,
    /// Redelivers at once.
    IgnoresRetryPolicies,
    /// Delivers for ever.
    HasNoDeadLetters,
    /// Gives every lease the deadline of the subscription.
    IgnoresDeadlinesOfPulls,
    /// Gives nothing back.
    IgnoresNacks,
    /// Ends a list with its first page.
    EndsLists,
    /// Answers a seek and does nothing.
    IgnoresSeeks,
    /// Says that all is well with every id.
    AcceptsEveryId,
    /// Delivers each message twice.
    Duplicates,
    /// Counts no attempts.
    ForgetsAttempts,
    /// Keeps what is published twice.
    IgnoresDeduplication,
    /// Begins every replay with the first message there is.
    ReplaysEverything,
}

/// The embedded bus on the simulated disk, with a fault between it and the suite.
pub struct Broken(pub Fault);

impl Platform for Broken {
    fn traits(&self) -> Traits {
        let name = format!("a bus with the fault {:?}", self.0);
        Traits { name, ..self.simulated().traits() }
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Running>>> {
        Box::pin(async {
            let inner = self.simulated().open().await?;
            let running = BrokenRunning { inner, fault: self.0, acknowledged: Arc::default() };
            Ok(Box::new(running) as Box<dyn Running>)
        })
    }
}

impl Broken {
    fn simulated(&self) -> Simulated {
        // What is lost does not come however long one waits.
        let patience = (self.0 != Fault::None).then_some(Duration::from_secs(1));
        Simulated { patience }
    }
}

struct BrokenRunning {
    inner: Box<dyn Running>,
    fault: Fault,
    acknowledged: Arc<AtomicUsize>,
}

impl Running for BrokenRunning {
    fn port(&self) -> Arc<dyn BusPort> {
        let acknowledged = self.acknowledged.clone();
        Arc::new(BrokenBus { inner: self.inner.port(), fault: self.fault, acknowledged })
    }

    fn now_ms(&self) -> i64 {
        self.inner.now_ms()
    }

    fn pass(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.inner.pass(by)
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<()>> {
        self.inner.restart()
    }

    fn maintain(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.maintain()
    }
}

struct BrokenBus {
    inner: Arc<dyn BusPort>,
    fault: Fault,
    acknowledged: Arc<AtomicUsize>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, PortError>>;

impl BrokenBus {
    fn page<T>(&self, page: Page<T>) -> Page<T> {
        let next = page.next.filter(|_| self.fault != Fault::EndsLists);
        Page { next, ..page }
    }

    /// The settings that the bus inside is given.
    fn spoil(&self, spec: SubscriptionSpec) -> SubscriptionSpec {
        match self.fault {
            Fault::IgnoresOrderingKeys => SubscriptionSpec { ordered: false, ..spec },
            Fault::IsNotExactlyOnce => SubscriptionSpec { exactly_once: false, ..spec },
            Fault::IgnoresFilters => SubscriptionSpec { filter: String::new(), ..spec },
            Fault::IgnoresTenants => SubscriptionSpec { tenant: None, ..spec },
            Fault::IgnoresRetryPolicies => SubscriptionSpec { retry: None, ..spec },
            Fault::HasNoDeadLetters => SubscriptionSpec { dead_letter: None, ..spec },
            _ => spec,
        }
    }
}

impl BusPort for BrokenBus {
    fn create_topic(&self, spec: TopicSpec) -> Answer<'_, TopicSpec> {
        if self.fault == Fault::IgnoresDeduplication {
            return self.inner.create_topic(TopicSpec { deduplication: None, ..spec });
        }
        self.inner.create_topic(spec)
    }
    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError> {
        self.inner.topic(name)
    }
    fn update_topic(&self, spec: TopicSpec) -> Answer<'_, TopicSpec> {
        self.inner.update_topic(spec)
    }
    fn delete_topic(&self, name: &ResourceName) -> Answer<'_, ()> {
        self.inner.delete_topic(name)
    }
    fn topics(&self, project: &ProjectId, page: &PageRequest) -> Page<TopicSpec> {
        self.page(self.inner.topics(project, page))
    }
    fn topic_subscriptions(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        Ok(self.page(self.inner.topic_subscriptions(topic, page)?))
    }
    fn topic_snapshots(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        Ok(self.page(self.inner.topic_snapshots(topic, page)?))
    }

    fn publish(
        &self,
        topic: &ResourceName,
        mut items: Vec<Publication>,
    ) -> Answer<'_, Vec<Result<u64, Problem>>> {
        match self.fault {
            Fault::Reorders => items.reverse(),
            Fault::Duplicates => {
                let twice = self.inner.publish(topic, items.clone());
                let topic = topic.clone();
                return Box::pin(async move {
                    twice.await?;
                    self.inner.publish(&topic, items).await
                });
            }
            _ => {}
        }
        self.inner.publish(topic, items)
    }

    fn create_subscription(&self, spec: SubscriptionSpec) -> Answer<'_, SubscriptionSpec> {
        let answer = spec.clone();
        self.inner.create_subscription(self.spoil(spec)).map(|made| made.map(|_| answer)).boxed()
    }
    fn create_replay(&self, spec: SubscriptionSpec, from: SeekTo) -> Answer<'_, SubscriptionSpec> {
        let everything = self.fault == Fault::ReplaysEverything;
        self.inner.create_replay(spec, if everything { SeekTo::TimeMs(0) } else { from })
    }
    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError> {
        let inner = self.inner.subscription(name)?;
        let acknowledged = self.acknowledged.clone();
        Ok(Arc::new(BrokenSubscription { inner, fault: self.fault, acknowledged }))
    }
    fn update_subscription(&self, spec: SubscriptionSpec) -> Answer<'_, SubscriptionSpec> {
        let answer = spec.clone();
        self.inner.update_subscription(self.spoil(spec)).map(|made| made.map(|_| answer)).boxed()
    }
    fn delete_subscription(&self, name: &ResourceName) -> Answer<'_, ()> {
        self.inner.delete_subscription(name)
    }
    fn detach_subscription(&self, name: &ResourceName) -> Answer<'_, ()> {
        self.inner.detach_subscription(name)
    }
    fn subscriptions(&self, project: &ProjectId, page: &PageRequest) -> Page<SubscriptionSpec> {
        self.page(self.inner.subscriptions(project, page))
    }
    fn push_subscriptions(&self) -> Vec<ResourceName> {
        self.inner.push_subscriptions()
    }
    fn seek(&self, subscription: &ResourceName, to: SeekTo) -> Answer<'_, ()> {
        if self.fault == Fault::IgnoresSeeks {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.inner.seek(subscription, to)
    }

    fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> Answer<'_, SnapshotSpec> {
        self.inner.create_snapshot(name, subscription, labels)
    }
    fn snapshot(&self, name: &ResourceName) -> Result<SnapshotSpec, PortError> {
        self.inner.snapshot(name)
    }
    fn update_snapshot(&self, spec: SnapshotSpec) -> Answer<'_, SnapshotSpec> {
        self.inner.update_snapshot(spec)
    }
    fn delete_snapshot(&self, name: &ResourceName) -> Answer<'_, ()> {
        self.inner.delete_snapshot(name)
    }
    fn snapshots(&self, project: &ProjectId, page: &PageRequest) -> Page<SnapshotSpec> {
        self.page(self.inner.snapshots(project, page))
    }
}

struct BrokenSubscription {
    inner: Arc<dyn SubscriptionPort>,
    fault: Fault,
    /// Of all subscriptions.
    acknowledged: Arc<AtomicUsize>,
}

impl SubscriptionPort for BrokenSubscription {
    fn spec(&self) -> Arc<SubscriptionSpec> {
        self.inner.spec()
    }

    fn pull(&self, limits: PullLimits) -> Answer<'_, Vec<Received>> {
        let limits = match self.fault {
            Fault::IgnoresDeadlinesOfPulls => PullLimits { ack_deadline: None, ..limits },
            _ => limits,
        };
        let forgets = self.fault == Fault::ForgetsAttempts;
        let forget = move |received: Received| Received {
            delivery_attempt: if forgets { 1 } else { received.delivery_attempt },
            ..received
        };
        let pulled = self.inner.pull(limits);
        pulled.map(move |pulled| Ok(pulled?.into_iter().map(forget).collect())).boxed()
    }

    fn acknowledge(&self, ack_ids: Vec<AckId>) -> Answer<'_, Vec<AckOutcome>> {
        let count = ack_ids.len();
        match self.fault {
            Fault::DropsAcknowledgements => {
                let keep = |_: &AckId| self.acknowledged.fetch_add(1, Ordering::Relaxed) % 10 != 9;
                let kept: Vec<bool> = ack_ids.iter().map(keep).collect();
                let passed = ack_ids.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(id, _)| id);
                let outcomes = self.inner.acknowledge(passed.collect());
                Box::pin(async move {
                    let mut outcomes = outcomes.await?.into_iter();
                    let outcome = |kept: bool| if kept { outcomes.next() } else { Some(AckOutcome::Done) };
                    Ok(kept.into_iter().filter_map(outcome).collect())
                })
            }
            Fault::AcceptsEveryId => {
                let outcomes = self.inner.acknowledge(ack_ids);
                outcomes.map(move |outcomes| outcomes.map(|_| vec![AckOutcome::Done; count])).boxed()
            }
            _ => self.inner.acknowledge(ack_ids),
        }
    }

    fn modify_ack_deadlines(&self, deadlines: Vec<(AckId, Duration)>) -> Answer<'_, Vec<AckOutcome>> {
        let count = deadlines.len();
        match self.fault {
            Fault::IgnoresNacks => {
                let passed = deadlines.into_iter().filter(|(_, by)| !by.is_zero()).collect();
                let outcomes = self.inner.modify_ack_deadlines(passed);
                outcomes.map(move |outcomes| outcomes.map(|_| vec![AckOutcome::Done; count])).boxed()
            }
            _ => self.inner.modify_ack_deadlines(deadlines),
        }
    }

    fn stats(&self) -> SubscriptionStats {
        self.inner.stats()
    }
    fn blocked_keys(&self, limit: usize) -> Vec<BlockedKey> {
        self.inner.blocked_keys(limit)
    }
    fn unblock(&self, tenant: &TenantId, key: &str, how: Unblock) -> Answer<'_, ()> {
        self.inner.unblock(tenant, key, how)
    }
    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }
}
