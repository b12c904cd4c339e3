//! The versions that one query reads. A table is pinned at its first scan, so that a query
//! that names it twice sees one version although commits go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::LakeError;
use crate::lake::Lake;
use crate::table::{Slot, TableState};
use crate::types::{AsOf, TableKey};

type Pin = Arc<OnceCell<Arc<TableState>>>;

#[derive(Debug)]
pub(crate) struct Pins {
    lake: Lake,
    pinned: Mutex<BTreeMap<TableKey, Pin>>,
}

impl Pins {
    pub fn new(lake: Lake) -> Self {
        Self { lake, pinned: Mutex::default() }
    }

    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The state of the table for this query.
    pub async fn state(&self, slot: &Arc<Slot>) -> Result<Arc<TableState>, LakeError> {
        let pin = Arc::clone(self.pinned.lock().entry(slot.key.clone()).or_default());
        pin.get_or_try_init(|| self.lake.state(slot)).await.cloned()
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
