//! Trying again: when, for how long, and what is said about it.

use std::time::Duration;

use levada_core::Backoff;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exporter::Sent;
use crate::metrics::Drops;

const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// A batch is tried again for so long. Meanwhile others wait in the queue.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Attempts of one batch.
pub struct Attempts {
    began: Instant,
    count: u32,
}

impl Attempts {
    pub fn begin() -> Self {
        Self { began: Instant::now(), count: 0 }
    }

    /// How long to wait before the next attempt; `None`: no more. `after`: the collector's wish;
    /// `unit`: a random number in `[0, 1)`.
    pub fn next(&mut self, after: Option<Duration>, unit: f64) -> Option<Duration> {
        self.next_at(self.began.elapsed(), after, unit)
    }

    fn next_at(&mut self, passed: Duration, after: Option<Duration>, unit: f64) -> Option<Duration> {
        // Half of it at least: the first attempts must not all come at once.
        let own = BACKOFF.jittered(self.count, 0.5 + unit / 2.0);
        self.count += 1;
        let wait = after.map_or(own, |after| after.max(Duration::from_millis(100)));
        (passed.saturating_add(wait) <= GIVE_UP_AFTER).then_some(wait)
    }
}

/// Waits. A stop of the server cuts the pause short that it falls into, for a last attempt soon;
/// those after it are waited for, within the time that the stop has.
pub async fn pause(wait: Duration, stopped: &mut watch::Receiver<bool>) {
    if *stopped.borrow() {
        tokio::time::sleep(wait).await;
    } else {
        let _ = tokio::time::timeout(wait, stopped.wait_for(|stop| *stop)).await;
    }
}

/// What is logged about a signal: when it begins to fail, once a minute while it does, and when
/// it works again.
pub struct Voice {
    signal: &'static str,
    place: String,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    fails: bool,
    at: Option<Instant>,
    unsaid: u64,
    lost: u64,
    lost_at: Option<Instant>,
}

impl Voice {
    pub fn new(signal: &'static str, place: String) -> Self {
        Self { signal, place, told: Mutex::default() }
    }

    pub fn signal(&self) -> &'static str {
        self.signal
    }

    pub fn heard(&self, sent: &Sent) {
        match sent {
            Sent::Taken { rejected: 0, .. } => self.works(),
            Sent::Taken { rejected, message } => {
                self.fails(&format!("the collector left out {rejected} of a request: {message}"));
            }
            Sent::Retry { why, .. } | Sent::Refused { why } => self.fails(why),
        }
    }

    /// Says how many spans were lost since it last said so, once a minute.
    pub fn lost(&self, drops: &Drops) {
        let mut told = self.told.lock();
        let total = drops.total();
        if total == told.lost || told.lost_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        let (new, reasons) = (total - told.lost, drops.told());
        (told.lost, told.lost_at) = (total, Some(Instant::now()));
        tracing::warn!(signal = self.signal, new, total, reasons, "spans were dropped");
    }

    fn works(&self) {
        let mut told = self.told.lock();
        if std::mem::take(&mut told.fails) {
            told.unsaid = 0;
            tracing::info!(signal = self.signal, place = self.place, "telemetry is exported again");
        }
    }

    fn fails(&self, why: &str) {
        let mut told = self.told.lock();
        told.fails = true;
        if told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            told.unsaid += 1;
            return;
        }
        told.at = Some(Instant::now());
        let unsaid = std::mem::take(&mut told.unsaid);
        tracing::warn!(signal = self.signal, place = self.place, why, unsaid, "telemetry cannot be exported");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_given_up_after_a_minute_and_the_collector_names_the_pause() {
        const S: Duration = Duration::from_secs(1);
        let mut attempts = Attempts::begin();
        assert_eq!(attempts.next_at(Duration::ZERO, Some(20 * S), 0.0), Some(20 * S));
        assert_eq!(attempts.next_at(20 * S, Some(41 * S), 0.0), None);
        assert_eq!(attempts.next_at(20 * S, Some(Duration::MAX), 0.0), None, "longer than time can be told");
        let (mut passed, mut waits, mut attempts) = (Duration::ZERO, Vec::new(), Attempts::begin());
        while let Some(wait) = attempts.next_at(passed, None, 0.5) {
            waits.push(wait.as_millis());
            passed += wait;
        }
        assert_eq!(waits, [750, 1_500, 3_000, 6_000, 12_000, 22_500]);
    }
}
