//! Dead letters: what could not be processed and why, the original bytes, and sending again.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use levada_core::{Problem, TopicName};
use maud::{Markup, html};
use serde::Deserialize;

use crate::app::{App, Signed};
use crate::data::{DeadLetter, DeadLetterFilter, DeadLetterPage};
use crate::form::Fields;
use crate::format::{ago, bytes, count, utc};
use crate::pages::bytes::original;
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{
    attributes, back, check_csrf, csrf_field, encode, local, may_operate, missing, nothing, plural,
    problem_page,
};
use crate::shown::{DETAIL_CHARS, NAME_CHARS, Shown};

const PAGE_ROWS: usize = 50;
/// Values that a filter offers. Longer ones, and more, are filtered by in the address.
const OPTIONS: usize = 200;
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    topic: String,
    pipeline: String,
    code: String,
    after: String,
}

impl Filter {
    /// # Errors
    /// 404 for a topic that cannot exist.
    fn parse(&self) -> Result<DeadLetterFilter, Problem> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let topic = match self.topic.as_str() {
            "" => None,
            text => Some(TopicName::new(text).map_err(|e| missing(&e.to_string()))?),
        };
        Ok(DeadLetterFilter {
            topic,
            pipeline: some(&self.pipeline),
            code: some(&self.code),
            after: some(&self.after),
            limit: PAGE_ROWS,
        })
    }

    fn url(&self, after: &str) -> String {
        let fields =
            [("topic", &*self.topic), ("pipeline", &*self.pipeline), ("code", &*self.code), ("after", after)];
        let set: Vec<String> = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        if set.is_empty() {
            "/console/dead-letters".to_owned()
        } else {
            format!("/console/dead-letters?{}", set.join("&"))
        }
    }

    fn is_narrow(&self) -> bool {
        !(self.topic.is_empty() && self.pipeline.is_empty() && self.code.is_empty())
    }
}

pub(crate) async fn list(State(app): State<App>, signed: Signed, Query(filter): Query<Filter>) -> Response {
    let found = async {
        may_operate(&signed)?;
        app.data.dead_letters(&signed.principal, &filter.parse()?).await
    };
    let page = match found.await {
        Ok(page) => page,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::DeadLetters), &problem),
    };
    let body = html! {
        (title("Dead letters", None, &html! {}))
        (filter_form(&filter, &page))
        @if page.letters.is_empty() {
            @if filter.is_narrow() {
                (nothing("Nothing matches", "No dead letter has these properties."))
            } @else {
                (nothing("No dead letters", "Everything that came in could be processed."))
            }
        } @else {
            form #letters method="post" action="/console/dead-letters/resend" {
                (csrf_field(&signed))
                input type="hidden" name="back" value=(filter.url(&filter.after));
                div.bar.actions {
                    label.check { input type="checkbox" data-check-all="pick" hidden; span hidden { "Select all" } }
                    span.grow {}
                    button type="submit" data-count-of="pick" { "Send selected again" }
                }
                div.scroll tabindex="0" role="region" aria-label="Dead letters" { (table(&page.letters, app.now_ms())) }
            }
            @if page.is_full { p.faint { "These are large, and older ones are not listed beside them. Choose a topic to go on to them." } }
            nav.pages aria-label="Pages" {
                @if !filter.after.is_empty() { a href=(filter.url("")) { "Newest" } }
                @if let Some(next) = &page.next { a href=(filter.url(next)) rel="next" { "Older" } }
            }
        }
    };
    Frame { title: "Dead letters", active: Some(Nav::DeadLetters), live: None }
        .render(&app, &signed, &body)
        .into_response()
}

fn filter_form(filter: &Filter, page: &DeadLetterPage) -> Markup {
    let short = |value: &&String| value.len() <= NAME_CHARS;
    let codes = page.reasons.iter().filter(|r| short(&&r.code)).take(OPTIONS);
    let codes: Vec<(String, String)> =
        codes.map(|r| (r.code.clone(), format!("{} ({})", r.code, count(r.count)))).collect();
    let plain = |all: &[String]| {
        all.iter().filter(short).take(OPTIONS).map(|t| (t.clone(), t.clone())).collect::<Vec<_>>()
    };
    html! {
        form.filter method="get" action="/console/dead-letters" role="search" aria-label="Filter" data-auto-submit="" {
            (select("topic", "Topic", &filter.topic, &plain(&page.topics)))
            (select("pipeline", "Pipeline", &filter.pipeline, &plain(&page.pipelines)))
            (select("code", "Reason", &filter.code, &codes))
            button type="submit" { "Filter" }
            @if filter.is_narrow() { a href="/console/dead-letters" { "Clear" } }
        }
    }
}

fn select(name: &str, label: &str, chosen: &str, options: &[(String, String)]) -> Markup {
    let known = options.iter().any(|(value, _)| value == chosen);
    html! {
        div.field {
            label for={ "f-" (name) } { (label) }
            select id={ "f-" (name) } name=(name) {
                option value="" selected[chosen.is_empty()] { "All" }
                @if !chosen.is_empty() && !known { option value=(chosen) selected { (chosen) } }
                @for (value, text) in options { option value=(value) selected[value == chosen] { (text) } }
            }
        }
    }
}

fn table(letters: &[DeadLetter], now_ms: i64) -> Markup {
    html! {
        table.data.cards.letters {
            thead { tr {
                th scope="col" { span.unseen { "Select" } }
                th scope="col" { "Reason" }
                th scope="col" { "Event" }
                th scope="col" { "Tenant" }
                th scope="col" { "Stage" }
                th.n scope="col" { "Attempts" }
                th.n scope="col" { "When" }
                th scope="col" { span.unseen { "Send again" } }
            } }
            tbody { @for letter in letters {
                @let place = place(letter);
                tr {
                    td.pick { input type="checkbox" name="pick" value=(place) aria-label={ "Select " (place) }; }
                    th.wrap scope="row" {
                        a href=(address(letter)) { code { (Shown::of(&letter.code, NAME_CHARS)) } }
                        span.under { (Shown::cell(&letter.reason)) }
                    }
                    td.long data-l="Event" {
                        @match &letter.event_type { Some(t) => span.name { (Shown::of(t, NAME_CHARS)) }, None => span.faint { "no type" } }
                        span.under { (Shown::of(letter.pipeline.as_deref().unwrap_or(letter.topic.as_str()), NAME_CHARS)) " · " (Shown::of(letter.position.as_deref().unwrap_or("–"), NAME_CHARS)) }
                    }
                    td data-l="Tenant" { (letter.tenant) }
                    td data-l="Stage" { (Shown::of(&letter.stage, NAME_CHARS)) }
                    td.n data-l="Attempts" { (letter.attempts) }
                    td.n data-l="When" { (ago(now_ms, letter.at_ms)) @if letter.resent_ms.is_some() { span.under { "sent again" } } }
                    td.n { button.small type="submit" name="one" value=(place)
                        aria-label={ "Send " (place) " again" } { "Send again" } }
                }
            } }
        }
    }
}

fn place(letter: &DeadLetter) -> String {
    format!("{}/{}", letter.topic, letter.offset)
}

fn address(letter: &DeadLetter) -> String {
    format!("/console/dead-letters/{}/{}", encode(letter.topic.as_str()), letter.offset)
}

pub(crate) async fn resend(State(app): State<App>, signed: Signed, fields: Fields) -> Response {
    if let Err(problem) = may_operate(&signed).and_then(|()| check_csrf(&signed, &fields)) {
        return problem_page(&app, &signed, Some(Nav::DeadLetters), &problem);
    }
    let outcome = send(&app, &signed, &fields).await;
    back(&app, &signed, local(fields.get("back")), outcome)
}

/// One topic after the other; what a failure leaves out is still there to be sent.
async fn send(app: &App, signed: &Signed, fields: &Fields) -> Result<String, Problem> {
    let chosen: Vec<&str> = match fields.get("one") {
        Some(one) => vec![one],
        None => fields.all("pick").collect(),
    };
    if chosen.is_empty() {
        return Err(Problem::new(422, "nothing-selected", "no dead letter was selected")
            .hint("tick the ones to send, or use the button in a row"));
    }
    let mut by_topic: BTreeMap<TopicName, Vec<u64>> = BTreeMap::new();
    for place in chosen {
        let parsed = place
            .rsplit_once('/')
            .and_then(|(topic, offset)| Some((TopicName::new(topic).ok()?, offset.parse::<u64>().ok()?)));
        let (topic, offset) =
            parsed.ok_or_else(|| Problem::new(422, "bad-request", "a selected row has no valid place"))?;
        by_topic.entry(topic).or_default().push(offset);
    }
    let (mut sent, mut gone) = (0, 0);
    for (topic, offsets) in by_topic {
        let answer = app.data.resend(&signed.principal, &topic, &offsets).await?;
        sent += answer.sent;
        gone += answer.missing;
    }
    let mut text = format!("{} sent again", plural(sent, "dead letter", "dead letters"));
    if gone > 0 {
        text.push_str(&format!("; {} could not be found", count(gone)));
    }
    Ok(text + ".")
}

async fn load(app: &App, signed: &Signed, topic: &str, offset: u64) -> Result<DeadLetter, Problem> {
    may_operate(signed)?;
    let none = || missing("there is no such dead letter");
    let topic = TopicName::new(topic).map_err(|_| none())?;
    app.data.dead_letter(&signed.principal, &topic, offset).await?.ok_or_else(none)
}

pub(crate) async fn detail(
    State(app): State<App>,
    signed: Signed,
    Path((topic, offset)): Path<(String, u64)>,
) -> Response {
    let letter = match load(&app, &signed, &topic, offset).await {
        Ok(letter) => letter,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::DeadLetters), &problem),
    };
    let address = address(&letter);
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/console/dead-letters" { "Dead letters" } }
        (title(&place(&letter), None, &html! {}))
        div.verdict {
            p { code { (Shown::cell(&letter.code)) } }
            p.reason { (Shown::of(&letter.reason, DETAIL_CHARS)) }
            form method="post" action="/console/dead-letters/resend" {
                (csrf_field(&signed))
                input type="hidden" name="back" value=(address);
                button.primary type="submit" name="one" value=(place(&letter)) { "Send again" }
                @if letter.resent_ms.is_some() { span.faint { "was sent again" } }
            }
        }
        (facts(&letter))
        section aria-labelledby="h-body" {
            div.bar {
                h2 #h-body { "Original bytes" }
                span.faint { (bytes(letter.body.len() as u64)) }
                a href={ (address) "/body" } download { "Download" }
            }
            (original(&letter.body))
        }
        section aria-labelledby="h-attributes" {
            div.bar { h2 #h-attributes { "Attributes" } }
            (attributes("", &letter.attributes))
        }
    };
    Frame { title: "Dead letter", active: Some(Nav::DeadLetters), live: None }
        .render(&app, &signed, &body)
        .into_response()
}

fn facts(letter: &DeadLetter) -> Markup {
    let rows: [(&str, Option<String>); 8] = [
        ("When", Some(format!("{} UTC", utc(letter.at_ms)))),
        ("Tenant", Some(letter.tenant.clone())),
        ("Pipeline", letter.pipeline.clone()),
        ("Stage", Some(letter.stage.clone())),
        ("Attempts", Some(letter.attempts.to_string())),
        ("Position", letter.position.clone()),
        ("Event type", letter.event_type.clone()),
        ("Event id", letter.event_id.clone()),
    ];
    html! {
        dl.facts { @for (name, value) in &rows { @if let Some(value) = value { div { dt { (name) } dd { (Shown::cell(value)) } } } } }
    }
}

/// The original bytes, as a file: never shown by the browser as a page of ours.
pub(crate) async fn body(
    State(app): State<App>,
    signed: Signed,
    Path((topic, offset)): Path<(String, u64)>,
) -> Response {
    match load(&app, &signed, &topic, offset).await {
        Ok(letter) => {
            let name = format!("attachment; filename=\"{}-{offset}.bin\"", letter.topic);
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_DISPOSITION, name),
            ];
            (headers, letter.body).into_response()
        }
        Err(problem) => problem_page(&app, &signed, Some(Nav::DeadLetters), &problem),
    }
}
