//! The description that lies beside a table's data, so that opening a lake of a thousand
//! tables reads a thousand small files instead of replaying a thousand Delta logs.
//!
//! It is written before the Delta commit that needs it: it may know more columns or
//! writers than the log, never fewer.

use std::collections::BTreeSet;

use deltalake::kernel::StructType;
use levada_core::{SourceName, TableName, TenantId, Zone};
use levada_disk::{Disk, read_all};
use serde::{Deserialize, Serialize};

use crate::error::LakeError;
use crate::schema;
use crate::types::{Owner, TableKey, TableSpec};

/// Name of the file in the table's directory. Delta ignores names with an underscore.
pub(crate) const SPEC_FILE: &str = "_levada.json";
const FORMAT: u32 = 1;

/// As stored; `format` is raised when a field changes its meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredSpec {
    pub format: u32,
    pub schema: StructType,
    #[serde(default)]
    pub tenant_column: Option<String>,
    #[serde(default)]
    pub partition_by: Vec<String>,
    #[serde(default)]
    pub cluster_by: Vec<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// Application ids that may have committed.
    #[serde(default)]
    pub writers: BTreeSet<String>,
}

impl StoredSpec {
    pub fn new(spec: &TableSpec, writers: BTreeSet<String>) -> Result<Self, LakeError> {
        let schema = schema::to_delta(&spec.schema)
            .map_err(|error| LakeError::Incompatible { table: spec.key(), reason: error.to_string() })?;
        Ok(Self {
            format: FORMAT,
            schema,
            tenant_column: spec.tenant_column.clone(),
            partition_by: spec.partition_by.clone(),
            cluster_by: spec.cluster_by.clone(),
            description: spec.description.clone(),
            writers,
        })
    }

    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self, LakeError> {
        let damaged = |reason: String| LakeError::Damaged { path: path.to_owned(), reason };
        let stored: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.format > FORMAT {
            return Err(damaged(format!("format {} is newer than this program", stored.format)));
        }
        Ok(stored)
    }

    pub fn spec(&self, key: TableKey, path: &str) -> Result<TableSpec, LakeError> {
        let schema = schema::to_arrow(&self.schema)
            .map_err(|error| LakeError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
        Ok(TableSpec {
            owner: key.owner,
            name: key.name,
            schema,
            tenant_column: self.tenant_column.clone(),
            partition_by: self.partition_by.clone(),
            cluster_by: self.cluster_by.clone(),
            description: self.description.clone(),
        })
    }
}

/// What lies on a disk of a table, without a lake that is open: a check of a project asks for it
/// while the server may run. `None`: the table was never committed, or its description is damaged,
/// which a start reports.
pub fn stored_table(disk: &dyn Disk, dir: &str, key: &TableKey) -> Option<TableSpec> {
    let path = format!("{}/{}/{SPEC_FILE}", dir.trim_matches('/'), table_dir(key));
    let bytes = read_all(disk, &path).ok()?;
    StoredSpec::parse(&path, &bytes).ok()?.spec(key.clone(), &path).ok()
}

/// The directory of a table below the lake's.
pub(crate) fn table_dir(key: &TableKey) -> String {
    let (owner, name) = (key.owner.as_str(), key.name.name.as_str());
    match key.name.zone {
        Zone::Bronze => format!("tenant={owner}/bronze/source={name}"),
        Zone::Silver => format!("tenant={owner}/silver/dataset=main/table={name}"),
        Zone::Gold => format!("tenant={owner}/gold/table={name}"),
    }
}

/// Directories, below an owner's, that hold tables of a zone.
pub(crate) fn zone_dir(zone: Zone) -> &'static str {
    match zone {
        Zone::Bronze => "bronze",
        Zone::Silver => "silver/dataset=main",
        Zone::Gold => "gold",
    }
}

/// Zone, table (or bronze source) and file of a path that begins with the owner's name.
pub(crate) fn place_of(path: &str) -> Option<(&'static str, &str, &str)> {
    let (_, below) = path.split_once('/')?;
    let places = [
        (Zone::Bronze, "bronze", "source="),
        (Zone::Silver, "silver", "table="),
        (Zone::Gold, "gold", "table="),
    ];
    let (_, zone, below, prefix) = places.into_iter().find_map(|(zone, word, prefix)| {
        Some((zone, word, below.strip_prefix(zone_dir(zone))?.strip_prefix('/')?, prefix))
    })?;
    let (name, file) = below.strip_prefix(prefix)?.split_once('/')?;
    Some((zone, name, file))
}

/// The owner named by a directory `tenant=<owner>`; other directories are not ours.
pub(crate) fn owner_of(dir: &str) -> Option<Owner> {
    match dir.strip_prefix("tenant=")? {
        "_shared" => Some(Owner::Shared),
        tenant => TenantId::new(tenant).ok().map(Owner::Tenant),
    }
}

/// The table or source named by a directory `table=<name>` or `source=<name>`.
pub(crate) fn name_of(zone: Zone, dir: &str) -> Option<TableName> {
    let prefix = if zone == Zone::Bronze { "source=" } else { "table=" };
    SourceName::new(dir.strip_prefix(prefix)?).ok().map(|name| TableName::new(zone, name))
}

/// Checks what a caller asks for and brings the schema into Delta's types.
pub(crate) fn check(spec: &TableSpec) -> Result<TableSpec, LakeError> {
    let refuse = |reason: String| LakeError::Incompatible { table: spec.key(), reason };
    if spec.name.zone == Zone::Bronze {
        return Err(refuse("bronze holds objects, not tables".into()));
    }
    let schema = schema::normalise(&spec.schema).map_err(|error| refuse(error.to_string()))?;
    let named = spec.tenant_column.iter().chain(&spec.partition_by).chain(&spec.cluster_by);
    for column in named {
        if schema.index_of(column).is_err() {
            return Err(refuse(format!("there is no column `{column}`")));
        }
    }
    match (&spec.owner, &spec.tenant_column) {
        (Owner::Shared, None) => return Err(refuse("a shared table needs a tenant column".into())),
        (_, Some(column)) => {
            let field = schema.field_with_name(column).map_err(|error| refuse(error.to_string()))?;
            if field.data_type() != &arrow::datatypes::DataType::Utf8 {
                return Err(refuse(format!("the tenant column `{column}` must be text")));
            }
        }
        (Owner::Tenant(_), None) => {}
    }
    Ok(TableSpec { schema, ..spec.clone() })
}
