//! Browsing: the newest messages that a subscription is about, without consuming any.

use levada_core::{Principal, Problem, ResourceName};

use super::{Seen, SubscriptionAdmin, problem};
use crate::filter::Filter;
use crate::port::{Peeked, PortError};

/// The most messages of one answer.
pub const MAX_BROWSE: usize = 1_000;
/// One call looks at this many messages at most, whosever they are.
const LOOKED_AT: usize = 10_000;
const STEP: usize = 500;
/// An answer stops growing here, even below its limit.
const ANSWER_BYTES: usize = 8 << 20;

/// Messages of a topic, newest first.
#[derive(Debug, Clone, Default)]
pub struct Browsed {
    pub messages: Vec<Peeked>,
    /// Where to go on, towards older ones; `None`: there are no more.
    pub before: Option<u64>,
}

impl SubscriptionAdmin {
    /// The messages of a subscription's topic that it would get and that match a filter,
    /// acknowledged ones too as long as the topic has them. Blocks on the disk.
    ///
    /// # Errors
    /// `subscription-unknown` (404), `subscription-state` (409) when its topic was deleted.
    pub fn browse(
        &self,
        principal: &Principal,
        name: &ResourceName,
        before: Option<u64>,
        limit: usize,
        filter: &Filter,
    ) -> Result<Browsed, Problem> {
        let seen = self.find(principal, name)?;
        let failed = |error: PortError| problem(&error);
        let (topic, own) = seen.reads()?;
        let wanted = |peeked: &Peeked| {
            seen.would_get(principal, &own, peeked) && filter.matches(&peeked.message.attributes)
        };
        let (mut browsed, mut looked_at, mut bytes) = (Browsed { before, ..Browsed::default() }, 0, 0);
        let limit = limit.clamp(1, MAX_BROWSE);
        while looked_at < LOOKED_AT {
            let peeked = self.port.peek(&topic, browsed.before, STEP).map_err(failed)?;
            if peeked.is_empty() {
                browsed.before = None;
                break;
            }
            looked_at += peeked.len();
            for message in peeked {
                if browsed.messages.len() == limit || bytes >= ANSWER_BYTES {
                    return Ok(browsed);
                }
                browsed.before = Some(message.message_id);
                if wanted(&message) {
                    bytes += message.message.body.len();
                    browsed.messages.push(message);
                }
            }
        }
        Ok(browsed)
    }

    /// The message of that id, of those that a subscription would get. Blocks on the disk.
    ///
    /// # Errors
    /// `subscription-unknown` and `message-unknown` (404), `subscription-state` (409) when its
    /// topic was deleted.
    pub fn message(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
    ) -> Result<Peeked, Problem> {
        let seen = self.find(principal, name)?;
        let (topic, own) = seen.reads()?;
        let mut found =
            self.port.peek(&topic, Some(message_id.saturating_add(1)), 1).map_err(|e| problem(&e))?;
        found.retain(|peeked| peeked.message_id == message_id && seen.would_get(principal, &own, peeked));
        found.pop().ok_or_else(|| {
            Problem::new(404, "message-unknown", format!("`{name}` has no message {message_id}"))
                .hint("GET /v1/subscriptions/{project}/{id}/messages lists the messages with their ids")
        })
    }
}

impl Seen {
    /// The topic, and the subscription's own filter.
    fn reads(&self) -> Result<(ResourceName, Filter), Problem> {
        let name = &self.spec.name;
        let topic = self.spec.topic.clone().ok_or_else(|| {
            let text = format!("the topic of the subscription {name} was deleted");
            problem(&PortError::FailedPrecondition(text))
        })?;
        let own = Filter::parse(&self.spec.filter)
            .map_err(|error| problem(&PortError::Internal(format!("the filter of {name}: {error}"))))?;
        Ok((topic, own))
    }

    fn would_get(&self, principal: &Principal, own: &Filter, peeked: &Peeked) -> bool {
        let (tenant, attributes) = (&peeked.message.tenant, &peeked.message.attributes);
        principal.tenants.contains(tenant)
            && self.spec.tenant.as_ref().is_none_or(|only| only == tenant)
            && own.matches(attributes)
    }
}
