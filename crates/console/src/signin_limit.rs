//! Slows down failed sign-ins. Keys have 256 bits and cannot be guessed; this keeps the
//! attempts from costing anything and from filling the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use levada_core::{Clock, TokenBucket};
use parking_lot::Mutex;

use crate::app::ConsoleConfig;

/// Addresses remembered; beyond it the strangers share one allowance.
const MAX_ADDRESSES: usize = 4096;

pub(crate) struct SigninLimit {
    buckets: Mutex<HashMap<Option<IpAddr>, TokenBucket>>,
    clock: Arc<dyn Clock>,
    burst: f64,
    rate_per_s: f64,
}

impl SigninLimit {
    pub fn new(config: &ConsoleConfig) -> Self {
        Self {
            buckets: Mutex::new(HashMap::new()),
            clock: config.clock.clone(),
            burst: f64::from(config.signin_burst.max(1)),
            rate_per_s: 1.0 / config.signin_refill.as_secs_f64().max(0.001),
        }
    }

    /// Takes one attempt of an address. `Err` says how long to wait.
    pub fn take(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            // A full bucket says nothing that a new one would not.
            buckets.retain(|_, b| b.clone().take(0.0, now).remaining < self.burst as u64);
        }
        let key =
            if buckets.len() < MAX_ADDRESSES || buckets.contains_key(&address) { address } else { None };
        let bucket = buckets.entry(key).or_insert_with(|| TokenBucket::new(self.rate_per_s, self.burst, now));
        let decision = bucket.take(1.0, now);
        if decision.allowed { Ok(()) } else { Err(decision.reset) }
    }

    /// Gives the attempt back: it was a good key.
    pub fn give_back(&self, address: Option<IpAddr>) {
        let now = self.clock.monotonic();
        if let Some(bucket) = self.buckets.lock().get_mut(&address) {
            bucket.take(-1.0, now);
        }
    }
}
