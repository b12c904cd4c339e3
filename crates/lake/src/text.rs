//! A query's result as texts, for places where a person reads it.

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions, ValueFormatter};
use levada_core::Problem;

use crate::output::QueryOutput;

/// A column of a result in text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextColumn {
    pub name: String,
    /// The type's name in lower case.
    pub data_type: String,
    pub is_numeric: bool,
}

/// A whole result in text form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRows {
    pub columns: Vec<TextColumn>,
    /// `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The row limit cut the result.
    pub truncated: bool,
}

/// The cells of one row, `None` is NULL. A cell is text once it is written.
pub type TextCells<'a> = dyn Iterator<Item = Option<ValueFormatter<'a>>> + 'a;

/// Hands the rows of a batch on, each with its first `columns` cells, until `row` answers false.
///
/// # Errors
/// `internal` for a type that cannot be written as text.
pub fn each_row_as_text(
    batch: &RecordBatch,
    columns: usize,
    mut row: impl FnMut(&mut TextCells<'_>) -> bool,
) -> Result<(), Problem> {
    let options = FormatOptions::default();
    let arrays = &batch.columns()[..batch.num_columns().min(columns)];
    let formats: Result<Vec<_>, _> =
        arrays.iter().map(|array| ArrayFormatter::try_new(array, &options)).collect();
    let formats = formats.map_err(|error| Problem::new(500, "internal", error.to_string()))?;
    for number in 0..batch.num_rows() {
        let cells = arrays.iter().zip(&formats);
        let mut cells = cells.map(|(array, format)| (!array.is_null(number)).then(|| format.value(number)));
        if !row(&mut cells) {
            break;
        }
    }
    Ok(())
}

impl QueryOutput {
    /// The columns as a person reads them.
    pub fn text_columns(&self) -> Vec<TextColumn> {
        let fields = self.schema.fields().iter();
        let columns = fields.map(|field| TextColumn {
            name: field.name().clone(),
            data_type: field.data_type().to_string().to_lowercase(),
            is_numeric: field.data_type().is_numeric(),
        });
        columns.collect()
    }

    /// Reads the whole result as texts. Bound it by the query's row limit.
    ///
    /// # Errors
    /// What the query answers.
    pub async fn into_text(self) -> Result<TextRows, Problem> {
        let (columns, truncation) = (self.text_columns(), self.truncation());
        let mut rows = Vec::new();
        for batch in self.collect().await? {
            each_row_as_text(&batch, columns.len(), |cells| {
                rows.push(cells.map(|cell| cell.map(|cell| cell.to_string())).collect());
                true
            })?;
        }
        Ok(TextRows { columns, rows, truncated: truncation.is_truncated() })
    }
}
