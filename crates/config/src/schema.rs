//! Schema files: the field list of the platform document (BigQuery types and modes) and
//! JSON Schema, both turned into the same fields.

use crate::codes;
use crate::columns::{TENANT_COLUMN, column_name};
use crate::diagnostic::Sink;
use crate::field_types::{self, Details};
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::model::{Field, FieldType, Schema};
use crate::source::{SourceFile, Span};
use crate::tree::{self, Node, Value};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Required,
    Nullable,
    Repeated,
}

/// Reads a schema file. `None`: it has errors, which the sink holds.
pub(crate) fn read(file: &SourceFile, sink: &mut Sink) -> Option<Schema> {
    let before = sink.errors();
    let tree = tree::parse(file, sink)?;
    let mut inactive = Vec::new();
    let mut cx = Cx { file, sink, dialect: Dialect::Connector, inactive: &mut inactive };
    let schema = if tree.get("fields").is_some() {
        field_list(&mut cx, &tree)
    } else if tree.get("$schema").is_some() || tree.get("properties").is_some() {
        json_schema(&mut cx, &tree)
    } else {
        cx.report(codes::SCHEMA_FORM, &first_line(&tree), "neither a field list nor a JSON Schema")
            .hint("write {\"fields\": [...]} or {\"type\": \"object\", \"properties\": {...}}");
        None
    };
    schema.filter(|_| cx.sink.errors() == before)
}

fn first_line(node: &Node) -> Span {
    node.span.start..node.span.start + 1
}

fn field_list(cx: &mut Cx<'_>, tree: &Node) -> Option<Schema> {
    let mut top = Fields::of(cx, tree, "a field-list schema")?;
    if let Some(node) = top.get("source_id") {
        cx.text(node, "source_id");
    }
    if let Some(node) = top.get("description") {
        cx.text(node, "description");
    }
    let version = top.get("version").and_then(|n| cx.loose_text(n, "version")).unwrap_or("1").to_owned();
    let nodes = top.need(cx, "fields").and_then(|n| cx.list(n, "fields"));
    top.finish(cx);
    let fields = field_nodes(cx, nodes?);
    if fields.is_empty() {
        cx.report(codes::SCHEMA_FORM, &first_line(tree), "a schema needs at least one field");
    }
    Some(Schema { file: cx.file.path.clone(), version, fields, json_schema: None })
}

/// More columns than any table needs.
const MAX_FIELDS: usize = 5_000;

/// Whether a list of fields is short enough; said of the first that is too many.
fn in_bounds<'s>(cx: &mut Cx<'_>, mut beyond: impl Iterator<Item = &'s Span>) -> bool {
    match beyond.nth(MAX_FIELDS) {
        Some(span) => {
            cx.report(codes::COLUMN, span, "a schema may have 5,000 fields")
                .hint("keep what is rarely read in one JSON column, with `\"path\": \"$\"`");
            false
        }
        None => true,
    }
}

/// A list of field maps: of a schema, or of what an enrichment adds.
pub(crate) fn field_nodes(cx: &mut Cx<'_>, nodes: &[Node]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    if !in_bounds(cx, nodes.iter().map(|n| &n.span)) {
        return fields;
    }
    for node in nodes {
        if let Some((field, span)) = field(cx, node) {
            push_unique(cx, &mut fields, field, &span);
        }
    }
    fields
}

fn push_unique(cx: &mut Cx<'_>, fields: &mut Vec<Field>, field: Field, span: &Span) {
    // It makes no second column: the payload may name a tenant, and it must be the event's.
    if field.name.as_str() == TENANT_COLUMN && field.kind != FieldType::String {
        cx.report(
            codes::COLUMN,
            span,
            format!("`{TENANT_COLUMN}` names the event's tenant, so it is a STRING"),
        )
        .hint("make it a STRING, or give the column another name and keep its `path`");
    } else if fields.iter().any(|f| f.name == field.name) {
        cx.report(codes::COLUMN, span, format!("a second column `{}`", field.name));
    } else {
        fields.push(field);
    }
}

fn field(cx: &mut Cx<'_>, node: &Node) -> Option<(Field, Span)> {
    let mut map = Fields::of(cx, node, "a field")?;
    let name_node = map.need(cx, "name");
    let kind_node = map.need(cx, "type");
    let mode = map.get("mode").and_then(|n| {
        cx.choice(
            n,
            "mode",
            &[("REQUIRED", Mode::Required), ("NULLABLE", Mode::Nullable), ("REPEATED", Mode::Repeated)],
        )
    });
    let required = map.get("required").and_then(|n| cx.boolean(n, "required"));
    let description = map.get("description").and_then(|n| cx.text(n, "description")).map(str::to_owned);
    let path = map.get("path").map(|n| path(cx, n));
    let details = Details {
        precision: map.get("precision"),
        scale: map.get("scale"),
        unit: map.get("unit"),
        format: map.get("format"),
    };
    if let Some(nested) = map.get("fields").and_then(|n| cx.list(n, "fields")) {
        field_nodes(cx, nested);
    }
    map.finish(cx);
    let read = kind_node.and_then(|n| field_types::read(cx, n, &details));
    let name_node = name_node?;
    let written = cx.text(name_node, "name")?;
    let name = named(cx, written, &name_node.span)?;
    let path = match path {
        Some(path) => path?,
        None => vec![written.to_owned()],
    };
    let (kind, numbers) = if mode == Some(Mode::Repeated) { (FieldType::Json, None) } else { read? };
    let required = mode == Some(Mode::Required) || required == Some(true);
    Some((Field { name, path, kind, numbers, required, description }, name_node.span.clone()))
}

fn named(cx: &mut Cx<'_>, written: &str, span: &Span) -> Option<levada_core::SourceName> {
    let name = column_name(written);
    if name.is_none() {
        cx.report(codes::BAD_NAME, span, format!("`{}` gives no column name", cut(written)))
            .hint("start it with a letter; the name in the record goes into `path`");
    }
    name
}

/// `a.b.c`, `[a, b.c]`, `$` for the whole body, `@.event_type` for the envelope.
fn path(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    let segments: Vec<String> = match &node.value {
        Value::List(_) => cx.texts(node, "path")?.into_iter().map(|(_, t)| t.to_owned()).collect(),
        _ => match cx.text(node, "path")? {
            "$" => Vec::new(),
            text => text.strip_prefix("$.").unwrap_or(text).split('.').map(str::to_owned).collect(),
        },
    };
    let envelope_alone = segments.first().is_some_and(|s| s == "@") && segments.len() != 2;
    if segments.iter().any(String::is_empty) || envelope_alone || segments.len() > 16 {
        cx.report(codes::BAD_VALUE, &node.span, "`path` names keys from the root, at most 16")
            .hint("write `a.b`, [a, b], `$` for the whole body, or `@.event_type` for the envelope");
        return None;
    }
    Some(segments)
}

fn json_schema(cx: &mut Cx<'_>, tree: &Node) -> Option<Schema> {
    remote_refs(cx, tree);
    let object = tree.get("type").is_none_or(|n| type_words(n).0.contains(&"object"));
    let properties = tree.get("properties");
    let (true, Some(properties)) = (object, properties) else {
        cx.report(
            codes::SCHEMA_FORM,
            &first_line(tree),
            "a JSON Schema here describes an object with `properties`",
        );
        return None;
    };
    let required: Vec<&str> = match tree.get("required") {
        Some(node) => cx.texts(node, "required")?.into_iter().map(|(_, t)| t).collect(),
        None => Vec::new(),
    };
    let mut fields = Vec::new();
    let properties = cx.map(properties, "properties")?;
    if !in_bounds(cx, properties.iter().map(|(key, _)| &key.span)) {
        return None;
    }
    for (key, node) in properties {
        let Some(name) = named(cx, &key.text, &key.span) else { continue };
        let (kind, nullable) = property_type(node);
        let unit = node.get("unit").filter(|_| kind == FieldType::Timestamp);
        let Some(numbers) = field_types::numbers(cx, kind, &Details { unit, ..Details::default() }) else {
            continue;
        };
        let description = node.get("description").and_then(|n| cx.text(n, "description")).map(str::to_owned);
        let required = required.contains(&key.text.as_str()) && !nullable;
        push_unique(
            cx,
            &mut fields,
            Field { name, path: vec![key.text.clone()], kind, numbers, required, description },
            &key.span,
        );
    }
    let version = tree.get("version").and_then(|n| cx.loose_text(n, "version")).unwrap_or("1").to_owned();
    let json_schema = match serde_json::from_str(&cx.file.text) {
        Ok(value) => Some(value),
        Err(error) => {
            cx.report(codes::SYNTAX, &first_line(tree), format!("not valid JSON: {error}"));
            None
        }
    };
    Some(Schema { file: cx.file.path.clone(), version, fields, json_schema })
}

/// The words of `type`, and whether `null` is one of them.
fn type_words(node: &Node) -> (Vec<&str>, bool) {
    fn word(node: &Node) -> Option<&str> {
        match &node.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
    let words: Vec<&str> = match &node.value {
        Value::List(items) => items.iter().filter_map(word).collect(),
        _ => word(node).into_iter().collect(),
    };
    let nullable = words.contains(&"null");
    (words.into_iter().filter(|w| *w != "null").collect(), nullable)
}

fn property_type(node: &Node) -> (FieldType, bool) {
    let Some(kind) = node.get("type") else { return (FieldType::Json, false) };
    let (words, nullable) = type_words(kind);
    let format = match node.get("format").map(|n| &n.value) {
        Some(Value::Scalar { text, .. }) => text.as_str(),
        _ => "",
    };
    // A number is a time where the property names its unit.
    let number = |word: &&str| matches!(*word, "string" | "integer" | "number");
    let timed = node.get("unit").is_some() && !words.is_empty() && words.iter().all(number);
    let kind = match words.as_slice() {
        _ if format == "date-time" && timed => FieldType::Timestamp,
        ["string"] if format == "date-time" => FieldType::Timestamp,
        ["string"] if format == "date" => FieldType::Date,
        ["string"] => FieldType::String,
        ["integer"] => FieldType::Int64,
        ["number"] | ["integer", "number"] | ["number", "integer"] => FieldType::Float64,
        ["boolean"] => FieldType::Bool,
        _ => FieldType::Json,
    };
    (kind, nullable)
}

fn remote_refs(cx: &mut Cx<'_>, node: &Node) {
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter().for_each(|n| remote_refs(cx, n)),
        Value::Map(entries) => {
            for (key, value) in entries {
                match &value.value {
                    Value::Scalar { text, .. } if key.text == "$ref" && !text.starts_with('#') => {
                        cx.report(
                            codes::REMOTE_REF,
                            &value.span,
                            format!("`{}` is another document", cut(text)),
                        )
                        .hint("copy that part into `$defs` and refer to it as #/$defs/<name>");
                    }
                    _ => remote_refs(cx, value),
                }
            }
        }
    }
}
