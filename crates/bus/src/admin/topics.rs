//! Operating topics: what Google's API has no field for, durability, deduplication and the scope of
//! ordering keys.
//!
//! Who sees and changes what is the rule of the Pub/Sub edge: a tenant's project is that
//! tenant's; the platform's topics are seen by everybody and changed by callers for all tenants.

use std::sync::Arc;

use levada_core::{Principal, Problem, ProjectId, ResourceName, TenantId, TenantSet};

use super::{OwnerOf, ProjectOwner, SubscriptionAdmin};
use crate::port::{BusPort, Deduplication, Durability, KeyScope, Page, PageRequest, PortError, TopicSpec};

/// Operates the topics of a bus. Cheap to clone.
#[derive(Clone)]
pub struct TopicAdmin {
    port: Arc<dyn BusPort>,
    owner_of: OwnerOf,
    /// Changes of settings take turns.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for TopicAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicAdmin").finish_non_exhaustive()
    }
}

/// A topic, as far as its reader may know.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicReport {
    pub spec: TopicSpec,
    /// The scope of ordering keys in force: the topic's, or the default of the bus.
    pub ordering: KeyScope,
    /// Whose project it is in; `None`: the platform's.
    pub tenant: Option<TenantId>,
    /// The reader may change its settings, given a role that operates.
    pub may_change: bool,
}

/// What to change of a topic; `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicChange {
    pub durability: Option<Durability>,
    /// `Some(None)` ends deduplication.
    pub deduplication: Option<Option<Deduplication>>,
    /// `Some(None)` goes back to the default.
    pub ordering: Option<Option<KeyScope>>,
}

impl SubscriptionAdmin {
    /// Operates the topics of the same bus.
    pub fn topics(&self) -> TopicAdmin {
        TopicAdmin {
            port: self.port.clone(),
            owner_of: self.owner_of.clone(),
            changing: self.changing.clone(),
        }
    }
}

impl TopicAdmin {
    /// The topics of a project in the order of their names; none of a project that the caller
    /// does not see.
    pub fn list(&self, principal: &Principal, project: &ProjectId, page: &PageRequest) -> Page<TopicReport> {
        let Some(access) = self.access(principal, project) else {
            return Page { items: Vec::new(), next: None };
        };
        let found = self.port.topics(project, page);
        let seen =
            found.items.into_iter().filter(|spec| self.port.is_visible(&spec.name, &principal.tenants));
        Page { items: seen.map(|spec| self.report(&access, spec)).collect(), next: found.next }
    }

    /// # Errors
    /// `topic-unknown` (404).
    pub fn show(&self, principal: &Principal, name: &ResourceName) -> Result<TopicReport, Problem> {
        let access = self.access(principal, &name.project).ok_or_else(|| topic_unknown(name))?;
        if !self.port.is_visible(name, &principal.tenants) {
            return Err(topic_unknown(name));
        }
        Ok(self.report(&access, self.port.topic(name).map_err(|error| problem(name, &error))?))
    }

    /// Changes settings and answers how the topic is now.
    ///
    /// # Errors
    /// `topic-unknown` (404), `tenant-forbidden` (403) for a topic of the platform, `body-invalid`
    /// (422) for a setting out of bounds, `topic-state` (409) for one that this topic cannot have.
    pub async fn change(
        &self,
        principal: &Principal,
        name: &ResourceName,
        change: &TopicChange,
    ) -> Result<TopicReport, Problem> {
        // One change after the other: each reads what is kept and writes it back.
        let _changing = self.changing.lock().await;
        let kept = self.show(principal, name)?;
        if !kept.may_change {
            let detail = format!("the topic `{name}` belongs to the platform");
            return Err(Problem::new(403, "tenant-forbidden", detail)
                .hint("use a key for all tenants, or a topic in a project of the tenant"));
        }
        let mut spec = kept.spec.clone();
        if let Some(durability) = change.durability {
            spec.durability = durability;
        }
        if let Some(deduplication) = &change.deduplication {
            spec.deduplication.clone_from(deduplication);
        }
        if let Some(ordering) = change.ordering {
            spec.ordering = ordering;
        }
        if spec == kept.spec {
            return Ok(kept);
        }
        let spec = self.port.update_topic(spec).await.map_err(|error| problem(name, &error))?;
        tracing::info!(
            actor = %principal.id, topic = %name, durability = ?spec.durability,
            deduplication = ?spec.deduplication, ordering = ?spec.ordering, "topic changed"
        );
        let ordering = spec.ordering.unwrap_or_else(|| self.port.default_ordering());
        Ok(TopicReport { spec, ordering, ..kept })
    }

    fn report(&self, access: &Access, spec: TopicSpec) -> TopicReport {
        let ordering = spec.ordering.unwrap_or_else(|| self.port.default_ordering());
        TopicReport { spec, ordering, tenant: access.tenant.clone(), may_change: access.may_change }
    }

    fn access(&self, principal: &Principal, project: &ProjectId) -> Option<Access> {
        let all = principal.tenants == TenantSet::All;
        match (self.owner_of)(project) {
            Some(ProjectOwner::Tenant(tenant)) => principal
                .tenants
                .contains(&tenant)
                .then_some(Access { tenant: Some(tenant), may_change: true }),
            Some(ProjectOwner::Platform) => Some(Access { tenant: None, may_change: all }),
            // What a project left behind that is declared no more.
            None => all.then_some(Access { tenant: None, may_change: true }),
        }
    }
}

struct Access {
    tenant: Option<TenantId>,
    may_change: bool,
}

/// One and the same for a topic that does not exist and one in another tenant's project.
pub fn topic_unknown(name: &ResourceName) -> Problem {
    Problem::new(404, "topic-unknown", format!("there is no topic `{name}`"))
        .hint("GET /v1/pubsub/topics/{project} lists the topics of a project")
}

fn problem(name: &ResourceName, error: &PortError) -> Problem {
    match error {
        PortError::NotFound { .. } => topic_unknown(name),
        PortError::FailedPrecondition(text) => Problem::new(409, "topic-state", text),
        other => super::problem(other),
    }
}
