//! The event bus port over Levada's own durable log.
//!
//! ```text
//! publish ─► topic in the log ─► scan ─► delivery machine ─► lease ─► acknowledge
//!                                                                        │
//!                       checkpoint ◄── journal of acknowledgements ◄─────┘
//! ```
//!
//! Topics, subscriptions and snapshots are documents. An acknowledgement is a record in a
//! journal, which is a topic of the log itself: it shares commit groups with publishes, and a
//! move to a dead letter is one group of the copy and the acknowledgement. What the journal
//! says is folded into a checkpoint now and then, so that it stays short.

mod cache;
mod catalog;
mod checkpoint;
mod dead;
mod deliver;
mod documents;
mod journal;
mod meters;
mod open;
mod peek;
mod port;
mod rate;
mod replay;
mod retention;
mod scan;
mod schedule;
mod seek;
mod subscription;
mod subscriptions;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use futures::future::BoxFuture;
use levada_core::ProjectId;
use parking_lot::{Mutex, RwLock};

use crate::bus::Bus;
use crate::config::BusError;
use crate::embedded::catalog::Catalog;
use crate::embedded::checkpoint::Last;
use crate::embedded::documents::Documents;
use crate::embedded::journal::Journal;
use crate::embedded::meters::Meters;
use crate::embedded::subscription::Subscription;
use crate::port::PortError;

/// The log's topic of acknowledgements. No project can be called by an empty name.
pub(crate) const JOURNAL_TOPIC: &str = ":acknowledgements";

/// The event bus of one log. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct EmbeddedBus {
    inner: Arc<Embedded>,
}

impl std::fmt::Debug for EmbeddedBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBus").field("home", &self.inner.home).finish_non_exhaustive()
    }
}

pub(crate) struct Embedded {
    bus: Bus,
    /// The project whose topics are those of the project folder.
    home: ProjectId,
    documents: Documents,
    journal: Journal,
    catalog: RwLock<Catalog>,
    /// Changes of the catalog take turns.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// What is left of the bytes of messages that were scanned and wait for delivery, of all
    /// subscriptions together.
    cache_left: Arc<AtomicI64>,
    /// Subscriptions with acknowledgements that wait for the journal.
    queued: Mutex<Vec<Arc<Subscription>>>,
    /// Writes of those take turns.
    flush_turn: Mutex<()>,
    /// A write of those is under way soon.
    flushing: AtomicBool,
    last_checkpoint: Mutex<Last>,
    meters: Meters,
    /// Above every ack id that an earlier start, or a deleted subscription, gave out.
    first_ack_id: AtomicU64,
}

impl Embedded {
    fn now(&self) -> crate::delivery::Now {
        let clock = &self.bus.inner.clock;
        crate::delivery::Now { at: clock.monotonic(), wall_ms: clock.now_ms() }
    }
}

impl EmbeddedBus {
    /// Runs a change of the catalog, alone and where blocking is allowed. Dropping the future
    /// does not stop a change that has begun.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Arc<Embedded>) -> Result<T, PortError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, PortError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let turn = inner.changing.clone().lock_owned().await;
            let changed = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                change(&inner)
            });
            changed.await.map_err(|error| PortError::Internal(error.to_string()))?
        })
    }
}

impl From<BusError> for PortError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::TooManyTopics(_) => PortError::ResourceExhausted(error.to_string()),
            BusError::UnknownTopic(name) => PortError::NotFound { what: "topic", name: name.to_string() },
            BusError::Log(_) | BusError::Closed => PortError::Unavailable(error.to_string()),
            BusError::Store(_) | BusError::Record { .. } => PortError::Internal(error.to_string()),
        }
    }
}

impl From<levada_log::LogError> for PortError {
    fn from(error: levada_log::LogError) -> Self {
        BusError::from(error).into()
    }
}
