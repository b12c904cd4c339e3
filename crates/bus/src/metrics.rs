//! Metrics of the bus, declared in one place.

use ::metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};

pub const PUBLISHED: &str = "levada_bus_published_total";
pub const DUPLICATES: &str = "levada_bus_duplicates_total";
pub const CONFLICTS: &str = "levada_bus_idempotency_conflicts_total";
pub const PUBLISHED_BYTES: &str = "levada_bus_published_bytes_total";
pub const DEAD_LETTERS: &str = "levada_bus_dead_letters_total";
pub const RESENT: &str = "levada_bus_resent_total";
pub const IDEMPOTENCY_KEYS: &str = "levada_bus_idempotency_keys";
pub const IDEMPOTENCY_FORGOTTEN: &str = "levada_bus_idempotency_forgotten_total";
pub const COMMIT_SECONDS: &str = "levada_bus_commit_seconds";
pub const TOPIC_DURABILITY: &str = "levada_bus_topic_durability";
pub const DEDUPLICATION_KEYS: &str = "levada_bus_deduplication_keys";
pub const DEDUPLICATION_FORGOTTEN: &str = "levada_bus_deduplication_forgotten_total";
pub const TOPIC_BYTES: &str = "levada_bus_topic_bytes";
pub const SUBSCRIPTION_BACKLOG: &str = "levada_subscription_backlog_messages";
pub const SUBSCRIPTION_OLDEST: &str = "levada_subscription_oldest_unacked_seconds";
pub const SUBSCRIPTION_DELIVERED: &str = "levada_subscription_delivered_total";
pub const SUBSCRIPTION_REDELIVERED: &str = "levada_subscription_redelivered_total";
pub const SUBSCRIPTION_ACKNOWLEDGED: &str = "levada_subscription_acknowledged_total";
pub const SUBSCRIPTION_EXPIRED: &str = "levada_subscription_expired_total";
pub const LANE_DELIVERED_BYTES: &str = "levada_subscription_lane_delivered_bytes_total";
pub const LANE_SHARE: &str = "levada_subscription_lane_share_ratio";
pub const SUBSCRIPTION_DEAD_LETTERED: &str = "levada_subscription_dead_lettered_total";

/// Registers units and descriptions with the installed recorder.
pub fn describe() {
    describe_counter!(PUBLISHED, Unit::Count, "Messages accepted, by topic");
    describe_counter!(DUPLICATES, Unit::Count, "Publishes answered from the idempotency window, by topic");
    describe_counter!(
        CONFLICTS,
        Unit::Count,
        "Publishes refused: same idempotency key, other body, by topic"
    );
    describe_counter!(PUBLISHED_BYTES, Unit::Bytes, "Bytes of accepted messages, by topic");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Dead letters written, by topic and code");
    describe_counter!(RESENT, Unit::Count, "Dead letters sent again, by topic");
    describe_gauge!(IDEMPOTENCY_KEYS, Unit::Count, "Keys remembered in the idempotency window");
    describe_counter!(
        IDEMPOTENCY_FORGOTTEN,
        Unit::Count,
        "Idempotency keys forgotten before their window ended, by tenant: it sent more than its share"
    );
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "From a publish until it was as safe as its topic says, fsync and waiting for it included, by topic"
    );
    describe_gauge!(
        TOPIC_DURABILITY,
        Unit::Count,
        "1 for topics that answer before the fsync, by topic and durability (interval, memory)"
    );
    describe_gauge!(DEDUPLICATION_KEYS, Unit::Count, "Values remembered by publish-side deduplication");
    describe_counter!(
        DEDUPLICATION_FORGOTTEN,
        Unit::Count,
        "Values forgotten before their window ended because there were too many, by topic"
    );
    describe_gauge!(TOPIC_BYTES, Unit::Bytes, "Bytes kept, by topic");
    describe_subscriptions();
}

/// The meters of every publish to a topic, looked up once: the look-up costs more than the count.
pub(crate) struct PublishMeters {
    pub published: Counter,
    pub published_bytes: Counter,
    pub commit_seconds: Histogram,
}

impl PublishMeters {
    pub(crate) fn of(topic: &str) -> Self {
        let topic = || topic.to_owned();
        Self {
            published: counter!(PUBLISHED, "topic" => topic()),
            published_bytes: counter!(PUBLISHED_BYTES, "topic" => topic()),
            commit_seconds: histogram!(COMMIT_SECONDS, "topic" => topic()),
        }
    }
}

/// Labelled with `subscription`, as `project/id`; beyond 2,000 names they are counted as `others`.
/// Those of lanes with `tenant` too: the largest of each subscription, and `others`.
fn describe_subscriptions() {
    describe_gauge!(SUBSCRIPTION_BACKLOG, Unit::Count, "Messages that are not acknowledged, by subscription");
    describe_gauge!(
        SUBSCRIPTION_OLDEST,
        Unit::Seconds,
        "Age of the oldest message that is not acknowledged, by subscription"
    );
    describe_counter!(
        SUBSCRIPTION_DELIVERED,
        Unit::Count,
        "Deliveries, repeated ones included, by subscription"
    );
    describe_counter!(SUBSCRIPTION_REDELIVERED, Unit::Count, "Deliveries after the first, by subscription");
    describe_counter!(SUBSCRIPTION_ACKNOWLEDGED, Unit::Count, "Messages acknowledged, by subscription");
    describe_counter!(
        SUBSCRIPTION_EXPIRED,
        Unit::Count,
        "Leases that ended by their deadline, by subscription"
    );
    describe_counter!(
        SUBSCRIPTION_DEAD_LETTERED,
        Unit::Count,
        "Messages moved to a dead letter, by subscription"
    );
    describe_counter!(
        LANE_DELIVERED_BYTES,
        Unit::Bytes,
        "Bytes delivered, repeated deliveries included, by subscription and tenant"
    );
    describe_gauge!(
        LANE_SHARE,
        Unit::Count,
        "Share of the bytes that a subscription delivered in the last seconds, by subscription and tenant"
    );
}
