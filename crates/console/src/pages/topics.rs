//! Topics: how much each holds, and what its acknowledgement means.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use levada_core::{Principal, Problem};
use maud::{Markup, html};

use crate::app::{App, Signed};
use crate::data::TopicRow;
use crate::format::{bytes, compact, count, millis, rate};
use crate::live::{Parts, View};
use crate::message::PubsubTopicRow;
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{encode, may_operate, missing, nothing, problem_page};

pub(crate) async fn list(State(app): State<App>, signed: Signed) -> Response {
    let shown = async {
        may_operate(&signed)?;
        let rows = app.data.topics(&signed.principal).await?;
        Ok::<_, Problem>((rows, app.data.pubsub_topics(&signed.principal).await?))
    };
    let (rows, pubsub) = match shown.await {
        Ok(shown) => shown,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Topics), &problem),
    };
    let view = View::Topics;
    let body = html! {
        (title("Topics", Some(&view), &html! {}))
        div.scroll #live-topics tabindex="0" role="region" aria-label="Topics" { (table(&rows)) }
        @if !pubsub.is_empty() {
            section aria-labelledby="h-pubsub" {
                div.bar { h2 #h-pubsub { "Pub/Sub topics" } }
                div.scroll tabindex="0" role="region" aria-labelledby="h-pubsub" { (pubsub_table(&pubsub)) }
            }
        }
    };
    Frame { title: "Topics", active: Some(Nav::Topics), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn parts(app: &App, principal: &Principal) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such page"));
    }
    let rows = app.data.topics(principal).await?;
    Ok(Parts { parts: vec![("live-topics", table(&rows))], spoken: String::new() })
}

/// Topics that the page shows.
const MAX_ROWS: usize = 1_000;

fn table(rows: &[TopicRow]) -> Markup {
    if rows.is_empty() {
        return nothing(
            "No topics yet",
            "A topic comes with the first connector, or the first event for it.",
        );
    }
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Topic" }
                th.n scope="col" { "Rate /s" }
                th.n scope="col" { "Kept" }
                th.n scope="col" { "Offsets" }
                th.n scope="col" { "Size" }
                th scope="col" { "Acknowledged when" }
                th.n scope="col" title="99 of 100 publishes were answered by the log within this time" { "Commit p99" }
                th scope="col" { "Retention" }
                th scope="col" { "Read by" }
            } }
            tbody { @for row in rows.iter().take(MAX_ROWS) { tr {
                th scope="row" {
                    @if row.name.ends_with("-dlq") {
                        a href={ "/console/dead-letters?topic=" (encode(&row.name)) } { (row.name) }
                    } @else { span.name { (row.name) } }
                }
                td.n data-l="Rate /s" { (rate(row.rate_per_s)) }
                td.n data-l="Kept" { (compact(row.next.saturating_sub(row.first))) }
                td.n.quiet data-l="Offsets" {
                    @if row.next > row.first { (count(row.first)) "–" (count(row.next - 1)) } @else { "empty" }
                }
                td.n data-l="Size" { (bytes(row.bytes)) }
                td.wrap data-l="Acknowledged when" { (row.durability) }
                td.n data-l="Commit p99" { @match row.commit_p99_us { Some(us) => (millis(us as f64 / 1000.0)), None => span.faint { "–" } } }
                td data-l="Retention" { @match &row.retention { Some(text) => (text), None => "keeps all" } }
                td.wrap.long data-l="Read by" { @if row.readers.is_empty() { span.faint { "nobody" } } @else { (row.readers.join(", ")) } }
            } } }
        }
        @if rows.len() > MAX_ROWS { p.faint { (count((rows.len() - MAX_ROWS) as u64)) " more are not shown." } }
    }
}

fn pubsub_table(rows: &[PubsubTopicRow]) -> Markup {
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Topic" }
                th scope="col" { "Acknowledged when" }
                th scope="col" { "Deduplication" }
                th scope="col" { "Schema" }
            } }
            tbody { @for row in rows { tr {
                th scope="row" {
                    span.name { (row.name) }
                    @if row.owner != "shared" { span.tag title="Tenant" { (row.owner) } }
                }
                td.wrap data-l="Acknowledged when" { (row.durability) }
                td.wrap data-l="Deduplication" { @match &row.deduplication { Some(text) => (text), None => span.faint { "none" } } }
                td.wrap data-l="Schema" { @match &row.schema { Some(text) => (text), None => span.faint { "none" } } }
            } } }
        }
    }
}
