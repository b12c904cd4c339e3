//! Edit and resend: one dead letter goes back to where it came from, mended on the way.
//!
//! The letter is leased first, as any consumer would, so that nobody else handles it meanwhile;
//! then the mended message is published, and then the letter is acknowledged. A crash between
//! the two leaves the letter in its place beside the mended message, never neither of them.
//! A letter that cannot be leased is not sent, unless the caller says that it shall be sent
//! all the same: it may have been handled already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use levada_core::{Message, Principal, Problem, ResourceName, attr};
use tokio::time::Instant;

use super::redrive::{BATCH_BYTES, BUDGET, LEASE, MAX_HELD, is_of_dead_letter};
use super::{Seen, SubscriptionAdmin, problem};
use crate::port::{AckId, AckOutcome, Consumer, Publication, PullLimits, TopicSpec};
use crate::rate::TakeTokens;

const PULL: usize = 1_000;

/// What to change of a message, and how sure the caller is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// `None`: as it was.
    pub body: Option<Bytes>,
    /// Attributes to set, and with `None` to take away.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Send it also when it does not wait in the subscription any more, or a consumer has it.
    pub even_if_taken: bool,
}

/// A message that was sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resent {
    pub topic: ResourceName,
    /// In that topic.
    pub message_id: u64,
    /// The dead letter has left its subscription.
    pub acknowledged: bool,
}

/// Holds an edited message to what publishers of its topic are held to, and tells in its
/// attributes what they are told.
pub trait MessageRule: Send + Sync {
    /// # Errors
    /// `body-invalid` (422) with what is wrong with the message.
    fn prepare<'a>(
        &'a self,
        topic: &'a TopicSpec,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Problem>>;
}

impl SubscriptionAdmin {
    /// Edited messages must keep this rule. Without one, they are not sent to topics with a schema.
    #[must_use]
    pub fn with_rule(self, rule: Arc<dyn MessageRule>) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// Messages that are sent again count against their tenant's rate.
    #[must_use]
    pub fn with_rate(self, rate: TakeTokens) -> Self {
        Self { rate: Some(rate), ..self }
    }

    pub(super) fn take_token(&self, publication: &Publication) -> Result<(), Problem> {
        self.rate.as_ref().map_or(Ok(()), |take| take(publication.context.tenant(), 1))
    }

    /// Sends one message of a dead-letter topic's subscription again, edited, and acknowledges
    /// it then. Messages before it are leased for a moment and given back, which counts as one
    /// more delivery of them. Takes 20 s at most.
    ///
    /// # Errors
    /// `subscription-unknown`, `message-unknown` (404), `redrive-source-unknown` (422),
    /// `message-not-waiting` (409) for one that is acknowledged or on
    /// lease, `body-invalid` (422) for an edit that its topic does not take.
    pub async fn resend(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
        edit: &Edit,
    ) -> Result<Resent, Problem> {
        let seen = self.find(principal, name)?;
        let letter = {
            let (admin, asked, named) = (self.clone(), principal.clone(), name.clone());
            let found = tokio::task::spawn_blocking(move || admin.message(&asked, &named, message_id)).await;
            found.map_err(|_| Problem::new(500, "internal", "the read failed"))??
        };
        let (topic, mut publication) = self.target(principal, &seen, message_id, &letter.message)?;
        publication.message = self.edited(&topic, publication.message, edit).await?;
        self.take_token(&publication)?;
        let lease = match seen.take(message_id).await? {
            Some(lease) => Some(lease),
            None if edit.even_if_taken => None,
            None => return Err(not_waiting(name, message_id)),
        };
        let sent = match self.port.publish(&topic, vec![publication]).await {
            Ok(mut results) => results
                .pop()
                .unwrap_or_else(|| Err(Problem::new(500, "internal", "the publish gave no result"))),
            Err(error) => Err(problem(&error)),
        };
        let message_id_there = match sent {
            Ok(id) => id,
            Err(problem) => {
                seen.give_back(lease.into_iter().collect()).await;
                return Err(problem);
            }
        };
        let acknowledged = match lease {
            None => false,
            // It is sent: a failure here leaves the letter where it is, which the answer tells.
            Some(lease) => match seen.port.acknowledge(vec![lease]).await {
                Ok(outcomes) => outcomes.first() == Some(&AckOutcome::Done),
                Err(error) => {
                    tracing::warn!(%error, subscription = %name, message_id, "a dead letter that was sent stays");
                    false
                }
            },
        };
        tracing::info!(
            actor = %principal.id, subscription = %name, message_id, topic = %topic, acknowledged,
            "dead letter sent again"
        );
        Ok(Resent { topic, message_id: message_id_there, acknowledged })
    }

    async fn edited(&self, topic: &ResourceName, message: Message, edit: &Edit) -> Result<Message, Problem> {
        let invalid = |detail: String| Problem::new(422, "body-invalid", detail);
        let mut message = message;
        for (attribute, value) in &edit.attributes {
            if attribute == attr::TENANT_ID || is_of_dead_letter(attribute) {
                let detail =
                    format!("the attribute `{attribute}` says whose the message is or where it came from");
                return Err(invalid(detail).hint("leave it out: it cannot be edited"));
            }
            match value {
                Some(value) => message.attributes.set(attribute, value),
                None => {
                    message.attributes.remove(attribute);
                }
            }
        }
        if let Some(body) = &edit.body {
            message.body = body.clone();
        }
        let spec = self.port.topic(topic).map_err(|error| problem(&error))?;
        self.held_to_rule(&spec, message).await
    }

    /// The message as its topic takes it from publishers.
    pub(super) async fn held_to_rule(&self, spec: &TopicSpec, message: Message) -> Result<Message, Problem> {
        match &self.rule {
            Some(rule) => rule.prepare(spec, message).await,
            None if spec.schema.is_some() => {
                let topic = &spec.name;
                let why =
                    format!("messages of the topic {topic} have a schema, and nothing here can check it");
                Err(Problem::new(422, "body-invalid", why))
            }
            None => Ok(message),
        }
    }
}

fn not_waiting(name: &ResourceName, message_id: u64) -> Problem {
    let detail = format!(
        "the message {message_id} cannot be taken from `{name}`: it is acknowledged, a consumer has it, or it \
         waits behind another one of its ordering key or behind {MAX_HELD} messages"
    );
    Problem::new(409, "message-not-waiting", detail)
        .hint("try again when the consumer has given it back, or say that it shall be sent all the same")
}

impl Seen {
    /// Leases the message of that id; `None` where that cannot be. Others that come first are
    /// given back.
    async fn take(&self, message_id: u64) -> Result<Option<AckId>, Problem> {
        let start = Instant::now();
        let (mut held, mut taken): (Vec<AckId>, Option<AckId>) = (Vec::new(), None);
        let mut outcome = Ok(());
        while taken.is_none() && held.len() < MAX_HELD && start.elapsed() < BUDGET {
            let limits = PullLimits {
                max_messages: PULL,
                max_bytes: BATCH_BYTES,
                wait: Duration::ZERO,
                ack_deadline: Some(LEASE),
                consumer: Consumer::Call,
            };
            match self.port.pull(limits).await {
                Ok(received) if received.is_empty() => break,
                Ok(received) => {
                    for message in received {
                        match message.message_id == message_id {
                            true => taken = Some(message.ack_id),
                            false => held.push(message.ack_id),
                        }
                    }
                }
                Err(error) => {
                    outcome = Err(problem(&error));
                    break;
                }
            }
        }
        self.give_back(held).await;
        outcome.map(|()| taken)
    }

    /// Gives leases back at once, as far as that can be done.
    pub(super) async fn give_back(&self, held: Vec<AckId>) {
        for ids in held.chunks(1_000) {
            let back = ids.iter().map(|id| (*id, Duration::ZERO)).collect();
            if let Err(error) = self.port.modify_ack_deadlines(back).await {
                let name = &self.spec.name;
                tracing::warn!(%error, subscription = %name, "messages come back when their leases end");
            }
        }
    }
}
