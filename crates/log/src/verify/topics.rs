//! A topic's folder: which of its segments count, and whether they follow one another.

use std::collections::BTreeMap;

use levada_disk::Entry;

use super::segment::SegmentFile;
use super::{Check, Fault, Finding};
use crate::TopicId;
use crate::recover::parse_name;

impl Check<'_> {
    /// Checks the segments and indexes of a topic.
    pub(super) fn topic(&mut self, id: TopicId, entries: &[Entry]) {
        let dir = format!("{}/topics/{id}", self.dir);
        self.state(id);
        if self.names.as_ref().is_some_and(|names| id.0 as usize >= names.len()) {
            let fault = Fault::TopicUnnamed;
            let file = dir.clone();
            self.damage(Finding { file, position: 0, bytes: 0, topic: Some(id), offsets: None, fault });
        }
        let mark = self.start.as_ref().map(|start| start.marks.get(&id).copied());
        let mut segments = Vec::new();
        let mut indexes = BTreeMap::new();
        for entry in entries {
            let path = format!("{dir}/{}", entry.name);
            match parse_name(&entry.name) {
                // Behind the checkpoint's mark: a start removes it and replays the commit log.
                Some((base, _)) if mark.is_some_and(|m| m.is_none_or(|m| base > m.base)) => {
                    self.meter.advance(entry.len);
                }
                Some((base, true)) => segments.push((base, entry.len, path)),
                Some((base, false)) => drop(indexes.insert(base, (entry.len, path))),
                None => self.meter.advance(entry.len),
            }
        }
        segments.sort_unstable();
        let mark = mark.flatten();
        let mut expected = None;
        for (i, (base, len, path)) in segments.iter().enumerate() {
            let (base, len) = (*base, *len);
            let is_active = mark.is_some_and(|m| m.base == base);
            if let Some(expected) = expected {
                self.between(id, &dir, expected, base, &indexes);
            }
            let index = indexes.remove(&base);
            let segment = SegmentFile {
                topic: id,
                base,
                path: path.clone(),
                len,
                confirmed: if is_active { mark.map_or(len, |m| m.len) } else { len },
                end: segments.get(i + 1).map(|s| s.0).or(mark.map(|m| m.next)),
                // Without a checkpoint nobody knows whether the last one is full.
                is_sealed: !is_active && (mark.is_some() || i + 1 < segments.len()),
                index,
            };
            expected = Some(self.segment(&segment));
            let topic = self.state(id);
            topic.segments += 1;
            topic.bytes += segment.confirmed;
        }
        let first = segments.first().map(|s| s.0);
        if let Some(mark) = mark {
            let from = expected.unwrap_or(mark.base);
            if segments.last().is_some_and(|s| s.0 == mark.base) {
                if from < mark.next {
                    let path = format!("{dir}/{:020}.seg", mark.base);
                    self.gap(id, &path, mark.len, from..mark.next);
                }
            } else {
                self.between(id, &dir, from, mark.base, &indexes);
                self.segment_missing(id, &dir, mark.base, mark.base..mark.next);
            }
            expected = Some(mark.next);
        }
        indexes.values().for_each(|(len, _)| self.meter.advance(*len));
        let topic = self.state(id);
        topic.next = expected.unwrap_or(0);
        topic.first = first.unwrap_or(topic.next);
    }

    /// Tells what is missing between the last record of a segment and the next segment. An
    /// index without its segment says that the segment was there.
    fn between(
        &mut self,
        id: TopicId,
        dir: &str,
        expected: u64,
        base: u64,
        indexes: &BTreeMap<u64, (u64, String)>,
    ) {
        if base < expected {
            let finding = Finding {
                file: format!("{dir}/{base:020}.seg"),
                position: 0,
                bytes: 0,
                topic: Some(id),
                offsets: Some(base..expected),
                fault: Fault::OffsetsRepeated,
            };
            return self.damage(finding);
        }
        let mut from = expected;
        let lone: Vec<u64> = indexes.range(expected..base).map(|(base, _)| *base).collect();
        for (i, missing) in lone.iter().enumerate() {
            let end = lone.get(i + 1).copied().unwrap_or(base);
            if from < *missing {
                self.gap(id, &format!("{dir}/{missing:020}.seg"), 0, from..*missing);
            }
            self.segment_missing(id, dir, *missing, *missing..end);
            from = end;
        }
        if from < base {
            self.gap(id, &format!("{dir}/{base:020}.seg"), 0, from..base);
        }
    }

    fn segment_missing(&mut self, id: TopicId, dir: &str, base: u64, offsets: std::ops::Range<u64>) {
        self.damage(Finding {
            file: format!("{dir}/{base:020}.seg"),
            position: 0,
            bytes: 0,
            topic: Some(id),
            offsets: Some(offsets),
            fault: Fault::SegmentMissing,
        });
    }
}
