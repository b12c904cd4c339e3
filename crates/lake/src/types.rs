//! The words that other crates use with the lake: tables, staged files, bronze objects,
//! parameters, limits. None of them names DataFusion or Delta.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use levada_core::{MemoryBudget, Quotas, SourceName, TableName, TenantId};
use serde::{Deserialize, Serialize};

/// Whose a table is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Rows of many tenants, told apart by the tenant column.
    Shared,
    /// Every row belongs to one tenant.
    Tenant(TenantId),
}

impl Owner {
    /// The owner as a path segment: `_shared` cannot be a tenant id.
    pub fn as_str(&self) -> &str {
        match self {
            Owner::Shared => "_shared",
            Owner::Tenant(tenant) => tenant.as_str(),
        }
    }

    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Owner::Shared => None,
            Owner::Tenant(tenant) => Some(tenant),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identity of a silver or gold table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableKey {
    pub owner: Owner,
    pub name: TableName,
}

impl TableKey {
    pub fn new(owner: Owner, name: TableName) -> Self {
        Self { owner, name }
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// What a table looks like. Timestamps are microseconds (with zone UTC or without).
#[derive(Debug, Clone, PartialEq)]
pub struct TableSpec {
    pub owner: Owner,
    /// Silver or gold.
    pub name: TableName,
    pub schema: SchemaRef,
    /// Required in shared tables: the text column that says whose a row is.
    pub tenant_column: Option<String>,
    /// Columns whose values become directories. Mostly empty: clustering prunes better for small files.
    pub partition_by: Vec<String>,
    /// Rows of a file are sorted by the tenant column, then by these.
    pub cluster_by: Vec<String>,
    pub description: Option<String>,
}

impl TableSpec {
    /// A table without partitions, clustering or description.
    pub fn new(owner: Owner, name: TableName, schema: SchemaRef) -> Self {
        let tenant_column = (owner == Owner::Shared).then(|| "tenant_id".to_owned());
        Self {
            owner,
            name,
            schema,
            tenant_column,
            partition_by: Vec::new(),
            cluster_by: Vec::new(),
            description: None,
        }
    }

    pub fn key(&self) -> TableKey {
        TableKey::new(self.owner.clone(), self.name.clone())
    }
}

/// A durable Parquet file that no reader sees until it is committed. Goes into a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Relative to the table.
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Statistics as Delta writes them (`numRecords`, `minValues`, `maxValues`, `nullCount`).
    pub stats: String,
    pub modified_ms: i64,
    /// Checksums of its blocks, in the form of the commit's tag; absent in manifests of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Version of the table after the call.
    pub version: u64,
    /// False when the table already held this epoch.
    pub applied: bool,
    /// Rows that this call made visible.
    pub rows: u64,
}

/// A raw object for the bronze zone, kept byte for byte.
#[derive(Debug, Clone)]
pub struct BronzeObject {
    pub tenant: TenantId,
    pub source: SourceName,
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
    /// File name with extension; a last extension of `.gz` or `.zst` means compressed.
    /// `.events.ndjson` before it means event envelopes; anything else is raw lines.
    pub name: String,
    pub bytes: Bytes,
}

/// Where an archived object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Relative to the lake's directory.
    pub path: String,
    /// False when the same content was there already.
    pub created: bool,
}

/// A query parameter, `$1` upwards. Cast to the type that the query wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A number as it is written, such as `12.50`: no digit is lost on its way.
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since the Unix epoch, UTC.
    Timestamp(i64),
}

/// Bounds of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    pub memory_bytes: usize,
    pub timeout: Duration,
    /// The result is cut here; [`crate::QueryOutput::truncated`] then says so.
    pub max_rows: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, timeout: Duration::from_secs(60), max_rows: 1_000_000 }
    }
}

/// The version of a table that a query read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// `zone.name`.
    pub table: String,
    pub version: u64,
    /// Latest epoch per writer (`pipeline/table`).
    pub epochs: BTreeMap<String, i64>,
}

/// A column as a caller may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnInfo {
    pub name: String,
    /// The SQL name of the type.
    pub data_type: String,
    pub nullable: bool,
}

/// A table that a session may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableInfo {
    /// How to name it in a query.
    pub name: String,
    pub zone: String,
    pub table: String,
    /// The tenant that owns it, or `None` where tenants share it.
    pub tenant: Option<TenantId>,
    pub description: Option<String>,
    pub columns: Vec<ColumnInfo>,
}

/// A table as the platform sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStats {
    pub key: TableKey,
    /// `None` until the first commit.
    pub version: Option<u64>,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Latest epoch per writer.
    pub epochs: BTreeMap<String, i64>,
}

/// Types of a prepared statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// One per parameter, `$1` first; `None` where the query leaves the type open.
    pub params: Vec<Option<arrow::datatypes::DataType>>,
    pub schema: SchemaRef,
}

/// What maintenance of a table did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    pub files_compacted: u64,
    pub files_written: u64,
    pub files_deleted: u64,
}

/// Settings of the lake.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// The memory of the process.
    pub memory: MemoryBudget,
    /// The part of it that all queries together may hold. One owner may hold three quarters.
    pub memory_bytes: usize,
    /// How many queries of an owner run at the same time.
    pub quotas: Quotas,
    /// Queries that run at the same time. Owners without one may pass this, up to four times.
    pub query_slots: usize,
    /// Threads that each query runs on, apart from the server's own. At least one.
    pub query_threads: usize,
    /// Threads' worth of parallelism within one query.
    pub query_partitions: usize,
    /// Bounds of a model's query.
    pub model_limits: QueryLimits,
    /// Tables whose file lists are kept in memory; the least recently used go first.
    pub loaded_tables: usize,
    /// Files with more rows are split.
    pub file_rows: usize,
    /// Files below this size are candidates for compaction.
    pub small_file_bytes: u64,
    /// A table with at least this many small files is compacted by maintenance.
    pub compact_files: usize,
    /// Compaction aims at files of this size.
    pub target_file_bytes: u64,
    /// Commits between checkpoints of a table's log.
    pub checkpoint_commits: u64,
    /// Files that left a table, or never entered it, are kept this long.
    pub retention: Duration,
}

impl Default for LakeConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            memory: MemoryBudget::unlimited(),
            memory_bytes: 512 << 20,
            quotas: Quotas::default(),
            query_slots: 32,
            query_threads: cores.min(8),
            query_partitions: cores.min(8),
            model_limits: QueryLimits {
                memory_bytes: 512 << 20,
                timeout: Duration::from_secs(600),
                max_rows: 10_000_000,
            },
            loaded_tables: 256,
            file_rows: 1_000_000,
            small_file_bytes: 32 << 20,
            compact_files: 24,
            target_file_bytes: 64 << 20,
            checkpoint_commits: 20,
            retention: Duration::from_secs(6 * 3600),
        }
    }
}
