//! Decodes a batch of records to one Arrow batch of the rows that hold.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use levada_config::model::{Field, FieldType, Schema, Validation};
use levada_core::{Record, RecordBatchIn, attr};

use crate::SchemaError;
use crate::cell::{Cell, Coercion};
use crate::columns::{ColumnBuilder, TENANT_ID, table_schema};
use crate::document::Document;
use crate::extract::{Extractor, Row, ScanError};
use crate::time::parse_timestamp;

/// A record that breaks the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Index into the batch's records.
    pub index: u32,
    /// Stable code, such as `schema-required`.
    pub code: &'static str,
    /// The field at fault, where it is one.
    pub field: Option<String>,
    /// One sentence for a person.
    pub reason: String,
}

/// What a batch decodes to.
#[derive(Debug)]
pub struct Decoded {
    /// The rows that hold, in the order of their records; see [`table_schema`] for the columns.
    pub batch: RecordBatch,
    /// For each row the index of its record.
    pub rows: Vec<u32>,
    pub failures: Vec<Failure>,
}

/// Decodes batches of one schema. Cheap to share; keeps no state between batches.
///
/// Strict: every value has the declared type, a key is given once, and (for field lists)
/// no top-level key is undeclared; a JSON Schema document says itself whether others may be
/// there. Lenient: undeclared fields are dropped, the last of a repeated key counts, and values
/// are converted where that loses nothing. In both, what is required must be present and not
/// null, and the JSON Schema document must hold.
#[derive(Debug)]
pub struct Decoder {
    extractor: Extractor,
    /// Where the value of a field comes from the envelope: the attribute's name.
    envelope: Vec<Option<String>>,
    validation: Validation,
    document: Option<Document>,
    schema: SchemaRef,
}

type Breach = (&'static str, Option<String>, String);

impl Decoder {
    /// # Errors
    /// When the JSON Schema document is itself wrong, or two fields share a name.
    pub fn new(schema: &Schema, validation: Validation) -> Result<Self, SchemaError> {
        let mut names: Vec<&str> = schema.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(SchemaError::DuplicateColumn(twice[0].to_owned()));
        }
        let envelope = schema.fields.iter().map(|f| match &f.path[..] {
            [at, name] if at == "@" => Some(name.clone()),
            _ => None,
        });
        Ok(Self {
            extractor: Extractor::new(&schema.fields),
            envelope: envelope.collect(),
            validation,
            document: Document::new(schema)?,
            schema: table_schema(&schema.fields),
        })
    }

    /// The texts that mean null in textual batches, instead of `NA`; the empty one always does.
    #[must_use]
    pub fn null_texts(mut self, texts: &[String]) -> Self {
        self.extractor = self.extractor.null_texts(texts);
        self
    }

    /// The columns of every decoded batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn fields(&self) -> &[Field] {
        self.extractor.fields()
    }

    /// Decodes every record; one that breaks the schema becomes a failure and no row.
    ///
    /// # Errors
    /// Only when Arrow refuses the finished columns, which is a defect.
    pub fn decode(&self, input: &RecordBatchIn) -> Result<Decoded, SchemaError> {
        let records = &input.records;
        let how = match (input.textual, self.validation) {
            (true, _) => Coercion::Textual,
            (false, Validation::Strict) => Coercion::Strict,
            (false, Validation::Lenient) => Coercion::Lenient,
        };
        let mut columns: Vec<_> =
            self.fields().iter().map(|f| ColumnBuilder::new(f.kind, records.len())).collect();
        let mut envelope = Envelope::new(records.len());
        let mut rows = Vec::with_capacity(records.len());
        let mut failures = Vec::new();
        let mut row = Row::default();
        let mut cells = Vec::with_capacity(columns.len());
        for (index, record) in (0u32..).zip(records) {
            match self.check(record, how, &mut row, &mut cells) {
                Ok(()) => {
                    columns.iter_mut().zip(&cells).for_each(|(column, cell)| column.append(cell));
                    envelope.append(record);
                    rows.push(index);
                }
                Err((code, field, reason)) => failures.push(Failure { index, code, field, reason }),
            }
        }
        let batch = self.assemble(columns, envelope)?;
        Ok(Decoded { batch, rows, failures })
    }

    fn assemble(&self, columns: Vec<ColumnBuilder>, envelope: Envelope) -> Result<RecordBatch, SchemaError> {
        let [tenant, rest @ ..] = envelope.finish();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        arrays.push(tenant);
        let kept = self.fields().iter().zip(columns).filter(|(f, _)| f.name.as_str() != TENANT_ID);
        arrays.extend(kept.map(|(_, column)| column.finish()));
        arrays.extend(rest);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }

    /// Fills `cells` with the record's values in the order of the fields.
    fn check<'a>(
        &self,
        record: &'a Record,
        how: Coercion,
        row: &mut Row<'a>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Breach> {
        self.extractor.scan(&record.body, row).map_err(|e| {
            let code = if e == ScanError::NotAnObject { "schema-not-object" } else { "schema-malformed" };
            (code, None, e.to_string())
        })?;
        if how == Coercion::Strict {
            self.check_keys(row)?;
        }
        cells.clear();
        for (at, field) in self.fields().iter().enumerate() {
            let cell = match &self.envelope[at] {
                None => self.extractor.cell(row, at, how),
                Some(name) => attribute(record, name)
                    .map_or(Ok(Cell::Null), |text| self.extractor.outside_cell(text, at)),
            };
            let cell = cell.map_err(|unfit| (unfit.code, Some(field.name.to_string()), unfit.reason))?;
            self.check_cell(field, &cell, record)?;
            cells.push(cell);
        }
        let Some(document) = &self.document else { return Ok(()) };
        document.check(&record.body, self.fields(), cells, how).map_err(|(path, reason)| {
            let field = (!path.is_empty()).then(|| path.trim_start_matches('/').replace('/', "."));
            ("schema-invalid", field, reason)
        })
    }

    fn check_keys(&self, row: &Row<'_>) -> Result<(), Breach> {
        if let Some(key) = row.duplicate() {
            let reason = format!("key `{key}` appears more than once");
            return Err(("schema-duplicate-key", Some(key.to_owned()), reason));
        }
        match row.unknown() {
            Some(key) if self.document.is_none() => {
                let key = crate::extract::short(key).into_owned();
                let reason = format!("field `{key}` is not in the schema, and validation is strict");
                Err(("schema-unknown-field", Some(key), reason))
            }
            _ => Ok(()),
        }
    }

    fn check_cell(&self, field: &Field, cell: &Cell<'_>, record: &Record) -> Result<(), Breach> {
        let name = || Some(field.name.to_string());
        match cell {
            Cell::Null if field.required => Err((
                "schema-required",
                name(),
                format!("required field `{}` is missing or null", field.name),
            )),
            Cell::Null => Ok(()),
            Cell::Text(text) if field.name.as_str() == TENANT_ID && **text == *record.tenant.as_str() => {
                Ok(())
            }
            _ if field.name.as_str() == TENANT_ID => Err((
                "schema-tenant-mismatch",
                name(),
                "`tenant_id` in the payload is not the tenant of the event; read it into another column \
                 with `path` if it means something else"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

fn attribute<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.attributes.get(name).or_else(|| (name == attr::TENANT_ID).then(|| record.tenant.as_str()))
}

/// The columns that come from the envelope: the tenant first, then the system columns.
struct Envelope {
    tenant: ColumnBuilder,
    id: ColumnBuilder,
    kind: ColumnBuilder,
    time: ColumnBuilder,
    ingested: ColumnBuilder,
    offset: ColumnBuilder,
}

impl Envelope {
    fn new(rows: usize) -> Self {
        let new = |kind| ColumnBuilder::new(kind, rows);
        Self {
            tenant: new(FieldType::String),
            id: new(FieldType::String),
            kind: new(FieldType::String),
            time: new(FieldType::Timestamp),
            ingested: new(FieldType::Timestamp),
            offset: new(FieldType::Int64),
        }
    }

    fn append(&mut self, record: &Record) {
        let (mut id, mut kind, mut time) = (Cell::Null, Cell::Null, None);
        for (name, value) in record.attributes.iter() {
            match name {
                attr::EVENT_ID => id = Cell::Text(value.into()),
                attr::EVENT_TYPE => kind = Cell::Text(value.into()),
                attr::TIMESTAMP => time = parse_timestamp(value),
                _ => {}
            }
        }
        let published = record.published_at_ms.saturating_mul(1000);
        self.tenant.append(&Cell::Text(record.tenant.as_str().into()));
        self.id.append(&id);
        self.kind.append(&kind);
        self.time.append(&Cell::Micros(time.unwrap_or(published)));
        self.ingested.append(&Cell::Micros(published));
        self.offset.append(&i64::try_from(record.offset).map_or(Cell::Null, Cell::Int));
    }

    fn finish(self) -> [ArrayRef; 6] {
        [self.tenant, self.id, self.kind, self.time, self.ingested, self.offset].map(ColumnBuilder::finish)
    }
}
