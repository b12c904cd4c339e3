//! The connector dialect: the YAML that the platform document prints, flat and nested.
//!
//! A file is of this dialect when it has `source_id`. Files and direct events run; the
//! other patterns, serving and monitoring are type-checked and noted as inactive. What the
//! file mentions and the project lacks is a warning, and that step waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_core::{SourceName, TableName, TenantId, TopicName, Zone};

use crate::codes;
use crate::columns::Columns;
use crate::diagnostic::Sink;
use crate::draft::{GoldDraft, PipelineDraft, places};
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::gold;
use crate::model::{FileSource, Inactive, Owner, Pipeline, Source, Step, Validation, Waiting};
use crate::parsed_only;
use crate::pipeline::{EPOCH, EPOCH_BYTES, delimiter, event_types, file_format, settle, validation};
use crate::source::{SourceFile, Span};
use crate::steps::StepReader;
use crate::tree::{Key, Node};
use crate::world::{Base, SchemaLookup, World, folder};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    BatchFile,
    StreamingApi,
    DatabaseCdc,
    CloudTransfer,
    EventStreaming,
}

const PATTERNS: [(&str, Pattern); 5] = [
    ("batch_file", Pattern::BatchFile),
    ("streaming_api", Pattern::StreamingApi),
    ("database_cdc", Pattern::DatabaseCdc),
    ("cloud_transfer", Pattern::CloudTransfer),
    ("event_streaming", Pattern::EventStreaming),
];

/// Fields of an ingestion with the patterns that know them; empty: all.
const INGESTION: [(&str, &[Pattern]); 23] = {
    use Pattern::{BatchFile, CloudTransfer, DatabaseCdc, EventStreaming, StreamingApi};
    [
        ("pattern", &[]),
        ("schedule", &[BatchFile, StreamingApi, DatabaseCdc, CloudTransfer]),
        ("location", &[BatchFile]),
        ("format", &[BatchFile, StreamingApi, CloudTransfer]),
        ("compression", &[BatchFile, CloudTransfer]),
        ("delimiter", &[BatchFile]),
        ("settle", &[BatchFile]),
        ("settle_end", &[BatchFile]),
        ("connector_type", &[StreamingApi, DatabaseCdc]),
        ("api_endpoint", &[StreamingApi]),
        ("auth_type", &[StreamingApi]),
        ("secret_name", &[StreamingApi, DatabaseCdc, CloudTransfer]),
        ("poll_interval", &[StreamingApi]),
        ("webhook_path", &[StreamingApi]),
        ("database_type", &[DatabaseCdc]),
        ("connection_profile", &[DatabaseCdc]),
        ("tables", &[DatabaseCdc]),
        ("source_type", &[CloudTransfer]),
        ("source_bucket", &[CloudTransfer]),
        ("source_path", &[CloudTransfer]),
        ("destination", &[CloudTransfer]),
        ("pubsub_topic", &[EventStreaming]),
        ("message_format", &[EventStreaming]),
    ]
};
const MORE_INGESTION: [&str; 2] = ["window_size", "event_types"];

type Ingestion<'n> = BTreeMap<&'static str, (&'n Key, &'n Node)>;

/// Reads the file. `None`: it has no usable name; whatever else is wrong, the sink holds.
pub(crate) fn read(
    file: &Arc<SourceFile>,
    tree: &Node,
    base: &Base,
    world: &mut World<'_>,
    sink: &mut Sink,
    inactive: &mut Vec<Inactive>,
) -> Option<PipelineDraft> {
    let before = sink.errors();
    let mut cx = Cx { file, sink, dialect: Dialect::Connector, inactive };
    let cx = &mut cx;
    let top = top(cx, tree)?;

    let source = source(cx, &top.ingestion, base, &top.place);
    let owner = match (&base.tenant, &source) {
        (Some(tenant), _) => Owner::Tenant(tenant.clone()),
        (None, Some(Some(Source::Events { .. }))) => Owner::Shared,
        _ => Owner::Tenant(TenantId::default_tenant()),
    };
    let mut waiting = Vec::new();
    let runs = matches!(source, Some(Some(_)));
    let (found, validation) = schema(cx, &top, base, world, runs.then_some(&mut waiting));
    // A schema that is there and broken was reported in its own file.
    let broken = matches!(found, SchemaLookup::Broken);
    let schema = match found {
        SchemaLookup::Found(schema) => Some(schema),
        _ => None,
    };
    let columns = schema.as_ref().map_or_else(Columns::open, |s| Columns::of(&s.fields));
    let mut reader = StepReader { cx, world, columns, waiting, step_spans: Vec::new() };
    let about = top.display_name.as_deref().or(top.name.as_ref().map(SourceName::as_str)).unwrap_or_default();
    let (steps, gold) = processing(&mut reader, top.processing, about);
    let (waiting, step_spans) = (reader.waiting, reader.step_spans);
    let sla = parsed_only::monitoring(cx, top.monitoring);
    parsed_only::serving(cx, top.serving);

    let name = top.name?;
    let sink_table = TableName::new(Zone::Silver, name.clone());
    let name_span = top.name_span?;
    let sound = cx.sink.errors() == before && !broken;
    let pipeline = match source {
        Some(Some(source)) if sound => Some(Pipeline {
            name: name.clone(),
            owner: owner.clone(),
            display_name: top.display_name,
            description: top.description,
            file: file.path.clone(),
            source,
            schema: schema.map(|s| (*s).clone()),
            validation,
            steps,
            waiting,
            sink: sink_table.clone(),
            epoch: EPOCH,
            epoch_bytes: EPOCH_BYTES,
            retention: None,
            sla,
        }),
        _ => None,
    };
    Some(PipelineDraft {
        name,
        owner,
        file: Arc::clone(file),
        sink_span: name_span.clone(),
        name_span,
        sink: sink_table,
        type_spans: places(top.ingestion.get("event_types").map(|(_, node)| *node)),
        step_spans,
        sound,
        pipeline,
        gold,
    })
}

/// The first-level fields, the flat ingestion joined with the nested one.
struct Top<'n> {
    name: Option<SourceName>,
    name_span: Option<Span>,
    display_name: Option<String>,
    description: Option<String>,
    ingestion: Ingestion<'n>,
    schema_file: Option<(&'n Key, &'n Node)>,
    schema: Option<&'n Node>,
    processing: Option<&'n Node>,
    serving: Option<&'n Node>,
    monitoring: Option<&'n Node>,
    /// Where a missing field is reported.
    place: Span,
}

fn top<'n>(cx: &mut Cx<'_>, tree: &'n Node) -> Option<Top<'n>> {
    let mut map = Fields::of(cx, tree, "a connector")?;
    let name_node = map.need(cx, "source_id");
    let mut text = |cx: &mut Cx<'_>, name| map.get(name).and_then(|n| cx.text(n, name)).map(str::to_owned);
    let display_name = text(cx, "display_name");
    let description = text(cx, "description");
    let mut ingestion = Ingestion::new();
    collect(cx, &mut map, &mut ingestion);
    if let Some(mut nested) = map.get("ingestion").and_then(|node| Fields::of(cx, node, "ingestion")) {
        collect(cx, &mut nested, &mut ingestion);
        nested.finish(cx);
    }
    let top = Top {
        name: name_node.and_then(|n| cx.name(n, "source_id")),
        name_span: name_node.map(|n| n.span.clone()),
        display_name,
        description,
        ingestion,
        schema_file: map.entry("schema_file"),
        schema: map.get("schema"),
        processing: map.get("processing"),
        serving: map.get("serving"),
        monitoring: map.get("monitoring"),
        place: map.place().clone(),
    };
    map.finish(cx);
    Some(top)
}

/// The steps to silver, and what `silver_to_gold` asks for.
fn processing(
    reader: &mut StepReader<'_, '_, '_>,
    node: Option<&Node>,
    about: &str,
) -> (Vec<Step>, Option<GoldDraft>) {
    let Some(mut map) = node.and_then(|node| Fields::of(reader.cx, node, "processing")) else {
        return (Vec::new(), None);
    };
    let to_silver = map.get("bronze_to_silver");
    let to_gold = map.get("silver_to_gold");
    map.finish(reader.cx);
    let steps = to_silver.map(|node| reader.read(node, "bronze_to_silver")).unwrap_or_default();
    (steps, to_gold.and_then(|node| gold::read(reader, node, about)))
}

/// Takes the ingestion fields of a map; the flat form has them at the top.
fn collect<'n>(cx: &mut Cx<'_>, map: &mut Fields<'n>, into: &mut Ingestion<'n>) {
    for name in INGESTION.iter().map(|(name, _)| *name).chain(MORE_INGESTION) {
        let Some((key, node)) = map.entry(name) else { continue };
        if into.insert(name, (key, node)).is_some() {
            cx.report(
                codes::DUPLICATE_KEY,
                &key.span,
                format!("`{name}` is written both flat and under `ingestion`"),
            );
        }
    }
}

/// `None`: errors. `Some(None)`: parsed only.
fn source(cx: &mut Cx<'_>, ingestion: &Ingestion<'_>, base: &Base, place: &Span) -> Option<Option<Source>> {
    check_types(cx, ingestion);
    let Some((_, node)) = ingestion.get("pattern") else {
        cx.report(codes::MISSING_FIELD, place, "a connector needs `pattern`")
            .hint("batch_file, streaming_api, database_cdc, cloud_transfer or event_streaming");
        return None;
    };
    let pattern = cx.choice(node, "pattern", &PATTERNS)?;
    for (name, (key, _)) in ingestion {
        let known = match INGESTION.iter().find(|(n, _)| n == name) {
            Some((_, patterns)) => patterns.is_empty() || patterns.contains(&pattern),
            None => pattern == Pattern::EventStreaming,
        };
        if !known {
            let word = PATTERNS.iter().find(|(_, p)| *p == pattern).map_or("", |(w, _)| w);
            cx.report(
                codes::CONNECTOR_FIELD,
                &key.span,
                format!("`{name}` has no effect for the pattern {word}"),
            );
        }
    }
    match pattern {
        Pattern::BatchFile => batch_file(cx, ingestion, base, place),
        Pattern::EventStreaming => event_streaming(cx, ingestion, place),
        Pattern::StreamingApi => {
            Some(later(cx, node, "streaming_api", "polling an API comes with a later release"))
        }
        Pattern::DatabaseCdc => {
            Some(later(cx, node, "database_cdc", "change capture comes with a later release"))
        }
        Pattern::CloudTransfer => {
            Some(later(cx, node, "cloud_transfer", "copying between clouds comes with a later release"))
        }
    }
}

fn later(cx: &mut Cx<'_>, node: &Node, part: &str, reason: &str) -> Option<Source> {
    cx.inactive(&node.span, format!("pattern {part}"), reason);
    None
}

/// Types of the fields that nothing else reads.
fn check_types(cx: &mut Cx<'_>, ingestion: &Ingestion<'_>) {
    for (name, (_, node)) in ingestion {
        match *name {
            "poll_interval" | "window_size" => {
                cx.duration(node, name, Duration::from_millis(100)..=Duration::from_secs(366 * 86_400));
            }
            "schedule" => {
                cx.cron(node, name);
            }
            "tables" => {
                cx.texts(node, name);
            }
            "api_endpoint" => {
                if let Some(text) = cx.text(node, name)
                    && !(text.starts_with("https://") || text.starts_with("http://"))
                {
                    cx.report(
                        codes::BAD_URL,
                        &node.span,
                        "`api_endpoint` must begin with http:// or https://",
                    );
                }
            }
            "destination" => {
                if let Some(text) = cx.text(node, name) {
                    folder(cx, text, &node.span);
                }
            }
            "connector_type" | "auth_type" | "secret_name" | "webhook_path" | "database_type"
            | "connection_profile" | "source_type" | "source_bucket" | "source_path" => {
                cx.text(node, name);
            }
            _ => {}
        }
    }
}

fn needed<'n>(
    cx: &mut Cx<'_>,
    ingestion: &Ingestion<'n>,
    name: &str,
    pattern: &str,
    place: &Span,
) -> Option<&'n Node> {
    let found = ingestion.get(name).map(|(_, node)| *node);
    if found.is_none() {
        cx.report(codes::MISSING_FIELD, place, format!("the pattern {pattern} needs `{name}`"));
    }
    found
}

fn batch_file(
    cx: &mut Cx<'_>,
    ingestion: &Ingestion<'_>,
    base: &Base,
    place: &Span,
) -> Option<Option<Source>> {
    let location_node = needed(cx, ingestion, "location", "batch_file", place);
    let format_node = needed(cx, ingestion, "format", "batch_file", place);
    let gzip = match ingestion.get("compression") {
        Some((_, node)) => {
            cx.choice(node, "compression", &[("gzip", Some(true)), ("none", Some(false)), ("auto", None)])?
        }
        None => None,
    };
    let schedule =
        ingestion.get("schedule").and_then(|(_, n)| cx.text(n, "schedule")).map(|t| t.trim().to_owned());
    let location = location_node.and_then(|n| cx.text(n, "location"))?;
    let folder = folder(cx, location, &location_node?.span);
    let format_node = format_node?;
    if let Some(word @ ("parquet" | "avro" | "xml" | "excel")) = cx.text(format_node, "format") {
        cx.inactive(&format_node.span, format!("format {word}"), "only CSV and JSON files run so far");
        return Some(None);
    }
    let format = file_format(cx, format_node);
    let field = |name| ingestion.get(name).map(|(_, node)| *node);
    let delimiter = delimiter(cx, ingestion.get("delimiter").copied(), format);
    let settle = settle(cx, field("settle"), field("settle_end"));
    let (settle, settle_end) = settle?;
    Some(Some(Source::Files(FileSource {
        location: location.to_owned(),
        folder: folder?,
        pattern: "*".into(),
        format: format?,
        gzip,
        delimiter: delimiter?,
        settle,
        settle_end,
        null_values: Vec::new(),
        schedule,
        tenant: base.tenant.clone().unwrap_or_else(TenantId::default_tenant),
    })))
}

fn event_streaming(cx: &mut Cx<'_>, ingestion: &Ingestion<'_>, place: &Span) -> Option<Option<Source>> {
    let topic_node = needed(cx, ingestion, "pubsub_topic", "event_streaming", place);
    let types = match ingestion.get("event_types") {
        Some((_, node)) => event_types(cx, node)?,
        None => Vec::new(),
    };
    if let Some((key, _)) = ingestion.get("window_size") {
        cx.inactive(&key.span, "window_size", "windows come with a later release; events run one by one");
    }
    let topic_node = topic_node?;
    let written = cx.text(topic_node, "pubsub_topic")?;
    let last = written.rsplit('/').next().unwrap_or(written);
    let topic: TopicName = cx.parse_name(last, &topic_node.span)?;
    if let Some((_, node)) = ingestion.get("message_format") {
        let word = cx.choice(
            node,
            "message_format",
            &[("json", "json"), ("avro", "avro"), ("protobuf", "protobuf")],
        )?;
        if word != "json" {
            cx.inactive(&node.span, format!("message_format {word}"), "only JSON messages run so far");
            return Some(None);
        }
    }
    Some(Some(Source::Events { topic, event_types: types }))
}

/// The schema, flat (`schema_file`) or nested (`schema: {file}`). `waiting`: where the
/// pipeline notes that it waits for it; `None` when nothing would run anyway.
fn schema(
    cx: &mut Cx<'_>,
    top: &Top<'_>,
    base: &Base,
    world: &mut World<'_>,
    waiting: Option<&mut Vec<Waiting>>,
) -> (SchemaLookup, Validation) {
    let mut mode = Validation::Strict;
    let mut file = top.schema_file.map(|(_, node)| node);
    if let Some(mut map) = top.schema.and_then(|node| Fields::of(cx, node, "schema")) {
        if let Some(node) = map.get("file") {
            if let Some((key, _)) = top.schema_file {
                cx.report(
                    codes::DUPLICATE_KEY,
                    &key.span,
                    "`schema_file` and `schema: {file}` say the same twice",
                );
            }
            file = Some(node);
        }
        mode = map.get("validation").and_then(|n| validation(cx, n)).unwrap_or(mode);
        if let Some(node) = map.get("evolution") {
            parsed_only::evolution(cx, node);
        }
        map.finish(cx);
    }
    let runs = waiting.is_some();
    let wait = |cx: &mut Cx<'_>, span: &Span, message: String, hint: String| {
        if let Some(waiting) = waiting {
            waiting.push(Waiting {
                code: codes::WAITING_SCHEMA.id.into(),
                step: "schema".into(),
                reason: message.clone(),
            });
        }
        cx.report(codes::WAITING_SCHEMA, span, message).hint(hint);
    };
    let Some(node) = file else {
        if !runs {
            return (SchemaLookup::Missing, mode);
        }
        wait(
            cx,
            &top.place,
            "the connector names no schema".into(),
            "add `schema_file: schemas/<name>.json`".into(),
        );
        return (SchemaLookup::Missing, mode);
    };
    let Some(written) = cx.text(node, "schema file") else { return (SchemaLookup::Broken, mode) };
    let found = world.schema(base, written, cx.sink);
    if matches!(found, SchemaLookup::Missing) {
        let hint = world.schema_hint(written);
        wait(cx, &node.span, format!("there is no schema file `{}`", cut(written)), hint);
    }
    (found, mode)
}
