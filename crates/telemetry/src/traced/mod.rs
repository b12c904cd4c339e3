//! The bus with traces: a span for each publish, and one for each delivery when it is settled.
//!
//! A decorator, so that a bus without export is the bus itself. Messages pass unchanged; which
//! trace they belong to is found again at delivery (see [`crate::context`]).

mod leases;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use levada_bus::port::{
    BusPort, KeyScope, Page, PageRequest, Peeked, PortError, Publication, SeekTo, SnapshotSpec,
    SubscriptionPort, SubscriptionSpec, TopicSpec,
};
use levada_core::{Problem, ProjectId, ResourceName, TenantSet};
use parking_lot::Mutex;

use self::leases::{Leases, Room};
use self::subscription::TracedSubscription;
use crate::publish::{Drafts, Outcome};
use crate::tracer::Tracer;

/// Deliveries that wait for their acknowledgement, of all subscriptions together.
const MAX_OPEN: usize = 32_768;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct TracedBus {
    inner: Arc<dyn BusPort>,
    tracer: Tracer,
    open: Arc<Open>,
}

/// The deliveries of all subscriptions that are traced and not settled.
struct Open {
    room: Arc<Room>,
    by_name: Mutex<HashMap<ResourceName, Arc<Leases>, ahash::RandomState>>,
}

impl Open {
    /// All handles of a subscription share its leases.
    fn of(&self, name: &ResourceName) -> Arc<Leases> {
        let mut by_name = self.by_name.lock();
        if let Some(leases) = by_name.get(name) {
            return leases.clone();
        }
        let leases = Arc::new(Leases::new(name, self.room.clone()));
        by_name.insert(name.clone(), leases.clone());
        leases
    }

    /// Ends spans of leases that are over, and forgets subscriptions that nobody uses.
    fn sweep(&self, tracer: &Tracer) {
        let all: Vec<Arc<Leases>> = self.by_name.lock().values().cloned().collect();
        all.iter().for_each(|leases| leases.sweep(tracer));
        drop(all);
        // Under the lock nobody gets another handle of what is counted as unused.
        self.by_name.lock().retain(|_, leases| Arc::strong_count(leases) > 1 || !leases.is_empty());
    }
}

impl TracedBus {
    /// Must be called on a runtime: leases that are over are looked for in the background until
    /// the bus is dropped.
    pub fn new(inner: Arc<dyn BusPort>, tracer: Tracer) -> Self {
        let open = Arc::new(Open { room: Arc::new(Room::new(MAX_OPEN)), by_name: Mutex::default() });
        let (swept, by): (Weak<Open>, Tracer) = (Arc::downgrade(&open), tracer.clone());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(open) = swept.upgrade() else { return };
                open.sweep(&by);
            }
        });
        Self { inner, tracer, open }
    }
}

impl BusPort for TracedBus {
    fn publish(
        &self,
        topic: &ResourceName,
        items: Vec<Publication>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, Problem>>, PortError>> {
        let messages = items.iter().map(|item| &item.message);
        let Some(drafts) = Drafts::of(&self.tracer, topic, messages, None) else {
            return self.inner.publish(topic, items);
        };
        let published = self.inner.publish(topic, items);
        Box::pin(async move {
            let result = published.await;
            match &result {
                Ok(outcomes) => drafts.finish(&self.tracer, outcomes.iter().map(Outcome::from)),
                Err(error) => drafts.fail(&self.tracer, type_of(error)),
            }
            result
        })
    }

    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError> {
        let inner = self.inner.subscription(name)?;
        Ok(Arc::new(TracedSubscription::new(inner, self.tracer.clone(), self.open.of(name))))
    }

    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.inner.create_topic(spec)
    }

    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError> {
        self.inner.topic(name)
    }

    fn update_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.inner.update_topic(spec)
    }

    fn delete_topic(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.delete_topic(name)
    }

    fn topics(&self, project: &ProjectId, page: &PageRequest) -> Page<TopicSpec> {
        self.inner.topics(project, page)
    }

    fn default_ordering(&self) -> KeyScope {
        self.inner.default_ordering()
    }

    fn is_visible(&self, topic: &ResourceName, tenants: &TenantSet) -> bool {
        self.inner.is_visible(topic, tenants)
    }

    fn topic_subscriptions(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.inner.topic_subscriptions(topic, page)
    }

    fn topic_snapshots(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.inner.topic_snapshots(topic, page)
    }

    fn peek(
        &self,
        topic: &ResourceName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Peeked>, PortError> {
        self.inner.peek(topic, before, limit)
    }

    fn create_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.inner.create_subscription(spec)
    }

    fn create_replay(
        &self,
        spec: SubscriptionSpec,
        from: SeekTo,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.inner.create_replay(spec, from)
    }

    fn update_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.inner.update_subscription(spec)
    }

    fn delete_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.delete_subscription(name)
    }

    fn detach_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.detach_subscription(name)
    }

    fn subscriptions(&self, project: &ProjectId, page: &PageRequest) -> Page<SubscriptionSpec> {
        self.inner.subscriptions(project, page)
    }

    fn all_subscriptions(&self, page: &PageRequest) -> Page<SubscriptionSpec> {
        self.inner.all_subscriptions(page)
    }

    fn push_subscriptions(&self) -> Vec<ResourceName> {
        self.inner.push_subscriptions()
    }

    fn seek(&self, subscription: &ResourceName, to: SeekTo) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.seek(subscription, to)
    }

    fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        self.inner.create_snapshot(name, subscription, labels)
    }

    fn snapshot(&self, name: &ResourceName) -> Result<SnapshotSpec, PortError> {
        self.inner.snapshot(name)
    }

    fn update_snapshot(&self, spec: SnapshotSpec) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        self.inner.update_snapshot(spec)
    }

    fn delete_snapshot(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.delete_snapshot(name)
    }

    fn snapshots(&self, project: &ProjectId, page: &PageRequest) -> Page<SnapshotSpec> {
        self.inner.snapshots(project, page)
    }
}

fn type_of(error: &PortError) -> &'static str {
    match error {
        PortError::NotFound { .. } => "not_found",
        PortError::AlreadyExists { .. } => "already_exists",
        PortError::InvalidArgument(_) | PortError::TooLarge(_) => "invalid_argument",
        PortError::FailedPrecondition(_) => "failed_precondition",
        PortError::PermissionDenied(_) => "permission_denied",
        PortError::ResourceExhausted(_) => "resource_exhausted",
        PortError::Unavailable(_) => "unavailable",
        PortError::Internal(_) => "internal",
    }
}
