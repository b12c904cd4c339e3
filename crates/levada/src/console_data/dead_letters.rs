//! Dead letters: a page of them, one of them, and sending them again.

use std::collections::BTreeSet;

use bytes::Bytes;
use levada_bus::{Bus, BusError, DeadEntry, DeadFilter, MAX_LISTED_BYTES};
use levada_console::{DeadLetter, DeadLetterFilter, DeadLetterPage, ReasonCount, Resent};
use levada_core::{Principal, Problem, TenantSet, TopicName, attr};

use super::scans::newest_letters;
use super::{PlatformData, bus_problem};

/// Dead letters of a topic whose pipelines a filter offers.
const RECENT: usize = 10_000;
/// Values that a filter offers, of each kind.
const MAX_VALUES: usize = 200;

impl PlatformData {
    pub(super) async fn dead_letter_page(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        let (tenants, filter) = (principal.tenants.clone(), filter.clone());
        self.of_bus(principal, move |bus| page(bus, &tenants, &filter)).await
    }

    pub(super) async fn one_dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem> {
        let filter = DeadFilter {
            topic: Some(topic.clone()),
            before: Some(offset.saturating_add(1)),
            limit: 1,
            ..DeadFilter::default()
        };
        let tenants = principal.tenants.clone();
        let found = self.of_bus(principal, move |bus| bus.dead_letters(&tenants, &filter)).await?;
        Ok(found.into_iter().find(|e| e.offset == offset).map(letter))
    }

    pub(super) async fn send_again(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: &[u64],
    ) -> Result<Resent, Problem> {
        if !principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "sending again takes the role engineer"));
        }
        let outcome = self.bus.resend(principal, topic, Some(offsets.to_vec())).await.map_err(bus_problem)?;
        match outcome.refused.first() {
            Some((_, problem)) if outcome.sent == 0 => Err(problem.clone()),
            _ => Ok(Resent {
                sent: outcome.sent as u64,
                missing: (outcome.refused.len() + outcome.already) as u64,
            }),
        }
    }
}

fn page(bus: &Bus, tenants: &TenantSet, filter: &DeadLetterFilter) -> Result<DeadLetterPage, BusError> {
    let wanted = DeadFilter {
        topic: filter.topic.clone(),
        pipeline: filter.pipeline.clone(),
        code: filter.code.clone(),
        tenant: None,
        before: filter.after.as_deref().and_then(|a| a.parse().ok()),
        limit: filter.limit + 1,
    };
    let mut entries = bus.dead_letters(tenants, &wanted)?;
    // A list ends at its bytes, too.
    let is_full = entries.iter().map(bytes_of).sum::<usize>() >= MAX_LISTED_BYTES;
    let more = is_full || entries.len() > filter.limit;
    entries.truncate(filter.limit);
    // Pages go by offset, which only means something within one topic.
    let next = entries.last().filter(|_| more && filter.topic.is_some()).map(|e| e.offset.to_string());
    // A list shows no bodies: they go before more is read.
    let letters =
        entries.into_iter().map(|entry| DeadLetter { body: Bytes::new(), ..letter(entry) }).collect();
    let (mut topics, mut pipelines) = (BTreeSet::new(), BTreeSet::new());
    newest_letters(bus, tenants, RECENT, |topic, message| {
        let pipeline = message.attributes.get(attr::DEAD_PIPELINE).unwrap_or_default();
        if !pipelines.contains(pipeline) && pipelines.len() < MAX_VALUES {
            pipelines.insert(pipeline.to_owned());
        }
        if !topics.contains(topic.as_str()) && topics.len() < MAX_VALUES {
            topics.insert(topic.to_string());
        }
        true
    })?;
    let counts = bus.dead_letter_counts(tenants)?;
    Ok(DeadLetterPage {
        letters,
        is_full: is_full && next.is_none(),
        next,
        topics: topics.into_iter().collect(),
        pipelines: pipelines.into_iter().collect(),
        reasons: most_frequent(counts.into_iter().map(|(code, count)| ReasonCount { code, count }).collect()),
    })
}

fn bytes_of(entry: &DeadEntry) -> usize {
    let attributes = entry.message.attributes.iter().map(|(name, value)| name.len() + value.len());
    entry.message.body.len() + attributes.sum::<usize>()
}

/// Codes that are told, in their order. Consumers bring codes of their own, any number of them.
pub(super) fn most_frequent(mut reasons: Vec<ReasonCount>) -> Vec<ReasonCount> {
    if reasons.len() > MAX_VALUES {
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        reasons.truncate(MAX_VALUES);
        reasons.sort_by(|a, b| a.code.cmp(&b.code));
    }
    reasons
}

fn letter(entry: DeadEntry) -> DeadLetter {
    let optional = |name: &str| Some(entry.attribute(name).to_owned()).filter(|v| !v.is_empty());
    let own = entry.message.attributes.iter().filter(|(k, _)| !k.starts_with("levada."));
    DeadLetter {
        tenant: entry.message.tenant.to_string(),
        code: entry.attribute(attr::DEAD_CODE).to_owned(),
        reason: entry.attribute(attr::DEAD_REASON).to_owned(),
        stage: entry.attribute(attr::DEAD_STAGE).to_owned(),
        attempts: entry.attribute(attr::DEAD_ATTEMPTS).parse().unwrap_or(1),
        pipeline: optional(attr::DEAD_PIPELINE),
        position: optional(attr::DEAD_POSITION),
        event_id: optional(attr::EVENT_ID),
        event_type: optional(attr::EVENT_TYPE),
        at_ms: entry.published_at_ms,
        resent_ms: entry.resent.then_some(entry.published_at_ms),
        attributes: own.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body: entry.message.body.clone(),
        offset: entry.offset,
        topic: entry.topic,
    }
}
