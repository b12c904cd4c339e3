//! The stored form of a reader's position: part of the pipeline's epoch manifest.
//!
//! It stays small however many files are done: the newest few are listed here, the rest stand
//! in the ledger, of which the position names a prefix and its checksum.

use serde::{Deserialize, Serialize};

/// Version 1 knew no parts of files: every file was read whole, or not at all.
pub(crate) const VERSION: u32 = 2;
pub(crate) const OLDEST_VERSION: u32 = 1;

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

/// One version of a file that needs no more reading, unless it grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Relative to the watched folder, with `/`.
    pub name: String,
    pub size: u64,
    pub modified_ns: i64,
    pub blake3: String,
    /// Where reading goes on once the file has grown; `None`: then it counts as changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Something without an end stands at its end and has not been read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Another version of a file of this name was read before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The file was refused whole, by a reader of these settings: another reader may try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u32>,
}

/// Where reading goes on in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Next {
    /// Offset in the file, as it lies in the folder, of the first byte that is needed.
    pub from: u64,
    /// Offset of the next unread byte in the (decompressed) text that begins there.
    #[serde(default)]
    pub offset: u64,
    /// Line of that byte; the first is 1.
    pub line: u64,
    /// That byte stands inside the file's JSON array, or behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub array: bool,
    /// Behind the end of the array.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// So many bytes from there on were read as a row that had no line end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail: u64,
}

/// A file of which a part has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Current {
    #[serde(flatten)]
    pub file: Done,
    /// When it came into the folder, milliseconds since 1970.
    pub arrived_ms: i64,
    /// Offset in the file from which on it is read; 0 is its beginning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from: u64,
    /// BLAKE3 of the file from there on, where that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The header line, where the part does not begin with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Whether it is compressed; by its name where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<bool>,
    /// It may still be written: what has no end at its end is not read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// Line of the next unread byte; the first is 1.
    pub line: u64,
    /// Offset of the next unread byte in the decompressed part; 0 before the first read.
    pub offset: u64,
    /// The part lies inside the file's JSON array.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub array: bool,
    /// That byte lies behind the end of the file's JSON array.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// As in [`Next::tail`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail: u64,
}

impl Current {
    /// What its rows and dead letters name as their origin: the file's name, with its hash from
    /// the second version on, so that no line of two versions is taken for the same.
    pub fn object(&self) -> String {
        let Done { name, blake3, again, .. } = &self.file;
        if *again { format!("{name}@{}", &blake3[..12]) } else { name.clone() }
    }

    /// The hash of what is copied and archived, in hex.
    pub fn part_hash(&self) -> &str {
        self.part.as_deref().unwrap_or(&self.file.blake3)
    }

    /// Bytes of what is copied.
    pub fn part_bytes(&self) -> u64 {
        self.file.size.saturating_sub(self.from)
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
