//! Gold models: what they depend on, when they ran, and a button to run one now.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use levada_core::{Principal, Problem};
use maud::{Markup, html};

use crate::app::{App, Signed};
use crate::data::ModelRow;
use crate::form::Fields;
use crate::format::{ago, compact, millis};
use crate::live::{Parts, View};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{back, check_csrf, csrf_field, health, may_operate, missing, nothing, problem_page};
use crate::shown::Shown;

/// The id of the form that the table's buttons send: live updates replace the table, and
/// the form with its token stays.
const FORM: &str = "run-model";

pub(crate) async fn list(State(app): State<App>, signed: Signed) -> Response {
    let shown = match may_operate(&signed) {
        Ok(()) => app.data.models(&signed.principal).await,
        Err(problem) => Err(problem),
    };
    let rows = match shown {
        Ok(rows) => rows,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Models), &problem),
    };
    let view = View::Models;
    let body = html! {
        (title("Models", Some(&view), &html! {}))
        form #(FORM) method="post" action="/console/models/run" { (csrf_field(&signed)) }
        div.scroll #live-models tabindex="0" role="region" aria-label="Models" {
            (table(&rows, app.now_ms(), Some(FORM)))
        }
    };
    Frame { title: "Models", active: Some(Nav::Models), live: Some(&view) }
        .render(&app, &signed, &body)
        .into_response()
}

pub(crate) async fn parts(app: &App, principal: &Principal) -> Result<Parts, Problem> {
    if !principal.may_operate() {
        return Err(missing("there is no such page"));
    }
    let rows = app.data.models(principal).await?;
    let spoken = rows
        .iter()
        .filter_map(|r| r.note.as_ref().map(|note| format!("{}: {note}", r.name)))
        .collect::<Vec<_>>()
        .join(". ");
    Ok(Parts { parts: vec![("live-models", table(&rows, app.now_ms(), Some(FORM)))], spoken })
}

pub(crate) async fn run(State(app): State<App>, signed: Signed, fields: Fields) -> Response {
    let checked = may_operate(&signed).and_then(|()| check_csrf(&signed, &fields));
    if let Err(problem) = checked {
        return problem_page(&app, &signed, Some(Nav::Models), &problem);
    }
    let key = fields.get("model").unwrap_or_default();
    let outcome = app.data.run_model(&signed.principal, key).await;
    back(&app, &signed, "/console/models", outcome)
}

pub(crate) fn table(rows: &[ModelRow], now_ms: i64, run_form: Option<&str>) -> Markup {
    if rows.is_empty() {
        return nothing("No models yet", "A SQL file in models/ makes a gold table.");
    }
    html! {
        table.data.cards {
            thead { tr {
                th scope="col" { "Model" }
                th scope="col" { "Health" }
                th scope="col" { "Reads" }
                th scope="col" { "Runs" }
                th.n scope="col" { "Rows" }
                th.n scope="col" { "Took" }
                th.n scope="col" { "Last run" }
                @if run_form.is_some() { th scope="col" { span.unseen { "Run" } } }
            } }
            tbody { @for row in rows { tr {
                th scope="row" {
                    span.name { (row.name) }
                    @if row.owner != "shared" { span.tag title="Tenant" { (row.owner) } }
                    span.under { (row.table) }
                }
                td.long data-l="Health" { (health(row.health)) @if let Some(note) = &row.note { span.under.note { (Shown::cell(note)) } } }
                td.wrap.long data-l="Reads" { (row.depends_on.join(", ")) }
                td.long data-l="Runs" { @match &row.schedule { Some(cron) => code { (cron) }, None => "after its inputs" } }
                td.n data-l="Rows" { @match row.rows { Some(n) => (compact(n)), None => "–" } }
                td.n data-l="Took" { @match row.last_duration_ms { Some(ms) => (millis(ms as f64)), None => "–" } }
                td.n data-l="Last run" { @match row.last_run_ms { Some(at) => (ago(now_ms, at)), None => "never" } }
                @if let Some(form) = run_form {
                    td.n { button.small type="submit" form=(form) name="model" value=(row.key)
                        aria-label={ "Run " (row.name) " now" } { "Run now" } }
                }
            } } }
        }
    }
}
