//! The last epochs of a pipeline, for people who want to see it work.

use std::collections::VecDeque;
use std::sync::Arc;

use levada_core::{TenantId, TenantSet};

use crate::journal::Past;
use crate::shares::Shares;

/// Epochs that are remembered.
const EPOCHS: usize = 50;

/// One committed epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochDone {
    pub epoch: u64,
    /// When it was committed; of an epoch before the last start, when it was sealed.
    pub at_ms: i64,
    /// Rows that the pipeline's table got.
    pub rows: u64,
    /// Files that hold them.
    pub files: u64,
    /// From sealing to committed; `None` for an epoch before the last start.
    pub duration_ms: Option<u64>,
    /// Rows of each tenant that had a record in it; `None` where nobody knows.
    pub tenants: Option<Box<[(TenantId, u64)]>>,
}

impl EpochDone {
    /// Rows of some tenants; `None` when none of them had a record in it.
    pub fn rows_of(&self, tenants: &TenantSet) -> Option<u64> {
        let own = self.tenants.iter().flatten().filter(|(tenant, _)| tenants.contains(tenant));
        own.map(|(_, rows)| *rows).reduce(|sum, rows| sum + rows)
    }
}

/// Rows by tenant, of what one epoch did.
pub fn rows_by_tenant(done: &Shares) -> Box<[(TenantId, u64)]> {
    done.iter().map(|(tenant, share)| (tenant.clone(), share.totals.rows_out)).collect()
}

/// The ring of them, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Arc<EpochDone>>);

impl History {
    /// Adds what manifests tell of epochs that it does not know, oldest first.
    pub fn catch_up(&mut self, past: &[Past]) {
        let known = self.0.back().map_or(0, |done| done.epoch);
        let mut before: Option<&Past> = None;
        for one in past {
            let before = before.replace(one).filter(|b| b.meta.epoch + 1 == one.meta.epoch);
            let Some(at_ms) = one.meta.at_ms.filter(|_| one.meta.epoch > known) else { continue };
            self.push(EpochDone {
                epoch: one.meta.epoch,
                at_ms,
                rows: one.meta.files.iter().map(|f| f.rows).sum(),
                files: one.meta.files.len() as u64,
                duration_ms: None,
                tenants: difference(before, one),
            });
        }
    }

    pub fn push(&mut self, done: EpochDone) {
        if self.0.len() == EPOCHS {
            self.0.pop_front();
        }
        self.0.push_back(Arc::new(done));
    }

    /// Newest first.
    pub fn newest_first(&self) -> Vec<Arc<EpochDone>> {
        self.0.iter().rev().cloned().collect()
    }
}

/// What came to each tenant between two manifests.
fn difference(before: Option<&Past>, one: &Past) -> Option<Box<[(TenantId, u64)]>> {
    let nothing = Shares::default();
    let before = match before {
        Some(before) => &*before.shares,
        None if one.meta.epoch == 1 => &nothing,
        None => return None,
    };
    let rows_before = |tenant: &TenantId| before.get(tenant).map_or(0, |share| share.totals.rows_out);
    let touched = one.shares.iter().filter(|(_, share)| share.epoch == one.meta.epoch);
    Some(
        touched.map(|(t, share)| (t.clone(), share.totals.rows_out.saturating_sub(rows_before(t)))).collect(),
    )
}
