//! The fault plan: which operation fails, how, and which syncs only pretend.

use std::io;

/// A kind of operation, as the plan counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    Open,
    Read,
    Write,
    SetLen,
    SyncData,
    SyncDir,
    SyncEverything,
    Rename,
    Link,
    Remove,
    CreateDir,
    List,
}

/// What a failing operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// No space left on the device.
    DiskFull,
    /// An input or output error; on a sync, the unsynced data is then lost for good.
    Io,
}

/// A planned failure: the `nth` operation (1 is the next) of a kind on a matching path.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: OpKind,
    /// `*` stands for any text.
    pub path: String,
    pub nth: u64,
    pub error: FaultError,
}

/// Which syncs a no-op switch covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// `sync_data` and `sync_all` of files.
    File,
    Dir,
    Everything,
}

pub(super) fn enospc() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn crashed() -> io::Error {
    io::Error::other("the simulated disk has crashed")
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    faults: Vec<Fault>,
    skips: Vec<(SyncKind, String)>,
    skipped: u64,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
}

impl Plan {
    pub(super) fn begin(&mut self, kind: OpKind, path: &str) -> io::Result<()> {
        if self.crashed || self.crash_at.is_some_and(|at| self.operations >= at) {
            self.crashed = true;
            return Err(crashed());
        }
        self.operations += 1;
        let mut fired = None;
        for (i, fault) in self.faults.iter_mut().enumerate() {
            if fault.kind == kind && matches(&fault.path, path) {
                fault.nth = fault.nth.saturating_sub(1);
                if fault.nth == 0 && fired.is_none() {
                    fired = Some(i);
                }
            }
        }
        match fired.map(|i| self.faults.swap_remove(i).error) {
            None => Ok(()),
            Some(FaultError::DiskFull) => Err(enospc()),
            Some(FaultError::Io) => Err(eio()),
        }
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn crash_after(&mut self, n: u64) {
        self.crash_at = Some(self.operations + n);
    }

    pub(super) fn set_crashed(&mut self) {
        self.crashed = true;
    }

    pub(super) fn crashed(&self) -> bool {
        self.crashed
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn skip_syncs(&mut self, kind: SyncKind, pattern: &str) {
        self.skips.push((kind, pattern.to_owned()));
    }

    pub(super) fn skips(&mut self, kind: SyncKind, path: &str) -> bool {
        let skip = self.skips.iter().any(|(k, pattern)| *k == kind && matches(pattern, path));
        self.skipped += u64::from(skip);
        skip
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    (0..=text.len()).any(|i| text.is_char_boundary(i) && matches(rest, &text[i..]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, text, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("*.seg", "topics/1/0.seg", true),
            ("topics/*/0*", "topics/1/0.seg", true),
            ("*.seg", "0.seg.tmp", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
