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

#[cfg(test)]
mod tests {
    use levada_disk::SimDisk;

    use super::*;

    #[test]
    fn open_files_are_bounded_and_the_least_recently_used_is_closed() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let files = OpenFiles::new(disk.clone(), 3);
        assert!(files.get((1, 0), "f").is_err(), "a file that is gone is not created");
        for i in 0..10 {
            let path = format!("f{i}");
            files.put((i, 0), disk.open(&path, OpenMode::Write).unwrap());
            assert!(files.get((0, 0), "f0").is_ok());
            assert!(files.open_count() <= 3);
        }
        let is_open = |i: u32| files.state.lock().files.contains_key(&(i, 0));
        assert!(is_open(0) && is_open(9) && is_open(8) && !is_open(7));
        files.forget((0, 0));
        assert_eq!(files.open_count(), 2);
        assert_eq!(files.state.lock().by_use.len(), 2);
    }
}
