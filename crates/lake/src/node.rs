//! The frame of a plan's operator with one input: what such a node says of itself is the same
//! whatever it does with the rows.

use std::fmt;
use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// What an operator does with the rows of its input. It has no expressions that the optimiser
/// may look into.
pub(crate) trait Operator: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    const NAME: &'static str;

    /// The same operator over another input, whose properties it keeps.
    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Result<Node<Self>> {
        let properties = Arc::clone(input.properties());
        Ok(Node::new(self.clone(), input, properties))
    }

    /// Runs one partition; `properties` are those that the node tells of itself.
    fn run(
        &self,
        input: &dyn ExecutionPlan,
        properties: &PlanProperties,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream>;
}

/// An operator in its place in a plan.
#[derive(Debug)]
pub(crate) struct Node<O> {
    operator: O,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl<O> Node<O> {
    pub fn new(operator: O, input: Arc<dyn ExecutionPlan>, properties: Arc<PlanProperties>) -> Self {
        Self { operator, input, properties }
    }
}

impl<O: Operator> DisplayAs for Node<O> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(O::NAME)
    }
}

impl<O: Operator> ExecutionPlan for Node<O> {
    fn name(&self) -> &str {
        O::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// These operators do too little a row for more partitions to pay.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("{} without input", O::NAME) };
        Ok(Arc::new(self.operator.over(input)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.operator.run(&*self.input, &self.properties, partition, context)
    }
}
