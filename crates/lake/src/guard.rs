//! The operator that keeps tenants apart: it lets through the rows of the caller's tenants,
//! and is a wall for everything the optimiser would like to move past it.
//!
//! Filters of the query are not pushed through: an expression that fails on some value
//! (a division, a cast) must never be evaluated on a row that the caller may not see,
//! since the failure itself would tell. For the same reason no statistics of the rows
//! below come out, and no limit goes in.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use datafusion::common::{internal_err, project_schema};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties};
use futures::StreamExt;
use levada_core::TenantId;

use crate::node::{Node, Operator};

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct TenantGuard {
    tenants: Arc<BTreeSet<TenantId>>,
    /// Where the tenant column is in the input.
    tenant_index: usize,
    /// Columns of the input that the query asked for.
    output: Vec<usize>,
}

impl TenantGuard {
    pub fn try_new(
        input: Arc<dyn ExecutionPlan>,
        tenants: Arc<BTreeSet<TenantId>>,
        tenant_index: usize,
        output: Vec<usize>,
    ) -> Result<Node<Self>> {
        if input.schema().field(tenant_index).data_type() != &DataType::Utf8 {
            return internal_err!("the tenant column is not text");
        }
        let schema = project_schema(&input.schema(), Some(&output))?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Node::new(Self { tenants, tenant_index, output }, input, Arc::new(properties)))
    }
}

impl Operator for TenantGuard {
    const NAME: &'static str = "TenantGuard";

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Result<Node<Self>> {
        Self::try_new(input, Arc::clone(&self.tenants), self.tenant_index, self.output.clone())
    }

    fn run(
        &self,
        input: &dyn ExecutionPlan,
        properties: &PlanProperties,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = input.execute(partition, context)?;
        let (tenants, tenant_index) = (Arc::clone(&self.tenants), self.tenant_index);
        let output = self.output.clone();
        let stream = input.filter_map(move |batch| {
            let kept = batch.and_then(|batch| keep(&batch, &tenants, tenant_index, &output));
            std::future::ready(kept.transpose())
        });
        let schema = Arc::clone(properties.equivalence_properties().schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// The caller's rows of a batch, in the columns asked for; `None` where there is no such row.
fn keep(
    batch: &RecordBatch,
    tenants: &BTreeSet<TenantId>,
    tenant_index: usize,
    output: &[usize],
) -> Result<Option<RecordBatch>> {
    let mask = mask(batch.column(tenant_index).as_ref(), tenants);
    let wanted = batch.project(output)?;
    Ok(match mask.true_count() {
        0 => None,
        n if n == batch.num_rows() => Some(wanted),
        _ => Some(filter_record_batch(&wanted, &mask)?),
    })
}

/// Which rows belong to the tenants. A row without tenant belongs to nobody.
fn mask(column: &dyn Array, tenants: &BTreeSet<TenantId>) -> BooleanArray {
    let names = column.as_string::<i32>();
    let allowed: std::collections::HashSet<&str> = tenants.iter().map(TenantId::as_str).collect();
    let mut bits = BooleanBufferBuilder::new(names.len());
    // Files are sorted by tenant, so the answer for the row before mostly holds.
    let mut last: Option<(&str, bool)> = None;
    for row in 0..names.len() {
        if names.is_null(row) {
            bits.append(false);
            continue;
        }
        let name = names.value(row);
        let passes = match last {
            Some((before, passes)) if before == name => passes,
            _ => allowed.contains(name),
        };
        last = Some((name, passes));
        bits.append(passes);
    }
    BooleanArray::new(bits.finish(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn only_named_tenants_pass_and_null_is_nobody() {
        let tenants = ["a", "c"].iter().map(|t| TenantId::new(t).unwrap()).collect();
        let column = StringArray::from(vec![Some("a"), Some("a"), None, Some("b"), Some("c"), Some("")]);
        let mask = mask(&column, &tenants);
        assert_eq!(
            mask.iter().map(|b| b.unwrap()).collect::<Vec<_>>(),
            [true, true, false, false, true, false]
        );
        assert_eq!(super::mask(&column, &BTreeSet::new()).true_count(), 0);
    }
}
