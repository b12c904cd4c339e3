//! Staged files become a version of their table: read the last epoch, refuse a repeat,
//! append to the Delta log with `txn(app, epoch)`, publish the new state.
//!
//! One committer per table: all of this happens under the table's lock. After any error
//! the state is forgotten, because the commit may lie on disk all the same; the next use
//! reads what is there, and a repeat of the same epoch then does nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, StructField, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::blocks::BLOCKS_TAG;
use crate::error::{Context, LakeError};
use crate::lake::Lake;
use crate::schema;
use crate::table::{Slot, TableState};
use crate::types::{Committed, StagedFile, TableKey};

/// Checkpoints that stay; log entries before the older of them go.
const CHECKPOINTS_KEPT: usize = 2;

/// A change of a table, to be made under its lock.
pub(crate) struct Change<'a> {
    /// Application id and epoch; `None` for maintenance.
    pub epoch: Option<(&'a str, i64)>,
    pub add: Vec<StagedFile>,
    /// Paths of files that leave the table.
    pub remove: Vec<String>,
    /// False where the same rows only move to other files.
    pub data_change: bool,
    pub operation: DeltaOperation,
}

pub(crate) fn write_operation(mode: SaveMode) -> DeltaOperation {
    DeltaOperation::Write { mode, partition_by: None, predicate: None }
}

impl Lake {
    /// Makes staged files visible, once: when the table already holds `epoch` or a later
    /// one of `app_id`, nothing happens and `applied` is false. Durable when it returns.
    ///
    /// # Errors
    /// When the table is unknown, a file is missing, or the log cannot be written. After an
    /// error the same call may be repeated.
    pub async fn commit(
        &self,
        table: &TableKey,
        app_id: &str,
        epoch: i64,
        files: Vec<StagedFile>,
    ) -> Result<Committed, LakeError> {
        let slot = self.slot(table)?;
        let _lock = slot.commit.lock().await;
        let state = self.locked_state(&slot).await?;
        if let Some(done) = repeated(&slot, &state, app_id, epoch).await? {
            return Ok(done);
        }
        let rows = files.iter().map(|f| f.rows).sum();
        let change = Change {
            epoch: Some((app_id, epoch)),
            add: files,
            remove: Vec::new(),
            data_change: true,
            operation: write_operation(SaveMode::Append),
        };
        let state = self.apply(&slot, &state, change).await?;
        Ok(Committed { version: state.version().unwrap_or(0), applied: true, rows })
    }

    /// The last epoch of `app_id` that the table holds.
    ///
    /// # Errors
    /// When the table is unknown or its log cannot be read.
    pub async fn epoch(&self, table: &TableKey, app_id: &str) -> Result<Option<i64>, LakeError> {
        let slot = self.slot(table)?;
        let state = self.state(&slot).await?;
        last_epoch(&slot, &state, app_id).await
    }

    /// Applies a change. The caller holds the table's commit lock.
    pub(crate) async fn apply(
        &self,
        slot: &Arc<Slot>,
        state: &TableState,
        change: Change<'_>,
    ) -> Result<Arc<TableState>, LakeError> {
        let started = self.clock().monotonic();
        let result = self.try_apply(slot, state, change).await;
        match &result {
            Ok(next) => {
                slot.publish(next);
                crate::metrics::committed(self.clock().monotonic() - started);
            }
            Err(_) => slot.forget(),
        }
        result
    }

    async fn try_apply(
        &self,
        slot: &Arc<Slot>,
        state: &TableState,
        change: Change<'_>,
    ) -> Result<Arc<TableState>, LakeError> {
        let what = || format!("committing to {}", slot.key);
        for file in &change.add {
            let found = self.store().head(&slot.path(&file.path)).await;
            found.map_err(deltalake::DeltaTableError::from).context(what)?;
        }
        slot.store_description(change.epoch.map(|(app, _)| app)).await?;
        let delta = self.ready(slot, state).await?;

        let mut actions: Vec<Action> = Vec::new();
        let removed: HashSet<&str> = change.remove.iter().map(String::as_str).collect();
        for view in delta.log_data().iter().filter(|view| removed.contains(view.path().as_ref())) {
            actions.push(Action::Remove(view.remove_action(change.data_change)));
        }
        actions.extend(change.add.iter().map(|file| Action::Add(add_action(file, change.data_change))));
        let mut properties =
            CommitProperties::default().with_cleanup_expired_logs(Some(false)).with_max_retries(0);
        let mut epochs = state.epochs.clone();
        if let Some((app, epoch)) = change.epoch {
            let now = self.clock().now_ms();
            let transaction = Transaction::new_with_last_update(app, epoch, Some(now));
            properties = properties.with_application_transaction(transaction);
            epochs.insert(app.to_owned(), epoch);
        }
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&delta as &dyn TableReference), slot.log_store(), change.operation)
            .await
            .context(what)?;
        slot.removed.lock().extend(change.remove.into_iter().map(|path| (path, self.clock().now_ms())));

        let mut delta = done.snapshot;
        if done.metrics.new_checkpoint_created {
            if let Err(error) = self.trim_log(slot).await {
                tracing::warn!(table = %slot.key, %error, "old log entries stay");
            }
            delta = reload(slot).await.context(what)?;
        }
        Ok(Arc::new(TableState::next(delta, state, epochs)?))
    }

    /// The table's Delta state, created or widened first where that is due.
    async fn ready(&self, slot: &Slot, state: &TableState) -> Result<DeltaTableState, LakeError> {
        let what = || format!("preparing {}", slot.key);
        let spec = slot.spec();
        let Some(delta) = &state.delta else {
            let table = self.create(slot).await.context(what)?;
            return Ok(table.snapshot().context(what)?.clone());
        };
        let logged = schema::to_arrow(delta.schema().as_ref()).context(what)?;
        let added = schema::additions(&logged, &spec.schema)
            .map_err(|reason| LakeError::Incompatible { table: slot.key.clone(), reason })?;
        if added.is_empty() {
            return Ok(delta.clone());
        }
        let added = schema::to_delta(&arrow::datatypes::Schema::new(added)).context(what)?;
        let fields: Vec<StructField> = added.fields().cloned().collect();
        let mut table = DeltaTable::new(slot.log_store());
        table.state = Some(delta.clone());
        let table = table.add_columns().with_fields(fields).await.context(what)?;
        Ok(table.snapshot().context(what)?.clone())
    }

    async fn create(&self, slot: &Slot) -> Result<DeltaTable, deltalake::DeltaTableError> {
        let spec = slot.spec();
        let config = self.config();
        let schema = schema::to_delta(&spec.schema)?;
        let retention = format!("interval {} seconds", config.retention.as_secs());
        let properties = [
            ("delta.checkpointInterval", config.checkpoint_commits.max(1).to_string()),
            ("delta.deletedFileRetentionDuration", retention.clone()),
            ("delta.logRetentionDuration", retention),
            ("delta.enableExpiredLogCleanup", "false".to_owned()),
        ];
        let mut create = CreateBuilder::new()
            .with_log_store(slot.log_store())
            .with_table_name(slot.key.name.name.as_str())
            .with_columns(schema.fields().cloned())
            .with_partition_columns(spec.partition_by.iter().cloned())
            .with_configuration(properties.map(|(key, value)| (key, Some(value))));
        if let Some(description) = &spec.description {
            create = create.with_comment(description);
        }
        create.await
    }

    /// Removes log entries and checkpoints that two newer checkpoints make superfluous.
    async fn trim_log(&self, slot: &Slot) -> object_store::Result<()> {
        let dir = Path::from(format!("{}/_delta_log", slot.dir));
        let listed = self.store().list_with_delimiter(Some(&dir)).await?;
        let version = |path: &Path| -> Option<(u64, bool)> {
            let (number, rest) = path.filename()?.split_once('.')?;
            Some((number.parse().ok()?, rest.starts_with("checkpoint")))
        };
        let mut checkpoints: Vec<u64> = listed
            .objects
            .iter()
            .filter_map(|o| version(&o.location))
            .filter_map(|(version, is_checkpoint)| is_checkpoint.then_some(version))
            .collect();
        checkpoints.sort_unstable();
        checkpoints.dedup();
        let Some(&oldest) = checkpoints.iter().rev().nth(CHECKPOINTS_KEPT - 1) else { return Ok(()) };
        let old = listed
            .objects
            .into_iter()
            .map(|object| object.location)
            .filter(|path| version(path).is_some_and(|(version, _)| version < oldest))
            .map(Ok)
            .collect::<Vec<_>>();
        let mut deleted = self.store().delete_stream(Box::pin(futures::stream::iter(old)));
        while let Some(result) = futures::StreamExt::next(&mut deleted).await {
            result?;
        }
        Ok(())
    }
}

async fn reload(slot: &Slot) -> Result<DeltaTableState, deltalake::DeltaTableError> {
    let mut table = DeltaTable::new(slot.log_store());
    table.load().await?;
    table.snapshot().cloned()
}

pub(crate) async fn last_epoch(
    slot: &Slot,
    state: &TableState,
    app_id: &str,
) -> Result<Option<i64>, LakeError> {
    match (state.epochs.get(app_id), &state.delta) {
        (Some(epoch), _) => Ok(Some(*epoch)),
        (None, None) => Ok(None),
        (None, Some(delta)) => {
            let found = delta.snapshot().transaction_version(&slot.log_store(), app_id).await;
            found.context(|| format!("reading the epoch of {app_id} in {}", slot.key))
        }
    }
}

/// What to answer when the table already holds this epoch.
pub(crate) async fn repeated(
    slot: &Slot,
    state: &TableState,
    app_id: &str,
    epoch: i64,
) -> Result<Option<Committed>, LakeError> {
    let last = last_epoch(slot, state, app_id).await?;
    let holds = last.is_some_and(|last| last >= epoch);
    Ok(holds.then(|| Committed { version: state.version().unwrap_or(0), applied: false, rows: 0 }))
}

fn add_action(file: &StagedFile, data_change: bool) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: file
            .partition_values
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        size: i64::try_from(file.size_bytes).unwrap_or(i64::MAX),
        modification_time: file.modified_ms,
        data_change,
        stats: Some(file.stats.clone()),
        tags: file.blocks.clone().map(|blocks| HashMap::from([(BLOCKS_TAG.to_owned(), Some(blocks))])),
        ..Add::default()
    }
}
