//! One segment, record by record, and whether its index agrees with it.
//!
//! What damage costs is told as readers see it: behind a damaged payload they go on with
//! the next record, behind a damaged header with the next entry of the index.

use std::ops::Range;

use levada_disk::{OpenMode, read_all};

use super::{Check, Fault, Finding, Step, Walk};
use crate::TopicId;
use crate::format::{RecordHeader, SEGMENT_HEADER, segment_header};
use crate::index::SparseIndex;

/// An index has an entry each 64 KiB; a file larger than this is none.
const MAX_INDEX_BYTES: u64 = 64 << 20;

pub(super) struct SegmentFile {
    pub(super) topic: TopicId,
    pub(super) base: u64,
    pub(super) path: String,
    /// Bytes in the file.
    pub(super) len: u64,
    /// Bytes that count.
    pub(super) confirmed: u64,
    /// The offset that should follow the last record; `None` where nobody knows.
    pub(super) end: Option<u64>,
    /// It takes no more records, so it has an index file.
    pub(super) is_sealed: bool,
    pub(super) index: Option<(u64, String)>,
}

impl SegmentFile {
    fn finding(&self, fault: Fault, position: u64, bytes: u64, offsets: Option<Range<u64>>) -> Finding {
        Finding { file: self.path.clone(), position, bytes, topic: Some(self.topic), offsets, fault }
    }

    fn index_finding(&self, fault: Fault) -> Finding {
        let (bytes, file) = match &self.index {
            Some((len, path)) => (*len, path.clone()),
            None => (0, self.path.replace(".seg", ".idx")),
        };
        Finding { file, position: 0, bytes, topic: Some(self.topic), offsets: None, fault }
    }
}

/// Compares an index with the records as they come by.
struct IndexCheck {
    index: SparseIndex,
    next: usize,
    is_wrong: bool,
    /// No record was passed over so far, so the times are known.
    is_exact: bool,
    max_ms: i64,
}

impl IndexCheck {
    fn new(index: SparseIndex) -> Self {
        Self { index, next: 0, is_wrong: false, is_exact: true, max_ms: i64::MIN }
    }

    fn record(&mut self, position: u64, header: &RecordHeader) {
        while self.index.entries.get(self.next).is_some_and(|e| e.position < position) {
            self.is_wrong = true;
            self.next += 1;
        }
        if let Some(entry) = self.index.entries.get(self.next).filter(|e| e.position == position) {
            self.is_wrong |= entry.offset != header.offset;
            self.is_wrong |= self.is_exact && entry.max_before_ms != self.max_ms;
            self.next += 1;
        }
        self.max_ms = self.max_ms.max(header.timestamp_ms);
    }

    fn pass_over(&mut self, position: u64) {
        self.is_exact = false;
        while self.index.entries.get(self.next).is_some_and(|e| e.position < position) {
            self.next += 1;
        }
    }

    /// Whether it knows of records behind the last one that came by.
    fn knows_more(&self) -> bool {
        self.next < self.index.entries.len() || (self.is_exact && self.index.max_ms > self.max_ms)
    }
}

impl Check<'_> {
    /// Checks a segment; answers the offset up to which it has told everything.
    pub(super) fn segment(&mut self, segment: &SegmentFile) -> u64 {
        let start = self.meter.done;
        let index = if segment.is_sealed { self.index(segment) } else { None };
        if let Some((len, _)) = &segment.index {
            self.meter.advance(*len);
        }
        let expected = self.records(segment, index.map(IndexCheck::new));
        let whole = segment.len + segment.index.as_ref().map_or(0, |i| i.0);
        self.meter.advance((start + whole).saturating_sub(self.meter.done));
        expected
    }

    fn index(&mut self, segment: &SegmentFile) -> Option<SparseIndex> {
        let Some((len, path)) = &segment.index else {
            self.report.notice(segment.index_finding(Fault::IndexMissing));
            return None;
        };
        let bytes = if *len > MAX_INDEX_BYTES { Ok(Vec::new()) } else { read_all(self.disk, path) };
        match bytes {
            Ok(bytes) => {
                let index = SparseIndex::decode(&bytes, segment.topic, segment.base);
                if index.is_none() {
                    self.damage(segment.index_finding(Fault::IndexDamaged));
                }
                index
            }
            Err(error) => {
                self.damage(segment.index_finding(Fault::Unreadable(error.to_string())));
                None
            }
        }
    }

    fn records(&mut self, segment: &SegmentFile, mut index: Option<IndexCheck>) -> u64 {
        let mut expected = segment.base;
        let file = match self.disk.open(&segment.path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) => {
                let offsets = segment.end.map(|end| segment.base..end);
                let fault = Fault::Unreadable(error.to_string());
                self.damage(segment.finding(fault, 0, segment.len, offsets));
                return segment.end.unwrap_or(segment.base);
            }
        };
        let header_len = SEGMENT_HEADER as u64;
        let mut header = [0; SEGMENT_HEADER];
        if segment.len >= header_len {
            match levada_disk::read_exact_at(&*file, 0, &mut header) {
                Ok(()) if header == segment_header(segment.topic, segment.base) => {}
                Ok(()) => self.damage(segment.finding(Fault::SegmentHeader, 0, header_len, None)),
                Err(error) => {
                    let fault = Fault::Unreadable(error.to_string());
                    self.damage(segment.finding(fault, 0, header_len, None));
                }
            }
        }
        let mut walk = Walk::new(&*file, header_len, segment.confirmed.min(segment.len));
        let mut told = header_len;
        loop {
            let fault = match walk.step() {
                Ok(Step::Record { position, header, payload_is_sound }) if header.topic == segment.topic => {
                    if let Some(index) = &mut index {
                        index.record(position, &header);
                    }
                    expected = self.record(segment, position, &header, payload_is_sound, expected);
                    self.meter.advance(walk.position() - told);
                    told = walk.position();
                    continue;
                }
                Ok(Step::End) => {
                    return self.end_of_segment(segment, index, expected, walk.position());
                }
                Ok(Step::Short { position }) => {
                    return self.cut(segment, position, expected);
                }
                Ok(Step::NoHeader) => Fault::RecordHeader,
                Ok(Step::Record { position, .. }) => {
                    walk.seek(position);
                    Fault::RecordHeader
                }
                Err(error) => Fault::Unreadable(error.to_string()),
            };
            let position = walk.position();
            let resume = index.as_ref().and_then(|i| i.index.entry_after(position));
            let resume = resume.filter(|e| e.offset > expected && e.position < segment.len);
            let Some(entry) = resume else {
                return self.rest(segment, fault, position, expected);
            };
            let bytes = entry.position - position;
            self.damage(segment.finding(fault, position, bytes, Some(expected..entry.offset)));
            walk.seek(entry.position);
            expected = entry.offset;
            if let Some(index) = &mut index {
                index.pass_over(entry.position);
            }
        }
    }

    /// Notes a record with a sound header; answers the offset behind it.
    fn record(
        &mut self,
        segment: &SegmentFile,
        position: u64,
        header: &RecordHeader,
        payload_is_sound: bool,
        expected: u64,
    ) -> u64 {
        let (offset, len) = (header.offset, header.record_len() as u64);
        if offset < expected {
            let offsets = Some(offset..offset + 1);
            self.damage(segment.finding(Fault::OffsetsRepeated, position, len, offsets));
            return expected;
        }
        if offset > expected {
            self.gap(segment.topic, &segment.path, position, expected..offset);
        }
        if payload_is_sound {
            self.note_lane(header.lane);
            self.state(segment.topic).records += 1;
        } else {
            let offsets = Some(offset..offset + 1);
            self.damage(segment.finding(Fault::RecordPayload, position, len, offsets));
        }
        offset + 1
    }

    /// All records are sound up to the end of the file; there may have been more.
    fn end_of_segment(
        &mut self,
        segment: &SegmentFile,
        index: Option<IndexCheck>,
        expected: u64,
        position: u64,
    ) -> u64 {
        let is_short = segment.end.is_some_and(|end| end > expected);
        let was_longer = index.as_ref().is_some_and(IndexCheck::knows_more);
        if segment.len < segment.confirmed || (is_short && was_longer) {
            return self.cut(segment, position, expected);
        }
        let is_wrong =
            |i: &IndexCheck| i.is_wrong || i.knows_more() || (i.is_exact && i.index.max_ms != i.max_ms);
        if index.as_ref().is_some_and(is_wrong) {
            self.damage(segment.index_finding(Fault::IndexWrong));
        }
        expected
    }

    /// The file ends too early.
    fn cut(&mut self, segment: &SegmentFile, position: u64, expected: u64) -> u64 {
        self.rest(segment, Fault::SegmentCut, position, expected)
    }

    /// Nothing behind a position can be read.
    fn rest(&mut self, segment: &SegmentFile, fault: Fault, position: u64, expected: u64) -> u64 {
        // Without a checkpoint the last records may never have been confirmed.
        let Some(end) = segment.end else { return expected };
        let bytes = segment.confirmed.saturating_sub(position);
        self.damage(segment.finding(fault, position, bytes, Some(expected..end.max(expected))));
        end.max(expected)
    }
}
