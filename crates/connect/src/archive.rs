//! The bronze copy of a file, made before its first row is read.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{SourceName, TenantId};
use levada_disk::{DiskFile, read_exact_at};
use levada_lake::{BronzeObject, Lake};

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

/// The lake's bronze zone.
#[async_trait]
impl Archive for Lake {
    async fn keep(&self, name: &ArchiveName, content: Arc<dyn DiskFile>) -> Result<(), ArchiveError> {
        let reading = tokio::task::spawn_blocking(move || read_all(content.as_ref())).await;
        let bytes = reading.map_err(|e| failed(name, &e))?.map_err(|e| failed(name, &e))?;
        self.archive(object(name, bytes)).await.map(|_kept| ()).map_err(|e| failed(name, &e))
    }

    async fn fetch(&self, name: &ArchiveName) -> Result<Option<Bytes>, ArchiveError> {
        self.archived(&object(name, Bytes::new())).await.map_err(|e| failed(name, &e))
    }
}

fn object(name: &ArchiveName, bytes: Bytes) -> BronzeObject {
    let ArchiveName { tenant, source, date, name } = name.clone();
    BronzeObject { tenant, source, date, name, bytes }
}

/// The whole file: its size is bounded by [`crate::FileLimits::file_bytes`].
fn read_all(file: &dyn DiskFile) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    read_exact_at(file, 0, &mut bytes)?;
    Ok(bytes.into())
}

fn failed(name: &ArchiveName, reason: &dyn std::fmt::Display) -> ArchiveError {
    ArchiveError { object: name.name.clone(), reason: reason.to_string() }
}
