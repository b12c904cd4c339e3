//! How large a topic, a subscription or a snapshot may be.
//!
//! A resource is held in memory and on disk for as long as it lives, so each of its texts has a
//! bound, and all of them together have one. The bus checks them where a resource is made or
//! changed, whatever door the call came through. It does not check what it loads: a document
//! of an older program may be larger. A change of such a resource may leave a large text as it is.

use std::collections::BTreeMap;

use super::{PushConfig, SnapshotSpec, SubscriptionSpec, TopicSpec};
use crate::filter::MAX_FILTER_BYTES;

/// Of all texts of one resource. Every field at its documented bound fits, in ASCII.
pub const MAX_RESOURCE_BYTES: usize = 16 << 10;
const MAX_LABELS: usize = 64;
/// 63 characters of four bytes.
const MAX_LABEL_BYTES: usize = 252;
const MAX_KMS_KEY_BYTES: usize = 1 << 10;
const MAX_REGIONS: usize = 100;
const MAX_REGION_BYTES: usize = 64;
const MAX_SCHEMA_NAME_BYTES: usize = 512;
const MAX_REVISION_BYTES: usize = 64;
const MAX_ENDPOINT_BYTES: usize = 2 << 10;
const MAX_PUSH_ATTRIBUTES: usize = 16;
const MAX_PUSH_ATTRIBUTE_KEY_BYTES: usize = 256;
const MAX_PUSH_ATTRIBUTE_VALUE_BYTES: usize = 1 << 10;
/// As mail addresses are bounded.
const MAX_EMAIL_BYTES: usize = 320;
const MAX_AUDIENCE_BYTES: usize = 1 << 10;

/// A field is larger than it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {field} is too large: {given} were given, and {max} {unit} are the maximum")]
pub struct TooLarge {
    /// Its path in the API, as `push_config.attributes`; `topic` for the resource as a whole.
    pub field: &'static str,
    /// `the size`, `the number`.
    what: &'static str,
    /// `bytes`, `entries`.
    unit: &'static str,
    pub given: usize,
    pub max: usize,
}

/// Checks a topic that is made, or changed from what is kept.
///
/// # Errors
/// The first field beyond its bound, unless it is kept at that size already.
pub fn topic(spec: &TopicSpec, kept: Option<&TopicSpec>) -> Result<(), TooLarge> {
    check(&of_topic(spec), kept.map(of_topic))
}

/// As [`topic`].
///
/// # Errors
/// As of [`topic`].
pub fn subscription(spec: &SubscriptionSpec, kept: Option<&SubscriptionSpec>) -> Result<(), TooLarge> {
    check(&of_subscription(spec), kept.map(of_subscription))
}

/// As [`topic`].
///
/// # Errors
/// As of [`topic`].
pub fn snapshot(spec: &SnapshotSpec, kept: Option<&SnapshotSpec>) -> Result<(), TooLarge> {
    check(&of_snapshot(spec), kept.map(of_snapshot))
}

fn check<const N: usize>(given: &[TooLarge; N], kept: Option<[TooLarge; N]>) -> Result<(), TooLarge> {
    let was = |i: usize| kept.as_ref().map_or(0, |kept| kept[i].given);
    match given.iter().enumerate().find(|(i, field)| field.given > field.max.max(was(*i))) {
        Some((_, field)) => Err(field.clone()),
        None => Ok(()),
    }
}

fn bytes(field: &'static str, given: usize, max: usize) -> TooLarge {
    TooLarge { field, what: "the size", unit: "bytes", given, max }
}

fn count(field: &'static str, given: usize, max: usize) -> TooLarge {
    TooLarge { field, what: "the number", unit: "entries", given, max }
}

fn of_topic(spec: &TopicSpec) -> [TooLarge; 9] {
    let schema = spec.schema.as_ref();
    let of_schema = |text: fn(&super::SchemaSettings) -> &String| schema.map_or(0, |s| text(s).len());
    let (name, first, last) = (
        of_schema(|settings| &settings.schema),
        of_schema(|settings| &settings.first_revision_id),
        of_schema(|settings| &settings.last_revision_id),
    );
    let regions = &spec.allowed_persistence_regions;
    let all =
        text_bytes(&spec.labels) + spec.kms_key_name.len() + regions.iter().map(String::len).sum::<usize>();
    const REGIONS: &str = "message_storage_policy.allowed_persistence_regions";
    [
        count("labels", spec.labels.len(), MAX_LABELS),
        bytes("labels", longest(spec.labels.iter().flat_map(|(k, v)| [k, v])), MAX_LABEL_BYTES),
        bytes("kms_key_name", spec.kms_key_name.len(), MAX_KMS_KEY_BYTES),
        count(REGIONS, regions.len(), MAX_REGIONS),
        bytes(REGIONS, longest(regions), MAX_REGION_BYTES),
        bytes("schema_settings.schema", name, MAX_SCHEMA_NAME_BYTES),
        bytes("schema_settings.first_revision_id", first, MAX_REVISION_BYTES),
        bytes("schema_settings.last_revision_id", last, MAX_REVISION_BYTES),
        bytes("topic", all + name + first + last, MAX_RESOURCE_BYTES),
    ]
}

fn of_subscription(spec: &SubscriptionSpec) -> [TooLarge; 10] {
    let none = PushConfig::default();
    let push = spec.push.as_ref().unwrap_or(&none);
    let (email, audience) =
        push.oidc.as_ref().map_or((0, 0), |token| (token.service_account_email.len(), token.audience.len()));
    let texts = text_bytes(&spec.labels) + text_bytes(&push.attributes);
    // Weights are bounded by their number, and only an operator's key sets those of many tenants.
    let all = texts + spec.filter.len() + push.endpoint.len() + email + audience;
    [
        count("labels", spec.labels.len(), MAX_LABELS),
        bytes("labels", longest(spec.labels.iter().flat_map(|(k, v)| [k, v])), MAX_LABEL_BYTES),
        bytes("filter", spec.filter.len(), MAX_FILTER_BYTES),
        bytes("push_config.push_endpoint", push.endpoint.len(), MAX_ENDPOINT_BYTES),
        count("push_config.attributes", push.attributes.len(), MAX_PUSH_ATTRIBUTES),
        bytes("push_config.attributes", longest(push.attributes.keys()), MAX_PUSH_ATTRIBUTE_KEY_BYTES),
        bytes("push_config.attributes", longest(push.attributes.values()), MAX_PUSH_ATTRIBUTE_VALUE_BYTES),
        bytes("push_config.oidc_token.service_account_email", email, MAX_EMAIL_BYTES),
        bytes("push_config.oidc_token.audience", audience, MAX_AUDIENCE_BYTES),
        bytes("subscription", all, MAX_RESOURCE_BYTES),
    ]
}

fn of_snapshot(spec: &SnapshotSpec) -> [TooLarge; 3] {
    [
        count("labels", spec.labels.len(), MAX_LABELS),
        bytes("labels", longest(spec.labels.iter().flat_map(|(k, v)| [k, v])), MAX_LABEL_BYTES),
        bytes("snapshot", text_bytes(&spec.labels), MAX_RESOURCE_BYTES),
    ]
}

fn longest<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(String::len).max().unwrap_or(0)
}

fn text_bytes(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::OidcToken;

    fn new_topic() -> TopicSpec {
        TopicSpec::new("demo/orders".parse().expect("a name"))
    }

    fn labels(count: usize, chars: usize, of: char) -> BTreeMap<String, String> {
        let text = |n: usize| format!("{n:02}") + &of.to_string().repeat(chars - 2);
        (0..count).map(|n| (text(n), text(n))).collect()
    }

    #[test]
    fn every_field_at_its_bound_fits_into_the_whole() {
        let full = TopicSpec {
            labels: labels(64, 63, 'a'),
            kms_key_name: "k".repeat(MAX_KMS_KEY_BYTES),
            allowed_persistence_regions: vec!["r".repeat(MAX_REGION_BYTES); MAX_REGIONS],
            ..new_topic()
        };
        assert_eq!(topic(&full, None), Ok(()));
        let one_more = TopicSpec { kms_key_name: "k".repeat(MAX_KMS_KEY_BYTES + 1), ..full.clone() };
        let error = topic(&one_more, None).expect_err("beyond the bound");
        assert_eq!((error.field, error.given, error.max), ("kms_key_name", 1_025, 1_024));
        assert_eq!(
            error.to_string(),
            "the size of kms_key_name is too large: 1025 were given, and 1024 bytes are the maximum"
        );
        // Each field is within its bound, the whole is not.
        let wide = TopicSpec { labels: labels(64, 63, '語'), ..new_topic() };
        assert_eq!(topic(&wide, None).map_err(|e| e.field), Err("topic"));
    }

    #[test]
    fn what_is_kept_large_may_stay_and_not_grow() {
        let old = TopicSpec { kms_key_name: "k".repeat(1 << 20), ..new_topic() };
        assert!(topic(&old, None).is_err());
        let labelled = TopicSpec { retention: Some(std::time::Duration::from_secs(600)), ..old.clone() };
        assert_eq!(topic(&labelled, Some(&old)), Ok(()));
        let longer = TopicSpec { kms_key_name: "k".repeat((1 << 20) + 1), ..old.clone() };
        assert_eq!(topic(&longer, Some(&old)).map_err(|e| e.field), Err("kms_key_name"));
    }

    #[test]
    fn a_push_configuration_is_bounded_in_each_text() {
        let with = |push: PushConfig| {
            let name = "demo/pushed".parse().expect("a name");
            let topic = "demo/orders".parse().expect("a name");
            let push = Some(push);
            subscription(&SubscriptionSpec { push, ..SubscriptionSpec::new(name, topic) }, None)
        };
        let attributes = |count: usize, bytes: usize| PushConfig {
            attributes: (0..count).map(|n| (format!("k{n}"), "v".repeat(bytes))).collect(),
            ..PushConfig::default()
        };
        let token = |service_account_email: String, audience: String| PushConfig {
            oidc: Some(OidcToken { service_account_email, audience }),
            ..PushConfig::default()
        };
        assert_eq!(with(attributes(1, 1_024)), Ok(()));
        assert_eq!(with(attributes(16, 100)), Ok(()));
        assert_eq!(with(token("e".repeat(320), "a".repeat(1_024))), Ok(()));
        for (push, field) in [
            (attributes(17, 1), "push_config.attributes"),
            (attributes(1, 1_025), "push_config.attributes"),
            (attributes(16, 1_024), "subscription"),
            (token("e".repeat(321), String::new()), "push_config.oidc_token.service_account_email"),
            (token(String::new(), "a".repeat(1_025)), "push_config.oidc_token.audience"),
        ] {
            assert_eq!(with(push).map_err(|e| e.field), Err(field));
        }
    }
}
