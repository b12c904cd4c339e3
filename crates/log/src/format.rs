//! The bytes on disk, version 1. All numbers are little endian; checksums are CRC32C.
//!
//! A record is the same in a commit group and in a segment, so it is encoded once:
//! ```text
//!  0 header checksum (4..48)   4 checksum of head and body   8 version, flags, 0, 0
//! 12 topic    16 lane    20 key id    24 offset    32 timestamp    40 head len    44 body len
//! 48 head, body
//! ```
//! Commit files are made of blocks of 4 KiB: the file header, then groups, each starting
//! at a block. Confirmed bytes are so never rewritten, and a group can be looked for at
//! block boundaries. A group carries the salt and number of its file: bytes of an older
//! use of the file, or bytes sent by a client, do not pass for a group.

use crate::{Append, TopicId};

pub(crate) const VERSION: u8 = 1;
pub(crate) const BLOCK: usize = 4096;
pub(crate) const RECORD_HEADER: usize = 48;
pub(crate) const GROUP_HEADER: usize = 48;
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Length of the used part of a commit file's first block.
pub(crate) const COMMIT_HEADER: usize = 32;

const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"LVGR");
const COMMIT_MAGIC: u32 = u32::from_le_bytes(*b"LVCF");
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"LVSG");

/// Rounds up to whole blocks.
pub(crate) fn to_blocks(len: usize) -> usize {
    len.div_ceil(BLOCK) * BLOCK
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) body_crc: u32,
    pub(crate) topic: TopicId,
    pub(crate) lane: u32,
    pub(crate) key_id: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) head_len: u32,
    pub(crate) body_len: u32,
}

impl RecordHeader {
    /// Parses a header; `None` when bytes are missing, the checksum is wrong or the
    /// version is unknown.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_HEADER
            || u32_at(bytes, 0) != crc32c::crc32c(&bytes[4..RECORD_HEADER])
            || bytes[8] != VERSION
        {
            return None;
        }
        Some(Self {
            body_crc: u32_at(bytes, 4),
            topic: TopicId(u32_at(bytes, 12)),
            lane: u32_at(bytes, 16),
            key_id: u32_at(bytes, 20),
            offset: u64_at(bytes, 24),
            timestamp_ms: u64_at(bytes, 32).cast_signed(),
            head_len: u32_at(bytes, 40),
            body_len: u32_at(bytes, 44),
        })
    }

    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> usize {
        RECORD_HEADER + self.head_len as usize + self.body_len as usize
    }

    /// Whether the payload behind the header is there and right; `record` begins with the header.
    pub(crate) fn payload_matches(&self, record: &[u8]) -> bool {
        let len = self.record_len();
        record.len() >= len && crc32c::crc32c(&record[RECORD_HEADER..len]) == self.body_crc
    }
}

/// Encoded length of a record.
pub(crate) fn record_len(append: &Append) -> usize {
    RECORD_HEADER + append.head.len() + append.body.len()
}

/// Appends a record to `out`. The lengths were checked against the limits before.
pub(crate) fn put_record(out: &mut Vec<u8>, append: &Append, offset: u64) {
    let start = out.len();
    let mut header = [0u8; RECORD_HEADER];
    header[8] = VERSION;
    header[12..16].copy_from_slice(&append.topic.0.to_le_bytes());
    header[16..20].copy_from_slice(&append.lane.to_le_bytes());
    header[20..24].copy_from_slice(&append.key_id.to_le_bytes());
    header[24..32].copy_from_slice(&offset.to_le_bytes());
    header[32..40].copy_from_slice(&append.timestamp_ms.to_le_bytes());
    header[40..44].copy_from_slice(&(append.head.len() as u32).to_le_bytes());
    header[44..48].copy_from_slice(&(append.body.len() as u32).to_le_bytes());
    let body_crc = crc32c::crc32c_append(crc32c::crc32c(&append.head), &append.body);
    header[4..8].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&header[4..]);
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&append.head);
    out.extend_from_slice(&append.body);
    debug_assert_eq!(out.len() - start, record_len(append));
}

/// A group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) salt: u64,
    pub(crate) file_seq: u64,
    pub(crate) seq: u64,
    /// So many groups directly before it were not durable yet when it was written; up to
    /// [`MAX_UNSYNCED`].
    pub(crate) unsynced_before: u32,
    pub(crate) payload_len: u32,
    pub(crate) count: u32,
    pub(crate) payload_crc: u32,
}

/// The most that a group's header can tell, in three bytes.
pub(crate) const MAX_UNSYNCED: u32 = (1 << 24) - 1;

impl GroupHeader {
    /// Groups below this number were durable when this one was written.
    pub(crate) fn durable_before(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.unsynced_before))
    }

    pub(crate) fn encode(&self) -> [u8; GROUP_HEADER] {
        let mut out = [0u8; GROUP_HEADER];
        out[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        out[4] = VERSION;
        out[5..8].copy_from_slice(&self.unsynced_before.min(MAX_UNSYNCED).to_le_bytes()[..3]);
        out[8..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.file_seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.seq.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.count.to_le_bytes());
        out[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < GROUP_HEADER
            || u32_at(bytes, 0) != GROUP_MAGIC
            || bytes[4] != VERSION
            || u32_at(bytes, 44) != crc32c::crc32c(&bytes[..44])
        {
            return None;
        }
        Some(Self {
            salt: u64_at(bytes, 8),
            file_seq: u64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            unsynced_before: u32_at(bytes, 4) >> 8,
            payload_len: u32_at(bytes, 32),
            count: u32_at(bytes, 36),
            payload_crc: u32_at(bytes, 40),
        })
    }

    /// Length in the file, whole blocks.
    pub(crate) fn blocks_len(&self) -> u64 {
        to_blocks(GROUP_HEADER + self.payload_len as usize) as u64
    }
}

/// Whether bytes that are no sound group header were one of this use of the file: an older
/// use has left whole headers with another salt, and payload.
pub(crate) fn was_group_header(bytes: &[u8], salt: u64, file_seq: u64) -> bool {
    let is_broken = bytes.len() >= GROUP_HEADER && GroupHeader::parse(bytes).is_none();
    is_broken
        && (u32_at(bytes, 0) == GROUP_MAGIC || (u64_at(bytes, 8) == salt && u64_at(bytes, 16) == file_seq))
}

/// The header of a commit file, in its first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    pub(crate) salt: u64,
    pub(crate) file_seq: u64,
}

impl CommitHeader {
    pub(crate) fn encode(&self) -> [u8; COMMIT_HEADER] {
        let mut out = [0u8; COMMIT_HEADER];
        out[..4].copy_from_slice(&COMMIT_MAGIC.to_le_bytes());
        out[4] = VERSION;
        out[8..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.file_seq.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < COMMIT_HEADER
            || u32_at(bytes, 0) != COMMIT_MAGIC
            || bytes[4] != VERSION
            || u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28])
        {
            return None;
        }
        Some(Self { salt: u64_at(bytes, 8), file_seq: u64_at(bytes, 16) })
    }
}

/// The header of a segment.
pub(crate) fn segment_header(topic: TopicId, base: u64) -> [u8; SEGMENT_HEADER] {
    let mut out = [0u8; SEGMENT_HEADER];
    out[..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
    out[4] = VERSION;
    out[8..12].copy_from_slice(&topic.0.to_le_bytes());
    out[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads fixed-width numbers one after the other; `None` at the end of the bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|b| u16::from_le_bytes(b.try_into().expect("two bytes")))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|b| u32_at(b, 0))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|b| u64_at(b, 0))
    }
}

/// Appends the checksum of everything in `out`.
pub(crate) fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The bytes before the checksum that [`seal`] appended, if it is right.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (u32_at(crc, 0) == crc32c::crc32c(body)).then_some(body)
}
