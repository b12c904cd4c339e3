//! Metrics of the Pub/Sub API, declared in one place.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

pub const CALLS: &str = "levada_pubsub_calls_total";
pub const STREAMS: &str = "levada_pubsub_streams";
pub const PUBLISHED: &str = "levada_pubsub_published_total";
pub const PUSHES: &str = "levada_pubsub_pushes_total";
pub const PUSHES_FORBIDDEN: &str = "levada_pubsub_pushes_forbidden_total";
pub const DELIVERED: &str = "levada_pubsub_delivered_total";

/// Registers units and descriptions with the installed recorder.
pub fn describe() {
    describe_counter!(CALLS, Unit::Count, "Calls of the Pub/Sub API, by call, door (grpc or rest) and code");
    describe_gauge!(STREAMS, Unit::Count, "StreamingPull streams that are open");
    describe_counter!(PUBLISHED, Unit::Count, "Messages published through the Pub/Sub API");
    describe_counter!(DELIVERED, Unit::Count, "Messages delivered, by way (pull, stream or push)");
    describe_counter!(PUSHES, Unit::Count, "Posts to endpoints, by outcome (taken or refused)");
    describe_counter!(
        PUSHES_FORBIDDEN,
        Unit::Count,
        "Posts that were not made because egress or the binding of tokens forbids them"
    );
}

pub(crate) fn called(call: &'static str, door: &'static str, code: &'static str) {
    counter!(CALLS, "call" => call, "door" => door, "code" => code).increment(1);
}

pub(crate) fn published(messages: usize) {
    counter!(PUBLISHED).increment(messages as u64);
}

pub(crate) fn delivered(way: &'static str, messages: usize) {
    counter!(DELIVERED, "way" => way).increment(messages as u64);
}

pub(crate) fn pushed(well: bool) {
    counter!(PUSHES, "outcome" => if well { "taken" } else { "refused" }).increment(1);
}

pub(crate) fn push_forbidden() {
    counter!(PUSHES_FORBIDDEN).increment(1);
}

/// Counts a stream while it lives.
pub(crate) struct OpenStream(());

impl OpenStream {
    pub(crate) fn new() -> Self {
        gauge!(STREAMS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
    }
}
