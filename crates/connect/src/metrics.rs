//! What this crate counts. Labels: `pipeline`.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

pub(crate) struct Metrics {
    pub files: Counter,
    pub rows: Counter,
    pub rejects: Counter,
    pub bytes: Counter,
    pub waiting: Gauge,
}

impl Metrics {
    pub fn new(pipeline: &str) -> Self {
        describe_counter!("levada_source_files_total", Unit::Count, "files read to their end");
        describe_counter!("levada_source_rows_total", Unit::Count, "rows read from files");
        describe_counter!("levada_source_rejects_total", Unit::Count, "rows of files that could not be read");
        describe_counter!("levada_source_bytes_total", Unit::Bytes, "bytes of files taken, as they came");
        describe_gauge!(
            "levada_source_waiting_files",
            Unit::Count,
            "files that may still be written: they must rest, or lack an end"
        );
        let label = || pipeline.to_owned();
        Self {
            files: counter!("levada_source_files_total", "pipeline" => label()),
            rows: counter!("levada_source_rows_total", "pipeline" => label()),
            rejects: counter!("levada_source_rejects_total", "pipeline" => label()),
            bytes: counter!("levada_source_bytes_total", "pipeline" => label()),
            waiting: gauge!("levada_source_waiting_files", "pipeline" => label()),
        }
    }
}
