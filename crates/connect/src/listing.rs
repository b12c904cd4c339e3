//! What lies in the watched folder, and which of it is complete.
//!
//! A listing with one `lstat` a file is the only portable truth: change notices get lost, do
//! not exist on network mounts, and say nothing about files that came while we were away.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders below the watched one are followed this deep.
const MAX_DEPTH: usize = 8;
/// A file whose change time lies this far after its last write was renamed or copied in whole.
const RENAMED_IN_NS: i64 = 1_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Relative to the watched folder, with `/`.
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
    pub modified_ns: i64,
    /// The inode's change time: when it was written or renamed into the folder.
    pub changed_ns: i64,
}

impl Found {
    pub fn stat(name: String, path: PathBuf) -> io::Result<Self> {
        let meta = fs::symlink_metadata(&path)?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Ok(Self {
            name,
            path,
            size: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether two looks saw the same content, as far as a look can tell.
    pub fn is_same(&self, other: &Found) -> bool {
        (self.size, self.modified_ns) == (other.size, other.modified_ns)
    }

    fn came_whole(&self) -> bool {
        self.changed_ns.saturating_sub(self.modified_ns) >= RENAMED_IN_NS
    }
}

/// Regular files under `folder` whose name fits, in no order. A missing folder is empty; links
/// are not followed, so that a landing folder cannot hand out other files of the machine.
pub(crate) fn list(folder: &Path, pattern: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    walk(folder, "", pattern, 0, &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, prefix: &str, pattern: &str, depth: usize, found: &mut Vec<Found>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            tracing::warn!(file = ?name, "skipped: the file name is not UTF-8");
            continue;
        };
        if name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part") {
            continue;
        }
        let relative = format!("{prefix}{name}");
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&entry.path(), &format!("{relative}/"), pattern, depth + 1, found)?;
        } else if kind.is_file() && matches(pattern, name) {
            // One that is gone or replaced by now is seen, or not, at the next look.
            found.extend(Found::stat(relative, entry.path()).ok());
        }
    }
    Ok(())
}

/// Whether a name fits a pattern of `*` (any run) and `?` (any one character).
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, at)) = retry else { return false };
                retry = Some((star, at + 1));
                p = star + 1;
                n = at + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Remembers the last look at each file that is not yet complete.
#[derive(Debug, Default)]
pub(crate) struct Looks(HashMap<String, Found>);

impl Looks {
    /// Splits one look into files that are complete and a count of those still being written.
    pub fn settle(&mut self, found: Vec<Found>) -> (Vec<Found>, usize) {
        let mut looks = HashMap::with_capacity(found.len());
        let mut stable = Vec::new();
        for file in found {
            let unchanged = self.0.get(&file.name).is_some_and(|before| before.is_same(&file));
            if unchanged || file.came_whole() {
                stable.push(file);
            } else {
                looks.insert(file.name.clone(), file);
            }
        }
        self.0 = looks;
        stable.sort_by(|a, b| (a.modified_ns, &a.name).cmp(&(b.modified_ns, &b.name)));
        let waiting = self.0.len();
        (stable, waiting)
    }
}
