//! Levada's own pipeline file: `pipeline: <name>`, a source, a schema, steps and a sink.

use std::sync::Arc;
use std::time::Duration;

use levada_core::{SourceName, TableName, TenantId, TopicName, Zone};

use crate::codes;
use crate::columns::Columns;
use crate::diagnostic::Sink;
use crate::draft::{PipelineDraft, places};
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::model::{
    Delimiter, FileFormat, FileSource, Inactive, Owner, Pipeline, Schema, Source, Validation,
};
use crate::quantity;
use crate::source::{SourceFile, Span};
use crate::steps::StepReader;
use crate::tree::{Key, Node};
use crate::world::{Base, SchemaLookup, World, folder};

pub(crate) const EPOCH: Duration = Duration::from_secs(1);
pub(crate) const EPOCH_BYTES: u64 = 64 << 20;
const DAY: Duration = Duration::from_secs(86_400);

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
    let mut cx = Cx { file, sink, dialect: Dialect::Own, inactive };
    let cx = &mut cx;
    let mut map = Fields::of(cx, tree, "a pipeline")?;
    let name_node = map.need(cx, "pipeline");
    let name: Option<SourceName> = name_node.and_then(|n| cx.name(n, "pipeline"));
    let display_name = map.get("display_name").and_then(|n| cx.text(n, "display_name")).map(str::to_owned);
    let description = map.get("description").and_then(|n| cx.text(n, "description")).map(str::to_owned);
    let tenant = map.entry("tenant");
    let shared = map.entry("shared");
    let source_node = map.need(cx, "source");
    let schema_node = map.need(cx, "schema");
    let steps_node = map.get("steps");
    let sink_node = map.get("sink");
    let times = times(cx, &mut map);
    map.finish(cx);

    let tenant = tenant.map(|(key, node)| (key.span.clone(), world.tenant(cx, node)));
    let shared = shared.map(|(key, node)| (key.span.clone(), cx.boolean(node, "shared")));
    let source = source_node.and_then(|n| source(cx, n, name.as_ref()));
    let is_events = !matches!(source, Some(Source::Files(_)));
    let owner = owner(cx, base, is_events, tenant, shared);
    let schema = schema_node.and_then(|n| schema(cx, n, base, world));
    let columns = schema.as_ref().map_or_else(Columns::open, |(s, _)| Columns::of(&s.fields));
    let mut reader = StepReader { cx, world, columns, waiting: Vec::new(), step_spans: Vec::new() };
    let steps = steps_node.map(|node| reader.read(node, "steps")).unwrap_or_default();
    let step_spans = reader.step_spans;
    let table = sink_node.and_then(|n| sink_table(cx, n));
    let name = name?;
    let sink_table = table.unwrap_or_else(|| TableName::new(Zone::Silver, name.clone()));
    let name_span = name_node?.span.clone();
    let sink_span = sink_node.map_or(name_span.clone(), |n| n.span.clone());
    // A schema that is there and broken was reported in its own file.
    let sound = cx.sink.errors() == before && schema.is_some();
    let pipeline = match (sound, source, schema) {
        (true, Some(source), Some((schema, validation))) => Some(Pipeline {
            name: name.clone(),
            owner: owner.clone(),
            display_name,
            description,
            file: file.path.clone(),
            source: with_tenant(source, &owner),
            schema: Some(schema),
            validation,
            steps,
            waiting: Vec::new(),
            sink: sink_table.clone(),
            epoch: times.epoch?,
            epoch_bytes: times.epoch_bytes?,
            retention: times.retention,
            sla: times.sla,
        }),
        _ => None,
    };
    Some(PipelineDraft {
        name,
        owner,
        file: Arc::clone(file),
        name_span,
        sink_span,
        sink: sink_table,
        type_spans: places(source_node.and_then(|n| n.get("events")?.get("event_types"))),
        step_spans,
        sound,
        pipeline,
        gold: None,
    })
}

struct Times {
    epoch: Option<Duration>,
    epoch_bytes: Option<u64>,
    retention: Option<Duration>,
    sla: Option<Duration>,
}

fn times(cx: &mut Cx<'_>, map: &mut Fields<'_>) -> Times {
    let epoch = map.get("epoch").map_or(Some(EPOCH), |n| {
        cx.duration(n, "epoch", Duration::from_millis(100)..=Duration::from_secs(3_600))
    });
    let epoch_bytes = map
        .get("epoch_bytes")
        .map_or(Some(EPOCH_BYTES), |n| cx.size(n, "epoch_bytes", (64 << 10)..=(4 << 30)));
    let retention =
        map.get("retention").and_then(|n| cx.duration(n, "retention", Duration::from_secs(60)..=3_660 * DAY));
    let sla = map.get("sla").and_then(|n| cx.duration(n, "sla", Duration::from_secs(1)..=366 * DAY));
    Times { epoch, epoch_bytes, retention, sla }
}

fn with_tenant(source: Source, owner: &Owner) -> Source {
    match (source, owner) {
        (Source::Files(files), Owner::Tenant(tenant)) => {
            Source::Files(FileSource { tenant: tenant.clone(), ..files })
        }
        (source, _) => source,
    }
}

/// Files under `tenants/<t>/` belong to t. At the root, event pipelines are shared unless
/// they say otherwise, and files belong to the tenant they name, else to `default`.
fn owner(
    cx: &mut Cx<'_>,
    base: &Base,
    is_events: bool,
    tenant: Option<(Span, Option<TenantId>)>,
    shared: Option<(Span, Option<bool>)>,
) -> Owner {
    let wants_shared = shared.as_ref().and_then(|(_, value)| *value);
    if let (Some(true), Some((span, _))) = (wants_shared, &shared) {
        let why = match (&base.tenant, is_events, &tenant) {
            (Some(t), _, _) => Some(format!("a file of tenant `{t}` cannot be shared")),
            (None, false, _) => Some("files belong to one tenant and cannot be shared".to_owned()),
            (None, true, Some(_)) => Some("`shared: true` and `tenant` exclude each other".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            cx.report(codes::OWNERSHIP, span, why);
        }
    }
    if let Some(folder_tenant) = &base.tenant {
        if let Some((span, Some(named))) = &tenant
            && named != folder_tenant
        {
            let message =
                format!("the file lies in the folder of tenant `{folder_tenant}`, not of `{named}`");
            cx.report(codes::OWNERSHIP, span, message).hint(format!("move it to tenants/{named}/"));
        }
        return Owner::Tenant(folder_tenant.clone());
    }
    match tenant {
        Some((_, named)) => Owner::Tenant(named.unwrap_or_else(TenantId::default_tenant)),
        None if is_events && wants_shared != Some(false) => Owner::Shared,
        None => Owner::Tenant(TenantId::default_tenant()),
    }
}

fn source(cx: &mut Cx<'_>, node: &Node, name: Option<&SourceName>) -> Option<Source> {
    let mut map = Fields::of(cx, node, "source")?;
    let events = map.entry("events");
    let files = map.entry("files");
    let place = map.place().clone();
    map.finish(cx);
    match (events, files) {
        (Some((_, events)), None) => events_source(cx, events, name),
        (None, Some((_, files))) => files_source(cx, files).map(Source::Files),
        (Some(_), Some((key, _))) => {
            cx.report(codes::BAD_VALUE, &key.span, "a pipeline has one source: `events` or `files`")
                .hint("write a second pipeline for the other one");
            None
        }
        (None, None) => {
            cx.report(codes::MISSING_FIELD, &place, "source needs `events` or `files`")
                .hint("write `source: {events: {event_types: [...]}}` or `source: {files: {location: ..., format: csv}}`");
            None
        }
    }
}

fn events_source(cx: &mut Cx<'_>, node: &Node, name: Option<&SourceName>) -> Option<Source> {
    let mut map = Fields::of(cx, node, "events")?;
    let topic_node = map.get("topic");
    let types = match map.get("event_types") {
        Some(n) => event_types(cx, n),
        None => Some(Vec::new()),
    };
    let place = map.place().clone();
    map.finish(cx);
    let topic = match topic_node {
        Some(n) => topic(cx, n),
        None => name.and_then(|n| cx.parse_name::<TopicName>(n.as_str(), &place)),
    };
    Some(Source::Events { topic: topic?, event_types: types? })
}

fn topic(cx: &mut Cx<'_>, node: &Node) -> Option<TopicName> {
    let topic: TopicName = cx.name(node, "topic")?;
    if topic.is_dead_letter() {
        cx.report(
            codes::BAD_NAME,
            &node.span,
            format!("`{topic}` is a dead-letter topic: `-dlq` is reserved"),
        );
        return None;
    }
    Some(topic)
}

pub(crate) fn event_types(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    let mut types = Vec::new();
    let texts = cx.texts(node, "event_types")?;
    let all = texts.len();
    for (node, text) in texts {
        let stem = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || stem.contains('*') || text.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            cx.report(codes::BAD_VALUE, &node.span, format!("`{}` is not an event type", cut(text)))
                .hint("write the exact type, or a prefix that ends in `*`, such as `github.*`");
        } else {
            types.push(text.to_owned());
        }
    }
    (types.len() == all).then_some(types)
}

fn files_source(cx: &mut Cx<'_>, node: &Node) -> Option<FileSource> {
    let mut map = Fields::of(cx, node, "files")?;
    let location_node = map.need(cx, "location");
    let pattern = map.get("pattern").map(|n| cx.text(n, "pattern").map(|t| (n, t)));
    let format = map.need(cx, "format").and_then(|n| file_format(cx, n));
    let gzip = map.get("gzip").and_then(|n| cx.boolean(n, "gzip"));
    let delimiter = delimiter(cx, map.entry("delimiter"), format);
    let settle = settle(cx, map.get("settle"), map.get("settle_end"));
    let schedule = map.get("schedule").and_then(|n| cx.cron(n, "schedule"));
    let null_values = match map.get("null_values") {
        Some(n) => nulls(cx, n),
        None => Some(Vec::new()),
    };
    map.finish(cx);
    let location = location_node.and_then(|n| cx.text(n, "location"))?;
    let folder = folder(cx, location, &location_node?.span);
    let pattern = match pattern {
        Some(Some((node, text))) => {
            if text.is_empty() || text.contains(['/', '\\']) {
                cx.report(
                    codes::BAD_VALUE,
                    &node.span,
                    "`pattern` is a file name with `*` and `?`, without folders",
                );
                return None;
            }
            text.to_owned()
        }
        Some(None) => return None,
        None => "*".to_owned(),
    };
    let (settle, settle_end) = settle?;
    Some(FileSource {
        location: location.to_owned(),
        folder: folder?,
        pattern,
        format: format?,
        gzip,
        delimiter: delimiter?,
        settle,
        settle_end,
        null_values: null_values?,
        schedule,
        tenant: TenantId::default_tenant(),
    })
}

/// Null texts may look like anything, `-` and `0` too.
fn nulls(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    let nodes = cx.list(node, "null_values")?;
    let texts: Vec<String> =
        nodes.iter().filter_map(|n| cx.loose_text(n, "null_values")).map(str::to_owned).collect();
    (texts.len() == nodes.len()).then_some(texts)
}

/// What separates the cells of a CSV file; `None` when what is written is none of them.
pub(crate) fn delimiter(
    cx: &mut Cx<'_>,
    entry: Option<(&Key, &Node)>,
    format: Option<FileFormat>,
) -> Option<Delimiter> {
    let Some((key, node)) = entry else { return Some(Delimiter::Comma) };
    let text = cx.loose_text(node, "delimiter")?;
    let read = match text {
        "," | "comma" => Delimiter::Comma,
        ";" | "semicolon" => Delimiter::Semicolon,
        "\t" | "\\t" | "tab" => Delimiter::Tab,
        "|" | "pipe" => Delimiter::Pipe,
        // Unquoted, `|` begins a block of text.
        "" => {
            cx.report(codes::BAD_VALUE, &key.span, "`delimiter` is empty")
                .hint("put it in quotes: `delimiter: '|'`");
            return None;
        }
        other => {
            let message = format!("`{}` is not a value of `delimiter`", cut(other));
            cx.report(codes::BAD_VALUE, &node.span, message).hint("allowed: ',', ';', '|' and tab");
            return None;
        }
    };
    if format == Some(FileFormat::Json) {
        cx.report(codes::BAD_VALUE, &node.span, "`delimiter` has no meaning for JSON files")
            .hint("take it out, or write `format: csv`");
        return None;
    }
    Some(read)
}

/// How long a file must rest before it is read, and before its end is.
pub(crate) fn settle(
    cx: &mut Cx<'_>,
    settle: Option<&Node>,
    settle_end: Option<&Node>,
) -> Option<(Duration, Duration)> {
    let allowed = Duration::ZERO..=DAY;
    let rest = settle.map_or(Some(FileSource::SETTLE), |n| cx.duration(n, "settle", allowed.clone()));
    let end = settle_end.map_or_else(
        || rest.map(|r| r.max(FileSource::SETTLE_END)),
        |n| cx.duration(n, "settle_end", allowed),
    );
    let (rest, end) = (rest?, end?);
    if let Some(node) = settle_end
        && end < rest
    {
        let message =
            format!("`settle_end` must not be shorter than `settle`, {}", quantity::show_duration(rest));
        cx.report(codes::BAD_VALUE, &node.span, message);
        return None;
    }
    Some((rest, end))
}

pub(crate) fn file_format(cx: &mut Cx<'_>, node: &Node) -> Option<FileFormat> {
    let words = [
        ("csv", FileFormat::Csv),
        ("json", FileFormat::Json),
        ("jsonl", FileFormat::Json),
        ("ndjson", FileFormat::Json),
    ];
    cx.choice(node, "format", &words)
}

fn schema(cx: &mut Cx<'_>, node: &Node, base: &Base, world: &mut World<'_>) -> Option<(Schema, Validation)> {
    let mut map = Fields::of(cx, node, "schema")?;
    let file_node = map.need(cx, "file");
    let validation = map.get("validation").map_or(Some(Validation::Strict), |n| validation(cx, n));
    map.finish(cx);
    let file_node = file_node?;
    let written = cx.text(file_node, "file")?;
    match world.schema(base, written, cx.sink) {
        SchemaLookup::Found(schema) => Some(((*schema).clone(), validation?)),
        SchemaLookup::Broken => None,
        SchemaLookup::Missing => {
            let hint = world.schema_hint(written);
            cx.report(
                codes::NO_SCHEMA,
                &file_node.span,
                format!("there is no schema file `{}`", cut(written)),
            )
            .hint(hint);
            None
        }
    }
}

pub(crate) fn validation(cx: &mut Cx<'_>, node: &Node) -> Option<Validation> {
    cx.choice(node, "validation", &[("strict", Validation::Strict), ("lenient", Validation::Lenient)])
}

fn sink_table(cx: &mut Cx<'_>, node: &Node) -> Option<TableName> {
    let table: TableName = cx.name(node, "sink")?;
    if table.zone == Zone::Bronze {
        cx.report(
            codes::BAD_VALUE,
            &node.span,
            "a pipeline cannot fill bronze: the originals go there by themselves",
        )
        .hint(format!("write silver.{}", table.name));
        return None;
    }
    Some(table)
}
