//! Walks the record headers of a segment and completes its sparse index from them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_disk::{DiskFile, OpenMode, read_all};

use crate::error::{LogError, io_error};
use crate::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER};
use crate::index::SparseIndex;
use crate::shared::Shared;
use crate::topic::{Index, Topic};

const CHUNK: usize = 256 << 10;
/// Indexes of sealed segments that are held in memory.
const MAX_LOADED: usize = 64;

/// Reads small pieces at ascending positions through one buffer.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    /// Nothing is read beyond this.
    end: u64,
    buf: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { file, end, buf: Vec::new(), start: 0 }
    }

    /// Up to `len` bytes at a position, fewer at the end.
    pub(crate) fn get(&mut self, position: u64, len: usize) -> std::io::Result<&[u8]> {
        let inside = position >= self.start && position + len as u64 <= self.start + self.buf.len() as u64;
        if !inside {
            let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
            self.buf.resize(CHUNK.max(len).min(left), 0);
            self.start = position;
            let mut filled = 0;
            while filled < self.buf.len() {
                let read = self.file.read_at(position + filled as u64, &mut self.buf[filled..]);
                // What was not read must not be taken for contents when the caller goes on.
                let n = read.inspect_err(|_| self.buf.clear())?;
                if n == 0 {
                    break;
                }
                filled += n;
            }
            self.buf.truncate(filled);
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX).min(self.buf.len());
        let to = (from + len).min(self.buf.len());
        Ok(&self.buf[from..to])
    }
}

/// The index of the records in a byte range of a segment. Ends early at a damaged header.
fn scan(shared: &Shared, topic: &Topic, file: &dyn DiskFile, to: u64) -> std::io::Result<SparseIndex> {
    let mut index = SparseIndex::default();
    let mut window = Window::new(file, to);
    let mut at = SEGMENT_HEADER as u64;
    while at < to {
        let Some(header) = RecordHeader::parse(window.get(at, RECORD_HEADER)?) else { break };
        if header.topic != topic.id {
            break;
        }
        index.note(header.offset, at, header.timestamp_ms, shared.config.index_interval_bytes);
        at += header.record_len() as u64;
    }
    Ok(index)
}

/// The whole index of a segment: from memory, from its file, or rebuilt.
pub(crate) fn complete_index(
    shared: &Shared,
    topic: &Topic,
    base: u64,
) -> Result<Arc<SparseIndex>, LogError> {
    let found = topic.segments.read().list.iter().find(|s| s.base == base).cloned();
    let Some(segment) = found else { return Ok(Arc::default()) };
    match segment.index {
        Index::Complete(index) => Ok(index),
        Index::Partial { index, known_from } if known_from <= SEGMENT_HEADER as u64 => Ok(Arc::new(index)),
        Index::Partial { known_from, .. } => complete_partial(shared, topic, base, known_from),
        Index::OnDisk => {
            let index = Arc::new(load_or_rebuild(shared, topic, base, segment.len)?);
            keep_loaded(shared, topic, base, index.clone());
            Ok(index)
        }
    }
}

/// Adds what an earlier process wrote to the index of the segment that is written to.
fn complete_partial(
    shared: &Shared,
    topic: &Topic,
    base: u64,
    known_from: u64,
) -> Result<Arc<SparseIndex>, LogError> {
    let path = topic.segment_path(base);
    let scanned = shared
        .files
        .get((topic.id.0, base), &path)
        .and_then(|file| scan(shared, topic, &*file, known_from))
        .map_err(io_error(format!("read {path}")))?;
    let mut segments = topic.segments.write();
    let Some(segment) = segments.list.iter_mut().find(|s| s.base == base) else { return Ok(Arc::default()) };
    match &mut segment.index {
        Index::Partial { index, known_from } => {
            if *known_from > SEGMENT_HEADER as u64 {
                let mut whole = scanned;
                whole.entries.extend(index.entries.iter().map(|entry| {
                    let max_before_ms = entry.max_before_ms.max(whole.max_ms);
                    crate::index::IndexEntry { max_before_ms, ..*entry }
                }));
                whole.max_ms = whole.max_ms.max(index.max_ms);
                *index = whole;
                *known_from = SEGMENT_HEADER as u64;
            }
            Ok(Arc::new(index.clone()))
        }
        Index::Complete(index) => Ok(index.clone()),
        Index::OnDisk => Ok(Arc::new(scanned)),
    }
}

fn load_or_rebuild(shared: &Shared, topic: &Topic, base: u64, len: u64) -> Result<SparseIndex, LogError> {
    let path = topic.index_path(base);
    let stored = read_all(&*shared.disk, &path).ok();
    if let Some(index) = stored.and_then(|bytes| SparseIndex::decode(&bytes, topic.id, base)) {
        return Ok(index);
    }
    let segment = topic.segment_path(base);
    let index = shared
        .files
        .get((topic.id.0, base), &segment)
        .and_then(|file| scan(shared, topic, &*file, len))
        .map_err(io_error(format!("read {segment}")))?;
    shared.counters.index_rebuilds.fetch_add(1, Ordering::Relaxed);
    // Only a saving: without the file the index is rebuilt again.
    let bytes = index.encode(topic.id, base);
    let written = shared.disk.open(&path, OpenMode::Write).and_then(|file| {
        file.set_len(bytes.len() as u64)?;
        file.write_at(0, &bytes)
    });
    if let Err(error) = written {
        tracing::debug!(path, %error, "a rebuilt index was not written");
    }
    Ok(index)
}

fn keep_loaded(shared: &Shared, topic: &Topic, base: u64, index: Arc<SparseIndex>) {
    let mut loaded = shared.loaded_indexes.lock();
    set_index(topic, base, Index::Complete(index));
    loaded.push_back((topic.id.0, base));
    while loaded.len() > MAX_LOADED {
        let Some((id, base)) = loaded.pop_front() else { break };
        if let Ok(topic) = shared.topic(crate::TopicId(id)) {
            set_index(&topic, base, Index::OnDisk);
        }
    }
}

/// Replaces the index of a sealed segment.
fn set_index(topic: &Topic, base: u64, index: Index) {
    let mut segments = topic.segments.write();
    if let Some(segment) = segments.list.iter_mut().find(|s| s.base == base)
        && !matches!(segment.index, Index::Partial { .. })
    {
        segment.index = index;
    }
}
