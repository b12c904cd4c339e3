//! Update masks: which fields of a resource a call changes.

use crate::error::ApiError;
use crate::names::shown;

/// The fields of one kind of resource.
#[derive(Debug)]
pub struct Fields {
    /// `Topic`.
    pub resource: &'static str,
    /// Top-level names, and nested ones of which one alone may change.
    pub mutable: &'static [&'static str],
    pub immutable: &'static [&'static str],
}

/// A topic's.
pub const TOPIC: Fields = Fields {
    resource: "Topic",
    mutable: &[
        "labels",
        "message_storage_policy",
        "message_storage_policy.allowed_persistence_regions",
        "message_storage_policy.enforce_in_transit",
        "kms_key_name",
        "schema_settings",
        "schema_settings.schema",
        "schema_settings.encoding",
        "schema_settings.first_revision_id",
        "schema_settings.last_revision_id",
        "message_retention_duration",
        "ingestion_data_source_settings",
        "message_transforms",
    ],
    immutable: &["name", "satisfies_pzs", "state", "tags"],
};

/// A subscription's.
pub const SUBSCRIPTION: Fields = Fields {
    resource: "Subscription",
    mutable: &[
        "push_config",
        "bigquery_config",
        "cloud_storage_config",
        "bigtable_config",
        "ack_deadline_seconds",
        "retain_acked_messages",
        "message_retention_duration",
        "labels",
        "expiration_policy",
        "expiration_policy.ttl",
        "dead_letter_policy",
        "dead_letter_policy.dead_letter_topic",
        "dead_letter_policy.max_delivery_attempts",
        "retry_policy",
        "retry_policy.minimum_backoff",
        "retry_policy.maximum_backoff",
        "enable_exactly_once_delivery",
        "message_transforms",
    ],
    immutable: &[
        "name",
        "topic",
        "filter",
        "enable_message_ordering",
        "detached",
        "topic_message_retention_duration",
        "state",
        "analytics_hub_subscription_info",
        "tags",
    ],
};

/// A snapshot's.
pub const SNAPSHOT: Fields =
    Fields { resource: "Snapshot", mutable: &["labels", "expire_time"], immutable: &["name", "topic"] };

/// Checks a mask against the fields and returns its paths.
///
/// # Errors
/// INVALID_ARGUMENT for an absent or empty mask, an unknown path or an immutable field.
pub fn paths(mask: Option<&prost_types::FieldMask>, fields: &Fields) -> Result<Vec<&'static str>, ApiError> {
    let resource = fields.resource;
    let given = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if given.is_empty() {
        let text = format!(
            "The update_mask in the Update{resource}Request must be set, and must contain a non-empty paths list."
        );
        return Err(ApiError::invalid_field("update_mask", text));
    }
    let refused = |why: String| {
        let text = format!("Invalid update_mask provided in the Update{resource}Request: {why}");
        ApiError::invalid_field("update_mask", text)
    };
    given
        .iter()
        .map(|path| {
            if let Some(known) = fields.mutable.iter().find(|field| *field == path) {
                return Ok(*known);
            }
            let top = path.split('.').next().unwrap_or(path);
            if fields.immutable.contains(&top) {
                return Err(refused(format!("the '{top}' field in the {resource} is not mutable.")));
            }
            Err(refused(format!(
                "'{}' is not a known {resource} field. Note that field paths must be of the form 'push_config' \
                 rather than 'pushConfig'.",
                shown(path)
            )))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_name_known_and_mutable_fields() {
        let mask = |paths: &[&str]| prost_types::FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        };
        let check = |paths_: &[&str], fields| paths(Some(&mask(paths_)), fields).map_err(|e| e.message);
        assert_eq!(check(&["labels", "retry_policy.minimum_backoff"], &SUBSCRIPTION).map(|p| p.len()), Ok(2));
        assert!(check(&["name"], &SUBSCRIPTION).expect_err("immutable").contains("not mutable"));
        assert!(check(&["topic"], &SNAPSHOT).expect_err("immutable").contains("not mutable"));
        assert!(check(&["pushConfig"], &SUBSCRIPTION).expect_err("unknown").contains("not a known"));
        assert!(check(&["labels.a"], &TOPIC).expect_err("unknown").contains("not a known"));
        assert!(check(&[], &TOPIC).is_err() && paths(None, &TOPIC).is_err());
    }
}
