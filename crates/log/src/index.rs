//! The sparse index of a segment: every so many bytes an entry with an offset, its
//! position and the greatest timestamp before it. Sealed segments keep it in a `.idx`
//! file beside them; whatever is missing or wrong is rebuilt from the segment.

use crate::TopicId;
use crate::format::{Fields, SEGMENT_HEADER, seal, unseal};

const MAGIC: u32 = u32::from_le_bytes(*b"LVIX");
const VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    /// Greatest timestamp of the records before this one in the segment.
    pub(crate) max_before_ms: i64,
}

/// Entries ascend in offset and position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    pub(crate) entries: Vec<IndexEntry>,
    /// Greatest timestamp in the segment.
    pub(crate) max_ms: i64,
}

impl Default for SparseIndex {
    fn default() -> Self {
        Self { entries: Vec::new(), max_ms: i64::MIN }
    }
}

impl SparseIndex {
    /// Notes a record at the end of the segment.
    pub(crate) fn note(&mut self, offset: u64, position: u64, timestamp_ms: i64, interval: u64) {
        if self.entries.last().is_none_or(|last| position >= last.position + interval) {
            self.entries.push(IndexEntry { offset, position, max_before_ms: self.max_ms });
        }
        self.max_ms = self.max_ms.max(timestamp_ms);
    }

    /// Where to start reading to find `offset`.
    pub(crate) fn position_of(&self, offset: u64) -> u64 {
        let after = self.entries.partition_point(|e| e.offset <= offset);
        after.checked_sub(1).map_or(SEGMENT_HEADER as u64, |i| self.entries[i].position)
    }

    /// Where to start reading to find the first record at or after a time.
    pub(crate) fn position_of_time(&self, timestamp_ms: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.max_before_ms < timestamp_ms);
        after.checked_sub(1).map_or(SEGMENT_HEADER as u64, |i| self.entries[i].position)
    }

    /// The first entry behind a position.
    pub(crate) fn entry_after(&self, position: u64) -> Option<IndexEntry> {
        self.entries.get(self.entries.partition_point(|e| e.position <= position)).copied()
    }

    pub(crate) fn encode(&self, topic: TopicId, base: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(36 + self.entries.len() * 24);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&topic.0.to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&self.max_ms.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.max_before_ms.to_le_bytes());
        }
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8], topic: TopicId, base: u64) -> Option<Self> {
        let mut fields = Fields(unseal(bytes)?);
        let right = fields.u32()? == MAGIC
            && fields.u32()? == VERSION
            && fields.u32()? == topic.0
            && fields.u64()? == base;
        if !right {
            return None;
        }
        let max_ms = fields.u64()?.cast_signed();
        let count = fields.u32()?;
        let entries = (0..count)
            .map(|_| {
                Some(IndexEntry {
                    offset: fields.u64()?,
                    position: fields.u64()?,
                    max_before_ms: fields.u64()?.cast_signed(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { entries, max_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_offsets_and_times_and_survives_encoding() {
        let mut index = SparseIndex::default();
        for i in 0..100u64 {
            index.note(i, 32 + i * 10, 1_000 + i.cast_signed(), 100);
        }
        assert_eq!(index.entries.len(), 10);
        assert_eq!(index.position_of(0), 32);
        assert_eq!(index.position_of(25), 232);
        assert_eq!(index.position_of(1_000), 932);
        assert_eq!(index.position_of_time(1_025), 232);
        assert_eq!(index.position_of_time(0), 32);
        assert_eq!(index.entry_after(232).map(|e| e.offset), Some(30));
        let bytes = index.encode(TopicId(3), 0);
        assert_eq!(SparseIndex::decode(&bytes, TopicId(3), 0), Some(index));
        assert_eq!(SparseIndex::decode(&bytes, TopicId(4), 0), None);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(SparseIndex::decode(&flipped, TopicId(3), 0), None, "bit {at}");
        }
    }
}
