//! Between the API's resources and the port's specs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use levada_bus::port::{
    DeadLetterPolicy, Encoding, NoWrapper, OidcToken, PushConfig, Received, RetryPolicy, SchemaSettings,
    SnapshotSpec, SubscriptionSpec, TopicSpec,
};

use crate::ack_id::AckIds;
use crate::error::ApiError;
use crate::letters;
use crate::limits;
use crate::messages::pb;
use crate::names::{self, DELETED_TOPIC};

const TOPICS: &str = "topics";
const SUBSCRIPTIONS: &str = "subscriptions";
const SNAPSHOTS: &str = "snapshots";

/// Reads a topic, checking every bound.
///
/// # Errors
/// INVALID_ARGUMENT, or UNIMPLEMENTED for features that Levada lacks.
pub fn topic_in(topic: &pb::Topic) -> Result<TopicSpec, ApiError> {
    let mut spec = TopicSpec::new(names::resource(&topic.name, TOPICS)?);
    for (set, what) in [
        (topic.ingestion_data_source_settings.is_some(), "ingestion_data_source_settings"),
        (!topic.message_transforms.is_empty(), "message_transforms"),
    ] {
        lacking(set, what)?;
    }
    limits::labels(&topic.labels)?;
    spec.labels = sorted(&topic.labels);
    spec.retention = topic.message_retention_duration.as_ref().map(limits::retention).transpose()?;
    spec.schema = topic.schema_settings.as_ref().map(schema_settings_in).transpose()?;
    spec.kms_key_name = topic.kms_key_name.clone();
    if let Some(policy) = &topic.message_storage_policy {
        spec.allowed_persistence_regions = policy.allowed_persistence_regions.clone();
    }
    Ok(spec)
}

fn lacking(set: bool, what: &str) -> Result<(), ApiError> {
    if !set {
        return Ok(());
    }
    Err(ApiError::unimplemented(format!("Levada does not support `{what}`; leave the field out.")))
}

fn schema_settings_in(settings: &pb::SchemaSettings) -> Result<SchemaSettings, ApiError> {
    if settings.schema != names::DELETED_SCHEMA {
        names::resource(&settings.schema, "schemas")?;
    }
    let encoding = match pb::Encoding::try_from(settings.encoding) {
        Ok(pb::Encoding::Json) => Encoding::Json,
        Ok(pb::Encoding::Binary) => Encoding::Binary,
        _ => {
            return Err(ApiError::invalid_field(
                "schema_settings.encoding",
                "The schema_settings need an encoding: JSON or BINARY (argument=schema_settings.encoding).",
            ));
        }
    };
    Ok(SchemaSettings {
        schema: settings.schema.clone(),
        encoding,
        first_revision_id: settings.first_revision_id.clone(),
        last_revision_id: settings.last_revision_id.clone(),
    })
}

/// Writes a topic.
pub fn topic_out(spec: TopicSpec) -> pb::Topic {
    let regions = spec.allowed_persistence_regions;
    pb::Topic {
        name: spec.name.path(TOPICS),
        labels: spec.labels.into_iter().collect(),
        message_storage_policy: (!regions.is_empty()).then_some(pb::MessageStoragePolicy {
            allowed_persistence_regions: regions,
            enforce_in_transit: false,
        }),
        kms_key_name: spec.kms_key_name,
        schema_settings: spec.schema.map(|settings| pb::SchemaSettings {
            schema: settings.schema,
            encoding: encoding_out(settings.encoding) as i32,
            first_revision_id: settings.first_revision_id,
            last_revision_id: settings.last_revision_id,
        }),
        message_retention_duration: spec.retention.map(duration_out),
        state: pb::topic::State::Active as i32,
        ..Default::default()
    }
}

/// The API's encoding.
pub fn encoding_out(encoding: Encoding) -> pb::Encoding {
    match encoding {
        Encoding::Json => pb::Encoding::Json,
        Encoding::Binary => pb::Encoding::Binary,
    }
}

/// Reads a subscription, checking every bound but the filter's grammar, which the bus knows.
///
/// # Errors
/// INVALID_ARGUMENT, or UNIMPLEMENTED for features that Levada lacks.
pub fn subscription_in(subscription: &pb::Subscription) -> Result<SubscriptionSpec, ApiError> {
    let name = names::resource(&subscription.name, SUBSCRIPTIONS)?;
    let mut spec = SubscriptionSpec::new(name, names::resource(&subscription.topic, TOPICS)?);
    apply_subscription(&mut spec, subscription)?;
    spec.ordered = subscription.enable_message_ordering;
    spec.filter = subscription.filter.clone();
    Ok(spec)
}

/// Sets every field of a spec that may change later.
///
/// # Errors
/// As of [`subscription_in`].
pub fn apply_subscription(spec: &mut SubscriptionSpec, given: &pb::Subscription) -> Result<(), ApiError> {
    for (set, what) in [
        (given.bigquery_config.is_some(), "bigquery_config"),
        (given.cloud_storage_config.is_some(), "cloud_storage_config"),
        (given.bigtable_config.is_some(), "bigtable_config"),
        (!given.message_transforms.is_empty(), "message_transforms"),
    ] {
        lacking(set, what)?;
    }
    limits::labels(&given.labels)?;
    spec.labels = sorted(&given.labels);
    letters::check_label(spec)?;
    spec.ack_deadline = limits::ack_deadline("ack_deadline_seconds", given.ack_deadline_seconds)?;
    spec.retain_acked = given.retain_acked_messages;
    const DAY: Duration = Duration::from_secs(24 * 3600);
    spec.retention = match &given.message_retention_duration {
        Some(retention) => limits::retention(retention)?,
        None => 7 * DAY,
    };
    spec.exactly_once = given.enable_exactly_once_delivery;
    spec.expires_after = match &given.expiration_policy {
        None => Some(31 * DAY),
        Some(policy) => policy.ttl.as_ref().map(limits::expiration).transpose()?,
    };
    spec.retry = given.retry_policy.as_ref().map(retry_in).transpose()?;
    spec.dead_letter = given.dead_letter_policy.as_ref().map(dead_letter_in).transpose()?;
    spec.push = push_in(given.push_config.as_ref())?;
    if spec.push.is_some() && spec.exactly_once {
        return Err(ApiError::invalid_field(
            "enable_exactly_once_delivery",
            "Exactly-once delivery is for pull subscriptions: leave push_config or enable_exactly_once_delivery out.",
        ));
    }
    Ok(())
}

fn retry_in(policy: &pb::RetryPolicy) -> Result<RetryPolicy, ApiError> {
    let read = |field: &str, given: &Option<prost_types::Duration>, default_s| match given {
        Some(given) => limits::backoff(field, given),
        None => Ok(Duration::from_secs(default_s)),
    };
    let minimum_backoff = read("retry_policy.minimum_backoff", &policy.minimum_backoff, 10)?;
    let maximum_backoff = read("retry_policy.maximum_backoff", &policy.maximum_backoff, 600)?;
    if minimum_backoff > maximum_backoff {
        return Err(ApiError::invalid_field(
            "retry_policy.minimum_backoff",
            "The value for retry_policy.minimum_backoff is larger than retry_policy.maximum_backoff.",
        ));
    }
    Ok(RetryPolicy { minimum_backoff, maximum_backoff })
}

fn dead_letter_in(policy: &pb::DeadLetterPolicy) -> Result<DeadLetterPolicy, ApiError> {
    let attempts = if policy.max_delivery_attempts == 0 { 5 } else { policy.max_delivery_attempts };
    let topic = &policy.dead_letter_topic;
    Ok(DeadLetterPolicy {
        topic: names::resource(topic, TOPICS)
            .map_err(|error| error.at("dead_letter_policy.dead_letter_topic"))?,
        // The bounds are checked once the topic is known to be there.
        max_delivery_attempts: u32::try_from(attempts).unwrap_or(0),
    })
}

/// Reads a push configuration; an empty one makes a pull subscription.
///
/// # Errors
/// INVALID_ARGUMENT for an endpoint that is no URL.
pub fn push_in(config: Option<&pb::PushConfig>) -> Result<Option<PushConfig>, ApiError> {
    let Some(config) = config.filter(|config| !config.push_endpoint.is_empty()) else { return Ok(None) };
    let endpoint = &config.push_endpoint;
    let uri: Result<http::Uri, _> = endpoint.parse();
    if !uri.is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()) {
        let text = format!(
            "Invalid push endpoint given (endpoint={}): write it as https://<host>/<path>.",
            names::shown(endpoint)
        );
        return Err(ApiError::invalid_field("push_config.push_endpoint", text));
    }
    let oidc = config.authentication_method.as_ref().map(|method| match method {
        pb::push_config::AuthenticationMethod::OidcToken(token) => OidcToken {
            service_account_email: token.service_account_email.clone(),
            audience: token.audience.clone(),
        },
    });
    let no_wrapper = config.wrapper.as_ref().and_then(|wrapper| match wrapper {
        pb::push_config::Wrapper::PubsubWrapper(_) => None,
        pb::push_config::Wrapper::NoWrapper(it) => Some(NoWrapper { write_metadata: it.write_metadata }),
    });
    Ok(Some(PushConfig {
        endpoint: endpoint.clone(),
        attributes: sorted(&config.attributes),
        oidc,
        no_wrapper,
    }))
}

/// Writes a subscription. `topic_retention` is its topic's, where the caller knows it.
pub fn subscription_out(spec: &SubscriptionSpec, topic_retention: Option<Duration>) -> pb::Subscription {
    pb::Subscription {
        name: spec.name.path(SUBSCRIPTIONS),
        topic: spec.topic.as_ref().map_or_else(|| DELETED_TOPIC.to_owned(), |topic| topic.path(TOPICS)),
        push_config: Some(spec.push.as_ref().map(push_out).unwrap_or_default()),
        ack_deadline_seconds: i32::try_from(spec.ack_deadline.as_secs()).unwrap_or(600),
        retain_acked_messages: spec.retain_acked,
        message_retention_duration: Some(duration_out(spec.retention)),
        labels: unsorted(&spec.labels),
        enable_message_ordering: spec.ordered,
        expiration_policy: Some(pb::ExpirationPolicy { ttl: spec.expires_after.map(duration_out) }),
        filter: spec.filter.clone(),
        dead_letter_policy: spec.dead_letter.as_ref().map(|policy| pb::DeadLetterPolicy {
            dead_letter_topic: policy.topic.path(TOPICS),
            max_delivery_attempts: i32::try_from(policy.max_delivery_attempts).unwrap_or(100),
        }),
        retry_policy: spec.retry.map(|policy| pb::RetryPolicy {
            minimum_backoff: Some(duration_out(policy.minimum_backoff)),
            maximum_backoff: Some(duration_out(policy.maximum_backoff)),
        }),
        detached: spec.detached,
        enable_exactly_once_delivery: spec.exactly_once,
        topic_message_retention_duration: topic_retention.map(duration_out),
        state: pb::subscription::State::Active as i32,
        ..Default::default()
    }
}

fn push_out(push: &PushConfig) -> pb::PushConfig {
    let wrapper = match push.no_wrapper {
        Some(it) => pb::push_config::Wrapper::NoWrapper(pb::push_config::NoWrapper {
            write_metadata: it.write_metadata,
        }),
        None => pb::push_config::Wrapper::PubsubWrapper(pb::push_config::PubsubWrapper {}),
    };
    pb::PushConfig {
        push_endpoint: push.endpoint.clone(),
        attributes: unsorted(&push.attributes),
        authentication_method: push.oidc.as_ref().map(|token| {
            pb::push_config::AuthenticationMethod::OidcToken(pb::push_config::OidcToken {
                service_account_email: token.service_account_email.clone(),
                audience: token.audience.clone(),
            })
        }),
        wrapper: Some(wrapper),
    }
}

/// Writes a snapshot.
pub fn snapshot_out(spec: SnapshotSpec) -> pb::Snapshot {
    pb::Snapshot {
        name: spec.name.path(SNAPSHOTS),
        topic: spec.topic.map_or_else(|| DELETED_TOPIC.to_owned(), |topic| topic.path(TOPICS)),
        expire_time: Some(timestamp_out(spec.expires_at_ms)),
        labels: spec.labels.into_iter().collect(),
    }
}

/// Writes a leased message of that subscription. The attempt is told only where a dead-letter
/// policy counts it.
pub fn received_out(
    received: Received,
    ack_ids: AckIds,
    subscription: &SubscriptionSpec,
) -> pb::ReceivedMessage {
    let attempt = i32::try_from(received.delivery_attempt).unwrap_or(i32::MAX);
    let message = received.message;
    let attributes = letters::delivered(subscription, &message.attributes);
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    pb::ReceivedMessage {
        ack_id: ack_ids.write(received.ack_id),
        message: Some(pb::PubsubMessage {
            data: message.body,
            attributes,
            message_id: received.message_id.to_string(),
            publish_time: Some(timestamp_out(received.published_at_ms)),
            ordering_key: message.ordering_key.map(String::from).unwrap_or_default(),
        }),
        delivery_attempt: if subscription.dead_letter.is_some() { attempt } else { 0 },
    }
}

/// Milliseconds since the epoch as the API's timestamp.
pub fn timestamp_out(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: ms.div_euclid(1_000),
        nanos: i32::try_from(ms.rem_euclid(1_000)).unwrap_or(0) * 1_000_000,
    }
}

/// The API's timestamp in milliseconds since the epoch, rounded up: a message published
/// within the millisecond of a seek to a finer time counts as before it.
///
/// # Errors
/// INVALID_ARGUMENT outside of the years 1 to 9999.
pub fn timestamp_in(field: &str, time: &prost_types::Timestamp) -> Result<i64, ApiError> {
    if !(-62_135_596_800..=253_402_300_799).contains(&time.seconds)
        || !(0..1_000_000_000).contains(&time.nanos)
    {
        return Err(ApiError::invalid_field(
            field,
            format!("The value for {field} is not a valid timestamp."),
        ));
    }
    Ok(time.seconds * 1_000 + i64::from((time.nanos + 999_999) / 1_000_000))
}

fn duration_out(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A map of the wire in order.
pub fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn unsorted(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}
