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
use crate::format::{bytes, compact, count, millis};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::{check_csrf, csrf_field, nothing, plural, problem_box, status};
use crate::rows::ShownRows;
use crate::shown::CELL_CHARS;

const MAX_SQL_BYTES: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
pub(crate) struct Given {
    /// Put into the box, not run: a link must not make a browser query.
    sql: Option<String>,
}

pub(crate) async fn show(State(app): State<App>, signed: Signed, Query(given): Query<Given>) -> Response {
    page(&app, &signed, given.sql.as_deref().unwrap_or_default(), None).await.into_response()
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
        return (code, Html(rendered(answer).await.into_string())).into_response();
    }
    let code = answer.as_ref().err().map(status).unwrap_or_default();
    let result = rendered(answer).await;
    (code, page(&app, &signed, sql, Some(&result)).await).into_response()
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

async fn page(app: &App, signed: &Signed, sql: &str, result: Option<&Markup>) -> Html<String> {
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
                    @if let Some(result) = result { (result) }
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
    Frame { title: "SQL", active: Some(Nav::Sql), live: None }.render(app, signed, &body)
}

/// A large result is written off the threads that answer requests.
async fn rendered(answer: Result<QueryAnswer, Problem>) -> Markup {
    const LARGE_BYTES: usize = 128 * 1024;
    if answer.as_ref().map_or(0, |answer| answer.rows.bytes()) <= LARGE_BYTES {
        return result(&answer);
    }
    let failed = || problem_box(&Problem::new(500, "internal", "the result could not be shown"));
    tokio::task::spawn_blocking(move || result(&answer)).await.unwrap_or_else(|_| failed())
}

fn result(answer: &Result<QueryAnswer, Problem>) -> Markup {
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return problem_box(problem),
    };
    let rows = &answer.rows;
    let number = plural(rows.rows().len() as u64, "row", "rows");
    html! {
        p.outcome {
            @if answer.truncated || rows.is_full() { strong { "The first " (number) } } @else { strong { (number) } }
            " in " (millis(answer.elapsed_ms as f64))
            @if !answer.as_of.is_empty() { span.faint { " · as of epoch " (answer.as_of.join(", ")) } }
        }
        @if let Some(text) = left_out(rows) { p.outcome { (text) } }
        @if !rows.columns().is_empty() {
            div.scroll.tall tabindex="0" role="region" aria-label="Rows" {
                table.data.result {
                    thead { tr { @for column in rows.columns() {
                        th.n[column.numeric] scope="col" { (column.name) span.kind { (column.kind) } }
                    } } }
                    tbody { @for row in rows.rows() { tr {
                        @for (column, value) in rows.columns().iter().zip(row) {
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

/// What of a result the page does not show.
fn left_out(rows: &ShownRows) -> Option<String> {
    let all = rows.columns().len() + rows.more_columns();
    let parts = [
        rows.is_full().then(|| "The page has no room for further rows.".to_owned()),
        (rows.more_columns() > 0).then(|| {
            format!(
                "The first {} of {} columns are shown.",
                count((all - rows.more_columns()) as u64),
                count(all as u64)
            )
        }),
        rows.has_cut()
            .then(|| format!("Values longer than {} characters are cut.", count(CELL_CHARS as u64))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{} POST /v1/sql and the PostgreSQL port give all.", parts.join(" ")))
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
