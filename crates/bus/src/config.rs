//! What can be set on the bus and on a topic, and what can go wrong.

use std::time::Duration;

use levada_core::{Quotas, TopicName};
use levada_log::{LogConfig, LogError};
use levada_store::StoreError;

/// Bounds and windows of the bus.
#[derive(Debug, Clone)]
pub struct BusConfig {
    pub log: LogConfig,
    /// How long a publish is remembered for idempotency.
    pub idempotency_window: Duration,
    /// At most this many publishes are remembered. A tenant with fewer than an equal share of
    /// them loses none to others; of who has more the oldest is forgotten first.
    pub idempotency_keys: usize,
    /// Of each tenant: the quota `idempotency_keys`.
    pub quotas: Quotas,
    /// At most this many values are remembered by publish-side deduplication, of all topics
    /// together; a value takes about 30 bytes. The oldest are forgotten first.
    pub deduplication_keys: usize,
    /// Bytes of records that the deliveries of all subscriptions keep at hand.
    pub cache_bytes: usize,
    /// Bytes of one tenant that may wait for commit at once; more waits its turn.
    pub tenant_in_flight_bytes: usize,
    pub max_topics: usize,
    /// Largest body plus attributes of a message.
    pub max_message_bytes: usize,
    pub default_retention: Retention,
    /// The scope of ordering keys where a topic does not set it.
    pub ordering: crate::port::KeyScope,
    /// Each call of `maintain` checks so many bytes of old messages for damage; 0: none.
    pub scrub_bytes: u64,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            log: LogConfig::default(),
            idempotency_window: Duration::from_secs(600),
            idempotency_keys: 1_000_000,
            quotas: Quotas::default(),
            deduplication_keys: 8_000_000,
            cache_bytes: CACHE_BYTES,
            tenant_in_flight_bytes: 32 << 20,
            max_topics: 20_000,
            max_message_bytes: 10_000_000,
            default_retention: Retention::default(),
            ordering: crate::port::KeyScope::Tenant,
            scrub_bytes: 4 << 20,
        }
    }
}

/// Bytes that a remembered publish takes, its places in tables and queue included.
const IDEMPOTENCY_KEY_BYTES: usize = 160;
/// Bytes that a value of deduplication takes.
const DEDUPLICATION_KEY_BYTES: usize = 30;
/// Bytes of records that deliveries keep at hand.
const CACHE_BYTES: usize = 64 << 20;

impl BusConfig {
    /// The defaults, or less where they would hold more than `bytes`: two fifths of it for
    /// idempotency, as much for deduplication, a fifth for records at hand.
    #[must_use]
    pub fn within(bytes: usize) -> Self {
        let most = Self::default();
        Self {
            idempotency_keys: most.idempotency_keys.min(bytes / 5 * 2 / IDEMPOTENCY_KEY_BYTES).max(1_000),
            deduplication_keys: most
                .deduplication_keys
                .min(bytes / 5 * 2 / DEDUPLICATION_KEY_BYTES)
                .max(1_000),
            cache_bytes: most.cache_bytes.min(bytes / 5).max(1 << 20),
            ..most
        }
    }

    /// What windows and cache hold at the most.
    pub fn held_bytes(&self) -> usize {
        self.idempotency_keys * IDEMPOTENCY_KEY_BYTES
            + self.deduplication_keys * DEDUPLICATION_KEY_BYTES
            + self.cache_bytes
    }
}

/// When records of a topic may be deleted: past the age or above the size, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub max_age: Option<Duration>,
    pub max_bytes: Option<u64>,
}

impl Default for Retention {
    /// Seven days, any size.
    fn default() -> Self {
        Self { max_age: Some(Duration::from_secs(7 * 24 * 3600)), max_bytes: None }
    }
}

/// Settings of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicConfig {
    /// `None`: the bus's default.
    pub retention: Option<Retention>,
}

/// Why an operation on the bus failed as a whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    #[error("topic {0} does not exist")]
    UnknownTopic(TopicName),
    #[error("the bus holds {0} topics, its maximum: raise `max_topics` or delete some")]
    TooManyTopics(usize),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Store(String),
    #[error("record {offset} of topic {topic} cannot be read: {reason}")]
    Record { topic: TopicName, offset: u64, reason: String },
    #[error("the bus is shutting down")]
    Closed,
}

impl BusError {
    /// For damage on disk: the offset from which reading can go on. The damaged bytes stay
    /// in quarantine.
    pub fn resumes_at(&self) -> Option<u64> {
        match self {
            BusError::Log(LogError::Corrupt(damage)) => Some(damage.resume),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            BusError::Log(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<StoreError> for BusError {
    fn from(error: StoreError) -> Self {
        BusError::Store(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::BusConfig;

    #[test]
    fn a_small_memory_holds_less_and_a_large_one_the_defaults() {
        let small = BusConfig::within(256 << 20);
        assert!(small.held_bytes() <= 256 << 20, "{}", small.held_bytes());
        assert!(small.idempotency_keys >= 500_000, "{}", small.idempotency_keys);
        let most = BusConfig::default();
        assert_eq!(BusConfig::within(1 << 40).held_bytes(), most.held_bytes());
    }
}
