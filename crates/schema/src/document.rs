//! The check against a JSON Schema document, besides the declared fields.
//!
//! Strict records are checked as they came. Lenient and textual ones are checked as they
//! will be kept: with the coerced values in place and without undeclared top-level fields.

use jsonschema::Validator;
use levada_config::model::{Field, FieldType, Schema};
use serde_json::Value;

use crate::SchemaError;
use crate::cell::{Cell, Coercion};
use crate::extract::short;

#[derive(Debug)]
pub(crate) struct Document {
    validator: Validator,
}

impl Document {
    pub fn new(schema: &Schema) -> Result<Option<Self>, SchemaError> {
        let Some(document) = &schema.json_schema else { return Ok(None) };
        let validator = jsonschema::validator_for(document).map_err(|e| SchemaError::Document {
            file: schema.file.display().to_string(),
            reason: e.to_string(),
        })?;
        Ok(Some(Self { validator }))
    }

    /// The first breach: the field's path and a sentence.
    pub fn check(
        &self,
        body: &[u8],
        fields: &[Field],
        cells: &[Cell<'_>],
        how: Coercion,
    ) -> Result<(), (String, String)> {
        let record: Value = match how {
            Coercion::Textual => Value::Object(serde_json::Map::new()),
            // The scan has skipped over what this parse may refuse, such as 1e999.
            _ => serde_json::from_slice(body).map_err(|e| (String::new(), e.to_string()))?,
        };
        let record = if how == Coercion::Strict { record } else { kept(record, fields, cells) };
        match self.validator.iter_errors(&record).next() {
            None => Ok(()),
            Some(error) => Err((error.instance_path().to_string(), short_sentence(&error.to_string()))),
        }
    }
}

fn short_sentence(text: &str) -> String {
    if text.chars().count() <= 200 { text.to_owned() } else { format!("{}...", short(text)) }
}

/// The record with its declared values as they will be stored.
fn kept(mut record: Value, fields: &[Field], cells: &[Cell<'_>]) -> Value {
    let whole = fields.iter().any(|f| f.path.is_empty());
    if let (Value::Object(map), false) = (&mut record, whole) {
        map.retain(|key, _| fields.iter().any(|f| f.path.first() == Some(key)));
    }
    for (field, cell) in fields.iter().zip(cells) {
        if field.path.first().is_none_or(|p| p == "@") || cell.is_null() {
            continue;
        }
        if let Some(slot) = slot(&mut record, &field.path) {
            *slot = value(slot, cell, field.kind);
        }
    }
    record
}

fn slot<'v>(record: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(record, |at, key| match at {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        Value::Object(map) => Some(map.entry(key.as_str()).or_insert(Value::Null)),
        Value::Null => {
            *at = Value::Object(serde_json::Map::new());
            at.as_object_mut().map(|map| map.entry(key.as_str()).or_insert(Value::Null))
        }
        _ => None,
    })
}

fn value(old: &Value, cell: &Cell<'_>, kind: FieldType) -> Value {
    match cell {
        Cell::Null => Value::Null,
        // Containers are kept as text in the table; the document speaks of the container.
        Cell::Text(_) if old.is_object() || old.is_array() => old.clone(),
        Cell::Text(text) => Value::String(text.to_string()),
        Cell::Int(v) => Value::from(*v),
        Cell::Float(v) => Value::from(*v),
        // The document's numbers are doubles; only its rules see this one.
        Cell::Decimal(v) => match kind {
            FieldType::Decimal { scale, .. } => Value::from(*v as f64 / 10f64.powi(i32::from(scale))),
            _ => old.clone(),
        },
        Cell::Bool(v) => Value::from(*v),
        // An epoch whose unit the schema names stays the number that the document describes.
        Cell::Micros(_) | Cell::Days(_) if old.is_number() => old.clone(),
        Cell::Micros(v) => chrono::DateTime::from_timestamp_micros(*v)
            .map_or(Value::Null, |t| t.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into()),
        Cell::Days(v) => chrono::DateTime::from_timestamp(i64::from(*v) * 86_400, 0)
            .map_or(Value::Null, |t| t.format("%Y-%m-%d").to_string().into()),
    }
}
