//! The calls of the port.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use levada_core::{Problem, ProjectId, ResourceName, TenantSet, TopicName};

use crate::embedded::EmbeddedBus;
use crate::embedded::catalog::page;
use crate::embedded::deliver::Handle;
use crate::port::{
    BusPort, KeyScope, Page, PageRequest, Peeked, PortError, Publication, SeekTo, SnapshotSpec,
    SubscriptionPort, SubscriptionSpec, TopicSpec,
};

impl BusPort for EmbeddedBus {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.change(move |inner| inner.create_topic(spec))
    }

    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError> {
        Ok(self.inner.topic(name)?.spec)
    }

    fn default_ordering(&self) -> KeyScope {
        self.inner.bus.inner.config.ordering
    }

    fn update_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.change(move |inner| inner.update_topic(spec))
    }

    fn delete_topic(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        let name = name.clone();
        self.change(move |inner| inner.delete_topic(&name))
    }

    fn topics(&self, project: &ProjectId, request: &PageRequest) -> Page<TopicSpec> {
        page(&self.inner.topics_of(project), request, |_, topic| Some(topic.spec.clone()))
    }

    fn is_visible(&self, topic: &ResourceName, tenants: &TenantSet) -> bool {
        let named = TopicName::new(topic.id.as_str()).ok().filter(|_| topic.project == self.inner.home);
        named.is_none_or(|name| self.inner.bus.is_visible(&name, tenants))
    }

    fn topic_subscriptions(
        &self,
        topic: &ResourceName,
        request: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.inner.topic(topic)?;
        let of_topic = |name: &ResourceName, spec: &SubscriptionSpec| {
            (spec.topic.as_ref() == Some(topic) && !spec.detached).then(|| name.clone())
        };
        let catalog = self.inner.catalog.read();
        Ok(page(&catalog.subscriptions, request, |name, s| of_topic(name, &s.spec())))
    }

    fn topic_snapshots(
        &self,
        topic: &ResourceName,
        request: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.inner.topic(topic)?;
        let catalog = self.inner.catalog.read();
        let of_topic = |spec: &SnapshotSpec| spec.topic.as_ref() == Some(topic);
        Ok(page(&catalog.snapshots, request, |name, s| of_topic(&s.spec).then(|| name.clone())))
    }

    fn publish(
        &self,
        topic: &ResourceName,
        items: Vec<Publication>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, Problem>>, PortError>> {
        let topic = match self.inner.topic(topic) {
            Ok(topic) => topic,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let inner = self.inner.clone();
        Box::pin(async move {
            // To the end, also when the caller is gone.
            let published = tokio::spawn(inner.publish(topic, items)).await;
            published.map_err(|error| PortError::Internal(error.to_string()))?
        })
    }

    fn peek(
        &self,
        topic: &ResourceName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Peeked>, PortError> {
        let topic = self.inner.topic(topic)?;
        self.inner.peek(&topic.log, before, limit)
    }

    fn create_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.change(move |inner| inner.create_subscription(spec))
    }

    fn create_replay(
        &self,
        spec: SubscriptionSpec,
        from: SeekTo,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        Box::pin(async move {
            let source = spec.replay.as_ref().and_then(|replay| self.inner.subscription(&replay.source).ok());
            if let Some(source) = source {
                self.inner.settle_publishes(&source).await;
            }
            self.change(move |inner| inner.create_replay(spec, &from)).await
        })
    }

    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError> {
        let subscription = self.inner.subscription(name)?;
        Ok(Arc::new(Handle { embedded: self.inner.clone(), subscription }))
    }

    fn update_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.change(move |inner| inner.update_subscription(spec))
    }

    fn delete_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        let name = name.clone();
        self.change(move |inner| inner.delete_subscription(&name))
    }

    fn detach_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        let name = name.clone();
        self.change(move |inner| inner.detach_subscription(&name))
    }

    fn subscriptions(&self, project: &ProjectId, request: &PageRequest) -> Page<SubscriptionSpec> {
        let catalog = self.inner.catalog.read();
        page(&catalog.subscriptions, request, |name, s| {
            (name.project == *project).then(|| (*s.spec()).clone())
        })
    }

    fn all_subscriptions(&self, request: &PageRequest) -> Page<SubscriptionSpec> {
        let catalog = self.inner.catalog.read();
        page(&catalog.subscriptions, request, |_, s| Some((*s.spec()).clone()))
    }

    fn push_subscriptions(&self) -> Vec<ResourceName> {
        let catalog = self.inner.catalog.read();
        let pushing = catalog.subscriptions.values().map(|s| s.spec()).filter(|spec| spec.push.is_some());
        pushing.map(|spec| spec.name.clone()).collect()
    }

    fn seek(&self, subscription: &ResourceName, to: SeekTo) -> BoxFuture<'_, Result<(), PortError>> {
        let name = subscription.clone();
        Box::pin(async move {
            self.inner.settle_publishes(&*self.inner.subscription(&name)?).await;
            self.change(move |inner| inner.seek(&name, &to)).await
        })
    }

    fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        let subscription = subscription.clone();
        Box::pin(async move {
            // A name that is taken is told of first, as everywhere.
            if let Ok(subscription) = self.inner.subscription(&subscription) {
                self.inner.settle_publishes(&subscription).await;
            }
            self.change(move |inner| inner.create_snapshot(name, &subscription, labels)).await
        })
    }

    fn snapshot(&self, name: &ResourceName) -> Result<SnapshotSpec, PortError> {
        Ok(self.inner.snapshot(name)?.spec)
    }

    fn update_snapshot(&self, spec: SnapshotSpec) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        self.change(move |inner| inner.update_snapshot(spec))
    }

    fn delete_snapshot(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        let name = name.clone();
        self.change(move |inner| inner.delete_snapshot(&name))
    }

    fn snapshots(&self, project: &ProjectId, request: &PageRequest) -> Page<SnapshotSpec> {
        let catalog = self.inner.catalog.read();
        page(&catalog.snapshots, request, |name, s| (name.project == *project).then(|| s.spec.clone()))
    }
}
