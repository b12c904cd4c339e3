//! Checkpoints: make the segments durable, say so in one file, free the commit files.
//!
//! The file `checkpoint` is the truth about segments: what lies behind the lengths it
//! names is not trusted at start and comes again from the commit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_disk::{Disk, OpenMode, read_all, write_atomic};

use crate::TopicId;
use crate::commit::Position;
use crate::demux::{Demux, Dirty};
use crate::error::{LogError, io_error};
use crate::files::SegmentKey;
use crate::format::{Fields, seal, unseal};
use crate::shared::Shared;

const MAGIC: u32 = u32::from_le_bytes(*b"LVCK");
const VERSION: u32 = 1;
/// Freed commit files that are kept for reuse.
const MAX_SPARES: usize = 2;

/// A topic's last segment as of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) base: u64,
    pub(crate) len: u64,
    pub(crate) next: u64,
}

/// The contents of the checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Everything in the commit log before this is in durable segments.
    pub(crate) position: Position,
    pub(crate) marks: BTreeMap<TopicId, Mark>,
}

impl Checkpoint {
    pub(crate) fn path(dir: &str) -> String {
        format!("{dir}/checkpoint")
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.marks.len() * 28);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.position.file_seq, self.position.bytes, self.position.next_group] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(self.marks.len() as u32).to_le_bytes());
        for (topic, mark) in &self.marks {
            out.extend_from_slice(&topic.0.to_le_bytes());
            for number in [mark.base, mark.len, mark.next] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unseal(bytes)?);
        if fields.u32()? != MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let position = Position { file_seq: fields.u64()?, bytes: fields.u64()?, next_group: fields.u64()? };
        let count = fields.u32()?;
        let mut marks = BTreeMap::new();
        for _ in 0..count {
            let topic = TopicId(fields.u32()?);
            marks.insert(topic, Mark { base: fields.u64()?, len: fields.u64()?, next: fields.u64()? });
        }
        Some(Self { position, marks })
    }

    /// Reads the checkpoint; `None` when there is none.
    pub(crate) fn read(disk: &dyn Disk, dir: &str) -> Result<Option<Self>, LogError> {
        let path = Self::path(dir);
        match read_all(disk, &path) {
            Ok(bytes) => Self::decode(&bytes).map(Some).ok_or_else(|| LogError::CorruptFile {
                file: path,
                reason: "it does not match its checksum".into(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(format!("read {path}"))(error)),
        }
    }
}

/// A checkpoint to be made: what must be synced and what may then be said.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) dirty: Dirty,
    checkpoint: Checkpoint,
}

impl Plan {
    /// Takes over what the demultiplexer has written so far.
    pub(crate) fn take(demux: &mut Demux) -> Self {
        let checkpoint = Checkpoint { position: demux.position, marks: demux.marks() };
        Self { dirty: demux.take_dirty(), checkpoint }
    }

    /// Syncs, writes the checkpoint and frees the commit files before it.
    ///
    /// # Errors
    /// `Full` when the checkpoint finds no space: nothing was freed, the plan's dirty set
    /// must be returned to the demultiplexer. Any other failure poisons the log.
    pub(crate) fn run(&self, shared: &Arc<Shared>) -> Result<(), LogError> {
        let result = self.sync_and_write(shared);
        shared.checkpoint_full.store(matches!(result, Err(LogError::Full)), Ordering::Release);
        result
    }

    fn sync_and_write(&self, shared: &Arc<Shared>) -> Result<(), LogError> {
        self.sync(shared)?;
        let path = Checkpoint::path(&shared.dir);
        write_atomic(&*shared.disk, &path, &self.checkpoint.encode())
            .map_err(|e| shared.write_failed("the writing of a checkpoint", &e))?;
        let first_needed = self.checkpoint.position.file_seq;
        free_commit_files(shared, first_needed)?;
        shared.marks.lock().clone_from(&self.checkpoint.marks);
        shared.first_needed_file.store(first_needed, Ordering::Release);
        shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self, shared: &Shared) -> Result<(), LogError> {
        let dirty = &self.dirty;
        if dirty.segments.len() + dirty.indexes.len() + dirty.dirs.len() > shared.config.sync_each_limit {
            return shared.disk.sync_everything().map_err(|e| shared.poison("a sync of the file system", &e));
        }
        sync_segments(shared, &dirty.segments)?;
        for (topic, base) in &dirty.indexes {
            let path = shared.topic(TopicId(*topic))?.index_path(*base);
            sync_file(shared, &path, || shared.disk.open(&path, OpenMode::Existing))?;
        }
        let mut dirs = Vec::new();
        for topic in &dirty.dirs {
            dirs.push(shared.topic(TopicId(*topic))?.dir.clone());
        }
        if dirty.new_topic_dirs {
            dirs.push(format!("{}/topics", shared.dir));
        }
        dirs.iter().try_for_each(|dir| {
            shared.disk.sync_dir(dir).map_err(|e| shared.poison("a sync of a topic's folder", &e))
        })
    }
}

/// Makes what segments have so far durable. A checkpoint does it with all of them; doing it again
/// and again on the way keeps the disk from writing all at once, behind which commits would wait.
pub(crate) fn sync_segments(shared: &Shared, segments: &BTreeSet<SegmentKey>) -> Result<(), LogError> {
    for (topic, base) in segments {
        let path = shared.topic(TopicId(*topic))?.segment_path(*base);
        sync_file(shared, &path, || shared.files.get((*topic, *base), &path))?;
    }
    Ok(())
}

fn sync_file(
    shared: &Shared,
    path: &str,
    open: impl FnOnce() -> std::io::Result<Arc<dyn levada_disk::DiskFile>>,
) -> Result<(), LogError> {
    match open() {
        Ok(file) => file.sync_data().map_err(|e| shared.poison(&format!("a sync of {path}"), &e)),
        // Removed by retention since it was written.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(shared.poison(&format!("the opening of {path}"), &error)),
    }
}

/// Keeps a few of the commit files before `first_needed` for reuse and removes the others.
pub(crate) fn free_commit_files(shared: &Shared, first_needed: u64) -> Result<(), LogError> {
    let dir = shared.commit_dir();
    let entries = shared.disk.list(&dir).map_err(io_error(format!("list {dir}")))?;
    for entry in entries {
        let Some(seq) = commit_file_seq(&entry.name) else { continue };
        if seq >= first_needed {
            continue;
        }
        let path = format!("{dir}/{}", entry.name);
        let mut spares = shared.spares.lock();
        let freed = if spares.len() < MAX_SPARES && entry.len >= shared.config.commit_file_bytes {
            let spare = format!("{dir}/{seq:016}.spare");
            spares.push(spare.clone());
            shared.disk.rename(&path, &spare)
        } else {
            shared.disk.remove(&path)
        };
        freed.map_err(|e| shared.poison("the freeing of a commit file", &e))?;
    }
    Ok(())
}

/// The number in a commit file's name.
pub(crate) fn commit_file_seq(name: &str) -> Option<u64> {
    name.strip_suffix(".log")?.parse().ok()
}
