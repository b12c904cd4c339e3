//! Metrics of the log, declared in one place.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const RECORDS: &str = "levada_log_records_total";
const BYTES: &str = "levada_log_bytes_total";
const GROUP_RECORDS: &str = "levada_log_group_records";
const SYNC_SECONDS: &str = "levada_log_sync_seconds";
const LOST: &str = "levada_log_lost_records_total";
const DAMAGED: &str = "levada_log_damaged_ranges_total";
const SCRUBBED_BYTES: &str = "levada_log_scrubbed_bytes_total";
const SCRUB_ROUNDS: &str = "levada_log_scrub_rounds_total";

/// Gives the recorder the units and descriptions.
pub fn describe_metrics() {
    describe_counter!(RECORDS, Unit::Count, "records written to the commit log");
    describe_counter!(BYTES, Unit::Bytes, "encoded bytes of those records");
    describe_histogram!(GROUP_RECORDS, Unit::Count, "records in a commit group");
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "time of an fdatasync of the commit log");
    describe_counter!(
        LOST,
        Unit::Count,
        "records of topics in memory that were answered and could not be written then"
    );
    describe_counter!(DAMAGED, Unit::Count, "damaged ranges found in the log, each counted once a process");
    describe_counter!(SCRUBBED_BYTES, Unit::Bytes, "bytes of full segments checked in the background");
    describe_counter!(SCRUB_ROUNDS, Unit::Count, "times that all full segments were checked");
    // From the start, so that the first damage is an increase that an alert can see.
    counter!(DAMAGED).absolute(0);
    counter!(LOST).absolute(0);
}

pub(crate) fn damaged() {
    counter!(DAMAGED).increment(1);
}

pub(crate) fn scrubbed(bytes: u64, ended_round: bool) {
    counter!(SCRUBBED_BYTES).increment(bytes);
    counter!(SCRUB_ROUNDS).increment(u64::from(ended_round));
}

pub(crate) fn lost(records: u64) {
    counter!(LOST).increment(records);
}

pub(crate) fn synced(sync: Duration) {
    histogram!(SYNC_SECONDS).record(sync.as_secs_f64());
}

pub(crate) fn group(records: u64, bytes: u64) {
    counter!(RECORDS).increment(records);
    counter!(BYTES).increment(bytes);
    histogram!(GROUP_RECORDS).record(records as f64);
}
