//! A silver or gold table as queries see it: the Parquet files of one version, those that
//! cannot match left out by their statistics, and the tenant guard on top where tenants
//! share the table.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ColumnStatistics, DFSchema, ScalarValue, Statistics, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use levada_core::TenantId;
use object_store::{ObjectMeta, ObjectStore};

use crate::answer;
use crate::engine::store_url;
use crate::guard::TenantGuard;
use crate::pins::Pins;
use crate::table::{FileEntry, Slot, TableState};
use crate::types::TableSpec;

/// More tenants than this are not worth a pruning predicate.
const PRUNED_TENANTS: usize = 20;
/// Expressions of filters that files and their parts are judged by; further filters are left to the
/// rows.
const PRUNING_EXPRESSIONS: usize = 500;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct LakeTable {
    slot: Arc<Slot>,
    spec: Arc<TableSpec>,
    /// `None` where the caller may see every row.
    tenants: Option<Arc<BTreeSet<TenantId>>>,
    pins: Arc<Pins>,
}

impl LakeTable {
    pub fn new(slot: Arc<Slot>, tenants: Option<Arc<BTreeSet<TenantId>>>, pins: Arc<Pins>) -> Self {
        let spec = slot.spec();
        Self { slot, spec, tenants, pins }
    }

    /// The query's filters and the tenants, as far as they can prune files, row groups and pages.
    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        // What is known of floats leaves NaN out, which is greater than all that is known.
        let is_float = |column: &&Column| {
            self.spec.schema.field_with_name(&column.name).is_ok_and(|field| field.data_type().is_floating())
        };
        let tells = |filter: &&Expr| !filter.column_refs().iter().any(is_float);
        // What passes is filtered again, so leaving one out costs reading and nothing else; with
        // thousands the engine would think for longer than it reads.
        let mut left = PRUNING_EXPRESSIONS;
        let fits = |filter: &&Expr| match left.checked_sub(size(filter)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let mut all: Vec<Expr> = filters.iter().filter(tells).filter(fits).cloned().collect();
        if let (Some(tenants), Some(column)) = (&self.tenants, &self.spec.tenant_column)
            && tenants.len() <= PRUNED_TENANTS
        {
            let names = tenants.iter().map(|tenant| lit(tenant.as_str())).collect();
            all.push(col(Column::new_unqualified(column)).in_list(names, false));
        }
        let schema = DFSchema::try_from(Arc::clone(&self.spec.schema))?;
        conjunction(all).map(|expr| state.create_physical_expr(expr, &schema)).transpose()
    }

    fn source(&self, state: &dyn Session, predicate: Option<Arc<dyn PhysicalExpr>>) -> Result<ParquetSource> {
        let runtime = state.runtime_env();
        let store: Arc<dyn ObjectStore> = runtime.object_store(store_url())?;
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let source = ParquetSource::new(Arc::clone(&self.spec.schema))
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, footers)));
        Ok(match predicate {
            Some(predicate) => source.with_predicate(predicate),
            None => source,
        })
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        table: &TableState,
        projection: &[usize],
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = self.predicate(state, filters)?;
        let files = prune(&table.files, predicate.as_ref(), &self.spec.schema);
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(
                &self.spec.schema,
                Some(&projection.to_vec()),
            )?)));
        }
        let files = files.into_iter().map(|file| self.partitioned(file)).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let source = Arc::new(self.source(state, predicate)?);
        let config = FileScanConfigBuilder::new(store_url(), source)
            .with_file_groups(groups)
            .with_projection_indices(Some(projection.to_vec()))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn partitioned(&self, file: &FileEntry) -> PartitionedFile {
        PartitionedFile::new_from_meta(ObjectMeta {
            location: self.slot.path(&file.path),
            last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
            size: file.size_bytes,
            e_tag: None,
            version: None,
        })
        .with_statistics(Arc::new(statistics(file, &self.spec.schema)))
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = self.pins.state(&self.slot).await.map_err(|error| answer::carry(&error))?;
        let wanted: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.spec.schema.fields().len()).collect());
        let Some(tenants) = &self.tenants else {
            return self.scan_files(state, &table, &wanted, filters);
        };
        let column = self.spec.tenant_column.as_deref().unwrap_or_default();
        let tenant = self.spec.schema.index_of(column)?;
        let mut read = wanted.clone();
        let at = read.iter().position(|i| *i == tenant).unwrap_or_else(|| {
            read.push(tenant);
            read.len() - 1
        });
        let input = self.scan_files(state, &table, &read, filters)?;
        let output = (0..wanted.len()).collect();
        Ok(Arc::new(TenantGuard::try_new(input, Arc::clone(tenants), at, output)?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match is_plain(filter) {
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}

/// The expressions of a filter; a list of constants is one.
fn size(filter: &Expr) -> usize {
    let mut size = 0;
    let counted = filter.apply(|expr| {
        size += 1;
        Ok(if matches!(expr, Expr::InList(_)) {
            TreeNodeRecursion::Jump
        } else {
            TreeNodeRecursion::Continue
        })
    });
    counted.map_or(usize::MAX, |_| size)
}

/// Whether a filter only compares columns with constants. Such a filter cannot fail on a
/// row, and it is all that statistics can use.
pub(crate) fn is_plain(filter: &Expr) -> bool {
    let operand = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(binary) if matches!(binary.op.to_string().as_str(), "AND" | "OR") => {
            is_plain(&binary.left) && is_plain(&binary.right)
        }
        Expr::BinaryExpr(binary) => {
            let compares = matches!(binary.op.to_string().as_str(), "=" | "!=" | "<" | "<=" | ">" | ">=");
            compares && operand(&binary.left) && operand(&binary.right)
        }
        Expr::InList(list) => operand(&list.expr) && list.list.iter().all(operand),
        Expr::Between(between) => operand(&between.expr) && operand(&between.low) && operand(&between.high),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => operand(inner),
        Expr::Not(inner) => is_plain(inner),
        Expr::Column(_) | Expr::Literal(..) => true,
        _ => false,
    }
}

/// The files that may hold a matching row.
fn prune<'a>(
    files: &'a [Arc<FileEntry>],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
) -> Vec<&'a FileEntry> {
    let all = || files.iter().map(Arc::as_ref).collect();
    let Some(predicate) = predicate else { return all() };
    let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
    let Some(pruning) = builder.build(Arc::clone(predicate)) else { return all() };
    match pruning.prune(&FileBounds { files, schema }) {
        Ok(kept) => files.iter().zip(kept).filter(|(_, keep)| *keep).map(|(file, _)| file.as_ref()).collect(),
        Err(error) => {
            tracing::debug!(%error, "statistics cannot prune this query");
            all()
        }
    }
}

/// The files' statistics in the shape the pruning predicate asks for.
struct FileBounds<'a> {
    files: &'a [Arc<FileEntry>],
    schema: &'a SchemaRef,
}

impl FileBounds<'_> {
    fn values(
        &self,
        column: &Column,
        pick: fn(&crate::stats::Bounds) -> Option<&ScalarValue>,
    ) -> Option<ArrayRef> {
        let data_type = self.schema.field_with_name(&column.name).ok()?.data_type();
        let unknown = ScalarValue::try_from(data_type).ok()?;
        let values = self.files.iter().map(|file| {
            let known = file.stats.columns.get(&column.name).and_then(pick);
            known.filter(|value| value.data_type() == *data_type).unwrap_or(&unknown).clone()
        });
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for FileBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| bounds.min.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| bounds.max.as_ref())
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts = self.files.iter().map(|file| file.stats.columns.get(&column.name).and_then(|b| b.nulls));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.stats.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What the planner may know of a file: the number of rows exactly, bounds roughly.
fn statistics(file: &FileEntry, schema: &SchemaRef) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Exact(usize::try_from(file.stats.rows).unwrap_or(usize::MAX));
    for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
        if let Some(bounds) = file.stats.columns.get(field.name()) {
            let inexact = |value: &Option<ScalarValue>| match value {
                Some(value) if value.data_type() == *field.data_type() => Precision::Inexact(value.clone()),
                _ => Precision::Absent,
            };
            *column = ColumnStatistics {
                min_value: inexact(&bounds.min),
                max_value: inexact(&bounds.max),
                ..ColumnStatistics::new_unknown()
            };
        }
    }
    statistics
}
