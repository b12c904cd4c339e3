//! Damaged bytes are copied aside and reported, never cut away.

use std::collections::BTreeMap;

use levada_disk::{Disk, DiskFile, OpenMode, create_dir_durable};
use parking_lot::Mutex;

use crate::shared::Shared;

/// So many findings are kept in memory; the copies on disk are not limited by this.
const MAX_LISTED: usize = 1_024;

/// Damaged bytes that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The file that is damaged.
    pub file: String,
    /// Where the damage begins.
    pub position: u64,
    pub bytes: u64,
    /// Where the copy is; `None` when it could not be written.
    pub copy: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    found: Mutex<BTreeMap<(String, u64), Quarantined>>,
}

impl Quarantine {
    pub(crate) fn list(&self) -> Vec<Quarantined> {
        self.found.lock().values().cloned().collect()
    }

    /// Whether a place is listed or there is room for it.
    pub(crate) fn takes(&self, path: &str, position: u64) -> bool {
        let found = self.found.lock();
        found.len() < MAX_LISTED || found.contains_key(&(path.to_owned(), position))
    }
}

/// Copies a damaged range aside, once for each place, and reports it.
pub(crate) fn quarantine(
    shared: &Shared,
    path: &str,
    file: &dyn DiskFile,
    from: u64,
    to: u64,
) -> Quarantined {
    let mut found = shared.quarantine.found.lock();
    let key = (path.to_owned(), from);
    if let Some(known) = found.get(&key) {
        return known.clone();
    }
    let name = path.strip_prefix(&shared.dir).unwrap_or(path).trim_start_matches('/').replace('/', "-");
    let dir = format!("{}/quarantine", shared.dir);
    let copy = format!("{dir}/{name}-{from}.bin");
    let copied = create_dir_durable(&*shared.disk, &dir)
        .and_then(|()| copy_range(&*shared.disk, file, from, to, &copy))
        .and_then(|()| shared.disk.sync_dir(&dir));
    let copy = match copied {
        Ok(()) => Some(copy),
        Err(error) => {
            tracing::warn!(file = path, %error, "damaged bytes could not be copied aside");
            None
        }
    };
    tracing::error!(file = path, position = from, bytes = to - from, copy, "damaged bytes found in the log");
    shared.counters.damaged();
    let entry = Quarantined { file: path.to_owned(), position: from, bytes: to - from, copy };
    if found.len() < MAX_LISTED {
        found.insert(key, entry.clone());
    }
    entry
}

fn copy_range(disk: &dyn Disk, file: &dyn DiskFile, from: u64, to: u64, path: &str) -> std::io::Result<()> {
    let out = disk.open(path, OpenMode::Write)?;
    out.set_len(0)?;
    let mut buf = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(buf.len());
        let n = file.read_at(at, &mut buf[..want])?;
        if n == 0 {
            break;
        }
        out.write_at(at - from, &buf[..n])?;
        at += n as u64;
    }
    out.sync_all()
}
