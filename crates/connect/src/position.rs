//! The stored form of a reader's position: part of the pipeline's epoch manifest.
//!
//! It stays small however many files are done: the newest few are listed here, the rest stand
//! in the ledger, of which the position names a prefix and its checksum.

use serde::{Deserialize, Serialize};

/// The only version so far.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub version: u32,
    /// The part of the ledger that counts.
    #[serde(default, skip_serializing_if = "Mark::is_empty")]
    pub ledger: Mark,
    /// Files done since, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<Done>,
    /// The file being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
    /// When the last scheduled run was over, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_ms: Option<i64>,
}

impl Default for Position {
    fn default() -> Self {
        Self { version: VERSION, ledger: Mark::default(), done: Vec::new(), current: None, last_run_ms: None }
    }
}

/// A prefix of the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub bytes: u64,
    pub entries: u64,
    pub crc32c: u32,
}

impl Mark {
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// One version of a file that needs no more reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Relative to the watched folder, with `/`.
    pub name: String,
    pub size: u64,
    pub modified_ns: i64,
    pub blake3: String,
}

/// A file of which a part has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Current {
    #[serde(flatten)]
    pub file: Done,
    /// When it came into the folder, milliseconds since 1970.
    pub arrived_ms: i64,
    /// Line of the next unread byte; the first is 1.
    pub line: u64,
    /// Offset of the next unread byte in the decompressed file; 0 before the first read.
    pub offset: u64,
    /// Another version of a file of this name was read before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// That byte lies behind the end of the file's JSON array.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

impl Current {
    /// What its rows and dead letters name as their origin: the file's name, with its hash from
    /// the second version on, so that no line of two versions is taken for the same.
    pub fn object(&self) -> String {
        let Done { name, blake3, .. } = &self.file;
        if self.again { format!("{name}@{}", &blake3[..12]) } else { name.clone() }
    }
}
