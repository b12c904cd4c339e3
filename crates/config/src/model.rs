//! The checked project: what every engine runs from.
//!
//! These are domain types, already cross-checked; none of them appears on a wire. Names
//! resolve, cron expressions parse and secrets are named, not held.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use levada_core::{EgressRule, ProjectId, Quota, SourceName, TableName, TenantId, TopicName};
use serde::Serialize;

/// Whose a thing is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// All tenants share it; rows carry `tenant_id`.
    Shared,
    Tenant(TenantId),
}

/// A whole project folder, checked.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    pub name: String,
    /// The folder that holds `levada.yaml`.
    pub root: PathBuf,
    pub server: ServerConfig,
    /// Declared tenants, `default` included.
    pub tenants: Vec<TenantConfig>,
    /// Cloud bucket name to folder (relative ones lie under the data directory's `buckets/`).
    pub buckets: BTreeMap<String, PathBuf>,
    pub pipelines: Vec<Pipeline>,
    pub models: Vec<Model>,
    /// Parts that parse but do not run yet, each with its place: `up` refuses them without `--allow-inactive`.
    pub inactive: Vec<Inactive>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ServerConfig {
    /// Gateway and console, such as `127.0.0.1:8080`.
    pub http: String,
    /// PostgreSQL wire, such as `127.0.0.1:5433`; `None` switches it off.
    pub postgres: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub max_body_bytes: u64,
    pub limits: Limits,
    pub query: QueryLimitsConfig,
    /// Projects of the Pub/Sub API beside the one that is named like this project.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// What the whole process may hold; `None`: a share of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Quotas of a tenant, where they differ from the defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<(Quota, u64)>,
    /// Where outbound calls may go beside public addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// A project of the Pub/Sub API: a namespace of topics and subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespace {
    pub project: ProjectId,
    /// Whose it is; `None`: the platform's, where an attribute names the tenant.
    pub tenant: Option<TenantId>,
}

/// Default limits of a tenant at the gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Events a second, refilled; `None` is unlimited.
    pub events_per_s: Option<f64>,
    pub burst_events: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryLimitsConfig {
    pub memory_bytes: u64,
    pub timeout: Duration,
    pub max_rows: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct TenantConfig {
    pub id: TenantId,
    pub display_name: Option<String>,
    /// Overrides the default limits.
    pub limits: Option<Limits>,
    /// Overrides the default quotas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<(Quota, u64)>,
}

/// A source and what is done with it until silver.
#[derive(Debug, Clone, Serialize)]
pub struct Pipeline {
    /// Also the bronze source name.
    pub name: SourceName,
    pub owner: Owner,
    pub display_name: Option<String>,
    pub description: Option<String>,
    /// The file it came from, relative to the project root.
    pub file: PathBuf,
    pub source: Source,
    /// `None`: the schema is missing; the pipeline only archives to bronze (step waiting).
    pub schema: Option<Schema>,
    pub validation: Validation,
    pub steps: Vec<Step>,
    /// Steps that wait for something the project lacks, with the reason.
    pub waiting: Vec<Waiting>,
    /// Where the rows go; normally `silver.<name>`.
    pub sink: TableName,
    pub epoch: Duration,
    pub epoch_bytes: u64,
    pub retention: Option<Duration>,
    pub sla: Option<Duration>,
}

impl Pipeline {
    /// A shared pipeline that only keeps a topic's events in bronze, as they came.
    pub fn archive_only(name: SourceName, topic: TopicName) -> Self {
        Self {
            sink: TableName::new(levada_core::Zone::Silver, name.clone()),
            name,
            owner: Owner::Shared,
            display_name: None,
            description: Some("Events that no pipeline asks for, kept as they came".to_owned()),
            file: PathBuf::new(),
            source: Source::Events { topic, event_types: Vec::new() },
            schema: None,
            validation: Validation::Lenient,
            steps: Vec::new(),
            waiting: Vec::new(),
            epoch: Duration::from_secs(5),
            epoch_bytes: 64 << 20,
            retention: None,
            sla: None,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Direct events: a topic filled by the gateway.
    Events {
        topic: TopicName,
        /// Exact types or a prefix ending in `*`; empty: only events that name the topic.
        event_types: Vec<String>,
    },
    /// A watched folder.
    Files(FileSource),
}

#[derive(Debug, Clone, Serialize)]
pub struct FileSource {
    /// As written, such as `gs://landing-zone/example/` or `landing/weather`.
    pub location: String,
    /// Resolved: a `gs://`, `s3://` or `az://` bucket through the buckets map.
    pub folder: FileFolder,
    /// File name pattern with `*` and `?`; `*` by default.
    pub pattern: String,
    pub format: FileFormat,
    /// `None`: by the file's bytes or its name (`.gz`).
    pub gzip: Option<bool>,
    /// What separates the cells of a CSV row.
    pub delimiter: Delimiter,
    /// A file that was not renamed into place is read once it has rested so long.
    pub settle: Duration,
    /// So long must it rest before a row without a line end, or a gzip stream without an end,
    /// counts as finished. Not below `settle`.
    pub settle_end: Duration,
    /// Texts that mean null in any column, such as `NA`; the empty text always does.
    pub null_values: Vec<String>,
    /// Cron expression (5 fields, UTC); `None`: on arrival.
    pub schedule: Option<String>,
    /// The tenant that owns the rows.
    pub tenant: TenantId,
}

impl FileSource {
    pub const SETTLE: Duration = Duration::from_secs(3);
    pub const SETTLE_END: Duration = Duration::from_secs(60);
}

/// What separates the cells of a CSV row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    #[default]
    Comma,
    Semicolon,
    Tab,
    Pipe,
}

impl Delimiter {
    pub const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Pipe];

    pub fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }

    /// As it is written in a pipeline.
    pub fn written(self) -> &'static str {
        match self {
            Self::Comma => "','",
            Self::Semicolon => "';'",
            Self::Tab => "tab",
            Self::Pipe => "'|'",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFolder {
    /// Under `<data>/buckets/<bucket>/<prefix>` unless `storage.buckets` names a folder.
    Bucket { bucket: String, prefix: String },
    /// Relative ones lie under the project root.
    Local(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    Csv,
    /// JSON values one after another, each on one line or on many, or one array of objects.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// A record that breaks the schema goes to the dead letter.
    Strict,
    /// Unknown fields are dropped and values are coerced where that loses nothing; a missing
    /// required field or an impossible value still goes to the dead letter.
    Lenient,
}

/// The fields of a record, from field-list JSON or JSON Schema.
#[derive(Debug, Clone, Serialize)]
pub struct Schema {
    pub file: PathBuf,
    pub version: String,
    pub fields: Vec<Field>,
    /// The JSON Schema document, where the file is one: it is checked besides the fields.
    pub json_schema: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Column name.
    pub name: SourceName,
    /// Where the value lies in the body: keys from the root. Defaults to the name itself.
    /// A first segment `@` reads the envelope: `["@", "event_type"]`. No segment at all
    /// means the whole body.
    pub path: Vec<String>,
    pub kind: FieldType,
    /// What a number means in a TIMESTAMP or DATE; without it a number there is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<TimeNumber>,
    pub required: bool,
    pub description: Option<String>,
}

/// What a number means in a TIMESTAMP or DATE field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeNumber {
    /// Since 1970-01-01T00:00:00Z, as are the next four.
    Seconds,
    Millis,
    Micros,
    Nanos,
    Days,
    /// The first so many digits of `YYYYMMDDHHMMSS`: 4, 6, 8, 10, 12 or 14.
    Digits(u8),
}

/// Types of field-list JSON (BigQuery names and their aliases).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    String,
    Int64,
    Float64,
    /// Exact: at most `precision` digits (1 to 38), `scale` of them after the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bool,
    /// UTC, microseconds.
    Timestamp,
    Date,
    /// Any JSON value, kept as its text.
    Json,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Deduplicate(Deduplicate),
    Quality {
        rules: Vec<Rule>,
    },
    Enrich(Enrich),
    /// `select ... from input`; compiled once, run per batch.
    Sql {
        query: String,
    },
}

#[derive(Debug, Clone, Serialize)]
pub struct Deduplicate {
    pub key: Vec<SourceName>,
    pub window: Duration,
    /// At most this many keys are remembered.
    pub max_keys: u64,
}

/// One quality rule. A record that breaks it goes to the dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    pub field: SourceName,
    pub check: Check,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    NotNull,
    /// Bounds as they are written, since a double would move them.
    Range {
        min: Option<String>,
        max: Option<String>,
    },
    Regex {
        pattern: String,
    },
    OneOf {
        values: Vec<String>,
    },
    ValidEmail,
    Positive,
    /// Within the deduplication window.
    Unique,
    /// Not later than now plus the allowance.
    NotInFuture {
        allowance: Duration,
    },
}

/// HTTP enrichment by a keyed, cached GET.
#[derive(Debug, Clone, Serialize)]
pub struct Enrich {
    pub name: SourceName,
    /// Absolute URL with `{field}` placeholders, percent-encoded when filled; `${NAME}` was
    /// already replaced from the environment. Never from a secret: this text is shown.
    pub url: String,
    /// Name of a secret sent as a Bearer token.
    pub bearer_secret: Option<String>,
    /// Output columns: where the value lies in the JSON answer.
    pub fields: Vec<Field>,
    pub ttl: Duration,
    pub timeout: Duration,
    pub concurrency: usize,
    pub attempts: u32,
    pub breaker_failures: u32,
    pub breaker_open: Duration,
    /// Let a record pass with nulls when the answer is 404; otherwise it is a dead letter.
    pub optional: bool,
}

/// A gold model: one SELECT, its result replaces the table.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    pub name: SourceName,
    pub owner: Owner,
    pub file: PathBuf,
    pub sql: String,
    /// Tables it reads; gold ones order the run.
    pub reads: Vec<TableName>,
    pub schedule: ModelSchedule,
    pub description: Option<String>,
    pub cluster_by: Vec<SourceName>,
    /// `None`: it can run. Otherwise why it waits.
    pub waiting: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSchedule {
    /// Only by command.
    Manual,
    /// When a table it reads has changed, at most every so often.
    OnChange { at_most_every: Duration },
    /// Cron expression (5 fields, UTC).
    Cron(String),
}

/// A step that parsed and waits.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// Diagnostic code, such as `W0103`.
    pub code: String,
    pub step: String,
    pub reason: String,
}

/// A part that is parsed only so far.
#[derive(Debug, Clone, Serialize)]
pub struct Inactive {
    pub file: PathBuf,
    pub line: u32,
    pub part: String,
    pub reason: String,
}
