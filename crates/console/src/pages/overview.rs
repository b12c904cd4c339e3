//! The first page: how much comes in, how soon it can be queried, what needs attention.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use levada_core::{Principal, Problem};
use maud::{Markup, html};

use crate::app::{App, Signed};
use crate::data::{Health, Overview};
use crate::format::{bytes, compact, count, millis, rate, span};
use crate::live::{Parts, View};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{health, models, nothing, pipelines, plural, problem_page};
use crate::shown::Shown;

/// Rows of a list on this page; the list's own page has all.
const SHOWN: usize = 12;

pub(crate) async fn show(State(app): State<App>, signed: Signed) -> Response {
    let parts = match parts(&app, &signed.principal).await {
        Ok(parts) => parts,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Overview), &problem),
    };
    let view = View::Overview;
    let part = |id: &str| parts.parts.iter().find(|(i, _)| *i == id).map(|(_, m)| m);
    let operates = signed.principal.may_operate();
    let body = html! {
        (title("Overview", Some(&view), &html! { div #live-health { @if let Some(m) = part("live-health") { (m) } } }))
        div #live-notes { @if let Some(m) = part("live-notes") { (m) } }
        section #live-figures aria-label="Figures" { @if let Some(m) = part("live-figures") { (m) } }
        section #live-channel aria-label="From event to gold" { @if let Some(m) = part("live-channel") { (m) } }
        @if operates {
            section aria-labelledby="h-pipelines" {
                div.bar { h2 #h-pipelines { "Pipelines" } a href="/console/pipelines" { "All pipelines" } }
                div.scroll #live-pipelines tabindex="0" role="region" aria-labelledby="h-pipelines" {
                    @if let Some(m) = part("live-pipelines") { (m) }
                }
            }
            section aria-labelledby="h-models" {
                div.bar { h2 #h-models { "Models" } a href="/console/models" { "All models" } }
                div.scroll #live-models tabindex="0" role="region" aria-labelledby="h-models" {
                    @if let Some(m) = part("live-models") { (m) }
                }
            }
        }
    };
    Frame { title: "Overview", active: Some(Nav::Overview), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn parts(app: &App, principal: &Principal) -> Result<Parts, Problem> {
    let overview = app.data.overview(principal).await?;
    let now_ms = app.now_ms();
    let mut parts = vec![
        ("live-health", health(overview.health)),
        ("live-notes", notes(&overview)),
        ("live-figures", figures(&overview)),
        ("live-channel", channel(&overview)),
    ];
    if principal.may_operate() {
        let shown = &overview.pipelines[..overview.pipelines.len().min(SHOWN)];
        parts.push(("live-pipelines", pipelines::table(shown, now_ms)));
        let shown = &overview.models[..overview.models.len().min(SHOWN)];
        parts.push(("live-models", models::table(shown, now_ms, None)));
    }
    let mut spoken = vec![format!("Levada is {}", word(overview.health))];
    spoken.extend(overview.notes.iter().take(MAX_NOTES).cloned());
    Ok(Parts { parts, spoken: spoken.join(". ") })
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Idle => "idle",
        Health::Waiting => "waiting",
        Health::Degraded => "degraded",
        Health::Failing => "failing",
    }
}

/// Notes that the page shows.
const MAX_NOTES: usize = 100;

fn notes(overview: &Overview) -> Markup {
    html! {
        @if !overview.notes.is_empty() {
            ul.notes.(word(overview.health)) { @for note in overview.notes.iter().take(MAX_NOTES) { li { (Shown::cell(note)) } } }
        }
    }
}

fn figures(o: &Overview) -> Markup {
    let latency = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), millis);
    html! {
        dl.figures {
            div.wide {
                dt { "Events a second" }
                dd { span.big { (rate(o.events_per_s)) } (sparkline(&o.rate_history, o.rate_step_s)) }
            }
            div {
                dt { "Publish to queryable" }
                dd { span.big { (latency(o.latency_p50_ms)) } span.unit { "p50" } }
                dd.second { (latency(o.latency_p99_ms)) span.unit { "p99" } }
            }
            div {
                dt { "Backlog" }
                dd { span.big { (compact(o.backlog)) } }
                dd.second {
                    @if o.backlog > 0 && o.events_per_s >= 1.0 {
                        (span((o.backlog as f64 / o.events_per_s).ceil() as u64)) span.unit { "of input" }
                    } @else { span.lone { "events not yet in a table" } }
                }
            }
            div {
                dt { "Dead letters" }
                dd { span.big { (compact(o.dead_letters)) } }
                dd.second {
                    @if o.accepted > 0 {
                        (share(o.dead_letters, o.accepted)) span.unit { "of accepted" }
                    } @else { span.lone { "none accepted yet" } }
                }
            }
        }
    }
}

fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole as f64;
    if part > 0 && percent < 0.01 { "< 0.01 %".to_owned() } else { format!("{percent:.2} %") }
}

/// The way of the events as a channel: what entered, and what each zone holds.
fn channel(o: &Overview) -> Markup {
    html! {
        ol.channel {
            li {
                span.stage { "Accepted" }
                span.amount title=(count(o.accepted)) { (compact(o.accepted)) }
                span.detail { (plural(o.duplicates, "duplicate", "duplicates")) " · up " (span(o.uptime_s)) }
            }
            @for zone in &o.zones {
                li.(zone.zone) {
                    span.stage { (zone.zone) }
                    span.amount title=(count(zone.rows)) { (compact(zone.rows)) }
                    span.detail {
                        @match zone.objects {
                            Some(objects) => {
                                (plural(zone.tables, "source", "sources")) " · "
                                (plural(objects, "object", "objects")) " · "
                            }
                            None => { (plural(zone.tables, "table", "tables")) " · " }
                        }
                        (bytes(zone.bytes))
                    }
                }
            }
        }
        @if o.zones.is_empty() { (nothing("No tables yet", "They appear with the first committed epoch.")) }
    }
}

const SPARK_WIDTH: f64 = 300.0;
const SPARK_HEIGHT: f64 = 44.0;

/// A line over the last samples, oldest on the left, from zero.
fn sparkline(values: &[f64], step_s: u32) -> Markup {
    if values.len() < 2 {
        return html! {};
    }
    let top = values.iter().copied().filter(|v| v.is_finite()).fold(1.0_f64, f64::max);
    let step = SPARK_WIDTH / (values.len() - 1) as f64;
    let mut line = String::with_capacity(values.len() * 12);
    for (i, value) in values.iter().enumerate() {
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        let y = SPARK_HEIGHT - 2.0 - value / top * (SPARK_HEIGHT - 6.0);
        line.push_str(&format!("{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, i as f64 * step, y));
    }
    let reach = span(u64::from(step_s) * (values.len() as u64 - 1));
    let label = format!("last {reach}, highest {} a second", rate(top));
    html! {
        figure.spark {
            svg viewBox={ "0 0 " (SPARK_WIDTH) " " (SPARK_HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label=(label) {
                path.area d={ (line) "V" (SPARK_HEIGHT) "H0Z" } {}
                path.line d=(line) {}
            }
            figcaption { (label) }
        }
    }
}
