//! A disk in memory that behaves badly on purpose, from a seed.
//!
//! It keeps apart what has been synced and what has not, for file contents and for the
//! names in folders. `crash` gives the disk after a power loss: every unsynced write is
//! kept, lost or torn at 512-byte sectors; of each folder's unsynced changes a prefix
//! survives. `restart` gives the disk after a mere kill of the process, where the page
//! cache lives on. It is stricter than most file systems: syncing a file does not make
//! its name durable.

mod fault;
mod file;
mod tree;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Disk, DiskFile, Entry, OpenMode, check_path};
use fault::Plan;
pub use fault::{Fault, FaultError, OpKind, SyncKind};
use file::SimFile;
use tree::{DirChange, Node, Tree};

/// A small generator whose sequence never changes, so that a seed replays for ever
/// (SplitMix64, by Guy Steele, Doug Lea and Christine Flood).
#[derive(Debug, Clone)]
pub struct SimRng(u64);

impl SimRng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug)]
struct State {
    tree: Tree,
    plan: Plan,
    rng: SimRng,
    capacity_bytes: Option<u64>,
}

impl State {
    /// Counts an operation and lets the fault plan have its say.
    fn begin(&mut self, kind: OpKind, path: &str) -> io::Result<()> {
        self.plan.begin(kind, path)
    }

    fn check_space(&self, growth: u64) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if growth > 0 && self.tree.used_bytes() + growth > capacity => {
                Err(fault::enospc())
            }
            _ => Ok(()),
        }
    }
}

/// The simulated disk. Clones share one state.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self::with_tree(Tree::default(), SimRng::new(seed))
    }

    fn with_tree(tree: Tree, rng: SimRng) -> Self {
        let state = State { tree, plan: Plan::default(), rng, capacity_bytes: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk as it is found after a power loss now. This one fails from here on.
    /// Faults, skipped syncs and the capacity are not carried over.
    pub fn crash(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.plan.set_crashed();
        let mut rng = SimRng::new(state.rng.next_u64());
        let tree = state.tree.after_power_loss(&mut rng);
        Self::with_tree(tree, rng)
    }

    /// The disk as a new process finds it after this one was killed: nothing is lost,
    /// but what was not synced is still not. This one fails from here on.
    pub fn restart(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.plan.set_crashed();
        let rng = SimRng::new(state.rng.next_u64());
        Self::with_tree(state.tree.share(), rng)
    }

    /// Plans a fault.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().plan.add(fault);
    }

    /// All operations after the next `n` fail with `crashed`.
    pub fn crash_after(&self, n: u64) {
        self.state.lock().plan.crash_after(n);
    }

    /// Whether the planned crash has come.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().plan.crashed()
    }

    /// Turns the syncs of this kind, on paths that match (`*` stands for any text), into
    /// no-ops that claim success.
    pub fn skip_syncs(&self, kind: SyncKind, pattern: &str) {
        self.state.lock().plan.skip_syncs(kind, pattern);
    }

    /// How many syncs have been skipped.
    pub fn skipped_syncs(&self) -> u64 {
        self.state.lock().plan.skipped()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().plan.operations()
    }

    /// Limits the bytes that files may take; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Flips one bit of a file, in what is durable and in what is read, as ageing media do.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> io::Result<()> {
        let state = self.state.lock();
        let file = state.tree.file(path)?;
        file.lock().flip_bit(offset, bit)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.begin(OpKind::Open, path)?;
        let file = match (state.tree.file(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(file), _) => file,
            (Err(error), OpenMode::Read | OpenMode::Existing) => return Err(error),
            (Err(error), _) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            (Err(_), _) => {
                state.check_space(1)?;
                state.tree.create_file(path)?
            }
        };
        Ok(Arc::new(SimFile::new(self.state.clone(), file, path, mode)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.state.lock();
        state.begin(OpKind::Rename, from)?;
        state.tree.rename(from, to)
    }

    fn link_new(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.state.lock();
        state.begin(OpKind::Link, to)?;
        let file = state.tree.file(from)?;
        let (dir, name) = state.tree.place(to)?;
        let mut dir = dir.lock();
        if dir.view.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.change(DirChange::Set(name, Node::File(file)));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.begin(OpKind::Remove, path)?;
        state.tree.file(path)?;
        let (dir, name) = state.tree.place(path)?;
        dir.lock().change(DirChange::Remove(name));
        Ok(())
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.begin(OpKind::CreateDir, path)?;
        state.tree.create_dir_all(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.state.lock();
        let dir = state.tree.dir(path)?;
        if let Err(error) = state.begin(OpKind::SyncDir, path) {
            if !state.plan.crashed() {
                dir.lock().forget_unsynced();
            }
            return Err(error);
        }
        if !state.plan.skips(SyncKind::Dir, path) {
            dir.lock().sync();
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.begin(OpKind::List, path)?;
        let dir = state.tree.dir(path)?;
        let dir = dir.lock();
        Ok(dir.view.iter().map(|(name, node)| node.entry(name)).collect())
    }

    fn metadata(&self, path: &str) -> io::Result<Entry> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.begin(OpKind::List, path)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        Ok(state.tree.node(path)?.entry(name))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin(OpKind::List, "")?;
        let used = state.tree.used_bytes();
        Ok(state.capacity_bytes.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(used)))
    }

    fn sync_everything(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Err(error) = state.begin(OpKind::SyncEverything, "") {
            if !state.plan.crashed() {
                state.tree.forget_unsynced();
            }
            return Err(error);
        }
        if !state.plan.skips(SyncKind::Everything, "") {
            state.tree.sync();
        }
        Ok(())
    }

    fn local_path(&self, _path: &str) -> Option<PathBuf> {
        None
    }
}
