//! A query's result as texts, for places where a person reads it.

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
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

impl QueryOutput {
    /// Reads the whole result as texts. Bound it by the query's row limit.
    ///
    /// # Errors
    /// What the query answers.
    pub async fn into_text(self) -> Result<TextRows, Problem> {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| TextColumn {
            name: field.name().clone(),
            data_type: field.data_type().to_string().to_lowercase(),
            is_numeric: field.data_type().is_numeric(),
        };
        let columns = self.schema.fields().iter().map(column).collect();
        let truncation = self.truncation();
        let unprintable = |e: arrow::error::ArrowError| Problem::new(500, "internal", e.to_string());
        let options = FormatOptions::default();
        let mut rows = Vec::new();
        for batch in self.collect().await? {
            let arrays = batch.columns();
            let formats: Result<Vec<_>, _> =
                arrays.iter().map(|array| ArrayFormatter::try_new(array, &options)).collect();
            let formats = formats.map_err(unprintable)?;
            for row in 0..batch.num_rows() {
                let cell = |(array, format): (&std::sync::Arc<dyn Array>, &ArrayFormatter<'_>)| {
                    (!array.is_null(row)).then(|| format.value(row).to_string())
                };
                rows.push(arrays.iter().zip(&formats).map(cell).collect());
            }
        }
        Ok(TextRows { columns, rows, truncated: truncation.is_truncated() })
    }
}
