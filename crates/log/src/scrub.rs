//! The scrubber: reads full segments again, a few bytes a call, so that damage is found
//! while a backup or another copy still has the records, and not when somebody needs them.
//!
//! A round goes through all topics by number and their segments by offset. Where it is, is
//! kept in memory only: after a restart a round begins anew. What it finds goes into
//! quarantine, as what a reader finds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use levada_disk::{DiskFile, OpenMode};

use crate::TopicId;
use crate::format::SEGMENT_HEADER;
use crate::quarantine::quarantine;
use crate::read::{Place, behind_damage};
use crate::shared::Shared;
use crate::topic::Topic;
use crate::verify::{Step, Walk};

/// Opening a segment counts as reading so much, so that many small ones cost no more.
const OPEN_COSTS_BYTES: u64 = 64 << 10;

/// What one call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes of records that were checked.
    pub bytes: u64,
    /// Damaged ranges that were found, also those already in quarantine.
    pub damaged: u64,
    /// Every full segment has been checked since the round began.
    pub ended_round: bool,
}

/// Where the scrubber is.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    /// Time on the monotonic clock when the latest round began.
    began: Option<Duration>,
    /// `None` between rounds.
    at: Option<At>,
}

#[derive(Debug, Clone, Copy, Default)]
struct At {
    topic: u32,
    base: u64,
    /// Where the next record begins, and its offset at least.
    position: u64,
    offset: u64,
}

/// Checks about `budget_bytes` of full segments, at least one record where one is due.
pub(crate) fn scrub(shared: &Shared, budget_bytes: u64) -> Scrubbed {
    let mut done = Scrubbed::default();
    // Two callers at once would only do the same.
    let Some(mut scrubber) = shared.scrubber.try_lock() else { return done };
    if budget_bytes == 0 || shared.closing.load(Ordering::Acquire) {
        return done;
    }
    let now = shared.clock.monotonic();
    let every = Duration::from_millis(shared.config.scrub_every_ms);
    let mut at = match scrubber.at {
        Some(at) => at,
        None if scrubber.began.is_some_and(|began| now.saturating_sub(began) < every) => return done,
        None => {
            scrubber.began = Some(now);
            At::default()
        }
    };
    let mut left = budget_bytes;
    while left > 0 {
        let Some((topic, place)) = next(shared, &mut at) else {
            done.ended_round = true;
            break;
        };
        let before = done.bytes;
        segment(shared, &topic, &place, &mut at, left, &mut done);
        left = left.saturating_sub(OPEN_COSTS_BYTES + done.bytes - before);
    }
    scrubber.at = (!done.ended_round).then_some(at);
    shared.counters.scrubbed(done.bytes, done.ended_round);
    done
}

/// The first full segment at or behind a place, which moves there. `None` behind the last.
fn next(shared: &Shared, at: &mut At) -> Option<(std::sync::Arc<Topic>, Place)> {
    loop {
        let topic = shared.topic(TopicId(at.topic)).ok()?;
        let segments = topic.segments.read();
        let i = segments.list.partition_point(|s| s.base < at.base);
        // The last one is still written to.
        if i + 1 < segments.list.len() {
            let segment = &segments.list[i];
            let header = SEGMENT_HEADER as u64;
            if segment.base != at.base || at.position < header {
                *at = At { base: segment.base, position: header, offset: segment.base, ..*at };
            }
            let next_base = segments.list.get(i + 1).map(|s| s.base);
            let place = Place { base: segment.base, len: segment.len, position: at.position, next_base };
            drop(segments);
            return Some((topic, place));
        }
        *at = At { topic: at.topic + 1, ..At::default() };
    }
}

/// Checks records of one segment from a place on, which moves behind what was checked.
fn segment(shared: &Shared, topic: &Topic, place: &Place, at: &mut At, budget: u64, done: &mut Scrubbed) {
    let path = topic.segment_path(place.base);
    let behind = At { base: place.base + 1, position: 0, offset: 0, ..*at };
    // A handle of its own: a round must not push the readers' files out.
    let file = match shared.disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) => {
            // Retention may just have removed it; a reader tells if it is missed.
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::error!(file = path, %error, "a segment cannot be opened to check it");
                done.damaged += 1;
            }
            *at = behind;
            return;
        }
    };
    let mut walk = Walk::new(&*file, at.position, place.len);
    let start = at.position;
    while walk.position() - start < budget {
        let position = walk.position();
        let damage = match walk.step() {
            Ok(Step::Record { header, payload_is_sound, .. }) if header.topic == topic.id => {
                at.offset = header.offset + 1;
                if payload_is_sound { None } else { Some((walk.position(), at.offset)) }
            }
            Ok(Step::End) => break,
            // The file was cut: all behind is one finding.
            Ok(Step::Short { .. }) => Some((place.len, at.offset)),
            Ok(_) => Some(behind_damage(shared, topic, place, at.offset, position)),
            Err(error) => {
                tracing::error!(file = path, position, %error, "a segment cannot be read");
                Some(behind_damage(shared, topic, place, at.offset, position))
            }
        };
        if let Some((end, offset)) = damage {
            done.damaged += 1;
            set_aside(shared, &path, &*file, position, end);
            walk.seek(end);
            at.offset = offset;
        }
    }
    at.position = walk.position();
    done.bytes += walk.position() - start;
    if walk.position() >= place.len {
        *at = behind;
    }
}

fn set_aside(shared: &Shared, path: &str, file: &dyn DiskFile, from: u64, to: u64) {
    // Once the list is full every round would copy and count the same places anew.
    if shared.quarantine.takes(path, from) {
        quarantine(shared, path, file, from, to);
    }
}
