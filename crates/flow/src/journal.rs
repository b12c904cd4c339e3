//! The manifests and snapshots of one pipeline on disk, and what they say after a restart.
//!
//! `m-<epoch>` is a manifest whose effects may not have happened yet, `d-<epoch>` one whose
//! effects have. The rename between the two is not synced: after a crash a finished epoch may
//! be rolled forward once more, which changes nothing. `s-<epoch>` holds the windows after an
//! epoch; what is older than the newest of them goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use levada_disk::{Disk, create_dir_durable, parent, read_all, write_atomic};

use crate::manifest::{self, Manifest, Meta, WindowBytes};
use crate::shares::Shares;

/// Why the state of a pipeline cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The pipeline must not go on: it would lose or double rows.
    #[error("{path} is damaged: {reason}; restore it from a backup")]
    Damaged { path: String, reason: String },
}

/// What a journal holds at its opening.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Window state in the order in which it is to be restored.
    pub windows: Vec<WindowBytes>,
    /// What is known of the epochs whose manifests were needed, oldest first.
    pub past: Vec<Past>,
    /// The newest manifest, its deltas among `windows`.
    pub last: Option<Manifest>,
    /// Whether the newest manifest's effects are known to have happened.
    pub settled: bool,
}

/// A manifest without what only its own epoch needed.
#[derive(Debug, Clone)]
pub struct Past {
    pub meta: Meta,
    pub shares: Arc<Shares>,
}

/// Handle to the folder; one owner at a time.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: String,
    /// Whether this run knows the folder and what was found in it to be durable.
    anchored: AtomicBool,
}

#[derive(Default)]
struct Listing {
    /// Epoch to whether it is settled.
    manifests: BTreeMap<u64, bool>,
    snapshots: Vec<u64>,
}

impl Journal {
    /// # Errors
    /// [`JournalError::Damaged`] when something that is needed is missing or does not read.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<(Self, Recovered), JournalError> {
        let journal = Self { disk, dir: dir.to_owned(), anchored: AtomicBool::new(false) };
        create_dir_durable(&*journal.disk, dir).map_err(|e| journal.io("", e))?;
        let recovered = journal.recover()?;
        if recovered.last.is_some() && !recovered.settled {
            journal.anchor()?;
        }
        Ok((journal, recovered))
    }

    /// Makes durable what a process that was killed may have left half done: the names in
    /// the folder and the folder's own. Until then an effect could outlive its manifest.
    fn anchor(&self) -> Result<(), JournalError> {
        if self.anchored.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut dir = self.dir.as_str();
        loop {
            self.disk.sync_dir(dir).map_err(|e| self.io(dir, e))?;
            if dir.is_empty() {
                break;
            }
            dir = parent(dir);
        }
        self.anchored.store(true, Ordering::Release);
        Ok(())
    }

    fn path(&self, kind: char, epoch: u64) -> String {
        format!("{}/{kind}-{epoch:020}", self.dir)
    }

    fn io(&self, path: &str, source: io::Error) -> JournalError {
        let path = if path.is_empty() { &self.dir } else { path };
        JournalError::Io { path: path.to_owned(), source }
    }

    fn list(&self) -> Result<Listing, JournalError> {
        let mut found = Listing::default();
        for entry in self.disk.list(&self.dir).map_err(|e| self.io("", e))? {
            let Some((kind, Ok(epoch))) = entry.name.split_once('-').map(|(k, e)| (k, e.parse::<u64>()))
            else {
                continue;
            };
            match kind {
                "m" => drop(found.manifests.entry(epoch).or_insert(false)),
                "d" => drop(found.manifests.insert(epoch, true)),
                "s" => found.snapshots.push(epoch),
                _ => {}
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, JournalError> {
        read_all(&*self.disk, path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                JournalError::Damaged { path: path.to_owned(), reason: "it is missing".to_owned() }
            }
            _ => self.io(path, e),
        })
    }

    fn manifest(&self, listing: &Listing, epoch: u64) -> Result<Manifest, JournalError> {
        let kind = if listing.manifests.get(&epoch) == Some(&true) { 'd' } else { 'm' };
        let path = self.path(kind, epoch);
        Manifest::decode(&self.read(&path)?).map_err(|reason| JournalError::Damaged { path, reason })
    }

    fn recover(&self) -> Result<Recovered, JournalError> {
        let listing = self.list()?;
        let Some((&epoch, &settled)) = listing.manifests.last_key_value() else {
            return Ok(Recovered::default());
        };
        let mut last = self.manifest(&listing, epoch)?;
        let base = last.meta.base;
        let (mut windows, mut past) = (Vec::new(), Vec::new());
        if base < epoch {
            if base > 0 {
                let path = self.path('s', base);
                let state = manifest::decode_snapshot(&self.read(&path)?);
                windows.push(state.map_err(|reason| JournalError::Damaged { path, reason })?);
            }
            for epoch in base + 1..epoch {
                let Manifest { meta, deltas, shares, .. } = self.manifest(&listing, epoch)?;
                windows.push(deltas);
                past.push(Past { meta, shares });
            }
            windows.push(std::mem::take(&mut last.deltas));
        }
        past.push(Past { meta: last.meta.clone(), shares: last.shares.clone() });
        self.remove_before(&listing, base);
        Ok(Recovered { windows, past, last: Some(last), settled })
    }

    /// Decides an epoch: durable when it returns.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the same manifest may be written again.
    pub fn write(&self, manifest: &Manifest) -> Result<(), JournalError> {
        self.anchor()?;
        let path = self.path('m', manifest.meta.epoch);
        let bytes = manifest.encode().map_err(|e| self.io(&path, e.into()))?;
        write_atomic(&*self.disk, &path, &bytes).map_err(|e| self.io(&path, e))
    }

    /// Notes that the effects of an epoch have happened. Not durable by itself; a failure
    /// only costs a repetition after the next start.
    pub fn settle(&self, epoch: u64) {
        if let Err(error) = self.disk.rename(&self.path('m', epoch), &self.path('d', epoch)) {
            tracing::warn!(dir = %self.dir, epoch, %error, "cannot mark an epoch as done");
        }
    }

    /// Makes the notes of [`Journal::settle`] durable: at the end of a clean run.
    pub fn sync(&self) {
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            tracing::warn!(dir = %self.dir, %error, "cannot sync a pipeline's folder");
        }
    }

    /// Keeps the windows as they were after `epoch` and removes what they replace. Without
    /// windows only the removal is left to do.
    ///
    /// # Errors
    /// [`JournalError::Io`]; older state is still complete then.
    pub fn rebase(&self, epoch: u64, state: &WindowBytes) -> Result<(), JournalError> {
        if !state.is_empty() {
            let path = self.path('s', epoch);
            write_atomic(&*self.disk, &path, &manifest::encode_snapshot(state))
                .map_err(|e| self.io(&path, e))?;
        }
        self.remove_before(&self.list()?, epoch);
        Ok(())
    }

    /// Removes what is older than an epoch; the newest manifest stays.
    fn remove_before(&self, listing: &Listing, epoch: u64) {
        let last = listing.manifests.last_key_value().map_or(0, |(e, _)| *e);
        let manifests =
            listing.manifests.range(..epoch.min(last)).map(|(e, done)| (if *done { 'd' } else { 'm' }, *e));
        let snapshots = listing.snapshots.iter().filter(|e| **e < epoch).map(|e| ('s', *e));
        for (kind, epoch) in manifests.chain(snapshots) {
            let path = self.path(kind, epoch);
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%path, %error, "an old manifest stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_disk::SimDisk;

    use super::*;
    use crate::manifest::Totals;

    fn manifest(epoch: u64, base: u64) -> Manifest {
        let meta = Meta {
            epoch,
            base,
            from: None,
            position: serde_json::json!(epoch),
            records: 1,
            files: Vec::new(),
            dead_from: 0,
            totals: Totals::default(),
            at_ms: None,
            steps: Vec::new(),
        };
        let deltas = vec![("w".into(), vec![epoch as u8])];
        Manifest { meta, letters: Vec::new(), deltas, shares: Arc::default() }
    }

    #[test]
    fn a_restart_finds_the_last_epoch_and_the_state_up_to_it() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let (journal, fresh) = Journal::open(disk.clone(), "flow/a/p").expect("opens");
        assert!(fresh.last.is_none());
        for epoch in 1..=3 {
            journal.write(&manifest(epoch, 0)).expect("writes");
            journal.settle(epoch);
        }
        journal.rebase(3, &vec![("w".into(), vec![1, 2, 3])]).expect("writes");
        journal.write(&manifest(4, 3)).expect("writes");
        journal.settle(4);
        journal.write(&manifest(5, 3)).expect("writes");
        let (journal, back) = Journal::open(disk.clone(), "flow/a/p").expect("opens");
        let bytes: Vec<u8> = back.windows.iter().flatten().flat_map(|(_, b)| b.clone()).collect();
        assert_eq!(bytes, [1, 2, 3, 4, 5]);
        assert_eq!(back.past.iter().map(|p| p.meta.epoch).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(back.last.map(|m| m.meta.epoch), Some(5));
        assert!(!back.settled);
        let names: Vec<_> = disk.list("flow/a/p").expect("lists").into_iter().map(|e| e.name).collect();
        assert_eq!(names.len(), 4, "{names:?}: one old manifest may stay beside its snapshot");
        disk.remove(&journal.path('d', 4)).expect("removes");
        let broken = Journal::open(disk, "flow/a/p").map(|_| ());
        assert!(matches!(broken, Err(JournalError::Damaged { .. })), "a gap is not passed over");
    }

    #[test]
    fn a_written_manifest_survives_a_power_loss() {
        for seed in 0..50 {
            println!("seed {seed}");
            let disk = SimDisk::new(seed);
            let (journal, _) = Journal::open(Arc::new(disk.clone()), "flow/p").expect("opens");
            journal.write(&manifest(1, 0)).expect("writes");
            let (_, back) = Journal::open(Arc::new(disk.crash()), "flow/p").expect("opens");
            assert_eq!(back.last.map(|m| m.meta.epoch), Some(1));
        }
    }
}
