//! Replays: what a subscription got is delivered once more, to a subscription beside it.

use crate::delivery::Settled;
use crate::embedded::Embedded;
use crate::embedded::subscription::Subscription;
use crate::port::{PortError, Replay, SeekTo, SubscriptionSpec};

impl Embedded {
    /// Blocks on the disk.
    pub fn create_replay(
        &self,
        spec: SubscriptionSpec,
        from: &SeekTo,
    ) -> Result<SubscriptionSpec, PortError> {
        let replay = spec.replay.as_ref().ok_or_else(|| {
            PortError::InvalidArgument(format!("{} does not say which subscription it replays", spec.name))
        })?;
        let source = self.subscription(&replay.source)?;
        let of = source.spec();
        if let Some(Replay { source, .. }) = &of.replay {
            return Err(PortError::InvalidArgument(format!(
                "{} is a replay itself: replay {source}",
                of.name
            )));
        }
        if of.detached {
            return Err(PortError::FailedPrecondition(format!("the subscription {} is detached", of.name)));
        }
        let until = self.bus.inner.durable_end_of(&source.log)?;
        let settled = match from {
            SeekTo::TimeMs(at_ms) => {
                let first = self.bus.inner.log.offset_at(source.log.id, *at_ms)?;
                Settled::below(first.min(until))
            }
            SeekTo::Snapshot(snapshot) => self.snapshot_of(&source, snapshot)?,
        };
        let spec = SubscriptionSpec {
            topic: of.topic.clone(),
            tenant: of.tenant.clone(),
            filter: of.filter.clone(),
            ordered: of.ordered,
            replay: Some(Replay { source: of.name.clone(), until }),
            detached: false,
            ..spec
        };
        self.begin(spec, source.log.clone(), settled)
    }

    /// The offset behind the last message that may be for a subscription, as far as this
    /// process knows.
    pub fn end_for(&self, subscription: &Subscription) -> u64 {
        self.bus.inner.end_of(&subscription.log).min(subscription.until)
    }
}
