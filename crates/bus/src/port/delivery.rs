//! What goes in and what comes out: publications, leases and figures.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_core::{Message, ResourceName, TenantContext, TenantId};

/// A message with the proof that its publisher may act for its tenant.
#[derive(Debug, Clone)]
pub struct Publication {
    pub context: TenantContext,
    pub message: Message,
    /// Whether the topic's deduplication looks at it. Not where a message is sent again on
    /// purpose: it would be taken for its first publish.
    pub deduplicate: bool,
}

impl Publication {
    pub fn new(context: TenantContext, message: Message) -> Self {
        Self { context, message, deduplicate: true }
    }

    /// A message that was taken out, sent once more.
    pub fn again(context: TenantContext, message: Message) -> Self {
        Self { context, message, deduplicate: false }
    }
}

/// Where to seek to, or where a replay begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekTo {
    /// Messages published before are acknowledged, those at or after are not. Milliseconds since the epoch.
    TimeMs(i64),
    Snapshot(ResourceName),
}

/// Who pulls, as far as ordering keys go. Messages of a key come in order, and while some of
/// them are on lease only who has those gets the next ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consumer {
    /// One message of a key at a time: the next comes when the one before is acknowledged.
    Single,
    /// One pull brings several messages of a key; another brings the next ones when the leases of
    /// those have ended.
    #[default]
    Call,
    /// As [`Consumer::Call`]; besides, the further pulls of the same number bring the next ones
    /// while the earlier ones are on lease.
    Stream(u64),
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
    pub consumer: Consumer,
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
    /// Of a replay: whether everything that belongs to it is acknowledged.
    pub replay_finished: Option<bool>,
    pub by_tenant: BTreeMap<TenantId, LaneDelivery>,
}

/// Delivery to one tenant's lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneDelivery {
    pub backlog_messages: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
}
