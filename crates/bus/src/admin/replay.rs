//! Replays: a subscription beside another one that brings once more what that one got.
//!
//! A replay is named by whoever asks for it and lives in the project of its source, so that
//! who sees the one sees the other. Its consumers are ordinary ones. What it delivers is what
//! was published from its beginning until it was made; then it is finished, and stays until
//! somebody deletes it or it expires.

use levada_core::{Principal, Problem, ResourceId, ResourceName, TenantId, TenantSet};

use super::change::check_rate;
use super::{ProjectOwner, SubscriptionAdmin, SubscriptionReport, problem};
use crate::port::{PortError, Replay, SeekTo, SubscriptionSpec};
use crate::shared_names;

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
        mut replay: NewReplay,
    ) -> Result<SubscriptionReport, Problem> {
        let seen = self.find(principal, source)?;
        check_rate(replay.rate_per_s)?;
        if let SeekTo::Snapshot(snapshot) = &replay.from {
            let mut kept =
                self.kept(principal, snapshot).into_iter().filter_map(|name| self.port.snapshot(&name).ok());
            let found = kept.find(|found| self.sees(principal, &found.name.project, found.tenant.as_ref()));
            replay.from = SeekTo::Snapshot(found.ok_or_else(|| snapshot_unknown(snapshot))?.name);
        }
        let of = &seen.spec;
        let name = ResourceName::new(source.project.clone(), replay.id);
        let own = self.own_name(principal, &name, of.tenant.as_ref())?;
        let plain = SubscriptionSpec::new(name.clone(), of.topic.clone().unwrap_or_else(|| name.clone()));
        let spec = SubscriptionSpec {
            topic: of.topic.clone(),
            ack_deadline: of.ack_deadline,
            exactly_once: of.exactly_once,
            retry: of.retry,
            dead_letter: of.dead_letter.clone(),
            weights: of.weights.clone(),
            max_rate_per_s: replay.rate_per_s,
            replay: Some(Replay { source: of.name.clone(), until: 0 }),
            ..plain
        };
        let made = match (self.port.create_replay(spec.clone(), replay.from.clone()).await, own) {
            (Err(PortError::AlreadyExists { .. }), Some(own)) if self.find(principal, &name).is_err() => {
                self.port.create_replay(SubscriptionSpec { name: own, ..spec }, replay.from).await
            }
            (made, _) => made,
        };
        made.map_err(|error| problem(&error))?;
        tracing::info!(actor = %principal.id, subscription = %source, replay = %name, "replay made");
        Ok(self.find(principal, &name)?.report(principal))
    }

    /// Under which name a tenant's subscription is kept where another has the name that was chosen.
    fn own_name(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: Option<&TenantId>,
    ) -> Result<Option<ResourceName>, Problem> {
        let is_shared = (self.owner_of)(&name.project) == Some(ProjectOwner::Platform);
        let Some(tenant) = tenant.filter(|_| is_shared && principal.tenants != TenantSet::All) else {
            return Ok(None);
        };
        let invalid = |why: String| Problem::new(422, "body-invalid", why);
        if shared_names::is_reserved(&name.id) {
            return Err(invalid(format!(
                "`{}` is not a name for a tenant's subscription: leave out `~`",
                name.id
            )));
        }
        shared_names::own(name, tenant).map(Some).map_err(|error| invalid(error.to_string()))
    }
}

fn snapshot_unknown(name: &ResourceName) -> Problem {
    Problem::new(404, "snapshot-unknown", format!("there is no snapshot `{name}`"))
        .hint("name one of the subscription's topic; the Pub/Sub API lists the snapshots of a project")
}
