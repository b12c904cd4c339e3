//! How wide the rows are that operators repeat.
//!
//! A join gives out batches of some thousand rows, and each may repeat the widest row that it
//! was given: one text of a megabyte joined to a list of numbers would be gigabytes at once. So
//! in a plan with a join, and in one that unnests lists, every batch is looked at before it is
//! worked on. A query that meets rows too wide for batches of the usual size begins once more
//! with batches of few rows; rows too wide for those are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::resources_datafusion_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::unnest::UnnestExec;
use levada_core::Problem;

use crate::limits::{array_bytes, batch_bytes};

/// Constants of one batch have at most so many bytes together.
const CONSTANT_BYTES: usize = 32 << 20;
/// The code of the answer that makes a query begin again; no caller sees it.
const TOO_WIDE: &str = "sql-wide-rows";

/// How many rows a batch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchRows {
    Usual,
    Few,
    /// As many as usual, in a plan that cannot begin again.
    Given,
}

impl BatchRows {
    fn rows(self) -> usize {
        match self {
            BatchRows::Usual | BatchRows::Given => 8192,
            BatchRows::Few => 64,
        }
    }

    /// Bytes of all values of subqueries, each of which an operator may repeat for each row.
    pub fn value_bytes(self) -> usize {
        match self {
            BatchRows::Usual => 4 << 10,
            BatchRows::Given => 16 << 10,
            BatchRows::Few => 2 << 20,
        }
    }

    /// Rows of a batch where an operator may repeat constants of so many bytes for each.
    pub fn beside(self, constant_bytes: usize) -> usize {
        self.rows().min(CONSTANT_BYTES / constant_bytes.max(1)).max(16)
    }
}

/// Whether a query should begin again with [`BatchRows::Few`].
pub(crate) fn is_too_wide(error: &DataFusionError) -> bool {
    crate::answer::problem(error).code == TOO_WIDE
}

/// What is checked of the batches of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    batch_rows: BatchRows,
    joins: bool,
    unnests: bool,
}

impl Widths {
    /// # Errors
    /// None of its own; the engine's way through a plan may answer some.
    pub fn of(plan: &Arc<dyn ExecutionPlan>, batch_rows: BatchRows) -> Result<Self> {
        let mut widths = Self { batch_rows, joins: false, unnests: false };
        plan.apply(|node| {
            widths.joins |= node.is::<HashJoinExec>()
                || node.is::<NestedLoopJoinExec>()
                || node.is::<CrossJoinExec>()
                || node.is::<SortMergeJoinExec>();
            widths.unnests |= node.is::<UnnestExec>();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(widths)
    }

    /// # Errors
    /// Resources exhausted, or that the query should begin again.
    pub fn check(&self, batch: &RecordBatch, limit: usize) -> Result<()> {
        let bytes = batch_bytes(batch);
        if bytes > limit {
            return Err(resources_datafusion_err!("{} rows have {bytes} bytes", batch.num_rows()));
        }
        if self.unnests && unnested_bytes(batch) > limit {
            return Err(resources_datafusion_err!("the lists of a row repeat its other columns too often"));
        }
        let allowed = limit / self.batch_rows.rows();
        // The sum of a small batch bounds each of its rows.
        if !self.joins || bytes <= allowed {
            return Ok(());
        }
        let width = row_bytes(batch);
        match width <= allowed {
            true => Ok(()),
            false => Err(too_wide(self.batch_rows, "a row that is joined has", width, allowed)),
        }
    }
}

/// Bytes of a row that has the widest value of each column.
pub(crate) fn row_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(width).sum()
}

/// The refusal of something wide. With batches of the usual size the query begins again.
pub(crate) fn too_wide(batch_rows: BatchRows, what: &str, bytes: usize, allowed: usize) -> DataFusionError {
    match batch_rows {
        BatchRows::Usual => {
            let problem = Problem::new(422, TOO_WIDE, format!("{what} {bytes} bytes"));
            DataFusionError::External(Box::new(problem))
        }
        _ => resources_datafusion_err!("{what} {bytes} bytes, and {allowed} are allowed"),
    }
}

/// Bytes of the widest value of a column.
fn width(column: &ArrayRef) -> usize {
    let longest = |per_element: usize, length: usize| length.saturating_mul(per_element.max(1));
    match column.data_type() {
        DataType::Utf8 => longest(1, longest_of(column.as_string::<i32>().offsets())),
        DataType::LargeUtf8 => longest(1, longest_of(column.as_string::<i64>().offsets())),
        DataType::Binary => longest(1, longest_of(column.as_binary::<i32>().offsets())),
        DataType::LargeBinary => longest(1, longest_of(column.as_binary::<i64>().offsets())),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            longest(each(list.values()), longest_of(list.offsets()))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            longest(each(list.values()), longest_of(list.offsets()))
        }
        other => other.primitive_width().unwrap_or_else(|| each(column)),
    }
}

/// Bytes of an element, on average.
fn each(values: &ArrayRef) -> usize {
    array_bytes(values) / values.len().max(1)
}

fn longest_of<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offsets.lengths().max().unwrap_or(0)
}

/// Bytes that the rows of a batch may have once the longest list of each is unnested.
fn unnested_bytes(batch: &RecordBatch) -> usize {
    let lists = |column: &&ArrayRef| matches!(column.data_type(), DataType::List(_) | DataType::LargeList(_));
    let elements = batch.columns().iter().filter(lists).map(|list| match list.data_type() {
        DataType::List(_) => list.as_list::<i32>().offsets().lengths().sum::<usize>(),
        _ => list.as_list::<i64>().offsets().lengths().sum(),
    });
    let elements = elements.max().unwrap_or(0);
    let others: usize = batch.columns().iter().filter(|column| !lists(column)).map(width).sum();
    elements.saturating_mul(others)
}
