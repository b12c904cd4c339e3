//! The disk as the layers above see it: a small trait with a real implementation and a
//! simulated one that loses power, tears writes, flips bits and runs out of space.
//!
//! Durability is spelled out in the operations. A write is durable after `sync_data` of
//! its file; a created, renamed, linked or removed name is durable after `sync_dir` of
//! the folder that holds it. Nothing is durable by itself, on neither implementation.

mod helpers;
mod path;
mod real;
mod sim;

#[cfg(test)]
extern crate self as levada_disk;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use helpers::{create_dir_durable, is_disk_full, parent, read_all, read_exact_at, write_atomic};
pub use path::check_path;
pub use real::RealDisk;
pub use sim::{Fault, FaultError, OpKind, SimDisk, SimRng, SyncKind};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file is created when absent and kept as it is otherwise.
    Write,
    /// Reading and writing; the file must exist.
    Existing,
    /// Reading and writing; fails with `AlreadyExists` when the name is taken.
    CreateNew,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    pub is_dir: bool,
    /// Bytes; 0 for folders.
    pub len: u64,
    /// Milliseconds since the Unix epoch (on the simulated disk: its operation count).
    pub modified_ms: i64,
}

/// A tree of files under one root.
///
/// Paths are relative to the root, '/'-separated, without empty parts, `.` or `..`; the
/// empty path is the root itself. A path that breaks this is `InvalidInput`.
pub trait Disk: Send + Sync + Debug {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Moves a file; a file already at `to` is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name; `AlreadyExists` when `to` is taken.
    fn link_new(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. A handle that is open keeps working.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Creates the folder and those above it; no error when it exists.
    fn create_dir_all(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// The names in a folder, one level, sorted; `NotFound` when there is no such folder.
    fn list(&self, path: &str) -> io::Result<Vec<Entry>>;
    fn metadata(&self, path: &str) -> io::Result<Entry>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Makes everything that was written so far durable, names and contents. For many
    /// dirty files this is one wait instead of one each.
    fn sync_everything(&self) -> io::Result<()>;
    /// Where the path lies in the machine's file system; `None` on the simulated disk.
    fn local_path(&self, path: &str) -> Option<PathBuf>;
}

/// An open file. Reads and writes name their position, so a handle can be shared.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes; 0 means the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes, or fails with an unknown part of them written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable. After an error the unsynced data counts as
    /// lost: calling again proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// As `sync_data`, and the other metadata too.
    fn sync_all(&self) -> io::Result<()>;
}
