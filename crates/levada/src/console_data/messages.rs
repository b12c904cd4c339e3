//! Messages of subscriptions: looked at, edited, and sent back to where they came from.

use bytes::Bytes;
use levada_bus::admin::{Edit, MAX_REDRIVE, Redrive, SubscriptionChange, Weighing};
use levada_bus::filter::Filter;
use levada_bus::port::Peeked;
use levada_console::{
    DeadMark, MessageEdit, MessageFilter, MessagePage, MessageRow, PREVIEW_BYTES, RedriveDone, RedriveOrder,
};
use levada_core::{Principal, Problem, ResourceName, TenantId, attr};

use super::PlatformData;

const SOURCE: &str = "CloudPubSubDeadLetterSourceSubscription";
const SOURCE_PROJECT: &str = "CloudPubSubDeadLetterSourceSubscriptionProject";

impl PlatformData {
    pub(super) async fn weigh_tenant(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &str,
        weight: Option<u32>,
    ) -> Result<String, Problem> {
        require_operator(principal)?;
        let tenant = TenantId::new(tenant).map_err(|error| invalid(error.to_string()))?;
        let told = match weight {
            Some(weight) => format!("{tenant} weighs {weight} now."),
            None => format!("{tenant} has no weight of its own any more: it counts 1."),
        };
        let weighing = Weighing { from_nothing: false, tenants: [(tenant, weight)].into() };
        let change = SubscriptionChange { weighing, ..SubscriptionChange::default() };
        self.subscriptions.change(principal, name, &change).await?;
        Ok(told)
    }

    pub(super) async fn message_page(
        &self,
        principal: &Principal,
        name: &ResourceName,
        wanted: &MessageFilter,
    ) -> Result<MessagePage, Problem> {
        let filter = parse(&wanted.filter)?;
        let (asked, named, before, limit) = (principal.clone(), name.clone(), wanted.before, wanted.limit);
        self.of_subscriptions(move |admin| {
            let found = admin.browse(&asked, &named, before, limit, &filter)?;
            let messages = found.messages.into_iter().map(|message| beginning(row(message))).collect();
            Ok(MessagePage { messages, before: found.before })
        })
        .await
    }

    pub(super) async fn one_message(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
    ) -> Result<Option<MessageRow>, Problem> {
        let (asked, named) = (principal.clone(), name.clone());
        let found = self.of_subscriptions(move |admin| admin.message(&asked, &named, message_id)).await;
        match found {
            Ok(found) => Ok(Some(row(found))),
            Err(problem) if problem.status == 404 => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    pub(super) async fn send_back(
        &self,
        principal: &Principal,
        name: &ResourceName,
        order: &RedriveOrder,
    ) -> Result<RedriveDone, Problem> {
        require_operator(principal)?;
        let filter = parse(&order.filter)?;
        let wanted =
            Redrive { filter, limit: order.limit.clamp(1, MAX_REDRIVE), rate_per_s: order.rate_per_s };
        let (admin, principal, name) = (self.subscriptions.clone(), principal.clone(), name.clone());
        // To its end, also when the browser leaves: what it holds is given back then.
        let done = tokio::spawn(async move { admin.redrive(&principal, &name, &wanted).await });
        let done = done.await.map_err(|_| Problem::new(500, "internal", "the redrive failed"))??;
        Ok(RedriveDone {
            published: done.published,
            skipped: done.skipped,
            refused: done.refused.into_values().map(|r| (r.count, r.first.detail)).collect(),
            more: done.more,
        })
    }

    pub(super) async fn send_one_back(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
        edit: &MessageEdit,
    ) -> Result<String, Problem> {
        require_operator(principal)?;
        let edit = Edit {
            body: edit.body.clone(),
            attributes: edit.attributes.clone(),
            even_if_taken: edit.even_if_taken,
        };
        let (admin, principal, name) = (self.subscriptions.clone(), principal.clone(), name.clone());
        // To its end: between sending and acknowledging is no place to stop.
        let sent = tokio::spawn(async move { admin.resend(&principal, &name, message_id, &edit).await });
        let sent = sent.await.map_err(|_| Problem::new(500, "internal", "the message was not sent"))??;
        let left = match sent.acknowledged {
            true => "",
            false => " The dead letter itself was not acknowledged.",
        };
        Ok(format!("Message {message_id} was sent to {} as message {}.{left}", sent.topic, sent.message_id))
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(422, "body-invalid", detail)
}

fn parse(filter: &str) -> Result<Filter, Problem> {
    Filter::parse(filter).map_err(|error| invalid(format!("the filter: {error}")))
}

fn require_operator(principal: &Principal) -> Result<(), Problem> {
    if principal.may_operate() {
        return Ok(());
    }
    Err(Problem::new(403, "role-forbidden", "this takes the role engineer"))
}

/// Without what a list does not show of the body.
fn beginning(message: MessageRow) -> MessageRow {
    if message.body.len() <= PREVIEW_BYTES {
        return message;
    }
    // A slice would hold on to the whole.
    MessageRow { body: Bytes::copy_from_slice(&message.body[..PREVIEW_BYTES]), ..message }
}

fn row(peeked: Peeked) -> MessageRow {
    let message = peeked.message;
    let get = |name: &str| message.attributes.get(name).unwrap_or_default().to_owned();
    let source = message.attributes.get(SOURCE_PROJECT).zip(message.attributes.get(SOURCE));
    let dead = source.map(|(project, id)| DeadMark {
        source: format!("{project}/{id}"),
        code: get(attr::DEAD_CODE),
        reason: get(attr::DEAD_REASON),
    });
    MessageRow {
        message_id: peeked.message_id,
        published_ms: peeked.published_at_ms,
        tenant: message.tenant.to_string(),
        dead,
        attributes: message.attributes.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        ordering_key: message.ordering_key.map(String::from),
        body: message.body,
    }
}
