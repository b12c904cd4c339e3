//! What a bus stands on: a disk of either kind that can be made to fail, and what is found of it
//! after its process or its power has gone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use levada_disk::{Disk, OpenMode, RealDisk, SimDisk, read_all};
use tempfile::TempDir;

use super::disk::{FailingDisk, Switches};

enum Kind {
    Simulated(SimDisk),
    Real(TempDir),
}

/// A disk under test.
pub struct Ground {
    kind: Kind,
    disk: FailingDisk,
}

impl Ground {
    pub fn simulated(seed: u64) -> Self {
        Self::of_simulated(SimDisk::new(seed))
    }

    /// A folder of the machine, gone at the end.
    pub fn real() -> Self {
        Self::of_folder(tempfile::tempdir().expect("a folder"))
    }

    /// A folder that lies in memory where there is such, so that figures are those of the bus and
    /// not of whoever else uses the disk.
    pub fn quick() -> Self {
        Self::of_folder(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder"))
    }

    /// One of each kind.
    pub fn both() -> [Ground; 2] {
        [Self::simulated(7), Self::real()]
    }

    /// A real one and simulated ones of several seeds: a power loss takes all that was not synced,
    /// nothing of it or a part, by the seed.
    pub fn several() -> Vec<Ground> {
        (0..8).map(Self::simulated).chain([Self::real()]).collect()
    }

    fn of_simulated(disk: SimDisk) -> Self {
        let failing = FailingDisk { below: Arc::new(disk.clone()), switches: Arc::default() };
        Self { kind: Kind::Simulated(disk), disk: failing }
    }

    fn of_folder(folder: TempDir) -> Self {
        let below = Arc::new(RealDisk::new(folder.path()).expect("a disk"));
        Self { kind: Kind::Real(folder), disk: FailingDisk { below, switches: Arc::default() } }
    }

    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Simulated(_) => "simulated disk",
            Kind::Real(_) => "real disk",
        }
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub fn switches(&self) -> &Switches {
        &self.disk.switches
    }

    pub fn set(&self, switch: fn(&Switches) -> &AtomicBool, on: bool) {
        switch(self.switches()).store(on, Ordering::Release);
    }

    /// The power goes after so many operations; only where it is simulated.
    pub fn power_fails_after(&self, operations: u64) {
        if let Kind::Simulated(disk) = &self.kind {
            disk.crash_after(operations);
        }
    }

    /// What the next process finds. On the simulated disk the power goes too, and what was not
    /// synced is kept, lost or torn; a folder is copied as it is, as a killed process leaves it.
    pub fn after_the_end(&self) -> Ground {
        match &self.kind {
            Kind::Simulated(disk) => Self::of_simulated(disk.crash()),
            Kind::Real(folder) => {
                let copy = tempfile::tempdir().expect("a folder");
                copy_tree(folder.path(), copy.path());
                Self::of_folder(copy)
            }
        }
    }

    /// The segments of all topics, the longest first.
    pub fn segments(&self) -> Vec<String> {
        let mut found = Vec::new();
        for topic in self.disk.below.list("log/topics").expect("topics") {
            let folder = format!("log/topics/{}", topic.name);
            for entry in self.disk.below.list(&folder).expect("a folder") {
                if entry.name.ends_with(".seg") {
                    found.push((entry.len, format!("{folder}/{}", entry.name)));
                }
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, path)| path).collect()
    }

    pub fn bytes_of(&self, path: &str) -> Vec<u8> {
        read_all(&*self.disk.below, path).expect("a file")
    }

    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = self.disk.below.list(folder).unwrap_or_default();
        entries.into_iter().map(|entry| format!("{folder}/{}", entry.name)).collect()
    }

    /// Changes bytes where they lie, durably, as ageing media do.
    pub fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) {
        let file = self.disk.below.open(path, OpenMode::Existing).expect("a file");
        file.write_at(offset, bytes).expect("written");
        file.sync_data().expect("synced");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}
