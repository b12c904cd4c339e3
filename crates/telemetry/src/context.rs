//! Trace contexts of messages: taken from their attributes, or derived from what they are.
//!
//! Messages are delivered as they came, so nothing is added to them. Where a message brings no
//! context, its trace is a hash of its tenant and correlation id, and its publish span a hash of
//! its place: a delivery finds the same ids again, days later and after any restart.
//!
//! Source: W3C Recommendation "Trace Context", level 1.

use std::fmt;

use levada_core::{Attributes, Message, TenantId, attr};

/// What Google's clients inject when they trace.
const GOOGLE_TRACEPARENT: &str = "googclient_traceparent";
const GOOGLE_TRACESTATE: &str = "googclient_tracestate";
const TRACESTATE: &str = "tracestate";
/// As the recommendation allows to cut.
const MAX_TRACESTATE_BYTES: usize = 512;
/// On messages that a dead-letter policy moved: nobody published them where they are.
const MOVED: &str = "CloudPubSubDeadLetterSourceSubscription";

/// Names a trace. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names a span of a trace. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// Hash of parts, each with its length, in a domain of its own.
fn hash(domain: &str, parts: &[&[u8]]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"levada trace 1 ").update(domain.as_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher
}

impl TraceId {
    /// The first 16 bytes of a hash of the parts.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut id = [0; 16];
        hash(domain, parts).finalize_xof().fill(&mut id);
        Self(id)
    }

    /// The trace of everything with one correlation id. Two tenants that use the same id do not
    /// share a trace.
    pub fn of_correlation(tenant: &TenantId, correlation_id: &str) -> Self {
        Self::of("correlation", &[tenant.as_str().as_bytes(), correlation_id.as_bytes()])
    }

    /// Of a message that tells nothing of where it belongs.
    pub fn of_message(topic: &str, message_id: u64) -> Self {
        Self::of("message", &[topic.as_bytes(), &message_id.to_le_bytes()])
    }
}

impl SpanId {
    /// The first 8 bytes of a hash of the parts.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut id = [0; 8];
        hash(domain, parts).finalize_xof().fill(&mut id);
        Self(id)
    }

    /// Of the publish that put a message at its place.
    pub fn of_publish(topic: &str, message_id: u64) -> Self {
        Self::of("publish", &[topic.as_bytes(), &message_id.to_le_bytes()])
    }

    /// Of the publish of an event whose context this server writes into the event itself.
    pub fn of_event(trace: TraceId, tenant: &TenantId, event_id: &str) -> Self {
        Self::of("event", &[&trace.0, tenant.as_str().as_bytes(), event_id.as_bytes()])
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A parsed `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl TraceParent {
    /// `None` where the text is no valid context. Of later versions the known part is read.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex::<1>(bytes.get(..2)?)?[0];
        let is_long = bytes.len() > 55;
        if version == 0xff || (is_long && (version == 0 || bytes[55] != b'-')) {
            return None;
        }
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let trace = TraceId(hex(bytes.get(3..35)?)?);
        let span = SpanId(hex(bytes.get(36..52)?)?);
        let flags = hex::<1>(bytes.get(53..55)?)?[0];
        let is_some = trace.0 != [0; 16] && span.0 != [0; 8];
        (dashes && is_some).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Lower-case hex of exactly N bytes.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The span of a message by an attribute: `traceparent` of events before that of Google's clients.
pub fn parent_of(attributes: &Attributes) -> Option<TraceParent> {
    let (mut own, mut google) = (None, None);
    for (name, value) in attributes.iter() {
        match name {
            attr::TRACEPARENT => own = TraceParent::parse(value),
            GOOGLE_TRACEPARENT => google = TraceParent::parse(value),
            _ => {}
        }
    }
    own.or(google)
}

/// What vendors gave along with the context; empty where it is too long to be passed on.
pub fn state_of(attributes: &Attributes) -> &str {
    let state = attributes.get(TRACESTATE).or_else(|| attributes.get(GOOGLE_TRACESTATE));
    state.filter(|state| state.len() <= MAX_TRACESTATE_BYTES).unwrap_or_default()
}

/// Where a message belongs, as far as it tells without its place.
pub fn trace_of(message: &Message, parent: Option<&TraceParent>) -> Option<TraceId> {
    if let Some(parent) = parent {
        return Some(parent.trace);
    }
    let correlation_id = message.attributes.get(attr::CORRELATION_ID)?;
    Some(TraceId::of_correlation(&message.tenant, correlation_id))
}

/// Whether the parent in an event is the publish span itself, written there by the gateway.
pub fn is_publish_of(parent: &TraceParent, message: &Message) -> bool {
    let event_id = message.attributes.get(attr::EVENT_ID);
    event_id.is_some_and(|id| SpanId::of_event(parent.trace, &message.tenant, id) == parent.span)
}

/// The span that a delivery is a child of: the publish's, where the message still is where it
/// was published to, else the one that it brought along.
pub fn publish_span_of(
    message: &Message,
    parent: Option<&TraceParent>,
    topic: &str,
    message_id: u64,
) -> Option<SpanId> {
    let brought = parent.map(|parent| parent.span);
    if parent.is_some_and(|parent| is_publish_of(parent, message)) {
        return brought;
    }
    let is_moved = |name: &str| name == MOVED || name == attr::DEAD_TOPIC;
    if topic.is_empty() || message.attributes.iter().any(|(name, _)| is_moved(name)) {
        return brought;
    }
    Some(SpanId::of_publish(topic, message_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn contexts_are_read_as_the_recommendation_says() {
        let parent = TraceParent::parse(PARENT).unwrap();
        assert_eq!(parent.to_string(), PARENT);
        assert!(parent.sampled);
        let later = PARENT.replacen("00-", "cc-", 1) + "-more";
        assert_eq!(TraceParent::parse(&later), Some(parent));
        let zero_trace = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let (longer, version) = (format!("{PARENT}-x"), PARENT.replacen("00-", "ff-", 1));
        let upper = PARENT.to_uppercase();
        for text in ["", "00-", &PARENT[..54], &zero_trace, &zero_span, &longer, &version, &upper, "é"] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    fn message(attributes: &[(&str, &str)]) -> Message {
        Message {
            tenant: TenantId::new("acme").unwrap(),
            attributes: attributes.iter().copied().collect(),
            ordering_key: None,
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_correlation_id_is_one_trace_a_tenant() {
        let plain = message(&[(attr::CORRELATION_ID, "order-7")]);
        let trace = trace_of(&plain, None).unwrap();
        assert_eq!(trace, TraceId::of_correlation(&plain.tenant, "order-7"));
        assert_ne!(trace, TraceId::of_correlation(&TenantId::new("globex").unwrap(), "order-7"));
        let google = message(&[(attr::CORRELATION_ID, "order-7"), (GOOGLE_TRACEPARENT, PARENT)]);
        let parent = parent_of(&google.attributes);
        assert_eq!(parent, TraceParent::parse(PARENT));
        assert_eq!(trace_of(&google, parent.as_ref()), parent.map(|p| p.trace));
        assert_eq!(trace_of(&message(&[]), None), None);
        let broken = message(&[(attr::TRACEPARENT, "broken"), (GOOGLE_TRACEPARENT, PARENT)]);
        assert_eq!(parent_of(&broken.attributes), parent);
    }

    #[test]
    fn a_delivery_is_below_the_publish_unless_the_message_was_moved() {
        let plain = message(&[]);
        let publish = SpanId::of_publish("p/t", 7);
        assert_eq!(publish_span_of(&plain, None, "p/t", 7), Some(publish));
        assert_eq!(publish_span_of(&plain, None, "", 7), None, "of a topic that is gone");
        let parent = TraceParent::parse(PARENT).unwrap();
        let brought = message(&[(attr::TRACEPARENT, PARENT)]);
        assert_eq!(publish_span_of(&brought, Some(&parent), "p/t", 7), Some(publish));
        let moved = message(&[(attr::TRACEPARENT, PARENT), (MOVED, "s")]);
        assert_eq!(publish_span_of(&moved, Some(&parent), "p/dead", 7), Some(parent.span));
        let span = SpanId::of_event(parent.trace, &plain.tenant, "e1");
        let own = TraceParent { span, ..parent };
        let event = message(&[(attr::EVENT_ID, "e1"), (attr::TRACEPARENT, &own.to_string())]);
        assert_eq!(publish_span_of(&event, Some(&own), "p/t", 7), Some(span));
    }
}
