//! Gathers a reader's small reads into micro-batches.
//!
//! What was read stays here until it is taken, so a fill that is cancelled loses nothing.

use std::time::Duration;

use levada_core::{ReadError, RecordBatchIn, RecordReader};
use tokio::time::Instant;

/// A micro-batch: so many records or so long, whichever comes first.
const ROWS: usize = 4096;
const BYTES: usize = 8 << 20;
const GATHER: Duration = Duration::from_millis(50);

pub struct Intake {
    reader: Box<dyn RecordReader>,
    batches: Vec<RecordBatchIn>,
}

impl Intake {
    pub fn new(reader: Box<dyn RecordReader>) -> Self {
        Self { reader, batches: Vec::new() }
    }

    /// Waits up to `wait` for records and then a little longer for more. Cancel-safe.
    ///
    /// # Errors
    /// The reader's; what was read before stays.
    pub async fn fill(&mut self, wait: Duration) -> Result<(), ReadError> {
        let read = self.reader.read(ROWS, BYTES, wait).await?;
        let mut rows = read.records.len();
        let mut bytes = body_bytes(&read);
        if read.is_empty() {
            return Ok(());
        }
        // A reader that is not kept waiting has more than a batch and needs no company.
        self.batches.push(read);
        let until = Instant::now() + GATHER.min(wait);
        while rows < ROWS && bytes < BYTES {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let more = self.reader.read(ROWS - rows, BYTES - bytes, left).await?;
            if more.is_empty() {
                break;
            }
            rows += more.records.len().max(1);
            bytes += body_bytes(&more);
            self.add(more);
        }
        Ok(())
    }

    fn add(&mut self, more: RecordBatchIn) {
        match self.batches.last_mut() {
            Some(last) if last.object == more.object && last.textual == more.textual => {
                last.records.extend(more.records);
                last.rejects.extend(more.rejects);
            }
            _ => self.batches.push(more),
        }
    }

    /// What was gathered, in the order in which it was read.
    pub fn take(&mut self) -> Vec<RecordBatchIn> {
        std::mem::take(&mut self.batches)
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The position after everything that was read.
    pub fn position(&self) -> serde_json::Value {
        self.reader.position()
    }

    pub fn backlog(&self) -> u64 {
        self.reader.backlog()
    }
}

fn body_bytes(read: &RecordBatchIn) -> usize {
    read.records.iter().map(|r| r.body.len()).sum()
}
