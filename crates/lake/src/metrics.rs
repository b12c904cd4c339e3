//! The figures that the lake reports, each with its unit.

use std::sync::Once;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const STAGED_ROWS: &str = "levada_lake_staged_rows_total";
const STAGE_SECONDS: &str = "levada_lake_stage_seconds";
const COMMIT_SECONDS: &str = "levada_lake_commit_seconds";
const QUERIES: &str = "levada_lake_queries_total";
const DAMAGED: &str = "levada_lake_damaged_files";

fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        describe_counter!(STAGED_ROWS, Unit::Count, "rows written to files that are not yet visible");
        describe_histogram!(STAGE_SECONDS, Unit::Seconds, "time to encode and fsync the files of one call");
        describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "time to make staged files visible");
        describe_counter!(QUERIES, Unit::Count, "queries begun, by outcome of planning");
        describe_gauge!(
            DAMAGED,
            Unit::Count,
            "files of tables that do not match their checksums or are gone"
        );
    });
}

pub(crate) fn staged(rows: u64, took: Duration) {
    describe();
    counter!(STAGED_ROWS).increment(rows);
    histogram!(STAGE_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn committed(took: Duration) {
    describe();
    histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn query(outcome: &'static str) {
    describe();
    counter!(QUERIES, "outcome" => outcome).increment(1);
}

pub(crate) fn damaged(files: usize) {
    describe();
    gauge!(DAMAGED).set(files as f64);
}
