//! Replays: a subscription beside another one that brings once more what that one got.
//!
//! A replay is named by whoever asks for it and lives in the project of its source, so that
//! who sees the one sees the other. Its consumers are ordinary ones. What it delivers is what
//! was published from its beginning until it was made; then it is finished, and stays until
//! somebody deletes it or it expires.

use levada_core::{Principal, Problem, ResourceId, ResourceName};

use super::change::check_rate;
use super::{SubscriptionAdmin, SubscriptionReport, problem};
use crate::port::{Replay, SeekTo, SubscriptionSpec};

/// A replay to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// Its name, in the project of its source.
    pub id: ResourceId,
    /// As far back as the topic has messages, or the state that a snapshot remembers.
    pub from: SeekTo,
    /// Messages a second at most; `None`: as fast as its consumers take them.
    pub rate_per_s: Option<u32>,
}

impl SubscriptionAdmin {
    /// Makes a replay of a subscription. It takes topic, tenant, filter and ordering of its
    /// source, and begins with the source's deadline, retries, dead letter and weights.
    ///
    /// # Errors
    /// `subscription-unknown`, `snapshot-unknown` (404), `body-invalid` (422) for a rate out of
    /// bounds or a replay of a replay, `subscription-state` (409) for a name that is taken or a
    /// source that is detached.
    pub async fn replay(
        &self,
        principal: &Principal,
        source: &ResourceName,
        replay: NewReplay,
    ) -> Result<SubscriptionReport, Problem> {
        let seen = self.find(principal, source)?;
        check_rate(replay.rate_per_s)?;
        if let SeekTo::Snapshot(snapshot) = &replay.from {
            let found = self.port.snapshot(snapshot).map_err(|_| snapshot_unknown(snapshot))?;
            if !self.sees(principal, &found.name.project, found.tenant.as_ref()) {
                return Err(snapshot_unknown(snapshot));
            }
        }
        let of = &seen.spec;
        let name = ResourceName::new(source.project.clone(), replay.id);
        let plain = SubscriptionSpec::new(name.clone(), of.topic.clone().unwrap_or_else(|| name.clone()));
        let spec = SubscriptionSpec {
            topic: of.topic.clone(),
            ack_deadline: of.ack_deadline,
            exactly_once: of.exactly_once,
            retry: of.retry,
            dead_letter: of.dead_letter.clone(),
            weights: of.weights.clone(),
            max_rate_per_s: replay.rate_per_s,
            replay: Some(Replay { source: source.clone(), until: 0 }),
            ..plain
        };
        self.port.create_replay(spec, replay.from).await.map_err(|error| problem(&error))?;
        tracing::info!(actor = %principal.id, subscription = %source, replay = %name, "replay made");
        Ok(self.find(principal, &name)?.report(principal))
    }
}

fn snapshot_unknown(name: &ResourceName) -> Problem {
    Problem::new(404, "snapshot-unknown", format!("there is no snapshot `{name}`"))
        .hint("name one of the subscription's topic; the Pub/Sub API lists the snapshots of a project")
}
