//! Subscriptions: making, changing, detaching and deleting them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_core::ResourceName;

use crate::delivery::{Progress, Settled};
use crate::embedded::Embedded;
use crate::embedded::catalog::{already_exists, not_found};
use crate::embedded::checkpoint::Kept;
use crate::embedded::documents::{Kind, StoredTopic, SubscriptionDocument};
use crate::embedded::subscription::Subscription;
use crate::filter::Filter;
use crate::port::{PortError, SubscriptionSpec};

/// Above the ack ids that a pull under way may still give out for a deleted subscription.
const ACK_IDS_APART: u64 = 1 << 20;
const MAX_SUBSCRIPTIONS: usize = 20_000;

impl Embedded {
    /// A subscription gets what is published from here on. Blocks on the disk, as what
    /// follows does.
    pub fn create_subscription(&self, spec: SubscriptionSpec) -> Result<SubscriptionSpec, PortError> {
        Filter::parse(&spec.filter).map_err(|error| PortError::InvalidArgument(error.to_string()))?;
        if self.subscription(&spec.name).is_ok() {
            return Err(already_exists("subscription", &spec.name));
        }
        if self.catalog.read().subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(PortError::ResourceExhausted(format!(
                "there are {MAX_SUBSCRIPTIONS} subscriptions, the maximum: delete some"
            )));
        }
        let topic = spec.topic.as_ref().ok_or_else(|| {
            PortError::InvalidArgument(format!("the subscription {} names no topic", spec.name))
        })?;
        let topic = self.topic(topic)?;
        let number = self.documents.number()?;
        let end = self.bus.inner.end_of(&topic.log);
        let start = Progress { settled: Settled::below(end), ..Progress::default() };
        let log = StoredTopic(topic.log.name.clone());
        let document = SubscriptionDocument { number, spec: spec.clone(), log, start: start.clone() };
        self.documents.put(Kind::Subscription, number, &document)?;
        let kept = Kept { generation: 0, progress: start, active_ms: self.bus.inner.clock.now_ms() };
        let subscription = self.make(number, spec.clone(), topic.log, kept)?;
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
        ] {
            if !same {
                return Err(PortError::InvalidArgument(format!(
                    "the {what} of a subscription cannot change: make another one"
                )));
            }
        }
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
        let end = self.bus.inner.end_of(&subscription.log);
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
