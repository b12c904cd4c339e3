//! `google.pubsub.v1.Subscriber`: subscriptions, and pull and acknowledgement by single calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_bus::port::{AckId, AckOutcome, Consumer, PortError, PullLimits, SeekTo, SubscriptionSpec};
use levada_core::{Quota, ResourceId, ResourceName};
use tokio::time::Instant;
use tonic::Code;

use crate::access::{Access, Owner};
use crate::ack_id::AckIds;
use crate::api::{Call, Opened, PubsubApi, filtered};
use crate::convert;
use crate::error::ApiError;
use crate::limits;
use crate::mask;
use crate::messages::pb;
use crate::metrics;
use crate::names;
use crate::publisher::missing;

/// What a pull answers at most, so that clients with the usual bound on answers take it.
const MAX_PULL_BYTES: usize = limits::MAX_REQUEST_BYTES;
/// A call over REST does not say how long its client waits. Clients and proxies commonly give up
/// after 60 s, and then nobody would take the messages of a late answer.
const WAIT_WITHOUT_DEADLINE: Duration = Duration::from_secs(30);

impl PubsubApi {
    pub(crate) async fn create_subscription(
        &self,
        call: &Call,
        mut subscription: pb::Subscription,
    ) -> Result<pb::Subscription, ApiError> {
        let topic = names::resource(&subscription.topic, "topics").map_err(|error| error.at("topic"))?;
        if subscription.name.is_empty() {
            let id = format!("subscription-{}", self.ids.uuid().simple());
            subscription.name =
                ResourceName::new(topic.project.clone(), ResourceId::new(&id)?).path("subscriptions");
        }
        let name = names::resource(&subscription.name, "subscriptions")?;
        // In the order of Google's emulator: these two, then what exists, then all else.
        limits::ack_deadline("ack_deadline_seconds", subscription.ack_deadline_seconds)?;
        convert::push_in(subscription.push_config.as_ref())?;
        let access = self.project(call, &name.project)?;
        call.require(call.may_operate(), "engineer or admin")?;
        if self.open(call, &subscription.name).is_ok() {
            let name = name.to_string();
            return Err(PortError::AlreadyExists { what: "subscription", name }.into());
        }
        let topic_access = self.access(call, &topic)?;
        let topic_spec = self.topic(call, &topic)?;
        let mut spec = convert::subscription_in(&subscription)?;
        spec.tenant = access.subscription_tenant(&topic_access)?;
        self.check_dead_letter(call, &spec, &access.owner)?;
        self.check_endpoint(&spec)?;
        self.admit_subscription(&spec.name.project, &access.owner, spec.tenant.as_ref())?;
        // Another tenant may have the name.
        let own = access.own_name(&spec.name, spec.tenant.as_ref())?;
        let created = match (self.bus.create_subscription(spec.clone()).await, own) {
            (Err(PortError::AlreadyExists { .. }), Some(name)) => {
                self.bus.create_subscription(SubscriptionSpec { name, ..spec }).await?
            }
            (created, _) => created?,
        };
        self.forget_policy(&created.name.path("subscriptions"));
        self.pushing.touched(&created.name, created.push.is_some());
        let mut answer = convert::subscription_out(&created, topic_spec.retention);
        answer.name = access.shown(&created.name).path("subscriptions");
        Ok(answer)
    }

    /// Dead letters need a topic that exists, and those of one tenant must not become another's.
    fn check_dead_letter(&self, call: &Call, spec: &SubscriptionSpec, owner: &Owner) -> Result<(), ApiError> {
        let Some(policy) = &spec.dead_letter else { return Ok(()) };
        let access = self.access(call, &policy.topic)?;
        let ours = match &access.owner {
            Owner::Platform => true,
            foreign => {
                foreign == owner || matches!(foreign, Owner::Tenant(t) if Some(t) == spec.tenant.as_ref())
            }
        };
        if ours {
            let topic = self.topic(call, &policy.topic)?;
            // Nothing checks a message that moves: it may be in no form that others there rely on.
            if topic.schema.is_some() && !access.sees_all() {
                return Err(ApiError::denied(
                    "User not authorized to perform this action: the dead-letter topic belongs to the platform, \
                     and its messages have a schema. Use a topic without one, or of the tenant's project.",
                ));
            }
            return limits::delivery_attempts(policy.max_delivery_attempts);
        }
        Err(ApiError::denied(
            "User not authorized to perform this action: the dead-letter topic belongs to another tenant. Use a \
             topic of the subscription's own project.",
        ))
    }

    fn shown_subscription(&self, access: &Access, spec: &SubscriptionSpec) -> pb::Subscription {
        let topic = spec.topic.as_ref().and_then(|topic| self.bus.topic(topic).ok());
        let mut shown = convert::subscription_out(spec, topic.and_then(|topic| topic.retention));
        shown.name = access.shown(&spec.name).path("subscriptions");
        shown
    }

    pub(crate) async fn get_subscription(
        &self,
        call: &Call,
        request: pb::GetSubscriptionRequest,
    ) -> Result<pb::Subscription, ApiError> {
        let opened = self.open(call, &request.subscription)?;
        Ok(self.shown_subscription(&opened.access, &opened.port.spec()))
    }

    pub(crate) async fn update_subscription(
        &self,
        call: &Call,
        request: pb::UpdateSubscriptionRequest,
    ) -> Result<pb::Subscription, ApiError> {
        let given = request.subscription.ok_or_else(|| missing("subscription"))?;
        let opened = self.open(call, &given.name)?;
        call.require(call.may_operate(), "engineer or admin")?;
        let paths = mask::paths(request.update_mask.as_ref(), &mask::SUBSCRIPTION)?;
        let kept = opened.port.spec();
        let mut merged = convert::subscription_out(&kept, None);
        for path in &paths {
            merge(&mut merged, &given, path);
        }
        let mut spec = (*kept).clone();
        convert::apply_subscription(&mut spec, &merged)?;
        // A topic that was deleted since must not stand in the way of other changes.
        if paths.iter().any(|path| path.starts_with("dead_letter_policy")) {
            self.check_dead_letter(call, &spec, &opened.access.owner)?;
        }
        self.check_endpoint(&spec)?;
        let updated = self.bus.update_subscription(spec).await?;
        self.pushing.touched(&updated.name, updated.push.is_some());
        Ok(self.shown_subscription(&opened.access, &updated))
    }

    pub(crate) async fn list_subscriptions(
        &self,
        call: &Call,
        request: pb::ListSubscriptionsRequest,
    ) -> Result<pb::ListSubscriptionsResponse, ApiError> {
        let project = names::project(&request.project)?;
        let access = self.project(call, &project)?;
        let wanted = names::page(request.page_size, &request.page_token)?;
        let page = filtered(
            &wanted,
            |page| Ok(self.bus.subscriptions(&project, page)),
            |spec| &spec.name,
            |spec| access.sees(spec.tenant.as_ref()),
        )?;
        Ok(pb::ListSubscriptionsResponse {
            next_page_token: names::page_token(page.next.as_ref()),
            subscriptions: page.items.iter().map(|spec| self.shown_subscription(&access, spec)).collect(),
        })
    }

    pub(crate) async fn delete_subscription(
        &self,
        call: &Call,
        request: pb::DeleteSubscriptionRequest,
    ) -> Result<(), ApiError> {
        let opened = self.open(call, &request.subscription)?;
        call.require(call.may_operate(), "engineer or admin")?;
        let name = opened.port.spec().name.clone();
        self.bus.delete_subscription(&name).await?;
        self.forget_policy(&name.path("subscriptions"));
        Ok(())
    }

    pub(crate) async fn modify_push_config(
        &self,
        call: &Call,
        request: pb::ModifyPushConfigRequest,
    ) -> Result<(), ApiError> {
        let push = convert::push_in(request.push_config.as_ref())?;
        let opened = self.open(call, &request.subscription)?;
        call.require(call.may_operate(), "engineer or admin")?;
        request.push_config.ok_or_else(|| missing("push_config"))?;
        let kept = opened.port.spec();
        if push.is_some() && kept.exactly_once {
            return Err(ApiError::invalid(
                "Exactly-once delivery is for pull subscriptions; turn it off first.",
            ));
        }
        let spec = SubscriptionSpec { push, ..(*kept).clone() };
        self.check_endpoint(&spec)?;
        let updated = self.bus.update_subscription(spec).await?;
        self.pushing.touched(&updated.name, updated.push.is_some());
        Ok(())
    }

    /// Opens a subscription for a caller who takes messages from it.
    pub(crate) fn open_to_consume(&self, call: &Call, path: &str) -> Result<Opened, ApiError> {
        let opened = self.open(call, path)?;
        call.require(call.may_consume(), "engineer, service or client")?;
        Ok(opened)
    }

    pub(crate) async fn pull(
        &self,
        call: &Call,
        request: pb::PullRequest,
    ) -> Result<pb::PullResponse, ApiError> {
        let opened = self.open_to_consume(call, &request.subscription)?;
        let max_messages = limits::max_messages(request.max_messages)?;
        let spec = opened.port.spec();
        require_pull(&spec)?;
        #[allow(deprecated)] // Old clients send it, and the API still honours it.
        let wait = if request.return_immediately {
            Duration::ZERO
        } else {
            pull_wait(self.config.max_pull_wait, call.deadline, Instant::now())
        };
        let limits = PullLimits {
            max_messages,
            max_bytes: self.answer_bytes(&call.owner(), MAX_PULL_BYTES),
            wait,
            ack_deadline: None,
            consumer: Consumer::Call,
        };
        let _waits = match wait.is_zero() {
            true => None,
            false => Some(self.wait(call, Quota::WaitingReads)?),
        };
        let received = tokio::select! {
            received = opened.port.pull(limits) => received?,
            error = self.revoked(call) => return Err(error),
            () = self.drained() => Vec::new(),
        };
        if let Err(error) = self.valid(call) {
            let back = received.iter().map(|message| (message.ack_id, Duration::ZERO)).collect();
            opened.port.modify_ack_deadlines(back).await?;
            return Err(error);
        }
        metrics::delivered("pull", received.len());
        let ack_ids = AckIds::of(&spec.name);
        let received_messages =
            received.into_iter().map(|message| convert::received_out(message, ack_ids, &spec)).collect();
        Ok(pb::PullResponse { received_messages })
    }

    pub(crate) async fn acknowledge(
        &self,
        call: &Call,
        request: pb::AcknowledgeRequest,
    ) -> Result<(), ApiError> {
        let opened = self.open_to_consume(call, &request.subscription)?;
        limits::ack_ids(&request.ack_ids)?;
        let batch = Batch::read(&opened.port.spec(), request.ack_ids)?;
        let ids = batch.valid();
        let outcomes = opened.port.acknowledge(ids.clone()).await?;
        self.streams.released(&opened.port.spec().name, &ids);
        batch.answer(outcomes)
    }

    pub(crate) async fn modify_ack_deadline(
        &self,
        call: &Call,
        request: pb::ModifyAckDeadlineRequest,
    ) -> Result<(), ApiError> {
        let opened = self.open_to_consume(call, &request.subscription)?;
        limits::ack_ids(&request.ack_ids)?;
        let deadline = limits::modified_deadline(request.ack_deadline_seconds)?;
        let batch = Batch::read(&opened.port.spec(), request.ack_ids)?;
        let deadlines: Vec<_> = batch.valid().into_iter().map(|id| (id, deadline)).collect();
        let outcomes = opened.port.modify_ack_deadlines(deadlines.clone()).await?;
        self.book(&opened.port.spec().name, &deadlines);
        batch.answer(outcomes)
    }

    /// Tells flow control of leases that end now or at another time.
    pub(crate) fn book(&self, subscription: &ResourceName, deadlines: &[(AckId, Duration)]) {
        let now = Instant::now();
        for run in deadlines.chunk_by(|a, b| a.1 == b.1) {
            let ids: Vec<AckId> = run.iter().map(|(id, _)| *id).collect();
            match run[0].1 {
                Duration::ZERO => self.streams.released(subscription, &ids),
                deadline => self.streams.extended(subscription, &ids, now + deadline),
            }
        }
    }

    pub(crate) async fn seek(
        &self,
        call: &Call,
        request: pb::SeekRequest,
    ) -> Result<pb::SeekResponse, ApiError> {
        let opened = self.open(call, &request.subscription)?;
        call.require(call.may_operate(), "engineer or admin")?;
        let spec = opened.port.spec();
        let to = match request.target.ok_or_else(|| missing("target"))? {
            pb::seek_request::Target::Time(time) => SeekTo::TimeMs(convert::timestamp_in("time", &time)?),
            pb::seek_request::Target::Snapshot(path) => {
                let snapshot = self.open_snapshot(call, &path)?;
                if snapshot.topic != spec.topic {
                    return Err(ApiError::new(
                        Code::FailedPrecondition,
                        "The snapshot and the subscription are not of the same topic.",
                    ));
                }
                SeekTo::Snapshot(snapshot.name)
            }
        };
        self.bus.seek(&spec.name, to).await?;
        Ok(pb::SeekResponse {})
    }
}

/// Refuses what can only be done with a pull subscription.
pub(crate) fn require_pull(spec: &SubscriptionSpec) -> Result<(), ApiError> {
    if spec.detached {
        return Err(ApiError::new(
            Code::FailedPrecondition,
            format!("The subscription is detached from its topic (resource={}).", spec.name.id),
        ));
    }
    if spec.push.is_some() {
        return Err(ApiError::new(
            Code::FailedPrecondition,
            "This method is not supported for this subscription type: it pushes. Clear its push_config to pull.",
        ));
    }
    Ok(())
}

/// The ack ids of a unary call. With exactly-once a malformed one is reported like one whose
/// lease has ended, so that the others of the call are not lost.
pub(crate) struct Batch {
    texts: Vec<String>,
    ids: Vec<Option<AckId>>,
    exactly_once: bool,
}

impl Batch {
    pub(crate) fn read(spec: &Arc<SubscriptionSpec>, texts: Vec<String>) -> Result<Self, ApiError> {
        let ack_ids = AckIds::of(&spec.name);
        let ids = match spec.exactly_once {
            true => texts.iter().map(|text| ack_ids.read(text)).collect(),
            false => ack_ids.read_all(&texts)?.into_iter().map(Some).collect(),
        };
        Ok(Self { texts, ids, exactly_once: spec.exactly_once })
    }

    pub(crate) fn valid(&self) -> Vec<AckId> {
        self.ids.iter().flatten().copied().collect()
    }

    /// Pairs each text with its outcome.
    pub(crate) fn outcomes(self, outcomes: Vec<AckOutcome>) -> impl Iterator<Item = (String, AckOutcome)> {
        let mut outcomes = outcomes.into_iter();
        self.texts.into_iter().zip(self.ids).map(move |(text, id)| {
            let outcome = id.and_then(|_| outcomes.next()).unwrap_or(AckOutcome::InvalidAckId);
            (text, outcome)
        })
    }

    /// The answer of a unary call: with exactly-once the failures by ack id, as the official
    /// clients read them.
    fn answer(self, outcomes: Vec<AckOutcome>) -> Result<(), ApiError> {
        let exactly_once = self.exactly_once;
        let mut failures = BTreeMap::new();
        let mut lasting = false;
        for (text, outcome) in self.outcomes(outcomes) {
            match outcome {
                AckOutcome::InvalidAckId if exactly_once => {
                    lasting = true;
                    failures.insert(text, "PERMANENT_FAILURE_INVALID_ACK_ID".to_owned());
                }
                // Without exactly-once an acknowledgement that comes late is no error.
                AckOutcome::Done | AckOutcome::InvalidAckId => {}
                AckOutcome::TransientFailure => {
                    failures.insert(text, "TRANSIENT_FAILURE_SERVICE_UNAVAILABLE".to_owned());
                }
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let error = if lasting {
            ApiError::new(
                Code::FailedPrecondition,
                "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement \
                 ids have expired or the acknowledgement ids were malformed.",
            )
        } else {
            ApiError::unavailable("Some acknowledgements could not be made durable now. Please try again.")
        };
        Err(if exactly_once { error.with_info("EXACTLY_ONCE_ACKID_FAILURE", failures) } else { error })
    }
}

/// Copies the field at `path` of the mask.
fn merge(into: &mut pb::Subscription, given: &pb::Subscription, path: &str) {
    match path {
        "push_config" => into.push_config.clone_from(&given.push_config),
        "bigquery_config" => into.bigquery_config.clone_from(&given.bigquery_config),
        "cloud_storage_config" => into.cloud_storage_config.clone_from(&given.cloud_storage_config),
        "bigtable_config" => into.bigtable_config.clone_from(&given.bigtable_config),
        "ack_deadline_seconds" => into.ack_deadline_seconds = given.ack_deadline_seconds,
        "retain_acked_messages" => into.retain_acked_messages = given.retain_acked_messages,
        "message_retention_duration" => into.message_retention_duration = given.message_retention_duration,
        "labels" => into.labels.clone_from(&given.labels),
        "expiration_policy" => into.expiration_policy = given.expiration_policy,
        "expiration_policy.ttl" => {
            into.expiration_policy = Some(given.expiration_policy.unwrap_or_default());
        }
        "dead_letter_policy" => into.dead_letter_policy.clone_from(&given.dead_letter_policy),
        "dead_letter_policy.dead_letter_topic" => {
            let topic = given.dead_letter_policy.as_ref().map(|policy| policy.dead_letter_topic.clone());
            into.dead_letter_policy.get_or_insert_default().dead_letter_topic = topic.unwrap_or_default();
        }
        "dead_letter_policy.max_delivery_attempts" => {
            let attempts = given.dead_letter_policy.as_ref().map_or(0, |policy| policy.max_delivery_attempts);
            into.dead_letter_policy.get_or_insert_default().max_delivery_attempts = attempts;
        }
        "retry_policy" => into.retry_policy = given.retry_policy,
        "retry_policy.minimum_backoff" => {
            into.retry_policy.get_or_insert_default().minimum_backoff =
                given.retry_policy.and_then(|policy| policy.minimum_backoff);
        }
        "retry_policy.maximum_backoff" => {
            into.retry_policy.get_or_insert_default().maximum_backoff =
                given.retry_policy.and_then(|policy| policy.maximum_backoff);
        }
        "enable_exactly_once_delivery" => {
            into.enable_exactly_once_delivery = given.enable_exactly_once_delivery;
        }
        _ => into.message_transforms.clone_from(&given.message_transforms),
    }
}

/// How long a pull waits. An empty answer shortly before the deadline beats a refusal at it.
fn pull_wait(longest: Duration, deadline: Option<Instant>, now: Instant) -> Duration {
    let Some(deadline) = deadline else { return longest.min(WAIT_WITHOUT_DEADLINE) };
    let left = deadline.saturating_duration_since(now);
    left.saturating_sub(Duration::from_millis(100).max(left / 20)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_ends_before_its_client_gives_up() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let wait = |seconds: Option<u32>| pull_wait(90 * second, seconds.map(|s| now + s * second), now);
        assert_eq!(wait(Some(60)), 57 * second);
        assert_eq!(wait(Some(600)), 90 * second);
        assert_eq!(wait(Some(1)), Duration::from_millis(900));
        assert_eq!(wait(Some(0)), Duration::ZERO);
        assert_eq!(wait(None), 30 * second, "the usual patience of 60 s is not put to the test");
    }
}
