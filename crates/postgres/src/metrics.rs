//! Metrics of the PostgreSQL door.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const CONNECTIONS: &str = "levada_postgres_connections";
const LOGINS: &str = "levada_postgres_logins_total";
const STATEMENTS: &str = "levada_postgres_statements_total";
const SECONDS: &str = "levada_postgres_statement_seconds";

/// Tells the recorder what the metrics are.
pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, Unit::Count, "Clients that are connected over the PostgreSQL protocol");
    describe_counter!(LOGINS, Unit::Count, "Logins over the PostgreSQL protocol, by outcome");
    describe_counter!(STATEMENTS, Unit::Count, "Statements over the PostgreSQL protocol, by outcome");
    describe_histogram!(SECONDS, Unit::Seconds, "From a statement's arrival to its last row");
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected;

impl Connected {
    pub fn new() -> Self {
        gauge!(CONNECTIONS).increment(1);
        Self
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1);
    }
}

pub(crate) fn login(outcome: &'static str) {
    counter!(LOGINS, "outcome" => outcome).increment(1);
}

/// `outcome`: `ok`, or the SQLSTATE.
pub(crate) fn statement(outcome: String, took: Duration) {
    counter!(STATEMENTS, "outcome" => outcome).increment(1);
    histogram!(SECONDS).record(took.as_secs_f64());
}
