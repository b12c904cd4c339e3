//! The SQL box: one statement, its rows or its error, and the tables there are.

use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Response};
use levada_core::Problem;
use maud::{Markup, html};
use serde::Deserialize;

use crate::app::{App, Signed};
use crate::data::{QueryAnswer, TableRow};
use crate::form::Fields;
use crate::format::{bytes, compact, millis};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{check_csrf, csrf_field, nothing, plural, problem_box, status};

const MAX_SQL_BYTES: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
pub(crate) struct Given {
    /// Put into the box, not run: a link must not make a browser query.
    sql: Option<String>,
}

pub(crate) async fn show(State(app): State<App>, signed: Signed, Query(given): Query<Given>) -> Response {
    page(&app, &signed, given.sql.as_deref().unwrap_or_default(), None).await
}

/// Runs the statement. With the header `X-Part` only the result is answered.
pub(crate) async fn run(
    State(app): State<App>,
    signed: Signed,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    let sql = fields.get("sql").unwrap_or_default();
    let answer = match check_csrf(&signed, &fields) {
        Ok(()) => query(&app, &signed, sql).await,
        Err(problem) => Err(problem),
    };
    if headers.contains_key("x-part") {
        let code = answer.as_ref().err().map(status).unwrap_or_default();
        return (code, Html(result(&answer).into_string())).into_response();
    }
    page(&app, &signed, sql, Some(&answer)).await
}

async fn query(app: &App, signed: &Signed, sql: &str) -> Result<QueryAnswer, Problem> {
    if sql.trim().is_empty() {
        return Err(Problem::new(422, "sql-empty", "there is no statement to run")
            .hint("write one, such as SELECT 1"));
    }
    if sql.len() > MAX_SQL_BYTES {
        return Err(Problem::new(413, "sql-too-long", "the statement is longer than 64 KiB"));
    }
    let Ok(_permit) = app.queries.try_acquire() else {
        return Err(Problem::new(
            429,
            "too-many-queries",
            "too many statements are running from the console",
        )
        .hint("wait for one to end and try again"));
    };
    let started = Instant::now();
    let answer = app.data.query(&signed.principal, sql, app.config.max_result_rows).await;
    tracing::debug!(
        key = %signed.principal.id,
        elapsed_ms = started.elapsed().as_millis() as u64,
        ok = answer.is_ok(),
        "console statement"
    );
    answer
}

async fn page(
    app: &App,
    signed: &Signed,
    sql: &str,
    answer: Option<&Result<QueryAnswer, Problem>>,
) -> Response {
    let tables = app.data.tables(&signed.principal).await;
    let lines = sql.lines().count().clamp(6, 20);
    let body = html! {
        (title("SQL", None, &html! {}))
        div.sql {
            div.work {
                form #sql-form method="post" action="/console/sql" {
                    (csrf_field(signed))
                    label for="sql" { "Statement" span.faint { " read-only" } }
                    textarea #sql name="sql" rows=(lines) spellcheck="false" autocapitalize="none" autocomplete="off"
                        maxlength=(MAX_SQL_BYTES) required aria-describedby="sql-help"
                        placeholder="SELECT * FROM silver.… LIMIT 20" { (sql) }
                    div.bar.actions {
                        button.primary type="submit" { "Run" }
                        button #sql-stop type="button" hidden { "Stop" }
                        span #sql-help .faint.keys { kbd { "Ctrl" } " " kbd { "Enter" } " runs it" }
                    }
                }
                div #result role="region" aria-label="Result" aria-live="polite" tabindex="-1" {
                    @if let Some(answer) = answer { (result(answer)) }
                }
            }
            aside.tables aria-labelledby="h-tables" {
                h2 #h-tables { "Tables" }
                @match &tables {
                    Ok(tables) => (table_list(tables)),
                    Err(problem) => (problem_box(problem)),
                }
            }
        }
    };
    let code = answer.and_then(|a| a.as_ref().err()).map(status).unwrap_or_default();
    let page = Frame { title: "SQL", active: Some(Nav::Sql), live: None }.render(app, signed, &body);
    (code, page).into_response()
}

fn result(answer: &Result<QueryAnswer, Problem>) -> Markup {
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return problem_box(problem),
    };
    let rows = plural(answer.rows.len() as u64, "row", "rows");
    html! {
        p.outcome {
            @if answer.truncated { strong { "The first " (rows) } } @else { strong { (rows) } }
            " in " (millis(answer.elapsed_ms as f64))
            @if !answer.as_of.is_empty() { span.faint { " · as of epoch " (answer.as_of.join(", ")) } }
        }
        @if !answer.columns.is_empty() {
            div.scroll.tall tabindex="0" role="region" aria-label="Rows" {
                table.data.result {
                    thead { tr { @for column in &answer.columns {
                        th.n[column.numeric] scope="col" { (column.name) span.kind { (column.kind) } }
                    } } }
                    tbody { @for row in &answer.rows { tr {
                        @for (column, value) in answer.columns.iter().zip(row) {
                            @match value {
                                Some(text) => td.n[column.numeric] { (text) },
                                None => td.null.n[column.numeric] { "null" },
                            }
                        }
                    } } }
                }
            }
        }
    }
}

/// How much a table holds, as far as that is told.
fn size(table: &TableRow) -> Option<String> {
    let (file, files) =
        if table.name.starts_with("bronze.") { ("object", "objects") } else { ("file", "files") };
    let parts = [
        table.rows.map(|n| plural(n, "row", "rows")),
        table.files.map(|n| plural(n, file, files)),
        table.bytes.map(bytes),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

fn table_list(tables: &[TableRow]) -> Markup {
    if tables.is_empty() {
        return nothing("None yet", "Tables that your key may read appear here.");
    }
    html! {
        ul { @for table in tables {
            li { details {
                summary {
                    span.name { (table.name) }
                    @if let Some(rows) = table.rows { span.faint.n { (compact(rows)) } }
                }
                @if let Some(text) = &table.description { p { (text) } }
                @if let Some(text) = size(table) { p.faint { (text) } }
                dl { @for (name, kind) in &table.columns { div { dt { (name) } dd { (kind) } } } }
                button.small type="button" hidden data-select-from=(table.name) { "Select from it" }
            } }
        } }
    }
}
