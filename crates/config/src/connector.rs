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
use crate::draft::PipelineDraft;
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::gold;
use crate::model::{FileSource, Inactive, Owner, Pipeline, Source, Validation, Waiting};
use crate::pipeline::{EPOCH, EPOCH_BYTES, event_types, file_format, validation};
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
const INGESTION: [(&str, &[Pattern]); 20] = {
    use Pattern::{BatchFile, CloudTransfer, DatabaseCdc, EventStreaming, StreamingApi};
    [
        ("pattern", &[]),
        ("schedule", &[BatchFile, StreamingApi, DatabaseCdc, CloudTransfer]),
        ("location", &[BatchFile]),
        ("format", &[BatchFile, StreamingApi, CloudTransfer]),
        ("compression", &[BatchFile, CloudTransfer]),
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
    let mut top = Fields::of(cx, tree, "a connector")?;
    let name_node = top.need(cx, "source_id");
    let name: Option<SourceName> = name_node.and_then(|n| cx.name(n, "source_id"));
    let display_name = top.get("display_name").and_then(|n| cx.text(n, "display_name")).map(str::to_owned);
    let description = top.get("description").and_then(|n| cx.text(n, "description")).map(str::to_owned);

    let mut ingestion = Ingestion::new();
    collect(cx, &mut top, &mut ingestion);
    if let Some(node) = top.get("ingestion") {
        if let Some(mut nested) = Fields::of(cx, node, "ingestion") {
            collect(cx, &mut nested, &mut ingestion);
            nested.finish(cx);
        }
    }
    let flat_schema = top.entry("schema_file");
    let schema_node = top.get("schema");
    let processing = top.get("processing");
    let serving = top.get("serving");
    let monitoring = top.get("monitoring");
    let place = top.place().clone();
    top.finish(cx);

    let source = source(cx, &ingestion, base, &place);
    let owner = match (&base.tenant, &source) {
        (Some(tenant), _) => Owner::Tenant(tenant.clone()),
        (None, Some(Some(Source::Events { .. }))) => Owner::Shared,
        _ => Owner::Tenant(TenantId::default_tenant()),
    };
    let mut waiting = Vec::new();
    let runs = matches!(source, Some(Some(_)));
    let (found, validation) =
        schema(cx, flat_schema, schema_node, base, world, runs.then_some(&mut waiting), &place);
    // A schema that is there and broken was reported in its own file.
    let broken = matches!(found, SchemaLookup::Broken);
    let schema = match found {
        SchemaLookup::Found(schema) => Some(schema),
        _ => None,
    };
    let columns = schema.as_ref().map_or_else(Columns::open, |s| Columns::of(&s.fields));
    let mut steps = Vec::new();
    let mut gold = None;
    if let Some(mut map) = processing.and_then(|node| Fields::of(cx, node, "processing")) {
        let to_silver = map.get("bronze_to_silver");
        let to_gold = map.get("silver_to_gold");
        map.finish(cx);
        let mut reader = StepReader { cx, world, columns, waiting: std::mem::take(&mut waiting) };
        if let Some(node) = to_silver {
            steps = reader.read(node, "bronze_to_silver");
        }
        if let Some(node) = to_gold {
            let about = display_name.as_deref().or(name.as_ref().map(SourceName::as_str)).unwrap_or_default();
            gold = gold::read(&mut reader, node, about);
        }
        waiting = reader.waiting;
    }
    let sla = monitoring_part(cx, monitoring);
    serving_part(cx, serving);

    let name = name?;
    let sink_table = TableName::new(Zone::Silver, name.clone());
    let name_span = name_node?.span.clone();
    let sound = cx.sink.errors() == before && !broken;
    let pipeline = match source {
        Some(Some(source)) if sound => Some(Pipeline {
            name: name.clone(),
            owner: owner.clone(),
            display_name,
            description,
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
        sound,
        pipeline,
        gold,
    })
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
                if let Some(text) = cx.text(node, name) {
                    if !(text.starts_with("https://") || text.starts_with("http://")) {
                        cx.report(
                            codes::BAD_URL,
                            &node.span,
                            "`api_endpoint` must begin with http:// or https://",
                        );
                    }
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
    Some(Some(Source::Files(FileSource {
        location: location.to_owned(),
        folder: folder?,
        pattern: "*".into(),
        format: format?,
        gzip,
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
    flat: Option<(&Key, &Node)>,
    nested: Option<&Node>,
    base: &Base,
    world: &mut World<'_>,
    waiting: Option<&mut Vec<Waiting>>,
    place: &Span,
) -> (SchemaLookup, Validation) {
    let mut mode = Validation::Strict;
    let mut file = flat.map(|(_, node)| node);
    if let Some(mut map) = nested.and_then(|node| Fields::of(cx, node, "schema")) {
        if let Some(node) = map.get("file") {
            if let Some((key, _)) = flat {
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
            evolution(cx, node);
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
            place,
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

fn evolution(cx: &mut Cx<'_>, node: &Node) {
    let words = [
        ("backward_compatible", true),
        ("backward", true),
        ("forward_compatible", false),
        ("forward", false),
        ("full", false),
        ("none", false),
    ];
    // A table gains columns and refuses any other change, which is what backward means.
    if cx.choice(node, "evolution", &words) == Some(false) {
        cx.inactive(
            &node.span,
            "schema.evolution",
            "tables evolve backward compatibly: columns are added, never changed",
        );
    }
}

fn serving_part(cx: &mut Cx<'_>, node: Option<&Node>) {
    let Some(mut map) = node.and_then(|n| Fields::of(cx, n, "serving")) else { return };
    for name in ["third_party_api", "reporting", "ml_features"] {
        let Some((key, node)) = map.entry(name) else { continue };
        if cx.boolean(node, name) == Some(true) {
            cx.inactive(&key.span, format!("serving.{name}"), "the serving layer comes with a later release");
        }
    }
    map.finish(cx);
}

fn monitoring_part(cx: &mut Cx<'_>, node: Option<&Node>) -> Option<Duration> {
    let mut map = Fields::of(cx, node?, "monitoring")?;
    let sla = map.entry("sla_minutes");
    let email = map.entry("alert_email");
    let metrics = map.entry("metrics");
    map.finish(cx);
    let later = "alerts come with a later release";
    if let Some((key, node)) = email {
        if let Some(text) = cx.text(node, "alert_email") {
            if !text.contains('@') {
                cx.report(codes::BAD_VALUE, &node.span, format!("`{}` is not an e-mail address", cut(text)));
            }
        }
        cx.inactive(&key.span, "monitoring.alert_email", later);
    }
    if let Some((key, node)) = metrics {
        cx.texts(node, "metrics");
        cx.inactive(
            &key.span,
            "monitoring.metrics",
            "the platform's own metrics are always on; a choice of them comes later",
        );
    }
    let (key, node) = sla?;
    let minutes = cx.integer(node, "sla_minutes", 1..=527_040)?;
    cx.inactive(&key.span, "monitoring.sla_minutes", later);
    Some(Duration::from_secs(minutes * 60))
}
