//! Configuration, shared state and routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use levada_core::{Clock, Principal, Quotas, RequestPlace, SignIns, SystemClock, TenantId, named_tenant};
use tokio::sync::Semaphore;

use crate::data::ConsoleData;
use crate::session::{SessionView, Sessions, cookie_token};
use crate::{assets, live, pages};

/// How the console behaves. `Default` suits a server on loopback.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// The project's name, shown in the frame.
    pub project: String,
    /// The program's version, shown in the frame.
    pub version: String,
    /// Whether the listener speaks TLS: cookies are then always `Secure`. Behind a proxy
    /// that sends `X-Forwarded-Proto: https` they are so in any case.
    pub https: bool,
    /// A session ends this long after sign-in,
    pub session_lifetime: Duration,
    /// or this long after the last page was asked for.
    pub session_idle: Duration,
    /// Of all keys; of one owner, its quota `console_sessions`. At either bound a session of whoever
    /// has most makes room, the one that was unused longest.
    pub max_sessions: usize,
    pub quotas: Quotas,
    /// Between two live updates of a page.
    pub live_interval: Duration,
    /// Open live streams of all sessions together; of one owner, its quota `streams`.
    pub max_live: usize,
    /// Statements that run at once for all sessions together.
    pub max_queries: usize,
    /// Rows that a page of SQL results shows.
    pub max_result_rows: usize,
    /// Failed sign-ins of one key from one address: this many at once, then one every
    /// `signin_refill`.
    pub signin_burst: u32,
    pub signin_refill: Duration,
    pub clock: Arc<dyn Clock>,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            project: "levada".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            https: false,
            session_lifetime: Duration::from_secs(12 * 3600),
            session_idle: Duration::from_secs(4 * 3600),
            max_sessions: 1024,
            quotas: Quotas::default(),
            live_interval: Duration::from_secs(2),
            max_live: 1_024,
            max_queries: 64,
            max_result_rows: 500,
            signin_burst: 10,
            signin_refill: Duration::from_secs(10),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// State of all handlers.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub data: Arc<dyn ConsoleData>,
    pub config: ConsoleConfig,
    pub sessions: Sessions,
    pub sign_ins: SignIns,
    pub live: Arc<Semaphore>,
    pub queries: Semaphore,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn now_ms(&self) -> i64 {
        self.config.clock.now_ms()
    }
}

/// Largest form that a page sends; a SQL statement is the largest field.
const MAX_FORM_BYTES: usize = 256 * 1024;

/// A key and where to go: nobody is known yet against whom more could count.
const MAX_SIGN_IN_BYTES: usize = 8 * 1024;

/// The console under `/console`, and a redirect to it from `/`.
///
/// Where the server gives `ConnectInfo<SocketAddr>`, failed sign-ins are limited by key and
/// address; else by key alone.
pub fn router(data: Arc<dyn ConsoleData>, config: ConsoleConfig) -> Router {
    let app = App(Arc::new(Inner {
        sessions: Sessions::new(&config),
        sign_ins: SignIns::new(config.clock.clone(), config.signin_burst, config.signin_refill),
        live: Arc::new(Semaphore::new(config.max_live)),
        queries: Semaphore::new(config.max_queries),
        data,
        config,
    }));
    let console = Router::new()
        .route("/console", get(pages::overview::show))
        .route(
            "/console/sign-in",
            get(pages::signin::show)
                .post(pages::signin::submit)
                .layer(DefaultBodyLimit::max(MAX_SIGN_IN_BYTES)),
        )
        .route("/console/sign-out", post(pages::signin::sign_out))
        .route("/console/pipelines", get(pages::pipelines::list))
        .route("/console/pipelines/{key}", get(pages::pipelines::detail))
        .route("/console/models", get(pages::models::list))
        .route("/console/models/run", post(pages::models::run))
        .route("/console/topics", get(pages::topics::list))
        .route("/console/subscriptions", get(pages::subscriptions::list))
        .route("/console/subscriptions/{project}/{id}", get(pages::subscriptions::detail))
        .route("/console/subscriptions/{project}/{id}/unblock", post(pages::subscriptions::unblock))
        .route("/console/subscriptions/{project}/{id}/weights", post(pages::subscriptions::weigh))
        .route("/console/subscriptions/{project}/{id}/redrive", post(pages::messages::redrive))
        .route("/console/subscriptions/{project}/{id}/messages", get(pages::messages::list))
        .route(
            "/console/subscriptions/{project}/{id}/messages/{message_id}",
            get(pages::resend::detail).post(pages::resend::send),
        )
        .route("/console/subscriptions/{project}/{id}/messages/{message_id}/body", get(pages::resend::body))
        .route("/console/dead-letters", get(pages::dead_letters::list))
        .route("/console/dead-letters/resend", post(pages::dead_letters::resend))
        .route("/console/dead-letters/{topic}/{offset}", get(pages::dead_letters::detail))
        .route("/console/dead-letters/{topic}/{offset}/body", get(pages::dead_letters::body))
        .route("/console/sql", get(pages::sql::show).post(pages::sql::run))
        .route("/console/live", get(live::stream))
        .route("/console/assets/{file}", get(assets::serve))
        .route("/console/{*rest}", get(pages::not_found))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn(guard))
        .with_state(app);
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console") }))
        .route("/console/", get(|| async { Redirect::permanent("/console") }))
        .merge(console)
}

const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Refuses forms sent by other sites, and sets the headers that every answer carries.
async fn guard(request: Request, next: Next) -> Response {
    if request.method() != Method::GET
        && request.method() != Method::HEAD
        && !is_own_origin(request.headers())
    {
        return (StatusCode::FORBIDDEN, "this form was sent by another site").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request that changes something comes from our own pages. Browsers send
/// `Origin` with every form; a client that sends none is no browser and holds no cookie.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    if matches!(site, Some("cross-site" | "same-site")) {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Some(host) = headers.get(header::HOST).and_then(|v| v.to_str().ok()) else {
        return site == Some("same-origin");
    };
    origin.to_str().ok().and_then(|o| o.split_once("://")).is_some_and(|(_, authority)| authority == host)
}

/// A signed-in request: the key was checked again for this very request.
pub(crate) struct Signed {
    pub principal: Arc<Principal>,
    pub session: SessionView,
    /// The one tenant that the request asks for.
    pub tenant: Option<TenantId>,
    /// Its place among the requests in flight; none in tests without a server.
    pub place: Option<Arc<RequestPlace>>,
}

impl FromRequestParts<App> for Signed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match <Self as OptionalFromRequestParts<App>>::from_request_parts(parts, app).await? {
            Some(signed) => Ok(signed),
            None => Err(sign_in_first(parts)),
        }
    }
}

impl OptionalFromRequestParts<App> for Signed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Response> {
        let Some(token) = cookie_token(&parts.headers) else { return Ok(None) };
        let Some(session) = app.sessions.touch(&token) else { return Ok(None) };
        let named = parts.headers.get_all("x-tenant-id").iter().map(HeaderValue::as_bytes);
        let tenant = named_tenant(named).map_err(|problem| pages::bare_problem(app, &problem))?;
        match check(app, &session, tenant.as_ref()).await {
            Ok(None) => Ok(None),
            Ok(Some(principal)) => {
                let place = parts.extensions.get::<Arc<RequestPlace>>().cloned();
                let counted = place.as_ref().map_or(Ok(()), |place| place.identify(&principal));
                counted.map_err(|problem| pages::bare_problem(app, &problem))?;
                Ok(Some(Self { principal, session, tenant, place }))
            }
            Err(problem) => Err(pages::bare_problem(app, &problem)),
        }
    }
}

/// Authenticates a session's key again, within a tenant where one is given. A refused key ends
/// the session (`None`).
pub(crate) async fn check(
    app: &App,
    session: &SessionView,
    tenant: Option<&TenantId>,
) -> Result<Option<Arc<Principal>>, levada_core::Problem> {
    match app.data.authenticate(session.secret()).await {
        Ok(principal) => match tenant {
            Some(tenant) => principal.narrowed(tenant).map(Some),
            None => Ok(Some(principal)),
        },
        Err(problem) if problem.status == 401 => {
            app.sessions.end(session);
            Ok(None)
        }
        Err(problem) => Err(problem),
    }
}

/// Pages lead to the sign-in page and back; parts of pages just answer 401.
fn sign_in_first(parts: &Parts) -> Response {
    if parts.method != Method::GET || parts.headers.contains_key("x-part") {
        return (StatusCode::UNAUTHORIZED, "sign in first").into_response();
    }
    let next = parts.uri.path_and_query().map_or("/console", |p| p.as_str());
    let next = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC);
    Redirect::to(&format!("/console/sign-in?next={next}")).into_response()
}
