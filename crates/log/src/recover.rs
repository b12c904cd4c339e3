//! Opening a log: load the checkpoint, look at the segments by name, replay what the
//! commit log has beyond the checkpoint, and make a new checkpoint of it.
//!
//! A bad group with nothing valid behind it is a torn tail and is cut. With a valid group
//! behind it, it is damage where it was durable once: it is copied aside and reported, and the
//! rest goes on. Else it and all that follows are the tail: see `tail`.

use std::sync::Arc;
use std::time::Duration;

use levada_core::Clock;
use levada_disk::{Disk, DiskFile, OpenMode, create_dir_durable};

use crate::LogConfig;
use crate::checkpoint::{Checkpoint, Mark, Plan, commit_file_seq};
use crate::commit::{Committer, Group, Position, Run};
use crate::demux::Demux;
use crate::error::{LogError, io_error};
use crate::format::{BLOCK, GROUP_HEADER, GroupHeader, RECORD_HEADER, RecordHeader};
use crate::index::SparseIndex;
use crate::quarantine::{Quarantined, quarantine};
use crate::registry::Registry;
use crate::scan::Window;
use crate::shared::Shared;
use crate::tail::{salt, was_durable};
use crate::topic::{Index, Segment, Topic};

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Groups and records taken from the commit log, beyond the last checkpoint.
    pub replayed_groups: u64,
    pub replayed_records: u64,
    /// Bytes of a torn, never confirmed group at the end.
    pub cut_bytes: u64,
    /// Damage found, with the copies.
    pub quarantined: Vec<Quarantined>,
    pub duration: Duration,
}

/// Opens the log in `dir`, creating it when there is none.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dir: &str,
    config: LogConfig,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Shared>, Committer, Demux, Recovery), LogError> {
    let start = clock.monotonic();
    for sub in ["commit", "topics"] {
        let path = format!("{dir}/{sub}");
        create_dir_durable(&*disk, &path).map_err(io_error(format!("create {path}")))?;
    }
    let checkpoint = Checkpoint::read(&*disk, dir)?;
    let registry = Registry::open(&*disk, dir)?;
    let shared = Arc::new(Shared::new(disk, dir, config, clock.clone(), registry));
    let is_new = checkpoint.is_none();
    let checkpoint = checkpoint.unwrap_or_else(|| Checkpoint {
        position: Position { file_seq: 1, bytes: BLOCK as u64, next_group: 1 },
        marks: Default::default(),
    });
    check_complete(&shared, &checkpoint, is_new)?;
    let mut recovery = Recovery::default();
    for topic in shared.topics.read().iter() {
        load_segments(&shared, topic, checkpoint.marks.get(&topic.id).copied(), &mut recovery)?;
    }
    find_spares(&shared)?;
    let mut demux = Demux::new(shared.clone(), checkpoint.position);
    let mut replay =
        Replay { shared: &shared, demux: &mut demux, recovery: &mut recovery, lost: 0, at_tail: false };
    let end = replay.run(checkpoint.position)?;
    let lost = replay.lost;
    skip_lost_offsets(&shared, lost);
    demux.position = end;
    Plan::take(&mut demux).run(&shared)?;
    let next_offsets = shared.topics.read().iter().map(|t| t.segments.read().next).collect();
    shared.topics.read().iter().for_each(|topic| topic.publish_end());
    let committer = Committer::new(shared.clone(), end, next_offsets);
    recovery.duration = clock.monotonic().saturating_sub(start);
    Ok((shared, committer, demux, recovery))
}

/// Refuses to open when a file is missing without which records would be misread.
fn check_complete(shared: &Shared, checkpoint: &Checkpoint, is_new: bool) -> Result<(), LogError> {
    let topics = shared.topics.read().len();
    if let Some(topic) = checkpoint.marks.keys().find(|id| id.0 as usize >= topics) {
        return Err(LogError::CorruptFile {
            file: format!("{}/registry", shared.dir),
            reason: format!("the checkpoint has topic {topic}, which is not in it"),
        });
    }
    let dir = shared.commit_dir();
    let entries = shared.disk.list(&dir).map_err(io_error(format!("list {dir}")))?;
    let is_used = !shared.registry.is_empty() || entries.iter().any(|e| commit_file_seq(&e.name).is_some());
    if is_new && is_used {
        return Err(LogError::CorruptFile {
            file: Checkpoint::path(&shared.dir),
            reason: "it is missing, but the log has been used".into(),
        });
    }
    Ok(())
}

/// Learns a topic's segments from their names. What is behind the checkpoint's mark comes
/// again from the commit log, so it goes.
fn load_segments(
    shared: &Shared,
    topic: &Topic,
    mark: Option<Mark>,
    recovery: &mut Recovery,
) -> Result<(), LogError> {
    let entries = match shared.disk.list(&topic.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(io_error(format!("list {}", topic.dir))(error)),
    };
    let mut segments = topic.segments.write();
    segments.next = mark.map_or(0, |m| m.next);
    for entry in entries {
        let path = format!("{}/{}", topic.dir, entry.name);
        let Some((base, is_segment)) = parse_name(&entry.name) else { continue };
        let is_sealed = mark.is_some_and(|m| base < m.base);
        let is_active = mark.is_some_and(|m| base == m.base);
        if is_segment && is_sealed {
            segments.list.push_back(Segment { base, len: entry.len, index: Index::OnDisk });
        } else if is_segment && is_active {
            let mark = mark.expect("an active segment has a mark");
            if entry.len > mark.len {
                cut(shared, &path, mark.len)?;
            }
            let known_from = mark.len;
            let index = Index::Partial { index: SparseIndex::default(), known_from };
            segments.list.push_back(Segment { base, len: mark.len, index });
            segments.closed = entry.len < mark.len;
            if segments.closed {
                report_short(shared, &path, entry.len, mark.len, recovery);
            }
        } else if !is_sealed {
            shared.disk.remove(&path).map_err(io_error(format!("remove {path}")))?;
        }
    }
    if let Some(mark) = mark.filter(|m| !segments.is_active(m.base)) {
        segments.closed = true;
        report_short(shared, &topic.segment_path(mark.base), 0, mark.len, recovery);
    }
    Ok(())
}

fn cut(shared: &Shared, path: &str, len: u64) -> Result<(), LogError> {
    let file = shared.disk.open(path, OpenMode::Existing);
    file.and_then(|file| file.set_len(len)).map_err(io_error(format!("cut {path}")))
}

/// A segment that lost bytes which a checkpoint had confirmed.
fn report_short(shared: &Shared, path: &str, len: u64, expected: u64, recovery: &mut Recovery) {
    tracing::error!(file = path, bytes = len, expected, "a segment is shorter than its checkpoint says");
    let bytes = expected - len;
    recovery.quarantined.push(Quarantined { file: path.to_owned(), position: len, bytes, copy: None });
    shared.counters.damaged();
}

/// Base offset and whether the name is a segment's (else an index file's).
pub(crate) fn parse_name(name: &str) -> Option<(u64, bool)> {
    let (base, ext) = name.split_once('.')?;
    match ext {
        "seg" => Some((base.parse().ok()?, true)),
        "idx" => Some((base.parse().ok()?, false)),
        _ => None,
    }
}

fn find_spares(shared: &Shared) -> Result<(), LogError> {
    let dir = shared.commit_dir();
    let entries = shared.disk.list(&dir).map_err(io_error(format!("list {dir}")))?;
    let names = entries.into_iter().filter(|e| e.name.ends_with(".spare"));
    shared.spares.lock().extend(names.map(|e| format!("{dir}/{}", e.name)));
    Ok(())
}

/// After damage in the commit log the lost records may have been any topic's last ones:
/// their offsets must not be given out again.
fn skip_lost_offsets(shared: &Shared, lost: u64) {
    if lost > 0 {
        for topic in shared.topics.read().iter() {
            let mut segments = topic.segments.write();
            segments.next += lost;
            segments.closed = true;
        }
    }
}

struct Replay<'a> {
    shared: &'a Shared,
    demux: &'a mut Demux,
    recovery: &'a mut Recovery,
    /// Upper bound of the records lost to damage.
    lost: u64,
    /// The tail was reached: what comes now never counted.
    at_tail: bool,
}

/// Bytes that did not parse, in a file that has been scanned.
struct Bad {
    path: String,
    file: Arc<dyn DiskFile>,
    from: u64,
    to: u64,
}

impl Replay<'_> {
    /// Applies all groups behind a position; answers where the next group goes.
    fn run(&mut self, start: Position) -> Result<Position, LogError> {
        let dir = self.shared.commit_dir();
        let entries = self.shared.disk.list(&dir).map_err(io_error(format!("list {dir}")))?;
        let mut seqs: Vec<u64> = entries.iter().filter_map(|e| commit_file_seq(&e.name)).collect();
        seqs.sort_unstable();
        let mut end = start;
        let mut bad: Vec<Bad> = Vec::new();
        seqs.retain(|seq| *seq >= start.file_seq);
        for (i, seq) in seqs.iter().copied().enumerate() {
            let from = if seq == start.file_seq { start.bytes } else { BLOCK as u64 };
            if !self.at_tail {
                self.file(&seqs[i..], from, &mut end, &mut bad)?;
            }
            end = Position { file_seq: seq + 1, bytes: BLOCK as u64, ..end };
        }
        Ok(end)
    }

    /// Applies the groups of the first of some files.
    fn file(
        &mut self,
        seqs: &[u64],
        from: u64,
        end: &mut Position,
        bad: &mut Vec<Bad>,
    ) -> Result<(), LogError> {
        let seq = seqs[0];
        let path = self.shared.commit_path(seq);
        let file = self.shared.disk.open(&path, OpenMode::Read).map_err(io_error(format!("open {path}")))?;
        let read = |e| io_error(format!("read {path}"))(e);
        let len = file.len().map_err(read)?;
        let mut window = Window::new(&*file, len);
        let Some(salt) = salt(&mut window, seq).map_err(read)? else { return Ok(()) };
        let mut at = from;
        let mut torn = 0;
        while at + GROUP_HEADER as u64 <= len {
            let header = GroupHeader::parse(window.get(at, GROUP_HEADER).map_err(read)?)
                .filter(|h| h.salt == salt && h.file_seq == seq && h.seq >= end.next_group);
            let payload = match header {
                Some(header) if at + header.blocks_len() <= len => {
                    let payload_len = header.payload_len as usize;
                    let payload = window.get(at + GROUP_HEADER as u64, payload_len).map_err(read)?;
                    (crc32c::crc32c(payload) == header.payload_crc).then(|| payload.to_vec())
                }
                _ => None,
            };
            let (Some(header), Some(payload)) = (header, payload) else {
                torn += header.map_or(0, |h| h.blocks_len());
                match bad.last_mut() {
                    Some(bad) if bad.path == path && bad.to == at => bad.to = at + BLOCK as u64,
                    _ => {
                        let to = at + BLOCK as u64;
                        bad.push(Bad { path: path.clone(), file: file.clone(), from: at, to });
                    }
                }
                at += BLOCK as u64;
                continue;
            };
            if header.seq > end.next_group {
                let was_durable = {
                    let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
                    was_durable(disk, dir, seqs.iter().copied(), at, end.next_group).map_err(read)?
                };
                if !was_durable {
                    self.at_tail = true;
                    self.recovery.cut_bytes += torn + (len - at);
                    return Ok(());
                }
                self.report(bad, header.seq - end.next_group);
            }
            bad.clear();
            torn = 0;
            at += header.blocks_len();
            *end = Position { file_seq: seq, bytes: at, next_group: header.seq + 1 };
            self.apply(&header, payload, *end)?;
        }
        self.recovery.cut_bytes += torn;
        Ok(())
    }

    fn apply(&mut self, header: &GroupHeader, payload: Vec<u8>, end: Position) -> Result<(), LogError> {
        let runs = runs(&payload);
        self.recovery.replayed_groups += 1;
        self.recovery.replayed_records += u64::from(header.count);
        self.demux.apply(&Group { buffer: payload, runs, end })
    }

    /// Valid groups follow bytes that are not valid: damage, or whole groups are missing.
    fn report(&mut self, bad: &[Bad], groups: u64) {
        tracing::error!(groups, "groups are missing from the commit log");
        for bad in bad {
            let bytes = bad.to - bad.from;
            self.lost += bytes / RECORD_HEADER as u64;
            let entry = quarantine(self.shared, &bad.path, &*bad.file, bad.from, bad.to);
            self.recovery.quarantined.push(entry);
        }
        if bad.is_empty() {
            self.lost += self.shared.config.max_append_bytes() as u64 / RECORD_HEADER as u64 * groups;
            let file = self.shared.commit_dir();
            self.recovery.quarantined.push(Quarantined { file, position: 0, bytes: 0, copy: None });
        }
    }
}

/// The runs of a group's payload.
fn runs(payload: &[u8]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    while let Some(header) = RecordHeader::parse(&payload[at..]) {
        let (start, end, next) = (at, at + header.record_len(), header.offset + 1);
        at = end;
        match runs.last_mut() {
            Some(run) if run.topic == header.topic => (run.next, run.end) = (next, end),
            _ => runs.push(Run { topic: header.topic, first: header.offset, next, start, end }),
        }
    }
    runs
}
