//! A message: attributes and opaque bytes, owned by a tenant.
//!
//! An event is a message whose envelope fields are attributes ([`attr`]) and whose
//! payload is the body, kept byte for byte as it came.

use bytes::Bytes;

use crate::names::TenantId;

/// Attribute names of the event envelope (EV-1).
pub mod attr {
    pub const TENANT_ID: &str = "tenant_id";
    pub const EVENT_ID: &str = "event_id";
    pub const EVENT_TYPE: &str = "event_type";
    pub const SCHEMA_VERSION: &str = "schema_version";
    /// Event time, RFC 3339.
    pub const TIMESTAMP: &str = "timestamp";
    pub const SOURCE_SERVICE: &str = "source_service";
    pub const CORRELATION_ID: &str = "correlation_id";
    pub const CAUSATION_ID: &str = "causation_id";
    pub const IDEMPOTENCY_KEY: &str = "idempotency_key";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// Media type of the body; absent means `application/json`.
    pub const CONTENT_TYPE: &str = "content_type";

    // On dead letters only.
    pub const DEAD_REASON: &str = "levada.dead.reason";
    pub const DEAD_CODE: &str = "levada.dead.code";
    pub const DEAD_STAGE: &str = "levada.dead.stage";
    pub const DEAD_ATTEMPTS: &str = "levada.dead.attempts";
    pub const DEAD_PIPELINE: &str = "levada.dead.pipeline";
    pub const DEAD_TOPIC: &str = "levada.dead.topic";
    /// Offset in the topic, or `file:line` for a row of a file.
    pub const DEAD_POSITION: &str = "levada.dead.position";
    /// On a message that was sent again: `<dead letter topic>/<offset>`.
    pub const RESENT_FROM: &str = "levada.resent.from";
}

/// Attributes in the order given. Small (about ten), so a list beats a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(Box<str>, Box<str>)>);

impl Attributes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
    }

    /// Sets an attribute, replacing the value of one of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(k, _)| &**k == name) {
            Some(slot) => slot.1 = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
    }

    /// Adds an attribute that the caller knows to be absent.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.into(), value.into()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(k, _)| &**k != name);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(items: I) -> Self {
        Self(items.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// A message on its way into a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The lane.
    pub tenant: TenantId,
    pub attributes: Attributes,
    /// Messages of one non-empty key are delivered in order.
    pub ordering_key: Option<Box<str>>,
    /// The original bytes.
    pub body: Bytes,
}
