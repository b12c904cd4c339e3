//! The columns of a silver table: the tenant, the schema's fields, then the envelope.
//!
//! | column | type | what |
//! |---|---|---|
//! | `tenant_id` | text | whose row it is, from authentication and never from the payload |
//! | the schema's fields | as declared | |
//! | `_event_id` | text | the event's id; null for rows of files without one |
//! | `_event_type` | text | the event's type; null where there is none |
//! | `_event_time` | timestamp | the event's own time, or the time it arrived |
//! | `_ingested_at` | timestamp | when it became durable |
//! | `_source_offset` | integer | offset in the topic, or line in the file |
//!
//! A schema's field names begin with a letter, so none can collide with the underscored
//! ones. Every column is nullable in the table, so that a schema can grow; what must be
//! present is checked record by record.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};
use levada_config::model::{Field, FieldType};

use crate::cell::Cell;

/// Whose row it is: the first column of every table that tenants share.
pub const TENANT_ID: &str = "tenant_id";
pub const EVENT_ID: &str = "_event_id";
pub const EVENT_TYPE: &str = "_event_type";
pub const EVENT_TIME: &str = "_event_time";
pub const INGESTED_AT: &str = "_ingested_at";
pub const SOURCE_OFFSET: &str = "_source_offset";

/// The envelope columns, in their order after the schema's fields.
pub const SYSTEM_COLUMNS: [&str; 5] = [EVENT_ID, EVENT_TYPE, EVENT_TIME, INGESTED_AT, SOURCE_OFFSET];

/// The Arrow type of a field. Timestamps are microseconds in UTC; JSON is its text.
pub fn data_type(kind: FieldType) -> DataType {
    match kind {
        FieldType::String | FieldType::Json => DataType::Utf8,
        FieldType::Int64 => DataType::Int64,
        FieldType::Float64 => DataType::Float64,
        FieldType::Decimal { precision, scale } => DataType::Decimal128(precision, scale.cast_signed()),
        FieldType::Bool => DataType::Boolean,
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        FieldType::Date => DataType::Date32,
    }
}

/// The schema of the silver table for these fields. A field called `tenant_id` makes no
/// second column: the tenant of a row comes from authentication.
pub fn table_schema(fields: &[Field]) -> SchemaRef {
    let column = |name: &str, kind| ArrowField::new(name, data_type(kind), true);
    let mut columns = Vec::with_capacity(fields.len() + 6);
    columns.push(column(TENANT_ID, FieldType::String));
    columns.extend(
        fields.iter().filter(|f| f.name.as_str() != TENANT_ID).map(|f| column(f.name.as_str(), f.kind)),
    );
    columns.push(column(EVENT_ID, FieldType::String));
    columns.push(column(EVENT_TYPE, FieldType::String));
    columns.push(column(EVENT_TIME, FieldType::Timestamp));
    columns.push(column(INGESTED_AT, FieldType::Timestamp));
    columns.push(column(SOURCE_OFFSET, FieldType::Int64));
    Arc::new(ArrowSchema::new(columns))
}

/// Grows one Arrow column from cells of one kind.
#[derive(Debug)]
pub enum ColumnBuilder {
    Text(StringBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl ColumnBuilder {
    pub fn new(kind: FieldType, rows: usize) -> Self {
        match kind {
            FieldType::String | FieldType::Json => {
                Self::Text(StringBuilder::with_capacity(rows, rows.saturating_mul(16)))
            }
            FieldType::Int64 => Self::Int(Int64Builder::with_capacity(rows)),
            FieldType::Float64 => Self::Float(Float64Builder::with_capacity(rows)),
            FieldType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(data_type(kind)))
            }
            FieldType::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            FieldType::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type(kind)),
            ),
            FieldType::Date => Self::Date(Date32Builder::with_capacity(rows)),
        }
    }

    /// Appends a cell that [`crate::cell::convert`] made for this column's kind.
    pub fn append(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Text(b), Cell::Text(v)) => b.append_value(v),
            (Self::Int(b), Cell::Int(v)) => b.append_value(*v),
            (Self::Float(b), Cell::Float(v)) => b.append_value(*v),
            (Self::Decimal(b), Cell::Decimal(v)) => b.append_value(*v),
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(*v),
            (Self::Timestamp(b), Cell::Micros(v)) => b.append_value(*v),
            (Self::Date(b), Cell::Days(v)) => b.append_value(*v),
            (Self::Text(b), _) => b.append_null(),
            (Self::Int(b), _) => b.append_null(),
            (Self::Float(b), _) => b.append_null(),
            (Self::Decimal(b), _) => b.append_null(),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Timestamp(b), _) => b.append_null(),
            (Self::Date(b), _) => b.append_null(),
        }
    }

    pub fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Float(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b) => Arc::new(b.finish()),
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
            Self::Date(mut b) => Arc::new(b.finish()),
        }
    }
}
