//! Pipelines: the list, and one pipeline with its steps, what waits and why.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use levada_core::{Principal, Problem};
use maud::{Markup, html};

use crate::app::{App, Signed};
use crate::data::{EpochRow, PipelineDetail, PipelineRow, ReasonCount, StepRow};
use crate::format::{ago, compact, count, millis, rate};
use crate::live::{Parts, View};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{encode, health, may_operate, missing, nothing, problem_page};
use crate::shown::{DETAIL_CHARS, NAME_CHARS, Shown};

pub(crate) async fn list(State(app): State<App>, signed: Signed) -> Response {
    let shown = match may_operate(&signed) {
        Ok(()) => app.data.pipelines(&signed.principal).await,
        Err(problem) => Err(problem),
    };
    let rows = match shown {
        Ok(rows) => rows,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Pipelines), &problem),
    };
    let view = View::Pipelines;
    let body = html! {
        (title("Pipelines", Some(&view), &html! {}))
        div.scroll #live-pipelines tabindex="0" role="region" aria-label="Pipelines" { (table(&rows, app.now_ms())) }
    };
    Frame { title: "Pipelines", active: Some(Nav::Pipelines), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn list_parts(app: &App, principal: &Principal) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such page"));
    }
    let rows = app.data.pipelines(principal).await?;
    Ok(Parts { parts: vec![("live-pipelines", table(&rows, app.now_ms()))], spoken: trouble_of(&rows) })
}

fn trouble_of(rows: &[PipelineRow]) -> String {
    rows.iter()
        .filter_map(|r| r.note.as_ref().map(|note| format!("{}: {note}", r.name)))
        .collect::<Vec<_>>()
        .join(". ")
}

pub(crate) fn table(rows: &[PipelineRow], now_ms: i64) -> Markup {
    if rows.is_empty() {
        return nothing(
            "No pipelines yet",
            "A file in connectors/ or pipelines/ makes one; levada check says what is missing.",
        );
    }
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Pipeline" }
                th scope="col" { "Health" }
                th.n scope="col" { "Rate /s" }
                th.n scope="col" { "In" }
                th.n scope="col" { "Out" }
                th.n scope="col" { "Dropped" }
                th.n scope="col" { "Dead" }
                th.n scope="col" { "Backlog" }
                th.n scope="col" { "Committed" }
            } }
            tbody { @for row in rows { tr {
                th scope="row" {
                    a href={ "/console/pipelines/" (encode(&row.key)) } { (row.name) }
                    @if row.owner != "shared" { span.tag title="Tenant" { (row.owner) } }
                    span.under { (row.source) " → " (row.sink) }
                }
                td.long data-l="Health" { (health(row.health)) @if let Some(note) = &row.note { span.under.note { (Shown::cell(note)) } } }
                td.n data-l="Rate /s" { (rate(row.rate_per_s)) }
                (number("In", row.received))
                (number("Out", row.written))
                (number("Dropped", row.dropped))
                td.n.dead[row.dead > 0] data-l="Dead" {
                    @if row.dead > 0 {
                        a href={ "/console/dead-letters?pipeline=" (encode(&row.full_name)) } { (compact(row.dead)) }
                    } @else { "0" }
                }
                (or_unknown("Backlog", row.backlog))
                td.n data-l="Committed" { @match row.last_commit_ms { Some(at) => (ago(now_ms, at)), None => "–" } }
            } } }
        }
    }
}

pub(crate) fn number(label: &str, n: u64) -> Markup {
    html! { td.n data-l=(label) title=[(n >= 1_000_000).then(|| count(n))] { (compact(n)) } }
}

/// A dash where a figure is not known.
fn or_unknown(label: &str, n: Option<u64>) -> Markup {
    match n {
        Some(n) => number(label, n),
        None => html! { td.n.quiet data-l=(label) { "–" } },
    }
}

pub(crate) async fn detail(State(app): State<App>, signed: Signed, Path(key): Path<String>) -> Response {
    let found = match may_operate(&signed) {
        Ok(()) => load(&app, &signed.principal, &key).await,
        Err(problem) => Err(problem),
    };
    let detail = match found {
        Ok(detail) => detail,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Pipelines), &problem),
    };
    let view = View::Pipeline { key };
    let row = &detail.row;
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/console/pipelines" { "Pipelines" } }
        (title(&row.name, Some(&view), &html! { div #live-health { (health(row.health)) } }))
        @if let Some(text) = &detail.description { p.lead { (text) } }
        dl.facts {
            div { dt { "From" } dd { (row.source) } }
            div { dt { "To" } dd { code { (row.sink) } } }
            div { dt { "Owner" } dd { (row.owner) } }
            div { dt { "Defined in" } dd { code { (detail.file) } } }
        }
        section #live-figures aria-label="Figures" { (figures(&detail, app.now_ms())) }
        section aria-labelledby="h-steps" {
            div.bar { h2 #h-steps { "Steps" } }
            div #live-steps { (steps(&detail.steps)) }
        }
        div.pair {
            section aria-labelledby="h-dead" {
                div.bar {
                    h2 #h-dead { "Dead letters by reason" }
                    a href={ "/console/dead-letters?pipeline=" (encode(&row.full_name)) } { "Show them" }
                }
                div #live-dead { (reasons(&row.full_name, &detail.dead_by_reason)) }
            }
            section aria-labelledby="h-epochs" {
                div.bar { h2 #h-epochs { "Recent epochs" } }
                div.scroll.tall #live-epochs tabindex="0" role="region" aria-labelledby="h-epochs" {
                    (epochs(&detail.epochs, app.now_ms()))
                }
            }
        }
    };
    Frame { title: &row.name, active: Some(Nav::Pipelines), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn detail_parts(app: &App, principal: &Principal, key: &str) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such pipeline"));
    }
    let detail = load(app, principal, key).await?;
    let now_ms = app.now_ms();
    Ok(Parts {
        spoken: trouble_of(std::slice::from_ref(&detail.row)),
        parts: vec![
            ("live-health", health(detail.row.health)),
            ("live-figures", figures(&detail, now_ms)),
            ("live-steps", steps(&detail.steps)),
            ("live-dead", reasons(&detail.row.full_name, &detail.dead_by_reason)),
            ("live-epochs", epochs(&detail.epochs, now_ms)),
        ],
    })
}

async fn load(app: &App, principal: &Principal, key: &str) -> Result<PipelineDetail, Problem> {
    app.data.pipeline(principal, key).await?.ok_or_else(|| missing("there is no such pipeline"))
}

fn figures(detail: &PipelineDetail, now_ms: i64) -> Markup {
    let row = &detail.row;
    html! {
        @if let Some(note) = &row.note { ul.notes.degraded { li { (Shown::of(note, DETAIL_CHARS)) } } }
        dl.figures.small {
            div { dt { "In" } dd { span.big { (compact(row.received)) } } dd.second { (rate(row.rate_per_s)) span.unit { "a second" } } }
            div { dt { "Out" } dd { span.big { (compact(row.written)) } } }
            div { dt { "Dropped" } dd { span.big { (compact(row.dropped)) } } }
            div { dt { "Dead" } dd { span.big { (compact(row.dead)) } } }
            div { dt { "Backlog" } dd { span.big { @match row.backlog { Some(n) => (compact(n)), None => "–" } } } }
            div {
                dt { "Epoch" }
                dd { span.big { @match row.epoch { Some(e) => (count(e)), None => "–" } } }
                @if let Some(at) = row.last_commit_ms { dd.second { (ago(now_ms, at)) } }
            }
        }
    }
}

fn steps(steps: &[StepRow]) -> Markup {
    if steps.is_empty() {
        return nothing("No steps", "Without a schema the events are kept in bronze as they came.");
    }
    html! {
        ol.steps {
            @for step in steps {
                li.waits[step.waits_for.is_some()] {
                    div.what {
                        strong { (step.kind) }
                        @if step.waits_for.is_some() { span.badge { "waiting" } }
                        p { (Shown::of(&step.summary, DETAIL_CHARS)) }
                        @if let Some(why) = &step.waits_for { p.why { (Shown::of(why, DETAIL_CHARS)) } }
                    }
                    @if let Some(counts) = step.counts {
                        dl.flow {
                            div { dt { "in" } dd { (compact(counts.rows_in)) } }
                            div { dt { "out" } dd { (compact(counts.rows_out)) } }
                            div.zero[counts.dropped == 0] { dt { "dropped" } dd { (compact(counts.dropped)) } }
                            div.zero[counts.dead == 0] { dt { "dead" } dd { (compact(counts.dead)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Reasons that a page shows; consumers and files may bring any number of them.
const MAX_REASONS: usize = 200;

fn reasons(pipeline: &str, reasons: &[ReasonCount]) -> Markup {
    if reasons.is_empty() {
        return nothing("None", "Everything that came in could be processed.");
    }
    let all: u64 = reasons.iter().map(|r| r.count).sum();
    let shown = reasons.iter().filter(|r| r.code.len() <= NAME_CHARS).take(MAX_REASONS);
    html! {
        table.data { thead.unseen { tr { th scope="col" { "Reason" } th scope="col" { "Share" } th scope="col" { "Count" } } }
        tbody { @for r in shown { tr {
            th scope="row" {
                a href={ "/console/dead-letters?pipeline=" (encode(pipeline)) "&code=" (encode(&r.code)) } { (r.code) }
            }
            td.gauge { svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                rect width=(r.count * 100 / all.max(1)) height="8" {}
            } }
            (number("Count", r.count))
        } } } }
    }
}

fn epochs(epochs: &[EpochRow], now_ms: i64) -> Markup {
    if epochs.is_empty() {
        return nothing("None yet", "The first one is committed once rows have come in.");
    }
    html! {
        table.data {
            thead { tr {
                th.n scope="col" { "Epoch" } th.n scope="col" { "Rows" } th.n scope="col" { "Files" }
                th.n scope="col" { "Took" } th.n scope="col" { "Committed" }
            } }
            tbody { @for e in epochs { tr {
                th.n scope="row" { (count(e.epoch)) }
                (number("Rows", e.rows))
                (or_unknown("Files", e.files))
                td.n { @match e.duration_ms { Some(ms) => (millis(ms as f64)), None => "–" } }
                td.n { (ago(now_ms, e.committed_ms)) }
            } } }
        }
    }
}
