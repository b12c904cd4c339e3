//! The versions that one query reads. A table is pinned at its first scan, so that a query
//! that names it twice sees one version although commits go on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::error::{Context, LakeError};
use crate::lake::Lake;
use crate::table::{Slot, TableState};
use crate::types::{AsOf, TableKey};

type Pin = Arc<OnceCell<Arc<TableState>>>;

#[derive(Debug)]
pub(crate) struct Pins {
    lake: Lake,
    /// Where the states of tables are loaded: not among queries. A load holds the lock that
    /// commits take, and must not wait for a thread that a query keeps busy.
    loads: Handle,
    pinned: Mutex<BTreeMap<TableKey, Pin>>,
}

impl Pins {
    pub fn new(lake: Lake, loads: Handle) -> Self {
        Self { lake, loads, pinned: Mutex::default() }
    }

    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The state of the table for this query.
    pub async fn state(&self, slot: &Arc<Slot>) -> Result<Arc<TableState>, LakeError> {
        let pin = Arc::clone(self.pinned.lock().entry(slot.key.clone()).or_default());
        pin.get_or_try_init(|| self.load(slot)).await.cloned()
    }

    async fn load(&self, slot: &Arc<Slot>) -> Result<Arc<TableState>, LakeError> {
        let (lake, slot) = (self.lake.clone(), Arc::clone(slot));
        let loaded = self.loads.spawn(async move { lake.state(&slot).await }).await;
        loaded.map_err(io::Error::other).context(|| "loading a table".into())?
    }

    /// The versions that were read so far.
    pub fn as_of(&self) -> Vec<AsOf> {
        let pinned = self.pinned.lock();
        pinned
            .iter()
            .filter_map(|(key, pin)| pin.get().map(|state| (key, state)))
            .map(|(key, state)| AsOf {
                table: key.name.to_string(),
                version: state.version().unwrap_or(0),
                epochs: state.epochs.clone(),
            })
            .collect()
    }
}
