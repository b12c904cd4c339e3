//! Circuit breaker: after a run of failures, stop asking for a while, then probe once.
//!
//! Source: Michael Nygard, "Release It!", 2nd ed., ch. 5 (closed, open, half-open).

use std::time::Duration;

/// `failures` in a row open the breaker for `open_for`; then one probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    pub failures: u32,
    pub open_for: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(60) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Not synchronised: the owner locks it. Times are of a monotonic clock.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    failures: u32,
    opened_at: Option<Duration>,
    probing: bool,
}

impl Breaker {
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, failures: 0, opened_at: None, probing: false }
    }

    pub fn state(&self, now: Duration) -> BreakerState {
        match self.opened_at {
            None => BreakerState::Closed,
            Some(at) if now.saturating_sub(at) < self.config.open_for => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Whether a call may be made now. In half-open state only the first caller may; every
    /// permitted call must end in [`Breaker::success`] or [`Breaker::failure`].
    pub fn permit(&mut self, now: Duration) -> bool {
        match self.state(now) {
            BreakerState::Closed => true,
            BreakerState::Open => false,
            BreakerState::HalfOpen => !std::mem::replace(&mut self.probing, true),
        }
    }

    /// How long until a call may be permitted, zero where it may be now.
    pub fn wait(&self, now: Duration) -> Duration {
        self.opened_at.map_or(Duration::ZERO, |at| (at + self.config.open_for).saturating_sub(now))
    }

    pub fn success(&mut self) {
        *self = Self::new(self.config);
    }

    pub fn failure(&mut self, now: Duration) {
        self.failures += 1;
        if self.probing || self.failures >= self.config.failures {
            self.opened_at = Some(now);
        }
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_a_run_of_failures_and_lets_one_probe_through() {
        let mut b = Breaker::new(BreakerConfig::default());
        let at = Duration::from_secs;
        for _ in 0..4 {
            assert!(b.permit(at(0)));
            b.failure(at(0));
        }
        assert_eq!(b.state(at(0)), BreakerState::Closed);
        b.failure(at(1));
        assert_eq!(b.state(at(1)), BreakerState::Open);
        assert!(!b.permit(at(60)));
        assert_eq!(b.wait(at(31)), at(30));
        assert!(b.permit(at(61)), "the probe");
        assert!(!b.permit(at(61)), "only one probe");
        b.failure(at(62));
        assert!(!b.permit(at(121)), "a failed probe opens it again");
        assert!(b.permit(at(122)));
        b.success();
        assert_eq!(b.state(at(122)), BreakerState::Closed);
    }
}
