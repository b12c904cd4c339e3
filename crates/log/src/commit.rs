//! The commit path: groups appends, gives offsets, writes one group at a time and syncs.
//!
//! One owner calls this; it never waits for segments. A group that could not be written
//! for want of space leaves no trace: offsets, position and number stay, and the next
//! group overwrites its remains.

use std::sync::Arc;
use std::time::Instant;

use levada_disk::{DiskFile, OpenMode};

use crate::error::LogError;
use crate::format::{BLOCK, CommitHeader, GROUP_HEADER, GroupHeader, put_record, record_len, to_blocks};
use crate::shared::Shared;
use crate::{Append, TopicId};

/// Consecutive records of one topic in a group.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) topic: TopicId,
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// Byte range in the group's buffer.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A place in the commit log: everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) file_seq: u64,
    pub(crate) bytes: u64,
    /// Number of the group that comes there.
    pub(crate) next_group: u64,
}

/// A group on its way to the segments, which take it once it is durable.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) buffer: Vec<u8>,
    pub(crate) runs: Vec<Run>,
    /// The place in the commit log behind this group.
    pub(crate) end: Position,
}

#[derive(Debug)]
struct CommitFile {
    file: Arc<dyn DiskFile>,
    seq: u64,
    salt: u64,
    position: u64,
}

#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    file: Option<CommitFile>,
    next_file_seq: u64,
    next_group: u64,
    /// The next offset by topic number.
    next_offsets: Vec<u64>,
    /// Bytes until the free space is looked at again.
    space_checked_for: u64,
    /// Groups that were written after the last sync.
    unsynced: u32,
    sync_failed: bool,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, start: Position, next_offsets: Vec<u64>) -> Self {
        Self {
            shared,
            file: None,
            next_file_seq: start.file_seq,
            next_group: start.next_group,
            next_offsets,
            space_checked_for: 0,
            unsynced: 0,
            sync_failed: false,
        }
    }

    /// The offset that the next record of each topic gets, by topic number.
    pub(crate) fn next_offsets(&self) -> &[u64] {
        &self.next_offsets
    }

    /// The number of the file that groups go to.
    pub(crate) fn file_seq(&self) -> u64 {
        self.file.as_ref().map_or(self.next_file_seq, |f| f.seq)
    }

    /// Writes the appends as one group, in `buffer`, and makes it durable. Answers the
    /// offsets of each append's records. After an error nothing of the group counts.
    pub(crate) fn commit(
        &mut self,
        appends: &[&[Append]],
        buffer: Vec<u8>,
    ) -> Result<(Group, Vec<Vec<u64>>), LogError> {
        let (mut group, offsets) = self.prepare(appends, buffer)?;
        self.write(&mut group)?;
        self.sync()?;
        Ok((group, offsets))
    }

    /// Gives the records their offsets and makes sure, as far as that can be known, that there
    /// is room for them.
    pub(crate) fn prepare(
        &mut self,
        appends: &[&[Append]],
        buffer: Vec<u8>,
    ) -> Result<(Group, Vec<Vec<u64>>), LogError> {
        self.shared.check_accepts()?;
        let (group, offsets) = self.encode(appends, buffer);
        let blocks_len = to_blocks(group.buffer.len()) as u64;
        match self.check_space(blocks_len).and_then(|()| self.make_room(blocks_len)) {
            Ok(()) => Ok((group, offsets)),
            Err(error) => {
                self.take_back(&group);
                Err(error)
            }
        }
    }

    /// Writes a prepared group, the last one that was. It is durable after the next sync, and
    /// does not count after an error.
    pub(crate) fn write(&mut self, group: &mut Group) -> Result<(), LogError> {
        let records = group.runs.iter().map(|run| run.next - run.first).sum();
        if let Err(error) = self.write_blocks(&mut group.buffer, records) {
            self.take_back(group);
            return Err(error);
        }
        let file = self.file.as_ref().expect("a written group has a file");
        group.end = Position { file_seq: file.seq, bytes: file.position, next_group: self.next_group };
        self.unsynced += 1;
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        let Some(file) = self.file.as_ref().filter(|_| self.unsynced > 0) else { return Ok(()) };
        // A second try would succeed and prove nothing: the unsynced data is lost.
        if self.sync_failed {
            return Err(self.shared.poisoned().unwrap_or(LogError::Closed));
        }
        let start = Instant::now();
        if let Err(error) = file.file.sync_data() {
            self.sync_failed = true;
            return Err(self.shared.poison("a sync of the commit log", &error));
        }
        self.shared.counters.synced(start.elapsed());
        self.unsynced = 0;
        Ok(())
    }

    /// The offsets of a group that was not written are free again.
    fn take_back(&mut self, group: &Group) {
        for run in &group.runs {
            let next = &mut self.next_offsets[run.topic.0 as usize];
            *next = (*next).min(run.first);
        }
    }

    /// Encodes the records, those of one topic side by side, in the order of the appends.
    fn encode(&mut self, appends: &[&[Append]], mut buffer: Vec<u8>) -> (Group, Vec<Vec<u64>>) {
        buffer.clear();
        buffer.resize(GROUP_HEADER, 0);
        let total: usize = appends.iter().flat_map(|a| a.iter()).map(record_len).sum();
        buffer.reserve(to_blocks(GROUP_HEADER + total) - GROUP_HEADER);
        let mut offsets: Vec<Vec<u64>> = appends.iter().map(|a| vec![0; a.len()]).collect();
        let mut order: Vec<(u32, u32, u32)> = Vec::new();
        for (i, append) in appends.iter().enumerate() {
            order.extend(append.iter().enumerate().map(|(j, r)| (r.topic.0, i as u32, j as u32)));
        }
        if !order.is_sorted_by_key(|o| o.0) {
            order.sort_by_key(|o| o.0);
        }
        let mut runs: Vec<Run> = Vec::new();
        for (topic, i, j) in order {
            let (i, j, topic) = (i as usize, j as usize, TopicId(topic));
            if self.next_offsets.len() <= topic.0 as usize {
                self.next_offsets.resize(topic.0 as usize + 1, 0);
            }
            let offset = self.next_offsets[topic.0 as usize];
            self.next_offsets[topic.0 as usize] += 1;
            let start = buffer.len();
            put_record(&mut buffer, &appends[i][j], offset);
            offsets[i][j] = offset;
            match runs.last_mut() {
                Some(run) if run.topic == topic => (run.next, run.end) = (offset + 1, buffer.len()),
                _ => runs.push(Run { topic, first: offset, next: offset + 1, start, end: buffer.len() }),
            }
        }
        let end = Position { file_seq: 0, bytes: 0, next_group: self.next_group };
        (Group { buffer, runs, end }, offsets)
    }

    fn write_blocks(&mut self, buffer: &mut Vec<u8>, count: u64) -> Result<(), LogError> {
        let payload_len = buffer.len() - GROUP_HEADER;
        let blocks_len = to_blocks(buffer.len()) as u64;
        let shared = self.shared.clone();
        let file = self.file.as_mut().expect("make_room opened a file");
        let header = GroupHeader {
            salt: file.salt,
            file_seq: file.seq,
            seq: self.next_group,
            unsynced_before: self.unsynced,
            payload_len: payload_len as u32,
            count: count as u32,
            payload_crc: crc32c::crc32c(&buffer[GROUP_HEADER..]),
        };
        buffer[..GROUP_HEADER].copy_from_slice(&header.encode());
        let records_end = buffer.len();
        buffer.resize(blocks_len as usize, 0);
        let written = file.file.write_at(file.position, buffer);
        buffer.truncate(records_end);
        written.map_err(|e| shared.write_failed("a write to the commit log", &e))?;
        shared.counters.group(count, payload_len as u64);
        file.position += blocks_len;
        self.next_group += 1;
        Ok(())
    }

    /// Refuses early when the disk is nearly full; looks about once per MiB.
    fn check_space(&mut self, bytes: u64) -> Result<(), LogError> {
        if let Some(left) = self.space_checked_for.checked_sub(bytes) {
            self.space_checked_for = left;
            return Ok(());
        }
        let free = self.shared.disk.free_bytes().map_err(|e| self.shared.write_failed("statvfs", &e))?;
        if free < self.shared.config.min_free_bytes.saturating_add(bytes) {
            return Err(LogError::Full);
        }
        self.space_checked_for = 1 << 20;
        Ok(())
    }

    /// Makes sure that the current file has room for so many bytes.
    fn make_room(&mut self, bytes: u64) -> Result<(), LogError> {
        let limit = self.shared.config.commit_file_bytes;
        if self.file.as_ref().is_some_and(|f| f.position + bytes <= limit) {
            return Ok(());
        }
        // Groups of the file before must not be missing when those of this one are there.
        self.sync()?;
        let seq = self.next_file_seq;
        let spare = self.shared.spares.lock().pop();
        let file = match spare {
            Some(path) => self.reuse_file(&path, seq)?,
            None => self.create_file(seq)?,
        };
        self.file = Some(file);
        self.next_file_seq = seq + 1;
        Ok(())
    }

    fn create_file(&self, seq: u64) -> Result<CommitFile, LogError> {
        let path = self.shared.commit_path(seq);
        let created = (|| {
            let file = self.shared.disk.open(&path, OpenMode::CreateNew)?;
            file.set_len(self.shared.config.commit_file_bytes)?;
            Ok((file.clone(), self.write_header(&*file, seq)?))
        })();
        let (file, salt) = created.map_err(|e| {
            // Nothing in it counts; the space is needed.
            drop(self.shared.disk.remove(&path));
            self.shared.write_failed("the creation of a commit file", &e)
        })?;
        self.finish_file(file, seq, salt)
    }

    /// Uses a freed file again: its blocks exist already, so syncs touch no metadata.
    fn reuse_file(&self, spare: &str, seq: u64) -> Result<CommitFile, LogError> {
        let path = self.shared.commit_path(seq);
        let reused = (|| {
            let file = self.shared.disk.open(spare, OpenMode::Existing)?;
            let salt = self.write_header(&*file, seq)?;
            self.shared.disk.rename(spare, &path)?;
            Ok((file, salt))
        })();
        let (file, salt) = reused.map_err(|e| self.shared.write_failed("the reuse of a commit file", &e))?;
        self.finish_file(file, seq, salt)
    }

    /// Makes the file's name durable. Its header needs no sync of its own: it becomes
    /// durable with the first group, before which nothing in the file counts.
    fn finish_file(&self, file: Arc<dyn DiskFile>, seq: u64, salt: u64) -> Result<CommitFile, LogError> {
        let shared = &self.shared;
        shared
            .disk
            .sync_dir(&shared.commit_dir())
            .map_err(|e| shared.poison("a sync of the commit folder", &e))?;
        Ok(CommitFile { file, seq, salt, position: BLOCK as u64 })
    }

    /// Writes the header and gives the file's salt. The salt need not be secret for ever,
    /// only not known to whoever sends the bodies that are written behind it.
    fn write_header(&self, file: &dyn DiskFile, seq: u64) -> std::io::Result<u64> {
        let nanos = self.shared.clock.monotonic().as_nanos() as u64;
        let now = self.shared.clock.now_ms().cast_unsigned();
        let salt = (nanos ^ now.rotate_left(40) ^ seq.rotate_left(20)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        file.write_at(0, &CommitHeader { salt, file_seq: seq }.encode())?;
        Ok(salt)
    }
}

/// Checks an append before it is queued, and gives its encoded length.
pub(crate) fn check_append(shared: &Shared, append: &[Append]) -> Result<usize, LogError> {
    let known = shared.topics.read().len();
    let mut total = GROUP_HEADER;
    for record in append {
        if record.topic.0 as usize >= known {
            return Err(LogError::UnknownTopic(record.topic));
        }
        let payload = record.head.len() + record.body.len();
        let limit = shared.config.max_record_bytes;
        if payload > limit {
            return Err(LogError::TooLarge { bytes: payload, limit });
        }
        total += record_len(record);
    }
    let limit = shared.config.max_append_bytes();
    if total > limit { Err(LogError::TooLarge { bytes: total, limit }) } else { Ok(total) }
}
