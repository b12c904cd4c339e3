//! Checks a log at rest, without opening it: nothing is written, recovered or cut.
//!
//! The same rules as at a start tell what counts. Segments count up to what the checkpoint
//! names; what lies behind comes again from the commit log, so it is not looked at. A bad
//! group at the end of the commit log was never confirmed: it is told, and is no damage.
//! Memory grows with the number of files, never with their sizes.

mod commit;
mod names;
mod report;
mod segment;
mod topics;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use levada_core::TopicName;
use levada_disk::{Disk, Entry};

pub use report::{CommitReport, Fault, Finding, Progress, TopicReport, TornTail, VerifyReport};
pub(crate) use walk::{Step, Walk};

use crate::TopicId;
use crate::checkpoint::{Mark, commit_file_seq};
use crate::commit::Position;
use crate::error::{LogError, io_error};
use crate::format::RECORD_HEADER;

/// Progress is told about this often.
const PROGRESS_EVERY_BYTES: u64 = 1 << 20;

/// Checks every file of the log in `dir`. No process may have the log open meanwhile: what
/// it writes would look like damage. Blocks; `progress` is called about once per MiB.
///
/// # Errors
/// `Io` when there is no log or its folders cannot be listed. A file that cannot be read
/// is a finding.
pub fn verify(
    disk: &dyn Disk,
    dir: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, LogError> {
    let files = Files::list(disk, dir)?;
    let meter = Meter { done: 0, told: 0, total: files.bytes(), tell: progress };
    let mut check = Check {
        disk,
        dir,
        meter,
        report: VerifyReport::default(),
        topics: BTreeMap::new(),
        names: None,
        start: None,
        explained_offsets: files.quarantined_bytes / RECORD_HEADER as u64,
        max_lane: None,
    };
    let lanes = check.names(&files);
    let mut ids: BTreeSet<TopicId> = files.topics.keys().map(|id| TopicId(*id)).collect();
    ids.extend(check.start.iter().flat_map(|start| start.marks.keys()));
    for id in ids {
        check.topic(id, files.topics.get(&id.0).map_or(&[], Vec::as_slice));
    }
    check.commit_log(&files.commits);
    check.lanes(lanes);
    check.meter.finish();
    let Check { mut report, topics, meter, .. } = check;
    report.bytes = meter.total;
    report.topics = topics.into_values().collect();
    Ok(report)
}

/// The files of a log, by name only.
struct Files {
    registry: Option<u64>,
    checkpoint: Option<u64>,
    /// Number and length of the commit files, ascending.
    commits: Vec<(u64, u64)>,
    /// What lies in each topic's folder.
    topics: BTreeMap<u32, Vec<Entry>>,
    /// Bytes that earlier starts took out of the commit log.
    quarantined_bytes: u64,
}

impl Files {
    fn list(disk: &dyn Disk, dir: &str) -> Result<Self, LogError> {
        let list = |path: &str| match disk.list(path) {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io_error(format!("list {path}"))(error)),
        };
        let top = disk.list(dir).map_err(io_error(format!("list {dir}")))?;
        let len = |name: &str| top.iter().find(|e| e.name == name && !e.is_dir).map(|e| e.len);
        let (registry, checkpoint) = (len("registry"), len("checkpoint"));
        if registry.is_none() && checkpoint.is_none() && !top.iter().any(|e| e.is_dir && e.name == "commit") {
            let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
            return Err(io_error(format!("verify {dir}"))(missing));
        }
        let commits = list(&format!("{dir}/commit"))?;
        let mut commits: Vec<_> =
            commits.iter().filter_map(|e| Some((commit_file_seq(&e.name)?, e.len))).collect();
        commits.sort_unstable();
        let mut topics = BTreeMap::new();
        for folder in list(&format!("{dir}/topics"))?.into_iter().filter(|e| e.is_dir) {
            let Ok(id) = folder.name.parse() else { continue };
            topics.insert(id, list(&format!("{dir}/topics/{}", folder.name))?);
        }
        let quarantined = list(&format!("{dir}/quarantine"))?;
        let quarantined = quarantined.iter().filter(|e| e.name.starts_with("commit-"));
        Ok(Self {
            registry,
            checkpoint,
            commits,
            topics,
            quarantined_bytes: quarantined.map(|e| e.len).sum(),
        })
    }

    fn bytes(&self) -> u64 {
        let commits: u64 = self.commits.iter().map(|c| c.1).sum();
        let topics: u64 = self.topics.values().flatten().map(|e| e.len).sum();
        self.registry.unwrap_or(0) + self.checkpoint.unwrap_or(0) + commits + topics
    }
}

struct Meter<'a> {
    done: u64,
    told: u64,
    total: u64,
    tell: &'a mut dyn FnMut(Progress),
}

impl Meter<'_> {
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done >= self.told + PROGRESS_EVERY_BYTES {
            self.told = self.done;
            (self.tell)(Progress { done_bytes: self.done.min(self.total), total_bytes: self.total });
        }
    }

    fn finish(&mut self) {
        (self.tell)(Progress { done_bytes: self.total, total_bytes: self.total });
    }
}

/// From where a start replays, and what it believes of the segments.
struct Start {
    position: Position,
    marks: BTreeMap<TopicId, Mark>,
}

/// A verification under way.
struct Check<'a> {
    disk: &'a dyn Disk,
    dir: &'a str,
    meter: Meter<'a>,
    report: VerifyReport,
    topics: BTreeMap<TopicId, TopicReport>,
    /// `None` when the registry cannot be read.
    names: Option<Vec<TopicName>>,
    /// `None` when the checkpoint cannot be read.
    start: Option<Start>,
    /// A gap of at most so many offsets is what an earlier start passed over.
    explained_offsets: u64,
    /// The greatest tenant's number in a record.
    max_lane: Option<u32>,
}

impl Check<'_> {
    fn damage(&mut self, finding: Finding) {
        let topic = finding.topic;
        let before = self.report.damaged;
        self.report.damage(finding);
        if let Some(topic) = topic.and_then(|id| self.topics.get_mut(&id)) {
            topic.damaged += self.report.damaged - before;
        }
    }

    /// Offsets that should stand between two records. After damage in the commit log a
    /// start passes over offsets that may have been lost; the copy in quarantine tells it.
    fn gap(&mut self, topic: TopicId, file: &str, position: u64, offsets: std::ops::Range<u64>) {
        let explained = offsets.end - offsets.start <= self.explained_offsets;
        let finding = Finding {
            file: file.to_owned(),
            position,
            bytes: 0,
            topic: Some(topic),
            offsets: Some(offsets),
            fault: Fault::OffsetsMissing,
        };
        if explained { self.report.notice(finding) } else { self.damage(finding) }
    }

    /// What is known of a topic, made when it is met for the first time.
    fn state(&mut self, id: TopicId) -> &mut TopicReport {
        let names = self.names.as_ref();
        self.topics.entry(id).or_insert_with(|| {
            let name = names.and_then(|names| names.get(id.0 as usize)).cloned();
            TopicReport { id, name, first: 0, next: 0, records: 0, bytes: 0, segments: 0, damaged: 0 }
        })
    }

    fn note_lane(&mut self, lane: u32) {
        self.max_lane = self.max_lane.max(Some(lane));
    }
}
