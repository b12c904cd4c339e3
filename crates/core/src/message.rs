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
    /// Names the failure: a dead letter is written once under it.
    pub const DEAD_KEY: &str = "levada.dead.key";
    /// On a message that was sent again: `<dead letter topic>/<offset>`.
    pub const RESENT_FROM: &str = "levada.resent.from";
}

/// Attributes in the order given, packed into one buffer: `u16` name length, `u32` value
/// length (little endian), name, value, and so on.
///
/// The packed form is also the stored form, so that a log record is read without copying or
/// allocating per attribute. There are about ten of them; a scan beats a map.
#[derive(Clone, Default)]
pub struct Attributes(Bytes);

const PREFIX_BYTES: usize = 6;

/// The packed bytes are not a list of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attributes are malformed at byte {at}")]
pub struct MalformedAttributes {
    pub at: usize,
}

/// Walks packed attributes; `None` inside means malformed at that byte.
struct Walk<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(&'a str, &'a str), MalformedAttributes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.buf.len() {
            return None;
        }
        let item = self.step().ok_or(MalformedAttributes { at: self.at });
        if item.is_err() {
            self.at = self.buf.len();
        }
        Some(item)
    }
}

impl<'a> Walk<'a> {
    /// The next pair as it lies there: to look for a name needs no texts.
    fn raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let rest = self.buf.get(self.at..)?;
        let (name_len, rest) = rest.split_first_chunk::<2>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let name_len = usize::from(u16::from_le_bytes(*name_len));
        let value_len = usize::try_from(u32::from_le_bytes(*value_len)).ok()?;
        let name = rest.get(..name_len)?;
        let value = rest.get(name_len..name_len.checked_add(value_len)?)?;
        self.at += PREFIX_BYTES + name_len + value_len;
        Some((name, value))
    }

    fn step(&mut self) -> Option<(&'a str, &'a str)> {
        let at = self.at;
        let pair = self.raw().and_then(|(name, value)| {
            Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
        });
        if pair.is_none() {
            self.at = at;
        }
        pair
    }
}

fn pack(buf: &mut Vec<u8>, name: &str, value: &str) {
    let name = &name[..name.floor_char_boundary(usize::from(u16::MAX))];
    let value = &value[..value.floor_char_boundary(u32::MAX as usize)];
    buf.extend_from_slice(&(name.len() as u16).to_le_bytes());
    buf.extend_from_slice(&(value.len() as u32).to_le_bytes());
    buf.extend_from_slice(name.as_bytes());
    buf.extend_from_slice(value.as_bytes());
}

impl Attributes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes packed attributes as stored.
    ///
    /// # Errors
    /// [`MalformedAttributes`] unless the whole buffer is well-formed UTF-8 pairs.
    pub fn from_packed(packed: Bytes) -> Result<Self, MalformedAttributes> {
        for item in (Walk { buf: &packed, at: 0 }) {
            item?;
        }
        Ok(Self(packed))
    }

    /// The stored form.
    pub fn packed(&self) -> &Bytes {
        &self.0
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of every attribute of a name.
    fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let mut walk = Walk { buf: &self.0, at: 0 };
        let pairs = std::iter::from_fn(move || walk.raw());
        pairs.filter(move |(own, _)| *own == name.as_bytes()).map(|(_, value)| value)
    }

    /// Sets an attribute, replacing the value of one of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.push(name, value);
    }

    /// Adds an attribute that the caller knows to be absent.
    pub fn push(&mut self, name: &str, value: &str) {
        let mut buf = Vec::from(std::mem::take(&mut self.0));
        pack(&mut buf, name, value);
        self.0 = Bytes::from(buf);
    }

    pub fn remove(&mut self, name: &str) {
        if self.get(name).is_some() {
            *self = self.iter().filter(|(k, _)| *k != name).collect();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        Walk { buf: &self.0, at: 0 }.map_while(Result::ok)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(items: I) -> Self {
        let mut buf = Vec::with_capacity(256);
        for (name, value) in items {
            pack(&mut buf, name, value);
        }
        Self(Bytes::from(buf))
    }
}

impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Attributes {}

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
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

impl Message {
    /// Has the attribute [`attr::TENANT_ID`], where there is one, name the tenant that the message
    /// belongs to. Publishers write attributes freely; readers of a topic of several tenants trust
    /// this one.
    pub fn correct_owner(&mut self) {
        let named = self.attributes.values(attr::TENANT_ID);
        let (count, wrong) = named.fold((0, false), |(count, wrong), value| {
            (count + 1, wrong || value != self.tenant.as_str().as_bytes())
        });
        if wrong || count > 1 {
            self.name_owner();
        }
    }

    /// Sets the attribute [`attr::TENANT_ID`] to the tenant that the message belongs to.
    pub fn name_owner(&mut self) {
        self.attributes.set(attr::TENANT_ID, self.tenant.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_message_is_cannot_be_forged_by_attributes() {
        type Pairs = &'static [(&'static str, &'static str)];
        let given: [(Pairs, Pairs); 5] = [
            (&[], &[]),
            (&[("a", "b")], &[("a", "b")]),
            (&[("tenant_id", "acme"), ("a", "b")], &[("tenant_id", "acme"), ("a", "b")]),
            (&[("tenant_id", "other"), ("a", "b")], &[("a", "b"), ("tenant_id", "acme")]),
            (&[("tenant_id", "acme"), ("tenant_id", "other")], &[("tenant_id", "acme")]),
        ];
        for (attributes, kept) in given {
            let mut message = Message {
                tenant: TenantId::new("acme").expect("a tenant"),
                attributes: attributes.iter().copied().collect(),
                ordering_key: None,
                body: Bytes::new(),
            };
            message.correct_owner();
            assert_eq!(message.attributes.iter().collect::<Vec<_>>(), kept);
        }
    }

    #[test]
    fn attributes_survive_packing_and_refuse_damage() {
        let mut a: Attributes = [("event_type", "user.login"), ("empty", "")].into_iter().collect();
        a.set("event_type", "user.logout");
        a.push("naïve", "ü");
        assert_eq!(a.get("event_type"), Some("user.logout"));
        assert_eq!(a.len(), 3);
        let packed = a.packed().clone();
        assert_eq!(Attributes::from_packed(packed.clone()), Ok(a.clone()));
        for cut in 1..packed.len() {
            let cut_short = Attributes::from_packed(packed.slice(..cut));
            assert!(cut_short.is_err() || cut_short.is_ok_and(|b| b.len() < a.len()), "cut at {cut}");
        }
        a.remove("naïve");
        assert_eq!(a.get("naïve"), None);
    }
}
