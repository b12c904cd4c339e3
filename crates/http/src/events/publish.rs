//! The events of one request, grouped by topic, published together, answered in order.

use std::collections::BTreeMap;

use futures::future::join_all;
use levada_bus::{BusError, Publish, Published, TopicConfig};
use levada_core::{Problem, TenantId, TopicName};
use levada_telemetry::{Outcome, RequestTrace};

use super::Counted;
use crate::problem::bus_problem;
use crate::state::AppState;

/// Where an event of the request stands.
enum Slot {
    Refused(Option<TenantId>, Problem),
    /// The n-th message of a group.
    Planned {
        group: usize,
        nth: usize,
    },
}

struct Group {
    topic: TopicName,
    messages: Vec<Publish>,
}

/// What a request wants to publish.
pub struct Plan {
    slots: Vec<Slot>,
    groups: Vec<Group>,
}

impl Plan {
    pub fn with_capacity(events: usize) -> Self {
        Self { slots: Vec::with_capacity(events), groups: Vec::new() }
    }

    pub fn add(&mut self, topic: TopicName, publish: Publish) {
        let group = self.groups.iter().position(|g| g.topic == topic).unwrap_or_else(|| {
            let capacity = self.slots.capacity() - self.slots.len();
            self.groups.push(Group { topic, messages: Vec::with_capacity(capacity) });
            self.groups.len() - 1
        });
        let messages = &mut self.groups[group].messages;
        self.slots.push(Slot::Planned { group, nth: messages.len() });
        messages.push(publish);
    }

    pub fn refuse(&mut self, problem: Problem) {
        self.slots.push(Slot::Refused(None, problem));
    }

    /// Planned events per tenant.
    pub fn costs(&self) -> BTreeMap<TenantId, u64> {
        let mut costs: BTreeMap<TenantId, u64> = BTreeMap::new();
        for publish in self.groups.iter().flat_map(|g| &g.messages) {
            match costs.get_mut(&publish.message.tenant) {
                Some(cost) => *cost += 1,
                None => drop(costs.insert(publish.message.tenant.clone(), 1)),
            }
        }
        costs
    }

    /// Takes a tenant's events out of the plan.
    pub fn refuse_tenant(&mut self, tenant: &TenantId, problem: &Problem) {
        let mut places: Vec<Vec<Option<usize>>> = Vec::with_capacity(self.groups.len());
        for group in &mut self.groups {
            let mut kept = 0;
            places.push(
                group
                    .messages
                    .iter()
                    .map(|p| {
                        let stays = p.message.tenant != *tenant;
                        kept += usize::from(stays);
                        stays.then(|| kept - 1)
                    })
                    .collect(),
            );
            group.messages.retain(|p| p.message.tenant != *tenant);
        }
        for slot in &mut self.slots {
            if let Slot::Planned { group, nth } = slot {
                match places[*group][*nth] {
                    Some(place) => *nth = place,
                    None => *slot = Slot::Refused(Some(tenant.clone()), problem.clone()),
                }
            }
        }
    }

    /// Publishes every group and gives the outcomes in the order of the request.
    pub async fn publish(self, state: &AppState, trace: Option<&RequestTrace>) -> Vec<Counted> {
        let tenants: Vec<Vec<TenantId>> = self
            .groups
            .iter()
            .map(|g| g.messages.iter().map(|p| p.message.tenant.clone()).collect())
            .collect();
        let topics: Vec<TopicName> = self.groups.iter().map(|g| g.topic.clone()).collect();
        let published = join_all(self.groups.into_iter().map(|g| publish_group(state, g, trace))).await;
        let mut published: Vec<Vec<Option<Result<Published, Problem>>>> =
            published.into_iter().map(|g| g.into_iter().map(Some).collect()).collect();
        self.slots
            .into_iter()
            .map(|slot| match slot {
                Slot::Refused(tenant, problem) => (tenant, Err(problem)),
                Slot::Planned { group, nth } => {
                    let result = published[group].get_mut(nth).and_then(Option::take);
                    let result = result.unwrap_or_else(|| Err(no_result()));
                    let tenant = tenants[group][nth].clone();
                    (Some(tenant), result.map(|p| (topics[group].clone(), p)))
                }
            })
            .collect()
    }
}

/// Publishes one topic's events; a failure of the whole is every event's failure.
async fn publish_group(
    state: &AppState,
    group: Group,
    trace: Option<&RequestTrace>,
) -> Vec<Result<Published, Problem>> {
    let messages = group.messages.iter().map(|publish| &publish.message);
    let traced = trace.and_then(|trace| trace.publish(&group.topic, messages));
    let results = publish_in_time(state, group).await;
    if let Some(traced) = traced {
        traced.finish(results.iter().map(outcome));
    }
    results
}

fn outcome(result: &Result<Published, Problem>) -> Outcome<'_> {
    match result {
        Ok(published) if published.duplicate => Outcome::Duplicate(published.offset),
        Ok(published) => Outcome::Kept(published.offset),
        Err(problem) => Outcome::Failed(&problem.code),
    }
}

async fn publish_in_time(state: &AppState, group: Group) -> Vec<Result<Published, Problem>> {
    let count = group.messages.len();
    if count == 0 {
        return Vec::new();
    }
    let publish = ensure_and_publish(state, &group.topic, group.messages);
    let problem = match tokio::time::timeout(state.config.publish_timeout, publish).await {
        Ok(Ok(results)) => return results,
        Ok(Err(error)) => bus_problem(&error),
        Err(_) => Problem::new(
            504,
            "publish-timeout",
            "the events were not confirmed in time; they may still be kept",
        )
        .hint(
            "send them again with the same `event_id` or `idempotency_key`: what was kept is not kept twice",
        )
        .retry_after_s(1),
    };
    vec![Err(problem); count]
}

async fn ensure_and_publish(
    state: &AppState,
    topic: &TopicName,
    messages: Vec<Publish>,
) -> Result<Vec<Result<Published, Problem>>, BusError> {
    if !state.bus.has_topic(topic) {
        let (bus, name) = (state.bus.clone(), topic.clone());
        tokio::task::spawn_blocking(move || bus.ensure_topic(&name, TopicConfig::default()))
            .await
            .map_err(|_| BusError::Closed)??;
    }
    state.bus.publish(topic, messages).await
}

fn no_result() -> Problem {
    Problem::new(500, "internal", "the publish gave no result for this event")
}
