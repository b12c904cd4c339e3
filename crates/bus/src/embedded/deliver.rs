//! Pull, acknowledge, modify deadlines: the calls of a consumer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use levada_core::TenantId;
use levada_log::Stored;
use tokio::time::Instant;

use crate::codec;
use crate::delivery::{Lease, Outcome};
use crate::embedded::Embedded;
use crate::embedded::catalog::not_found;
use crate::embedded::scan::{Left, Reach};
use crate::embedded::subscription::Subscription;
use crate::port::{
    AckId, AckOutcome, BlockedKey, KeyScope, LaneDelivery, PortError, PullLimits, Received, SubscriptionPort,
    SubscriptionSpec, SubscriptionStats, Unblock,
};

/// A publish that was answered is waited for so long by a pull that does not wait.
const VISIBLE_WITHIN: Duration = Duration::from_millis(500);
/// What a record counts for beside body and attributes is small; a pull takes at most this many.
const MAX_PULL: usize = 1_000;
/// Lanes whose figures are answered.
const MAX_LANES: usize = 1_000;

/// A subscription as the port shows it.
pub(crate) struct Handle {
    pub embedded: Arc<Embedded>,
    pub subscription: Arc<Subscription>,
}

/// What one look brought.
struct Taken {
    received: Vec<Received>,
    /// When something may happen without a call.
    next: Option<Duration>,
    /// Not all of the topic is known yet.
    behind: bool,
}

impl Embedded {
    fn check_open(&self, subscription: &Subscription) -> Result<(), PortError> {
        let spec = subscription.spec();
        if subscription.is_deleted() {
            return Err(not_found("subscription", &spec.name));
        }
        if spec.detached {
            return Err(PortError::FailedPrecondition(format!(
                "The subscription is detached from its topic (resource={}).",
                spec.name
            )));
        }
        Ok(())
    }

    /// Ends leases whose time is over and moves what has failed too often. Blocks.
    pub fn expire(&self, subscription: &Subscription) {
        let spent = subscription.machine.lock().state.expire(self.now());
        self.bury(subscription, spent);
    }

    fn take(&self, subscription: &Subscription, limits: PullLimits) -> Result<Taken, PortError> {
        self.expire(subscription);
        let max = limits.max_messages.clamp(1, MAX_PULL);
        let behind = self.scan(subscription, max, Reach::Near)? != Left::Nothing;
        let (leases, next, is_kept) = {
            let now = self.now();
            let mut machine = subscription.machine.lock();
            machine.active_at = now.at;
            let machine = &mut *machine;
            let allowed = machine.rate.as_mut().map_or(max, |rate| rate.allowed(now.at).min(max));
            if allowed == 0 {
                let wait = machine.rate.as_ref().map(|rate| rate.next(now.at));
                (Vec::new(), wait, false)
            } else {
                let leases =
                    machine.state.lease(limits.consumer, allowed, limits.max_bytes, limits.ack_deadline, now);
                if let Some(rate) = &mut machine.rate {
                    rate.spend(leases.len());
                }
                // Much was looked at that is not due: go on at once.
                let next = if leases.is_empty() && machine.state.was_cut_short() {
                    Some(Duration::ZERO)
                } else {
                    machine.state.next_event(now)
                };
                (leases, next, machine.state.kept_for_others())
            }
        };
        if is_kept {
            subscription.ready.notify_waiters();
        }
        let mut loaded = self.load_leases(subscription, leases)?;
        self.give_back_beyond(subscription, limits.max_bytes, &mut loaded);
        if subscription.key_scope() == KeyScope::Global {
            let mut machine = subscription.machine.lock();
            loaded.iter().for_each(|(lease, record)| machine.state.count_for(lease.offset, record.lane));
        }
        let received =
            loaded.into_iter().filter_map(|(lease, record)| self.receive(subscription, lease, record));
        Ok(Taken { received: received.collect(), next, behind })
    }

    /// The machine knows messages by their average size: what is too much after all goes back.
    fn give_back_beyond(
        &self,
        subscription: &Subscription,
        max_bytes: usize,
        loaded: &mut Vec<(Lease, Stored)>,
    ) {
        let (mut bytes, mut fitting) = (0, 0);
        for (_, record) in loaded.iter() {
            bytes += record.head.len() + record.body.len();
            if fitting > 0 && bytes > max_bytes {
                break;
            }
            fitting += 1;
        }
        if fitting == loaded.len() {
            return;
        }
        let beyond = loaded.split_off(fitting);
        let mut machine = subscription.machine.lock();
        if let Some(rate) = &mut machine.rate {
            rate.refund(beyond.len());
        }
        let mut cache = subscription.cache.lock();
        for (lease, record) in beyond.into_iter().rev() {
            cache.keep(&record);
            machine.state.give_back(&lease);
        }
    }

    fn receive(&self, subscription: &Subscription, lease: Lease, record: Stored) -> Option<Received> {
        let published_at_ms = record.timestamp_ms;
        let delivered = self.bus.inner.deliver(&subscription.log.name, record);
        let delivered =
            delivered.inspect_err(|error| tracing::error!(%error, "a message cannot be delivered"));
        Some(Received {
            ack_id: AckId(lease.ack_id),
            message_id: lease.offset,
            published_at_ms,
            delivery_attempt: lease.attempt,
            message: delivered.ok()?.message,
        })
    }

    /// What was published before the call is there for it to see.
    pub async fn settle_publishes(&self, subscription: &Subscription) {
        let committed = subscription.log.committed.load(Ordering::Acquire);
        let mut end = self.bus.inner.log.watch(subscription.log.id);
        if *end.borrow() < committed {
            let _ = tokio::time::timeout(VISIBLE_WITHIN, end.wait_for(|end| *end >= committed)).await;
        }
    }

    async fn pull(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        limits: PullLimits,
    ) -> Result<Vec<Received>, PortError> {
        let until = Instant::now() + limits.wait;
        self.settle_publishes(subscription).await;
        let mut end = self.bus.inner.log.watch(subscription.log.id);
        loop {
            self.check_open(subscription)?;
            let ready = subscription.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            end.borrow_and_update();
            let (embedded, own) = (self.clone(), subscription.clone());
            let taken = tokio::task::spawn_blocking(move || embedded.take(&own, limits)).await;
            let taken = taken.map_err(|error| PortError::Internal(error.to_string()))??;
            if taken.behind {
                self.catch_up(subscription);
            }
            let left = until.saturating_duration_since(Instant::now());
            if !taken.received.is_empty() || left.is_zero() {
                return Ok(taken.received);
            }
            let wait = taken.next.map_or(left, |next| next.max(Duration::from_millis(1)).min(left));
            tokio::select! {
                () = &mut ready => {}
                _ = end.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Without exactly-once an acknowledgement counts at once, and is in the journal soon after.
    fn acknowledge_soon(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        ids: &[AckId],
    ) -> Vec<AckOutcome> {
        let outcomes = {
            let mut machine = subscription.machine.lock();
            machine.active_at = self.bus.inner.clock.monotonic();
            let machine = &mut *machine;
            let acknowledge = |id: &AckId| match machine.state.ack(id.0) {
                Outcome::Settled(offset) => {
                    machine.pending.push(offset);
                    AckOutcome::Done
                }
                Outcome::Kept | Outcome::Known => AckOutcome::Done,
                Outcome::Invalid => AckOutcome::InvalidAckId,
            };
            ids.iter().map(acknowledge).collect()
        };
        self.flush_soon(subscription);
        outcomes
    }

    /// With exactly-once the answer comes when the journal has it on disk.
    async fn acknowledge_surely(&self, subscription: &Subscription, ids: &[AckId]) -> Vec<AckOutcome> {
        let _writing = self.journal.writing.read().await;
        let now = self.now();
        let (begun, generation): (Vec<Outcome>, u32) = {
            let mut machine = subscription.machine.lock();
            machine.active_at = now.at;
            (ids.iter().map(|id| machine.state.begin_confirm(id.0, now)).collect(), machine.generation)
        };
        let mut offsets: Vec<u64> = begun
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Settled(offset) => Some(*offset),
                _ => None,
            })
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        let kept = if offsets.is_empty() {
            Ok(())
        } else {
            let record =
                self.journal.acknowledged(subscription.number, generation, &mut offsets, now.wall_ms);
            self.bus.inner.log.append(vec![record]).await.map(drop).map_err(|error| {
                tracing::warn!(%error, subscription = %subscription.spec().name, "acknowledgements were not kept");
            })
        };
        let mut machine = subscription.machine.lock();
        let mut outcomes = Vec::with_capacity(ids.len());
        for (id, outcome) in ids.iter().zip(begun) {
            outcomes.push(match (outcome, kept) {
                (Outcome::Invalid, _) => AckOutcome::InvalidAckId,
                (Outcome::Kept | Outcome::Known, _) => AckOutcome::Done,
                (Outcome::Settled(_), Ok(())) => AckOutcome::Done,
                (Outcome::Settled(_), Err(())) => AckOutcome::TransientFailure,
            });
            if matches!(outcome, Outcome::Settled(_)) && machine.generation == generation {
                machine.state.confirm(id.0, kept);
            }
        }
        outcomes
    }

    /// Moves deadlines; answers also what has failed too often by that.
    fn modify(
        &self,
        subscription: &Subscription,
        deadlines: &[(AckId, Duration)],
    ) -> (Vec<AckOutcome>, Vec<Lease>) {
        let now = self.now();
        let mut spent = Vec::new();
        let outcomes = {
            let mut machine = subscription.machine.lock();
            machine.active_at = now.at;
            let modify = |(id, by): &(AckId, Duration)| {
                let (outcome, failed) = machine.state.modify(id.0, *by, now);
                spent.extend(failed);
                match outcome {
                    Outcome::Invalid => AckOutcome::InvalidAckId,
                    Outcome::Settled(_) | Outcome::Kept | Outcome::Known => AckOutcome::Done,
                }
            };
            deadlines.iter().map(modify).collect()
        };
        if deadlines.iter().any(|(_, by)| by.is_zero()) {
            subscription.ready.notify_waiters();
        }
        (outcomes, spent)
    }

    fn tenant_of(&self, lane: u32) -> Option<TenantId> {
        self.bus.inner.log.lane_name(lane)
    }

    pub(super) fn stats(&self, subscription: &Subscription) -> SubscriptionStats {
        let end = self.end_for(subscription);
        let (mut stats, floor, lanes, backlog) = {
            let machine = subscription.machine.lock();
            let (state, counts) = (&machine.state, machine.state.counts());
            let unscanned = end.saturating_sub(state.scan_position());
            let stats = SubscriptionStats {
                backlog_messages: state.known_backlog() + unscanned,
                unscanned,
                leased: state.leased() as u64,
                oldest_unacked_ms: None,
                delivered: counts.delivered,
                redelivered: counts.redelivered,
                acknowledged: counts.acknowledged,
                expired: counts.expired,
                dead_lettered: machine.dead_lettered,
                blocked_keys: state.blocked(usize::MAX).len() as u64,
                replay_finished: None,
                by_tenant: Default::default(),
            };
            let lanes: BTreeMap<u32, (u64, u64)> = state.by_lane().collect();
            (stats, state.settled().floor(), lanes, state.backlog_by_lane())
        };
        stats.replay_finished = (subscription.until < u64::MAX).then_some(stats.backlog_messages == 0);
        if stats.backlog_messages > 0 {
            stats.oldest_unacked_ms = self.oldest_unacked_ms(subscription, floor, end);
        }
        for (lane, waiting) in backlog.iter().take(MAX_LANES) {
            if let Some(tenant) = self.tenant_of(*lane) {
                stats.by_tenant.entry(tenant).or_default().backlog_messages = *waiting;
            }
        }
        for (lane, (delivered, bytes)) in lanes.into_iter().take(MAX_LANES) {
            let Some(tenant) = self.tenant_of(lane) else { continue };
            let entry: &mut LaneDelivery = stats.by_tenant.entry(tenant).or_default();
            (entry.delivered, entry.delivered_bytes) = (delivered, bytes);
        }
        stats
    }

    fn blocked_keys(&self, subscription: &Subscription, limit: usize) -> Vec<BlockedKey> {
        let blocked = subscription.machine.lock().state.blocked(limit);
        let shown = blocked.into_iter().filter_map(|(blocked, attempt)| {
            let records = self.bus.inner.log.read(subscription.log.id, blocked.offset, 1, 1).ok()?;
            let record = records.first().filter(|r| r.offset == blocked.offset)?;
            let (key, _) = codec::decode(&record.head).ok()?;
            Some(BlockedKey {
                tenant: self.tenant_of(record.lane)?,
                key: key?.into(),
                message_id: blocked.offset,
                delivery_attempt: attempt,
                waiting: blocked.waiting,
                since_ms: blocked.since_ms,
            })
        });
        shown.collect()
    }

    /// The lane of a tenant that the subscription has met; a question makes no lane.
    fn lane_in(&self, subscription: &Subscription, tenant: &TenantId) -> Option<u32> {
        let known: Vec<u32> = {
            let machine = subscription.machine.lock();
            let delivered = machine.state.by_lane().map(|(lane, _)| lane);
            delivered.chain(machine.state.backlog_by_lane().into_keys()).collect()
        };
        known.into_iter().find(|lane| self.tenant_of(*lane).as_ref() == Some(tenant))
    }

    fn unblock(
        &self,
        subscription: &Subscription,
        tenant: &TenantId,
        key: &str,
        how: Unblock,
    ) -> Result<(), PortError> {
        let is_free =
            || PortError::FailedPrecondition(format!("no message of the ordering key `{key}` is under way"));
        let chain_in = |scope, lane| {
            let (_, hash) = subscription.place(scope, lane, Some(key));
            subscription.machine.lock().state.chain(hash).ok_or_else(is_free)
        };
        let (lane, (blocker, waiting)) = match subscription.key_scope() {
            KeyScope::Tenant => {
                let lane = self.lane_in(subscription, tenant).ok_or_else(is_free)?;
                (lane, chain_in(KeyScope::Tenant, lane)?)
            }
            KeyScope::Global => {
                let chain = chain_in(KeyScope::Global, 0)?;
                let records = self.bus.inner.log.read(subscription.log.id, chain.0, 1, 1)?;
                let holder = records.first().filter(|record| record.offset == chain.0).ok_or_else(is_free)?;
                // The key is everybody's, and another tenant's message may hold it.
                if self.tenant_of(holder.lane).as_ref() != Some(tenant) {
                    return Err(is_free());
                }
                (holder.lane, chain)
            }
        };
        match how {
            Unblock::Skip => self.skip(subscription, blocker),
            Unblock::Park => {
                let offsets = std::iter::once(blocker).chain(waiting).collect();
                self.park(subscription, lane, offsets)
            }
        }
    }
}

impl Handle {
    /// Runs where blocking is allowed.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Embedded, &Subscription) -> Result<T, PortError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, PortError>> {
        let (embedded, subscription) = (self.embedded.clone(), self.subscription.clone());
        let done = tokio::task::spawn_blocking(move || work(&embedded, &subscription));
        Box::pin(async move { done.await.map_err(|error| PortError::Internal(error.to_string()))? })
    }
}

impl SubscriptionPort for Handle {
    fn spec(&self) -> Arc<SubscriptionSpec> {
        self.subscription.spec()
    }

    fn pull(&self, limits: PullLimits) -> BoxFuture<'_, Result<Vec<Received>, PortError>> {
        Box::pin(self.embedded.pull(&self.subscription, limits))
    }

    fn acknowledge(&self, ack_ids: Vec<AckId>) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        let (embedded, subscription) = (self.embedded.clone(), self.subscription.clone());
        Box::pin(async move {
            embedded.check_open(&subscription)?;
            let outcomes = if subscription.spec().exactly_once {
                let own = subscription.clone();
                // To the end, also when nobody waits for it any more.
                let surely = tokio::spawn(async move { embedded.acknowledge_surely(&own, &ack_ids).await });
                surely.await.map_err(|error| PortError::Internal(error.to_string()))?
            } else {
                embedded.acknowledge_soon(&subscription, &ack_ids)
            };
            // A key or a lane may have become free.
            subscription.ready.notify_waiters();
            Ok(outcomes)
        })
    }

    fn modify_ack_deadlines(
        &self,
        deadlines: Vec<(AckId, Duration)>,
    ) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        if let Err(error) = self.embedded.check_open(&self.subscription) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (outcomes, spent) = self.embedded.modify(&self.subscription, &deadlines);
        if spent.is_empty() {
            return Box::pin(std::future::ready(Ok(outcomes)));
        }
        self.blocking(move |embedded, subscription| {
            embedded.bury(subscription, spent);
            Ok(outcomes)
        })
    }

    fn stats(&self) -> SubscriptionStats {
        self.embedded.stats(&self.subscription)
    }

    fn survey(&self) -> Result<(), PortError> {
        if self.subscription.is_deleted() || self.subscription.spec().detached {
            return Ok(());
        }
        self.embedded.scan(&self.subscription, 1, Reach::Far).map(drop)
    }

    fn blocked_keys(&self, limit: usize) -> Vec<BlockedKey> {
        self.embedded.blocked_keys(&self.subscription, limit)
    }

    fn unblock(&self, tenant: &TenantId, key: &str, how: Unblock) -> BoxFuture<'_, Result<(), PortError>> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.blocking(move |embedded, subscription| embedded.unblock(subscription, &tenant, &key, how))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        let mut changes = self.subscription.watch_changes();
        let gone = self.subscription.is_deleted();
        Box::pin(async move {
            if !gone {
                let _ = changes.changed().await;
            }
        })
    }
}
