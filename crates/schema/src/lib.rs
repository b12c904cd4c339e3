//! Schemas at work: from a checked field list to Arrow columns, and from the bytes of a
//! record to one row of them.
//!
//! [`Decoder`] reads a batch of JSON records in one pass over each body and hands back the
//! rows that hold, and for every other record one [`Failure`] that says why. [`Extractor`]
//! is the same machinery for a single JSON text, such as the answer of an enrichment service.
//!
//! This part does no IO and knows neither topics nor tables. [`pubsub`] is another thing: the
//! schemas of the Pub/Sub API, by which a topic checks what is published to it, and their
//! registry over a document store.

mod cell;
mod columns;
mod decoder;
mod document;
mod extract;
pub mod pubsub;
mod time;

#[cfg(test)]
mod tests;

pub use cell::{Cell, Coercion, Unfit};
pub use columns::{
    ColumnBuilder, EVENT_ID, EVENT_TIME, EVENT_TYPE, INGESTED_AT, SOURCE_OFFSET, SYSTEM_COLUMNS, TENANT_ID,
    data_type, table_schema,
};
pub use decoder::{Decoded, Decoder, Failure};
pub use extract::{Extractor, Row, ScanError};
pub use time::{parse_date, parse_timestamp};

/// Why a schema cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The JSON Schema document itself is wrong.
    #[error("{file}: not a usable JSON Schema: {reason}")]
    Document { file: String, reason: String },
    #[error("column `{0}` appears twice")]
    DuplicateColumn(String),
    #[error("cannot build a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}
