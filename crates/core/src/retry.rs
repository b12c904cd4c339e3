//! Exponential backoff with full jitter.
//!
//! Source: Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

/// Delays between attempts: `base * 2^attempt`, never above `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    /// The longest delay before attempt `attempt` (0 is the first retry).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        self.base.saturating_mul(2u32.saturating_pow(attempt.min(31))).min(self.cap)
    }

    /// The delay with full jitter; `unit` is a random number in `[0, 1)`.
    pub fn jittered(&self, attempt: u32, unit: f64) -> Duration {
        self.ceiling(attempt).mul_f64(unit.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_never_overflows() {
        let b = Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(600) };
        assert_eq!(b.ceiling(0), Duration::from_secs(10));
        assert_eq!(b.ceiling(3), Duration::from_secs(80));
        assert_eq!(b.ceiling(6), Duration::from_secs(600));
        assert_eq!(b.ceiling(u32::MAX), Duration::from_secs(600));
        assert_eq!(b.jittered(3, 0.5), Duration::from_secs(40));
    }
}
