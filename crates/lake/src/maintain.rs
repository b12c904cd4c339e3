//! Housekeeping of a table: many small files become few, files that nobody needs go.
//!
//! Neither blocks commits or queries: rows are moved beside the table, and only the swap
//! takes the table's lock. A query that began earlier still finds the files of its version,
//! since a file is deleted only `retention` after it left the table.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::protocol::DeltaOperation;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::commit::Change;
use crate::error::{Context, LakeError};
use crate::lake::Lake;
use crate::table::{FileEntry, Slot, TableState};
use crate::types::{Maintained, TableKey};

type PartitionValues = BTreeMap<String, Option<String>>;

impl Lake {
    /// Compacts the table when it has many small files, then removes what nobody needs.
    /// Call it now and then, after pipelines have rolled their manifests forward.
    ///
    /// # Errors
    /// As [`Lake::compact`] and [`Lake::vacuum`].
    pub async fn maintain(&self, table: &TableKey) -> Result<Maintained, LakeError> {
        let slot = self.slot(table)?;
        let state = self.state(&slot).await?;
        let small = state.files.iter().filter(|f| self.is_small(f)).count();
        let mut done = Maintained::default();
        if small >= self.config().compact_files {
            done = self.compact(table).await?;
        }
        done.files_deleted = self.vacuum(table).await?.files_deleted;
        Ok(done)
    }

    fn is_small(&self, file: &FileEntry) -> bool {
        file.size_bytes < self.config().small_file_bytes && file.stats.rows < self.config().file_rows as u64
    }

    /// Packs small files into larger ones. The rows stay the same.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub async fn compact(&self, table: &TableKey) -> Result<Maintained, LakeError> {
        let slot = self.slot(table)?;
        let _turn = slot.maintenance.lock().await;
        let state = self.state(&slot).await?;
        let mut done = Maintained::default();
        for bin in self.bins(&state) {
            let inputs = bin.len() as u64;
            if let Some(written) = self.merge(&slot, bin).await? {
                done.files_compacted += inputs;
                done.files_written += written;
            }
        }
        Ok(done)
    }

    /// Groups of small files of one partition that together make one file of the wished size.
    fn bins(&self, state: &TableState) -> Vec<Vec<Arc<FileEntry>>> {
        let config = self.config();
        let mut partitions: BTreeMap<&PartitionValues, Vec<Arc<FileEntry>>> = BTreeMap::new();
        for file in state.files.iter().filter(|f| self.is_small(f)) {
            partitions.entry(&file.partition_values).or_default().push(Arc::clone(file));
        }
        let mut bins = Vec::new();
        for mut files in partitions.into_values() {
            files.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
            let (mut open, mut bytes, mut rows) = (Vec::new(), 0, 0);
            for file in files {
                let full = bytes + file.size_bytes > config.target_file_bytes
                    || rows + file.stats.rows > config.file_rows as u64;
                if full && !open.is_empty() {
                    bins.push(std::mem::take(&mut open));
                    (bytes, rows) = (0, 0);
                }
                bytes += file.size_bytes;
                rows += file.stats.rows;
                open.push(file);
            }
            bins.push(open);
        }
        bins.retain(|bin| bin.len() > 1);
        bins
    }

    async fn merge(&self, slot: &Arc<Slot>, bin: Vec<Arc<FileEntry>>) -> Result<Option<u64>, LakeError> {
        let what = || format!("compacting {}", slot.key);
        let mut contents = Vec::with_capacity(bin.len());
        for file in &bin {
            let object = self.store().get(&slot.path(&file.path)).await;
            let bytes = match object {
                Ok(object) => object.bytes().await,
                Err(error) => Err(error),
            };
            contents.push(bytes.map_err(deltalake::DeltaTableError::from).context(what)?);
        }
        let batches = self.compute(move || decode(contents)).await?.context(what)?;
        let files = self.write_files(slot, batches).await?;
        let written = files.len() as u64;

        let _lock = slot.commit.lock().await;
        let state = self.locked_state(slot).await?;
        let live: HashSet<&str> = state.files.iter().map(|f| f.path.as_str()).collect();
        if !bin.iter().all(|file| live.contains(file.path.as_str())) {
            // The table was replaced meanwhile; what was written is swept up later.
            return Ok(None);
        }
        let change = Change {
            epoch: None,
            add: files,
            remove: bin.iter().map(|f| f.path.clone()).collect(),
            data_change: false,
            operation: DeltaOperation::Optimize {
                predicate: None,
                target_size: i64::try_from(self.config().target_file_bytes).unwrap_or(i64::MAX),
            },
        };
        self.apply(slot, &state, change).await?;
        Ok(Some(written))
    }

    /// Removes data files that no version of the table has needed for the retention time:
    /// replaced and compacted ones, and staged ones that were never committed. Files of a
    /// manifest that is still to be rolled forward must be younger than the retention.
    ///
    /// # Errors
    /// When the table's directory cannot be listed or a file not be removed.
    pub async fn vacuum(&self, table: &TableKey) -> Result<Maintained, LakeError> {
        let slot = self.slot(table)?;
        let _turn = slot.maintenance.lock().await;
        let what = || format!("sweeping {}", slot.key);
        let cutoff =
            self.clock().now_ms() - i64::try_from(self.config().retention.as_millis()).unwrap_or(i64::MAX);
        // Listed before the state is read: a file that is committed in between is then live.
        let root = Path::from(slot.dir.as_str());
        let mut listing = self.store().list(Some(&root));
        let mut old = Vec::new();
        while let Some(object) = listing.next().await {
            let object = object.map_err(deltalake::DeltaTableError::from).context(what)?;
            if object.last_modified.timestamp_millis() < cutoff && is_data(&slot, &object.location) {
                old.push(object.location);
            }
        }
        let state = self.state(&slot).await?;
        let mut needed: HashSet<Path> = state.files.iter().map(|f| slot.path(&f.path)).collect();
        {
            let mut removed = slot.removed.lock();
            removed.retain(|_, at| *at >= cutoff);
            needed.extend(removed.keys().map(|path| slot.path(path)));
        }
        old.retain(|path| !needed.contains(path));
        let count = old.len() as u64;
        let mut deleted = self.store().delete_stream(futures::stream::iter(old.into_iter().map(Ok)).boxed());
        while let Some(result) = deleted.next().await {
            result.map_err(deltalake::DeltaTableError::from).context(what)?;
        }
        Ok(Maintained { files_deleted: count, ..Maintained::default() })
    }
}

/// Whether a path is a data file of the table: Parquet, and in no directory that Delta hides.
fn is_data(slot: &Slot, location: &Path) -> bool {
    let below = location.as_ref().strip_prefix(&slot.dir).unwrap_or_default();
    below.ends_with(".parquet") && !below.split('/').any(|part| part.starts_with('_'))
}

fn decode(files: Vec<Bytes>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    for bytes in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(64 * 1024).build()?;
        for batch in reader {
            batches.push(batch?);
        }
    }
    Ok(batches)
}
