//! Token bucket for rate limits.

use std::time::Duration;

/// What a bucket says of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    pub allowed: bool,
    /// The bucket's size, in tokens.
    pub limit: u64,
    /// Whole tokens left.
    pub remaining: u64,
    /// Until the request would be allowed (zero if it is), or for an allowed one until the bucket is full.
    pub reset: Duration,
}

/// A bucket of `burst` tokens refilled at `rate_per_s`. Not synchronised: the owner locks it.
/// Times are of a monotonic clock.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_per_s: f64,
    burst: f64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    pub fn new(rate_per_s: f64, burst: f64, now: Duration) -> Self {
        Self { rate_per_s, burst, tokens: burst, last: now }
    }

    /// Takes `cost` tokens, or none. A cost above the burst is allowed when the bucket is
    /// full, and leaves it in debt, so that no size of request is locked out for good.
    pub fn take(&mut self, cost: f64, now: Duration) -> Decision {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + elapsed * self.rate_per_s).min(self.burst);
        let needed = cost.min(self.burst);
        let allowed = self.tokens >= needed;
        if allowed {
            self.tokens -= cost;
        }
        let missing = if allowed { self.burst - self.tokens } else { needed - self.tokens };
        Decision {
            allowed,
            limit: self.burst as u64,
            remaining: self.tokens.max(0.0) as u64,
            reset: Duration::from_secs_f64((missing / self.rate_per_s).clamp(0.0, 86_400.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_beyond_the_burst_and_refills_with_time() {
        let mut b = TokenBucket::new(10.0, 20.0, Duration::ZERO);
        assert!(b.take(20.0, Duration::ZERO).allowed);
        let no = b.take(5.0, Duration::ZERO);
        assert!(!no.allowed);
        assert_eq!(no.reset, Duration::from_millis(500));
        assert!(b.take(5.0, Duration::from_millis(500)).allowed);
        assert!(b.take(100.0, Duration::from_secs(10)).allowed, "an oversized request passes a full bucket");
        assert!(!b.take(1.0, Duration::from_secs(11)).allowed, "and pays for it");
    }
}
