//! An upload in parts: each part goes to its place in a temporary file, `complete` names it.

use async_trait::async_trait;
use levada_disk::OpenMode;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::DiskStore;

#[derive(Debug)]
pub(super) struct Upload {
    store: DiskStore,
    location: Path,
    temporary: String,
    offset: u64,
}

impl Upload {
    pub(super) async fn start(store: DiskStore, location: Path) -> Result<Self> {
        let temporary = store.inner.temporary();
        let path = temporary.clone();
        store
            .run(&location, move |inner| inner.disk.open(&path, OpenMode::Write).and_then(|f| f.set_len(0)))
            .await?;
        Ok(Self { store, location, temporary, offset: 0 })
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut offset = self.offset;
        self.offset += data.content_length() as u64;
        let (store, location, path) = (self.store.clone(), self.location.clone(), self.temporary.clone());
        Box::pin(async move {
            store
                .run(&location, move |inner| {
                    let file = inner.disk.open(&path, OpenMode::Write)?;
                    for chunk in &data {
                        file.write_at(offset, chunk)?;
                        offset += chunk.len() as u64;
                    }
                    Ok(())
                })
                .await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (path, location) = (self.temporary.clone(), self.location.clone());
        let meta = self
            .store
            .run(&self.location, move |inner| {
                inner.finish(&path, &location)?;
                inner.meta(&location)
            })
            .await?;
        Ok(PutResult { e_tag: meta.e_tag, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let path = self.temporary.clone();
        self.store.run(&self.location, move |inner| inner.disk.remove(&path)).await
    }
}
