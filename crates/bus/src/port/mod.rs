//! The port of the event bus: topics, subscriptions and snapshots of projects, by the
//! semantics of Google Cloud Pub/Sub v1.
//!
//! Edges and engines speak to [`BusPort`]; the embedded log is one adapter of it. A project
//! is a namespace. What a caller may do is decided before it comes here, except for tenancy:
//! a publish carries the context of its tenant, and a subscription that belongs to a tenant
//! delivers that tenant's messages and no other's.

pub mod bounds;
mod delivery;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use levada_core::{Problem, ResourceName, TenantId, TenantSet};

pub use bounds::TooLarge;
pub use delivery::{
    AckId, AckOutcome, BlockedKey, Consumer, LaneDelivery, Peeked, Publication, PullLimits, Received, SeekTo,
    SubscriptionStats, Unblock,
};
pub use spec::{
    DeadLetterPolicy, Deduplication, Durability, Encoding, KeyScope, NoWrapper, OidcToken, PushConfig,
    Replay, RetryPolicy, SchemaSettings, SnapshotSpec, SubscriptionSpec, TopicSpec,
};

/// Why a call on the port failed. Edges turn the kind into a status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// `what` is `topic`, `subscription` or `snapshot`.
    #[error("{what} not found (resource={name})")]
    NotFound { what: &'static str, name: String },
    #[error("{what} already exists (resource={name})")]
    AlreadyExists { what: &'static str, name: String },
    #[error("{0}")]
    InvalidArgument(String),
    /// A field of a resource is larger than it may be.
    #[error("{0}")]
    TooLarge(TooLarge),
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0}")]
    PermissionDenied(String),
    /// A bound was reached; the text says which.
    #[error("{0}")]
    ResourceExhausted(String),
    /// Try again: nothing is wrong with the call.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

/// One open subscription. Cheap to share; all handles share its leases.
pub trait SubscriptionPort: Send + Sync {
    fn spec(&self) -> Arc<SubscriptionSpec>;

    /// Leases messages, waiting for the first. Empty when the wait ends. Dropping the future
    /// may leave leases that end by their deadline, never a lost message.
    fn pull(&self, limits: PullLimits) -> BoxFuture<'_, Result<Vec<Received>, PortError>>;

    /// Acknowledges. The outcomes are in the order of the ids. With exactly-once the answer
    /// comes when the acknowledgements are on disk.
    fn acknowledge(&self, ack_ids: Vec<AckId>) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>>;

    /// Moves deadlines to that long from now; zero gives the message back at once.
    fn modify_ack_deadlines(
        &self,
        deadlines: Vec<(AckId, Duration)>,
    ) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>>;

    /// May read one record from the disk.
    fn stats(&self) -> SubscriptionStats;

    /// Looks at what the topic holds beyond what is known, so that the figures get nearer to
    /// the truth while nobody pulls. Bounded; blocks on the disk.
    ///
    /// # Errors
    /// [`PortError::Unavailable`] when the topic cannot be read now.
    fn survey(&self) -> Result<(), PortError> {
        Ok(())
    }

    /// Keys that are blocked, longest first; at most `limit`.
    fn blocked_keys(&self, limit: usize) -> Vec<BlockedKey>;

    fn unblock(&self, tenant: &TenantId, key: &str, how: Unblock) -> BoxFuture<'_, Result<(), PortError>>;

    /// Resolves when the subscription was deleted, detached or changed its spec.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

/// One page of a list: the items and the name to go on after, `None` at the end.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<ResourceName>,
}

/// Which part of a list.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// 1 to 1,000; 0: 100.
    pub size: usize,
    /// The last name of the page before.
    pub after: Option<ResourceName>,
}

/// The event bus. What makes or changes a resource refuses one beyond its [`bounds`] with
/// [`PortError::TooLarge`].
pub trait BusPort: Send + Sync {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>>;
    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError>;
    /// The scope of ordering keys where a topic does not set it.
    fn default_ordering(&self) -> KeyScope {
        KeyScope::default()
    }
    /// Replaces the settings of a topic. Another scope of ordering keys ends the leases of ordered
    /// subscriptions, as a seek does.
    fn update_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>>;
    /// Its subscriptions live on without topic; their backlog can still be pulled.
    fn delete_topic(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>>;
    fn topics(&self, project: &levada_core::ProjectId, page: &PageRequest) -> Page<TopicSpec>;
    /// Whether a holder of those tenants may know of a topic in a project that it sees. What it
    /// may not know of answers as what is not there.
    fn is_visible(&self, topic: &ResourceName, tenants: &TenantSet) -> bool {
        let _ = (topic, tenants);
        true
    }
    fn topic_subscriptions(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError>;
    fn topic_snapshots(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError>;

    /// Publishes and answers once everything accepted is as safe as the topic's durability
    /// says: one message id an item, or why that item was refused. All accepted items are
    /// kept together or not at all.
    fn publish(
        &self,
        topic: &ResourceName,
        items: Vec<Publication>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, Problem>>, PortError>>;

    /// The newest messages of a topic with ids below `before`, newest first: at most `limit`,
    /// fewer when they are large; empty where there are none. Nothing is consumed. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`PortError::FailedPrecondition`] of a bus that can only be consumed.
    fn peek(
        &self,
        topic: &ResourceName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Peeked>, PortError> {
        let _ = (before, limit);
        Err(PortError::FailedPrecondition(format!(
            "messages of the topic {topic} can only be looked at by pulling from a subscription"
        )))
    }

    fn create_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>>;
    /// Makes a subscription that delivers what its `replay.source` got from some time on until
    /// now, as far back as the topic has it, without a bound of its own. It takes topic, tenant,
    /// filter and ordering from the source; of `spec` count name, rate and the other settings.
    /// What it has still to deliver stays in the topic for 31 days, whatever its retention.
    ///
    /// # Errors
    /// [`PortError::InvalidArgument`] without `replay`; as for a seek and a creation.
    fn create_replay(
        &self,
        spec: SubscriptionSpec,
        from: SeekTo,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>>;
    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError>;
    /// Replaces the settings. Topic, filter, ordering, tenant and what a replay is of cannot
    /// change.
    fn update_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>>;
    fn delete_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>>;
    fn detach_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>>;
    fn subscriptions(&self, project: &levada_core::ProjectId, page: &PageRequest) -> Page<SubscriptionSpec>;
    /// The subscriptions of all projects, in the order of their names.
    fn all_subscriptions(&self, page: &PageRequest) -> Page<SubscriptionSpec> {
        let _ = page;
        Page { items: Vec::new(), next: None }
    }
    /// The subscriptions of all projects that push, so that pushing goes on after a restart.
    fn push_subscriptions(&self) -> Vec<ResourceName> {
        Vec::new()
    }
    fn seek(&self, subscription: &ResourceName, to: SeekTo) -> BoxFuture<'_, Result<(), PortError>>;

    fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> BoxFuture<'_, Result<SnapshotSpec, PortError>>;
    fn snapshot(&self, name: &ResourceName) -> Result<SnapshotSpec, PortError>;
    fn update_snapshot(&self, spec: SnapshotSpec) -> BoxFuture<'_, Result<SnapshotSpec, PortError>>;
    fn delete_snapshot(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>>;
    fn snapshots(&self, project: &levada_core::ProjectId, page: &PageRequest) -> Page<SnapshotSpec>;
}

impl From<TooLarge> for PortError {
    fn from(field: TooLarge) -> Self {
        Self::TooLarge(field)
    }
}
