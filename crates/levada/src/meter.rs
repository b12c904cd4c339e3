//! Rates of counters that outlive the process: how fast each grew between two looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Looks closer together than this give the rate of the look before.
const STEP: Duration = Duration::from_secs(2);

struct Look {
    at: Instant,
    count: u64,
    per_s: f64,
}

/// Counters that are remembered. Those of subscriptions come and go: when there are more than
/// this, all begin anew.
const MAX_LOOKS: usize = 50_000;

/// One entry a counter.
#[derive(Default)]
pub struct Meter(Mutex<HashMap<String, Look>>);

impl Meter {
    /// The rate of a counter that stands at `count`; zero at the first look.
    pub fn per_s(&self, name: &str, count: u64, now: Instant) -> f64 {
        let mut looks = self.0.lock();
        let Some(look) = looks.get_mut(name) else {
            if looks.len() >= MAX_LOOKS {
                looks.clear();
            }
            looks.insert(name.to_owned(), Look { at: now, count, per_s: 0.0 });
            return 0.0;
        };
        let passed = now.saturating_duration_since(look.at);
        if passed >= STEP {
            let grown = count.saturating_sub(look.count);
            *look = Look { at: now, count, per_s: grown as f64 / passed.as_secs_f64() };
        }
        look.per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_the_first_look_is_no_rate() {
        let (meter, start) = (Meter::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(meter.per_s("orders", 1_000_000, start), 0.0);
        assert_eq!(meter.per_s("orders", 1_000_040, after(4)), 10.0);
        assert_eq!(meter.per_s("orders", 1_000_900, after(5)), 10.0, "too soon for a new rate");
        assert_eq!(meter.per_s("orders", 1_000_040, after(9)), 0.0);
    }
}
