//! The port of the event bus: topics, subscriptions and snapshots of projects, by the
//! semantics of Google Cloud Pub/Sub v1.
//!
//! Edges and engines speak to [`BusPort`]; the embedded log is one adapter of it. A project
//! is a namespace. What a caller may do is decided before it comes here, except for tenancy:
//! a publish carries the context of its tenant, and a subscription that belongs to a tenant
//! delivers that tenant's messages and no other's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use levada_core::{Message, Problem, ResourceName, TenantContext, TenantId};
use serde::{Deserialize, Serialize};

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

/// When an accepted message is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Answered after the fsync of its commit group.
    #[default]
    Fsync,
    /// Answered once written; fsynced within the log's interval. A power loss may take the last of them.
    Interval,
    /// Answered once in memory. A crash of the process may take the last of them.
    Memory,
}

/// Publish-side deduplication of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deduplication {
    /// Messages of one tenant with the same value of this attribute are one.
    pub attribute: String,
    /// 1 s to 7 days.
    pub window: Duration,
}

/// A topic as a user sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicSpec {
    pub name: ResourceName,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long messages are kept also when every subscription has acknowledged them.
    #[serde(default)]
    pub retention: Option<Duration>,
    #[serde(default)]
    pub schema: Option<SchemaSettings>,
    #[serde(default)]
    pub durability: Durability,
    #[serde(default)]
    pub deduplication: Option<Deduplication>,
    /// Kept and given back; nothing runs by them here.
    #[serde(default)]
    pub kms_key_name: String,
    #[serde(default)]
    pub allowed_persistence_regions: Vec<String>,
}

impl TopicSpec {
    pub fn new(name: ResourceName) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            retention: None,
            schema: None,
            durability: Durability::default(),
            deduplication: None,
            kms_key_name: String::new(),
            allowed_persistence_regions: Vec::new(),
        }
    }
}

/// The encoding of messages under a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Json,
    Binary,
}

/// By which schema the messages of a topic are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaSettings {
    /// The full resource name, or `_deleted-schema_`.
    pub schema: String,
    pub encoding: Encoding,
    /// Empty: the first revision there is.
    #[serde(default)]
    pub first_revision_id: String,
    /// Empty: the latest.
    #[serde(default)]
    pub last_revision_id: String,
}

/// Delay before a message that failed is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// 0 to 600 s.
    pub minimum_backoff: Duration,
    /// 0 to 600 s, not below the minimum.
    pub maximum_backoff: Duration,
}

/// Where messages go that fail too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterPolicy {
    pub topic: ResourceName,
    /// 5 to 100.
    pub max_delivery_attempts: u32,
}

/// An endpoint that messages are posted to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushConfig {
    pub endpoint: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub oidc: Option<OidcToken>,
    #[serde(default)]
    pub no_wrapper: Option<NoWrapper>,
}

/// The token that a push carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcToken {
    pub service_account_email: String,
    #[serde(default)]
    pub audience: String,
}

/// The message's bytes are the request's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoWrapper {
    pub write_metadata: bool,
}

/// A subscription as a user sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    pub name: ResourceName,
    /// `None`: the topic was deleted.
    pub topic: Option<ResourceName>,
    /// Only this tenant's messages: the implied filter of a subscription that a tenant owns.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// 10 to 600 s.
    pub ack_deadline: Duration,
    #[serde(default)]
    pub retain_acked: bool,
    /// 10 min to 31 days.
    pub retention: Duration,
    #[serde(default)]
    pub ordered: bool,
    #[serde(default)]
    pub exactly_once: bool,
    /// Empty: everything.
    #[serde(default)]
    pub filter: String,
    /// `None`: again at once.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    #[serde(default)]
    pub dead_letter: Option<DeadLetterPolicy>,
    /// `None`: never. The subscription goes after this time without any activity.
    #[serde(default)]
    pub expires_after: Option<Duration>,
    #[serde(default)]
    pub push: Option<PushConfig>,
    #[serde(default)]
    pub detached: bool,
    /// Shares of tenants in delivery; 1 where a tenant is not named.
    #[serde(default)]
    pub weights: BTreeMap<TenantId, u32>,
}

impl SubscriptionSpec {
    /// With Pub/Sub's defaults: 10 s, 7 days, expiry after 31 days.
    pub fn new(name: ResourceName, topic: ResourceName) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            name,
            topic: Some(topic),
            tenant: None,
            labels: BTreeMap::new(),
            ack_deadline: Duration::from_secs(10),
            retain_acked: false,
            retention: 7 * DAY,
            ordered: false,
            exactly_once: false,
            filter: String::new(),
            retry: None,
            dead_letter: None,
            expires_after: Some(31 * DAY),
            push: None,
            detached: false,
            weights: BTreeMap::new(),
        }
    }
}

/// A remembered state of acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    pub name: ResourceName,
    pub topic: Option<ResourceName>,
    /// As of the subscription that it was made from.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    pub expires_at_ms: i64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A message with the proof that its publisher may act for its tenant.
#[derive(Debug, Clone)]
pub struct Publication {
    pub context: TenantContext,
    pub message: Message,
}

/// Where to seek to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekTo {
    /// Messages published before are acknowledged, those at or after are not. Milliseconds since the epoch.
    TimeMs(i64),
    Snapshot(ResourceName),
}

/// How much a pull may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    pub max_messages: usize,
    /// Of bodies and attributes; the first message always fits.
    pub max_bytes: usize,
    /// How long to wait for the first message; zero: not at all.
    pub wait: Duration,
    /// `None`: the subscription's.
    pub ack_deadline: Option<Duration>,
}

/// Names one lease. Another delivery of the message has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AckId(pub u64);

/// A message on lease.
#[derive(Debug, Clone)]
pub struct Received {
    pub ack_id: AckId,
    /// Unique in its topic, the same at each delivery; what the publish answered.
    pub message_id: u64,
    pub published_at_ms: i64,
    /// 1 at the first delivery.
    pub delivery_attempt: u32,
    pub message: Message,
}

/// A message that was looked at and not leased.
#[derive(Debug, Clone)]
pub struct Peeked {
    /// As of [`Received::message_id`].
    pub message_id: u64,
    pub published_at_ms: i64,
    pub message: Message,
}

/// What became of an ack id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Done. With exactly-once: on disk.
    Done,
    /// The lease has ended, another delivery is newer, or there never was one.
    InvalidAckId,
    /// Could not be made durable now: try again.
    TransientFailure,
}

/// A key whose messages wait for one that is on lease or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedKey {
    pub tenant: TenantId,
    pub key: String,
    pub message_id: u64,
    pub delivery_attempt: u32,
    pub waiting: u64,
    pub since_ms: i64,
}

/// What to do with the message that blocks a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblock {
    /// Acknowledge it.
    Skip,
    /// Move it, and what follows it by then, to the dead letter.
    Park,
}

/// Figures of a subscription now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscriptionStats {
    /// Not acknowledged, whether on lease or not. With a filter or a tenant an upper bound:
    /// `unscanned` of it may be for somebody else.
    pub backlog_messages: u64,
    /// Of the backlog, messages of the topic that were not looked at for this subscription yet.
    pub unscanned: u64,
    pub leased: u64,
    /// `None`: nothing is unacknowledged.
    pub oldest_unacked_ms: Option<i64>,
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    pub expired: u64,
    pub dead_lettered: u64,
    pub blocked_keys: u64,
    pub by_tenant: BTreeMap<TenantId, LaneDelivery>,
}

/// Delivery to one tenant's lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneDelivery {
    pub backlog_messages: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
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

/// The event bus.
pub trait BusPort: Send + Sync {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>>;
    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError>;
    /// Replaces the settings of a topic.
    fn update_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>>;
    /// Its subscriptions live on without topic; their backlog can still be pulled.
    fn delete_topic(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>>;
    fn topics(&self, project: &levada_core::ProjectId, page: &PageRequest) -> Page<TopicSpec>;
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
    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError>;
    /// Replaces the settings. Topic, filter, ordering and tenant cannot change.
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
