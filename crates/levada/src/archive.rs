//! The lake's bronze zone as the archive of the file connector.

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_connect::{Archive, ArchiveError, ArchiveName};
use levada_disk::DiskFile;
use levada_lake::{BronzeObject, Lake};

#[derive(Debug, Clone)]
pub struct LakeArchive(pub Lake);

#[async_trait]
impl Archive for LakeArchive {
    async fn keep(&self, name: &ArchiveName, content: Arc<dyn DiskFile>) -> Result<(), ArchiveError> {
        let kept = self.0.archive_file(object(name), content).await;
        kept.map(|_kept| ()).map_err(|e| failed(name, &e))
    }

    async fn fetch(&self, name: &ArchiveName) -> Result<Option<Bytes>, ArchiveError> {
        self.0.archived(&object(name)).await.map_err(|e| failed(name, &e))
    }
}

fn object(name: &ArchiveName) -> BronzeObject {
    let ArchiveName { tenant, source, date, name } = name.clone();
    BronzeObject { tenant, source, date, name, bytes: Bytes::new() }
}

fn failed(name: &ArchiveName, reason: &dyn Display) -> ArchiveError {
    ArchiveError { object: name.name.clone(), reason: reason.to_string() }
}
