//! What a verification answers: topics, damage with its mend, and what a start would do.

use std::ops::Range;

use levada_core::TopicName;

use crate::TopicId;

/// So many findings of one sort are listed; more are only counted.
pub(super) const MAX_LISTED: usize = 1_000;

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// What is wrong with a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    SegmentHeader,
    RecordHeader,
    RecordPayload,
    SegmentCut,
    SegmentMissing,
    OffsetsMissing,
    OffsetsRepeated,
    /// The index file does not match its checksum.
    IndexDamaged,
    /// The index file is sound in itself but says something else than its segment.
    IndexWrong,
    IndexMissing,
    CommitFileHeader,
    /// Neither the file's header nor its first group can be read: a start takes it as unused.
    CommitFileLost,
    CommitFileMissing,
    CommitGroup,
    CommitGroupsMissing,
    Checkpoint(String),
    Registry(String),
    /// The topic has files but no name.
    TopicUnnamed,
    Unreadable(String),
}

impl Fault {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Fault::SegmentHeader => "segment-header",
            Fault::RecordHeader => "record-header",
            Fault::RecordPayload => "record-payload",
            Fault::SegmentCut => "segment-cut",
            Fault::SegmentMissing => "segment-missing",
            Fault::OffsetsMissing => "offsets-missing",
            Fault::OffsetsRepeated => "offsets-repeated",
            Fault::IndexDamaged => "index-damaged",
            Fault::IndexWrong => "index-wrong",
            Fault::IndexMissing => "index-missing",
            Fault::CommitFileHeader => "commit-file-header",
            Fault::CommitFileLost => "commit-file-lost",
            Fault::CommitFileMissing => "commit-file-missing",
            Fault::CommitGroup => "commit-group",
            Fault::CommitGroupsMissing => "commit-groups-missing",
            Fault::Checkpoint(_) => "checkpoint",
            Fault::Registry(_) => "registry",
            Fault::TopicUnnamed => "topic-unnamed",
            Fault::Unreadable(_) => "unreadable",
        }
    }

    /// What to do about it, and what happens when nothing is done.
    pub fn mend(&self) -> &'static str {
        const RESTORE: &str = "with the server stopped, put the file back from a backup of this folder; \
            else readers pass over these records, which are lost, and a copy of the bytes goes to `quarantine`";
        match self {
            Fault::RecordHeader | Fault::RecordPayload | Fault::SegmentCut => RESTORE,
            Fault::Unreadable(_) => {
                "look at the disk (`dmesg`, SMART) and the file's permissions, then put the file back from a \
                 backup"
            }
            Fault::SegmentHeader => "nothing is lost: readers do not need the header; look at the disk",
            Fault::SegmentMissing | Fault::TopicUnnamed => {
                "with the server stopped, put the files back from a backup of this folder; else readers pass \
                 over these offsets"
            }
            Fault::OffsetsMissing => {
                "if a backup has the segment with these offsets, put it back with the server stopped; else \
                 readers pass over them"
            }
            Fault::OffsetsRepeated => "put the topic's folder back from a backup, all of it",
            Fault::IndexDamaged | Fault::IndexMissing => {
                "nothing is lost: the index is rebuilt from its segment when it is next needed"
            }
            Fault::IndexWrong => {
                "nothing is lost: with the server stopped, remove the file; it is rebuilt from its segment"
            }
            Fault::CommitFileHeader => "nothing is lost: the groups of the file are still found",
            Fault::CommitFileLost | Fault::CommitFileMissing => {
                "do not start the server, it would pass over this file: put it back from a backup taken after \
                 the last checkpoint, or lose what was committed since"
            }
            Fault::CommitGroup | Fault::CommitGroupsMissing => {
                "the next start keeps a copy in `quarantine` and goes on behind it; records of the group that \
                 no segment holds are lost, their offsets are not given again"
            }
            Fault::Checkpoint(_) | Fault::Registry(_) => {
                "the server does not start without it and guesses nothing: put the whole log folder back from \
                 a backup"
            }
        }
    }

    /// Why it is no damage where it is only noticed.
    pub fn harmless_because(&self) -> &'static str {
        match self {
            Fault::CommitGroup | Fault::CommitFileLost => {
                "the checkpoint is behind it: its records are in segments, and a start does not look there"
            }
            Fault::CommitFileHeader => {
                "its groups are still found, or are in segments, or were never confirmed"
            }
            Fault::OffsetsMissing => {
                "an earlier start passed over them after damage in the commit log, of which `quarantine` has \
                 the bytes"
            }
            Fault::Registry(_) => "no record uses those names",
            _ => self.mend(),
        }
    }

    /// Whether records may be lost by it.
    pub fn loses_records(&self) -> bool {
        !matches!(
            self,
            Fault::SegmentHeader
                | Fault::IndexDamaged
                | Fault::IndexWrong
                | Fault::IndexMissing
                | Fault::CommitFileHeader
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::SegmentHeader => "the segment's own header is damaged",
            Fault::RecordHeader => {
                "a record's header does not match its checksum; readers go on at the next entry of the index"
            }
            Fault::RecordPayload => "a record's payload does not match its checksum",
            Fault::SegmentCut => "the segment is shorter than what was confirmed",
            Fault::SegmentMissing => "the segment is missing",
            Fault::OffsetsMissing => "offsets are missing between two sound records",
            Fault::OffsetsRepeated => "offsets do not ascend",
            Fault::IndexDamaged => "the index does not match its checksum",
            Fault::IndexWrong => "the index does not agree with its segment",
            Fault::IndexMissing => "a full segment has no index",
            Fault::CommitFileHeader => "the header of a commit file is damaged",
            Fault::CommitFileLost => "the header and the first group of a commit file are damaged",
            Fault::CommitFileMissing => "the commit file that the checkpoint names is missing or too short",
            Fault::CommitGroup => "a commit group is damaged, and sound ones follow it",
            Fault::CommitGroupsMissing => "commit groups are missing between two sound ones",
            Fault::Checkpoint(reason) => return write!(f, "the checkpoint is not right: {reason}"),
            Fault::Registry(reason) => return write!(f, "the registry of names is not right: {reason}"),
            Fault::TopicUnnamed => "the topic has files, but the registry does not name it",
            Fault::Unreadable(error) => return write!(f, "it cannot be read: {error}"),
        })
    }
}

/// A place where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    /// Where it begins in the file.
    pub position: u64,
    /// How long it is; 0 where something is missing.
    pub bytes: u64,
    pub topic: Option<TopicId>,
    /// The offsets that cannot be read for it, where they are known.
    pub offsets: Option<Range<u64>>,
    pub fault: Fault,
}

/// A topic's records as a server would show them after a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    pub id: TopicId,
    /// `None` when the registry does not name it.
    pub name: Option<TopicName>,
    pub first: u64,
    pub next: u64,
    /// Sound records, in segments or still in the commit log alone.
    pub records: u64,
    /// Bytes confirmed in segments, and those of records that a start brings there.
    pub bytes: u64,
    pub segments: u64,
    /// Findings that are damage.
    pub damaged: u64,
}

/// Bytes of a group that was never confirmed: a start cuts them, which is no damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    pub file: String,
    pub position: u64,
    pub bytes: u64,
}

/// The commit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitReport {
    pub files: u64,
    /// Sound groups, and those among them that a start replays.
    pub groups: u64,
    pub replay_groups: u64,
    pub replay_records: u64,
    pub torn_tail: Option<TornTail>,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// By id; also those without records.
    pub topics: Vec<TopicReport>,
    pub commit: CommitReport,
    /// Bytes that were read.
    pub bytes: u64,
    /// The first 1,000; `damaged` counts them all.
    pub damage: Vec<Finding>,
    pub damaged: u64,
    /// What is worth knowing and no damage; the first 1,000, `noticed` counts them all.
    pub notices: Vec<Finding>,
    pub noticed: u64,
}

impl VerifyReport {
    pub fn is_clean(&self) -> bool {
        self.damaged == 0
    }

    /// Notes damage; a finding that goes on where the last one ended extends it.
    pub(super) fn damage(&mut self, finding: Finding) {
        if let Some(last) = self.damage.last_mut()
            && last.extend(&finding)
        {
            return;
        }
        self.damaged += 1;
        if self.damage.len() < MAX_LISTED {
            self.damage.push(finding);
        }
    }

    pub(super) fn notice(&mut self, finding: Finding) {
        self.noticed += 1;
        if self.notices.len() < MAX_LISTED {
            self.notices.push(finding);
        }
    }
}

impl Finding {
    /// Takes over a finding of the same kind right behind this one.
    fn extend(&mut self, other: &Finding) -> bool {
        let adjoins = self.bytes > 0
            && self.file == other.file
            && self.fault == other.fault
            && self.position + self.bytes == other.position;
        let offsets = match (&self.offsets, &other.offsets) {
            (Some(a), Some(b)) if a.end == b.start => Some(a.start..b.end),
            (None, None) => None,
            _ => return false,
        };
        if adjoins {
            self.bytes += other.bytes;
            self.offsets = offsets;
        }
        adjoins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(position: u64, bytes: u64, offset: u64) -> Finding {
        let (file, topic) = ("f".to_owned(), Some(TopicId(0)));
        let offsets = Some(offset..offset + 1);
        Finding { file, position, bytes, topic, offsets, fault: Fault::RecordPayload }
    }

    #[test]
    fn adjoining_damage_is_one_finding_and_the_lists_are_bounded() {
        let mut report = VerifyReport::default();
        (0..10).for_each(|i| report.damage(finding(i * 10, 10, i)));
        assert_eq!((report.damaged, report.damage[0].bytes), (1, 100));
        assert_eq!(report.damage[0].offsets, Some(0..10));
        report.damage(finding(100, 10, 11));
        assert_eq!(report.damaged, 2, "an offset between them is sound or told elsewhere");
        (0..1_500).for_each(|i| report.damage(finding(1_000 + i * 20, 10, 100 + i)));
        (0..1_500).for_each(|i| report.notice(finding(i * 20, 10, i)));
        assert_eq!((report.damage.len(), report.damaged), (MAX_LISTED, 1_502));
        assert_eq!((report.notices.len(), report.noticed), (MAX_LISTED, 1_500));
    }
}
