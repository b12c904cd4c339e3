//! Live updates: a page's changing parts, rendered again and sent as server-sent events
//! when they differ from what was sent before.
//!
//! A stream asks for the key again at every turn, so a revoked key goes dark at once. It
//! does not count as use of the session.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use levada_core::{Principal, Problem, Quota, QuotaOwner, QuotaPlace, TenantId};
use maud::Markup;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, Signed, check};
use crate::pages;
use crate::session::SessionView;
use crate::shown::Shown;

/// The parts of a page that change: element id and content.
pub(crate) struct Parts {
    pub parts: Vec<(&'static str, Markup)>,
    /// Read out by screen readers when it changes; also the tooltip of the live mark.
    pub spoken: String,
}

/// A page that has live parts.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "view", rename_all = "kebab-case")]
pub(crate) enum View {
    Overview,
    Pipelines,
    Pipeline { key: String },
    Models,
    Topics,
    Subscriptions,
    Subscription { key: String },
}

impl View {
    /// Where a page's script connects to.
    pub fn url(&self) -> String {
        let name = match self {
            View::Overview => "overview",
            View::Pipelines => "pipelines",
            View::Models => "models",
            View::Topics => "topics",
            View::Subscriptions => "subscriptions",
            View::Subscription { key } => {
                return format!("/console/live?view=subscription&key={}", pages::encode(key));
            }
            View::Pipeline { key } => {
                return format!("/console/live?view=pipeline&key={}", pages::encode(key));
            }
        };
        format!("/console/live?view={name}")
    }

    async fn render(&self, app: &App, principal: &Principal) -> Result<Parts, Problem> {
        match self {
            View::Overview => pages::overview::parts(app, principal).await,
            View::Pipelines => pages::pipelines::list_parts(app, principal).await,
            View::Pipeline { key } => pages::pipelines::detail_parts(app, principal, key).await,
            View::Models => pages::models::parts(app, principal).await,
            View::Topics => pages::topics::parts(app, principal).await,
            View::Subscriptions => pages::subscriptions::list_parts(app, principal).await,
            View::Subscription { key } => pages::subscriptions::detail_parts(app, principal, key).await,
        }
    }
}

struct Turn {
    app: App,
    session: SessionView,
    tenant: Option<TenantId>,
    view: View,
    /// Hash of each part as last sent.
    sent: Vec<[u8; 32]>,
    first: bool,
    _permit: OwnedSemaphorePermit,
    _place: QuotaPlace,
}

pub(crate) async fn stream(State(app): State<App>, signed: Signed, Query(view): Query<View>) -> Response {
    let Ok(permit) = Arc::clone(&app.live).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "10")], "too many live pages are open")
            .into_response();
    };
    let place = match &signed.place {
        Some(place) => place.wait(&signed.principal, Quota::Streams),
        None => app.config.quotas.take(&QuotaOwner::of(&signed.principal), Quota::Streams),
    };
    let place = match place {
        Ok(place) => place,
        Err(problem) => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "10")], problem.detail).into_response();
        }
    };
    let (session, tenant) = (signed.session, signed.tenant);
    let turn =
        Turn { app, session, tenant, view, sent: Vec::new(), first: true, _permit: permit, _place: place };
    let events = stream::unfold(Some(turn), |turn| async move {
        let mut turn = turn?;
        if !turn.first {
            tokio::time::sleep(turn.app.config.live_interval).await;
        }
        turn.first = false;
        let event = turn.next().await;
        let rest = event.1.then_some(turn);
        Some((Ok::<_, Infallible>(event.0), rest))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

impl Turn {
    /// The next event, and whether there will be more.
    async fn next(&mut self) -> (Event, bool) {
        if !self.app.sessions.is_alive(&self.session) {
            return (gone(), false);
        }
        let principal = match check(&self.app, &self.session, self.tenant.as_ref()).await {
            Ok(Some(principal)) => principal,
            Ok(None) => return (gone(), false),
            Err(problem) => return (trouble(&problem), true),
        };
        match self.view.render(&self.app, &principal).await {
            Ok(parts) => (self.difference(&parts), true),
            Err(problem) if problem.status == 404 || problem.status == 403 => (gone(), false),
            Err(problem) => (trouble(&problem), true),
        }
    }

    fn difference(&mut self, now: &Parts) -> Event {
        let hashes: Vec<[u8; 32]> =
            now.parts.iter().map(|(_, m)| *blake3::hash(m.0.as_bytes()).as_bytes()).collect();
        let changed: serde_json::Map<String, serde_json::Value> = now
            .parts
            .iter()
            .zip(&hashes)
            .enumerate()
            .filter(|(i, (_, hash))| self.sent.get(*i) != Some(hash))
            .map(|(_, ((id, markup), _))| ((*id).to_owned(), markup.0.clone().into()))
            .collect();
        self.sent = hashes;
        let body = serde_json::json!({ "parts": changed, "spoken": Shown::cell(&now.spoken).to_string() });
        Event::default().event("parts").data(body.to_string())
    }
}

/// The session has ended: the page reloads, and lands at the sign-in.
fn gone() -> Event {
    Event::default().event("gone").data("{}")
}

fn trouble(problem: &Problem) -> Event {
    Event::default()
        .event("trouble")
        .data(serde_json::json!({ "detail": Shown::cell(&problem.detail).to_string() }).to_string())
}
