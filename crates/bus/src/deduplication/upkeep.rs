//! Switching deduplication on and off, making its index whole at start, and its upkeep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use levada_core::attr;
use levada_log::LogError;

use super::{Budget, Deduplicator, ValueHash};
use crate::bus::{Inner, TopicState};
use crate::codec;
use crate::config::BusError;
use crate::metrics as names;

const DIR: &str = "bus/deduplication";
/// Keys that are in no file yet; a restart reads so many records.
const SAVE_EVERY_KEYS: usize = 100_000;
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;

impl Inner {
    /// The first offset that the deduplication of a topic by an attribute knows of: of the one
    /// there is, or of one that begins now. Blocks on the disk.
    pub fn deduplication_start(&self, topic: &TopicState, attribute: &str) -> Result<u64, BusError> {
        let same = topic.deduplicator.read().as_ref().filter(|d| d.attribute == attribute).map(|d| d.since);
        same.map_or_else(|| self.durable_end_of(topic), Ok)
    }

    /// Deduplicates a topic from an offset on, or with another window. Blocks on the disk.
    pub fn deduplicate(&self, topic: &TopicState, attribute: &str, window: Duration, since: u64) {
        let mut current = topic.deduplicator.write();
        if let Some(same) = current.as_ref().filter(|d| d.attribute == attribute) {
            return same.set_window(window);
        }
        if let Some(Err(error)) = current.take().map(|other| other.remove(&*self.disk)) {
            tracing::warn!(%error, topic = topic.label(), "the index of another attribute stays behind");
        }
        *current = Some(Arc::new(self.deduplicator(topic, attribute, window, since)));
    }

    fn deduplicator(
        &self,
        topic: &TopicState,
        attribute: &str,
        window: Duration,
        since: u64,
    ) -> Deduplicator {
        let dir = format!("{DIR}/{}", topic.id);
        Deduplicator::new(attribute, window, since, dir, self.deduplication.clone())
    }

    /// Ends the deduplication of a topic and removes its files. Blocks on the disk.
    pub fn stop_deduplication(&self, topic: &TopicState) {
        let ended = topic.deduplicator.write().take();
        // What stays is of no use to anybody, and no harm: a hit is checked against the log.
        if let Some(Err(error)) = ended.map(|deduplicator| deduplicator.remove(&*self.disk)) {
            tracing::warn!(%error, topic = topic.label(), "the index of deduplication stays behind");
        }
    }

    /// Takes up the deduplication of a topic as it was before a restart: what was saved, and
    /// what the log has beyond. Blocks on the disk.
    pub fn restore_deduplication(
        &self,
        topic: &TopicState,
        attribute: &str,
        window: Duration,
        since: u64,
    ) -> Result<(), BusError> {
        let deduplicator = self.deduplicator(topic, attribute, window, since);
        let (floor, end) = (self.window_floor(topic, &deduplicator)?, self.log.bounds(topic.id).next);
        let mut at = deduplicator.load(&*self.disk, floor, end).map_err(|e| failed("load", &e))?;
        while at < end {
            let records = match self.log.read(topic.id, at, READ_RECORDS, READ_BYTES) {
                Ok(records) => records,
                Err(LogError::Corrupt(damage)) => {
                    at = damage.resume.max(at + 1);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(last) = records.last() else { break };
            at = last.offset + 1;
            for record in records {
                let Ok((_, attributes)) = codec::decode(&record.head) else { continue };
                // A dead letter came here another way.
                if attributes.get(attr::DEAD_CODE).is_some() {
                    continue;
                }
                let tenant = self.log.lane_name(record.lane);
                if let (Some(text), Some(tenant)) = (attributes.get(attribute), tenant) {
                    deduplicator.restore(ValueHash::new(&tenant, text), record.offset);
                }
            }
        }
        *topic.deduplicator.write() = Some(Arc::new(deduplicator));
        Ok(())
    }

    /// The first offset inside the window.
    fn window_floor(&self, topic: &TopicState, deduplicator: &Deduplicator) -> Result<u64, BusError> {
        let oldest_ms = self.clock.now_ms().saturating_sub(deduplicator.window_ms());
        Ok(self.log.offset_at(topic.id, oldest_ms)?.max(deduplicator.since))
    }

    /// Forgets what is outside the windows, and saves what is due; at a close all of it.
    /// Blocks on the disk.
    pub fn keep_deduplication(&self, closing: bool) -> Result<(), BusError> {
        let topics: Vec<Arc<TopicState>> =
            self.topics.read().values().filter(|t| t.deduplicator.read().is_some()).cloned().collect();
        let mut first_error = Ok(());
        for topic in topics {
            let Some(deduplicator) = topic.deduplicator.read().clone() else { continue };
            if let Err(error) = self.keep_one(&topic, &deduplicator, closing) {
                first_error = first_error.and(Err(error));
            }
        }
        ::metrics::gauge!(names::DEDUPLICATION_KEYS).set(self.deduplication.used() as f64);
        first_error
    }

    fn keep_one(&self, topic: &TopicState, own: &Deduplicator, closing: bool) -> Result<(), BusError> {
        let floor = self.window_floor(topic, own)?;
        let early = own.forget(floor, self.log.bounds(topic.id).next);
        if early > 0 {
            ::metrics::counter!(names::DEDUPLICATION_FORGOTTEN, "topic" => topic.label())
                .increment(early as u64);
            tracing::warn!(
                topic = topic.label(),
                forgotten = early,
                maximum = self.config.deduplication_keys,
                "deduplication has forgotten messages before their window ended: there are too many; \
                 make the window shorter"
            );
        }
        if own.unsaved() < SAVE_EVERY_KEYS && !(closing && own.unsaved() > 0) {
            return Ok(());
        }
        // No publish is between the log and the index at this moment.
        let covered = {
            let _alone = self.publishing.blocking_write();
            self.log.bounds(topic.id).next
        };
        own.save(&*self.disk, covered, floor).map_err(|e| failed("save", &e))
    }
}

fn failed(what: &str, error: &std::io::Error) -> BusError {
    BusError::Store(format!("cannot {what} the index of deduplication: {error}"))
}

impl TopicState {
    /// How long its messages are needed for deduplication.
    pub fn deduplication_window(&self) -> Duration {
        let deduplicator = self.deduplicator.read();
        let window_ms = deduplicator.as_ref().map_or(0, |d| d.window_ms());
        Duration::from_millis(u64::try_from(window_ms).unwrap_or(0))
    }
}

impl Budget {
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
