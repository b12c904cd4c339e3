//! Open segment files, at most a fixed number, the least recently used closed first.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use levada_disk::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;

/// A segment: topic number and base offset.
pub(crate) type SegmentKey = (u32, u64);

#[derive(Debug)]
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<SegmentKey, (Arc<dyn DiskFile>, u64)>,
    by_use: BTreeMap<u64, SegmentKey>,
    tick: u64,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        Self { disk, limit: limit.max(1), state: Mutex::default() }
    }

    /// The file of a segment, opened for reading and writing; it must exist.
    pub(crate) fn get(&self, key: SegmentKey, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.tick += 1;
        let tick = state.tick;
        if let Some((file, used)) = state.files.get_mut(&key) {
            let (file, used) = (file.clone(), std::mem::replace(used, tick));
            state.by_use.remove(&used);
            state.by_use.insert(tick, key);
            return Ok(file);
        }
        drop(state);
        let file = self.disk.open(path, OpenMode::Existing)?;
        self.put(key, file.clone());
        Ok(file)
    }

    /// Notes a file that was just created.
    pub(crate) fn put(&self, key: SegmentKey, file: Arc<dyn DiskFile>) {
        let mut state = self.state.lock();
        state.tick += 1;
        let tick = state.tick;
        if let Some((_, used)) = state.files.insert(key, (file, tick)) {
            state.by_use.remove(&used);
        }
        state.by_use.insert(tick, key);
        while state.files.len() > self.limit {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            state.files.remove(&oldest);
        }
    }

    pub(crate) fn forget(&self, key: SegmentKey) {
        let mut state = self.state.lock();
        if let Some((_, used)) = state.files.remove(&key) {
            state.by_use.remove(&used);
        }
    }

    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.state.lock().files.len()
    }
}
