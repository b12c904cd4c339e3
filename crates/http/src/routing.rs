//! Which topic an event goes to.

use levada_core::{Problem, TenantId, TenantSet, TopicName};

use crate::problem::topic_unknown;

/// Topic of events that no rule names.
pub const DEFAULT_TOPIC: &str = "events";

/// The port by which the gateway asks. Called on the path of every event: no IO.
pub trait Route: Send + Sync {
    /// The topic of an event.
    ///
    /// # Errors
    /// `topic-unknown` when the event names a topic that does not exist or is not its
    /// tenant's: the answer is the same for both.
    fn route(
        &self,
        event_type: &str,
        tenant: &TenantId,
        explicit_topic: Option<&str>,
    ) -> Result<TopicName, Problem>;

    /// Whether a holder of those tenants may know of the topic and read its own lanes.
    /// A dead-letter topic is seen by those who see its topic.
    fn is_visible(&self, topic: &TopicName, tenants: &TenantSet) -> bool;
}

/// Events of these types go to this topic.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// `None`: every tenant's events.
    pub tenant: Option<TenantId>,
    pub topic: TopicName,
    /// Exact types, or prefixes ending in `*`. Empty: only events that name the topic.
    pub event_types: Vec<String>,
}

/// Rules of a project. A tenant's own rule comes before a shared one, an exact type before
/// a prefix, a longer prefix before a shorter one, and the first written before the next.
#[derive(Debug, Clone)]
pub struct Routes {
    rules: Vec<RouteRule>,
    default: TopicName,
}

impl Routes {
    pub fn new(rules: Vec<RouteRule>) -> Self {
        let default = TopicName::new(DEFAULT_TOPIC).expect("the default topic has a valid name");
        Self { rules, default }
    }

    /// Every topic that an event can reach, the default one included.
    pub fn topics(&self) -> Vec<TopicName> {
        let mut topics: Vec<TopicName> = self.rules.iter().map(|r| r.topic.clone()).collect();
        topics.push(self.default.clone());
        topics.sort();
        topics.dedup();
        topics
    }

    fn named(&self, name: &str, tenant: &TenantId) -> Option<TopicName> {
        let serves =
            |r: &&RouteRule| r.topic.as_str() == name && r.tenant.as_ref().is_none_or(|t| t == tenant);
        let ruled = self.rules.iter().find(serves).map(|r| r.topic.clone());
        ruled.or_else(|| (name == self.default.as_str()).then(|| self.default.clone()))
    }
}

impl Route for Routes {
    fn route(
        &self,
        event_type: &str,
        tenant: &TenantId,
        explicit_topic: Option<&str>,
    ) -> Result<TopicName, Problem> {
        if let Some(name) = explicit_topic {
            return self.named(name, tenant).ok_or_else(|| Problem { status: 422, ..topic_unknown(name) });
        }
        let mut best: Option<((bool, usize), &RouteRule)> = None;
        for rule in &self.rules {
            if rule.tenant.as_ref().is_some_and(|t| t != tenant) {
                continue;
            }
            let Some(fit) = rule.event_types.iter().filter_map(|p| fit(p, event_type)).max() else {
                continue;
            };
            let rank = (rule.tenant.is_some(), fit);
            if best.is_none_or(|(held, _)| rank > held) {
                best = Some((rank, rule));
            }
        }
        Ok(best.map_or_else(|| self.default.clone(), |(_, rule)| rule.topic.clone()))
    }

    fn is_visible(&self, topic: &TopicName, tenants: &TenantSet) -> bool {
        let name = topic.as_str().strip_suffix("-dlq").unwrap_or(topic.as_str());
        let mut owners = self.rules.iter().filter(|r| r.topic.as_str() == name).peekable();
        if name == self.default.as_str() || *tenants == TenantSet::All {
            return true;
        }
        owners.any(|r| r.tenant.as_ref().is_none_or(|t| tenants.contains(t)))
    }
}

/// How exactly a pattern fits: the length of what it fixes, above all others where it fixes all.
fn fit(pattern: &str, event_type: &str) -> Option<usize> {
    match pattern.strip_suffix('*') {
        Some(prefix) => event_type.starts_with(prefix).then_some(prefix.len()),
        None => (pattern == event_type).then_some(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a valid id")
    }

    fn rule(owner: Option<&str>, topic: &str, types: &[&str]) -> RouteRule {
        RouteRule {
            tenant: owner.map(tenant),
            topic: TopicName::new(topic).expect("a valid name"),
            event_types: types.iter().map(|t| (*t).to_owned()).collect(),
        }
    }

    fn routes() -> Routes {
        Routes::new(vec![
            rule(None, "all-orders", &["order.*"]),
            rule(None, "paid", &["order.paid", "order.p*"]),
            rule(None, "by-name", &[]),
            rule(Some("acme"), "acme-orders", &["order.*"]),
        ])
    }

    #[test]
    fn the_most_particular_rule_wins() {
        let routes = routes();
        let to = |event_type: &str, t: &str| {
            routes.route(event_type, &tenant(t), None).map(|topic| topic.to_string()).expect("routed")
        };
        assert_eq!(to("order.created", "other"), "all-orders");
        assert_eq!(to("order.paid", "other"), "paid");
        assert_eq!(to("order.pending", "other"), "paid", "the longer prefix");
        assert_eq!(to("order.paid", "acme"), "acme-orders", "a tenant's own rule comes first");
        assert_eq!(to("user.created", "acme"), "events");
    }

    #[test]
    fn of_two_topics_that_ask_for_one_type_the_first_written_gets_it() {
        let tied = Routes::new(vec![
            rule(None, "first", &["order.*", "order.paid"]),
            rule(None, "second", &["order.paid", "order.*"]),
            rule(Some("acme"), "acme-late", &["order.*"]),
        ]);
        for (event_type, owner, topic) in [
            ("order.paid", "other", "first"),
            ("order.placed", "other", "first"),
            ("order.placed", "acme", "acme-late"),
        ] {
            let to = tied.route(event_type, &tenant(owner), None).map(|t| t.to_string());
            assert_eq!(to.as_deref(), Ok(topic), "{event_type} of {owner}");
        }
    }

    #[test]
    fn a_named_topic_must_be_one_of_the_tenants_own_or_shared() {
        let routes = routes();
        let to =
            |name: &str, t: &str| routes.route("x", &tenant(t), Some(name)).map(|topic| topic.to_string());
        assert_eq!(to("by-name", "other"), Ok("by-name".into()));
        assert_eq!(to("events", "other"), Ok("events".into()));
        assert_eq!(to("acme-orders", "acme"), Ok("acme-orders".into()));
        let foreign = to("acme-orders", "other").expect_err("another tenant's");
        let unknown = to("acme-orderz", "other").expect_err("unknown");
        assert_eq!((foreign.status, foreign.code), (unknown.status, unknown.code));
        assert!(to("paid-dlq", "other").is_err(), "nobody publishes into dead letters");
    }

    #[test]
    fn a_tenants_topic_is_visible_to_its_holders_only() {
        let routes = routes();
        let sees = |topic: &str, t: &str| {
            routes.is_visible(&TopicName::new(topic).expect("a name"), &TenantSet::Only([tenant(t)].into()))
        };
        assert!(sees("acme-orders", "acme") && sees("acme-orders-dlq", "acme"));
        assert!(!sees("acme-orders", "other") && !sees("acme-orders-dlq", "other"));
        assert!(sees("paid", "other") && sees("events", "other") && !sees("nowhere", "other"));
        assert!(routes.is_visible(&TopicName::new("nowhere").expect("a name"), &TenantSet::All));
    }
}
