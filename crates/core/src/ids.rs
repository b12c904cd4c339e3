//! Identifiers: time-ordered and unique, from a source that is passed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;

/// Makes ids.
pub trait IdSource: Send + Sync + std::fmt::Debug {
    /// A new UUID, version 7 layout: ordered by the clock's milliseconds.
    fn uuid(&self) -> uuid::Uuid;
}

/// UUIDv7 from the operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
}

/// Reproducible ids for simulations: the clock's time and a counter mixed with a seed.
#[derive(Debug)]
pub struct SeededIds {
    clock: Arc<dyn Clock>,
    seed: u64,
    next: AtomicU64,
}

impl SeededIds {
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { clock, seed, next: AtomicU64::new(0) }
    }
}

impl IdSource for SeededIds {
    fn uuid(&self) -> uuid::Uuid {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut tail = [0u8; 10];
        tail[..2].copy_from_slice(&(n as u16).to_be_bytes());
        tail[2..].copy_from_slice(&(self.seed.rotate_left(17) ^ n).to_be_bytes());
        let ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &tail).into_uuid()
    }
}
