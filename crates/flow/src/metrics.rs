//! Every metric of this crate: names, units and what they mean.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const RECORDS_IN: &str = "levada_flow_records_in_total";
const ROWS_OUT: &str = "levada_flow_rows_out_total";
const DUPLICATES: &str = "levada_flow_duplicates_total";
const DEAD: &str = "levada_flow_dead_letters_total";
const EPOCHS: &str = "levada_flow_epochs_total";
const EPOCH_SECONDS: &str = "levada_flow_epoch_commit_seconds";
const LATENCY_SECONDS: &str = "levada_flow_queryable_latency_seconds";
const BACKLOG: &str = "levada_flow_backlog_records";
const RETRIES: &str = "levada_flow_retries_total";
const ENRICH_CALLS: &str = "levada_flow_enrich_calls_total";
const ENRICH_CACHED: &str = "levada_flow_enrich_cache_hits_total";
const MODEL_SECONDS: &str = "levada_flow_model_run_seconds";

/// Registers descriptions with the recorder in use. Call once.
pub fn describe() {
    describe_counter!(RECORDS_IN, Unit::Count, "records read from the source, by pipeline");
    describe_counter!(ROWS_OUT, Unit::Count, "rows committed to the sink, by pipeline");
    describe_counter!(DUPLICATES, Unit::Count, "records dropped as duplicates, by pipeline");
    describe_counter!(DEAD, Unit::Count, "records sent to the dead letter, by pipeline");
    describe_counter!(EPOCHS, Unit::Count, "epochs committed, by pipeline");
    describe_histogram!(EPOCH_SECONDS, Unit::Seconds, "from the cut of an epoch to its commit, by pipeline");
    describe_histogram!(LATENCY_SECONDS, Unit::Seconds, "from publish to queryable, the median of an epoch");
    describe_gauge!(BACKLOG, Unit::Count, "records that wait in the source, by pipeline");
    describe_counter!(RETRIES, Unit::Count, "operations tried again after a failure, by pipeline");
    describe_counter!(ENRICH_CALLS, Unit::Count, "calls to enrichment services, by step and result");
    describe_counter!(ENRICH_CACHED, Unit::Count, "enrichment answers from the cache, by step");
    describe_histogram!(MODEL_SECONDS, Unit::Seconds, "duration of a gold model's run, by model and result");
}

/// What one committed epoch did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpochFigures {
    pub records_in: u64,
    pub rows_out: u64,
    pub duplicates: u64,
    pub dead: u64,
    pub commit_seconds: f64,
    pub latency_seconds: Option<f64>,
    pub backlog: u64,
}

pub(crate) fn epoch_committed(pipeline: &str, figures: EpochFigures) {
    let name = || pipeline.to_owned();
    counter!(RECORDS_IN, "pipeline" => name()).increment(figures.records_in);
    counter!(ROWS_OUT, "pipeline" => name()).increment(figures.rows_out);
    counter!(DUPLICATES, "pipeline" => name()).increment(figures.duplicates);
    counter!(DEAD, "pipeline" => name()).increment(figures.dead);
    counter!(EPOCHS, "pipeline" => name()).increment(1);
    histogram!(EPOCH_SECONDS, "pipeline" => name()).record(figures.commit_seconds);
    if let Some(seconds) = figures.latency_seconds {
        histogram!(LATENCY_SECONDS, "pipeline" => name()).record(seconds);
    }
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
    gauge!(BACKLOG, "pipeline" => name()).set(figures.backlog as f64);
}

pub(crate) fn retried(pipeline: &str) {
    counter!(RETRIES, "pipeline" => pipeline.to_owned()).increment(1);
}

pub(crate) fn enrich_called(step: &str, ok: bool) {
    let result = if ok { "ok" } else { "error" };
    counter!(ENRICH_CALLS, "step" => step.to_owned(), "result" => result).increment(1);
}

pub(crate) fn enrich_cached(step: &str) {
    counter!(ENRICH_CACHED, "step" => step.to_owned()).increment(1);
}

pub(crate) fn model_ran(model: &str, ok: bool, seconds: f64) {
    let result = if ok { "ok" } else { "error" };
    histogram!(MODEL_SECONDS, "model" => model.to_owned(), "result" => result).record(seconds);
}
