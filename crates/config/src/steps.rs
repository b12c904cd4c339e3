//! The steps of a pipeline: deduplicate, quality, enrich, sql. Both dialects use them;
//! where Levada's own files have an error, the connector dialect lets the step wait.

use std::time::Duration;

use levada_core::SourceName;

use crate::codes::{self, Code};
use crate::columns::{Columns, Lookup};
use crate::enrich;
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::model::{Check, Deduplicate, FieldType, Rule, Step, Waiting};
use crate::source::Span;
use crate::sql::Query;
use crate::suggest;
use crate::tree::{Key, Node, Value};
use crate::world::World;

const DAY: Duration = Duration::from_secs(86_400);
const STEPS: [&str; 4] = ["deduplicate", "quality", "enrich", "sql"];
const CONNECTOR_STEPS: [&str; 6] =
    ["deduplication", "data_quality", "deduplicate", "quality", "enrich", "sql"];
const CHECKS: [&str; 8] =
    ["not_null", "range", "regex", "one_of", "valid_email", "positive", "unique", "not_in_future"];

/// Reads a list of steps, keeping track of the columns between them.
pub(crate) struct StepReader<'a, 'c, 'w> {
    pub cx: &'a mut Cx<'c>,
    pub world: &'a World<'w>,
    pub columns: Columns,
    pub waiting: Vec<Waiting>,
    /// Places of the steps that were read; of a SQL step, of its query.
    pub step_spans: Vec<Span>,
}

impl StepReader<'_, '_, '_> {
    pub fn read(&mut self, node: &Node, what: &str) -> Vec<Step> {
        let Some(items) = self.cx.list(node, what) else { return Vec::new() };
        let mut steps = Vec::with_capacity(items.len());
        for item in items {
            let Some(step) = self.step(item) else { continue };
            self.step_spans.push(match &step {
                Step::Sql { .. } => query_of(item).map_or(item.span.clone(), |node| node.span.clone()),
                _ => item.span.clone(),
            });
            steps.push(step);
        }
        steps
    }

    fn step(&mut self, item: &Node) -> Option<Step> {
        let entries = self.cx.map(item, "a step")?;
        let [(key, body)] = entries else {
            let span = entries.get(1).map_or(item.span.clone(), |(k, _)| k.span.clone());
            self.cx
                .report(codes::UNKNOWN_STEP, &span, "a list item holds one step")
                .hint("begin each step with `- `");
            return None;
        };
        let own = self.cx.dialect == Dialect::Own;
        match key.text.as_str() {
            "deduplicate" => self.deduplicate(key, body),
            "deduplication" if !own => self.deduplicate(key, body),
            "quality" => self.quality(key, body),
            "data_quality" if !own => self.quality(key, body),
            "enrich" => enrich::read(self, body).map(Step::Enrich),
            "sql" => self.sql(body),
            other => {
                let known: &[&str] = if own { &STEPS } else { &CONNECTOR_STEPS };
                let hint = suggest::hint(other, known.iter().copied(), "steps");
                self.complain(
                    (codes::UNKNOWN_STEP, codes::WAITING_STEP),
                    &key.span,
                    other,
                    format!("there is no step `{}`", cut(other)),
                    hint,
                );
                None
            }
        }
    }

    /// An error in Levada's own files; in a connector, a warning and a waiting step.
    pub fn complain(
        &mut self,
        code: (&'static Code, &'static Code),
        span: &Span,
        step: &str,
        message: String,
        hint: String,
    ) {
        let code = match self.cx.dialect {
            Dialect::Own => code.0,
            Dialect::Connector => {
                self.waiting.push(Waiting {
                    code: code.1.id.into(),
                    step: step.into(),
                    reason: message.clone(),
                });
                code.1
            }
        };
        self.cx.report(code, span, message).hint(hint);
    }

    /// The column that a name means, with its type where that is known.
    pub fn column(&mut self, name: &str, span: &Span, step: &str) -> Option<(SourceName, Option<FieldType>)> {
        match self.columns.find(name) {
            Lookup::Column(column) => Some((column.name.clone(), Some(column.kind))),
            Lookup::Unsure => self.cx.parse_name(name, span).map(|n| (n, None)),
            Lookup::Missing => {
                let hint = self.columns.hint(name);
                let message = format!("there is no field `{}`", cut(name));
                self.complain((codes::UNKNOWN_COLUMN, codes::WAITING_FIELD), span, step, message, hint);
                None
            }
        }
    }

    fn deduplicate(&mut self, key: &Key, body: &Node) -> Option<Step> {
        let mut fields = Fields::of(self.cx, body, "deduplicate")?;
        let key_node = fields.need(self.cx, "key");
        let names = key_node.and_then(|n| self.cx.texts(n, "key"));
        let window = match fields.get("window") {
            Some(n) => self.cx.duration(n, "window", Duration::from_secs(1)..=366 * DAY),
            None => Some(DAY),
        };
        let max_keys = match fields.get("max_keys") {
            Some(n) => self.cx.integer(n, "max_keys", 1..=100_000_000),
            None => Some(1_000_000),
        };
        fields.finish(self.cx);
        let names = names?;
        if names.is_empty() {
            self.cx.report(codes::BAD_VALUE, &key_node?.span, "`key` needs at least one field");
            return None;
        }
        let columns: Vec<SourceName> = names
            .iter()
            .filter_map(|(n, text)| self.column(text, &n.span, &key.text))
            .map(|(name, _)| name)
            .collect();
        // A key with a part missing would drop rows that differ in that part.
        let (window, max_keys) = (window?, max_keys?);
        (columns.len() == names.len()).then_some(Step::Deduplicate(Deduplicate {
            key: columns,
            window,
            max_keys,
        }))
    }

    fn quality(&mut self, key: &Key, body: &Node) -> Option<Step> {
        let mut fields = Fields::of(self.cx, body, "quality")?;
        let list = fields.need(self.cx, "rules");
        fields.finish(self.cx);
        let nodes = self.cx.list(list?, "rules")?;
        if nodes.is_empty() {
            self.cx.report(codes::BAD_VALUE, &list?.span, "`rules` needs at least one rule");
        }
        let rules: Vec<Rule> = nodes.iter().filter_map(|n| self.rule(n, &key.text)).collect();
        (!rules.is_empty()).then_some(Step::Quality { rules })
    }

    fn rule(&mut self, node: &Node, step: &str) -> Option<Rule> {
        let mut fields = Fields::of(self.cx, node, "a rule")?;
        let field_node = fields.need(self.cx, "field");
        let check_node = fields.need(self.cx, "check");
        let field = field_node.and_then(|n| self.cx.text(n, "field"));
        let check = check_node.and_then(|n| self.cx.text(n, "check"));
        let step = format!("{step}: {} {}", field.unwrap_or("?"), check.unwrap_or("?"));
        let read = match (check_node, check) {
            (Some(n), Some(check)) => self.check(&mut fields, check, n, &step),
            _ => None,
        };
        // What an unknown check would take is not known either.
        if check.is_none_or(|c| CHECKS.contains(&c) || c == "positive_number") {
            fields.finish(self.cx);
        }
        let (name, kind) = self.column(field?, &field_node?.span, &step)?;
        let check = read?;
        if let Some(why) = kind.and_then(|kind| misfit(&check, kind)) {
            let message = format!("`{}` does not fit `{name}`: {why}", cut(check_node.map_or("", text_of)));
            self.complain(
                (codes::RULE_TYPE, codes::WAITING_FIELD),
                &check_node?.span,
                &step,
                message,
                "change the rule, or the type in the schema".into(),
            );
            return None;
        }
        Some(Rule { field: name, check })
    }

    fn check(&mut self, fields: &mut Fields<'_>, word: &str, node: &Node, step: &str) -> Option<Check> {
        let cx = &mut *self.cx;
        match word {
            "not_null" => Some(Check::NotNull),
            "valid_email" => Some(Check::ValidEmail),
            "positive" => Some(Check::Positive),
            "positive_number" if cx.dialect == Dialect::Connector => Some(Check::Positive),
            "unique" => Some(Check::Unique),
            "range" => {
                let nodes = (fields.get("min"), fields.get("max"));
                let min = nodes.0.map(|n| cx.number(n, "min"));
                let max = nodes.1.map(|n| cx.number(n, "max"));
                let (min, max) =
                    (min.map_or(Some(None), |n| n.map(Some))?, max.map_or(Some(None), |n| n.map(Some))?);
                let empty = min.is_none() && max.is_none();
                if empty || matches!((min, max), (Some(a), Some(b)) if a > b) {
                    let message = if empty { "`range` needs `min` or `max`" } else { "`min` is above `max`" };
                    cx.report(codes::BAD_VALUE, &node.span, message);
                    return None;
                }
                let written = |node: Option<&Node>| node.map(|n| text_of(n).to_owned());
                Some(Check::Range { min: written(nodes.0), max: written(nodes.1) })
            }
            "regex" => {
                let pattern = fields.need(cx, "pattern")?;
                let text = cx.text(pattern, "pattern")?;
                if let Err(error) = regex::RegexBuilder::new(text).size_limit(1 << 20).build() {
                    let all = error.to_string();
                    let why = all.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    cx.report(
                        codes::BAD_REGEX,
                        &pattern.span,
                        format!("the regular expression does not compile: {why}"),
                    );
                    return None;
                }
                Some(Check::Regex { pattern: text.to_owned() })
            }
            "one_of" => {
                let values = fields.need(cx, "values")?;
                let nodes = cx.list(values, "values")?;
                let read: Vec<String> =
                    nodes.iter().filter_map(|n| cx.loose_text(n, "values")).map(str::to_owned).collect();
                if nodes.is_empty() {
                    cx.report(codes::BAD_VALUE, &values.span, "`values` needs at least one value");
                }
                (!nodes.is_empty() && read.len() == nodes.len()).then_some(Check::OneOf { values: read })
            }
            "not_in_future" => {
                let allowance = match fields.get("allowance") {
                    Some(n) => cx.duration(n, "allowance", Duration::ZERO..=DAY)?,
                    None => Duration::from_secs(300),
                };
                Some(Check::NotInFuture { allowance })
            }
            other => {
                let hint = suggest::hint(other, CHECKS, "checks");
                let message = format!("there is no check `{}`", cut(other));
                self.complain((codes::BAD_VALUE, codes::WAITING_STEP), &node.span, step, message, hint);
                None
            }
        }
    }

    fn sql(&mut self, body: &Node) -> Option<Step> {
        let (text, node) = match &body.value {
            Value::Map(_) => {
                let mut fields = Fields::of(self.cx, body, "sql")?;
                let node = fields.need(self.cx, "query");
                fields.finish(self.cx);
                (self.cx.text(node?, "query")?, node?)
            }
            _ => (self.cx.text(body, "sql")?, body),
        };
        let query = match Query::parse(text) {
            Ok(query) => query,
            Err(error) => {
                let part = text.get(error.span).unwrap_or_default();
                let span = self.within(node, part);
                self.cx.report(codes::SQL_STEP, &span, format!("not one SELECT: {}", error.why));
                return None;
            }
        };
        let references = query.references();
        let mut right = true;
        for reference in references.iter().filter(|r| r.parts != ["input"]) {
            let span = self.within(node, text.get(reference.span.clone()).unwrap_or_default());
            let message = format!("a SQL step cannot read `{}`", cut(&reference.parts.join(".")));
            self.cx
                .report(codes::SQL_STEP, &span, message)
                .hint("a step reads `input`, the rows that flow through it; to join tables write a model");
            right = false;
        }
        if right && references.is_empty() {
            self.cx
                .report(codes::SQL_STEP, &self.within(node, ""), "the SQL step does not read `input`")
                .hint("write `select ... from input`");
            right = false;
        }
        // What the query makes is the engine's to say, so later names cannot be checked here.
        self.columns.open = true;
        right.then(|| Step::Sql { query: text.trim().to_owned() })
    }

    fn within(&self, node: &Node, part: &str) -> Span {
        if part.is_empty() { node.span.clone() } else { self.cx.file.find_within(&node.span, part) }
    }
}

/// The node that holds the query of a SQL step: `sql: <query>` or `sql: { query: <query> }`.
fn query_of(item: &Node) -> Option<&Node> {
    let body = item.get("sql")?;
    Some(body.get("query").unwrap_or(body))
}

fn text_of(node: &Node) -> &str {
    match &node.value {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

/// Why a check cannot work on a type.
fn misfit(check: &Check, kind: FieldType) -> Option<&'static str> {
    use FieldType::{Bool, Date, Decimal, Float64, Int64, Json, String, Timestamp};
    match check {
        Check::Range { .. } | Check::Positive => (!matches!(kind, Int64 | Float64 | Decimal { .. }))
            .then_some("it needs INT64, DECIMAL or FLOAT64"),
        Check::Regex { .. } | Check::ValidEmail => (kind != String).then_some("it needs STRING"),
        Check::NotInFuture { .. } => {
            (!matches!(kind, Timestamp | Date)).then_some("it needs TIMESTAMP or DATE")
        }
        Check::OneOf { .. } => (!matches!(kind, String | Int64 | Decimal { .. } | Bool))
            .then_some("it needs STRING, INT64, DECIMAL or BOOL"),
        Check::Unique => matches!(kind, Json).then_some("a JSON value cannot be a key"),
        Check::NotNull => None,
    }
}
