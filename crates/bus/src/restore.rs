//! What a start does beyond the log's own recovery: the idempotency window made whole.

use levada_log::Stored;

use crate::bus::{Inner, TopicState, WINDOW_DIR};
use crate::config::BusError;
use crate::idempotency::{Entry, KeyHash, fingerprint};
use crate::key;

impl Inner {
    /// Loads the saved window, then reads the records published after it was saved.
    pub fn restore_window(&self) -> Result<u64, BusError> {
        let now_ms = self.clock.now_ms();
        let covered = self
            .window
            .load(&*self.disk, WINDOW_DIR, now_ms)
            .map_err(|e| BusError::Store(format!("cannot load the idempotency window: {e}")))?;
        let window_ms = i64::try_from(self.config.idempotency_window.as_millis()).unwrap_or(i64::MAX);
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        let mut scanned = 0;
        for topic in topics {
            let next = self.log.bounds(topic.id).next;
            let mut at = match covered.get(&topic.id.0) {
                Some(&saved) => saved,
                None => self.window_start(&topic, next, window_ms)?,
            };
            while at < next {
                let records = self.log.read(topic.id, at, 4096, 4 << 20)?;
                let Some(last) = records.last() else { break };
                at = last.offset + 1;
                scanned += records.len() as u64;
                for record in records {
                    self.restore_record(&topic, record, now_ms)?;
                }
            }
        }
        Ok(scanned)
    }

    /// Where the window of a topic began when its last record was written.
    fn window_start(&self, topic: &TopicState, next: u64, window_ms: i64) -> Result<u64, BusError> {
        let last = self.log.read(topic.id, next.saturating_sub(1), 1, 1)?;
        let newest_ms = last.first().map_or(0, |record| record.timestamp_ms);
        Ok(self.log.offset_at(topic.id, newest_ms.saturating_sub(window_ms))?)
    }

    fn restore_record(&self, topic: &TopicState, record: Stored, now_ms: i64) -> Result<(), BusError> {
        let delivered = self.deliver(&topic.name, record)?;
        if let Some(text) = key::carried(&delivered.message.attributes) {
            let entry = Entry {
                key: KeyHash::new(&topic.name, &delivered.message.tenant, &text),
                fingerprint: fingerprint(&delivered.message.body),
                topic: topic.id.0,
                lane: delivered.lane,
                offset: delivered.offset,
                at_ms: delivered.published_at_ms,
            };
            self.window.restore(entry, now_ms);
        }
        Ok(())
    }
}
