//! What a pipeline holds of the memory that all pipelines share.
//!
//! An epoch in the making pays for its rows and for the copies that its files are made of, so
//! that a sealed epoch never waits for memory. Where there is no room for more rows, the epoch is
//! sealed as it is and reading waits. A pipeline without data holds nothing.

use arrow::array::RecordBatch;
use levada_core::{MemoryBudget, MemoryHold};

/// What an epoch begins with: room for a micro-batch.
const FIRST_BYTES: usize = 16 << 20;
/// The rows themselves, and their copies while they are sorted and encoded.
const COPIES: usize = 3;

/// The memory of the process, as pipelines share it.
#[derive(Debug, Clone)]
pub struct FlowMemory {
    epochs: MemoryBudget,
    windows: MemoryBudget,
}

impl FlowMemory {
    /// Four tenths of the whole for epochs, two tenths for the keys that steps remember.
    pub fn of(whole: &MemoryBudget) -> Self {
        let tenths = |n: usize| whole.limit() / 10 * n;
        Self { epochs: whole.share("epochs", tenths(4)), windows: whole.share("windows", tenths(2)) }
    }

    pub(crate) fn epoch(&self) -> EpochMemory {
        EpochMemory { budget: self.epochs.clone(), hold: None }
    }

    pub(crate) fn windows(&self) -> WindowMemory {
        WindowMemory { budget: self.windows.clone(), hold: None }
    }
}

/// What the open epoch holds.
#[derive(Debug)]
pub(crate) struct EpochMemory {
    budget: MemoryBudget,
    hold: Option<MemoryHold>,
}

impl EpochMemory {
    /// Waits until there is room to begin an epoch. Does nothing where one is open.
    pub async fn begin(&mut self) {
        if self.hold.is_none() {
            self.hold = Some(self.budget.take_when_free(FIRST_BYTES).await);
        }
    }

    /// Holds enough for an epoch of `bytes`. False where there is no room: seal it.
    #[must_use]
    pub fn reach(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_mul(COPIES);
        let Some(hold) = &mut self.hold else { return true };
        wanted <= hold.bytes() || hold.grow(wanted - hold.bytes()).is_ok()
    }

    /// Gives the hold to the sealed epoch, which keeps it until its files are written.
    pub fn take(&mut self) -> Option<MemoryHold> {
        self.hold.take()
    }
}

/// What the windows of a pipeline hold.
#[derive(Debug)]
pub(crate) struct WindowMemory {
    budget: MemoryBudget,
    hold: Option<MemoryHold>,
}

impl WindowMemory {
    /// Holds `bytes`, if there is room for them.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub fn reach(&mut self, bytes: usize) -> Result<(), levada_core::Problem> {
        match &mut self.hold {
            Some(hold) if bytes > hold.bytes() => hold.grow(bytes - hold.bytes()),
            Some(hold) => {
                hold.shrink_to(bytes);
                Ok(())
            }
            None if bytes == 0 => Ok(()),
            None => {
                self.hold = Some(self.budget.take(bytes)?);
                Ok(())
            }
        }
    }
}

/// Bytes that a batch holds.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.get_array_memory_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_epoch_that_finds_no_room_is_sealed_and_the_next_one_waits_for_it() {
        let memory = FlowMemory::of(&MemoryBudget::new(100 << 20));
        let (mut one, mut two) = (memory.epoch(), memory.epoch());
        one.begin().await;
        assert!(one.reach(8 << 20), "24 of 40 MiB");
        two.begin().await;
        assert!(!one.reach(9 << 20), "the other has begun with the rest");
        let sealed = one.take().expect("a hold");
        let mut next = std::pin::pin!(one.begin());
        assert!(futures::poll!(&mut next).is_pending());
        drop(sealed);
        assert!(futures::poll!(&mut next).is_ready());
    }

    #[test]
    fn windows_give_back_what_they_forget() {
        let memory = FlowMemory::of(&MemoryBudget::new(100));
        let (mut one, mut two) = (memory.windows(), memory.windows());
        assert!(one.reach(15).is_ok());
        assert_eq!(two.reach(10).map_err(|p| p.code), Err("memory-exhausted".to_owned()));
        assert!(one.reach(5).is_ok() && two.reach(10).is_ok());
    }
}
