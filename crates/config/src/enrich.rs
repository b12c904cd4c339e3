//! The enrich step: a cached HTTP GET per row, whose URL names fields and environment
//! variables and whose token is a secret by name.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::codes;
use crate::columns::TENANT_COLUMN;
use crate::fields::{Cx, Fields, cut};
use crate::model::{Enrich, Field, FieldType};
use crate::schema;
use crate::steps::StepReader;
use crate::suggest;
use crate::tree::Node;
use crate::url::{self, Unexpanded};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn read(steps: &mut StepReader<'_, '_, '_>, body: &Node) -> Option<Enrich> {
    let cx = &mut *steps.cx;
    let mut map = Fields::of(cx, body, "enrich")?;
    let name = map.need(cx, "name").and_then(|n| cx.name(n, "name"));
    let url_node = map.need(cx, "url");
    let secret_node = map.get("bearer_secret");
    let field_list = map.need(cx, "fields");
    let ttl = duration_or(&mut map, cx, "ttl", SECOND..=31 * DAY, Duration::from_secs(3_600));
    let timeout = duration_or(&mut map, cx, "timeout", Duration::from_millis(10)..=120 * SECOND, 5 * SECOND);
    let breaker_open = duration_or(&mut map, cx, "breaker_open", SECOND..=DAY, 60 * SECOND);
    let concurrency = integer_or(&mut map, cx, "concurrency", 1..=1_024, 16);
    let attempts = integer_or(&mut map, cx, "attempts", 1..=20, 5);
    let breaker_failures = integer_or(&mut map, cx, "breaker_failures", 1..=10_000, 5);
    let optional = match map.get("optional") {
        Some(n) => cx.boolean(n, "optional"),
        None => Some(false),
    };
    map.finish(cx);

    let url = url_node.and_then(|n| read_url(steps, n));
    let bearer_secret = match secret_node {
        Some(node) => Some(read_secret(steps, node)?),
        None => None,
    };
    let fields = read_fields(steps, field_list?)?;
    Some(Enrich {
        name: name?,
        url: url?,
        bearer_secret,
        fields,
        ttl: ttl?,
        timeout: timeout?,
        concurrency: usize::try_from(concurrency?).ok()?,
        attempts: u32::try_from(attempts?).ok()?,
        breaker_failures: u32::try_from(breaker_failures?).ok()?,
        breaker_open: breaker_open?,
        optional: optional?,
    })
}

fn duration_or(
    map: &mut Fields<'_>,
    cx: &mut Cx<'_>,
    name: &'static str,
    allowed: RangeInclusive<Duration>,
    default: Duration,
) -> Option<Duration> {
    map.get(name).map_or(Some(default), |n| cx.duration(n, name, allowed))
}

fn integer_or(
    map: &mut Fields<'_>,
    cx: &mut Cx<'_>,
    name: &'static str,
    allowed: RangeInclusive<u64>,
    default: u64,
) -> Option<u64> {
    map.get(name).map_or(Some(default), |n| cx.integer(n, name, allowed))
}

fn read_url(steps: &mut StepReader<'_, '_, '_>, node: &Node) -> Option<String> {
    let written = steps.cx.text(node, "url")?;
    let url = match url::expand(written, steps.world.environment) {
        Ok(url) => url,
        Err(problems) => {
            for problem in problems {
                report_unexpanded(steps, node, problem);
            }
            return None;
        }
    };
    let names: Vec<String> = match url::placeholders(&url) {
        Ok(names) => names.into_iter().map(str::to_owned).collect(),
        Err(why) => {
            steps.cx.report(codes::BAD_URL, &node.span, format!("the URL cannot be used: {why}"));
            return None;
        }
    };
    let mut out = url.clone();
    for name in names {
        let span = steps.cx.file.find_within(&node.span, &format!("{{{name}}}"));
        let (column, kind) = steps.column(&name, &span, "enrich")?;
        if kind == Some(FieldType::Json) {
            steps.cx.report(
                codes::BAD_URL,
                &span,
                format!("`{name}` is a JSON value, which no URL can hold"),
            );
            return None;
        }
        out = out.replace(&format!("{{{name}}}"), &format!("{{{column}}}"));
    }
    Some(out)
}

fn report_unexpanded(steps: &mut StepReader<'_, '_, '_>, node: &Node, problem: Unexpanded) {
    let (part, code, message, hint) = match problem {
        Unexpanded::Missing { part, name } => (
            part,
            codes::NO_ENVIRONMENT,
            format!("the environment variable `{name}` is not set"),
            format!("set it, or give a default: ${{{name}:-http://localhost:8090}}"),
        ),
        Unexpanded::Malformed { part } => {
            let message = format!("`{}` is not a variable", cut(&part));
            (part, codes::BAD_URL, message, "write ${NAME} or ${NAME:-default}".to_owned())
        }
        Unexpanded::Secret { part } => (
            part,
            codes::BAD_URL,
            "a secret may not stand in a URL, which is shown in logs".to_owned(),
            "send it as a token: bearer_secret: <name>".to_owned(),
        ),
    };
    let span = steps.cx.file.find_within(&node.span, &part);
    steps.cx.report(code, &span, message).hint(hint);
}

fn read_secret(steps: &mut StepReader<'_, '_, '_>, node: &Node) -> Option<String> {
    let name = steps.cx.text(node, "bearer_secret")?;
    if !steps.world.secrets.contains(name) {
        let known: Vec<&str> = steps.world.secrets.names().collect();
        let hint = match suggest::nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "put it into secrets.yaml (mode 0600) or set LEVADA_SECRET_<NAME>".to_owned(),
        };
        let message = format!("there is no secret `{}`", cut(name));
        steps.cx.report(codes::UNKNOWN_SECRET, &node.span, message).hint(hint);
        return None;
    }
    Some(name.to_owned())
}

fn read_fields(steps: &mut StepReader<'_, '_, '_>, list: &Node) -> Option<Vec<Field>> {
    let nodes = steps.cx.list(list, "fields")?;
    let fields = schema::field_nodes(steps.cx, nodes);
    if nodes.is_empty() {
        steps.cx.report(codes::BAD_VALUE, &list.span, "`fields` needs at least one field");
    }
    if nodes.is_empty() || fields.len() < nodes.len() {
        return None;
    }
    for (field, node) in fields.iter().zip(nodes) {
        if steps.columns.has(field.name.as_str()) || field.name.as_str() == TENANT_COLUMN {
            let span = node.get("name").map_or(&node.span, |n| &n.span);
            let message = format!("the rows have a column `{}` already", field.name);
            steps
                .cx
                .report(codes::COLUMN, span, message)
                .hint("rename it; its place in the answer goes into `path`");
            return None;
        }
        steps.columns.push(field);
    }
    Some(fields)
}
