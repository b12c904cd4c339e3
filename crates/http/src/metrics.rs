//! The metrics of the gateway: names, units, descriptions, and the recorder behind
//! `/metrics`.
//!
//! Labels are bounded: routes are patterns, codes come from the program, and of tenants only
//! the first thousand are told apart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use levada_core::TenantId;
use levada_telemetry::{KeepUnits, Units};
use metrics::{
    Counter, Histogram, SetRecorderError, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::RwLock;

use crate::events::Counted;

pub const REQUESTS: &str = "levada_http_requests_total";
pub const REQUEST_SECONDS: &str = "levada_http_request_duration_seconds";
pub const CONNECTIONS: &str = "levada_http_connections";
pub const CONNECTIONS_CLOSED: &str = "levada_http_connections_closed_total";
pub const RATE_LIMITED: &str = "levada_http_rate_limited_total";
pub const EVENTS_ACCEPTED: &str = "levada_events_accepted_total";
pub const EVENTS_DUPLICATE: &str = "levada_events_duplicate_total";
pub const EVENTS_REJECTED: &str = "levada_events_rejected_total";

/// Latency buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MAX_TENANT_LABELS: usize = 1_000;
/// Stands for tenants beyond the bound and for events whose tenant is not known.
const OTHER: &str = "_other";

/// Installs the process's recorder: every `*_seconds` histogram with the same buckets. Call
/// `run_upkeep` on the handle every few seconds. Beside it the units of what is described from
/// now on, which the text of `/metrics` has no place for.
///
/// # Errors
/// When the process has a recorder already.
pub fn install() -> Result<(PrometheusHandle, Units), BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .build_recorder();
    let (handle, units) = (recorder.handle(), Units::default());
    let recorder = KeepUnits::new(recorder, units.clone());
    metrics::set_global_recorder(recorder)
        .map_err(|error| BuildError::from(SetRecorderError(error.0.into_inner())))?;
    describe();
    Ok((handle, units))
}

fn describe() {
    crate::quotas::describe();
    describe_counter!(REQUESTS, Unit::Count, "requests answered, by route, method and status");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "time from the request's head to the answer's head, by route"
    );
    describe_gauge!(CONNECTIONS, Unit::Count, "open connections");
    describe_counter!(
        CONNECTIONS_CLOSED,
        Unit::Count,
        "connections closed at a bound, by reason (evicted for another, or refused)"
    );
    describe_counter!(RATE_LIMITED, Unit::Count, "requests refused by a tenant's rate limit");
    describe_counter!(EVENTS_ACCEPTED, Unit::Count, "events kept, by tenant");
    describe_counter!(EVENTS_DUPLICATE, Unit::Count, "events recognised as sent before, by tenant");
    describe_counter!(EVENTS_REJECTED, Unit::Count, "events refused, by tenant and problem code");
}

/// Which tenants have a label of their own, and what the gateway counted for each.
#[derive(Debug, Default)]
pub struct TenantLabels {
    seen: RwLock<HashSet<TenantId>>,
    totals: RwLock<BTreeMap<TenantId, EventTotals>>,
}

/// Events of a tenant since the program started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct EventTotals {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

impl TenantLabels {
    fn label(&self, tenant: Option<&TenantId>) -> String {
        let Some(tenant) = tenant else { return OTHER.to_owned() };
        if self.seen.read().contains(tenant) {
            return tenant.to_string();
        }
        let mut seen = self.seen.write();
        if seen.len() < MAX_TENANT_LABELS || seen.contains(tenant) {
            seen.insert(tenant.clone());
            return tenant.to_string();
        }
        OTHER.to_owned()
    }

    /// What was counted for the tenants of a set.
    pub fn totals(&self, mut includes: impl FnMut(&TenantId) -> bool) -> EventTotals {
        let mut sum = EventTotals::default();
        for (_, one) in self.totals.read().iter().filter(|(t, _)| includes(t)) {
            sum.accepted += one.accepted;
            sum.duplicates += one.duplicates;
            sum.rejected += one.rejected;
        }
        sum
    }

    /// Bounded by the tenants that exist: only admitted events and those of a known tenant count.
    fn add(&self, tenant: &TenantId, more: EventTotals) {
        let mut totals = self.totals.write();
        if totals.len() >= 100_000 && !totals.contains_key(tenant) {
            return;
        }
        let one = totals.entry(tenant.clone()).or_default();
        one.accepted += more.accepted;
        one.duplicates += more.duplicates;
        one.rejected += more.rejected;
    }
}

/// Counts the events of one request.
pub(crate) fn events(labels: &TenantLabels, outcomes: &[Counted]) {
    let mut by_tenant: BTreeMap<Option<&TenantId>, EventTotals> = BTreeMap::new();
    let mut codes: BTreeMap<(Option<&TenantId>, &str), u64> = BTreeMap::new();
    for (tenant, outcome) in outcomes {
        let totals = by_tenant.entry(tenant.as_ref()).or_default();
        match outcome {
            Ok((_, published)) if published.duplicate => totals.duplicates += 1,
            Ok(_) => totals.accepted += 1,
            Err(problem) => {
                totals.rejected += 1;
                *codes.entry((tenant.as_ref(), &problem.code)).or_default() += 1;
            }
        }
    }
    for (tenant, totals) in by_tenant {
        let label = labels.label(tenant);
        if let Some(tenant) = tenant {
            labels.add(tenant, totals);
        }
        if totals.accepted > 0 {
            counter!(EVENTS_ACCEPTED, "tenant" => label.clone()).increment(totals.accepted);
        }
        if totals.duplicates > 0 {
            counter!(EVENTS_DUPLICATE, "tenant" => label).increment(totals.duplicates);
        }
    }
    for ((tenant, code), count) in codes {
        counter!(EVENTS_REJECTED, "tenant" => labels.label(tenant), "code" => code.to_owned())
            .increment(count);
    }
}

pub(crate) fn rate_limited(labels: &TenantLabels, tenant: &TenantId) {
    counter!(RATE_LIMITED, "tenant" => labels.label(Some(tenant))).increment(1);
}

/// An idle connection made room for another.
pub(crate) fn connection_evicted() {
    counter!(CONNECTIONS_CLOSED, "reason" => "evicted").increment(1);
}

/// A connection found its address's share in use.
pub(crate) fn connection_refused() {
    counter!(CONNECTIONS_CLOSED, "reason" => "refused").increment(1);
}

/// The meters of requests, looked up once a route and status and kept: the look-up costs
/// more than the count. Routes are patterns, so there are only so many.
#[derive(Default)]
pub(crate) struct RequestMetrics(RwLock<HashMap<String, RouteMetrics>>);

struct RouteMetrics {
    seconds: Histogram,
    requests: Vec<((&'static str, u16), Counter)>,
}

impl RequestMetrics {
    pub fn record(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        if !self.count(method, route, status, took) {
            self.add(method, route, status);
            self.count(method, route, status, took);
        }
    }

    fn count(&self, method: &'static str, route: &str, status: u16, took: Duration) -> bool {
        let routes = self.0.read();
        let Some(metrics) = routes.get(route) else { return false };
        let Some((_, requests)) = metrics.requests.iter().find(|(key, _)| *key == (method, status)) else {
            return false;
        };
        requests.increment(1);
        metrics.seconds.record(took.as_secs_f64());
        true
    }

    fn add(&self, method: &'static str, route: &str, status: u16) {
        let name = route.to_owned();
        let mut routes = self.0.write();
        let metrics = routes.entry(name.clone()).or_insert_with(|| RouteMetrics {
            seconds: histogram!(REQUEST_SECONDS, "route" => name.clone()),
            requests: Vec::new(),
        });
        let requests =
            counter!(REQUESTS, "method" => method, "route" => name, "status" => status.to_string());
        metrics.requests.push(((method, status), requests));
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(());

impl OpenConnection {
    pub fn new() -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}
