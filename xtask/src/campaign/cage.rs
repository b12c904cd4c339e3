//! A control group with a bound of memory, for one process.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Removed when it is dropped, after its process has ended.
#[derive(Debug)]
pub struct Cage {
    folder: PathBuf,
}

impl Cage {
    /// `None` where the machine does not let this process make one.
    pub fn make(bytes: u64) -> Option<Self> {
        let name = format!("levada-campaign-{}", std::process::id());
        // Version 2, and version 1 of control groups.
        [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
            .into_iter()
            .find_map(|(root, file)| {
                let folder = PathBuf::from(root).join(&name);
                fs::create_dir(&folder).ok()?;
                let cage = Self { folder };
                // Of a folder that is no control group the file does not exist.
                let limit = cage.folder.join(file);
                (limit.exists() && fs::write(limit, bytes.to_string()).is_ok()).then_some(cage)
            })
    }

    /// # Errors
    /// When the process cannot be moved.
    pub fn lock_in(&self, process: u32) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), process.to_string())
            .context("cannot move the server into its group")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
