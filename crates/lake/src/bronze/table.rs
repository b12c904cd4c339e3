//! `bronze.<source>` as queries see it. Tenants are separated by listing: only the
//! directories of the caller's tenants are ever opened.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Date32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::streaming::PartitionStream;
use levada_core::{SourceName, TenantId};
use levada_disk::Disk;

use super::reader::{Batches, Object, schema};
use crate::answer;
use crate::error::LakeError;
use crate::lake::Lake;
use crate::provider::is_plain;

/// Columns that are known without opening an object.
const KNOWN: [&str; 4] = ["tenant_id", "source", "date", "object"];

/// See the module's description.
#[derive(Debug)]
pub(crate) struct BronzeTable {
    lake: Lake,
    source: SourceName,
    tenants: BTreeSet<TenantId>,
    schema: SchemaRef,
}

impl BronzeTable {
    pub fn new(lake: Lake, source: SourceName, tenants: BTreeSet<TenantId>) -> Self {
        Self { lake, source, tenants, schema: schema() }
    }

    /// The objects that may hold a matching row, judged by the known columns.
    fn prune(&self, state: &dyn Session, objects: Vec<Object>, filters: &[Expr]) -> Result<Vec<Object>> {
        let filters: Vec<&Expr> = filters
            .iter()
            .filter(|filter| filter.column_refs().iter().all(|column| KNOWN.contains(&column.name.as_str())))
            .collect();
        if filters.is_empty() || objects.is_empty() {
            return Ok(objects);
        }
        let batch = known(&objects)?;
        let schema = DFSchema::try_from(batch.schema())?;
        let mut keep = vec![true; objects.len()];
        for filter in filters {
            let expr = state.create_physical_expr(filter.clone(), &schema)?;
            let answer = expr.evaluate(&batch)?.into_array(objects.len())?;
            let Some(answer) = answer.as_any().downcast_ref::<BooleanArray>() else { continue };
            for (keep, passes) in keep.iter_mut().zip(answer) {
                *keep &= passes.unwrap_or(false);
            }
        }
        Ok(objects.into_iter().zip(keep).filter_map(|(object, keep)| keep.then_some(object)).collect())
    }
}

/// The objects of a source, of these tenants.
fn objects(lake: &Lake, source: &SourceName, tenants: &BTreeSet<TenantId>) -> Result<Vec<Object>, LakeError> {
    let mut found = Vec::new();
    for tenant in tenants {
        let base = format!("tenant={tenant}/bronze/source={source}");
        for dir in lake.dirs(&base)? {
            let Some(date) = dir.strip_prefix("date=") else { continue };
            for name in lake.files(&format!("{base}/{dir}"))? {
                found.push(Object {
                    tenant: tenant.to_string(),
                    source: source.to_string(),
                    date: date.to_owned(),
                    path: lake.disk_path(&format!("{base}/{dir}/{name}")),
                    name,
                });
            }
        }
    }
    found.retain(|object| object.day().is_some());
    Ok(found)
}

fn known(objects: &[Object]) -> Result<RecordBatch> {
    let text = |pick: fn(&Object) -> &str| Arc::new(StringArray::from_iter_values(objects.iter().map(pick)));
    let schema = Schema::new(vec![
        Field::new(KNOWN[0], DataType::Utf8, false),
        Field::new(KNOWN[1], DataType::Utf8, false),
        Field::new(KNOWN[2], DataType::Date32, true),
        Field::new(KNOWN[3], DataType::Utf8, false),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            text(|o| &o.tenant),
            text(|o| &o.source),
            Arc::new(objects.iter().map(Object::day).collect::<Date32Array>()),
            text(|o| &o.name),
        ],
    )?;
    Ok(batch)
}

#[async_trait]
impl TableProvider for BronzeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (lake, source, tenants) = (self.lake.clone(), self.source.clone(), self.tenants.clone());
        let listed = self.lake.compute(move || objects(&lake, &source, &tenants)).await;
        let objects = listed.and_then(|inner| inner).map_err(|error| answer::carry(&error))?;
        let objects = self.prune(state, objects, filters)?;
        let partitions = state.config().target_partitions().min(objects.len()).max(1);
        let mut shares = vec![Vec::new(); partitions];
        for (i, object) in objects.into_iter().enumerate() {
            shares[i % partitions].push(object);
        }
        let streams = shares
            .into_iter()
            .map(|objects| {
                let disk = Arc::clone(&self.lake.inner.disk);
                Arc::new(Share { disk, objects, schema: self.schema() }) as Arc<dyn PartitionStream>
            })
            .collect();
        let table = StreamingTable::try_new(self.schema(), streams)?;
        table.scan(state, projection, &[], limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match is_plain(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }
}

/// The objects of one partition.
#[derive(Debug)]
struct Share {
    disk: Arc<dyn Disk>,
    objects: Vec<Object>,
    schema: SchemaRef,
}

impl PartitionStream for Share {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (disk, objects) = (Arc::clone(&self.disk), self.objects.clone());
        if self.disk.local_path("").is_none() {
            let batches = objects.into_iter().flat_map(move |object| read(&*disk, object));
            let stream = futures::stream::iter(batches);
            return Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream));
        }
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            for object in objects {
                for batch in read(&*disk, object) {
                    // The query is gone when nobody receives.
                    if sender.blocking_send(batch).is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        builder.build()
    }
}

fn read(disk: &dyn Disk, object: Object) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
    let name = object.name.clone();
    match Batches::open(disk, object) {
        Ok(batches) => Box::new(batches.map(|batch| batch.map_err(DataFusionError::from))),
        Err(source) => {
            let error = LakeError::Io { what: format!("opening object {name}"), source };
            Box::new(std::iter::once(Err(answer::carry(&error))))
        }
    }
}
