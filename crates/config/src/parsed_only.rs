//! Parts of a connector that are type-checked and noted, and do not run yet: serving,
//! monitoring, and ways of schema evolution that tables do not follow.

use std::time::Duration;

use crate::codes;
use crate::fields::{Cx, Fields, cut};
use crate::tree::Node;

pub(crate) fn evolution(cx: &mut Cx<'_>, node: &Node) {
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

pub(crate) fn serving(cx: &mut Cx<'_>, node: Option<&Node>) {
    let Some(mut map) = node.and_then(|n| Fields::of(cx, n, "serving")) else { return };
    for name in ["third_party_api", "reporting", "ml_features"] {
        let Some((key, node)) = map.entry(name) else { continue };
        if cx.boolean(node, name) == Some(true) {
            cx.inactive(&key.span, format!("serving.{name}"), "the serving layer comes with a later release");
        }
    }
    map.finish(cx);
}

pub(crate) fn monitoring(cx: &mut Cx<'_>, node: Option<&Node>) -> Option<Duration> {
    let mut map = Fields::of(cx, node?, "monitoring")?;
    let sla = map.entry("sla_minutes");
    let email = map.entry("alert_email");
    let metrics = map.entry("metrics");
    map.finish(cx);
    let later = "alerts come with a later release";
    if let Some((key, node)) = email {
        if let Some(text) = cx.text(node, "alert_email")
            && !text.contains('@')
        {
            cx.report(codes::BAD_VALUE, &node.span, format!("`{}` is not an e-mail address", cut(text)));
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
