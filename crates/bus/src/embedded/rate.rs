//! A bound on deliveries: a token bucket, so that the rate is even and a pause is not made up
//! for by a burst.

use std::time::Duration;

/// The bucket holds what comes in so long a time, and at least one message.
const BURST: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Rate {
    per_s: u32,
    tokens: f64,
    /// When `tokens` was brought up to date, by the monotonic clock.
    at: Option<Duration>,
}

impl Rate {
    pub fn new(per_s: u32) -> Self {
        Self { per_s: per_s.max(1), tokens: 1.0, at: None }
    }

    pub fn per_s(&self) -> u32 {
        self.per_s
    }

    /// Messages that may be delivered now.
    pub fn allowed(&mut self, now: Duration) -> usize {
        let passed = now.saturating_sub(self.at.unwrap_or(now));
        let room = (f64::from(self.per_s) * BURST.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + passed.as_secs_f64() * f64::from(self.per_s)).min(room);
        self.at = Some(now);
        self.tokens as usize
    }

    pub fn spend(&mut self, messages: usize) {
        self.tokens -= messages as f64;
    }

    /// Messages that were not delivered after all.
    pub fn refund(&mut self, messages: usize) {
        self.tokens += messages as f64;
    }

    /// When the next message may be delivered, as the time from now.
    pub fn next(&self, now: Duration) -> Duration {
        let since = now.saturating_sub(self.at.unwrap_or(now));
        let missing = (1.0 - self.tokens).max(0.0) / f64::from(self.per_s);
        // A little more, so that the token is whole by then.
        (Duration::from_secs_f64(missing) + Duration::from_micros(1)).saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_keep_to_the_rate_and_a_pause_is_no_burst() {
        let mut rate = Rate::new(50);
        let (mut now, mut sent) = (Duration::from_secs(100), 0);
        let end = now + Duration::from_secs(10);
        while now < end {
            match rate.allowed(now) {
                0 => now += rate.next(now),
                n => {
                    rate.spend(n);
                    sent += n;
                }
            }
        }
        assert!((495..=511).contains(&sent), "{sent} in 10 s at 50 a second");
        now += Duration::from_secs(3600);
        assert_eq!(rate.allowed(now), 10, "a fifth of a second's at once");
        let mut slow = Rate::new(1);
        assert_eq!(slow.allowed(now), 1);
        slow.spend(1);
        assert_eq!(slow.allowed(now + Duration::from_millis(900)), 0);
        assert_eq!(slow.allowed(now + Duration::from_secs(1)), 1);
    }
}
