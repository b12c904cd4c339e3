//! Metrics of the log, declared in one place.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const RECORDS: &str = "levada_log_records_total";
const BYTES: &str = "levada_log_bytes_total";
const GROUP_RECORDS: &str = "levada_log_group_records";
const SYNC_SECONDS: &str = "levada_log_sync_seconds";

/// Gives the recorder the units and descriptions.
pub fn describe_metrics() {
    describe_counter!(RECORDS, Unit::Count, "records made durable in the commit log");
    describe_counter!(BYTES, Unit::Bytes, "encoded bytes of those records");
    describe_histogram!(GROUP_RECORDS, Unit::Count, "records in a commit group");
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "time of an fdatasync of the commit log");
}

pub(crate) fn group(records: u64, bytes: u64, sync: Duration) {
    counter!(RECORDS).increment(records);
    counter!(BYTES).increment(bytes);
    histogram!(GROUP_RECORDS).record(records as f64);
    histogram!(SYNC_SECONDS).record(sync.as_secs_f64());
}
