//! The handle by which spans are made: sampling, time, and the way to the exporter.
//!
//! Handing over a span never waits: where the queue is full the span is dropped and counted, so
//! that a collector that is slow or gone costs the data path nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use levada_core::Clock;
use tokio::sync::mpsc;

use crate::metrics::{Drops, Reason};
use crate::sampler::Sampler;
use crate::span::Span;

/// The wall clock may differ by so much from the one that spans go by, before they follow it.
const MAX_DRIFT_NS: i64 = 50_000_000;

/// Cheap to clone; all clones are one tracer.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
    drops: Arc<Drops>,
    clock: Arc<dyn Clock>,
    /// Wall time less monotonic time.
    offset_ns: AtomicI64,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("sampler", &self.0.sampler).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Spans come out at the other end of the queue.
    pub(crate) fn new(
        sampler: Sampler,
        clock: Arc<dyn Clock>,
        queue: mpsc::Sender<Span>,
        drops: Arc<Drops>,
    ) -> Self {
        Self(Arc::new(Inner { sampler, queue, drops, clock, offset_ns: AtomicI64::new(i64::MIN) }))
    }

    pub fn sampler(&self) -> Sampler {
        self.0.sampler
    }

    /// Nanoseconds since the Unix epoch. Steady between two calls, and within 50 ms of the wall
    /// clock, which has only milliseconds.
    pub fn now_ns(&self) -> u64 {
        let inner = &*self.0;
        let steady_ns = i64::try_from(inner.clock.monotonic().as_nanos()).unwrap_or(i64::MAX);
        let wall_ns = inner.clock.now_ms().saturating_mul(1_000_000);
        let by_offset = steady_ns.saturating_add(inner.offset_ns.load(Ordering::Relaxed));
        let now_ns = if by_offset.abs_diff(wall_ns) > MAX_DRIFT_NS.unsigned_abs() {
            inner.offset_ns.store(wall_ns.saturating_sub(steady_ns), Ordering::Relaxed);
            wall_ns
        } else {
            by_offset
        };
        u64::try_from(now_ns).unwrap_or(0)
    }

    /// The steady clock that deadlines go by.
    pub(crate) fn monotonic(&self) -> std::time::Duration {
        self.0.clock.monotonic()
    }

    /// Hands a finished span over, or drops and counts it.
    pub fn emit(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            self.0.drops.add(Reason::QueueFull, 1);
        }
    }

    pub(crate) fn drops(&self) -> &Drops {
        &self.0.drops
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use levada_core::ManualClock;

    use super::*;

    /// A tracer whose spans are kept for the test to look at.
    pub fn caught(
        sampler: Sampler,
        room: usize,
    ) -> (Tracer, mpsc::Receiver<Span>, Arc<ManualClock>, Arc<Drops>) {
        let (queue, spans) = mpsc::channel(room);
        let clock = Arc::new(ManualClock::new(1_763_700_000_000));
        let drops = Arc::new(Drops::default());
        (Tracer::new(sampler, clock.clone(), queue, drops.clone()), spans, clock, drops)
    }

    #[test]
    fn time_goes_by_the_steady_clock_and_follows_the_wall_clock() {
        let (tracer, _spans, clock, _) = caught(Sampler::default(), 1);
        assert_eq!(tracer.now_ns(), 1_763_700_000_000_000_000);
        clock.advance(Duration::from_millis(7));
        assert_eq!(tracer.now_ns(), 1_763_700_000_007_000_000);
    }
}
