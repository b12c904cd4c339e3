//! Reading committed records from segments, by offset and by time.

use std::sync::Arc;

use bytes::Bytes;
use levada_disk::DiskFile;

use crate::error::{Damage, LogError, io_error};
use crate::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER};
use crate::quarantine::quarantine;
use crate::scan::{Window, complete_index};
use crate::shared::Shared;
use crate::topic::{Hint, Index, Topic};
use crate::{Stored, TopicId};

/// Read in one piece at most, unless one record is larger: what stays in the processor's cache
/// until it is looked at, and more where records are large, because the last one of a piece is
/// often read in part only, and then once more.
const MAX_CHUNK: u64 = 256 << 10;
const MAX_LARGE_CHUNK: u64 = 1 << 20;
const LARGE_RECORD: usize = 16 << 10;

/// Where to read in a topic.
pub(crate) struct Place {
    pub(crate) base: u64,
    /// End of the confirmed bytes.
    pub(crate) len: u64,
    pub(crate) position: u64,
    /// Base of the segment behind this one.
    pub(crate) next_base: Option<u64>,
}

/// How many records and bytes an answer may still take.
struct Budget {
    records: usize,
    bytes: u64,
}

/// Records from an offset on; see `Log::read`.
pub(crate) fn read(
    shared: &Shared,
    topic: TopicId,
    from: u64,
    max_records: usize,
    max_bytes: usize,
) -> Result<Vec<Stored>, LogError> {
    let topic = shared.topic(topic)?;
    let mut out = Vec::new();
    let mut from = from;
    let mut budget = Budget { records: max_records, bytes: max_bytes as u64 };
    // Bounded: each round ends the reading or moves to a later segment.
    while budget.records > 0 {
        let Some(place) = locate(shared, &topic, from)? else { break };
        match read_segment(shared, &topic, &place, from, &mut budget, &mut out) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if out.is_empty() => return Err(error),
            Err(_) => break,
        }
        let Some(next_base) = place.next_base else { break };
        from = from.max(next_base);
    }
    Ok(out)
}

/// The segment with an offset and where to begin in it; `None` behind the end.
fn locate(shared: &Shared, topic: &Topic, from: u64) -> Result<Option<Place>, LogError> {
    let segments = topic.segments.read();
    if from >= segments.next {
        return Ok(None);
    }
    let Some(i) = segments.holding(from) else { return Ok(None) };
    let segment = &segments.list[i];
    let next_base = segments.list.get(i + 1).map(|s| s.base);
    let (base, len) = (segment.base, segment.len);
    let place = |position| Ok(Some(Place { base, len, position, next_base }));
    if from <= base {
        return place(SEGMENT_HEADER as u64);
    }
    if let Some(position) = topic.hint(base, from) {
        return place(position);
    }
    match &segment.index {
        Index::Partial { index, known_from }
            if *known_from <= SEGMENT_HEADER as u64
                || index.entries.first().is_some_and(|e| e.offset <= from) =>
        {
            place(index.position_of(from))
        }
        Index::Complete(index) => place(index.position_of(from)),
        _ => {
            drop(segments);
            let index = complete_index(shared, topic, base)?;
            place(index.position_of(from))
        }
    }
}

fn open(shared: &Shared, topic: &Topic, base: u64) -> Result<Arc<dyn DiskFile>, LogError> {
    let path = topic.segment_path(base);
    shared.files.get((topic.id.0, base), &path).map_err(io_error(format!("open {path}")))
}

/// Reads from one segment; true when it was read to its end with budget left.
fn read_segment(
    shared: &Shared,
    topic: &Topic,
    place: &Place,
    from: u64,
    budget: &mut Budget,
    out: &mut Vec<Stored>,
) -> Result<bool, LogError> {
    let file = open(shared, topic, place.base)?;
    let mut position = place.position;
    let mut expected = from;
    let mut max_chunk = MAX_CHUNK;
    let mut want = budget.bytes.clamp(RECORD_HEADER as u64, max_chunk);
    while position < place.len {
        let chunk = read_chunk(&*file, position, want.min(place.len - position))
            .map_err(io_error(format!("read {}", topic.segment_path(place.base))))?;
        let before = position;
        let mut at = 0;
        while at < chunk.len() {
            let parsed = RecordHeader::parse(&chunk[at..]).filter(|h| h.topic == topic.id);
            let Some(header) = parsed else {
                if chunk.len() - at < RECORD_HEADER && position + RECORD_HEADER as u64 <= place.len {
                    break;
                }
                return Err(damaged(shared, topic, place, &*file, expected, position, None));
            };
            let len = header.record_len();
            if position + len as u64 > place.len {
                return Err(damaged(shared, topic, place, &*file, expected, position, None));
            }
            if header.offset >= from && !out.is_empty() && len as u64 > budget.bytes {
                topic.add_hint(Hint { base: place.base, offset: header.offset, position });
                return Ok(false);
            }
            if at + len > chunk.len() {
                if len >= LARGE_RECORD {
                    max_chunk = MAX_LARGE_CHUNK;
                }
                break;
            }
            if header.offset >= from {
                if !header.payload_matches(&chunk[at..]) {
                    let end = position + len as u64;
                    return Err(damaged(shared, topic, place, &*file, header.offset, position, Some(end)));
                }
                out.push(stored(&header, &chunk, at));
                budget.bytes = budget.bytes.saturating_sub(len as u64);
                budget.records -= 1;
                expected = header.offset + 1;
            }
            at += len;
            position += len as u64;
            if budget.records == 0 {
                topic.add_hint(Hint { base: place.base, offset: expected, position });
                return Ok(false);
            }
        }
        want = if position == before {
            needed(&chunk)
        } else {
            budget.bytes.clamp(RECORD_HEADER as u64, max_chunk)
        };
    }
    topic.add_hint(Hint { base: place.base, offset: expected, position });
    Ok(true)
}

/// Bytes for the record that a chunk begins but does not hold in full.
fn needed(chunk: &[u8]) -> u64 {
    RecordHeader::parse(chunk).map_or(RECORD_HEADER as u64, |header| header.record_len() as u64)
}

fn read_chunk(file: &dyn DiskFile, position: u64, len: u64) -> std::io::Result<Bytes> {
    let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while filled < buf.len() {
        let n = file.read_at(position + filled as u64, &mut buf[filled..])?;
        if n == 0 {
            break;
        }
        filled += n;
    }
    // A file shorter than what was confirmed reads as zeros, which no record is.
    Ok(buf.into())
}

fn stored(header: &RecordHeader, chunk: &Bytes, at: usize) -> Stored {
    let head = at + RECORD_HEADER;
    let body = head + header.head_len as usize;
    Stored {
        offset: header.offset,
        lane: header.lane,
        key_id: header.key_id,
        timestamp_ms: header.timestamp_ms,
        head: chunk.slice(head..body),
        body: chunk.slice(body..body + header.body_len as usize),
    }
}

/// Puts damaged bytes into quarantine and says where reading can go on: behind the record
/// when its header is sound (`end`), else at the next entry of the index.
fn damaged(
    shared: &Shared,
    topic: &Topic,
    place: &Place,
    file: &dyn DiskFile,
    offset: u64,
    position: u64,
    end: Option<u64>,
) -> LogError {
    let path = topic.segment_path(place.base);
    let (end, resume) = match end {
        Some(end) => (end, offset + 1),
        None => behind_damage(shared, topic, place, offset, position),
    };
    quarantine(shared, &path, file, position, end.max(position));
    topic.add_hint(Hint { base: place.base, offset: resume, position: end });
    LogError::Corrupt(Damage {
        topic: topic.id,
        offset,
        resume: resume.max(offset + 1),
        file: path,
        position,
    })
}

/// Position and offset from which reading can go on where no header is: the next entry of
/// the index, else the end of the segment.
pub(crate) fn behind_damage(
    shared: &Shared,
    topic: &Topic,
    place: &Place,
    offset: u64,
    position: u64,
) -> (u64, u64) {
    let entry = complete_index(shared, topic, place.base)
        .ok()
        .and_then(|index| index.entry_after(position))
        .filter(|entry| entry.offset > offset);
    match entry {
        Some(entry) => (entry.position, entry.offset),
        None => (place.len, place.next_base.unwrap_or_else(|| topic.segments.read().next)),
    }
}

/// The first offset whose record is at or after a time; the end when there is none.
pub(crate) fn offset_at(shared: &Shared, topic: TopicId, timestamp_ms: i64) -> Result<u64, LogError> {
    let topic = shared.topic(topic)?;
    let bases: Vec<u64> = topic.segments.read().list.iter().map(|s| s.base).collect();
    for base in bases {
        let index = complete_index(shared, &topic, base)?;
        if index.max_ms < timestamp_ms {
            continue;
        }
        let Some(len) = topic.segments.read().list.iter().find(|s| s.base == base).map(|s| s.len) else {
            continue;
        };
        let file = open(shared, &topic, base)?;
        let mut window = Window::new(&*file, len);
        let mut at = index.position_of_time(timestamp_ms);
        let mut expected = base;
        while at < len {
            let bytes = window.get(at, RECORD_HEADER).map_err(io_error("read a segment"))?;
            // Damage: what lies behind it may be of the time, so the answer is where it begins.
            let Some(header) = RecordHeader::parse(bytes) else { return Ok(expected) };
            expected = header.offset + 1;
            if header.timestamp_ms >= timestamp_ms {
                return Ok(header.offset);
            }
            at += header.record_len() as u64;
        }
    }
    Ok(topic.segments.read().next)
}
