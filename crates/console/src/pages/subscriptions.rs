//! Subscriptions: the list, and one with its figures, tenants and blocked ordering keys.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use levada_core::{Principal, Problem, ResourceName};
use maud::{Markup, html};

use crate::app::{App, Signed};
use crate::data::{BlockedRow, LaneRow, SubscriptionDetail, SubscriptionRow, Unblock};
use crate::form::Fields;
use crate::format::{ago, bytes, compact, count, rate, span};
use crate::live::{Parts, View};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::pipelines::number;
use crate::pages::{
    back, check_csrf, csrf_field, encode, health, may_operate, missing, nothing, problem_page,
};
use crate::shown::Shown;
use crate::subscription::ReplayMark;

/// The id of the form that the buttons of blocked keys send: live updates replace the table,
/// and the form with its token stays.
const FORM: &str = "unblock";

pub(crate) async fn list(State(app): State<App>, signed: Signed) -> Response {
    let shown = match may_operate(&signed) {
        Ok(()) => app.data.subscriptions(&signed.principal).await,
        Err(problem) => Err(problem),
    };
    let rows = match shown {
        Ok(rows) => rows,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let view = View::Subscriptions;
    let body = html! {
        (title("Subscriptions", Some(&view), &html! {}))
        div.scroll #live-subscriptions tabindex="0" role="region" aria-label="Subscriptions" { (table(&rows)) }
    };
    Frame { title: "Subscriptions", active: Some(Nav::Subscriptions), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn list_parts(app: &App, principal: &Principal) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such page"));
    }
    let rows = app.data.subscriptions(principal).await?;
    let spoken = rows.iter().filter_map(|r| r.note.as_ref().map(|note| format!("{}: {note}", r.name)));
    let spoken = spoken.collect::<Vec<_>>().join(". ");
    Ok(Parts { parts: vec![("live-subscriptions", table(&rows))], spoken })
}

pub(crate) fn address(name: &str) -> String {
    let (project, id) = name.split_once('/').unwrap_or((name, ""));
    format!("/console/subscriptions/{}/{}", encode(project), encode(id))
}

fn table(rows: &[SubscriptionRow]) -> Markup {
    if rows.is_empty() {
        return nothing("No subscriptions yet", "A client of the Pub/Sub API makes one on a topic.");
    }
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Subscription" }
                th scope="col" { "Health" }
                th.n scope="col" { "Backlog" }
                th.n scope="col" { "Oldest" }
                th.n scope="col" { "Out /s" }
                th.n scope="col" { "Acks /s" }
                th.n scope="col" { "On lease" }
                th.n scope="col" { "Dead" }
                th.n scope="col" { "Blocked keys" }
            } }
            tbody { @for row in rows { tr {
                th scope="row" {
                    a href=(address(&row.name)) { (row.name) }
                    @if row.owner != "shared" { span.tag title="Tenant" { (row.owner) } }
                    (replay_mark(row))
                    span.under { (topic(row)) " → " (row.delivery) }
                }
                td.long data-l="Health" { (health(row.health)) @if let Some(note) = &row.note { span.under.note { (Shown::cell(note)) } } }
                td.n data-l="Backlog" { (backlog(row)) }
                td.n data-l="Oldest" { (oldest(row)) }
                td.n data-l="Out /s" { (rate(row.delivered_per_s)) }
                td.n data-l="Acks /s" { (rate(row.acknowledged_per_s)) }
                (number("On lease", row.leased))
                (number("Dead", row.dead_lettered))
                (number("Blocked keys", row.blocked_keys))
            } } }
        }
    }
}

fn replay_mark(row: &SubscriptionRow) -> Markup {
    html! { @if let Some(replay) = &row.replay {
        span.tag title={ "Replay of " (replay.source) } { @if replay.finished { "replay, finished" } @else { "replay" } }
    } }
}

fn topic(row: &SubscriptionRow) -> &str {
    row.topic.as_deref().unwrap_or("no topic")
}

fn backlog(row: &SubscriptionRow) -> Markup {
    let about = !row.backlog_is_exact && row.backlog > 0;
    html! { span title=[(row.backlog >= 1_000_000).then(|| count(row.backlog))] {
        @if about { span title="An estimate: not all of it was looked at" { "~" } }
        (compact(row.backlog))
    } }
}

fn oldest(row: &SubscriptionRow) -> Markup {
    html! { @match row.oldest_s { Some(seconds) => (span(seconds)), None => span.faint { "–" } } }
}

pub(crate) async fn detail(
    State(app): State<App>,
    signed: Signed,
    Path((project, id)): Path<(String, String)>,
) -> Response {
    let key = format!("{project}/{id}");
    let found = match may_operate(&signed) {
        Ok(()) => load(&app, &signed.principal, &key).await,
        Err(problem) => Err(problem),
    };
    let (_, detail) = match found {
        Ok(found) => found,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let view = View::Subscription { key };
    let row = &detail.row;
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/console/subscriptions" { "Subscriptions" } }
        (title(&row.name, Some(&view), &html! { div #live-health { (health(row.health)) } }))
        p.lead { a href={ (address(&row.name)) "/messages" } { "Look at its messages" } }
        dl.facts { @for (name, value) in &detail.settings { div { dt { (name) } dd { (Shown::cell(value)) } } } }
        section #live-figures aria-label="Figures" { (figures(row)) }
        section aria-labelledby="h-blocked" {
            div.bar { h2 #h-blocked { "Blocked ordering keys" } }
            form #(FORM) method="post" action={ (address(&row.name)) "/unblock" } { (csrf_field(&signed)) }
            div.scroll #live-blocked tabindex="0" role="region" aria-labelledby="h-blocked" {
                (blocked(&detail, app.now_ms()))
            }
        }
        section aria-labelledby="h-lanes" {
            div.bar { h2 #h-lanes { "Delivery by tenant" } span.faint { "since the platform was started" } }
            div.scroll #live-lanes tabindex="0" role="region" aria-labelledby="h-lanes" { (lanes(&detail.lanes)) }
        }
        (weights(&signed, &detail))
    };
    Frame { title: &row.name, active: Some(Nav::Subscriptions), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn detail_parts(app: &App, principal: &Principal, key: &str) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such page"));
    }
    let (_, detail) = load(app, principal, key).await?;
    let spoken = detail.row.note.clone().unwrap_or_default();
    Ok(Parts {
        parts: vec![
            ("live-health", health(detail.row.health)),
            ("live-figures", figures(&detail.row)),
            ("live-blocked", blocked(&detail, app.now_ms())),
            ("live-lanes", lanes(&detail.lanes)),
        ],
        spoken,
    })
}

async fn load(
    app: &App,
    principal: &Principal,
    key: &str,
) -> Result<(ResourceName, SubscriptionDetail), Problem> {
    let none = || missing("there is no such subscription");
    let name: ResourceName = key.parse().map_err(|_| none())?;
    let found = app.data.subscription(principal, &name).await?.ok_or_else(none)?;
    Ok((name, found))
}

fn figures(row: &SubscriptionRow) -> Markup {
    let total = |n: u64| html! { dd.big title=[(n >= 1_000_000).then(|| count(n))] { (compact(n)) } };
    html! {
        @if let Some(note) = &row.note { ul.notes.(if row.replay.is_some() { "idle" } else { "" }) { li { (Shown::cell(note)) } } }
        @if let Some(replay) = &row.replay { (progress(row, replay)) }
        dl.figures.small {
            div { dt { "Backlog" } dd.big { (backlog(row)) } }
            div { dt { "Oldest waits" } dd.big { (oldest(row)) } }
            div { dt { "On lease" } (total(row.leased)) dd.second { (compact(row.expired)) " expired" } }
            div { dt { "Delivered" } (total(row.delivered)) dd.second { (rate(row.delivered_per_s)) " /s" } }
            div { dt { "Acknowledged" } (total(row.acknowledged)) dd.second { (rate(row.acknowledged_per_s)) " /s" } }
            div { dt { "Delivered again" } (total(row.redelivered))
                dd.second { (compact(row.dead_lettered)) " dead letters" } }
        }
    }
}

/// How far a replay is, by what was acknowledged since the platform was started.
fn progress(row: &SubscriptionRow, replay: &ReplayMark) -> Markup {
    let whole = row.acknowledged.saturating_add(row.backlog).max(1);
    let part = if replay.finished { 1.0 } else { row.acknowledged as f64 / whole as f64 };
    html! {
        div.progress {
            p {
                "Replay of " a href=(address(&replay.source)) { (replay.source) } ": "
                @if replay.finished { "finished." }
                @else { strong { (count(row.acknowledged)) } " acknowledged, " strong { (backlog(row)) } " to go." }
            }
            svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={ (format!("{:.0} %", part * 100.0)) } {
                rect width=(format!("{:.1}", part * 100.0)) height="8" {}
            }
        }
    }
}

/// Weights and the forms that change them, outside of what live updates replace.
fn weights(signed: &Signed, detail: &SubscriptionDetail) -> Markup {
    let action = format!("{}/weights", address(&detail.row.name));
    html! {
        section aria-labelledby="h-weights" {
            div.bar { h2 #h-weights { "Weights of tenants" }
                span.faint { "shares in delivery while several wait; a tenant without a weight counts 1" } }
            @if !detail.weights.is_empty() {
                form.weights method="post" action=(action) {
                    (csrf_field(signed))
                    @for (tenant, weight) in &detail.weights {
                        span.weight { strong { (tenant) } " " (weight)
                            button.small type="submit" name="remove" value=(tenant) aria-label={ "Take the weight of " (tenant) " away" } { "Remove" } }
                    }
                }
            }
            form.filter method="post" action=(action) {
                (csrf_field(signed))
                div.field {
                    label for="w-tenant" { "Tenant" }
                    input #w-tenant type="text" name="tenant" list="w-tenants" autocomplete="off" spellcheck="false" required;
                    datalist #w-tenants { @for lane in &detail.lanes { option value=(lane.tenant) {} } }
                }
                div.field.short {
                    label for="w-weight" { "Weight" }
                    input #w-weight type="number" name="weight" min="1" max="1000" step="1" required;
                }
                button type="submit" { "Set weight" }
            }
        }
    }
}

pub(crate) async fn weigh(
    State(app): State<App>,
    signed: Signed,
    Path((project, id)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let checked = may_operate(&signed).and_then(|()| check_csrf(&signed, &fields));
    let name = match checked.and_then(|()| crate::pages::messages::parse(&project, &id)) {
        Ok(name) => name,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let asked = match (fields.get("remove"), fields.get("tenant"), fields.get("weight")) {
        (Some(tenant), _, _) => Ok((tenant, None)),
        (None, Some(tenant), Some(weight)) => {
            let weight = weight.trim().parse().ok().filter(|weight| (1..=1_000).contains(weight));
            let invalid = || Problem::new(422, "body-invalid", "a weight is a whole number of 1 to 1000");
            weight.ok_or_else(invalid).map(|weight: u32| (tenant.trim(), Some(weight)))
        }
        _ => Err(Problem::new(422, "nothing-selected", "no tenant was named")),
    };
    let outcome = match asked {
        Ok((tenant, weight)) => app.data.weigh(&signed.principal, &name, tenant, weight).await,
        Err(problem) => Err(problem),
    };
    back(&app, &signed, &address(&name.to_string()), outcome)
}

fn blocked(detail: &SubscriptionDetail, now_ms: i64) -> Markup {
    if detail.blocked.is_empty() {
        return nothing("None", "No message waits behind another one of its ordering key.");
    }
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Ordering key" }
                th scope="col" { "Tenant" }
                th.n scope="col" { "Message" }
                th.n scope="col" { "Attempt" }
                th.n scope="col" { "Waiting" }
                th.n scope="col" { "Since" }
                th scope="col" { span.unseen { "Unblock" } }
            } }
            tbody { @for key in &detail.blocked { tr {
                th.wrap scope="row" { code { (Shown::cell(&key.key)) } }
                td data-l="Tenant" { (key.tenant) }
                td.n data-l="Message" { (key.message_id) }
                td.n data-l="Attempt" { (key.attempt) }
                (number("Waiting", key.waiting))
                td.n data-l="Since" { (ago(now_ms, key.since_ms)) }
                td.n.long { div.buttons { (buttons(key, detail.can_park)) } }
            } } }
        }
    }
}

fn buttons(key: &BlockedRow, can_park: bool) -> Markup {
    let place = format!("{}/{}", key.tenant, key.key);
    let why = (!can_park).then_some("The subscription has no dead-letter policy");
    html! {
        button.small type="submit" form=(FORM) name="skip" value=(place) aria-label={ "Skip the message of " (key.key) }
            title="Acknowledge the message that blocks the key" { "Skip" }
        button.small type="submit" form=(FORM) name="park" value=(place) aria-label={ "Park the messages of " (key.key) }
            disabled[!can_park] title=(why.unwrap_or("Move it, and what waits behind it, to the dead letter")) { "Park" }
    }
}

fn lanes(lanes: &[LaneRow]) -> Markup {
    if lanes.is_empty() {
        return nothing("Nothing yet", "Tenants show up with their first message.");
    }
    html! {
        table.data.cards.lanes {
            thead { tr {
                th scope="col" { "Tenant" }
                th.n scope="col" { "Weight" }
                th.n scope="col" { "Backlog" }
                th.n scope="col" { "Delivered" }
                th.n scope="col" { "Bytes" }
                th.n scope="col" { "Share" }
                th scope="col" { span.unseen { "Share as a bar" } }
            } }
            tbody { @for lane in lanes { tr {
                th scope="row" { span.name { (lane.tenant) } }
                td.n data-l="Weight" { (lane.weight) }
                (number("Backlog", lane.backlog))
                (number("Delivered", lane.delivered))
                td.n data-l="Bytes" { (bytes(lane.delivered_bytes)) }
                td.n data-l="Share" { (format!("{:.1} %", lane.share * 100.0)) }
                td.gauge.long { svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                    rect width=(format!("{:.1}", (lane.share * 100.0).clamp(0.0, 100.0))) height="8" {}
                } }
            } } }
        }
    }
}

pub(crate) async fn unblock(
    State(app): State<App>,
    signed: Signed,
    Path((project, id)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    if let Err(problem) = may_operate(&signed).and_then(|()| check_csrf(&signed, &fields)) {
        return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem);
    }
    let Ok(name) = format!("{project}/{id}").parse::<ResourceName>() else {
        let problem = missing("there is no such subscription");
        return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem);
    };
    let outcome = free(&app, &signed, &name, &fields).await;
    back(&app, &signed, &address(&name.to_string()), outcome)
}

async fn free(app: &App, signed: &Signed, name: &ResourceName, fields: &Fields) -> Result<String, Problem> {
    let asked = match (fields.get("skip"), fields.get("park")) {
        (Some(place), None) => Some((place, Unblock::Skip)),
        (None, Some(place)) => Some((place, Unblock::Park)),
        _ => None,
    };
    // A tenant's name has no slash; a key may have many.
    let asked = asked.and_then(|(place, how)| Some((place.split_once('/')?, how)));
    let ((tenant, key), how) = asked.ok_or_else(|| {
        Problem::new(422, "nothing-selected", "no ordering key was named").hint("use a button of the table")
    })?;
    app.data.unblock(&signed.principal, name, tenant, key, how).await
}
