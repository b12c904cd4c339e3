//! The two files without which a log does not open: the registry of names and the checkpoint.

use std::collections::BTreeMap;

use levada_disk::read_all;

use super::{Check, Fault, Files, Finding, Start};
use crate::TopicId;
use crate::checkpoint::Checkpoint;
use crate::commit::Position;
use crate::error::LogError;
use crate::format::BLOCK;
use crate::registry;

/// What the registry says of tenants.
pub(super) struct Lanes {
    known: usize,
    /// Where bytes at its end begin that are no names; they may never have been confirmed.
    torn_from: Option<u64>,
    len: u64,
}

impl Check<'_> {
    /// Reads both files; answers what is known of the tenants' numbers.
    pub(super) fn names(&mut self, files: &Files) -> Option<Lanes> {
        let lanes = self.registry(files);
        self.checkpoint(files);
        for id in 0..self.names.as_ref().map_or(0, Vec::len) {
            self.state(TopicId(id as u32));
        }
        lanes
    }

    fn whole(&mut self, file: &str, len: u64, fault: Fault) {
        let file = format!("{}/{file}", self.dir);
        self.damage(Finding { file, position: 0, bytes: len, topic: None, offsets: None, fault });
    }

    fn registry(&mut self, files: &Files) -> Option<Lanes> {
        let Some(len) = files.registry else {
            self.whole("registry", 0, Fault::Registry("it is missing".into()));
            return None;
        };
        let read = read_all(self.disk, &format!("{}/registry", self.dir));
        self.meter.advance(len);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                self.whole("registry", len, Fault::Unreadable(error.to_string()));
                return None;
            }
        };
        match registry::inspect(&bytes) {
            Ok(found) => {
                self.names = Some(found.topics);
                let torn_from = (found.end < bytes.len()).then_some(found.end as u64);
                Some(Lanes { known: found.lanes, torn_from, len })
            }
            Err(reason) => {
                self.whole("registry", len, Fault::Registry(reason));
                None
            }
        }
    }

    fn checkpoint(&mut self, files: &Files) {
        self.meter.advance(files.checkpoint.unwrap_or(0));
        match Checkpoint::read(self.disk, self.dir) {
            Ok(Some(checkpoint)) => {
                let known = self.names.as_ref().map_or(usize::MAX, Vec::len);
                let unknown: Vec<_> = checkpoint.marks.keys().filter(|id| id.0 as usize >= known).collect();
                if let Some(first) = unknown.first() {
                    let reason =
                        format!("{} topics of the checkpoint, such as {first}, are not in it", unknown.len());
                    self.whole("registry", files.registry.unwrap_or(0), Fault::Registry(reason));
                }
                self.start = Some(Start { position: checkpoint.position, marks: checkpoint.marks });
            }
            Ok(None) => {
                let has_names = files.registry.is_some_and(|len| len > 0);
                if has_names || !files.commits.is_empty() || !files.topics.is_empty() {
                    let reason = "it is missing, but the log has been used".to_owned();
                    self.whole("checkpoint", 0, Fault::Checkpoint(reason));
                } else {
                    let position = Position { file_seq: 1, bytes: BLOCK as u64, next_group: 1 };
                    self.start = Some(Start { position, marks: BTreeMap::new() });
                }
            }
            Err(error) => {
                let fault = match error {
                    LogError::CorruptFile { reason, .. } => Fault::Checkpoint(reason),
                    other => Fault::Unreadable(other.to_string()),
                };
                self.whole("checkpoint", files.checkpoint.unwrap_or(0), fault);
            }
        }
    }

    /// Bytes at the end of the registry that are no names were never confirmed, unless
    /// records speak of tenants that only they can have named.
    pub(super) fn lanes(&mut self, lanes: Option<Lanes>) {
        let Some(Lanes { known, torn_from: Some(from), len }) = lanes else { return };
        let fault = |reason: String| Finding {
            file: format!("{}/registry", self.dir),
            position: from,
            bytes: len - from,
            topic: None,
            offsets: None,
            fault: Fault::Registry(reason),
        };
        let known_topics = self.names.as_ref().map_or(0, Vec::len);
        let topic = self.topics.keys().find(|id| id.0 as usize >= known_topics);
        let lane = self.max_lane.filter(|lane| *lane as usize >= known);
        let used = match (topic, lane) {
            (Some(topic), _) => Some(format!("topic {topic}")),
            (None, Some(lane)) => Some(format!("tenant {lane}")),
            (None, None) => None,
        };
        if let Some(used) = used {
            let finding =
                fault(format!("its last names are damaged: records use {used}, which it does not name"));
            self.damage(finding);
        } else {
            let finding = fault("its last names were never confirmed; a start cuts them".into());
            self.report.notice(finding);
        }
    }
}
