//! The bronze copy of a file, made before its first row is read.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{SourceName, TenantId};
use levada_disk::DiskFile;

/// What a bronze object is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveName {
    pub tenant: TenantId,
    pub source: SourceName,
    /// The day the file arrived, `YYYY-MM-DD`, UTC.
    pub date: String,
    /// `<12 hex digits of its BLAKE3>-<file name>`: two versions of a file never meet.
    pub name: String,
}

/// Why the copy could not be kept or fetched. The read is retried.
#[derive(Debug, thiserror::Error)]
#[error("the bronze copy {object}: {reason}")]
pub struct ArchiveError {
    pub object: String,
    pub reason: String,
}

/// Keeps files verbatim.
#[async_trait]
pub trait Archive: Send + Sync + Debug {
    /// Keeps `content` under `name` and answers once it is durable. The same content under the
    /// same name again succeeds and changes nothing; a cancelled call may be repeated.
    async fn keep(&self, name: &ArchiveName, content: Arc<dyn DiskFile>) -> Result<(), ArchiveError>;

    /// The content kept under that name: a file half read goes on from it after a crash, when
    /// neither the landing file nor the spooled copy is left.
    async fn fetch(&self, name: &ArchiveName) -> Result<Option<Bytes>, ArchiveError>;
}
