//! Housekeeping in the background: retention of the log, compaction and vacuum of tables,
//! upkeep of the metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use levada_access::{KeyRing, KeyState};
use levada_bus::Bus;
use levada_core::{Quota, QuotaOwner, Quotas};
use levada_http::ShareMeter;
use levada_lake::Lake;
use levada_pubsub::PubsubApi;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::shared::Shared;

const BUS_EVERY: Duration = Duration::from_secs(2);
const RETAIN_EVERY: Duration = Duration::from_secs(5);
const STOCK_EVERY: Duration = Duration::from_secs(15);
const LAKE_EVERY: Duration = Duration::from_secs(30);
/// The files of the lake are compared with their checksums at 4 MiB/s at the most.
const SCRUB_EVERY: Duration = Duration::from_secs(4);
const SCRUB_BYTES: u64 = 16 << 20;

/// Starts the tasks; they end when the server stops.
pub fn start(
    bus: Bus,
    lake: Lake,
    shared: Shared,
    metrics: Option<PrometheusHandle>,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(
            maintain_bus(bus.clone(), metrics, stopped.clone()),
            meter_shares(shared, stopped.clone()),
            retain(bus, stopped.clone()),
            maintain_lake(lake.clone(), stopped.clone()),
            scrub_lake(lake, stopped)
        );
    })
}

/// Counts from time to time what each tenant keeps, for `levada quotas` and the metrics.
pub fn count_stock(
    pubsub: PubsubApi,
    keys: Arc<KeyRing>,
    quotas: Quotas,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !stops_within(&mut stopped, STOCK_EVERY).await {
            let now_ms = keys.now_ms();
            let mut counts: HashMap<QuotaOwner, u64> = HashMap::new();
            for key in keys.list().iter().filter(|key| key.state(now_ms) == KeyState::Active) {
                if let Some(tenant) = key.tenants.single() {
                    *counts.entry(QuotaOwner::Tenant(tenant.clone())).or_default() += 1;
                }
            }
            quotas.note(Quota::Keys, &counts);
            if let Err(error) = pubsub.note_stock().await {
                tracing::debug!(%error, "what tenants keep cannot be counted now");
            }
        }
    })
}

/// True when the server stops before the time is over.
async fn stops_within(stopped: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stopped.wait_for(|stop| *stop)).await.is_ok()
}

async fn maintain_bus(bus: Bus, metrics: Option<PrometheusHandle>, mut stopped: watch::Receiver<bool>) {
    while !stops_within(&mut stopped, BUS_EVERY).await {
        if let Some(metrics) = &metrics {
            metrics.run_upkeep();
        }
        if let Err(error) = bus.maintain().await {
            tracing::error!(%error, "housekeeping of the log failed; it is tried again");
        }
    }
}

async fn meter_shares(shared: Shared, mut stopped: watch::Receiver<bool>) {
    let mut meter = ShareMeter::default();
    while !stops_within(&mut stopped, BUS_EVERY).await {
        meter.record(&shared.quotas, &shared.memory);
    }
}

/// Apart from the rest, which may wait for space on a full disk: this is what frees it.
async fn retain(bus: Bus, mut stopped: watch::Receiver<bool>) {
    while !stops_within(&mut stopped, RETAIN_EVERY).await {
        if let Err(error) = bus.retain().await {
            tracing::error!(%error, "old messages could not be removed; it is tried again");
        }
    }
}

async fn maintain_lake(lake: Lake, mut stopped: watch::Receiver<bool>) {
    while !stops_within(&mut stopped, LAKE_EVERY).await {
        for spec in lake.specs() {
            if *stopped.borrow() {
                return;
            }
            if let Err(error) = lake.maintain(&spec.key()).await {
                tracing::warn!(table = %spec.key(), %error, "housekeeping of a table failed; it is tried again");
            }
        }
    }
}

/// What it finds is logged, counted and told by `/readyz`.
async fn scrub_lake(lake: Lake, mut stopped: watch::Receiver<bool>) {
    while !stops_within(&mut stopped, SCRUB_EVERY).await {
        lake.scrub(SCRUB_BYTES).await;
    }
}
