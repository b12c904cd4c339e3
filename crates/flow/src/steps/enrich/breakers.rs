//! Circuit breakers, one an endpoint and owner: a tenant's steps that ask the same server share
//! its breaker.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use levada_core::{Breaker, BreakerConfig, BreakerState, Clock};
use parking_lot::Mutex;

/// All breakers of a process, by owner, scheme, host and port.
#[derive(Clone, Default)]
pub struct Breakers {
    all: Arc<Mutex<AHashMap<String, Arc<Mutex<Breaker>>>>>,
}

impl Breakers {
    /// The breaker of an owner's endpoint; the first step to ask sets its limits.
    pub fn of(&self, origin: &str, config: BreakerConfig, clock: Arc<dyn Clock>) -> Guarded {
        let mut all = self.all.lock();
        let breaker =
            all.entry(origin.to_owned()).or_insert_with(|| Arc::new(Mutex::new(Breaker::new(config))));
        Guarded { breaker: Arc::clone(breaker), clock }
    }
}

/// One endpoint's breaker with its clock.
pub struct Guarded {
    breaker: Arc<Mutex<Breaker>>,
    clock: Arc<dyn Clock>,
}

impl Guarded {
    pub fn state(&self) -> BreakerState {
        self.breaker.lock().state(self.clock.monotonic())
    }

    /// Leave to call once, or how long there will be none.
    pub fn permit(&self) -> Result<Permit<'_>, Duration> {
        let now = self.clock.monotonic();
        let mut breaker = self.breaker.lock();
        if breaker.permit(now) {
            Ok(Permit { guarded: self, settled: false })
        } else {
            Err(breaker.wait(now))
        }
    }
}

/// Leave for one call. A call that is cancelled counts as failed, so that a probe never
/// stays open.
pub struct Permit<'g> {
    guarded: &'g Guarded,
    settled: bool,
}

impl Permit<'_> {
    pub fn success(mut self) {
        self.settled = true;
        self.guarded.breaker.lock().success();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.guarded.breaker.lock().failure(self.guarded.clock.monotonic());
        }
    }
}
