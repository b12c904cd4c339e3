//! Subscriptions: making, changing, detaching and deleting them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_core::ResourceName;

use crate::bus::TopicState;
use crate::delivery::{Progress, Settled};
use crate::embedded::Embedded;
use crate::embedded::catalog::{already_exists, not_found};
use crate::embedded::checkpoint::Kept;
use crate::embedded::documents::{Kind, StoredTopic, SubscriptionDocument};
use crate::embedded::subscription::Subscription;
use crate::filter::Filter;
use crate::port::{PortError, SubscriptionSpec, bounds};

/// Above the ack ids that a pull under way may still give out for a deleted subscription.
const ACK_IDS_APART: u64 = 1 << 20;
const MAX_SUBSCRIPTIONS: usize = 20_000;

impl Embedded {
    /// A subscription gets what is published from here on. Blocks on the disk, as what
    /// follows does.
    pub fn create_subscription(&self, spec: SubscriptionSpec) -> Result<SubscriptionSpec, PortError> {
        if spec.replay.is_some() {
            return Err(PortError::InvalidArgument(format!("{} is a replay: make it as one", spec.name)));
        }
        self.check_new(&spec)?;
        let topic = spec.topic.as_ref().ok_or_else(|| {
            PortError::InvalidArgument(format!("the subscription {} names no topic", spec.name))
        })?;
        let topic = self.topic(topic)?;
        let end = self.bus.inner.durable_end_of(&topic.log)?;
        self.begin(spec, topic.log, Settled::below(end))
    }

    /// What every new subscription must fulfil.
    fn check_new(&self, spec: &SubscriptionSpec) -> Result<(), PortError> {
        Filter::parse(&spec.filter).map_err(|error| PortError::InvalidArgument(error.to_string()))?;
        check_rate(spec)?;
        bounds::subscription(spec, None)?;
        if self.subscription(&spec.name).is_ok() {
            return Err(already_exists("subscription", &spec.name));
        }
        if self.catalog.read().subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(PortError::ResourceExhausted(format!(
                "there are {MAX_SUBSCRIPTIONS} subscriptions, the maximum: delete some"
            )));
        }
        Ok(())
    }

    /// Makes a subscription that stands where `settled` says.
    pub fn begin(
        &self,
        spec: SubscriptionSpec,
        log: Arc<TopicState>,
        settled: Settled,
    ) -> Result<SubscriptionSpec, PortError> {
        self.check_new(&spec)?;
        let number = self.documents.number()?;
        let start = Progress { settled, ..Progress::default() };
        let stored = StoredTopic(log.name.clone());
        let made_ms = self.bus.inner.clock.now_ms();
        let document =
            SubscriptionDocument { number, spec: spec.clone(), log: stored, start: start.clone(), made_ms };
        self.documents.put(Kind::Subscription, number, &document)?;
        let kept = Kept { generation: 0, progress: start };
        let subscription = self.make(number, spec.clone(), log, kept, made_ms)?;
        self.catalog.write().subscriptions.insert(spec.name.clone(), subscription);
        self.keep_what_is_needed();
        Ok(spec)
    }

    pub fn update_subscription(&self, spec: SubscriptionSpec) -> Result<SubscriptionSpec, PortError> {
        let subscription = self.subscription(&spec.name)?;
        let kept = subscription.spec();
        for (what, same) in [
            ("topic", kept.topic == spec.topic),
            ("filter", kept.filter == spec.filter),
            ("message ordering", kept.ordered == spec.ordered),
            ("tenant", kept.tenant == spec.tenant),
            ("replay", kept.replay == spec.replay),
        ] {
            if !same {
                return Err(PortError::InvalidArgument(format!(
                    "the {what} of a subscription cannot change: make another one"
                )));
            }
        }
        check_rate(&spec)?;
        bounds::subscription(&spec, Some(&kept))?;
        // Not by an update: that would undo a detach that came between the caller's read and this.
        let spec = SubscriptionSpec { detached: kept.detached, ..spec };
        self.keep_subscription(&subscription, &spec)?;
        subscription.set_spec(spec.clone());
        self.weigh(&subscription);
        self.keep_what_is_needed();
        Ok(spec)
    }

    pub fn detach_subscription(&self, name: &ResourceName) -> Result<(), PortError> {
        let subscription = self.subscription(name)?;
        let spec = SubscriptionSpec { detached: true, ..(*subscription.spec()).clone() };
        self.keep_subscription(&subscription, &spec)?;
        // Its backlog is gone for good, as documented.
        let _alone = self.journal.writing.blocking_write();
        let end = self.bus.inner.durable_end_of(&subscription.log)?;
        self.reset(&subscription, Progress { settled: Settled::below(end), ..Progress::default() })?;
        subscription.set_spec(spec);
        self.keep_what_is_needed();
        Ok(())
    }

    pub fn delete_subscription(&self, name: &ResourceName) -> Result<(), PortError> {
        let subscription: Arc<Subscription> = self.subscription(name)?;
        self.documents.remove(Kind::Subscription, subscription.number)?;
        let removed = self.catalog.write().subscriptions.remove(name);
        let removed = removed.ok_or_else(|| not_found("subscription", name))?;
        removed.mark_deleted();
        // Late acknowledgements must mean nothing to a subscription that is made again by the name.
        let next = removed.machine.lock().state.next_ack_id();
        self.first_ack_id.fetch_max(next + ACK_IDS_APART, Ordering::AcqRel);
        self.keep_what_is_needed();
        Ok(())
    }
}

fn check_rate(spec: &SubscriptionSpec) -> Result<(), PortError> {
    if spec.max_rate_per_s == Some(0) {
        return Err(PortError::InvalidArgument(format!(
            "the rate of {} is 0 messages a second: give at least 1, or none for no bound",
            spec.name
        )));
    }
    Ok(())
}
