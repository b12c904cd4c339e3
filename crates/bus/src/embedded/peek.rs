//! Looking at the newest messages of a topic; nothing is leased and nothing moves.

use levada_log::{LogError, Stored};

use crate::bus::TopicState;
use crate::embedded::Embedded;
use crate::port::{Peeked, PortError};

const MAX_PEEK: usize = 1_000;
/// Records of one read; the newest come first, so the way is back in small steps.
const STEP_RECORDS: u64 = 64;
const STEP_BYTES: usize = 4 << 20;
/// An answer stops growing here.
const ANSWER_BYTES: usize = 8 << 20;

impl Embedded {
    /// Blocks on the disk.
    pub fn peek(
        &self,
        topic: &TopicState,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Peeked>, PortError> {
        let bounds = self.bus.inner.log.bounds(topic.id);
        let limit = limit.clamp(1, MAX_PEEK);
        let mut end = before.unwrap_or(bounds.next).min(bounds.next);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while end > bounds.first && found.len() < limit && bytes < ANSWER_BYTES {
            let want = STEP_RECORDS.min((limit - found.len()) as u64);
            let from = end.saturating_sub(want).max(bounds.first);
            for record in self.records_between(topic, from, end)?.into_iter().rev() {
                bytes += record.head.len() + record.body.len();
                let delivered = self.bus.inner.deliver(&topic.name, record);
                let Ok(delivered) = delivered.inspect_err(
                    |error| tracing::error!(%error, "a message cannot be shown and is passed over"),
                ) else {
                    continue;
                };
                found.push(Peeked {
                    message_id: delivered.offset,
                    published_at_ms: delivered.published_at_ms,
                    message: delivered.message,
                });
            }
            end = from;
        }
        Ok(found)
    }

    /// The records of a range that are there and not damaged, in order.
    fn records_between(&self, topic: &TopicState, from: u64, end: u64) -> Result<Vec<Stored>, PortError> {
        let (mut at, mut found) = (from, Vec::new());
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let records = match self.bus.inner.log.read(topic.id, at, want, STEP_BYTES) {
                Ok(records) => records,
                Err(LogError::Corrupt(damage)) => {
                    at = damage.resume.max(at + 1);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(last) = records.last().map(|record| record.offset) else { break };
            found.extend(records.into_iter().filter(|record| record.offset < end));
            at = last + 1;
        }
        Ok(found)
    }
}
