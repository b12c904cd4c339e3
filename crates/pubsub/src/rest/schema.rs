//! The shapes of the messages that REST speaks of: names, numbers and kinds of their fields,
//! as in `google/pubsub/v1/pubsub.proto`, `schema.proto` and `google/iam/v1`.

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    /// Its values by name.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Shape),
    Timestamp,
    Duration,
    FieldMask,
    /// From strings to strings.
    Map,
    /// A message of a feature that Levada lacks: known, so that its use is refused in words.
    Lacking,
}

#[derive(Debug)]
pub(super) struct Field {
    /// As in the `.proto` file.
    pub name: &'static str,
    pub number: u32,
    pub kind: Kind,
    pub repeated: bool,
    /// The group of which at most one is set.
    pub oneof: &'static str,
}

#[derive(Debug)]
pub(super) struct Shape {
    pub fields: &'static [Field],
}

impl Shape {
    /// A field by its JSON name or its name in the `.proto` file.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || camel(field.name) == name)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// `ack_deadline_seconds` as `ackDeadlineSeconds`.
pub(super) fn camel(name: &str) -> std::string::String {
    let mut out = std::string::String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.extend(c.to_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// `ackDeadlineSeconds` as `ack_deadline_seconds`.
pub(super) fn snake(name: &str) -> std::string::String {
    let mut out = std::string::String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: false, oneof: "" }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: true, oneof: "" }
}

const fn of(oneof: &'static str, name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: false, oneof }
}

macro_rules! shapes {
    ($($name:ident = [$($field:expr),* $(,)?];)*) => {
        $(pub(super) static $name: Shape = Shape { fields: &[$($field),*] };)*
    };
}

const ENCODINGS: &[(&str, i32)] = &[("ENCODING_UNSPECIFIED", 0), ("JSON", 1), ("BINARY", 2)];
const SCHEMA_TYPES: &[(&str, i32)] = &[("TYPE_UNSPECIFIED", 0), ("PROTOCOL_BUFFER", 1), ("AVRO", 2)];
const VIEWS: &[(&str, i32)] = &[("SCHEMA_VIEW_UNSPECIFIED", 0), ("BASIC", 1), ("FULL", 2)];
const TOPIC_STATES: &[(&str, i32)] =
    &[("STATE_UNSPECIFIED", 0), ("ACTIVE", 1), ("INGESTION_RESOURCE_ERROR", 2)];
const SUBSCRIPTION_STATES: &[(&str, i32)] = &[("STATE_UNSPECIFIED", 0), ("ACTIVE", 1), ("RESOURCE_ERROR", 2)];

use Kind::*;

shapes! {
    EMPTY = [];

    TOPIC = [
        one("name", 1, String),
        one("labels", 2, Map),
        one("message_storage_policy", 3, Message(&STORAGE_POLICY)),
        one("kms_key_name", 5, String),
        one("schema_settings", 6, Message(&SCHEMA_SETTINGS)),
        one("satisfies_pzs", 7, Bool),
        one("message_retention_duration", 8, Duration),
        one("state", 9, Enum(TOPIC_STATES)),
        one("ingestion_data_source_settings", 10, Lacking),
        many("message_transforms", 13, Lacking),
        one("tags", 14, Map),
    ];
    STORAGE_POLICY = [
        many("allowed_persistence_regions", 1, String),
        one("enforce_in_transit", 2, Bool),
    ];
    SCHEMA_SETTINGS = [
        one("schema", 1, String),
        one("encoding", 2, Enum(ENCODINGS)),
        one("first_revision_id", 3, String),
        one("last_revision_id", 4, String),
    ];
    MESSAGE = [
        one("data", 1, Bytes),
        one("attributes", 2, Map),
        one("message_id", 3, String),
        one("publish_time", 4, Timestamp),
        one("ordering_key", 5, String),
    ];
    UPDATE_TOPIC = [one("topic", 1, Message(&TOPIC)), one("update_mask", 2, FieldMask)];
    PUBLISH = [one("topic", 1, String), many("messages", 2, Message(&MESSAGE))];
    PUBLISHED = [many("message_ids", 1, String)];
    BY_TOPIC = [one("topic", 1, String), one("page_size", 2, Int32), one("page_token", 3, String)];
    BY_PROJECT = [one("project", 1, String), one("page_size", 2, Int32), one("page_token", 3, String)];
    TOPICS = [many("topics", 1, Message(&TOPIC)), one("next_page_token", 2, String)];
    SUBSCRIPTION_NAMES = [many("subscriptions", 1, String), one("next_page_token", 2, String)];
    SNAPSHOT_NAMES = [many("snapshots", 1, String), one("next_page_token", 2, String)];

    SUBSCRIPTION = [
        one("name", 1, String),
        one("topic", 2, String),
        one("push_config", 4, Message(&PUSH_CONFIG)),
        one("ack_deadline_seconds", 5, Int32),
        one("retain_acked_messages", 7, Bool),
        one("message_retention_duration", 8, Duration),
        one("labels", 9, Map),
        one("enable_message_ordering", 10, Bool),
        one("expiration_policy", 11, Message(&EXPIRATION)),
        one("filter", 12, String),
        one("dead_letter_policy", 13, Message(&DEAD_LETTER)),
        one("retry_policy", 14, Message(&RETRY)),
        one("detached", 15, Bool),
        one("enable_exactly_once_delivery", 16, Bool),
        one("topic_message_retention_duration", 17, Duration),
        one("bigquery_config", 18, Lacking),
        one("state", 19, Enum(SUBSCRIPTION_STATES)),
        one("cloud_storage_config", 22, Lacking),
        one("analytics_hub_subscription_info", 23, Lacking),
        many("message_transforms", 25, Lacking),
        one("tags", 26, Map),
        one("bigtable_config", 27, Lacking),
    ];
    EXPIRATION = [one("ttl", 1, Duration)];
    RETRY = [one("minimum_backoff", 1, Duration), one("maximum_backoff", 2, Duration)];
    DEAD_LETTER = [one("dead_letter_topic", 1, String), one("max_delivery_attempts", 2, Int32)];
    PUSH_CONFIG = [
        one("push_endpoint", 1, String),
        one("attributes", 2, Map),
        of("authentication_method", "oidc_token", 3, Message(&OIDC)),
        of("wrapper", "pubsub_wrapper", 4, Message(&EMPTY)),
        of("wrapper", "no_wrapper", 5, Message(&NO_WRAPPER)),
    ];
    OIDC = [one("service_account_email", 1, String), one("audience", 2, String)];
    NO_WRAPPER = [one("write_metadata", 1, Bool)];
    BY_SUBSCRIPTION = [one("subscription", 1, String)];
    UPDATE_SUBSCRIPTION = [one("subscription", 1, Message(&SUBSCRIPTION)), one("update_mask", 2, FieldMask)];
    SUBSCRIPTIONS = [many("subscriptions", 1, Message(&SUBSCRIPTION)), one("next_page_token", 2, String)];
    MODIFY_ACK_DEADLINE = [
        one("subscription", 1, String),
        one("ack_deadline_seconds", 3, Int32),
        many("ack_ids", 4, String),
    ];
    ACKNOWLEDGE = [one("subscription", 1, String), many("ack_ids", 2, String)];
    PULL = [one("subscription", 1, String), one("return_immediately", 2, Bool), one("max_messages", 3, Int32)];
    PULLED = [many("received_messages", 1, Message(&RECEIVED))];
    RECEIVED = [
        one("ack_id", 1, String),
        one("message", 2, Message(&MESSAGE)),
        one("delivery_attempt", 3, Int32),
    ];
    MODIFY_PUSH = [one("subscription", 1, String), one("push_config", 2, Message(&PUSH_CONFIG))];
    SEEK = [
        one("subscription", 1, String),
        of("target", "time", 2, Timestamp),
        of("target", "snapshot", 3, String),
    ];

    SNAPSHOT = [
        one("name", 1, String),
        one("topic", 2, String),
        one("expire_time", 3, Timestamp),
        one("labels", 4, Map),
    ];
    BY_SNAPSHOT = [one("snapshot", 1, String)];
    CREATE_SNAPSHOT = [
        one("name", 1, String),
        one("subscription", 2, String),
        one("labels", 3, Map),
        one("tags", 4, Map),
    ];
    UPDATE_SNAPSHOT = [one("snapshot", 1, Message(&SNAPSHOT)), one("update_mask", 2, FieldMask)];
    SNAPSHOTS = [many("snapshots", 1, Message(&SNAPSHOT)), one("next_page_token", 2, String)];

    SCHEMA = [
        one("name", 1, String),
        one("type", 2, Enum(SCHEMA_TYPES)),
        one("definition", 3, String),
        one("revision_id", 4, String),
        one("revision_create_time", 6, Timestamp),
    ];
    CREATE_SCHEMA = [
        one("parent", 1, String),
        one("schema", 2, Message(&SCHEMA)),
        one("schema_id", 3, String),
    ];
    GET_SCHEMA = [one("name", 1, String), one("view", 2, Enum(VIEWS))];
    LIST_SCHEMAS = [
        one("parent", 1, String),
        one("view", 2, Enum(VIEWS)),
        one("page_size", 3, Int32),
        one("page_token", 4, String),
    ];
    LIST_REVISIONS = [
        one("name", 1, String),
        one("view", 2, Enum(VIEWS)),
        one("page_size", 3, Int32),
        one("page_token", 4, String),
    ];
    SCHEMAS = [many("schemas", 1, Message(&SCHEMA)), one("next_page_token", 2, String)];
    COMMIT_SCHEMA = [one("name", 1, String), one("schema", 2, Message(&SCHEMA))];
    SCHEMA_REVISION = [one("name", 1, String), one("revision_id", 2, String)];
    VALIDATE_SCHEMA = [one("parent", 1, String), one("schema", 2, Message(&SCHEMA))];
    VALIDATE_MESSAGE = [
        one("parent", 1, String),
        of("schema_spec", "name", 2, String),
        of("schema_spec", "schema", 3, Message(&SCHEMA)),
        one("message", 4, Bytes),
        one("encoding", 5, Enum(ENCODINGS)),
    ];

    SET_POLICY = [
        one("resource", 1, String),
        one("policy", 2, Message(&POLICY)),
        one("update_mask", 3, FieldMask),
    ];
    GET_POLICY = [one("resource", 1, String), one("options", 2, Message(&POLICY_OPTIONS))];
    POLICY_OPTIONS = [one("requested_policy_version", 1, Int32)];
    TEST_PERMISSIONS = [one("resource", 1, String), many("permissions", 2, String)];
    PERMISSIONS = [many("permissions", 1, String)];
    POLICY = [one("version", 1, Int32), one("etag", 3, Bytes), many("bindings", 4, Message(&BINDING))];
    BINDING = [one("role", 1, String), many("members", 2, String), one("condition", 3, Message(&CONDITION))];
    CONDITION = [
        one("expression", 1, String),
        one("title", 2, String),
        one("description", 3, String),
        one("location", 4, String),
    ];
}
