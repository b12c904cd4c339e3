//! A bus in memory, simple and slow: what the API is tested against on its own. It keeps
//! Pub/Sub's rules of delivery with plain scans and nothing durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use levada_bus::port::*;
use levada_core::{Message, Problem, ProjectId, ResourceName, TenantId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Clone)]
struct Kept {
    id: u64,
    at_ms: i64,
    message: Message,
}

#[derive(Default)]
struct Topic {
    spec: Option<TopicSpec>,
    messages: Vec<Kept>,
}

struct Subscription {
    spec: Arc<SubscriptionSpec>,
    from: u64,
    /// Message id to whether it is settled.
    acked: HashMap<u64, ()>,
    leases: HashMap<u64, (u64, Instant)>,
    attempts: HashMap<u64, u32>,
    topic: ResourceName,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<ResourceName, Topic>,
    subscriptions: BTreeMap<ResourceName, Subscription>,
    snapshots: BTreeMap<ResourceName, (SnapshotSpec, HashMap<u64, ()>, u64)>,
    next_id: u64,
    next_ack: u64,
}

/// The bus.
#[derive(Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
    changes: Arc<watch::Sender<u64>>,
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn not_found(what: &'static str, name: &ResourceName) -> PortError {
    PortError::NotFound { what, name: name.to_string() }
}

impl Default for MemoryBus {
    fn default() -> Self {
        let state = State { next_id: 1, next_ack: 1, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl MemoryBus {
    fn change<T>(
        &self,
        f: impl FnOnce(&mut State) -> Result<T, PortError>,
    ) -> BoxFuture<'static, Result<T, PortError>>
    where
        T: Send + 'static,
    {
        let result = f(&mut self.state.lock());
        self.changes.send_modify(|n| *n += 1);
        Box::pin(std::future::ready(result))
    }
}

struct Handle {
    bus: MemoryBus,
    name: ResourceName,
    opened: Arc<SubscriptionSpec>,
}

impl State {
    fn take(&mut self, name: &ResourceName, limits: &PullLimits) -> Result<Vec<Received>, PortError> {
        let State { topics, subscriptions, next_ack, next_id, .. } = self;
        let sub = subscriptions.get_mut(name).ok_or_else(|| not_found("subscription", name))?;
        let Some(topic) = topics.get(&sub.topic) else { return Ok(Vec::new()) };
        let now = Instant::now();
        sub.leases.retain(|_, (_, until)| *until > now);
        let filter = levada_bus::filter::Filter::parse(&sub.spec.filter)
            .map_err(|e| PortError::InvalidArgument(e.to_string()))?;
        let (mut out, mut bytes, mut blocked) = (Vec::new(), 0, Vec::new());
        let mut dead = Vec::new();
        for kept in
            topic.messages.iter().filter(|kept| kept.id >= sub.from && !sub.acked.contains_key(&kept.id))
        {
            let message = &kept.message;
            let other = sub.spec.tenant.as_ref().is_some_and(|tenant| *tenant != message.tenant);
            if other || !filter.matches(&message.attributes) {
                continue;
            }
            let key = message
                .ordering_key
                .as_ref()
                .filter(|_| sub.spec.ordered)
                .map(|key| (message.tenant.clone(), key));
            if let Some(key) = &key {
                if blocked.contains(key) {
                    continue;
                }
                blocked.push(key.clone());
            }
            if sub.leases.contains_key(&kept.id) {
                continue;
            }
            let attempts = sub.attempts.entry(kept.id).or_default();
            if let Some(policy) = &sub.spec.dead_letter
                && *attempts >= policy.max_delivery_attempts
            {
                dead.push((policy.topic.clone(), kept.clone(), *attempts));
                continue;
            }
            bytes += message.body.len() + message.attributes.packed().len();
            if out.len() == limits.max_messages || (!out.is_empty() && bytes > limits.max_bytes) {
                break;
            }
            *attempts += 1;
            let ack_id = AckId(*next_ack);
            *next_ack += 1;
            sub.leases
                .insert(kept.id, (ack_id.0, now + limits.ack_deadline.unwrap_or(sub.spec.ack_deadline)));
            out.push(Received {
                ack_id,
                message_id: kept.id,
                published_at_ms: kept.at_ms,
                delivery_attempt: *attempts,
                message: message.clone(),
            });
        }
        for (topic, mut kept, attempts) in dead {
            sub.acked.insert(kept.id, ());
            for (key, value) in [
                ("CloudPubSubDeadLetterSourceDeliveryCount", attempts.to_string()),
                ("CloudPubSubDeadLetterSourceSubscription", name.id.to_string()),
                ("CloudPubSubDeadLetterSourceSubscriptionProject", name.project.to_string()),
            ] {
                kept.message.attributes.set(key, &value);
            }
            if let Some(topic) = topics.get_mut(&topic) {
                topic.messages.push(Kept { id: *next_id, at_ms: now_ms(), ..kept });
                *next_id += 1;
            }
        }
        Ok(out)
    }

    /// When the next lease ends.
    fn next_expiry(&self, name: &ResourceName) -> Option<Instant> {
        self.subscriptions.get(name)?.leases.values().map(|(_, until)| *until).min()
    }

    fn settle(&mut self, name: &ResourceName, id: AckId, deadline: Option<Duration>) -> AckOutcome {
        let Some(sub) = self.subscriptions.get_mut(name) else { return AckOutcome::InvalidAckId };
        let now = Instant::now();
        let found =
            sub.leases.iter().find(|(_, (ack, until))| *ack == id.0 && *until > now).map(|(id, _)| *id);
        let Some(message) = found else { return AckOutcome::InvalidAckId };
        match deadline {
            None => {
                sub.leases.remove(&message);
                sub.acked.insert(message, ());
            }
            Some(Duration::ZERO) => {
                sub.leases.remove(&message);
            }
            Some(deadline) => {
                sub.leases.insert(message, (id.0, now + deadline));
            }
        }
        AckOutcome::Done
    }
}

impl SubscriptionPort for Handle {
    fn spec(&self) -> Arc<SubscriptionSpec> {
        let state = self.bus.state.lock();
        state.subscriptions.get(&self.name).map_or_else(|| self.opened.clone(), |sub| sub.spec.clone())
    }

    fn pull(&self, limits: PullLimits) -> BoxFuture<'_, Result<Vec<Received>, PortError>> {
        Box::pin(async move {
            let end = Instant::now() + limits.wait;
            let mut changes = self.bus.changes.subscribe();
            loop {
                changes.mark_unchanged();
                let (taken, next) = {
                    let mut state = self.bus.state.lock();
                    (state.take(&self.name, &limits)?, state.next_expiry(&self.name))
                };
                if !taken.is_empty() || Instant::now() >= end {
                    return Ok(taken);
                }
                let until = next.map_or(end, |next| next.min(end));
                let _ = tokio::time::timeout_at(until, changes.changed()).await;
            }
        })
    }

    fn acknowledge(&self, ack_ids: Vec<AckId>) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        self.bus
            .change(|state| Ok(ack_ids.into_iter().map(|id| state.settle(&self.name, id, None)).collect()))
    }

    fn modify_ack_deadlines(
        &self,
        deadlines: Vec<(AckId, Duration)>,
    ) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        self.bus.change(|state| {
            Ok(deadlines
                .into_iter()
                .map(|(id, deadline)| state.settle(&self.name, id, Some(deadline)))
                .collect())
        })
    }

    fn stats(&self) -> SubscriptionStats {
        SubscriptionStats::default()
    }

    fn blocked_keys(&self, _: usize) -> Vec<BlockedKey> {
        Vec::new()
    }

    fn unblock(&self, _: &TenantId, _: &str, _: Unblock) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async { Err(PortError::FailedPrecondition("not in memory".into())) })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let seen = self.spec();
            let mut changes = self.bus.changes.subscribe();
            loop {
                let now = self.bus.state.lock().subscriptions.get(&self.name).map(|sub| sub.spec.clone());
                if now.as_ref() != Some(&seen) || changes.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

fn page_of<T>(all: impl Iterator<Item = (ResourceName, T)>, page: &PageRequest) -> Page<T> {
    let size = if page.size == 0 { 100 } else { page.size };
    let mut rest = all.filter(|(name, _)| page.after.as_ref().is_none_or(|after| name > after)).peekable();
    let (mut items, mut last) = (Vec::new(), None);
    while items.len() < size {
        let Some((name, item)) = rest.next() else { break };
        items.push(item);
        last = Some(name);
    }
    Page { items, next: if rest.peek().is_some() { last } else { None } }
}

impl BusPort for MemoryBus {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.change(|state| {
            let topic = state.topics.entry(spec.name.clone()).or_default();
            if topic.spec.is_some() {
                return Err(PortError::AlreadyExists { what: "topic", name: spec.name.to_string() });
            }
            bounds::topic(&spec, None)?;
            topic.spec = Some(spec.clone());
            Ok(spec)
        })
    }

    fn topic(&self, name: &ResourceName) -> Result<TopicSpec, PortError> {
        let state = self.state.lock();
        state.topics.get(name).and_then(|topic| topic.spec.clone()).ok_or_else(|| not_found("topic", name))
    }

    fn update_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicSpec, PortError>> {
        self.change(|state| {
            let topic = state.topics.get_mut(&spec.name).ok_or_else(|| not_found("topic", &spec.name))?;
            bounds::topic(&spec, topic.spec.as_ref())?;
            topic.spec = Some(spec.clone());
            Ok(spec)
        })
    }

    fn delete_topic(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.change(|state| {
            let topic = state.topics.get_mut(name).filter(|topic| topic.spec.is_some());
            topic.ok_or_else(|| not_found("topic", name))?.spec = None;
            for sub in state.subscriptions.values_mut().filter(|sub| sub.topic == *name) {
                sub.spec = Arc::new(SubscriptionSpec { topic: None, ..(*sub.spec).clone() });
            }
            Ok(())
        })
    }

    fn topics(&self, project: &ProjectId, page: &PageRequest) -> Page<TopicSpec> {
        let state = self.state.lock();
        let all = state.topics.iter().filter(|(name, _)| name.project == *project);
        page_of(all.filter_map(|(name, topic)| Some((name.clone(), topic.spec.clone()?))), page)
    }

    fn topic_subscriptions(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.topic(topic)?;
        let state = self.state.lock();
        let all = state.subscriptions.iter().filter(|(_, sub)| sub.spec.topic.as_ref() == Some(topic));
        Ok(page_of(all.map(|(name, _)| (name.clone(), name.clone())), page))
    }

    fn topic_snapshots(
        &self,
        topic: &ResourceName,
        page: &PageRequest,
    ) -> Result<Page<ResourceName>, PortError> {
        self.topic(topic)?;
        let state = self.state.lock();
        let all = state.snapshots.iter().filter(|(_, (spec, ..))| spec.topic.as_ref() == Some(topic));
        Ok(page_of(all.map(|(name, _)| (name.clone(), name.clone())), page))
    }

    fn publish(
        &self,
        topic: &ResourceName,
        items: Vec<Publication>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, Problem>>, PortError>> {
        self.change(|state| {
            let kept = state.topics.get_mut(topic).filter(|kept| kept.spec.is_some());
            let kept = kept.ok_or_else(|| not_found("topic", topic))?;
            let ids = items.into_iter().map(|item| {
                let id = state.next_id;
                state.next_id += 1;
                kept.messages.push(Kept { id, at_ms: now_ms(), message: item.message });
                Ok(id)
            });
            Ok(ids.collect())
        })
    }

    fn create_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.change(|state| {
            if let Err(error) = levada_bus::filter::Filter::parse(&spec.filter) {
                return Err(PortError::InvalidArgument(error.to_string()));
            }
            if state.subscriptions.contains_key(&spec.name) {
                return Err(PortError::AlreadyExists { what: "subscription", name: spec.name.to_string() });
            }
            bounds::subscription(&spec, None)?;
            let topic = spec.topic.clone().ok_or_else(|| PortError::InvalidArgument("no topic".into()))?;
            let sub = Subscription {
                spec: Arc::new(spec.clone()),
                from: state.next_id,
                acked: HashMap::new(),
                leases: HashMap::new(),
                attempts: HashMap::new(),
                topic,
            };
            state.subscriptions.insert(spec.name.clone(), sub);
            Ok(spec)
        })
    }

    fn create_replay(
        &self,
        _spec: SubscriptionSpec,
        _from: SeekTo,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        let refusal = PortError::FailedPrecondition("the Pub/Sub API has no replays".to_owned());
        Box::pin(std::future::ready(Err(refusal)))
    }

    fn subscription(&self, name: &ResourceName) -> Result<Arc<dyn SubscriptionPort>, PortError> {
        let state = self.state.lock();
        let sub = state.subscriptions.get(name).ok_or_else(|| not_found("subscription", name))?;
        Ok(Arc::new(Handle { bus: self.clone(), name: name.clone(), opened: sub.spec.clone() }))
    }

    fn update_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> BoxFuture<'_, Result<SubscriptionSpec, PortError>> {
        self.change(|state| {
            let sub = state
                .subscriptions
                .get_mut(&spec.name)
                .ok_or_else(|| not_found("subscription", &spec.name))?;
            bounds::subscription(&spec, Some(&sub.spec))?;
            sub.spec = Arc::new(spec.clone());
            Ok(spec)
        })
    }

    fn delete_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.change(|state| {
            state.subscriptions.remove(name).map(|_| ()).ok_or_else(|| not_found("subscription", name))
        })
    }

    fn detach_subscription(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.change(|state| {
            let sub = state.subscriptions.get_mut(name).ok_or_else(|| not_found("subscription", name))?;
            sub.spec = Arc::new(SubscriptionSpec { detached: true, ..(*sub.spec).clone() });
            Ok(())
        })
    }

    fn subscriptions(&self, project: &ProjectId, page: &PageRequest) -> Page<SubscriptionSpec> {
        let state = self.state.lock();
        let all = state.subscriptions.iter().filter(|(name, _)| name.project == *project);
        page_of(all.map(|(name, sub)| (name.clone(), (*sub.spec).clone())), page)
    }

    fn seek(&self, subscription: &ResourceName, to: SeekTo) -> BoxFuture<'_, Result<(), PortError>> {
        self.change(|state| {
            let State { topics, subscriptions, snapshots, .. } = state;
            let sub =
                subscriptions.get_mut(subscription).ok_or_else(|| not_found("subscription", subscription))?;
            sub.leases.clear();
            match to {
                SeekTo::TimeMs(ms) => {
                    sub.acked.clear();
                    sub.from = 0;
                    let messages =
                        topics.get(&sub.topic).map(|topic| topic.messages.as_slice()).unwrap_or_default();
                    sub.acked
                        .extend(messages.iter().filter(|kept| kept.at_ms < ms).map(|kept| (kept.id, ())));
                }
                SeekTo::Snapshot(name) => {
                    let (_, acked, from) =
                        snapshots.get(&name).ok_or_else(|| not_found("snapshot", &name))?;
                    (sub.acked, sub.from) = (acked.clone(), *from);
                }
            }
            Ok(())
        })
    }

    fn create_snapshot(
        &self,
        name: ResourceName,
        subscription: &ResourceName,
        labels: BTreeMap<String, String>,
    ) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        self.change(|state| {
            let sub = state
                .subscriptions
                .get(subscription)
                .ok_or_else(|| not_found("subscription", subscription))?;
            if state.snapshots.contains_key(&name) {
                return Err(PortError::AlreadyExists { what: "snapshot", name: name.to_string() });
            }
            let spec = SnapshotSpec {
                name: name.clone(),
                topic: sub.spec.topic.clone(),
                tenant: sub.spec.tenant.clone(),
                expires_at_ms: now_ms() + 7 * 24 * 3_600_000,
                labels,
            };
            bounds::snapshot(&spec, None)?;
            state.snapshots.insert(name, (spec.clone(), sub.acked.clone(), sub.from));
            Ok(spec)
        })
    }

    fn snapshot(&self, name: &ResourceName) -> Result<SnapshotSpec, PortError> {
        let state = self.state.lock();
        state.snapshots.get(name).map(|(spec, ..)| spec.clone()).ok_or_else(|| not_found("snapshot", name))
    }

    fn update_snapshot(&self, spec: SnapshotSpec) -> BoxFuture<'_, Result<SnapshotSpec, PortError>> {
        self.change(|state| {
            let kept =
                state.snapshots.get_mut(&spec.name).ok_or_else(|| not_found("snapshot", &spec.name))?;
            bounds::snapshot(&spec, Some(&kept.0))?;
            kept.0 = spec.clone();
            Ok(spec)
        })
    }

    fn delete_snapshot(&self, name: &ResourceName) -> BoxFuture<'_, Result<(), PortError>> {
        self.change(|state| {
            state.snapshots.remove(name).map(|_| ()).ok_or_else(|| not_found("snapshot", name))
        })
    }

    fn snapshots(&self, project: &ProjectId, page: &PageRequest) -> Page<SnapshotSpec> {
        let state = self.state.lock();
        let all = state.snapshots.iter().filter(|(name, _)| name.project == *project);
        page_of(all.map(|(name, (spec, ..))| (name.clone(), spec.clone())), page)
    }
}
