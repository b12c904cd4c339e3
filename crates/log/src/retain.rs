//! Retention: whole segments go, the oldest first, once they are too old or too many.

use std::sync::Arc;

use crate::demux::Demux;
use crate::error::LogError;
use crate::format::SEGMENT_HEADER;
use crate::scan::complete_index;
use crate::topic::Topic;

/// What a topic may keep; `None` means without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose newest record is older than this go.
    pub max_age_ms: Option<i64>,
    /// The oldest segments go while the topic has more bytes than this.
    pub max_bytes: Option<u64>,
    /// Segments wholly below this offset go: nobody needs them.
    pub needed_from: Option<u64>,
    /// Segments with this offset or later ones stay, whatever else is said.
    pub keep_from: Option<u64>,
}

/// Removes what the retention does not allow, and answers how many records went. Only
/// segments before the one that the last checkpoint names are removed; a full or old
/// segment at the end is closed, so that it can go after the next checkpoint.
pub(crate) fn retain(demux: &mut Demux, topic: &Arc<Topic>, retention: Retention) -> Result<u64, LogError> {
    let shared = demux.shared.clone();
    let oldest_ms = retention.max_age_ms.map(|age| shared.clock.now_ms().saturating_sub(age));
    let is_too_old = |base: u64| -> Result<bool, LogError> {
        let Some(oldest_ms) = oldest_ms else { return Ok(false) };
        Ok(complete_index(&shared, topic, base)?.max_ms < oldest_ms)
    };
    let Some((base, len, next)) = active(topic) else { return Ok(0) };
    if len > SEGMENT_HEADER as u64 && is_too_old(base)? {
        demux.seal(topic, base)?;
        demux.create_segment(topic, next)?;
    }
    let durable_base = shared.marks.lock().get(&topic.id).map_or(0, |mark| mark.base);
    let mut removed = 0;
    loop {
        let bounds = topic.bounds();
        let (first, second) = {
            let segments = topic.segments.read();
            match (segments.list.front(), segments.list.get(1)) {
                (Some(first), Some(second)) if first.base < durable_base => (first.base, second.base),
                _ => return Ok(removed),
            }
        };
        let too_many = retention.max_bytes.is_some_and(|max| bounds.bytes > max);
        if retention.keep_from.is_some_and(|offset| second > offset) {
            return Ok(removed);
        }
        let unneeded = retention.needed_from.is_some_and(|offset| second <= offset);
        if !too_many && !unneeded && !is_too_old(first)? {
            return Ok(removed);
        }
        // Out of sight first: a reader that holds the file can still finish.
        topic.segments.write().list.pop_front();
        shared.files.forget((topic.id.0, first));
        for path in [topic.segment_path(first), topic.index_path(first)] {
            match shared.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(crate::error::io_error(format!("remove {path}"))(error));
                }
                _ => {}
            }
        }
        removed += second - first;
    }
}

fn active(topic: &Topic) -> Option<(u64, u64, u64)> {
    let segments = topic.segments.read();
    segments.list.back().map(|s| (s.base, s.len, segments.next))
}
