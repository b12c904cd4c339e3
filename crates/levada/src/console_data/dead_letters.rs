//! Dead letters: a page of them, one of them, and sending them again.

use levada_bus::{DeadEntry, DeadFilter};
use levada_console::{DeadLetter, DeadLetterFilter, DeadLetterPage, ReasonCount, Resent};
use levada_core::{Principal, Problem, TopicName, attr};

use super::{PlatformData, bus_problem};

impl PlatformData {
    pub(super) fn dead_letter_page(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        let wanted = DeadFilter {
            topic: filter.topic.clone(),
            pipeline: filter.pipeline.clone(),
            code: filter.code.clone(),
            tenant: None,
            before: filter.after.as_deref().and_then(|a| a.parse().ok()),
            limit: filter.limit + 1,
        };
        let mut entries = self.bus.dead_letters(&principal.tenants, &wanted).map_err(bus_problem)?;
        let more = entries.len() > filter.limit;
        entries.truncate(filter.limit);
        // Pages go by offset, which only means something within one topic.
        let next = entries.last().filter(|_| more && filter.topic.is_some()).map(|e| e.offset.to_string());
        let all = DeadFilter { limit: 10_000, ..DeadFilter::default() };
        let recent = self.bus.dead_letters(&principal.tenants, &all).map_err(bus_problem)?;
        let mut topics: Vec<String> = recent.iter().map(|e| e.topic.to_string()).collect();
        let mut pipelines: Vec<String> =
            recent.iter().map(|e| e.attribute(attr::DEAD_PIPELINE).to_owned()).collect();
        for list in [&mut topics, &mut pipelines] {
            list.sort();
            list.dedup();
        }
        let counts = self.bus.dead_letter_counts(&principal.tenants).map_err(bus_problem)?;
        Ok(DeadLetterPage {
            letters: entries.into_iter().map(letter).collect(),
            next,
            topics,
            pipelines,
            reasons: counts.into_iter().map(|(code, count)| ReasonCount { code, count }).collect(),
        })
    }

    pub(super) fn one_dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem> {
        let filter = DeadFilter {
            topic: Some(topic.clone()),
            before: Some(offset + 1),
            limit: 1,
            ..DeadFilter::default()
        };
        let found = self.bus.dead_letters(&principal.tenants, &filter).map_err(bus_problem)?;
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
