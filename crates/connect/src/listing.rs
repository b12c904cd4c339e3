//! What lies in the watched folder.
//!
//! A listing with one `lstat` a file is the only portable truth: change notices get lost, do
//! not exist on network mounts, and say nothing about files that came while we were away.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders below the watched one are followed this deep.
const MAX_DEPTH: usize = 8;
/// A file whose change time lies this far after its last write was not written to last.
const SET_AFTER_NS: i64 = 1_000_000_000;
/// Names that programs give to what they are still writing.
const UNFINISHED: [&str; 9] =
    [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp", ".upload", "~"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Relative to the watched folder, with `/`.
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
    pub modified_ns: i64,
    /// The inode's change time: when it was written or renamed into the folder.
    pub changed_ns: i64,
    pub inode: u64,
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
            inode: meta.ino(),
        })
    }

    /// Whether two looks saw the same content, as far as a look can tell.
    pub fn is_same(&self, other: &Found) -> bool {
        (self.size, self.modified_ns) == (other.size, other.modified_ns)
    }

    /// Whether the last thing that happened to it was no write: it was renamed, or got its times.
    pub fn was_set_after_writing(&self) -> bool {
        self.changed_ns.saturating_sub(self.modified_ns) >= SET_AFTER_NS
    }
}

/// One look at the folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Regular files whose name fits, in no order.
    pub files: Vec<Found>,
    /// The folder itself and those below it: relative name, ending in `/` unless empty, and path.
    pub folders: Vec<(String, PathBuf)>,
}

/// What lies under `folder`. A missing folder is empty; links are not followed, so that a
/// landing folder cannot hand out other files of the machine.
pub(crate) fn list(folder: &Path, pattern: &str) -> io::Result<Listing> {
    let mut listing = Listing::default();
    walk(folder, "", pattern, 0, &mut listing)?;
    Ok(listing)
}

fn walk(dir: &Path, prefix: &str, pattern: &str, depth: usize, into: &mut Listing) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    into.folders.push((prefix.to_owned(), dir.to_owned()));
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            tracing::warn!(file = ?name, "skipped: the file name is not UTF-8");
            continue;
        };
        if is_unfinished(name) {
            continue;
        }
        let relative = format!("{prefix}{name}");
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&entry.path(), &format!("{relative}/"), pattern, depth + 1, into)?;
        } else if kind.is_file() && matches(pattern, name) {
            // One that is gone or replaced by now is seen, or not, at the next look.
            into.files.extend(Found::stat(relative, entry.path()).ok());
        }
    }
    Ok(())
}

/// Whether the name says that somebody is still writing the file.
fn is_unfinished(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with('.') || UNFINISHED.iter().any(|end| lower.ends_with(end))
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
