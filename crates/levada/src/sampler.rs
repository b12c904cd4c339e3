//! Rates for the console: how many events each tenant published, looked at every two seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use levada_bus::Bus;
use levada_core::{TenantId, TenantSet};
use parking_lot::Mutex;
use tokio::sync::watch;

pub const STEP: Duration = Duration::from_secs(2);
const SAMPLES: usize = 90;
/// Beyond this many tenants only the platform's total is kept.
const TENANTS: usize = 1_000;

#[derive(Debug, Clone, Default)]
struct Sample {
    total: u64,
    by_tenant: BTreeMap<TenantId, u64>,
}

/// The last three minutes.
#[derive(Debug, Clone)]
pub struct Sampler(Arc<Mutex<VecDeque<Sample>>>);

impl Sampler {
    pub fn start(bus: Bus, mut stopped: watch::Receiver<bool>) -> Self {
        let sampler = Self(Arc::default());
        let kept = sampler.clone();
        tokio::spawn(async move {
            kept.add(sample(&bus));
            while tokio::time::timeout(STEP, stopped.wait_for(|stop| *stop)).await.is_err() {
                kept.add(sample(&bus));
            }
        });
        sampler
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Events a second, oldest first, one a step.
    pub fn history(&self, tenants: &TenantSet) -> Vec<f64> {
        let samples = self.0.lock();
        let counts: Vec<u64> = samples.iter().map(|s| s.of(tenants)).collect();
        counts.windows(2).map(|w| w[1].saturating_sub(w[0]) as f64 / STEP.as_secs_f64()).collect()
    }
}

impl Sample {
    fn of(&self, tenants: &TenantSet) -> u64 {
        match tenants {
            TenantSet::All => self.total,
            TenantSet::Only(set) => set.iter().filter_map(|t| self.by_tenant.get(t)).sum(),
        }
    }
}

fn sample(bus: &Bus) -> Sample {
    let mut sample = Sample::default();
    for topic in bus.topics().iter().filter(|t| !t.name.is_dead_letter()) {
        sample.total += topic.published;
        for lane in &topic.lanes {
            *sample.by_tenant.entry(lane.tenant.clone()).or_default() += lane.published;
        }
    }
    if sample.by_tenant.len() > TENANTS {
        sample.by_tenant.clear();
    }
    sample
}
