//! Redrive: messages of a dead-letter topic go back to the topic that they came from.
//!
//! A call pulls from a subscription of the dead-letter topic as any consumer would, publishes
//! what it gets again and acknowledges it then. A crash between the two leaves a message in
//! both places, never in none. What is not sent again is given back at the end of the call,
//! which counts as one more delivery of it.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_core::{Message, Principal, Problem, ResourceName, TenantSet, attr};
use tokio::time::Instant;

use super::{ProjectOwner, Seen, SubscriptionAdmin, problem};
use crate::filter::Filter;
use crate::port::{AckId, Consumer, Publication, PullLimits, Received};
use crate::shared_names;

/// The most messages that one call sends.
pub const MAX_REDRIVE: u64 = 10_000;
/// The most messages that one call holds back because they are not to be sent.
pub(super) const MAX_HELD: usize = 10_000;
/// A call ends after this time; what is left is for the next one.
pub(super) const BUDGET: Duration = Duration::from_secs(20);
/// Longer than a call takes, so that what it holds does not come back to itself.
pub(super) const LEASE: Duration = Duration::from_secs(120);
const BATCH: u64 = 100;
pub(super) const BATCH_BYTES: usize = 4 << 20;
/// What dead letters of Levada's own engines carry.
const DEAD: &str = "levada.dead.";
/// What a dead letter carries of its source.
const SOURCE: &str = "CloudPubSubDeadLetterSource";
const SOURCE_SUBSCRIPTION: &str = "CloudPubSubDeadLetterSourceSubscription";
const SOURCE_PROJECT: &str = "CloudPubSubDeadLetterSourceSubscriptionProject";

/// What to send again.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// Only messages with such attributes.
    pub filter: Filter,
    /// 1 to [`MAX_REDRIVE`].
    pub limit: u64,
    /// Messages a second; above zero. `None`: as fast as it goes.
    pub rate_per_s: Option<f64>,
}

/// What a redrive did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Redriven {
    /// Back in the topic that they came from.
    pub published: u64,
    /// Left alone by the filter.
    pub skipped: u64,
    /// Could not be sent, by the code of the reason.
    pub refused: BTreeMap<String, Refused>,
    /// There may be more: the limit or the time of a call was reached.
    pub more: bool,
}

/// Messages that were refused for one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub count: u64,
    /// What is wrong with the first of them.
    pub first: Problem,
}

/// One call under way.
struct Run<'a> {
    principal: &'a Principal,
    seen: &'a Seen,
    done: Redriven,
    /// To be given back at the end.
    held: Vec<AckId>,
    /// A tenant's rate is used up.
    limited: Option<Problem>,
}

impl SubscriptionAdmin {
    /// Sends messages of a dead-letter topic's subscription again. Takes 20 s at most: call it
    /// again while there is more. The caller needs the tenants of the messages and must see the
    /// subscriptions that they came from.
    ///
    /// # Errors
    /// `subscription-unknown` (404), `rate-limited` (429) where nothing could be sent, and what
    /// pulling or publishing fails with; what was sent until then stays sent.
    pub async fn redrive(
        &self,
        principal: &Principal,
        name: &ResourceName,
        request: &Redrive,
    ) -> Result<Redriven, Problem> {
        let seen = self.find(principal, name)?;
        let mut run =
            Run { principal, seen: &seen, done: Redriven::default(), held: Vec::new(), limited: None };
        let outcome = self.run(&mut run, request).await;
        seen.give_back(std::mem::take(&mut run.held)).await;
        let Redriven { published, skipped, .. } = run.done;
        tracing::info!(actor = %principal.id, subscription = %name, published, skipped, "dead letters redriven");
        outcome.map(|()| run.done)
    }

    async fn run(&self, run: &mut Run<'_>, request: &Redrive) -> Result<(), Problem> {
        let start = Instant::now();
        let limit = request.limit.clamp(1, MAX_REDRIVE);
        // A fifth of a second's messages at once keeps the rate even.
        let batch = request.rate_per_s.map_or(BATCH, |rate| ((rate / 5.0) as u64).clamp(1, BATCH));
        loop {
            let left = limit - run.done.published;
            if left == 0 || start.elapsed() >= BUDGET || run.held.len() >= MAX_HELD {
                run.done.more = true;
                return Ok(());
            }
            let limits = PullLimits {
                max_messages: usize::try_from(batch.min(left)).unwrap_or(1),
                max_bytes: BATCH_BYTES,
                wait: Duration::ZERO,
                ack_deadline: Some(LEASE),
                consumer: Consumer::Call,
            };
            let received = run.seen.port.pull(limits).await.map_err(|error| problem(&error))?;
            if received.is_empty() {
                return Ok(());
            }
            self.send(run, received, &request.filter).await?;
            if let Some(problem) = run.limited.take() {
                run.done.more = true;
                return if run.done.published == 0 { Err(problem) } else { Ok(()) };
            }
            if let Some(rate) = request.rate_per_s {
                let due = start + Duration::from_secs_f64(run.done.published as f64 / rate).min(BUDGET);
                tokio::time::sleep_until(due).await;
            }
        }
    }

    /// Publishes one batch, topic by topic, and acknowledges what was accepted.
    async fn send(&self, run: &mut Run<'_>, received: Vec<Received>, filter: &Filter) -> Result<(), Problem> {
        let mut by_topic: BTreeMap<ResourceName, Vec<(AckId, Publication)>> = BTreeMap::new();
        for letter in received {
            if !filter.matches(&letter.message.attributes) {
                run.held.push(letter.ack_id);
                run.done.skipped += 1;
                continue;
            }
            let sent = match self.target(run.principal, run.seen, letter.message_id, &letter.message) {
                Ok((topic, item)) => self.checked(&topic, item).await.map(|item| (topic, item)),
                Err(refusal) => Err(refusal),
            };
            match sent {
                Ok((topic, item)) => match self.take_token(&item) {
                    Ok(()) => by_topic.entry(topic).or_default().push((letter.ack_id, item)),
                    Err(problem) => {
                        run.held.push(letter.ack_id);
                        run.limited.get_or_insert(problem);
                    }
                },
                Err(refusal) => run.refuse(letter.ack_id, refusal),
            }
        }
        let mut topics = by_topic.into_iter();
        while let Some((topic, items)) = topics.next() {
            let (ids, publications): (Vec<AckId>, Vec<Publication>) = items.into_iter().unzip();
            let results = match self.port.publish(&topic, publications).await {
                Ok(results) => results,
                Err(error) => {
                    run.held.extend(ids);
                    run.held.extend(topics.flat_map(|(_, items)| items).map(|(id, _)| id));
                    return Err(problem(&error));
                }
            };
            let mut sent = Vec::new();
            for (id, result) in ids.into_iter().zip(results) {
                match result {
                    Ok(_) => sent.push(id),
                    Err(refusal) => run.refuse(id, refusal),
                }
            }
            run.done.published += sent.len() as u64;
            if !sent.is_empty() {
                // One whose lease has ended all the same comes once more, and is sent once more.
                run.seen.port.acknowledge(sent).await.map_err(|error| problem(&error))?;
            }
        }
        Ok(())
    }

    /// Where a dead letter came from, and the message as it was there.
    pub(super) fn target(
        &self,
        principal: &Principal,
        seen: &Seen,
        message_id: u64,
        letter: &Message,
    ) -> Result<(ResourceName, Publication), Problem> {
        let unknown = |why: &str| {
            Problem::new(422, "redrive-source-unknown", format!("the message cannot be sent again: {why}"))
        };
        let context = principal.enter(&letter.tenant)?;
        let source = (letter.attributes.get(SOURCE_PROJECT)).zip(letter.attributes.get(SOURCE_SUBSCRIPTION));
        let source = source.and_then(|(project, id)| format!("{project}/{id}").parse::<ResourceName>().ok());
        let source = source.ok_or_else(|| unknown("it does not say which subscription it came from"))?;
        // The attributes are only as good as who published them: the source must be one that
        // the caller sees, and its topic one that the message's tenant may publish to.
        // The name is the one that its tenant uses.
        let owner =
            Principal { tenants: TenantSet::Only([letter.tenant.clone()].into()), ..principal.clone() };
        let of = self.find(&owner, &source).or_else(|_| self.find(principal, &source));
        let of = of.map_err(|_| unknown("its source is not there any more"))?;
        let topic = of.spec.topic.clone().ok_or_else(|| unknown("the topic of its source was deleted"))?;
        if let Some(ProjectOwner::Tenant(owner)) = (self.owner_of)(&topic.project)
            && owner != letter.tenant
        {
            return Err(unknown("the topic of its source belongs to another tenant"));
        }
        if seen.spec.topic.as_ref() == Some(&topic) || of.spec.name == seen.spec.name {
            return Err(unknown("it would come back to where it is"));
        }
        let own = letter.attributes.iter().filter(|(name, _)| !is_of_dead_letter(name));
        let mut message = Message { attributes: own.collect(), ..letter.clone() };
        // After a restart the key stays that of its sender's event, not of this copy.
        if message.attributes.get(attr::IDEMPOTENCY_KEY).is_some() {
            let from = shared_names::shown_to(&seen.spec.name, &letter.tenant);
            message.attributes.set(attr::RESENT_FROM, &format!("{from}/{message_id}"));
        }
        if seen.spec.topic.as_ref().is_none_or(|of| of.project != topic.project) {
            message.name_owner();
        }
        Ok((topic, Publication::again(context, message)))
    }

    /// A letter says freely where it came from: a topic with a schema gets only what keeps it.
    async fn checked(&self, topic: &ResourceName, mut item: Publication) -> Result<Publication, Problem> {
        let spec = self.port.topic(topic).map_err(|error| problem(&error))?;
        if spec.schema.is_some() {
            item.message = self.held_to_rule(&spec, item.message).await?;
        }
        Ok(item)
    }
}

pub(super) fn is_of_dead_letter(attribute: &str) -> bool {
    attribute.starts_with(SOURCE) || attribute.starts_with(DEAD)
}

impl Run<'_> {
    fn refuse(&mut self, id: AckId, refusal: Problem) {
        self.held.push(id);
        let entry = self.done.refused.entry(refusal.code.clone());
        entry.or_insert(Refused { count: 0, first: refusal }).count += 1;
    }
}
