//! A subscription whose deliveries are followed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use levada_bus::port::{
    AckId, AckOutcome, BlockedKey, PortError, PullLimits, Received, SubscriptionPort, SubscriptionSpec,
    SubscriptionStats, Unblock,
};
use levada_core::TenantId;

use crate::traced::leases::{End, Leases};
use crate::tracer::Tracer;

/// See the module.
pub struct TracedSubscription {
    inner: Arc<dyn SubscriptionPort>,
    tracer: Tracer,
    leases: Arc<Leases>,
    topic: Arc<str>,
}

impl TracedSubscription {
    pub fn new(inner: Arc<dyn SubscriptionPort>, tracer: Tracer, leases: Arc<Leases>) -> Self {
        let topic = inner.spec().topic.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { inner, tracer, leases, topic: topic.into() }
    }
}

impl SubscriptionPort for TracedSubscription {
    fn spec(&self) -> Arc<SubscriptionSpec> {
        self.inner.spec()
    }

    fn pull(&self, limits: PullLimits) -> BoxFuture<'_, Result<Vec<Received>, PortError>> {
        let pulled = self.inner.pull(limits);
        Box::pin(async move {
            let received = pulled.await?;
            if !received.is_empty() {
                let lease = limits.ack_deadline.unwrap_or_else(|| self.inner.spec().ack_deadline);
                self.leases.delivered(&self.tracer, &self.topic, &received, lease);
            }
            Ok(received)
        })
    }

    fn acknowledge(&self, ack_ids: Vec<AckId>) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        if self.leases.is_empty() {
            return self.inner.acknowledge(ack_ids);
        }
        let acknowledged = self.inner.acknowledge(ack_ids.clone());
        Box::pin(async move {
            let outcomes = acknowledged.await?;
            let ends = ack_ids.into_iter().zip(&outcomes).filter_map(|(id, outcome)| match outcome {
                AckOutcome::Done => Some((id, End::Acked)),
                AckOutcome::InvalidAckId => Some((id, End::Expired)),
                AckOutcome::TransientFailure => None,
            });
            self.leases.settle(&self.tracer, ends);
            Ok(outcomes)
        })
    }

    fn modify_ack_deadlines(
        &self,
        deadlines: Vec<(AckId, Duration)>,
    ) -> BoxFuture<'_, Result<Vec<AckOutcome>, PortError>> {
        if self.leases.is_empty() {
            return self.inner.modify_ack_deadlines(deadlines);
        }
        let modified = self.inner.modify_ack_deadlines(deadlines.clone());
        Box::pin(async move {
            let outcomes = modified.await?;
            let (mut longer, mut over) = (Vec::new(), Vec::new());
            for ((id, deadline), outcome) in deadlines.into_iter().zip(&outcomes) {
                match outcome {
                    AckOutcome::Done if deadline.is_zero() => over.push((id, End::Nacked)),
                    AckOutcome::Done => longer.push((id, deadline)),
                    AckOutcome::InvalidAckId => over.push((id, End::Expired)),
                    AckOutcome::TransientFailure => {}
                }
            }
            self.leases.extend(&self.tracer, longer.into_iter());
            self.leases.settle(&self.tracer, over.into_iter());
            Ok(outcomes)
        })
    }

    fn stats(&self) -> SubscriptionStats {
        self.inner.stats()
    }

    fn survey(&self) -> Result<(), PortError> {
        self.inner.survey()
    }

    fn blocked_keys(&self, limit: usize) -> Vec<BlockedKey> {
        self.inner.blocked_keys(limit)
    }

    fn unblock(&self, tenant: &TenantId, key: &str, how: Unblock) -> BoxFuture<'_, Result<(), PortError>> {
        self.inner.unblock(tenant, key, how)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }
}
