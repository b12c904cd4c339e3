//! What the console is told of subscriptions.

use serde::{Deserialize, Serialize};

use crate::data::Health;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// `project/id`; names the subscription in addresses.
    pub name: String,
    /// `shared`, or the tenant.
    pub owner: String,
    /// `None`: it was deleted.
    pub topic: Option<String>,
    /// How messages leave it, such as `pull` or `push, ordered`.
    pub delivery: String,
    /// Messages that are not acknowledged.
    pub backlog: u64,
    /// Whether the backlog is exact; else it is shown as an estimate.
    pub backlog_is_exact: bool,
    /// Age of the oldest message that is not acknowledged.
    pub oldest_s: Option<u64>,
    pub delivered_per_s: f64,
    pub acknowledged_per_s: f64,
    pub leased: u64,
    /// Since the platform was started, as is what follows.
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    /// Leases that ended by their deadline.
    pub expired: u64,
    pub dead_lettered: u64,
    /// Keys whose messages wait now.
    pub blocked_keys: u64,
    pub health: Health,
    /// Why, where health is not good.
    pub note: Option<String>,
    /// It delivers once more what another one got.
    #[serde(default)]
    pub replay: Option<ReplayMark>,
}

/// What a replay is of, and whether it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayMark {
    /// `project/id` of the subscription that is replayed.
    pub source: String,
    pub finished: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriptionDetail {
    pub row: SubscriptionRow,
    /// Settings by name, in the order to show them.
    pub settings: Vec<(String, String)>,
    pub lanes: Vec<LaneRow>,
    /// Weights of tenants, at most a hundred; others count 1.
    #[serde(default)]
    pub weights: Vec<(String, u32)>,
    /// The longest blocked first, at most a hundred.
    pub blocked: Vec<BlockedRow>,
    /// There is a dead-letter policy to park messages by.
    pub can_park: bool,
}

/// Delivery to one tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaneRow {
    pub tenant: String,
    pub weight: u32,
    pub backlog: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
    /// Of all bytes delivered to tenants that the principal sees, 0 to 1.
    pub share: f64,
}

/// An ordering key whose messages wait for one that is on lease or fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockedRow {
    pub tenant: String,
    pub key: String,
    /// The message that blocks it.
    pub message_id: String,
    pub attempt: u32,
    pub waiting: u64,
    pub since_ms: i64,
}

/// What becomes of the message that blocks a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblock {
    /// It is acknowledged.
    Skip,
    /// It goes to the dead letter, with what waits behind it.
    Park,
}
