//! What lies in bronze, by name, length and checksum: an object that changes or vanishes is
//! noticed, although nothing refers to it.
//!
//! A source has one file of lines, `<length> <XXH3 in hexadecimal> <path>`, that only grows. A
//! line is durable before the object counts as kept. Objects that are kept at the same time share
//! one write and one sync. Objects of before there were rosters are in none and are not checked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use levada_core::SourceName;
use levada_disk::{DiskFile, OpenMode, create_dir_durable, read_exact_at};
use parking_lot::Mutex;

use crate::error::{Context, LakeError};
use crate::lake::Lake;

const DIR: &str = "_rosters";
/// Read at once from a roster.
const READ_BYTES: usize = 64 << 10;

/// One object in a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub len: u64,
    pub sum: u64,
    /// Relative to the lake.
    pub path: String,
}

impl Entry {
    fn line(&self) -> String {
        format!("{} {:016x} {}\n", self.len, self.sum, self.path)
    }

    /// `None` for a line that was cut or damaged.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let len = parts.next()?.parse().ok()?;
        let sum = parts.next().filter(|text| text.len() == 16)?;
        let path = parts.next().filter(|path| path.starts_with("tenant="))?;
        Some(Self { len, sum: u64::from_str_radix(sum, 16).ok()?, path: path.to_owned() })
    }
}

/// The rosters of all sources.
#[derive(Debug, Default)]
pub(crate) struct Rosters(Mutex<HashMap<SourceName, Arc<Roster>>>);

#[derive(Debug, Default)]
struct Roster {
    pending: Mutex<Vec<String>>,
    /// Held by the one who writes for all that wait.
    writing: tokio::sync::Mutex<()>,
}

impl Lake {
    /// Notes an object that was kept. Durable when it returns.
    ///
    /// # Errors
    /// When the roster cannot be written; the call may be repeated.
    pub(crate) async fn enroll(&self, source: &SourceName, entry: &Entry) -> Result<(), LakeError> {
        let roster = Arc::clone(self.inner.rosters.0.lock().entry(source.clone()).or_default());
        roster.pending.lock().push(entry.line());
        let _turn = roster.writing.lock().await;
        let lines = std::mem::take(&mut *roster.pending.lock());
        if lines.is_empty() {
            // Whoever wrote before has written this line too.
            return Ok(());
        }
        let (disk, path, text) = (Arc::clone(&self.inner.disk), self.roster_path(source), lines.concat());
        let dir = self.disk_path(DIR);
        let written = self.compute(move || {
            create_dir_durable(&*disk, &dir)?;
            let is_new = disk.metadata(&path).is_err();
            let file = disk.open(&path, OpenMode::Write)?;
            append(&*file, &text)?;
            if is_new { disk.sync_dir(&dir) } else { Ok(()) }
        });
        let written = written.await?;
        if written.is_err() {
            roster.pending.lock().extend(lines);
        }
        written.context(|| format!("noting objects of bronze.{source}"))
    }

    /// The entries of a source's roster from a byte on, and where the next ones begin; `None` at
    /// the end.
    pub(crate) fn enrolled(&self, source: &SourceName, from: u64) -> io::Result<Option<(Vec<Entry>, u64)>> {
        let file = match self.inner.disk.open(&self.roster_path(source), OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let left = usize::try_from(file.len()?.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(READ_BYTES)];
        read_exact_at(&*file, from, &mut bytes)?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes[..end]);
        Ok(Some((text.lines().filter_map(Entry::parse).collect(), from + end as u64 + 1)))
    }

    fn roster_path(&self, source: &SourceName) -> String {
        self.disk_path(&format!("{DIR}/{source}.objects"))
    }
}

/// Adds whole lines behind what is there, also behind a line that a crash has cut.
fn append(file: &dyn DiskFile, text: &str) -> io::Result<()> {
    let end = file.len()?;
    let mut last = [b'\n'];
    if end > 0 {
        read_exact_at(file, end - 1, &mut last)?;
    }
    let text = if last == [b'\n'] { text.to_owned() } else { format!("\n{text}") };
    file.write_at(end, text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_written_and_cut_ones_are_none() {
        let entry =
            Entry { len: 7, sum: 0xab, path: "tenant=a/bronze/source=s/date=2026-01-01/x y.csv".into() };
        assert_eq!(Entry::parse(entry.line().trim_end()), Some(entry.clone()));
        let line = entry.line();
        for cut in 0..20 {
            assert_eq!(Entry::parse(&line[..cut]), None, "{cut}");
        }
    }
}
