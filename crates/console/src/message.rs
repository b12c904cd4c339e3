//! What the console is told of messages in a subscription's topic, and of what it may do to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Which messages to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// In the grammar of Pub/Sub filters; empty: all.
    pub filter: String,
    /// Only messages older than this one.
    pub before: Option<u64>,
    pub limit: usize,
}

/// Bytes of a body that a list needs of it.
pub const PREVIEW_BYTES: usize = 4 * 1024;

/// Messages, newest first. Of each body at least the first [`PREVIEW_BYTES`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MessagePage {
    pub messages: Vec<MessageRow>,
    /// Pass it as [`MessageFilter::before`] to go on; `None`: there are no more.
    pub before: Option<u64>,
}

/// One message of a subscription's topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageRow {
    pub message_id: u64,
    pub published_ms: i64,
    pub tenant: String,
    pub ordering_key: Option<String>,
    /// As they are in the topic.
    pub attributes: Vec<(String, String)>,
    pub body: Bytes,
    /// Of a dead letter: where it came from and why.
    pub dead: Option<DeadMark>,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeadMark {
    /// `project/id` of the subscription that it came from.
    pub source: String,
    /// Stable, such as `delivery-attempts-exhausted`; empty where nobody says.
    pub code: String,
    pub reason: String,
}

impl DeadMark {
    /// Whether an attribute is about the dead letter, not of the message itself.
    pub fn owns(attribute: &str) -> bool {
        attribute.starts_with("levada.dead.") || attribute.starts_with("CloudPubSubDeadLetterSource")
    }
}

/// Dead letters to send back to where they came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RedriveOrder {
    /// In the grammar of Pub/Sub filters; empty: all.
    pub filter: String,
    pub limit: u64,
    /// `None`: as fast as it goes.
    pub rate_per_s: Option<f64>,
}

/// What became of a redrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedriveDone {
    pub published: u64,
    /// Left alone by the filter.
    pub skipped: u64,
    /// How many were refused, with what is wrong with the first of them.
    pub refused: Vec<(u64, String)>,
    /// The limit, or the time of one call, was reached.
    pub more: bool,
}

/// What to change of a message before it is sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageEdit {
    /// `None`: as it was.
    pub body: Option<Bytes>,
    /// Attributes to set, and with `None` to take away.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Send it also when it is acknowledged, or a consumer has it.
    pub even_if_taken: bool,
}

/// A topic of the Pub/Sub bus with the settings that Google's API has no field for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PubsubTopicRow {
    /// `project/id`.
    pub name: String,
    /// `shared`, or the tenant.
    pub owner: String,
    /// What an answered publish means, such as `synced to disk`.
    pub durability: String,
    /// Such as `by order_id within 6 h`; `None`: every message counts.
    pub deduplication: Option<String>,
    pub schema: Option<String>,
}
