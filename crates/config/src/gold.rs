//! `silver_to_gold` of a connector: joins and an aggregate, turned into a model's SQL
//! once it is known which tables exist.

use std::sync::LazyLock;

use levada_core::{SourceName, TableName, Zone};
use regex::Regex;

use crate::codes::{self, Code};
use crate::columns::{Columns, Lookup, TENANT_COLUMN};
use crate::draft::{Aggregate, GoldDraft, Join, Metric};
use crate::fields::{Fields, cut};
use crate::model::{FieldType, Owner};
use crate::source::Span;
use crate::steps::StepReader;
use crate::suggest;
use crate::tree::Node;

static METRIC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*(sum|avg|min|max|count)\s*\(\s*(distinct\s+)?(\*|[a-z_][a-z0-9_]*)\s*\)\s+as\s+([a-z_][a-z0-9_]*)\s*$")
        .expect("the pattern is fixed")
});

/// Reads the list of joins and the aggregate. `None`: nothing of it can be used.
pub(crate) fn read(steps: &mut StepReader<'_, '_, '_>, node: &Node, about: &str) -> Option<GoldDraft> {
    let mut gold = GoldDraft {
        joins: Vec::new(),
        aggregate: None,
        columns: steps.columns.clone(),
        span: node.span.clone(),
        description: format!("Generated from silver_to_gold of {about}"),
        waiting: None,
    };
    for item in steps.cx.list(node, "silver_to_gold")? {
        let Some(entries) = steps.cx.map(item, "a step") else { continue };
        let [(key, body)] = entries else {
            let span = entries.get(1).map_or(item.span.clone(), |(k, _)| k.span.clone());
            steps.cx.report(codes::UNKNOWN_STEP, &span, "a list item holds one step");
            continue;
        };
        match key.text.as_str() {
            "join" => gold.joins.extend(join(steps, body)),
            "aggregate" if gold.aggregate.is_some() => {
                wait(
                    steps,
                    &mut gold,
                    codes::WAITING_AGGREGATE,
                    &key.span,
                    "a second aggregate".into(),
                    "write one".into(),
                );
            }
            "aggregate" => gold.aggregate = aggregate(steps, &mut gold, body),
            other => {
                let hint = suggest::hint(other, ["join", "aggregate"], "steps");
                let message = format!("there is no step `{}`", cut(other));
                wait(steps, &mut gold, codes::WAITING_STEP, &key.span, message, hint);
            }
        }
    }
    (!gold.joins.is_empty() || gold.aggregate.is_some() || gold.waiting.is_some()).then_some(gold)
}

/// The whole model waits: without this part it would be another table.
fn wait(
    steps: &mut StepReader<'_, '_, '_>,
    gold: &mut GoldDraft,
    code: &'static Code,
    span: &Span,
    message: String,
    hint: String,
) {
    gold.waiting.get_or_insert_with(|| message.clone());
    steps.complain((code, code), span, "silver_to_gold", message, hint);
}

fn join(steps: &mut StepReader<'_, '_, '_>, body: &Node) -> Option<Join> {
    let cx = &mut *steps.cx;
    let mut map = Fields::of(cx, body, "join")?;
    let table_node = map.need(cx, "table");
    let on_node = map.need(cx, "on");
    map.finish(cx);
    let table = table_node.and_then(|n| cx.name::<TableName>(n, "table"));
    let names = cx.texts(on_node?, "on")?;
    if names.is_empty() {
        cx.report(codes::BAD_VALUE, &on_node?.span, "`on` needs at least one field");
    }
    let on: Vec<SourceName> = names
        .iter()
        .filter_map(|(n, text)| steps.column(text, &n.span, "join"))
        .map(|(name, _)| name)
        .collect();
    let complete = !on.is_empty() && on.len() == names.len();
    complete.then_some(Join { table: table?, on, span: table_node?.span.clone() })
}

fn aggregate(steps: &mut StepReader<'_, '_, '_>, gold: &mut GoldDraft, body: &Node) -> Option<Aggregate> {
    let mut map = Fields::of(steps.cx, body, "aggregate")?;
    let group_node = map.need(steps.cx, "group_by");
    let metric_nodes = map.need(steps.cx, "metrics");
    map.finish(steps.cx);
    let mut out = Aggregate::default();
    for (node, text) in steps.cx.texts(group_node?, "group_by")? {
        out.group_by.push((text.to_owned(), node.span.clone()));
    }
    for (node, text) in steps.cx.texts(metric_nodes?, "metrics")? {
        match metric(text, &node.span) {
            Some(metric) => out.metrics.push(metric),
            None => {
                let hint = "write `sum(field) as name`; sum, avg, min, max, count, count(*) and count(distinct field)";
                let message = format!("`{}` is not a metric", cut(text));
                wait(steps, gold, codes::WAITING_AGGREGATE, &node.span, message, hint.into());
            }
        }
    }
    if out.group_by.is_empty() && out.metrics.is_empty() {
        let span = body.span.clone();
        wait(
            steps,
            gold,
            codes::WAITING_AGGREGATE,
            &span,
            "an aggregate of nothing".into(),
            "add metrics".into(),
        );
    }
    Some(out)
}

fn metric(text: &str, span: &Span) -> Option<Metric> {
    let parts = METRIC.captures(text)?;
    let function = parts[1].to_ascii_lowercase();
    let argument = (&parts[3] != "*").then(|| parts[3].to_owned());
    let distinct = parts.get(2).is_some();
    if argument.is_none() && (function != "count" || distinct) {
        return None;
    }
    let alias = SourceName::new(&parts[4].to_ascii_lowercase()).ok()?;
    Some(Metric { function, distinct, argument, alias, span: span.clone() })
}

/// Why the SQL cannot be written, where and how to mend it.
pub(crate) struct Unclear {
    pub span: Span,
    pub message: String,
    pub hint: String,
}

/// The model's SQL over `silver`, with only those joins whose table is there.
///
/// # Errors
/// When a name of the aggregate cannot be resolved.
pub(crate) fn sql(
    gold: &GoldDraft,
    silver: &TableName,
    owner: &Owner,
    joins: &[&Join],
) -> Result<String, Unclear> {
    let shared = *owner == Owner::Shared;
    let mut from = format!("from {silver} as s");
    for (at, join) in joins.iter().enumerate() {
        let mut using: Vec<String> = join.on.iter().map(|name| quote(name.as_str())).collect();
        if shared {
            using.insert(0, TENANT_COLUMN.to_owned());
        }
        from.push_str(&format!("\njoin {} as j{} using ({})", join.table, at + 1, using.join(", ")));
    }
    let Some(aggregate) = &gold.aggregate else { return Ok(format!("select *\n{from}")) };
    let mut keys: Vec<String> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    if shared {
        keys.push(format!("s.{TENANT_COLUMN}"));
        columns.push(format!("s.{TENANT_COLUMN}"));
    }
    for (name, span) in &aggregate.group_by {
        let expression = key_expression(gold, name, span, joins)?;
        let alias = match gold.columns.find(name) {
            Lookup::Column(column) => column.name.to_string(),
            _ => name.clone(),
        };
        columns.push(format!("{expression} as {}", quote(&alias)));
        keys.push(expression);
    }
    for metric in &aggregate.metrics {
        columns.push(metric_expression(gold, metric, joins)?);
    }
    let grouped = if keys.is_empty() { String::new() } else { format!("\ngroup by {}", keys.join(", ")) };
    Ok(format!("select {}\n{from}{grouped}", columns.join(", ")))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `date` means the date of the schema's only TIMESTAMP column, unless there is a field `date`.
fn key_expression(gold: &GoldDraft, name: &str, span: &Span, joins: &[&Join]) -> Result<String, Unclear> {
    if name != "date" || !matches!(gold.columns.find(name), Lookup::Missing) {
        return column(&gold.columns, name, span, joins);
    }
    let times: Vec<&SourceName> =
        gold.columns.iter().filter(|c| c.kind == FieldType::Timestamp).map(|c| &c.name).collect();
    match times.as_slice() {
        [only] => Ok(format!("cast(s.{} as date)", quote(only.as_str()))),
        [] => {
            Err(unclear(span, "`date` means the date of a TIMESTAMP column, and the schema has none".into()))
        }
        _ => {
            let names: Vec<&str> = times.iter().map(|n| n.as_str()).collect();
            Err(unclear(span, format!("`date` could be the date of {}", names.join(" or "))))
        }
    }
}

fn unclear(span: &Span, message: String) -> Unclear {
    Unclear {
        span: span.clone(),
        message,
        hint: "name the field, or write the model as models/<name>.sql".into(),
    }
}

fn column(columns: &Columns, name: &str, span: &Span, joins: &[&Join]) -> Result<String, Unclear> {
    match (columns.find(name), joins) {
        (Lookup::Column(column), _) => Ok(format!("s.{}", quote(column.name.as_str()))),
        (Lookup::Unsure, []) => Ok(format!("s.{}", quote(name))),
        (Lookup::Unsure, _) => Ok(quote(name)),
        (Lookup::Missing, [_]) => Ok(format!("j1.{}", quote(name))),
        (Lookup::Missing, _) => Err(Unclear {
            span: span.clone(),
            message: format!("there is no field `{}`", cut(name)),
            hint: columns.hint(name),
        }),
    }
}

fn metric_expression(gold: &GoldDraft, metric: &Metric, joins: &[&Join]) -> Result<String, Unclear> {
    let argument = match &metric.argument {
        None => "*".to_owned(),
        Some(name) => {
            if let Lookup::Column(found) = gold.columns.find(name) {
                let number =
                    matches!(found.kind, FieldType::Int64 | FieldType::Float64 | FieldType::Decimal { .. });
                if matches!(metric.function.as_str(), "sum" | "avg") && !number {
                    return Err(unclear(
                        &metric.span,
                        format!("`{}` of `{name}`, which is no number", metric.function),
                    ));
                }
            }
            column(&gold.columns, name, &metric.span, joins)?
        }
    };
    let distinct = if metric.distinct { "distinct " } else { "" };
    Ok(format!("{}({distinct}{argument}) as {}", metric.function, quote(metric.alias.as_str())))
}

/// The table that a connector's aggregate fills.
pub(crate) fn table(name: &SourceName) -> TableName {
    TableName::new(Zone::Gold, name.clone())
}
