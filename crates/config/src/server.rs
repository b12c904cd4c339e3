//! `levada.yaml`: the name, addresses, limits, tenants and buckets of a project.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use levada_core::{EgressRule, ProjectId, Quota, TenantId};

use crate::codes;
use crate::diagnostic::Sink;
use crate::fields::{Cx, Dialect, Fields, cut};
use crate::model::{Inactive, Limits, Namespace, QueryLimitsConfig, ServerConfig, TenantConfig};
use crate::source::SourceFile;
use crate::suggest;
use crate::tree::{self, Node, Value};

pub(crate) const FILE: &str = "levada.yaml";
const MIB: u64 = 1 << 20;

/// What `levada.yaml` says; its defaults where it is silent or wrong.
pub(crate) struct Settings {
    pub name: String,
    pub server: ServerConfig,
    pub tenants: Vec<TenantConfig>,
    pub buckets: BTreeMap<String, PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let default_tenant = TenantConfig {
            id: TenantId::default_tenant(),
            display_name: None,
            limits: None,
            quotas: Vec::new(),
        };
        Self {
            name: String::new(),
            server: ServerConfig {
                http: "127.0.0.1:8080".into(),
                postgres: Some("127.0.0.1:5433".into()),
                data_dir: None,
                max_body_bytes: 10 * MIB,
                limits: Limits { events_per_s: None, burst_events: None },
                query: QueryLimitsConfig {
                    memory_bytes: 256 * MIB,
                    timeout: Duration::from_secs(30),
                    max_rows: 100_000,
                },
                namespaces: Vec::new(),
                memory_bytes: None,
                quotas: Vec::new(),
                egress: Vec::new(),
            },
            tenants: vec![default_tenant],
            buckets: BTreeMap::new(),
        }
    }
}

/// Reads `levada.yaml`.
pub(crate) fn read(file: &SourceFile, sink: &mut Sink, inactive: &mut Vec<Inactive>) -> Settings {
    let mut settings = Settings::default();
    let Some(tree) = tree::parse(file, sink) else { return settings };
    let mut cx = Cx { file, sink, dialect: Dialect::Own, inactive };
    let cx = &mut cx;
    let Some(mut map) = Fields::of(cx, &tree, "levada.yaml") else { return settings };
    if let Some(name) = map.need(cx, "name").and_then(|n| cx.text(n, "name")) {
        settings.name = name.to_owned();
    }
    if let Some(mut listen) = map.get("listen").and_then(|n| Fields::of(cx, n, "listen")) {
        if let Some(address) = listen.get("http").and_then(|n| address(cx, n, "http")) {
            settings.server.http = address;
        }
        if let Some(node) = listen.get("postgres") {
            let off = matches!(&node.value, Value::Scalar { text, .. } if text == "off" || text == "false");
            settings.server.postgres = if off { None } else { address(cx, node, "postgres") };
        }
        listen.finish(cx);
    }
    settings.server.data_dir = map.get("data_dir").and_then(|n| cx.text(n, "data_dir")).map(PathBuf::from);
    if let Some(size) = map.get("max_body").and_then(|n| cx.size(n, "max_body", 1_024..=(1 << 30))) {
        settings.server.max_body_bytes = size;
    }
    if let Some(node) = map.get("limits") {
        settings.server.limits = limits(cx, node);
    }
    settings.server.memory_bytes =
        map.get("memory").and_then(|n| cx.size(n, "memory", (256 * MIB)..=(1 << 42)));
    if let Some(node) = map.get("quotas") {
        settings.server.quotas = quotas(cx, node);
    }
    if let Some(node) = map.get("egress") {
        settings.server.egress = egress(cx, node);
    }
    if let Some(node) = map.get("query") {
        query(cx, node, &mut settings.server.query);
    }
    if let Some(node) = map.get("storage") {
        settings.buckets = storage(cx, node);
    }
    if let Some(node) = map.get("tenants") {
        tenants(cx, node, &mut settings.tenants);
    }
    if let Some(node) = map.get("pubsub") {
        settings.server.namespaces = pubsub(cx, node, &settings.tenants);
    }
    map.finish(cx);
    settings
}

/// `host:port`; the port may be 0, which takes a free one.
fn address(cx: &mut Cx<'_>, node: &Node, what: &str) -> Option<String> {
    let text = cx.text(node, what)?;
    let port = text
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    // A literal address is checked whole; a host name is left to the start.
    let literal =
        text.starts_with('[') || text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':'));
    if port.is_none() || literal && text.parse::<SocketAddr>().is_err() {
        cx.report(codes::BAD_VALUE, &node.span, format!("`{}` is not an address", cut(text)))
            .hint("write host:port, such as 127.0.0.1:8080 or 0.0.0.0:8080");
        return None;
    }
    Some(text.to_owned())
}

fn limits(cx: &mut Cx<'_>, node: &Node) -> Limits {
    let mut out = Limits { events_per_s: None, burst_events: None };
    let Some(mut map) = Fields::of(cx, node, "limits") else { return out };
    let rate = map.entry("events_per_s");
    let burst = map.entry("burst");
    map.finish(cx);
    for (entry, slot) in [(rate, &mut out.events_per_s), (burst, &mut out.burst_events)] {
        let Some((key, node)) = entry else { continue };
        match cx.number(node, &key.text) {
            Some(n) if n > 0.0 => *slot = Some(n),
            Some(_) => {
                cx.report(codes::BAD_VALUE, &node.span, format!("`{}` must be above 0", key.text))
                    .hint("leave it out for no limit");
            }
            None => {}
        }
    }
    if let (None, Some(_), Some((key, _))) = (out.events_per_s, out.burst_events, burst) {
        cx.report(codes::MISSING_FIELD, &key.span, "`burst` needs `events_per_s` beside it");
    }
    out
}

/// Quotas by name, each a whole number from 1.
fn quotas(cx: &mut Cx<'_>, node: &Node) -> Vec<(Quota, u64)> {
    let mut out = Vec::new();
    let Some(mut map) = Fields::of(cx, node, "quotas") else { return out };
    for quota in Quota::ALL {
        let limit = map.get(quota.name()).and_then(|n| cx.integer(n, quota.name(), 1..=1_000_000_000));
        out.extend(limit.map(|limit| (quota, limit)));
    }
    map.finish(cx);
    out
}

/// Where outbound calls may go beside public addresses: hosts, addresses or networks, each with a
/// port where only that one is meant.
fn egress(cx: &mut Cx<'_>, node: &Node) -> Vec<EgressRule> {
    let mut out = Vec::new();
    for item in cx.list(node, "egress").unwrap_or_default() {
        let Some(text) = cx.text(item, "egress") else { continue };
        match text.parse::<EgressRule>() {
            Ok(rule) => out.push(rule),
            Err(error) => {
                cx.report(codes::BAD_VALUE, &item.span, error.to_string()).hint(
                    "write a host, an address or a network, with a port where only that one is meant: \
                     `hooks.internal`, `10.0.0.7:8443`, `10.1.0.0/16`",
                );
            }
        }
    }
    out
}

fn query(cx: &mut Cx<'_>, node: &Node, out: &mut QueryLimitsConfig) {
    let Some(mut map) = Fields::of(cx, node, "query") else { return };
    if let Some(size) = map.get("memory").and_then(|n| cx.size(n, "memory", (16 * MIB)..=(1 << 40))) {
        out.memory_bytes = size;
    }
    let longest = Duration::from_secs(86_400);
    if let Some(time) =
        map.get("timeout").and_then(|n| cx.duration(n, "timeout", Duration::from_millis(100)..=longest))
    {
        out.timeout = time;
    }
    if let Some(rows) = map.get("max_rows").and_then(|n| cx.integer(n, "max_rows", 1..=1_000_000_000)) {
        out.max_rows = rows;
    }
    map.finish(cx);
}

fn storage(cx: &mut Cx<'_>, node: &Node) -> BTreeMap<String, PathBuf> {
    let mut out = BTreeMap::new();
    let Some(mut map) = Fields::of(cx, node, "storage") else { return out };
    if let Some(entries) = map.get("buckets").and_then(|n| cx.map(n, "buckets")) {
        for (key, node) in entries {
            let Some(text) = cx.text(node, &key.text) else { continue };
            if text.is_empty() || text.contains("://") || text.split(['/', '\\']).any(|s| s == "..") {
                cx.report(codes::BAD_LOCATION, &node.span, format!("`{}` is not a folder", cut(text)))
                    .hint("name an absolute folder, or one under the data directory's `buckets/`");
                continue;
            }
            out.insert(key.text.clone(), PathBuf::from(text));
        }
    }
    map.finish(cx);
    out
}

fn tenants(cx: &mut Cx<'_>, node: &Node, out: &mut Vec<TenantConfig>) {
    let Some(items) = cx.list(node, "tenants") else { return };
    let mut declared: HashSet<TenantId> = HashSet::new();
    let preset = out.len();
    for item in items {
        let (id_node, tenant) = match &item.value {
            Value::Map(_) => {
                let Some(mut map) = Fields::of(cx, item, "a tenant") else { continue };
                let id_node = map.need(cx, "id");
                let display_name =
                    map.get("display_name").and_then(|n| cx.text(n, "display_name")).map(str::to_owned);
                let limits = map.get("limits").map(|n| limits(cx, n));
                let quotas = map.get("quotas").map(|n| quotas(cx, n)).unwrap_or_default();
                map.finish(cx);
                let Some(id) = id_node.and_then(|n| cx.name(n, "id")) else { continue };
                (id_node.unwrap_or(item), TenantConfig { id, display_name, limits, quotas })
            }
            _ => {
                let Some(id) = cx.name(item, "tenants") else { continue };
                (item, TenantConfig { id, display_name: None, limits: None, quotas: Vec::new() })
            }
        };
        if !declared.insert(tenant.id.clone()) {
            cx.report(
                codes::DUPLICATE_TENANT,
                &id_node.span,
                format!("tenant `{}` is declared twice", tenant.id),
            );
            continue;
        }
        // `default` is there already and may be given limits here.
        match out[..preset].iter_mut().find(|t| t.id == tenant.id) {
            Some(known) => *known = tenant,
            None => out.push(tenant),
        }
    }
}

/// `pubsub.projects`: names, or maps of a name and the tenant that owns it.
fn pubsub(cx: &mut Cx<'_>, node: &Node, tenants: &[TenantConfig]) -> Vec<Namespace> {
    let mut out: Vec<Namespace> = Vec::new();
    let mut seen = HashSet::new();
    let Some(mut map) = Fields::of(cx, node, "pubsub") else { return out };
    for item in map.get("projects").and_then(|n| cx.list(n, "projects")).unwrap_or_default() {
        let Some((name, namespace)) = namespace(cx, item, tenants) else { continue };
        if !seen.insert(namespace.project.clone()) {
            let message = format!("project `{}` is declared twice", namespace.project);
            cx.report(codes::BAD_VALUE, &name.span, message).hint("keep one of the two");
            continue;
        }
        out.push(namespace);
    }
    map.finish(cx);
    out
}

fn namespace<'a>(cx: &mut Cx<'_>, item: &'a Node, tenants: &[TenantConfig]) -> Option<(&'a Node, Namespace)> {
    if !matches!(item.value, Value::Map(_)) {
        let project: ProjectId = cx.name(item, "projects")?;
        return Some((item, Namespace { project, tenant: None }));
    }
    let mut map = Fields::of(cx, item, "a project")?;
    let name = map.need(cx, "id");
    let owner = map.get("tenant");
    map.finish(cx);
    let project: ProjectId = name.and_then(|n| cx.name(n, "id"))?;
    let tenant = match owner {
        Some(node) => {
            let tenant: TenantId = cx.name(node, "tenant")?;
            if !tenants.iter().any(|known| known.id == tenant) {
                let hint = suggest::hint(tenant.as_str(), tenants.iter().map(|t| t.id.as_str()), "tenants");
                cx.report(
                    codes::UNKNOWN_TENANT,
                    &node.span,
                    format!("levada.yaml declares no tenant `{tenant}`"),
                )
                .hint(hint);
                return None;
            }
            Some(tenant)
        }
        None => None,
    };
    Some((name.unwrap_or(item), Namespace { project, tenant }))
}
