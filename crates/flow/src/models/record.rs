//! What is remembered of a model's last run. Losing it costs one more run, so it is a plain
//! document, and one that does not read is as good as none.

use std::io;

use levada_core::TableName;
use levada_disk::{Disk, create_dir_durable, parent, read_all, write_atomic};
use serde::{Deserialize, Serialize};

use crate::names;

/// Tables and their versions; `None` is a table without a commit.
pub type Versions = Vec<(TableName, Option<u64>)>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub at_ms: i64,
    pub rows: u64,
    pub duration_ms: u64,
    pub epoch: u64,
    /// Of the tables that it read, before it read them.
    pub sources: Versions,
}

fn path(model: &str) -> String {
    format!("{}/models/{model}.json", names::DIR)
}

impl RunRecord {
    pub fn load(disk: &dyn Disk, model: &str) -> Option<Self> {
        serde_json::from_slice(&read_all(disk, &path(model)).ok()?).ok()
    }

    pub fn save(&self, disk: &dyn Disk, model: &str) -> io::Result<()> {
        let path = path(model);
        create_dir_durable(disk, parent(&path))?;
        write_atomic(disk, &path, &serde_json::to_vec(self)?)
    }
}
