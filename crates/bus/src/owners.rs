//! Topics that belong to some tenants alone: those of pipelines that tenants declare for themselves.
//!
//! To anybody else such a topic is not there, and no message of another tenant enters it,
//! whatever the way: a publish, a dead letter, or one that is sent again.

use std::collections::{BTreeMap, BTreeSet};

use levada_core::{Problem, TenantId, TenantSet, TopicName};
use parking_lot::RwLock;

use crate::bus::Bus;

/// By topic, the tenants that alone may know of it.
#[derive(Debug, Default)]
pub(crate) struct Owners(RwLock<BTreeMap<TopicName, BTreeSet<TenantId>>>);

impl Owners {
    pub fn admit(&self, topic: &TopicName, tenant: &TenantId) -> bool {
        self.0.read().get(topic).is_none_or(|owners| owners.contains(tenant))
    }
}

impl Bus {
    /// From now on these topics are those tenants' alone, with their dead-letter topics; they
    /// need not exist yet. All others are everybody's.
    pub fn own_topics(&self, owners: BTreeMap<TopicName, BTreeSet<TenantId>>) {
        let letters: Vec<_> = owners
            .iter()
            .filter_map(|(topic, tenants)| Some((topic.dead_letter().ok()?, tenants.clone())))
            .collect();
        *self.inner.owners.0.write() = letters.into_iter().chain(owners).collect();
    }

    /// Whether a holder of those tenants may know that the topic exists.
    pub fn is_visible(&self, topic: &TopicName, tenants: &TenantSet) -> bool {
        let owners = self.inner.owners.0.read();
        let sees = |owners: &BTreeSet<TenantId>| owners.iter().any(|owner| tenants.contains(owner));
        *tenants == TenantSet::All || owners.get(topic).is_none_or(sees)
    }
}

/// The answer to a message for a topic of other tenants: the same as for none.
pub(crate) fn unknown(topic: &TopicName) -> Problem {
    Problem::new(404, "topic-unknown", format!("there is no topic `{topic}`"))
}
