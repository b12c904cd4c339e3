//! Looking at the newest messages of a topic; nothing is leased and nothing moves.

use levada_log::{LogError, Stored};

use crate::bus::TopicState;
use crate::embedded::Embedded;
use crate::port::{Peeked, PortError};

const MAX_PEEK: usize = 1_000;
/// Records of one step at most; the newest come first, so the way is back in small steps. They
/// begin with one record and grow where records are small.
const STEP_RECORDS: u64 = 64;
const GROWTH: u64 = 4;
/// A step holds no more than this and what one read adds, unless a single record is larger.
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
        let (mut found, mut bytes, mut step) = (Vec::new(), 0, 1);
        while end > bounds.first && found.len() < limit && bytes < ANSWER_BYTES {
            let want = step.min((limit - found.len()) as u64);
            let wanted_from = end.saturating_sub(want).max(bounds.first);
            let (from, records) = self.records_between(topic, wanted_from, end)?;
            step = match from == wanted_from {
                true => (step * GROWTH).min(STEP_RECORDS),
                false => end - from,
            };
            for record in records.into_iter().rev() {
                if bytes >= ANSWER_BYTES {
                    break;
                }
                let len = size_of(&record);
                let delivered = self.bus.inner.deliver(&topic.name, record);
                let Ok(delivered) = delivered.inspect_err(
                    |error| tracing::error!(%error, "a message cannot be shown and is passed over"),
                ) else {
                    continue;
                };
                bytes += len;
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

    /// The records before `end` that are there and not damaged, in order, and from where on they
    /// are: from `from`, or later where that would be too many bytes. A log is read forwards, so
    /// how far back the bytes reach shows only on the way: the range is halved then.
    fn records_between(
        &self,
        topic: &TopicState,
        mut from: u64,
        end: u64,
    ) -> Result<(u64, Vec<Stored>), PortError> {
        let (mut at, mut found, mut bytes) = (from, Vec::new(), 0);
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
            bytes += records.iter().map(size_of).sum::<usize>();
            if bytes > STEP_BYTES && end - from > 1 {
                from = end - (end - from) / 2;
                (at, bytes) = (from, 0);
                found.clear();
                continue;
            }
            found.extend(records.into_iter().filter(|record| record.offset < end));
            at = last + 1;
        }
        Ok((from, found))
    }
}

fn size_of(record: &Stored) -> usize {
    record.head.len() + record.body.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use levada_core::{ManualClock, ProjectId};
    use levada_disk::SimDisk;
    use levada_log::LogConfig;

    use super::*;
    use crate::embedded::tests::{Port, message};
    use crate::tests::{START_MS, config, open_with};
    use crate::{BusConfig, EmbeddedBus};

    /// Messages of so many bytes, one after the other, and the topic as the log has it.
    async fn published(lens: impl Iterator<Item = usize>) -> (Port, Arc<TopicState>) {
        // Room for large messages, which the small files of other tests do not have.
        let log = LogConfig { commit_file_bytes: 32 << 20, segment_bytes: 16 << 20, ..LogConfig::default() };
        let clock = Arc::new(ManualClock::new(START_MS));
        let world = open_with(Arc::new(SimDisk::new(1)), clock, BusConfig { log, ..config() });
        let home = ProjectId::new("home").expect("a project");
        let port = Port { port: EmbeddedBus::open(world.bus.clone(), home).expect("opens"), world };
        let name = port.topic("acme/orders").await;
        for len in lens {
            port.try_publish(&name, vec![message("acme", &"x".repeat(len))]).await.expect("published");
        }
        port.visible(&name).await;
        let topic = port.port.inner.topic(&name).expect("a topic").log.clone();
        (port, topic)
    }

    #[tokio::test]
    async fn a_step_is_bounded_by_bytes_too() {
        let (port, topic) = published((0..24).map(|n| if n % 12 == 3 { 5 << 20 } else { 300 << 10 })).await;
        for end in 1..=24 {
            let (from, records) = port.port.inner.records_between(&topic, 0, end).expect("reads");
            let offsets: Vec<u64> = records.iter().map(|record| record.offset).collect();
            assert_eq!(offsets, (from..end).collect::<Vec<_>>(), "the last before {end}, without a gap");
            let bytes: usize = records.iter().map(size_of).sum();
            assert!(!records.is_empty() && (records.len() == 1 || bytes <= STEP_BYTES), "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn large_messages_make_short_answers_that_go_on_without_a_gap() {
        let (port, topic) = published((0..40).map(|n| if n < 20 { 1 << 20 } else { 10 })).await;
        let (mut before, mut seen, mut answers) = (None, Vec::new(), 0);
        loop {
            let answer = port.port.inner.peek(&topic, before, MAX_PEEK).expect("looks");
            let Some(last) = answer.last() else { break };
            let bytes: usize = answer.iter().map(|peeked| peeked.message.body.len()).sum();
            assert!(bytes <= ANSWER_BYTES + (1 << 20), "{bytes} bytes");
            before = Some(last.message_id);
            seen.extend(answer.iter().map(|peeked| peeked.message_id));
            answers += 1;
        }
        assert_eq!(seen, (0..40).rev().collect::<Vec<_>>(), "newest first, each once");
        assert_eq!(answers, 3, "20 MiB in answers of 8");
    }
}
