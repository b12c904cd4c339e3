//! Metrics of the export itself, declared in one place, and the count of spans that were lost.

use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{Unit, counter, describe_counter};

pub const SPANS_EXPORTED: &str = "levada_telemetry_spans_exported_total";
pub const SPANS_DROPPED: &str = "levada_telemetry_spans_dropped_total";
pub const EXPORTS_FAILED: &str = "levada_telemetry_exports_failed_total";

/// Registers units and descriptions with the installed recorder.
pub fn describe() {
    describe_counter!(SPANS_EXPORTED, Unit::Count, "Spans that the collector took");
    describe_counter!(SPANS_DROPPED, Unit::Count, "Spans that were not exported, by reason");
    describe_counter!(
        EXPORTS_FAILED,
        Unit::Count,
        "Requests to the collector without success, repeated ones included, by signal"
    );
}

/// Why a span was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The queue was full: more spans are made than go out.
    QueueFull,
    /// Too many deliveries were waiting for their acknowledgement.
    TooManyOpen,
    /// The collector did not answer, or asked to wait, for too long.
    Unreachable,
    /// The collector refused them.
    Refused,
}

const REASONS: [(Reason, &str); 4] = [
    (Reason::QueueFull, "queue_full"),
    (Reason::TooManyOpen, "too_many_open"),
    (Reason::Unreachable, "unreachable"),
    (Reason::Refused, "refused"),
];

/// Spans lost, by [`Reason`].
#[derive(Debug, Default)]
pub struct Drops([AtomicU64; REASONS.len()]);

impl Drops {
    pub fn add(&self, reason: Reason, spans: u64) {
        self.0[reason as usize].fetch_add(spans, Ordering::Relaxed);
        counter!(SPANS_DROPPED, "reason" => REASONS[reason as usize].1).increment(spans);
    }

    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The counts that are not zero, for a log line.
    pub fn told(&self) -> String {
        let parts = REASONS.iter().map(|(reason, name)| (name, self.of(*reason)));
        let parts = parts.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}
