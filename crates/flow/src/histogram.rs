//! A small histogram of durations: 8 steps an octave, so a quantile is right within 9 %.

/// Milliseconds from 0 to about 18 hours; longer ones count as that.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

const STEPS: u64 = 8;
const BUCKETS: usize = 208;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

/// Values below 16 have a bucket each; above, the octave and the three bits after its first.
fn bucket(ms: u64) -> usize {
    if ms < 2 * STEPS {
        return usize::try_from(ms).unwrap_or(0);
    }
    let octave = u64::from(ms.ilog2());
    let step = (ms >> (octave - 3)) & (STEPS - 1);
    usize::try_from(2 * STEPS + (octave - 4) * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let (octave, step) = (4 + (bucket - 2 * STEPS) / STEPS, (bucket - 2 * STEPS) % STEPS);
    (1 << octave) + ((step + 1) << (octave - 3)) - 1
}

impl Histogram {
    pub fn record(&mut self, ms: u64, count: u64) {
        self.counts[bucket(ms)] += count;
        self.total += count;
    }

    /// The value that a share of all lies at or below; `None` while empty.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        at.map(upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_and_buckets_are_in_order() {
        let mut last = None;
        for ms in 0..200_000u64 {
            let b = bucket(ms);
            assert!(last.is_none_or(|l| b == l || b == l + 1) && upper(b) >= ms, "{ms}");
            assert!(upper(b) <= ms + ms / 8, "{ms}");
            last = Some(b);
        }
        assert!(upper(bucket(u64::MAX)) > 65_000_000);
        let mut h = Histogram::default();
        assert_eq!(h.quantile(0.5), None);
        h.record(10, 98);
        h.record(1000, 2);
        assert_eq!(h.quantile(0.5), Some(10));
        assert!(h.quantile(0.99).is_some_and(|v| (1000..1100).contains(&v)));
    }
}
