//! The walk over all data files that finds damage before a query does.
//!
//! Each call looks at a bounded number of bytes and goes on where the one before ended: a disk
//! of any size is walked in the background, and a pass begins again when it is through. Tables
//! come first, then the objects of bronze by their rosters.

use std::sync::Arc;

use levada_core::SourceName;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use crate::blocks::{BLOCK_BYTES, Damage};
use crate::bronze::Entry;
use crate::diskstore::is_log;
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
    next: Option<Place>,
    found: Vec<Damage>,
}

/// What comes next.
#[derive(Debug)]
enum Place {
    /// A file of a table, and the byte to begin at.
    Table(TableKey, String, u64),
    /// A source's roster, and the byte of it to go on at.
    Bronze(SourceName, u64),
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
        let next = match start {
            Some(Place::Bronze(source, at)) => {
                self.scrub_bronze(Some((source, at)), &mut left, &mut new).await
            }
            Some(Place::Table(key, path, at)) => {
                self.scrub_tables(Some((key, path, at)), &mut left, &mut new).await
            }
            None => self.scrub_tables(None, &mut left, &mut new).await,
        };
        self.inner.scrubber.state.lock().next = next;
        self.note(new)
    }

    /// What the walks have found and is still so: files that left their table do not count.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.scrubber.state.lock().found.clone()
    }

    async fn scrub_tables(
        &self,
        start: Option<(TableKey, String, u64)>,
        left: &mut u64,
        new: &mut Vec<Damage>,
    ) -> Option<Place> {
        for slot in self.slots_from(start.as_ref().map(|(key, ..)| key)) {
            let resumed = start.as_ref().filter(|(key, ..)| *key == slot.key);
            let from = resumed.map(|(_, path, at)| (path.as_str(), *at));
            if let Some((path, at)) = self.scrub_table(&slot, from, left, new).await {
                return Some(Place::Table(slot.key.clone(), path, at));
            }
        }
        self.scrub_bronze(None, left, new).await
    }

    /// Walks the rosters of bronze from a place on.
    async fn scrub_bronze(
        &self,
        start: Option<(SourceName, u64)>,
        left: &mut u64,
        new: &mut Vec<Damage>,
    ) -> Option<Place> {
        let sources: Vec<SourceName> = self.inner.sources.read().keys().cloned().collect();
        for source in sources {
            let mut at = match &start {
                Some((first, _)) if source < *first => continue,
                Some((first, at)) if source == *first => *at,
                _ => 0,
            };
            loop {
                let (lake, name) = (self.clone(), source.clone());
                let read = match self.compute(move || lake.enrolled(&name, at)).await {
                    Ok(Ok(read)) => read,
                    Ok(Err(error)) => {
                        tracing::warn!(%source, %error, "the roster of a bronze source cannot be read");
                        None
                    }
                    Err(_) => None,
                };
                let Some((entries, next)) = read else { break };
                if *left == 0 {
                    return Some(Place::Bronze(source, at));
                }
                for entry in entries {
                    *left = left.saturating_sub(entry.len.div_ceil(BLOCK_BYTES).max(1));
                    new.extend(self.scrub_object(&source, &entry).await);
                }
                at = next;
            }
        }
        None
    }

    async fn scrub_object(&self, source: &SourceName, entry: &Entry) -> Option<Damage> {
        let reason = match self.store().digest(&Path::from(entry.path.as_str())).await {
            Ok(found) if found == (entry.len, entry.sum) => return None,
            Ok(_) => "the object is not what was kept".to_owned(),
            Err(object_store::Error::NotFound { .. }) => "the object is gone".to_owned(),
            Err(error) => error.to_string(),
        };
        let owner = crate::spec::owner_of(entry.path.split('/').next().unwrap_or_default())?;
        Some(Damage { owner, table: format!("bronze.{source}"), file: entry.path.clone(), reason })
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
        let log = match from {
            None => Some(self.scrub_log(slot, left).await),
            Some(_) => None,
        };
        self.forget_replaced(slot, &state.files, log.as_deref());
        new.extend(log.into_iter().flatten());
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

    /// Compares the files of a table's log, which are few and small, with their checksums.
    async fn scrub_log(&self, slot: &Slot, left: &mut u64) -> Vec<Damage> {
        let mut found = Vec::new();
        let dir = Path::from(format!("{}/_delta_log", slot.dir));
        let Ok(listed) = self.store().list_with_delimiter(Some(&dir)).await else { return found };
        for object in listed.objects {
            match self.store().verify_log(&object.location).await {
                Ok(blocks) => *left = left.saturating_sub(blocks),
                // It was trimmed since.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => found.push(damage(slot, object.location.to_string(), error.to_string())),
            }
        }
        found
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

    /// Damage of files that are no longer in the table is no damage of the table. `log` is what is
    /// damaged of its log, where that was looked at.
    fn forget_replaced(&self, slot: &Slot, files: &[Arc<FileEntry>], log: Option<&[Damage]>) {
        let mut walk = self.inner.scrubber.state.lock();
        let prefix = format!("{}/", slot.dir);
        walk.found.retain(|damage| {
            !damage.file.starts_with(&prefix)
                || files.iter().any(|file| damage.file == slot.path(&file.path).as_ref())
                || is_log(&Path::from(damage.file.as_str()))
                    && log.is_none_or(|log| log.iter().any(|still| still.file == damage.file))
        });
    }

    /// Keeps what was not known yet, and returns it.
    fn note(&self, found: Vec<Damage>) -> Vec<Damage> {
        let mut walk = self.inner.scrubber.state.lock();
        let mut new: Vec<Damage> = Vec::new();
        for damage in found {
            if walk.found.iter().chain(&new).any(|known| known.file == damage.file) {
                continue;
            }
            let Damage { owner, table, file, reason } = &damage;
            tracing::error!(owner = owner.as_str(), %table, %file, %reason, "a file of the lake is damaged");
            new.push(damage);
        }
        let room = MAX_SHOWN.saturating_sub(walk.found.len());
        walk.found.extend(new.iter().take(room).cloned());
        crate::metrics::damaged(walk.found.len());
        new
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
