//! The open epoch: what has been processed and not yet sealed.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use levada_core::{MemoryHold, TenantId};
use tokio::time::Instant;

use crate::counts::StepCounts;
use crate::letter::Letter;
use crate::manifest::{Totals, WindowBytes};
use crate::memory::batch_bytes;
use crate::shares::Shares;
use crate::status::Arrivals;

/// After an idle time the first records wait only this long for company.
const LINGER: Duration = Duration::from_millis(50);

/// Everything that an epoch has gathered.
#[derive(Debug, Default)]
pub struct OpenEpoch {
    pub batches: Vec<RecordBatch>,
    pub letters: Vec<Letter>,
    pub arrivals: Arrivals,
    /// Of this epoch alone.
    pub figures: Totals,
    /// The same by tenant, of a pipeline that tenants share.
    pub shares: Shares,
    /// What each step did, validation first.
    pub steps: Vec<StepCounts>,
    /// Records by tenant from the offset on at which the process found the end of the topic.
    pub fresh: BTreeMap<TenantId, u64>,
    /// Records read, rejects not counted.
    pub records: u64,
    /// Original bytes read.
    pub bytes: u64,
    /// What rows and letters hold, as good as it is known.
    pub held_bytes: usize,
    opened: Option<Instant>,
}

impl OpenEpoch {
    /// Notes that something was read.
    pub fn touch(&mut self) {
        self.opened.get_or_insert_with(Instant::now);
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.opened.is_none()
    }

    /// Adds rows for the sink.
    pub fn add_rows(&mut self, batches: Vec<RecordBatch>) {
        self.held_bytes += batches.iter().map(batch_bytes).sum::<usize>();
        self.batches.extend(batches);
    }

    pub fn add_letter(&mut self, letter: Letter) {
        self.held_bytes += letter.body.len();
        self.letters.push(letter);
    }

    /// When to seal: the interval after the last seal, and never sooner than a moment after
    /// the first record. `None` while empty.
    pub fn due(&self, last_cut: Option<Instant>, interval: Duration) -> Option<Instant> {
        let opened = self.opened?;
        let soonest = opened + LINGER.min(interval);
        Some(last_cut.map_or(soonest, |cut| soonest.max(cut + interval)))
    }

    /// Adds what steps did with a batch; `first` is the place of the first of them.
    pub fn add_steps(&mut self, first: usize, counts: &[StepCounts]) {
        let steps = self.steps.len().max(first + counts.len());
        self.steps.resize(steps, StepCounts::default());
        self.steps[first..].iter_mut().zip(counts).for_each(|(sum, more)| *sum += *more);
    }

    /// Counts the arrival of records, which mostly share their times.
    pub fn arrived(&mut self, at_ms: i64) {
        match self.arrivals.last_mut() {
            Some((at, count)) if *at == at_ms => *count += 1,
            _ => self.arrivals.push((at_ms, 1)),
        }
    }
}

/// A sealed epoch on its way to the disk.
#[derive(Debug)]
pub struct Cut {
    pub epoch: u64,
    pub from: Option<serde_json::Value>,
    pub position: serde_json::Value,
    pub content: OpenEpoch,
    /// Held until the epoch is committed.
    pub memory: Option<MemoryHold>,
    pub deltas: WindowBytes,
    /// All windows, every so often.
    pub snapshot: Option<WindowBytes>,
    pub backlog: u64,
    pub sealed: Instant,
}
