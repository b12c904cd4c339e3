//! Dead letters: what could not be processed, with the reason and the original bytes.
//!
//! A dead letter is a message in the topic `<topic>-dlq`, in its tenant's lane; reason,
//! stage, attempts and origin are attributes, the body is the original body. It can be
//! sent again once; if it fails again, that is a new dead letter.

mod list;

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{
    Attributes, Message, Principal, Problem, TenantContext, TenantId, TenantSet, TopicName, attr,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, Delivered, Publish, Published};
use crate::config::{BusError, TopicConfig};
use crate::key;
use crate::metrics as names;
use crate::publish::Submission;

pub use list::MAX_LISTED_BYTES;

/// Smaller bodies are copied out of what was read with them.
const COPIED_BYTES: usize = 64 << 10;
/// How many dead letters one call sends again, at most.
const RESEND_RECORDS: usize = 10_000;
const REASON_BYTES: usize = 2_000;

/// A record that failed.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub tenant: TenantId,
    /// Stable code, such as `schema-missing-field`.
    pub code: String,
    /// One sentence for a person.
    pub reason: String,
    /// The step that refused it, such as `validate` or `enrich`.
    pub stage: String,
    pub attempts: u32,
    pub pipeline: String,
    /// Offset in the topic, or `file:line`.
    pub position: String,
    pub attributes: Attributes,
    pub ordering_key: Option<Box<str>>,
    /// The original bytes.
    pub body: Bytes,
    /// One record is dead-lettered once under one key, however often it is tried.
    pub idempotency_key: String,
    /// Whether it came from a topic and can be sent there again. Rows of files cannot.
    pub resendable: bool,
}

/// Which dead letters to list. Newest first.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    /// The dead-letter topic, or the topic whose dead letters are meant.
    pub topic: Option<TopicName>,
    pub pipeline: Option<String>,
    pub code: Option<String>,
    pub tenant: Option<TenantId>,
    /// Only offsets below this; needs `topic`.
    pub before: Option<u64>,
    pub limit: usize,
}

/// A dead letter as listed.
#[derive(Debug, Clone)]
pub struct DeadEntry {
    pub topic: TopicName,
    pub offset: u64,
    pub published_at_ms: i64,
    pub message: Message,
    pub resent: bool,
}

impl DeadEntry {
    pub fn attribute(&self, name: &str) -> &str {
        self.message.attributes.get(name).unwrap_or("")
    }
}

/// What sending again did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ResendOutcome {
    pub sent: usize,
    /// Sent again earlier.
    pub already: usize,
    /// Those that were not sent, with why.
    pub refused: Vec<(u64, Problem)>,
    /// More remain: call again.
    pub more: bool,
}

/// Which offsets of a dead-letter topic were sent again, as ascending, disjoint ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resent {
    ranges: Vec<(u64, u64)>,
}

impl Resent {
    pub fn contains(&self, offset: u64) -> bool {
        let after = self.ranges.partition_point(|r| r.0 <= offset);
        after > 0 && offset < self.ranges[after - 1].1
    }

    pub fn insert(&mut self, offset: u64) {
        if self.contains(offset) {
            return;
        }
        let at = self.ranges.partition_point(|r| r.0 <= offset);
        let joins_before = at > 0 && self.ranges[at - 1].1 == offset;
        let joins_after = at < self.ranges.len() && self.ranges[at].0 == offset + 1;
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = offset + 1,
            (false, true) => self.ranges[at].0 = offset,
            (false, false) => self.ranges.insert(at, (offset, offset + 1)),
        }
    }

    /// Forgets what retention removed.
    pub fn forget_below(&mut self, first: u64) {
        self.ranges.retain(|r| r.1 > first);
    }
}

impl Bus {
    /// Writes dead letters of a topic; answers once they are on disk. A key that was written
    /// before is not written again.
    ///
    /// # Errors
    /// [`BusError`] when the log refuses; nothing is lost then, the caller still holds them.
    pub async fn dead_letter(&self, topic: &TopicName, letters: Vec<DeadLetter>) -> Result<u64, BusError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let dlq = topic.dead_letter().map_err(|e| BusError::Store(e.to_string()))?;
        if !self.has_topic(&dlq) {
            let (bus, name) = (self.clone(), dlq.clone());
            tokio::task::spawn_blocking(move || bus.ensure_topic(&name, TopicConfig::default()))
                .await
                .map_err(|_| BusError::Closed)??;
        }
        let codes: Vec<String> = letters.iter().map(|l| l.code.clone()).collect();
        let items = letters.into_iter().map(|letter| to_publish(topic, letter)).collect();
        let results = self.publish(&dlq, items).await?;
        let mut written = 0;
        for (result, code) in results.into_iter().zip(codes) {
            let published = result.map_err(|problem| BusError::Store(problem.to_string()))?;
            if !published.duplicate {
                written += 1;
                ::metrics::counter!(names::DEAD_LETTERS, "topic" => topic.to_string(), "code" => code)
                    .increment(1);
            }
        }
        Ok(written)
    }

    /// Sends dead letters again to the topic they came from: the offsets given, or all that
    /// the principal's tenants hold and that were not sent yet (at most 10,000 a call).
    ///
    /// # Errors
    /// [`BusError::UnknownTopic`], [`BusError::Log`]; what was sent before the error stays sent.
    pub async fn resend(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: Option<Vec<u64>>,
    ) -> Result<ResendOutcome, BusError> {
        let mut outcome = ResendOutcome::default();
        let offsets = self.resend_offsets(principal, topic, offsets, &mut outcome)?;
        let resent = self.resent(topic)?;
        for offset in offsets {
            let Some(entry) = self.letter(principal, topic, offset)? else {
                outcome.refused.push((offset, letter_unknown(topic, offset)));
                continue;
            };
            if entry.resent {
                outcome.already += 1;
                continue;
            }
            if let Err(problem) = self.take_token(&entry.message.tenant) {
                outcome.refused.push((entry.offset, problem));
                outcome.more = true;
                break;
            }
            match self.resend_one(principal, &entry).await {
                Ok(_) => {
                    outcome.sent += 1;
                    resent.lock().insert(entry.offset);
                }
                Err(problem) => outcome.refused.push((entry.offset, problem)),
            }
        }
        if outcome.sent > 0 {
            let mut marks = resent.lock();
            marks.forget_below(self.bounds(topic)?.first);
            self.inner.store.put(&resent_document(topic), &*marks)?;
            ::metrics::counter!(names::RESENT, "topic" => topic.to_string()).increment(outcome.sent as u64);
        }
        Ok(outcome)
    }

    /// The offsets that one call sends again, the oldest first.
    fn resend_offsets(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: Option<Vec<u64>>,
        outcome: &mut ResendOutcome,
    ) -> Result<Vec<u64>, BusError> {
        let mut offsets = match offsets {
            Some(offsets) => offsets,
            None => self.unsent(topic, &principal.tenants)?,
        };
        offsets.sort_unstable();
        offsets.dedup();
        outcome.more = offsets.len() > RESEND_RECORDS;
        offsets.truncate(RESEND_RECORDS);
        Ok(offsets)
    }

    /// Dead letters that were not sent again.
    fn unsent(&self, topic: &TopicName, tenants: &TenantSet) -> Result<Vec<u64>, BusError> {
        let (resent, mut offsets) = (self.resent(topic)?, Vec::new());
        self.scan_letters(topic, tenants, &DeadFilter::default(), |delivered| {
            offsets.extend(Some(delivered.offset).filter(|offset| !resent.lock().contains(*offset)));
            true
        })?;
        Ok(offsets)
    }

    /// One dead letter. Another tenant's and one that does not exist are the same: none.
    fn letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadEntry>, BusError> {
        let read = self.read(topic, offset, 1, 1)?.into_iter();
        let resent = self.resent(topic)?;
        let is_own = |d: &Delivered| d.offset == offset && principal.tenants.contains(&d.message.tenant);
        Ok(read.filter(is_own).map(|delivered| entry(topic, delivered, &resent.lock())).next())
    }

    async fn resend_one(&self, principal: &Principal, entry: &DeadEntry) -> Result<Published, Problem> {
        let context = principal.enter(&entry.message.tenant)?;
        let origin = entry.attribute(attr::DEAD_TOPIC);
        let Ok(origin) = TopicName::new(origin) else {
            return Err(Problem::new(
                409,
                "dead-letter-from-file",
                format!("the record came from {}, not from a topic", entry.attribute(attr::DEAD_POSITION)),
            )
            .hint("correct the file and land it again under a new name"));
        };
        let mut message = entry.message.clone();
        message.attributes =
            message.attributes.iter().filter(|(k, _)| !k.starts_with("levada.dead.")).collect();
        let from = format!("{}/{}", entry.topic, entry.offset);
        message.attributes.set(attr::RESENT_FROM, &from);
        let publish = Publish { context, message, idempotency_key: Some(key::resend(&from)) };
        // A topic that takes each value of an attribute once has met this one: the copy that failed.
        let again = Submission { publish, deduplicate: false };
        let mut results = self.submit(&origin, vec![again]).await.map_err(|e| {
            Problem::new(503, "publish-failed", e.to_string()).hint("try again when the log accepts writes")
        })?;
        results.pop().unwrap_or_else(|| Err(Problem::new(500, "internal", "the publish gave no result")))
    }

    fn resent(&self, topic: &TopicName) -> Result<Arc<Mutex<Resent>>, BusError> {
        let mut all = self.inner.dead.lock();
        if let Some(resent) = all.get(topic) {
            return Ok(resent.clone());
        }
        let stored: Option<Resent> = self.inner.store.get(&resent_document(topic))?;
        let resent = Arc::new(Mutex::new(stored.unwrap_or_default()));
        all.insert(topic.clone(), resent.clone());
        Ok(resent)
    }
}

fn resent_document(topic: &TopicName) -> String {
    format!("resent-{topic}")
}

fn letter_unknown(topic: &TopicName, offset: u64) -> Problem {
    Problem::new(404, "dead-letter-unknown", format!("{topic} holds no dead letter at offset {offset}"))
}

/// Bytes of a message in memory.
fn size(message: &Message) -> usize {
    let attributes = message.attributes.iter().map(|(name, value)| name.len() + value.len());
    message.body.len() + attributes.sum::<usize>()
}

fn entry(topic: &TopicName, mut delivered: Delivered, resent: &Resent) -> DeadEntry {
    if delivered.message.body.len() < COPIED_BYTES {
        let message = &mut delivered.message;
        message.body = Bytes::copy_from_slice(&message.body);
        message.attributes = message.attributes.iter().collect();
    }
    DeadEntry {
        topic: topic.clone(),
        offset: delivered.offset,
        published_at_ms: delivered.published_at_ms,
        resent: resent.contains(delivered.offset),
        message: delivered.message,
    }
}

fn to_publish(topic: &TopicName, letter: DeadLetter) -> Publish {
    let reason = &letter.reason[..letter.reason.floor_char_boundary(REASON_BYTES)];
    let attempts = letter.attempts.to_string();
    let origin = if letter.resendable { topic.as_str() } else { "" };
    let dead = [
        (attr::DEAD_CODE, letter.code.as_str()),
        (attr::DEAD_REASON, reason),
        (attr::DEAD_STAGE, &letter.stage),
        (attr::DEAD_ATTEMPTS, &attempts),
        (attr::DEAD_PIPELINE, &letter.pipeline),
        (attr::DEAD_POSITION, &letter.position),
        (attr::DEAD_TOPIC, origin),
        (attr::DEAD_KEY, &letter.idempotency_key),
    ];
    let kept = letter.attributes.iter().filter(|(k, _)| !k.starts_with("levada.dead."));
    let attributes = kept.chain(dead).collect();
    Publish {
        context: TenantContext::system(letter.tenant.clone(), "dead-letter"),
        message: Message {
            tenant: letter.tenant,
            attributes,
            ordering_key: letter.ordering_key,
            body: letter.body,
        },
        idempotency_key: Some(letter.idempotency_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resent_marks_are_a_set() {
        let mut resent = Resent::default();
        for offset in [5, 3, 4, 9, 7, 8, 3, 0] {
            resent.insert(offset);
        }
        assert_eq!(resent.ranges, [(0, 1), (3, 6), (7, 10)]);
        let inside: Vec<u64> = (0..12).filter(|o| resent.contains(*o)).collect();
        assert_eq!(inside, [0, 3, 4, 5, 7, 8, 9]);
        resent.forget_below(6);
        assert_eq!(resent.ranges, [(7, 10)]);
    }
}
