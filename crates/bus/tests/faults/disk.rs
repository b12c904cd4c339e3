//! A disk that fails when it is told to, over any other.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use levada_disk::{Disk, DiskFile, Entry, OpenMode};

/// What fails now. Shared by a disk and its files.
#[derive(Debug, Default)]
pub struct Switches {
    /// Syncs fail, and with them what they were to make durable.
    pub syncs_fail: AtomicBool,
    /// There is no space: half of what is written arrives, and nothing new can be made.
    pub full: AtomicBool,
    /// Reads of segments and of their indexes fail.
    pub reads_fail: AtomicBool,
    /// Syncs that were made to fail.
    pub failed_syncs: AtomicU64,
}

impl Switches {
    fn is_on(switch: &AtomicBool) -> bool {
        switch.load(Ordering::Acquire)
    }

    fn sync(&self) -> io::Result<()> {
        if Self::is_on(&self.syncs_fail) {
            self.failed_syncs.fetch_add(1, Ordering::AcqRel);
            return Err(broken());
        }
        Ok(())
    }

    fn grow(&self) -> io::Result<()> {
        if Self::is_on(&self.full) { Err(no_space()) } else { Ok(()) }
    }

    fn read(&self, path: &str) -> io::Result<()> {
        if Self::is_on(&self.reads_fail) && path.contains("/topics/") { Err(broken()) } else { Ok(()) }
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}

#[derive(Debug, Clone)]
pub struct FailingDisk {
    pub below: Arc<dyn Disk>,
    pub switches: Arc<Switches>,
}

impl Disk for FailingDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if matches!(mode, OpenMode::CreateNew) {
            self.switches.grow()?;
        }
        let file = self.below.open(path, mode)?;
        Ok(Arc::new(FailingFile { below: file, switches: self.switches.clone(), path: path.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)
    }

    fn link_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.link_new(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.below.remove(path)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.below.create_dir_all(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.switches.sync()?;
        self.below.sync_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        self.below.list(path)
    }

    fn metadata(&self, path: &str) -> io::Result<Entry> {
        self.below.metadata(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        if Switches::is_on(&self.switches.full) { Ok(0) } else { self.below.free_bytes() }
    }

    fn sync_everything(&self) -> io::Result<()> {
        self.switches.sync()?;
        self.below.sync_everything()
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.below.local_path(path)
    }
}

#[derive(Debug)]
struct FailingFile {
    below: Arc<dyn DiskFile>,
    switches: Arc<Switches>,
    path: String,
}

impl DiskFile for FailingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.switches.read(&self.path)?;
        self.below.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(full) = self.switches.grow() {
            self.below.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(full);
        }
        self.below.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.below.len()? {
            self.switches.grow()?;
        }
        self.below.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switches.sync()?;
        self.below.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.switches.sync()?;
        self.below.sync_all()
    }
}
