//! Metrics of the bus, declared in one place.

use ::metrics::{Unit, describe_counter, describe_gauge};

pub const PUBLISHED: &str = "levada_bus_published_total";
pub const DUPLICATES: &str = "levada_bus_duplicates_total";
pub const CONFLICTS: &str = "levada_bus_idempotency_conflicts_total";
pub const PUBLISHED_BYTES: &str = "levada_bus_published_bytes_total";
pub const DEAD_LETTERS: &str = "levada_bus_dead_letters_total";
pub const RESENT: &str = "levada_bus_resent_total";
pub const IDEMPOTENCY_KEYS: &str = "levada_bus_idempotency_keys";
pub const TOPIC_BYTES: &str = "levada_bus_topic_bytes";

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
    describe_gauge!(TOPIC_BYTES, Unit::Bytes, "Bytes kept, by topic");
}
