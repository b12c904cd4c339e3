//! A SQL step over the rows of a batch.
//!
//! The rows' envelope and the hidden row column stay with a query that keeps rows: where its
//! select list leaves them out, they are added in front of it, so that a row which fails
//! later still leads to its original bytes. A query that makes new rows out of several
//! (`group by`) cannot carry them; its rows stand for themselves.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use async_trait::async_trait;
use levada_core::Problem;
use levada_lake::{Lake, Program};
use levada_schema::{SYSTEM_COLUMNS, TENANT_ID};
use std::sync::Arc;

use crate::rows::{self, DERIVED, ROW};
use crate::steps::{BuildError, Fault, Passed, StepError, Transform};

const STAGE: &str = "sql";

/// The step.
pub struct SqlStep {
    program: Program,
    carries_rows: bool,
    schema: SchemaRef,
}

impl SqlStep {
    /// # Errors
    /// When the query does not compile on these columns.
    pub fn new(lake: &Lake, query: &str, input: &SchemaRef) -> Result<Self, BuildError> {
        let wrong = |p: Problem| BuildError {
            answer: Some(Box::new(p.clone())),
            ..BuildError::new(STAGE, p.to_string())
        };
        let plain = lake.compile(query, input.clone()).map_err(wrong)?;
        let program = with_hidden_columns(lake, query, input, &plain).unwrap_or(plain);
        let output = program.schema();
        let carries_rows = output.field_with_name(ROW).is_ok_and(|f| *f.data_type() == DataType::UInt32);
        let schema = rows::with_row_field(&rows::without_row_field(&output));
        Ok(Self { program, carries_rows, schema })
    }

    /// The columns after this step.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn query(&self, batch: RecordBatch) -> Result<Result<RecordBatch, Problem>, StepError> {
        match self.program.run(batch).await {
            Err(problem) => Ok(Err(problem)),
            Ok(batches) => {
                let output = concat_batches(&self.program.schema(), &batches)?;
                Ok(Ok(self.numbered(&output)?))
            }
        }
    }

    /// Brings the hidden column to the end, or adds it.
    fn numbered(&self, output: &RecordBatch) -> Result<RecordBatch, StepError> {
        let derived = || (0..).map(|n| DERIVED | n).take(output.num_rows()).collect::<UInt32Array>();
        let own = output.column_by_name(ROW).filter(|_| self.carries_rows);
        let numbers: UInt32Array = match own.and_then(|c| c.as_primitive_opt::<UInt32Type>()) {
            // A join with generated rows may leave some without a record.
            Some(numbers) if numbers.null_count() == 0 => numbers.clone(),
            _ => derived(),
        };
        let mut columns: Vec<ArrayRef> = rows::detach(output)?.columns().to_vec();
        columns.push(Arc::new(numbers));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// The query with those hidden columns in its select list that it left out; `None` where it
/// has them, or cannot have them.
fn with_hidden_columns(lake: &Lake, query: &str, input: &SchemaRef, plain: &Program) -> Option<Program> {
    let output = plain.schema();
    let hidden = std::iter::once(TENANT_ID).chain(SYSTEM_COLUMNS).chain([ROW]);
    let missing: Vec<&str> =
        hidden.filter(|name| input.index_of(name).is_ok() && output.index_of(name).is_err()).collect();
    let trimmed = query.trim_start();
    let rest = trimmed.get(6..).filter(|rest| rest.starts_with(char::is_whitespace))?;
    if missing.is_empty() || !trimmed[..6].eq_ignore_ascii_case("select") {
        return None;
    }
    if rest.trim_start().get(..9).is_some_and(|word| word.eq_ignore_ascii_case("distinct ")) {
        return None;
    }
    lake.compile(&format!("select {}, {rest}", missing.join(", ")), input.clone()).ok()
}

#[async_trait]
impl Transform for SqlStep {
    /// A value that makes an expression fail costs its own row only: the batch is halved
    /// until the row is alone.
    async fn run(&self, batch: RecordBatch) -> Result<Passed, StepError> {
        let mut faults = Vec::new();
        let mut outputs = Vec::new();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            if part.num_rows() == 0 {
                continue;
            }
            match self.query(part.clone()).await? {
                Ok(output) => outputs.push(output),
                Err(problem) if part.num_rows() == 1 => {
                    let row = rows::numbers(&part).map_or(DERIVED, |n| n.value(0));
                    let reason = problem.detail;
                    faults.push(Fault { row, stage: STAGE.into(), code: "sql-failed", reason, attempts: 1 });
                }
                Err(_) => {
                    let half = part.num_rows() / 2;
                    parts.push(part.slice(half, part.num_rows() - half));
                    parts.push(part.slice(0, half));
                }
            }
        }
        Ok(Passed { batch: concat_batches(&self.schema, &outputs)?, faults })
    }
}
