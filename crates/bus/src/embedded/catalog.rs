//! What there is: topics, subscriptions and snapshots by name.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use levada_core::{ProjectId, ResourceName, TopicName};

use crate::bus::TopicState;
use crate::embedded::Embedded;
use crate::embedded::subscription::Subscription;
use crate::port::{Page, PageRequest, PortError, SnapshotSpec, TopicSpec};

/// The most items of a page, and how many there are when nobody says.
const MAX_PAGE: usize = 1_000;
const DEFAULT_PAGE: usize = 100;

/// A topic with the settings that the port keeps of it.
#[derive(Clone)]
pub(crate) struct Topic {
    pub number: u64,
    pub spec: TopicSpec,
    pub log: Arc<TopicState>,
    /// Named by the project folder: cannot be deleted here.
    pub configured: bool,
}

#[derive(Clone)]
pub(crate) struct Snapshot {
    pub number: u64,
    pub spec: SnapshotSpec,
    pub log: Arc<TopicState>,
}

#[derive(Default)]
pub(crate) struct Catalog {
    /// Those made through the port, and settings of configured ones.
    pub topics: BTreeMap<ResourceName, Topic>,
    pub subscriptions: BTreeMap<ResourceName, Arc<Subscription>>,
    pub snapshots: BTreeMap<ResourceName, Snapshot>,
}

pub(crate) fn not_found(what: &'static str, name: &ResourceName) -> PortError {
    PortError::NotFound { what, name: name.to_string() }
}

pub(crate) fn already_exists(what: &'static str, name: &ResourceName) -> PortError {
    PortError::AlreadyExists { what, name: name.to_string() }
}

impl Embedded {
    /// The topic of a name: one of the project folder, or one that was made through the port.
    pub fn topic(&self, name: &ResourceName) -> Result<Topic, PortError> {
        let kept = self.catalog.read().topics.get(name).cloned();
        match (self.configured(name), kept) {
            (Some(log), kept) => Ok(configured_topic(name, log, kept.filter(|t| t.configured))),
            (None, Some(topic)) if !topic.configured => Ok(topic),
            _ => Err(not_found("topic", name)),
        }
    }

    /// The log's topic behind a name of the home project that the project folder uses.
    pub fn configured(&self, name: &ResourceName) -> Option<Arc<TopicState>> {
        if name.project != self.home {
            return None;
        }
        self.bus.inner.topic(&TopicName::new(name.id.as_str()).ok()?).ok()
    }

    pub fn subscription(&self, name: &ResourceName) -> Result<Arc<Subscription>, PortError> {
        let found = self.catalog.read().subscriptions.get(name).cloned();
        found.ok_or_else(|| not_found("subscription", name))
    }

    pub fn snapshot(&self, name: &ResourceName) -> Result<Snapshot, PortError> {
        let found = self.catalog.read().snapshots.get(name).cloned();
        let now_ms = self.bus.inner.clock.now_ms();
        found.filter(|s| s.spec.expires_at_ms > now_ms).ok_or_else(|| not_found("snapshot", name))
    }

    /// The topics of a project, in the order of their names.
    pub fn topics_of(&self, project: &ProjectId) -> BTreeMap<ResourceName, Topic> {
        let catalog = self.catalog.read();
        let kept = catalog.topics.iter().filter(|(name, t)| name.project == *project && !t.configured);
        let mut found: BTreeMap<_, _> = kept.map(|(name, topic)| (name.clone(), topic.clone())).collect();
        if *project == self.home {
            for (name, log) in self.bus.inner.topics.read().iter().filter(|(name, _)| !name.is_internal()) {
                let Ok(id) = levada_core::ResourceId::new(name.as_str()) else { continue };
                let name = ResourceName::new(self.home.clone(), id);
                let settings = catalog.topics.get(&name).filter(|t| t.configured).cloned();
                found.insert(name.clone(), configured_topic(&name, log.clone(), settings));
            }
        }
        found
    }
}

fn configured_topic(name: &ResourceName, log: Arc<TopicState>, settings: Option<Topic>) -> Topic {
    let (number, mut spec) =
        settings.map_or_else(|| (0, TopicSpec::new(name.clone())), |t| (t.number, t.spec));
    spec.retention = log.retention.lock().max_age;
    Topic { number, spec, log, configured: true }
}

/// One page of a sorted map, of the items that `pick` makes something of.
pub(crate) fn page<V, T>(
    items: &BTreeMap<ResourceName, V>,
    request: &PageRequest,
    pick: impl Fn(&ResourceName, &V) -> Option<T>,
) -> Page<T> {
    let size = if request.size == 0 { DEFAULT_PAGE } else { request.size.min(MAX_PAGE) };
    let lower = request.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = items
        .range::<ResourceName, _>((lower, Bound::Unbounded))
        .filter_map(|(name, item)| Some((name, pick(name, item)?)));
    let mut page = Vec::new();
    let mut last = None;
    for (name, item) in rest.by_ref().take(size) {
        last = Some(name.clone());
        page.push(item);
    }
    let next = last.filter(|_| rest.next().is_some());
    Page { items: page, next }
}
