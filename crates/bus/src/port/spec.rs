//! What topics, subscriptions and snapshots are, as a user sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_core::{ResourceName, TenantId};
use serde::{Deserialize, Serialize};

/// When an accepted message is safe. Whatever it says, a message is delivered only once it is
/// on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Answered after the fsync of its commit group.
    #[default]
    Fsync,
    /// Answered once written; fsynced within 20 ms. A power loss may take the last of them.
    Interval,
    /// Answered once in memory. A crash of the process may take the last of them.
    Memory,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Interval => "interval",
            Self::Memory => "memory",
        }
    }
}

impl From<levada_log::Durability> for Durability {
    fn from(of_log: levada_log::Durability) -> Self {
        match of_log {
            levada_log::Durability::Fsync => Self::Fsync,
            levada_log::Durability::Interval => Self::Interval,
            levada_log::Durability::Memory => Self::Memory,
        }
    }
}

impl From<Durability> for levada_log::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Fsync => Self::Fsync,
            Durability::Interval => Self::Interval,
            Durability::Memory => Self::Memory,
        }
    }
}

/// Among which messages of a topic an ordering key keeps the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Those of one tenant. Tenants take turns, whatever their backlogs.
    #[default]
    Tenant,
    /// All of the topic, as with Google, who knows no tenants. Messages with a key are delivered in
    /// the order of the topic then: a tenant's wait behind those of others.
    Global,
}

impl KeyScope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Global => "global",
        }
    }
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
    /// `None`: the default of the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<KeyScope>,
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
            ordering: None,
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
    /// The most deliveries a second, above 0; `None`: as fast as they are pulled.
    #[serde(default)]
    pub max_rate_per_s: Option<u32>,
    /// It delivers once more what was published before it was made, and nothing after.
    #[serde(default)]
    pub replay: Option<Replay>,
}

/// What a replay is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The subscription whose messages come once more; it notices nothing of it.
    pub source: ResourceName,
    /// Message ids below this one belong to it: those of before the replay was made. The bus
    /// sets it.
    pub until: u64,
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
            max_rate_per_s: None,
            replay: None,
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
