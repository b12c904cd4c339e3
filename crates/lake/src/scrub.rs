//! The walk over all data files that finds damage before a query does.
//!
//! Each call looks at a bounded number of bytes and goes on where the one before ended: a disk
//! of any size is walked in the background, and a pass begins again when it is through.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use parking_lot::Mutex;

use crate::blocks::{BLOCK_BYTES, Damage};
use crate::lake::Lake;
use crate::table::{FileEntry, Slot};
use crate::types::TableKey;

/// Damages that are kept to be shown; more are counted in the log only.
const MAX_SHOWN: usize = 1_000;

/// How far the walk has come, and what it found.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    state: Mutex<Walk>,
    /// One walk at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Walk {
    /// The table and file that come next, and the byte to begin at.
    next: Option<(TableKey, String, u64)>,
    found: Vec<Damage>,
}

impl Lake {
    /// Compares about `budget_bytes` of the tables' files with their checksums, going on where
    /// the call before ended. Files without checksums (written by other programs, or before
    /// there were any) are only looked for. Returns what is newly found; [`Lake::damage`] has all.
    pub async fn scrub(&self, budget_bytes: u64) -> Vec<Damage> {
        let _turn = self.inner.scrubber.turn.lock().await;
        let mut left = budget_bytes.div_ceil(BLOCK_BYTES).max(1);
        let start = self.inner.scrubber.state.lock().next.take();
        let mut new = Vec::new();
        for slot in self.slots_from(start.as_ref().map(|(key, ..)| key)) {
            let resumed = start.as_ref().filter(|(key, ..)| *key == slot.key);
            let from = resumed.map(|(_, path, at)| (path.as_str(), *at));
            match self.scrub_table(&slot, from, &mut left, &mut new).await {
                None => {}
                Some((path, at)) => {
                    self.inner.scrubber.state.lock().next = Some((slot.key.clone(), path, at));
                    break;
                }
            }
        }
        self.note(&new);
        new
    }

    /// What the walks have found and is still so: files that left their table do not count.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.scrubber.state.lock().found.clone()
    }

    /// Walks one table. Answers where to go on when the budget is used up.
    async fn scrub_table(
        &self,
        slot: &Arc<Slot>,
        from: Option<(&str, u64)>,
        left: &mut u64,
        new: &mut Vec<Damage>,
    ) -> Option<(String, u64)> {
        let state = match self.state(slot).await {
            Ok(state) => state,
            Err(error) => {
                let file = format!("{}/_delta_log", slot.dir);
                new.push(damage(slot, file, error.to_string()));
                return None;
            }
        };
        self.forget_replaced(slot, &state.files);
        let mut files: Vec<&Arc<FileEntry>> = state.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            let mut at = match from {
                Some((path, _)) if file.path.as_str() < path => continue,
                Some((path, at)) if file.path == path => at,
                _ => 0,
            };
            loop {
                if *left == 0 {
                    return Some((file.path.clone(), at));
                }
                *left -= 1;
                match self.scrub_block(slot, file, at).await {
                    Ok(Some(next)) => at = next,
                    Ok(None) => break,
                    Err(reason) => {
                        let file = slot.path(&file.path).to_string();
                        new.push(damage(slot, file, reason));
                        break;
                    }
                }
            }
        }
        None
    }

    /// Compares one block; answers where the next one begins.
    async fn scrub_block(&self, slot: &Slot, file: &FileEntry, at: u64) -> Result<Option<u64>, String> {
        let path = slot.path(&file.path);
        let checked = match &file.blocks {
            Some(blocks) => self.store().verify(&path, blocks, at, 1).await,
            None => match self.store().head(&path).await {
                Ok(found) if found.size == file.size_bytes => Ok(None),
                Ok(found) => {
                    let (has, had) = (found.size, file.size_bytes);
                    return Err(format!("the file has {has} bytes and was written with {had}"));
                }
                Err(error) => Err(error),
            },
        };
        match checked {
            Ok(next) => Ok(next),
            // It may have been swept since: then it is no longer in the table.
            Err(object_store::Error::NotFound { .. }) if !self.holds(slot, file) => Ok(None),
            Err(object_store::Error::NotFound { .. }) => Err("the file is gone".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn holds(&self, slot: &Slot, file: &FileEntry) -> bool {
        let tick = slot.last_used().unwrap_or(0);
        slot.cached(tick).is_none_or(|now| now.files.iter().any(|other| other.path == file.path))
    }

    /// Damage of files that are no longer in the table is no damage of the table.
    fn forget_replaced(&self, slot: &Slot, files: &[Arc<FileEntry>]) {
        let mut walk = self.inner.scrubber.state.lock();
        let prefix = format!("{}/", slot.dir);
        walk.found.retain(|damage| {
            !damage.file.starts_with(&prefix)
                || files.iter().any(|file| damage.file == slot.path(&file.path).as_ref())
        });
    }

    fn note(&self, new: &[Damage]) {
        let mut walk = self.inner.scrubber.state.lock();
        for damage in new {
            let known = walk.found.iter().any(|found| found.file == damage.file);
            if !known {
                let Damage { owner, table, file, reason } = damage;
                tracing::error!(owner = owner.as_str(), %table, %file, %reason, "a file of the lake is damaged");
            }
            if !known && walk.found.len() < MAX_SHOWN {
                walk.found.push(damage.clone());
            }
        }
        crate::metrics::damaged(walk.found.len());
    }

    /// All tables in order, from one on.
    fn slots_from(&self, first: Option<&TableKey>) -> Vec<Arc<Slot>> {
        let mut slots = self.slots();
        slots.sort_by(|a, b| a.key.cmp(&b.key));
        slots.retain(|slot| first.is_none_or(|first| slot.key >= *first));
        slots
    }
}

fn damage(slot: &Slot, file: String, reason: String) -> Damage {
    Damage { owner: slot.key.owner.clone(), table: slot.key.name.to_string(), file, reason }
}
