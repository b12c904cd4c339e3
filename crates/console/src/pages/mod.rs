//! The pages, one a file, and what they share: the frame, tables' small parts, answers.

pub(crate) mod bytes;
pub(crate) mod dead_letters;
pub(crate) mod frame;
pub(crate) mod lines;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod overview;
pub(crate) mod pipelines;
pub(crate) mod resend;
pub(crate) mod signin;
pub(crate) mod sql;
pub(crate) mod subscriptions;
pub(crate) mod topics;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use levada_core::Problem;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::app::{App, Signed};
use crate::data::Health;
use crate::flash::Flash;
use crate::form::Fields;
use crate::shown::{CELL_CHARS, DETAIL_CHARS, Shown};
use frame::{Frame, Nav};

/// Encodes one path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(crate) async fn not_found(State(app): State<App>, signed: Signed) -> Response {
    problem_page(&app, &signed, None, &missing("there is no such page"))
}

/// A problem for a thing that is not there, or not for this principal: one answer for both.
pub(crate) fn missing(detail: &str) -> Problem {
    Problem::new(404, "not-found", detail).hint("it may have been removed, or your key may not see it")
}

/// Refuses principals without the operating role, in the words of every page.
pub(crate) fn may_operate(signed: &Signed) -> Result<(), Problem> {
    if signed.principal.may_operate() {
        return Ok(());
    }
    Err(Problem::new(403, "role-forbidden", "your key may not see topics, pipelines, models or dead letters")
        .hint("ask an administrator for a key with the role `engineer`"))
}

/// A problem in the frame of a signed-in page.
pub(crate) fn problem_page(app: &App, signed: &Signed, active: Option<Nav>, problem: &Problem) -> Response {
    let title = match problem.status {
        404 => "Not found",
        403 => "Not allowed",
        429 => "Too much at once",
        _ => "Something is wrong",
    };
    let body = html! {
        h1 { (title) }
        (problem_box(problem))
        p { a href="/console" { "To the overview" } }
    };
    let page = Frame { title, active, live: None }.render(app, signed, &body);
    (status(problem), page).into_response()
}

/// A problem before anybody is signed in.
pub(crate) fn bare_problem(app: &App, problem: &Problem) -> Response {
    let body = html! { main.gate { h1 { "Not available now" } (problem_box(problem)) } };
    (status(problem), frame::bare(app, "Not available now", &body)).into_response()
}

pub(crate) fn problem_box(problem: &Problem) -> Markup {
    html! {
        div.notice.bad role="alert" {
            p { strong { (Shown::cell(&problem.detail)) } }
            @if let Some(hint) = &problem.hint { p { (Shown::cell(hint)) } }
            p.faint { code { (problem.code) } }
        }
    }
}

pub(crate) fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Checks a form's token.
pub(crate) fn check_csrf(signed: &Signed, form: &Fields) -> Result<(), Problem> {
    if signed.session.is_csrf(form.get("csrf")) {
        return Ok(());
    }
    Err(Problem::new(403, "form-expired", "this form belongs to an earlier session")
        .hint("reload the page and send it again"))
}

pub(crate) fn csrf_field(signed: &Signed) -> Markup {
    html! { input type="hidden" name="csrf" value=(signed.session.csrf()); }
}

/// Back to a page after a form, with what became of it.
pub(crate) fn back(app: &App, signed: &Signed, to: &str, outcome: Result<String, Problem>) -> Response {
    let flash = match outcome {
        Ok(text) => Flash::Done(Shown::of(text, DETAIL_CHARS).to_string()),
        Err(problem) => Flash::failed(&problem),
    };
    app.sessions.leave(&signed.session, flash);
    Redirect::to(to).into_response()
}

/// Only addresses of the console itself are followed after a form.
pub(crate) fn local(to: Option<&str>) -> &str {
    to.filter(|to| {
        (*to == "/console" || to.starts_with("/console/") || to.starts_with("/console?"))
            && !to.starts_with("/console/sign-in")
            && to.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\')
    })
    .unwrap_or("/console")
}

/// A word with a mark; the mark's shape differs too, not only its colour.
pub(crate) fn health(health: Health) -> Markup {
    let (class, word) = match health {
        Health::Healthy => ("healthy", "healthy"),
        Health::Idle => ("idle", "idle"),
        Health::Waiting => ("waiting", "waiting"),
        Health::Degraded => ("degraded", "degraded"),
        Health::Failing => ("failing", "failing"),
    };
    html! {
        span.health.(class) {
            svg viewBox="0 0 10 10" aria-hidden="true" {
                @match health {
                    Health::Healthy => circle cx="5" cy="5" r="4" {},
                    Health::Idle => circle.ring cx="5" cy="5" r="3.2" {},
                    Health::Waiting => path d="M1 1h8L5 5l4 4H1l4-4z" {},
                    Health::Degraded => path d="M5 .6 9.7 9.2H.3z" {},
                    Health::Failing => path d="M5 0l5 5-5 5-5-5z" {},
                }
            }
            (word)
        }
    }
}

/// Names and values, as many as a page has room for.
pub(crate) fn attributes(class: &str, all: &[(String, String)]) -> Markup {
    const ROOM_BYTES: usize = 512 * 1024;
    let (mut bytes, mut rows) = (0, Vec::new());
    for (name, value) in all {
        let (name, value) = (Shown::of(name, CELL_CHARS), Shown::of(value, DETAIL_CHARS));
        bytes += name.html_bytes() + value.html_bytes() + 64;
        if bytes > ROOM_BYTES && !rows.is_empty() {
            break;
        }
        rows.push((name, value));
    }
    html! {
        @if all.is_empty() { p.faint { "none" } }
        dl.attributes.(class) { @for (name, value) in &rows { div { dt { (name) } dd { (value) } } } }
        @if rows.len() < all.len() { p.faint { (crate::format::count((all.len() - rows.len()) as u64)) " more are not shown." } }
    }
}

/// `1 thing`, `2 things`
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", crate::format::count(n), if n == 1 { one } else { many })
}

/// What a table says when it has no rows.
pub(crate) fn nothing(title: &str, text: &str) -> Markup {
    html! { div.nothing { p { strong { (title) } } p { (text) } } }
}
