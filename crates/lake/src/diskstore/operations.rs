//! What the store does on the disk, synchronously: the order of writes and syncs is here.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::DateTime;
use levada_disk::{DiskFile, Entry, OpenMode, parent, read_exact_at};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};
use xxhash_rust::xxh3::Xxh3;

use super::sums::{SUMS, is_log};
use super::{Inner, KNOWN_DIRS, TEMPORARY};
use crate::blocks::{BLOCK_BYTES, Blocks};

impl Inner {
    /// The path on the disk.
    pub(super) fn full(&self, location: &str) -> String {
        match (self.dir.is_empty(), location.is_empty()) {
            (true, _) => location.to_owned(),
            (false, true) => self.dir.clone(),
            (false, false) => format!("{}/{location}", self.dir),
        }
    }

    fn check_poison(&self) -> io::Result<()> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(io::Error::other(
                "an earlier fsync failed, so the lake takes no writes until a restart",
            ));
        }
        Ok(())
    }

    /// Notes a failed sync: nothing may be written after it.
    pub(super) fn synced(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::NotFound
        {
            self.poisoned.store(true, Ordering::SeqCst);
            tracing::error!(%error, dir = %self.dir, "fsync failed; the lake takes no more writes until a restart");
        }
        result
    }

    pub(super) fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.check_poison()?;
        self.synced(self.disk.sync_dir(path))
    }

    /// Creates a directory and makes its name, and those above it, durable.
    pub(super) fn ensure_dir(&self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.durable_dirs.lock().contains(path) {
            return Ok(());
        }
        self.ensure_dir(parent(path))?;
        self.disk.create_dir_all(path)?;
        self.sync_dir(parent(path))?;
        let mut known = self.durable_dirs.lock();
        if known.len() >= KNOWN_DIRS {
            known.clear();
        }
        known.insert(path.to_owned());
        Ok(())
    }

    pub(super) fn clear_temporary(&self) -> io::Result<()> {
        let dir = self.full(TEMPORARY);
        for entry in self.disk.list(&dir)? {
            self.disk.remove(&format!("{dir}/{}", entry.name))?;
        }
        Ok(())
    }

    pub(super) fn temporary(&self) -> String {
        let n = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.full(&format!("{TEMPORARY}/{n}"))
    }

    pub(super) fn put<'a>(
        &self,
        location: &Path,
        chunks: impl Iterator<Item = &'a Bytes>,
        create: bool,
    ) -> io::Result<()> {
        self.check_poison()?;
        let temporary = self.temporary();
        let written = self.write_temporary(&temporary, chunks);
        self.publish(&temporary, location, create, written)
    }

    fn write_temporary<'a>(&self, path: &str, chunks: impl Iterator<Item = &'a Bytes>) -> io::Result<()> {
        let file = self.disk.open(path, OpenMode::Write)?;
        file.set_len(0)?;
        let mut offset = 0;
        for chunk in chunks {
            file.write_at(offset, chunk)?;
            offset += chunk.len() as u64;
        }
        self.synced(file.sync_all())
    }

    /// As [`Self::put`] with create, from an open file and never more than a block of it in memory.
    pub(super) fn put_file(&self, location: &Path, content: &dyn DiskFile) -> io::Result<()> {
        self.check_poison()?;
        let temporary = self.temporary();
        let copy = || {
            let file = self.disk.open(&temporary, OpenMode::Write)?;
            file.set_len(0)?;
            each_block(content, |offset, block| file.write_at(offset, block))?;
            self.synced(file.sync_all())
        };
        let written = copy();
        self.publish(&temporary, location, true, written)
    }

    /// Whether an object holds exactly the bytes of a file.
    pub(super) fn equals(&self, location: &Path, content: &dyn DiskFile) -> io::Result<bool> {
        let own = self.disk.open(&self.full(location.as_ref()), OpenMode::Read)?;
        let mut same = own.len()? == content.len()?;
        let mut buffer = Vec::new();
        each_block(content, |offset, block| {
            if same {
                buffer.resize(block.len(), 0);
                read_exact_at(&*own, offset, &mut buffer)?;
                same = buffer == block;
            }
            Ok(())
        })?;
        Ok(same)
    }

    pub(super) fn digest(&self, location: &Path) -> io::Result<(u64, u64)> {
        let file = self.disk.open(&self.full(location.as_ref()), OpenMode::Read)?;
        let mut hasher = Xxh3::new();
        each_block(&*file, |_, block| {
            hasher.update(block);
            Ok(())
        })?;
        Ok((file.len()?, hasher.digest()))
    }

    /// Syncs a temporary file that was written piecemeal and gives it its name.
    pub(super) fn finish(&self, temporary: &str, location: &Path) -> io::Result<()> {
        self.check_poison()?;
        let synced = self.disk.open(temporary, OpenMode::Write).and_then(|file| self.synced(file.sync_all()));
        self.publish(temporary, location, false, synced)
    }

    /// Names a synced temporary file, durably. `written` is how writing it went; the
    /// temporary file is gone afterwards in any case.
    fn publish(
        &self,
        temporary: &str,
        location: &Path,
        create: bool,
        written: io::Result<()>,
    ) -> io::Result<()> {
        let target = self.full(location.as_ref());
        if !create {
            self.blocks.write().remove(location);
        }
        let named =
            written.and_then(|()| self.ensure_dir(parent(&target))).and_then(|()| match is_log(location) {
                true => self.name_log(temporary, location, &target, create),
                false => self.name(temporary, &target, create),
            });
        if create || named.is_err() {
            // Only space is lost when this fails, and the next open sweeps it up.
            let _ = self.disk.remove(temporary);
        }
        named?;
        self.sync_dir(parent(&target))
    }

    fn name(&self, temporary: &str, target: &str, create: bool) -> io::Result<()> {
        if create { self.disk.link_new(temporary, target) } else { self.disk.rename(temporary, target) }
    }

    /// Names a file of a log, which gets checksums of its own.
    fn name_log(&self, temporary: &str, location: &Path, target: &str, create: bool) -> io::Result<()> {
        if create && self.disk.metadata(target).is_ok() {
            // Those of the file that is there stay.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let blocks = if create {
            let blocks = self.keep_sums(temporary, location)?;
            self.name(temporary, target, create)?;
            blocks
        } else {
            self.drop_sums(location)?;
            self.name(temporary, target, create)?;
            self.keep_sums(target, location)?
        };
        self.blocks.write().insert(location.clone(), blocks);
        Ok(())
    }

    pub(super) fn copy(&self, from: &Path, to: &Path, create: bool) -> io::Result<()> {
        self.check_poison()?;
        // Objects are never changed in place, so a second name is a copy.
        let temporary = self.temporary();
        let linked = self.disk.link_new(&self.full(from.as_ref()), &temporary);
        self.publish(&temporary, to, create, linked)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path, create: bool) -> io::Result<()> {
        self.copy(from, to, create)?;
        let source = self.full(from.as_ref());
        self.disk.remove(&source)?;
        if is_log(from) {
            self.blocks.write().remove(from);
            self.forget_sums(from);
        }
        self.sync_dir(parent(&source))
    }

    pub(super) fn remove_all(&self, paths: Vec<Path>) -> Vec<(Path, io::Result<()>)> {
        let mut dirs = BTreeSet::new();
        let mut done = Vec::with_capacity(paths.len());
        for path in paths {
            let full = self.full(path.as_ref());
            let removed = self.check_poison().and_then(|()| self.disk.remove(&full));
            if removed.is_ok() {
                self.blocks.write().remove(&path);
                if is_log(&path) {
                    self.forget_sums(&path);
                }
                dirs.insert(parent(&full).to_owned());
            }
            done.push((path, removed));
        }
        for dir in dirs {
            if let Err(error) = self.sync_dir(&dir) {
                for (path, result) in &mut done {
                    if result.is_ok() && parent(&self.full(path.as_ref())) == dir {
                        *result = Err(io::Error::new(error.kind(), error.to_string()));
                    }
                }
            }
        }
        done
    }

    pub(super) fn read(&self, location: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.disk.open(&self.full(location.as_ref()), OpenMode::Read)?;
        match self.expected(location) {
            None => read_range(&*file, range),
            Some(blocks) => {
                blocks.check_len(file.len()?)?;
                Ok(read_checked(&*file, &blocks, &[range])?.swap_remove(0))
            }
        }
    }

    pub(super) fn read_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let file = self.disk.open(&self.full(location.as_ref()), OpenMode::Read)?;
        let len = file.len()?;
        match self.expected(location) {
            None => ranges.iter().map(|range| read_range(&*file, range.start..range.end.min(len))).collect(),
            Some(blocks) => {
                blocks.check_len(len)?;
                read_checked(&*file, &blocks, ranges)
            }
        }
    }

    /// Compares the blocks of an object from `start` on, at most `most` of them, with `blocks`.
    /// Answers where to go on, or `None` at the end.
    pub(super) fn verify(
        &self,
        location: &Path,
        blocks: &Blocks,
        start: u64,
        most: u64,
    ) -> io::Result<Option<u64>> {
        let file = self.disk.open(&self.full(location.as_ref()), OpenMode::Read)?;
        blocks.check_len(file.len()?)?;
        let mut at = start;
        for _ in 0..most {
            if at >= blocks.len() {
                return Ok(None);
            }
            let block = blocks.covering(&(at..at + 1));
            blocks.check(block.start, &read_range(&*file, block.clone())?)?;
            at = block.end;
        }
        Ok((at < blocks.len()).then_some(at))
    }

    /// Compares a file of a log with its checksums, if it has them. Answers how many blocks it has.
    pub(super) fn verify_log(&self, location: &Path) -> io::Result<u64> {
        let Some(blocks) = self.expected(location) else { return Ok(1) };
        self.verify(location, &blocks, 0, u64::MAX)?;
        Ok(blocks.len().div_ceil(BLOCK_BYTES))
    }

    fn expected(&self, location: &Path) -> Option<Arc<Blocks>> {
        let known = self.blocks.read().get(location).cloned();
        if known.is_some() || !is_log(location) {
            return known;
        }
        let kept = Arc::new(self.kept_sums(location)?);
        self.blocks.write().insert(location.clone(), Arc::clone(&kept));
        Some(kept)
    }

    pub(super) fn meta(&self, location: &Path) -> io::Result<ObjectMeta> {
        let entry = self.disk.metadata(&self.full(location.as_ref()))?;
        if entry.is_dir {
            return Err(io::Error::new(io::ErrorKind::NotFound, "a directory is no object"));
        }
        Ok(describe(location.clone(), &entry))
    }

    /// Every object below `prefix` and after `offset`, in the order of their names.
    pub(super) fn list_all(&self, prefix: &Path, offset: Option<&Path>) -> io::Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut open = vec![prefix.clone()];
        while let Some(dir) = open.pop() {
            for entry in self.entries(&dir)? {
                let location = child(&dir, &entry.name)?;
                if entry.is_dir {
                    open.push(location);
                } else if offset.is_none_or(|offset| location > *offset) {
                    found.push(describe(location, &entry));
                }
            }
        }
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    pub(super) fn list_level(&self, prefix: &Path) -> io::Result<ListResult> {
        let (mut common_prefixes, mut objects) = (Vec::new(), Vec::new());
        for entry in self.entries(prefix)? {
            let location = child(prefix, &entry.name)?;
            if entry.is_dir {
                common_prefixes.push(location);
            } else {
                objects.push(describe(location, &entry));
            }
        }
        common_prefixes.sort();
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(ListResult { common_prefixes, objects })
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let is_root = dir.as_ref().is_empty();
        match self.disk.list(&self.full(dir.as_ref())) {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter(|e| !(is_root && [TEMPORARY, SUMS].contains(&e.name.as_str())))
                .collect()),
            Err(error) if is_no_directory(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn child(dir: &Path, name: &str) -> io::Result<Path> {
    let text = if dir.as_ref().is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    Path::parse(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn describe(location: Path, entry: &Entry) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: DateTime::from_timestamp_millis(entry.modified_ms).unwrap_or_default(),
        size: entry.len,
        e_tag: Some(format!("{:x}-{:x}", entry.modified_ms, entry.len)),
        version: None,
    }
}

/// Goes through a file block by block.
pub(super) fn each_block(
    content: &dyn DiskFile,
    mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let len = content.len()?;
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < len {
        let block = usize::try_from((len - offset).min(BLOCK_BYTES)).map_err(io::Error::other)?;
        buffer.resize(block, 0);
        read_exact_at(content, offset, &mut buffer)?;
        visit(offset, &buffer)?;
        offset += block as u64;
    }
    Ok(())
}

/// Reads the ranges by whole blocks, each block once, and compares these with their checksums.
fn read_checked(file: &dyn DiskFile, blocks: &Blocks, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
    let clipped = |range: &Range<u64>| range.start.min(blocks.len())..range.end.min(blocks.len());
    let mut spans: Vec<Range<u64>> = ranges.iter().map(|range| blocks.covering(&clipped(range))).collect();
    spans.sort_by_key(|span| span.start);
    spans.dedup_by(|next, open| {
        let joins = next.start <= open.end;
        if joins {
            open.end = open.end.max(next.end);
        }
        joins
    });
    let mut read = Vec::with_capacity(spans.len());
    for span in spans {
        let bytes = read_range(file, span.clone())?;
        blocks.check(span.start, &bytes)?;
        read.push((span.start, bytes));
    }
    let slice = |range: &Range<u64>| {
        let range = clipped(range);
        let at = read.partition_point(|(start, _)| *start <= range.start).saturating_sub(1);
        let (start, bytes) = &read[at];
        let place = |offset: u64| usize::try_from(offset - start).map_err(io::Error::other);
        Ok(bytes.slice(place(range.start)?..place(range.end.max(range.start))?))
    };
    ranges.iter().map(slice).collect()
}

fn read_range(file: &dyn DiskFile, range: Range<u64>) -> io::Result<Bytes> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut buffer = vec![0; len];
    read_exact_at(file, range.start, &mut buffer)?;
    Ok(buffer.into())
}
