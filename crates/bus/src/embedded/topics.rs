//! Topics: making, changing, deleting them, and publishing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use levada_core::{Problem, ResourceName, TopicName};

use crate::bus::{Publish, TopicState};
use crate::config::Retention;
use crate::embedded::Embedded;
use crate::embedded::catalog::{Topic, already_exists};
use crate::embedded::documents::{self, Kind, StoredTopic, SubscriptionDocument, TopicDocument};
use crate::embedded::schedule;
use crate::metrics as names;
use crate::port::{Deduplication, Durability, PortError, Publication, TopicSpec, bounds};
use crate::publish::Submission;

/// A topic's subscriptions look at it at least once in so many records.
const TELL_RECORDS: u64 = 8_192;
/// Of an attribute's name, as the API has it.
const MAX_ATTRIBUTE_BYTES: usize = 256;
const MIN_WINDOW: Duration = Duration::from_secs(1);
const MAX_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

impl Embedded {
    /// Blocks on the disk, as what follows does.
    pub fn create_topic(&self, spec: TopicSpec) -> Result<TopicSpec, PortError> {
        check(&spec)?;
        bounds::topic(&spec, None)?;
        if self.topic(&spec.name).is_ok() {
            return Err(already_exists("topic", &spec.name));
        }
        if let Some(dead_letters) = self.dead_letters_of_the_folder(&spec.name) {
            self.bus.inner.ensure(&dead_letters, self.bus.inner.config.default_retention)?;
            return self
                .update_topic(TopicSpec { retention: self.topic(&spec.name)?.spec.retention, ..spec });
        }
        let number = self.documents.number()?;
        let name = documents::log_name(&spec.name, number)?;
        let log = self.bus.inner.ensure(&name, Retention::default())?;
        let deduplicated_from = self.deduplication_start(&log, &spec)?;
        let document =
            TopicDocument { number, spec: spec.clone(), log: Some(StoredTopic(name)), deduplicated_from };
        self.documents.put(Kind::Topic, number, &document)?;
        self.put_in_force(&log, &spec, deduplicated_from);
        let topic = Topic { number, spec: spec.clone(), log, configured: false };
        self.catalog.write().topics.insert(spec.name.clone(), topic);
        self.keep_what_is_needed();
        Ok(spec)
    }

    /// The name under which pipelines bury the dead letters of a topic of the project folder:
    /// made here, it must be the same topic as theirs.
    fn dead_letters_of_the_folder(&self, name: &ResourceName) -> Option<TopicName> {
        let of = TopicName::new(name.id.as_str().strip_suffix("-dlq")?).ok()?;
        let is_there = name.project == self.home && self.bus.inner.topic(&of).is_ok();
        is_there.then(|| of.dead_letter().ok()).flatten()
    }

    pub fn update_topic(&self, spec: TopicSpec) -> Result<TopicSpec, PortError> {
        check(&spec)?;
        let kept = self.topic(&spec.name)?;
        bounds::topic(&spec, Some(&kept.spec))?;
        if kept.configured && kept.spec.retention != spec.retention {
            return Err(PortError::FailedPrecondition(format!(
                "the retention of the topic {} is set in the project folder: change it there",
                spec.name
            )));
        }
        // A topic of the folder gets its number with its first settings.
        let number = if kept.number == 0 && kept.configured { self.documents.number()? } else { kept.number };
        let log = (!kept.configured).then(|| StoredTopic(kept.log.name.clone()));
        let deduplicated_from = self.deduplication_start(&kept.log, &spec)?;
        let document = TopicDocument { number, spec: spec.clone(), log, deduplicated_from };
        self.documents.put(Kind::Topic, number, &document)?;
        // Only now: a setting that could not be kept must not be in force.
        self.put_in_force(&kept.log, &spec, deduplicated_from);
        let default = self.bus.inner.config.ordering;
        if spec.ordering.unwrap_or(default) != kept.spec.ordering.unwrap_or(default) {
            self.order_anew(&kept.log)?;
        }
        let topic = Topic { number, spec: spec.clone(), ..kept };
        self.catalog.write().topics.insert(spec.name.clone(), topic);
        self.keep_what_is_needed();
        Ok(spec)
    }

    fn deduplication_start(&self, log: &TopicState, spec: &TopicSpec) -> Result<u64, PortError> {
        let Some(wanted) = &spec.deduplication else { return Ok(0) };
        Ok(self.bus.inner.deduplication_start(log, &wanted.attribute)?)
    }

    fn put_in_force(&self, log: &TopicState, spec: &TopicSpec, deduplicated_from: u64) {
        set_durability(log, spec.durability);
        *log.ordering.lock() = spec.ordering;
        match &spec.deduplication {
            Some(Deduplication { attribute, window }) => {
                self.bus.inner.deduplicate(log, attribute, *window, deduplicated_from);
            }
            None => self.bus.inner.stop_deduplication(log),
        }
    }

    /// Has the ordered subscriptions of a topic look at its messages once more, by another scope of
    /// the keys. Their leases end.
    fn order_anew(&self, log: &TopicState) -> Result<(), PortError> {
        let of_topic: Vec<_> =
            self.catalog.read().subscriptions.values().filter(|s| s.log.id == log.id).cloned().collect();
        for subscription in of_topic.into_iter().filter(|s| s.spec().ordered && !s.spec().detached) {
            // Alone: what is confirmed meanwhile would be missing from the progress.
            let _alone = self.journal.writing.blocking_write();
            let progress = subscription.machine.lock().state.progress();
            self.reset(&subscription, progress)?;
        }
        Ok(())
    }

    pub fn delete_topic(&self, name: &ResourceName) -> Result<(), PortError> {
        let topic = self.topic(name)?;
        if topic.configured {
            return Err(PortError::FailedPrecondition(format!(
                "the topic {name} is named in the project folder: delete it there"
            )));
        }
        // First of all: what comes after it is made good at the next start if it fails.
        self.documents.remove(Kind::Topic, topic.number)?;
        self.bus.inner.stop_deduplication(&topic.log);
        let left: Vec<_> = {
            let mut catalog = self.catalog.write();
            catalog.topics.remove(name);
            for snapshot in catalog.snapshots.values_mut().filter(|s| s.log.id == topic.log.id) {
                snapshot.spec.topic = None;
            }
            catalog.subscriptions.values().filter(|s| s.log.id == topic.log.id).cloned().collect()
        };
        for subscription in left {
            let spec = crate::port::SubscriptionSpec { topic: None, ..(*subscription.spec()).clone() };
            self.keep_subscription(&subscription, &spec)?;
            subscription.set_spec(spec);
        }
        self.keep_what_is_needed();
        Ok(())
    }

    /// Replaces the document of a subscription.
    pub fn keep_subscription(
        &self,
        subscription: &crate::embedded::subscription::Subscription,
        spec: &crate::port::SubscriptionSpec,
    ) -> Result<(), PortError> {
        let number = subscription.number;
        let kept: Option<SubscriptionDocument> = self.documents.get(Kind::Subscription, number)?;
        let kept =
            kept.ok_or_else(|| PortError::Internal(format!("the subscription {} is gone", spec.name)))?;
        let document = SubscriptionDocument { spec: spec.clone(), ..kept };
        Ok(self.documents.put(Kind::Subscription, number, &document)?)
    }

    pub async fn publish(
        self: Arc<Self>,
        topic: Topic,
        items: Vec<Publication>,
    ) -> Result<Vec<Result<u64, Problem>>, PortError> {
        let now_ms = self.bus.inner.clock.now_ms();
        let mut outcomes: Vec<Option<Result<u64, Problem>>> = Vec::with_capacity(items.len());
        let mut publishes = Vec::with_capacity(items.len());
        for Publication { context, message, deduplicate } in items {
            match schedule::due_ms(&message.attributes, now_ms) {
                Ok(_) => {
                    outcomes.push(None);
                    let publish = Publish { context, message, idempotency_key: None };
                    publishes.push(Submission { publish, deduplicate });
                }
                Err(problem) => outcomes.push(Some(Err(problem))),
            }
        }
        let mut published = self.bus.inner.publish(&topic.log, publishes).await?.into_iter();
        self.tell_of_backlog(&topic.log);
        let answer = |outcome: Option<Result<u64, Problem>>| match outcome {
            Some(refused) => refused,
            None => match published.next() {
                Some(result) => result.map(|published| published.offset),
                None => Err(Problem::new(500, "internal", "the publish gave no result")),
            },
        };
        Ok(outcomes.into_iter().map(answer).collect())
    }
}

impl Embedded {
    /// Has subscriptions look at a topic that has grown a good deal, also those whose consumers
    /// take nothing now.
    fn tell_of_backlog(self: &Arc<Self>, topic: &TopicState) {
        let (end, told) = (topic.committed.load(Ordering::Acquire), topic.told.load(Ordering::Acquire));
        if end < told + TELL_RECORDS {
            return;
        }
        topic.told.store(end, Ordering::Release);
        let catalog = self.catalog.read();
        for subscription in catalog.subscriptions.values().filter(|s| s.log.id == topic.id) {
            self.catch_up(subscription);
        }
    }
}

/// Sets when publishes are answered, and shows it where it is not the default.
pub(super) fn set_durability(log: &TopicState, durability: Durability) {
    let before = std::mem::replace(&mut *log.durability.lock(), durability.into());
    for class in [Durability::Interval, Durability::Memory] {
        if class == durability || class == before.into() {
            let is_set = if class == durability { 1.0 } else { 0.0 };
            ::metrics::gauge!(names::TOPIC_DURABILITY, "topic" => log.label(), "durability" => class.as_str())
                .set(is_set);
        }
    }
}

/// Refuses settings that nothing here would keep its promise by.
fn check(spec: &TopicSpec) -> Result<(), PortError> {
    let Some(Deduplication { attribute, window }) = &spec.deduplication else { return Ok(()) };
    if attribute.is_empty() || attribute.len() > MAX_ATTRIBUTE_BYTES {
        return Err(PortError::InvalidArgument(format!(
            "deduplication needs the name of an attribute, of at most {MAX_ATTRIBUTE_BYTES} bytes"
        )));
    }
    if *window < MIN_WINDOW || *window > MAX_WINDOW {
        return Err(PortError::InvalidArgument(format!(
            "a deduplication window of {} s is not between 1 s and 7 days",
            window.as_secs_f64()
        )));
    }
    Ok(())
}
