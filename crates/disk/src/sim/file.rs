//! File contents, in two versions: what a reader sees and what a power loss leaves.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{OpKind, SimRng, State, SyncKind};
use crate::{DiskFile, OpenMode};

/// A torn write is cut at multiples of this many bytes in the file.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(contents, *offset, bytes),
            Change::SetLen(len) => contents.resize(*len, 0),
        }
    }
}

fn put(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

/// How a power loss treats unsynced changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    All,
    Nothing,
    Mixed,
}

#[derive(Debug, Default)]
pub(super) struct FileData {
    view: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

impl FileData {
    pub(super) fn len(&self) -> usize {
        self.view.len()
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.view);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// After a failed sync the pages count as clean: readable, but never written again.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let flip = |contents: &mut Vec<u8>| match contents.get_mut(at) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        };
        flip(&mut self.durable);
        if flip(&mut self.view) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    pub(super) fn after_power_loss(&self, rng: &mut SimRng, loss: Loss) -> FileData {
        let mut contents = self.durable.clone();
        for change in &self.unsynced {
            let fate = match loss {
                Loss::All => 0,
                Loss::Nothing => 1,
                Loss::Mixed => rng.below(3),
            };
            match (fate, change) {
                (0, _) => {}
                (2, Change::Write { offset, bytes }) => tear(&mut contents, *offset, bytes, rng),
                (_, change) => change.apply(&mut contents),
            }
        }
        FileData { view: contents.clone(), durable: contents, unsynced: Vec::new() }
    }
}

/// Applies a random choice of the sectors that a write touches.
fn tear(contents: &mut Vec<u8>, offset: usize, bytes: &[u8], rng: &mut SimRng) {
    let end = offset + bytes.len();
    let mut at = offset;
    while at < end {
        let stop = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if rng.one_in(2) {
            put(contents, at, &bytes[at - offset..stop - offset]);
        }
        at = stop;
    }
}

/// An open handle.
#[derive(Debug)]
pub(super) struct SimFile {
    state: Arc<Mutex<State>>,
    data: Arc<Mutex<FileData>>,
    path: String,
    mode: OpenMode,
}

impl SimFile {
    pub(super) fn new(
        state: Arc<Mutex<State>>,
        data: Arc<Mutex<FileData>>,
        path: &str,
        mode: OpenMode,
    ) -> Self {
        Self { state, data, path: path.to_owned(), mode }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.mode == OpenMode::Read { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.state.lock().begin(OpKind::Read, &self.path)?;
        let data = self.data.lock();
        let from = position(offset)?.min(data.view.len());
        let n = buf.len().min(data.view.len() - from);
        buf[..n].copy_from_slice(&data.view[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let offset = position(offset)?;
        let mut state = self.state.lock();
        let mut data = self.data.lock();
        let growth = (offset + bytes.len()).saturating_sub(data.len());
        drop(data);
        state.begin(OpKind::Write, &self.path)?;
        state.check_space(growth as u64)?;
        data = self.data.lock();
        data.change(Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.state.lock().begin(OpKind::Read, &self.path)?;
        Ok(self.data.lock().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let len = position(len)?;
        let mut state = self.state.lock();
        state.begin(OpKind::SetLen, &self.path)?;
        let growth = len.saturating_sub(self.data.lock().len());
        state.check_space(growth as u64)?;
        self.data.lock().change(Change::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Err(error) = state.begin(OpKind::SyncData, &self.path) {
            if !state.plan.crashed() {
                self.data.lock().forget_unsynced();
            }
            return Err(error);
        }
        if !state.plan.skips(SyncKind::File, &self.path) {
            self.data.lock().sync();
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
