//! The table of faults through the whole embedded bus: what a failing disk, a jumping clock,
//! a bad consumer or sheer number does to publishes, deliveries and acknowledgements.
//!
//! `docs/faults.md` says for each fault what happens; here is what shows it. Faults of the disk
//! run on the simulated disk and on a folder of the machine. Cases that measure run alone, and
//! print what they measured.

mod age;
mod clocks;
mod consumers;
mod disk;
mod ground;
mod model;
mod scale;
mod storage;
mod world;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::const_new(());

/// Runs beside others of its kind.
async fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// Runs while nothing else does, so that its figures are its own.
async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}
