//! Brings durable groups from the commit log into the segments of their topics.
//!
//! Segments are written through the page cache and synced at checkpoints. Applying a
//! group again is harmless: records that a segment already holds are passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_disk::{DiskFile, OpenMode};

use crate::TopicId;
use crate::commit::{Group, Position, Run};
use crate::error::LogError;
use crate::files::SegmentKey;
use crate::format::{RecordHeader, SEGMENT_HEADER, segment_header};
use crate::index::SparseIndex;
use crate::shared::Shared;
use crate::topic::{Index, Segment, Topic};

/// What was written since the last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) segments: BTreeSet<SegmentKey>,
    /// Index files of sealed segments.
    pub(crate) indexes: BTreeSet<SegmentKey>,
    /// Topics whose folder got or lost a name.
    pub(crate) dirs: BTreeSet<u32>,
    /// Whether a topic's folder is itself new.
    pub(crate) new_topic_dirs: bool,
}

impl Dirty {
    pub(crate) fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Demux {
    pub(crate) shared: Arc<Shared>,
    pub(crate) dirty: Dirty,
    /// Everything before this has been applied.
    pub(crate) position: Position,
}

impl Demux {
    pub(crate) fn new(shared: Arc<Shared>, position: Position) -> Self {
        Self { shared, dirty: Dirty::default(), position }
    }

    /// Writes a group's records to their segments and shows them to readers.
    ///
    /// # Errors
    /// `Full` when there is no space: the same group must be applied again later, and
    /// appends are refused meanwhile. Any other failure poisons the log.
    pub(crate) fn apply(&mut self, group: &Group) -> Result<(), LogError> {
        for run in &group.runs {
            let topic = self.shared.topic(run.topic)?;
            if let Err(error) = self.apply_run(&topic, run, &group.buffer) {
                self.shared.segments_full.store(matches!(error, LogError::Full), Ordering::Release);
                return Err(error);
            }
            topic.publish_end();
        }
        self.shared.segments_full.store(false, Ordering::Release);
        self.position = group.end;
        Ok(())
    }

    fn apply_run(&mut self, topic: &Topic, run: &Run, buffer: &[u8]) -> Result<(), LogError> {
        let bytes = &buffer[run.start..run.end];
        let next = topic.segments.read().next;
        if run.next <= next {
            return Ok(());
        }
        let bytes = &bytes[known_prefix(bytes, next)..];
        let (base, len, file) = self.active_segment(topic, run.first.max(next))?;
        file.write_at(len, bytes).map_err(|e| self.shared.write_failed("a write to a segment", &e))?;
        self.dirty.segments.insert((topic.id.0, base));
        let mut segments = topic.segments.write();
        let interval = self.shared.config.index_interval_bytes;
        let segment = segments.list.back_mut().expect("the active segment was just written");
        if let Index::Partial { index, .. } = &mut segment.index {
            note_records(index, bytes, len, interval);
        }
        segment.len = len + bytes.len() as u64;
        segments.next = run.next;
        Ok(())
    }

    /// The segment to write to, its length and its file. Seals a full one first.
    fn active_segment(
        &mut self,
        topic: &Topic,
        offset: u64,
    ) -> Result<(u64, u64, Arc<dyn DiskFile>), LogError> {
        let segments = topic.segments.read();
        let limit = self.shared.config.segment_bytes;
        let active = segments.list.back().map(|s| (s.base, s.len)).filter(|_| !segments.closed);
        drop(segments);
        if let Some((base, len)) = active.filter(|(_, len)| *len < limit) {
            let path = topic.segment_path(base);
            let file = self
                .shared
                .files
                .get((topic.id.0, base), &path)
                .map_err(|e| self.shared.write_failed("the opening of a segment", &e))?;
            return Ok((base, len, file));
        }
        if let Some((base, _)) = active {
            self.seal(topic, base)?;
        }
        self.create_segment(topic, offset)
    }

    /// Starts a new segment; records are written to it from here on.
    pub(crate) fn create_segment(
        &mut self,
        topic: &Topic,
        base: u64,
    ) -> Result<(u64, u64, Arc<dyn DiskFile>), LogError> {
        let path = topic.segment_path(base);
        let disk = &self.shared.disk;
        let is_new = topic.segments.read().list.is_empty();
        let created = (|| {
            if is_new {
                disk.create_dir_all(&topic.dir)?;
            }
            let file = disk.open(&path, OpenMode::Write)?;
            file.set_len(0)?;
            file.write_at(0, &segment_header(topic.id, base))?;
            Ok(file)
        })();
        let file = created.map_err(|e| self.shared.write_failed("the creation of a segment", &e))?;
        self.dirty.new_topic_dirs |= is_new;
        self.dirty.dirs.insert(topic.id.0);
        self.dirty.segments.insert((topic.id.0, base));
        self.shared.files.put((topic.id.0, base), file.clone());
        let len = SEGMENT_HEADER as u64;
        let mut segments = topic.segments.write();
        let index = Index::Partial { index: SparseIndex::default(), known_from: len };
        segments.list.push_back(Segment { base, len, index });
        segments.closed = false;
        Ok((base, len, file))
    }

    /// Writes the index file of a segment that takes no more records.
    pub(crate) fn seal(&mut self, topic: &Topic, base: u64) -> Result<(), LogError> {
        let index = crate::scan::complete_index(&self.shared, topic, base)?;
        let path = topic.index_path(base);
        let written = (|| {
            let file = self.shared.disk.open(&path, OpenMode::Write)?;
            let bytes = index.encode(topic.id, base);
            file.set_len(bytes.len() as u64)?;
            file.write_at(0, &bytes)
        })();
        written.map_err(|e| self.shared.write_failed("the writing of an index", &e))?;
        self.dirty.indexes.insert((topic.id.0, base));
        self.dirty.dirs.insert(topic.id.0);
        if let Some(segment) = topic.segments.write().list.iter_mut().find(|s| s.base == base) {
            segment.index = Index::OnDisk;
        }
        Ok(())
    }

    /// What is dirty, for a checkpoint, which then owns it; see `Checkpointer::run`.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Takes back what a checkpoint could not finish.
    pub(crate) fn return_dirty(&mut self, dirty: Dirty) {
        self.dirty.segments.extend(dirty.segments);
        self.dirty.indexes.extend(dirty.indexes);
        self.dirty.dirs.extend(dirty.dirs);
        self.dirty.new_topic_dirs |= dirty.new_topic_dirs;
    }

    /// Segments' state for the checkpoint, by topic that has ever been written.
    pub(crate) fn marks(&self) -> BTreeMap<TopicId, crate::checkpoint::Mark> {
        let topics = self.shared.topics.read();
        let mark = |topic: &Arc<Topic>| {
            let segments = topic.segments.read();
            let active = segments.list.back()?;
            let mark = crate::checkpoint::Mark { base: active.base, len: active.len, next: segments.next };
            Some((topic.id, mark))
        };
        topics.iter().filter_map(mark).collect()
    }
}

/// Length of the records before `next` at the start of encoded records.
fn known_prefix(bytes: &[u8], next: u64) -> usize {
    records(bytes).find(|(_, header)| header.offset >= next).map_or(bytes.len(), |(at, _)| at)
}

/// The records of a buffer that holds whole, valid ones, with their positions.
fn records(bytes: &[u8]) -> impl Iterator<Item = (usize, RecordHeader)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = RecordHeader::parse(&bytes[at..])?;
        let start = at;
        at += header.record_len();
        Some((start, header))
    })
}

fn note_records(index: &mut SparseIndex, bytes: &[u8], position: u64, interval: u64) {
    for (at, header) in records(bytes) {
        index.note(header.offset, position + at as u64, header.timestamp_ms, interval);
    }
}
