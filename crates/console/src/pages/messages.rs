//! Messages of a subscription: the newest, page by page, and dead letters on their way back.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use levada_core::{Problem, ResourceName};
use maud::{Markup, html};
use serde::Deserialize;

use crate::app::{App, Signed};
use crate::form::Fields;
use crate::format::{ago, count};
use crate::message::{DeadMark, MessageFilter, MessagePage, MessageRow, RedriveDone, RedriveOrder};
use crate::pages::bytes::preview;
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::subscriptions::address;
use crate::pages::{
    back, check_csrf, csrf_field, encode, may_operate, missing, nothing, plural, problem_page,
};
use crate::shown::{NAME_CHARS, Shown};

const PAGE_ROWS: usize = 50;
/// What one redrive sends unless the form says otherwise, and the most that it may say.
const REDRIVE: u64 = 1_000;
const MAX_REDRIVE: u64 = 10_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    filter: String,
    before: Option<u64>,
}

/// The page's address, with a filter and a place.
fn url(name: &str, filter: &str, before: Option<u64>) -> String {
    let mut url = format!("{}/messages", address(name));
    let filter = (!filter.is_empty()).then(|| format!("filter={}", encode(filter)));
    let before = before.map(|before| format!("before={before}"));
    let query: Vec<String> = [filter, before].into_iter().flatten().collect();
    if !query.is_empty() {
        url.push('?');
        url.push_str(&query.join("&"));
    }
    url
}

pub(crate) fn parse(project: &str, id: &str) -> Result<ResourceName, Problem> {
    format!("{project}/{id}").parse().map_err(|_| missing("there is no such subscription"))
}

pub(crate) async fn list(
    State(app): State<App>,
    signed: Signed,
    Path((project, id)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let found = async {
        may_operate(&signed)?;
        let name = parse(&project, &id)?;
        let filter = MessageFilter { filter: wanted.filter.clone(), before: wanted.before, limit: PAGE_ROWS };
        match app.data.messages(&signed.principal, &name, &filter).await {
            Ok(page) => Ok((page, None)),
            // What is wrong with a filter is told beside it, so that it can be mended.
            Err(problem) if problem.status == 400 || problem.status == 422 => {
                Ok((MessagePage::default(), Some(problem)))
            }
            Err(problem) => Err(problem),
        }
    };
    let (page, problem) = match found.await {
        Ok(found) => found,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let name = format!("{project}/{id}");
    let body = html! {
        (crumbs(&name, None))
        (title("Messages", None, &html! {}))
        p.lead { "The newest first, also those that were acknowledged, as long as the topic keeps them." }
        (filter_form(&name, &wanted.filter))
        @if let Some(problem) = &problem {
            div.notice.bad role="alert" { p { strong { (problem.detail) } } }
        } @else if page.messages.is_empty() {
            @if wanted.filter.is_empty() && wanted.before.is_none() {
                (nothing("No messages", "The topic holds nothing that this subscription would get."))
            } @else { (nothing("Nothing matches", "No message further back matches, as far as was looked.")) }
        } @else {
            @if page.messages.iter().any(|message| message.dead.is_some()) {
                (redrive_form(&signed, &name, &wanted.filter))
            }
            div.scroll tabindex="0" role="region" aria-label="Messages" { (table(&name, &page.messages, app.now_ms())) }
        }
        nav.pages aria-label="Pages" {
            @if wanted.before.is_some() { a href=(url(&name, &wanted.filter, None)) { "Newest" } }
            @if let Some(before) = page.before { a href=(url(&name, &wanted.filter, Some(before))) rel="next" { "Older" } }
        }
    };
    Frame { title: &format!("Messages of {name}"), active: Some(Nav::Subscriptions), live: None }
        .render(&app, &signed, &body)
        .into_response()
}

/// The way back; with a message, also to the list.
pub(crate) fn crumbs(name: &str, message: Option<u64>) -> Markup {
    html! {
        nav.crumbs aria-label="Breadcrumb" {
            a href="/console/subscriptions" { "Subscriptions" } " / "
            a href=(address(name)) { (name) }
            @if message.is_some() { " / " a href={ (address(name)) "/messages" } { "Messages" } }
        }
    }
}

fn filter_form(name: &str, filter: &str) -> Markup {
    html! {
        form.filter method="get" action={ (address(name)) "/messages" } role="search" aria-label="Filter" {
            div.field.wide {
                label for="f-filter" { "Filter by attributes" }
                input #f-filter type="text" name="filter" value=(filter) maxlength="256" autocomplete="off"
                    spellcheck="false" placeholder="attributes.type = \"order\"";
            }
            button type="submit" { "Filter" }
            @if !filter.is_empty() { a href={ (address(name)) "/messages" } { "Clear" } }
        }
    }
}

fn redrive_form(signed: &Signed, name: &str, filter: &str) -> Markup {
    html! {
        details.tool {
            summary { "Send dead letters back" }
            form.filter method="post" action={ (address(name)) "/redrive" } {
                (csrf_field(signed))
                div.field.wide {
                    label for="r-filter" { "Only those that match" }
                    input #r-filter type="text" name="filter" value=(filter) maxlength="256" autocomplete="off"
                        spellcheck="false" placeholder="all";
                }
                div.field.short {
                    label for="r-limit" { "At most" }
                    input #r-limit type="number" name="limit" value=(REDRIVE) min="1" max=(MAX_REDRIVE) required;
                }
                div.field.short {
                    label for="r-rate" { "Per second" }
                    input #r-rate type="number" name="rate" min="0.1" max="100000" step="any" placeholder="no bound";
                }
                button.primary type="submit" { "Send back" }
            }
            p.faint {
                "Each goes to the topic of the subscription that it came from, as it was there, and leaves this one. \
                 What is left alone is delivered once more to consumers of this subscription."
            }
        }
    }
}

fn table(name: &str, messages: &[MessageRow], now_ms: i64) -> Markup {
    let any_dead = messages.iter().any(|message| message.dead.is_some());
    html! {
        table.data.cards.messages {
            thead { tr {
                th scope="col" { "Message" }
                th scope="col" { "Tenant" }
                @if any_dead { th scope="col" { "Reason" } }
                th scope="col" { "Body and attributes" }
                th.n scope="col" { "Published" }
            } }
            tbody { @for message in messages {
                @let (kind, text) = preview(&message.body);
                tr {
                    th scope="row" {
                        a href={ (address(name)) "/messages/" (message.message_id) } { (message.message_id) }
                        @if let Some(key) = &message.ordering_key { span.under title="Ordering key" { "key " (Shown::of(key, NAME_CHARS)) } }
                    }
                    td data-l="Tenant" { (message.tenant) }
                    @if any_dead {
                        td.wrap.long data-l="Reason" {
                            @match &message.dead {
                                Some(dead) => (reason(dead)),
                                None => span.faint { "–" },
                            }
                        }
                    }
                    td.wrap.wide.long data-l="Body and attributes" {
                        @if text.is_empty() { span.faint { "empty body" } }
                        @else { span.kind { (kind) } code.line { (text) } }
                        span.under { (Shown::cell(own(message))) }
                    }
                    td.n data-l="Published" { (ago(now_ms, message.published_ms)) }
                }
            } }
        }
    }
}

fn reason(dead: &DeadMark) -> Markup {
    html! {
        @if dead.code.is_empty() { span.faint { "no reason told" } } @else { code { (Shown::of(&dead.code, NAME_CHARS)) } }
        @if !dead.reason.is_empty() { span.under { (Shown::cell(&dead.reason)) } }
    }
}

/// The message's own attributes on one line.
fn own(message: &MessageRow) -> String {
    const SHOWN: usize = 6;
    let own = message.attributes.iter().filter(|(name, _)| !DeadMark::owns(name));
    let mut shown: Vec<String> = own
        .clone()
        .take(SHOWN)
        .map(|(name, value)| format!("{}={}", Shown::of(name, NAME_CHARS), Shown::cell(value)))
        .collect();
    let more = own.count().saturating_sub(SHOWN);
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(" · ")
}

pub(crate) async fn redrive(
    State(app): State<App>,
    signed: Signed,
    Path((project, id)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let checked = may_operate(&signed).and_then(|()| check_csrf(&signed, &fields));
    let name = match checked.and_then(|()| parse(&project, &id)) {
        Ok(name) => name,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let outcome = match order(&fields) {
        Ok(order) => app.data.redrive(&signed.principal, &name, &order).await.map(|done| told(&done)),
        Err(problem) => Err(problem),
    };
    let filter = fields.get("filter").unwrap_or_default();
    back(&app, &signed, &url(&name.to_string(), filter, None), outcome)
}

fn order(fields: &Fields) -> Result<RedriveOrder, Problem> {
    let invalid = |detail: String| Problem::new(422, "body-invalid", detail);
    let text = |name: &str| fields.get(name).map(str::trim).unwrap_or_default();
    let limit = text("limit").parse().ok().filter(|limit| (1..=MAX_REDRIVE).contains(limit));
    let limit = limit.ok_or_else(|| invalid(format!("one call sends 1 to {MAX_REDRIVE} messages")))?;
    let rate_per_s = match text("rate") {
        "" => None,
        rate => {
            let rate = rate.parse().ok().filter(|rate| (0.1..=100_000.0).contains(rate));
            Some(rate.ok_or_else(|| invalid("a rate is 0.1 to 100000 messages a second".to_owned()))?)
        }
    };
    Ok(RedriveOrder { filter: text("filter").to_owned(), limit, rate_per_s })
}

/// What a redrive did, for a person.
fn told(done: &RedriveDone) -> String {
    let mut text = format!("{} sent back", plural(done.published, "message", "messages"));
    if done.skipped > 0 {
        text.push_str(&format!(", {} left alone by the filter", count(done.skipped)));
    }
    for (refused, why) in &done.refused {
        text.push_str(&format!("; {} refused: {why}", count(*refused)));
    }
    text.push('.');
    if done.more {
        text.push_str(" There may be more: send again.");
    }
    text
}
