//! Sign-in with an API key, and sign-out.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Query, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use levada_core::{Problem, SignIns};
use maud::html;
use serde::Deserialize;

use crate::app::{App, Signed};
use crate::form::Fields;
use crate::pages::{check_csrf, frame, local, problem_page, status};
use crate::session::set_cookie;

/// Longer texts are not keys.
const MAX_KEY_BYTES: usize = 512;

#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    next: Option<String>,
}

pub(crate) async fn show(
    State(app): State<App>,
    signed: Option<Signed>,
    Query(query): Query<Next>,
) -> Response {
    let next = local(query.next.as_deref());
    if signed.is_some() {
        return Redirect::to(next).into_response();
    }
    form(&app, next, None).into_response()
}

pub(crate) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
    fields: Fields,
) -> Response {
    let next = local(fields.get("next")).to_owned();
    let address = address(&extensions);
    let key = fields.get("key").unwrap_or_default().trim();
    let account = SignIns::account(key);
    let answer = if key.is_empty() || key.len() > MAX_KEY_BYTES {
        Err(Problem::new(401, "unauthenticated", "this is not an API key"))
    } else {
        app.data.authenticate(key).await
    };
    match answer {
        Ok(principal) => {
            app.sign_ins.succeeded(address, account);
            tracing::info!(key = %principal.id, "signed in to the console");
            let cookie = set_cookie(&app.config, &headers, &app.sessions.begin(key, &principal));
            ([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response()
        }
        Err(problem) => {
            if problem.status == 401
                && let Err(problem) = app.sign_ins.failed(address, account)
            {
                let seconds = problem.retry_after_s.unwrap_or(1);
                let retry = [(header::RETRY_AFTER, seconds.to_string())];
                return (StatusCode::TOO_MANY_REQUESTS, retry, form(&app, &next, Some(&problem)))
                    .into_response();
            }
            tracing::info!(code = %problem.code, "console sign-in refused");
            (status(&problem), form(&app, &next, Some(&problem))).into_response()
        }
    }
}

pub(crate) async fn sign_out(
    State(app): State<App>,
    headers: HeaderMap,
    signed: Signed,
    fields: Fields,
) -> Response {
    if let Err(problem) = check_csrf(&signed, &fields) {
        return problem_page(&app, &signed, None, &problem);
    }
    app.sessions.end(&signed.session);
    let cookie = set_cookie(&app.config, &headers, "");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/console/sign-in")).into_response()
}

fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

fn form(app: &App, next: &str, problem: Option<&Problem>) -> axum::response::Html<String> {
    let body = html! {
        main.gate {
            div.mark { (frame::logo()) span { "levada" } }
            h1 { "Sign in to " (app.config.project) }
            form method="post" action="/console/sign-in" {
                input type="hidden" name="next" value=(next);
                label for="key" { "API key" }
                input #key type="password" name="key" required autocomplete="current-password"
                    spellcheck="false" autocapitalize="none" autofocus placeholder="lvd_…"
                    aria-describedby="key-help" aria-invalid=[problem.map(|_| "true")];
                @if let Some(problem) = problem {
                    div.notice.bad role="alert" {
                        p { strong { (problem.detail) } }
                        @if let Some(hint) = &problem.hint { p { (hint) } }
                    }
                }
                button.primary type="submit" { "Sign in" }
                p #key-help .faint {
                    "The first administrator's key lies in " code { "admin.key" } " in the data folder. "
                    code { "levada keys create" } " makes more."
                }
            }
        }
    };
    frame::bare(app, "Sign in", &body)
}
