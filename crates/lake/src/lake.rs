//! The lake's handle: what exists, where it lies, what is held in memory.
//!
//! Opening reads only the descriptions of tables and the names of bronze sources; the
//! state of a table is loaded at its first use and the least recently used are let go.
//! `ensure_table` does no IO: a table gets its log with its first commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use deltalake::protocol::SaveMode;
use levada_core::{Clock, SourceName, TableName, TenantId, Zone};
use levada_disk::{Disk, Entry, read_all};
use object_store::{ObjectStore, PutMode};
use parking_lot::RwLock;

use crate::blocks::Blocks;
use crate::bronze::Rosters;
use crate::commit::{Change, repeated, write_operation};
use crate::diskstore::DiskStore;
use crate::engine::Engine;
use crate::error::{Context, LakeError};
use crate::runtime::QueryRuntime;
use crate::schema;
use crate::scrub::Scrubber;
use crate::spec::{self, SPEC_FILE, StoredSpec, table_dir};
use crate::stage::{self, Encoded};
use crate::table::{Described, Slot, TableState};
use crate::types::{Committed, LakeConfig, Owner, StagedFile, TableKey, TableSpec, TableStats};

/// Handle to the lake. Cheap to clone.
#[derive(Clone)]
pub struct Lake {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: DiskStore,
    pub disk: Arc<dyn Disk>,
    pub dir: String,
    pub config: LakeConfig,
    pub clock: Arc<dyn Clock>,
    pub engine: Engine,
    pub runtime: QueryRuntime,
    /// By name first, since that is how a query asks.
    pub tables: RwLock<BTreeMap<TableName, BTreeMap<Owner, Arc<Slot>>>>,
    /// Bronze sources and the tenants that have objects in them.
    pub sources: RwLock<BTreeMap<SourceName, BTreeSet<TenantId>>>,
    next_file: AtomicU64,
    tick: AtomicU64,
    pub scrubber: Scrubber,
    pub rosters: Rosters,
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lake({})", self.inner.dir)
    }
}

impl Lake {
    /// Opens the lake in `dir` of the disk, creating it when it is not there.
    ///
    /// # Errors
    /// When the disk cannot be read, or a table's description is damaged (the error names it).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        config: LakeConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LakeError> {
        let store = DiskStore::open(Arc::clone(&disk), dir).context(|| format!("opening {dir}"))?;
        let engine = Engine::new(&config, store.clone());
        let runtime = match disk.local_path("") {
            Some(_) => QueryRuntime::new(config.query_threads, config.query_slots, config.quotas.clone()),
            None => QueryRuntime::in_place(),
        };
        let inner = Inner {
            store,
            disk,
            dir: dir.trim_matches('/').to_owned(),
            config,
            clock,
            engine,
            runtime,
            tables: RwLock::default(),
            sources: RwLock::default(),
            next_file: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            scrubber: Scrubber::default(),
            rosters: Rosters::default(),
        };
        let lake = Self { inner: Arc::new(inner) };
        lake.discover()?;
        Ok(lake)
    }

    pub(crate) fn store(&self) -> &DiskStore {
        &self.inner.store
    }

    pub(crate) fn config(&self) -> &LakeConfig {
        &self.inner.config
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    fn discover(&self) -> Result<(), LakeError> {
        for owner_dir in self.dirs("")? {
            let Some(owner) = spec::owner_of(&owner_dir) else { continue };
            for zone in Zone::ALL {
                let base = format!("{owner_dir}/{}", spec::zone_dir(zone));
                for dir in self.dirs(&base)? {
                    let Some(name) = spec::name_of(zone, &dir) else { continue };
                    match (zone, &owner) {
                        (Zone::Bronze, Owner::Tenant(tenant)) => self.note_source(&name.name, tenant),
                        (Zone::Bronze, Owner::Shared) => {}
                        _ => self.discover_table(TableKey::new(owner.clone(), name))?,
                    }
                }
            }
        }
        Ok(())
    }

    fn discover_table(&self, key: TableKey) -> Result<(), LakeError> {
        let path = self.disk_path(&format!("{}/{SPEC_FILE}", table_dir(&key)));
        let bytes = match read_all(&*self.inner.disk, &path) {
            Ok(bytes) => bytes,
            // Files were staged and never committed: the table comes back with `ensure_table`.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(|| format!("reading {path}")),
        };
        let stored = StoredSpec::parse(&path, &bytes)?;
        let table = stored.spec(key.clone(), &path)?;
        let described = Described { spec: Arc::new(table), writers: stored.writers, stored: true };
        self.insert(key, described);
        Ok(())
    }

    fn insert(&self, key: TableKey, described: Described) {
        let slot = Arc::new(Slot::new(key.clone(), described, self.store().clone()));
        self.inner.tables.write().entry(key.name).or_default().entry(key.owner).or_insert(slot);
    }

    pub(crate) fn disk_path(&self, below: &str) -> String {
        match self.inner.dir.as_str() {
            "" => below.to_owned(),
            dir if below.is_empty() => dir.to_owned(),
            dir => format!("{dir}/{below}"),
        }
    }

    /// Names of the directories in a directory of the lake; none when it is not there.
    pub(crate) fn dirs(&self, below: &str) -> Result<Vec<String>, LakeError> {
        Ok(self.list(below)?.into_iter().filter(|e| e.is_dir).map(|e| e.name).collect())
    }

    /// Names of the files in a directory of the lake.
    pub(crate) fn files(&self, below: &str) -> Result<Vec<String>, LakeError> {
        Ok(self.list(below)?.into_iter().filter(|e| !e.is_dir).map(|e| e.name).collect())
    }

    fn list(&self, below: &str) -> Result<Vec<Entry>, LakeError> {
        match self.inner.disk.list(&self.disk_path(below)) {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context(|| format!("listing {below}")),
        }
    }

    /// Lets queries name a bronze source before there is an object of it.
    pub fn declare_source(&self, source: &SourceName, tenant: &TenantId) {
        self.note_source(source, tenant);
    }

    pub(crate) fn note_source(&self, source: &SourceName, tenant: &TenantId) {
        let known = self.inner.sources.read().get(source).is_some_and(|tenants| tenants.contains(tenant));
        if !known {
            self.inner.sources.write().entry(source.clone()).or_default().insert(tenant.clone());
        }
    }

    pub(crate) fn slot(&self, key: &TableKey) -> Result<Arc<Slot>, LakeError> {
        let tables = self.inner.tables.read();
        let found = tables.get(&key.name).and_then(|owners| owners.get(&key.owner)).cloned();
        found.ok_or_else(|| LakeError::UnknownTable(key.clone()))
    }

    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.inner.tables.read().values().flat_map(|owners| owners.values().cloned()).collect()
    }

    /// Declares a table: creates it, or adds the columns it lacks (as nullable). Columns
    /// that the table has and `table` lacks stay. Nothing is written before the first commit.
    ///
    /// # Errors
    /// [`LakeError::Incompatible`] when a column would change its type, a named column does
    /// not exist, or a shared table has no tenant column.
    pub async fn ensure_table(&self, table: &TableSpec) -> Result<(), LakeError> {
        let wanted = spec::check(table)?;
        let key = wanted.key();
        let Ok(slot) = self.slot(&key) else {
            let described = Described { spec: Arc::new(wanted), writers: BTreeSet::new(), stored: false };
            self.insert(key, described);
            return Ok(());
        };
        let mut described = slot.described.write();
        let refuse = |reason| LakeError::Incompatible { table: key.clone(), reason };
        let have = Arc::clone(&described.spec);
        if have.tenant_column != wanted.tenant_column || have.partition_by != wanted.partition_by {
            return Err(refuse("the tenant column and the partitions of a table cannot change".into()));
        }
        let schema = schema::merge(&have.schema, &wanted.schema).map_err(refuse)?;
        let merged = TableSpec { schema, ..wanted };
        if merged != *have {
            described.spec = Arc::new(merged);
            described.stored = false;
        }
        Ok(())
    }

    /// The table, where it is declared or stored.
    pub fn spec(&self, table: &TableKey) -> Option<Arc<TableSpec>> {
        self.slot(table).ok().map(|slot| slot.spec())
    }

    /// Every table that is declared or stored.
    pub fn specs(&self) -> Vec<TableSpec> {
        self.slots().iter().map(|slot| (*slot.spec()).clone()).collect()
    }

    /// The table's state, loaded when it is not in memory.
    pub(crate) async fn state(&self, slot: &Arc<Slot>) -> Result<Arc<TableState>, LakeError> {
        let tick = self.inner.tick.fetch_add(1, Ordering::Relaxed);
        if let Some(state) = slot.cached(tick) {
            return Ok(state);
        }
        let _lock = slot.commit.lock().await;
        self.locked_state(slot).await
    }

    /// The same for a caller that holds the commit lock.
    pub(crate) async fn locked_state(&self, slot: &Arc<Slot>) -> Result<Arc<TableState>, LakeError> {
        let tick = self.inner.tick.fetch_add(1, Ordering::Relaxed);
        if let Some(state) = slot.cached(tick) {
            return Ok(state);
        }
        let state = slot.load().await?;
        self.evict();
        Ok(state)
    }

    fn evict(&self) {
        let mut loaded: Vec<(u64, Arc<Slot>)> =
            self.slots().into_iter().filter_map(|slot| slot.last_used().map(|tick| (tick, slot))).collect();
        let limit = self.config().loaded_tables.max(1);
        if loaded.len() <= limit {
            return;
        }
        loaded.sort_by_key(|(tick, _)| *tick);
        let surplus = loaded.len() - limit;
        for (_, slot) in loaded.into_iter().take(surplus) {
            // A table that is being committed to is in use.
            if let Ok(_lock) = slot.commit.try_lock() {
                slot.forget();
            }
        }
    }

    /// Rows, files, versions and epochs of every table. Loads each table's state in turn.
    ///
    /// # Errors
    /// When a table's log cannot be read.
    pub async fn tables(&self) -> Result<Vec<TableStats>, LakeError> {
        let mut all = Vec::new();
        for slot in self.slots() {
            let state = self.state(&slot).await?;
            all.push(slot.stats(&state));
        }
        Ok(all)
    }

    /// Rows, files, version and epochs of one table.
    ///
    /// # Errors
    /// When the table is unknown or its log cannot be read.
    pub async fn table_stats(&self, table: &TableKey) -> Result<TableStats, LakeError> {
        let slot = self.slot(table)?;
        Ok(slot.stats(&*self.state(&slot).await?))
    }

    /// Writes the batches as Parquet files of the table, durable but not visible. Rows are
    /// sorted by tenant and cluster columns; columns are matched by name; missing ones are
    /// null. A file that is never committed is removed by [`Lake::vacuum`] in time.
    ///
    /// # Errors
    /// When the table is unknown, a value does not fit its column, or the disk is full.
    pub async fn stage(
        &self,
        table: &TableKey,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<StagedFile>, LakeError> {
        let slot = self.slot(table)?;
        self.write_files(&slot, batches).await
    }

    pub(crate) async fn write_files(
        &self,
        slot: &Arc<Slot>,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<StagedFile>, LakeError> {
        let started = self.clock().monotonic();
        let spec = slot.spec();
        let file_rows = self.config().file_rows.max(1);
        let what = || format!("staging rows of {}", slot.key);
        let encode = move || stage::encode(&spec, &batches, file_rows);
        let encoded = self.compute(encode).await?.context(what)?;
        let mut staged = Vec::with_capacity(encoded.len());
        for file in encoded {
            staged.push(self.write_file(slot, file).await?);
        }
        let rows = staged.iter().map(|f| f.rows).sum();
        crate::metrics::staged(rows, self.clock().monotonic() - started);
        Ok(staged)
    }

    /// Runs work that takes long off the async threads, or in place on a simulated disk.
    pub(crate) async fn compute<T, F>(&self, work: F) -> Result<T, LakeError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if self.inner.disk.local_path("").is_none() {
            return Ok(work());
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(io::Error::other).context(|| "waiting for work of the lake".into())
    }

    async fn write_file(&self, slot: &Slot, file: Encoded) -> Result<StagedFile, LakeError> {
        let mut dir = String::new();
        for (name, value) in &file.partition_values {
            let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
            dir.push_str(&format!("{name}={}/", escape(value)));
        }
        loop {
            let now_ms = self.clock().now_ms();
            let n = self.inner.next_file.fetch_add(1, Ordering::Relaxed);
            let path = format!("{dir}part-{now_ms:013}-{n:06}.parquet");
            let at = slot.path(&path);
            match self.store().put_opts(&at, file.bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) => {}
                // An earlier run of the program used this number in the same millisecond.
                Err(object_store::Error::AlreadyExists { .. }) => continue,
                Err(error) => {
                    return Err(deltalake::DeltaTableError::from(error))
                        .context(|| format!("writing {path}"));
                }
            }
            return Ok(StagedFile {
                path,
                size_bytes: file.bytes.len() as u64,
                rows: file.stats.rows,
                stats: file.stats.to_json(),
                partition_values: file.partition_values,
                modified_ms: now_ms,
                blocks: Some(Blocks::of(&file.bytes).to_tag()),
            });
        }
    }

    /// Puts these rows in the place of all rows of the table, in one commit. Like
    /// [`Lake::commit`], it does nothing when the table already holds the epoch.
    ///
    /// # Errors
    /// As [`Lake::stage`] and [`Lake::commit`].
    pub async fn replace(
        &self,
        table: &TableKey,
        app_id: &str,
        epoch: i64,
        batches: Vec<RecordBatch>,
    ) -> Result<Committed, LakeError> {
        let slot = self.slot(table)?;
        let before = self.state(&slot).await?;
        if let Some(done) = repeated(&slot, &before, app_id, epoch).await? {
            return Ok(done);
        }
        let files = self.write_files(&slot, batches).await?;
        let _lock = slot.commit.lock().await;
        let state = self.locked_state(&slot).await?;
        if let Some(done) = repeated(&slot, &state, app_id, epoch).await? {
            return Ok(done);
        }
        let rows = files.iter().map(|f| f.rows).sum();
        let change = Change {
            epoch: Some((app_id, epoch)),
            add: files,
            remove: state.files.iter().map(|f| f.path.clone()).collect(),
            data_change: true,
            operation: write_operation(SaveMode::Overwrite),
        };
        let state = self.apply(&slot, &state, change).await?;
        Ok(Committed { version: state.version().unwrap_or(0), applied: true, rows })
    }
}

/// A partition value as part of a file name.
fn escape(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if plain(byte) { text.push(char::from(byte)) } else { text.push_str(&format!("_{byte:02x}")) }
    }
    text
}

#[cfg(test)]
impl Lake {
    pub(crate) fn loaded(&self) -> usize {
        self.slots().iter().filter(|slot| slot.last_used().is_some()).count()
    }
}
