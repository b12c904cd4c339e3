//! Rows of the catalogue, from a line that names the columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

/// A value of the catalogue. Numbers of objects are integers here.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Int(i64),
    Text(String),
    Bool(bool),
    Float(f64),
    Null,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Int,
    Text,
    Bool,
    Float,
}

impl Column {
    /// The value of a column that means nothing here.
    pub fn zero(&self) -> Cell {
        match self.kind {
            Kind::Int => Cell::Int(0),
            Kind::Text => Cell::Text(String::new()),
            Kind::Bool => Cell::Bool(false),
            Kind::Float => Cell::Float(0.0),
        }
    }

    /// The same, where texts are rather absent than empty.
    pub fn zero_or_null(&self) -> Cell {
        match self.kind {
            Kind::Text => Cell::Null,
            _ => self.zero(),
        }
    }
}

/// Reads `name:kind` pairs; kinds are `i` integer, `t` text, `b` boolean, `f` float.
pub(super) fn parse(columns: &'static str) -> Vec<Column> {
    columns
        .split_whitespace()
        .map(|pair| {
            let (name, kind) = pair.split_once(':').expect("a name and a kind");
            let kind = match kind {
                "i" => Kind::Int,
                "b" => Kind::Bool,
                "f" => Kind::Float,
                _ => Kind::Text,
            };
            Column { name, kind }
        })
        .collect()
}

/// A batch of rows that have a cell for every column.
pub(super) fn batch(columns: &[Column], rows: Vec<Vec<Cell>>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let of = match column.kind {
                Kind::Int => DataType::Int64,
                Kind::Text => DataType::Utf8,
                Kind::Bool => DataType::Boolean,
                Kind::Float => DataType::Float64,
            };
            Field::new(column.name, of, true)
        })
        .collect();
    let arrays =
        columns.iter().enumerate().map(|(i, column)| array(column.kind, rows.iter().map(|row| &row[i])));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect())
        .expect("arrays of their column's kind")
}

fn array<'a>(kind: Kind, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    match kind {
        Kind::Int => Arc::new(
            cells.map(|c| if let Cell::Int(v) = c { Some(*v) } else { None }).collect::<Int64Array>(),
        ),
        Kind::Text => Arc::new(
            cells
                .map(|c| if let Cell::Text(v) = c { Some(v.as_str()) } else { None })
                .collect::<StringArray>(),
        ),
        Kind::Bool => Arc::new(
            cells.map(|c| if let Cell::Bool(v) = c { Some(*v) } else { None }).collect::<BooleanArray>(),
        ),
        Kind::Float => Arc::new(
            cells.map(|c| if let Cell::Float(v) = c { Some(*v) } else { None }).collect::<Float64Array>(),
        ),
    }
}
