//! The machine's file system under one root folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::{Disk, DiskFile, Entry, OpenMode, check_path};

/// New files are readable by owner and group only: they hold the tenants' raw data.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// A folder of the machine's file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// A disk rooted at `root`, which is created when absent.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(&root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(self.root.join(path))
    }
}

fn entry(name: String, metadata: &std::fs::Metadata) -> Entry {
    let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Entry {
        name,
        is_dir: metadata.is_dir(),
        len: if metadata.is_dir() { 0 } else { metadata.len() },
        modified_ms: modified.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::Existing => {
                options.write(true);
            }
            OpenMode::Write => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(self.resolve(path)?)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn link_new(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.resolve(from)?, self.resolve(to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.resolve(path)?)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(self.resolve(path)?)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.resolve(path)?)?.sync_all()
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for item in std::fs::read_dir(self.resolve(path)?)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else { continue };
            match item.metadata() {
                Ok(metadata) => entries.push(entry(name, &metadata)),
                // Removed between the listing and the look at it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &str) -> io::Result<Entry> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(entry(name, &std::fs::metadata(self.resolve(path)?)?))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn sync_everything(&self) -> io::Result<()> {
        // syncfs reports write-back errors since Linux 5.8.
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.resolve(path).ok()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
