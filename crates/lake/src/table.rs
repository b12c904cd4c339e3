//! A table in memory: its description always, its state (version, files, epochs) while in use.
//!
//! A [`TableState`] is immutable; a commit publishes the next one. A query holds the state it
//! began with, so all its scans of a table see one version.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltalake::DeltaTable;
use deltalake::kernel::LogicalFileView;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::{Mutex, RwLock};

use crate::blocks::{BLOCKS_TAG, Blocks};
use crate::diskstore::DiskStore;
use crate::error::{Context, LakeError};
use crate::schema;
use crate::spec::{SPEC_FILE, StoredSpec, table_dir};
use crate::stats::FileStats;
use crate::types::{TableKey, TableSpec, TableStats};

/// Scheme of the lake's addresses: `levada:///tenant=...`.
const SCHEME: &str = "levada";

/// A Parquet file that a version of a table consists of.
#[derive(Debug, PartialEq)]
pub(crate) struct FileEntry {
    /// Relative to the table.
    pub path: String,
    pub size_bytes: u64,
    pub modified_ms: i64,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub stats: FileStats,
    /// `None` for a file of before, or of another program.
    pub blocks: Option<Arc<Blocks>>,
}

/// One version of a table.
#[derive(Debug, Default)]
pub(crate) struct TableState {
    /// `None` while nothing was ever committed.
    pub delta: Option<DeltaTableState>,
    pub files: Vec<Arc<FileEntry>>,
    /// Last epoch per application id.
    pub epochs: BTreeMap<String, i64>,
}

impl TableState {
    pub fn version(&self) -> Option<u64> {
        self.delta.as_ref().map(DeltaTableState::version)
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.stats.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size_bytes).sum()
    }

    /// The state that `delta` describes. Files known from `previous` are not parsed again.
    pub fn next(
        delta: DeltaTableState,
        previous: &TableState,
        epochs: BTreeMap<String, i64>,
    ) -> Result<Self, LakeError> {
        let schema =
            schema::to_arrow(delta.schema().as_ref()).context(|| "reading a table's schema".into())?;
        let known: HashMap<&str, &Arc<FileEntry>> =
            previous.files.iter().map(|f| (f.path.as_str(), f)).collect();
        let files = delta
            .log_data()
            .iter()
            .map(|view| match known.get(view.path().as_ref()) {
                Some(entry) => Arc::clone(entry),
                None => Arc::new(entry(&view, &schema)),
            })
            .collect();
        Ok(Self { delta: Some(delta), files, epochs })
    }
}

fn entry(view: &LogicalFileView, schema: &arrow::datatypes::Schema) -> FileEntry {
    let size_bytes = u64::try_from(view.size()).unwrap_or(0);
    FileEntry {
        path: view.path().into_owned(),
        size_bytes,
        blocks: tag(view).and_then(|text| Blocks::parse(&text, size_bytes)).map(Arc::new),
        modified_ms: view.modification_time(),
        partition_values: view.partition_values_map().into_iter().collect(),
        stats: view.stats().map(|text| FileStats::parse(&text, schema)).unwrap_or_default(),
    }
}

/// The checksums that the commit of a file holds. Delta's own view gives its tags in no other way.
#[allow(deprecated)]
fn tag(view: &LogicalFileView) -> Option<String> {
    view.add_action().tags?.remove(BLOCKS_TAG).flatten()
}

/// What is known of a table without its data.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub spec: Arc<TableSpec>,
    /// Application ids that may have committed.
    pub writers: BTreeSet<String>,
    /// Whether exactly this lies on disk.
    pub stored: bool,
}

/// A table's place in memory.
#[derive(Debug)]
pub(crate) struct Slot {
    pub key: TableKey,
    /// Relative to the lake.
    pub dir: String,
    pub described: RwLock<Described>,
    /// Held by the one who changes the table. Loading takes it too, so that a load never
    /// overtakes a commit.
    pub commit: tokio::sync::Mutex<()>,
    /// Held by the one who compacts or sweeps.
    pub maintenance: tokio::sync::Mutex<()>,
    state: RwLock<Option<Arc<TableState>>>,
    last_used: AtomicU64,
    /// Files that left the table while this process ran, and when (ms): queries may still read them.
    pub removed: Mutex<HashMap<String, i64>>,
    store: DiskStore,
}

impl Slot {
    pub fn new(key: TableKey, described: Described, store: DiskStore) -> Self {
        Self {
            dir: table_dir(&key),
            key,
            described: RwLock::new(described),
            commit: tokio::sync::Mutex::default(),
            maintenance: tokio::sync::Mutex::default(),
            state: RwLock::default(),
            last_used: AtomicU64::new(0),
            removed: Mutex::default(),
            store,
        }
    }

    pub fn spec(&self) -> Arc<TableSpec> {
        Arc::clone(&self.described.read().spec)
    }

    pub fn path(&self, file: &str) -> Path {
        Path::from_iter(Path::from(self.dir.as_str()).parts().chain(Path::from(file).parts()))
    }

    pub fn log_store(&self) -> LogStoreRef {
        let address = format!("{SCHEME}:///{}", self.dir);
        let url = address.parse().expect("a table's directory holds only name characters");
        let root: Arc<dyn ObjectStore> = Arc::new(self.store.clone());
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&root), self.dir.as_str()));
        default_logstore(prefixed, root, &url, &StorageConfig::default())
    }

    /// The cached state, if there is one. `tick` orders the uses of tables.
    pub fn cached(&self, tick: u64) -> Option<Arc<TableState>> {
        self.last_used.store(tick, Ordering::Relaxed);
        self.state.read().clone()
    }

    pub fn last_used(&self) -> Option<u64> {
        self.state.read().is_some().then(|| self.last_used.load(Ordering::Relaxed))
    }

    pub fn publish(&self, state: &Arc<TableState>) {
        let before: HashSet<*const FileEntry> = match &*self.state.read() {
            Some(before) => before.files.iter().map(Arc::as_ptr).collect(),
            None => HashSet::new(),
        };
        let new = state.files.iter().filter(|file| !before.contains(&Arc::as_ptr(file)));
        self.store.expect(new.filter_map(|file| Some((self.path(&file.path), file.blocks.clone()?))));
        *self.state.write() = Some(Arc::clone(state));
    }

    /// Forgets the state; the next use reads the disk.
    pub fn forget(&self) {
        *self.state.write() = None;
    }

    /// Reads the table's log. The caller holds the commit lock.
    pub async fn load(&self) -> Result<Arc<TableState>, LakeError> {
        let what = || format!("loading {}", self.key);
        let log_dir = format!("{}/_delta_log", self.dir);
        self.store.settle(&log_dir).await.map_err(deltalake::DeltaTableError::from).context(what)?;
        let listed = self.store.list_with_delimiter(Some(&Path::from(log_dir.as_str()))).await;
        let listed = listed.map_err(deltalake::DeltaTableError::from).context(what)?;
        if listed.objects.is_empty() {
            let state = Arc::new(TableState::default());
            self.publish(&state);
            return Ok(state);
        }
        let log = self.log_store();
        let mut table = DeltaTable::new(Arc::clone(&log));
        table.load().await.context(what)?;
        let delta = table
            .state
            .take()
            .ok_or_else(|| LakeError::Damaged { path: log_dir, reason: "the log holds no state".into() })?;
        self.adopt_schema(&delta)?;
        let mut epochs = BTreeMap::new();
        let writers = self.described.read().writers.clone();
        for writer in writers {
            if let Some(epoch) = delta.snapshot().transaction_version(&log, &writer).await.context(what)? {
                epochs.insert(writer, epoch);
            }
        }
        let state = Arc::new(TableState::next(delta, &TableState::default(), epochs)?);
        self.publish(&state);
        Ok(state)
    }

    /// Columns that the log knows and the description lacks (another program wrote the table).
    fn adopt_schema(&self, delta: &DeltaTableState) -> Result<(), LakeError> {
        let logged = schema::to_arrow(delta.schema().as_ref()).context(|| format!("reading {}", self.key))?;
        let mut described = self.described.write();
        let merged = schema::merge(&described.spec.schema, &logged)
            .map_err(|reason| LakeError::Incompatible { table: self.key.clone(), reason })?;
        if merged != described.spec.schema {
            described.spec = Arc::new(TableSpec { schema: merged, ..(*described.spec).clone() });
            described.stored = false;
        }
        Ok(())
    }

    /// Makes the description durable, with `writer` among its writers, before a commit needs it.
    pub async fn store_description(&self, writer: Option<&str>) -> Result<(), LakeError> {
        let described = {
            let described = self.described.read();
            let known = writer.is_none_or(|w| described.writers.contains(w));
            if described.stored && known {
                return Ok(());
            }
            let mut described = described.clone();
            described.writers.extend(writer.map(str::to_owned));
            described
        };
        let stored = StoredSpec::new(&described.spec, described.writers.clone())?;
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|error| LakeError::Damaged { path: self.dir.clone(), reason: error.to_string() })?;
        self.store
            .put(&self.path(SPEC_FILE), bytes.into())
            .await
            .map_err(deltalake::DeltaTableError::from)
            .context(|| format!("describing {}", self.key))?;
        let mut now = self.described.write();
        now.writers.extend(described.writers);
        now.stored = now.spec == described.spec;
        Ok(())
    }

    pub fn stats(&self, state: &TableState) -> TableStats {
        TableStats {
            key: self.key.clone(),
            version: state.version(),
            rows: state.rows(),
            files: state.files.len() as u64,
            bytes: state.bytes(),
            epochs: state.epochs.clone(),
        }
    }
}
