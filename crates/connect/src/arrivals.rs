//! Which names came into the folder by a rename: the one proof of a whole file that needs no
//! waiting.
//!
//! The kernel's notices are used as proof and never as the list of what there is: one that is
//! lost, or that a network mount does not send, costs the quiet time and nothing else.

use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Folders below the first so many are not watched: their files wait for the quiet time.
const MAX_FOLDERS: usize = 256;
const BUFFER_BYTES: usize = 16 << 10;

/// Names, relative to the watched folder, that a rename brought since the last look.
pub(crate) type Moved = HashSet<String>;

#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    notices: Option<OwnedFd>,
    /// Watch to the relative name of its folder, which ends in `/` unless it is empty.
    folders: HashMap<i32, String>,
}

impl Arrivals {
    /// Watches these folders too, each with its relative name. Where that fails, nothing is proven.
    pub fn watch(&mut self, folders: &[(String, PathBuf)]) {
        for (name, path) in folders {
            if self.folders.len() >= MAX_FOLDERS {
                return;
            }
            if !self.folders.values().any(|known| known == name) {
                self.add(name, path);
            }
        }
    }

    fn add(&mut self, name: &str, path: &Path) {
        if self.notices.is_none() {
            self.notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        }
        let Some(notices) = &self.notices else { return };
        if let Ok(watch) = inotify::add_watch(notices, path, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR) {
            self.folders.insert(watch, name.to_owned());
        }
    }

    /// What was moved in since the last call.
    pub fn take(&mut self) -> Moved {
        let mut moved = Moved::new();
        let Some(notices) = &self.notices else { return moved };
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(notices, &mut buffer);
        // An error is the end of what there is, or of the notices altogether.
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::IGNORED) {
                self.folders.remove(&event.wd());
                continue;
            }
            let name = event.file_name().and_then(|name| name.to_str().ok());
            if let (Some(folder), Some(name)) = (self.folders.get(&event.wd()), name) {
                moved.insert(format!("{folder}{name}"));
            }
        }
        moved
    }
}

/// Whether the file, or a folder that holds it, was moved in.
pub(crate) fn was_moved(moved: &Moved, name: &str) -> bool {
    !moved.is_empty()
        && (moved.contains(name) || name.match_indices('/').any(|(at, _)| moved.contains(&name[..at])))
}
