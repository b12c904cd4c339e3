//! The frame around every page: head, navigation, who is signed in.

use axum::response::Html;
use levada_core::TenantSet;
use maud::{DOCTYPE, Markup, html};

use crate::app::{App, Signed};
use crate::assets;
use crate::live::View;
use crate::pages::csrf_field;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nav {
    Overview,
    Pipelines,
    Models,
    Topics,
    Subscriptions,
    DeadLetters,
    Sql,
}

/// Entry, label, address, and whether it takes the operating role.
const ENTRIES: [(Nav, &str, &str, bool); 7] = [
    (Nav::Overview, "Overview", "/console", false),
    (Nav::Pipelines, "Pipelines", "/console/pipelines", true),
    (Nav::Models, "Models", "/console/models", true),
    (Nav::Topics, "Topics", "/console/topics", true),
    (Nav::Subscriptions, "Subscriptions", "/console/subscriptions", true),
    (Nav::DeadLetters, "Dead letters", "/console/dead-letters", true),
    (Nav::Sql, "SQL", "/console/sql", false),
];

pub(crate) struct Frame<'a> {
    pub title: &'a str,
    pub active: Option<Nav>,
    pub live: Option<&'a View>,
}

impl Frame<'_> {
    pub fn render(&self, app: &App, signed: &Signed, body: &Markup) -> Html<String> {
        let flash = app.sessions.take_flash(&signed.session);
        let live = self.live.map(View::url);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head(app, self.title))
                body data-live=[live] {
                    a.skip href="#main" { "Skip to content" }
                    div.shell {
                        header.side {
                            a.brand href="/console" { (logo()) span { "levada" } }
                            nav aria-label="Main" { ul {
                                @for (nav, label, href, operator) in ENTRIES {
                                    @if !operator || signed.principal.may_operate() {
                                        li { a href=(href) aria-current=[self.is(nav).then_some("page")] { (label) } }
                                    }
                                }
                            } }
                            (who(app, signed))
                        }
                        main #main tabindex="-1" {
                            @if let Some(flash) = flash { (flash.render()) }
                            (body)
                        }
                    }
                    p #spoken .unseen role="status" aria-live="polite" {}
                }
            }
        };
        Html(page.into_string())
    }

    fn is(&self, nav: Nav) -> bool {
        self.active == Some(nav)
    }
}

/// A page without navigation, for those who are not signed in.
pub(crate) fn bare(app: &App, title: &str, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(app, title))
            body { (body) }
        }
    };
    Html(page.into_string())
}

fn head(app: &App, title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            title { (title) " · " (app.config.project) }
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
            link rel="stylesheet" href=(assets::url("console.css"));
            script src=(assets::url("console.js")) defer {}
        }
    }
}

fn who(app: &App, signed: &Signed) -> Markup {
    let principal = &signed.principal;
    let roles: Vec<&str> = principal.roles.iter().map(|r| r.as_str()).collect();
    let tenants = match &principal.tenants {
        TenantSet::All => "all tenants".to_owned(),
        TenantSet::Only(set) if set.len() <= 2 => {
            set.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ")
        }
        TenantSet::Only(set) => format!("{} tenants", set.len()),
    };
    html! {
        div.who {
            p.project title="Project" { (app.config.project) span.faint { " " (app.config.version) } }
            p title="Signed in with this key" { (principal.name) }
            p.faint { (tenants) " · " (roles.join(", ")) }
            form method="post" action="/console/sign-out" {
                (csrf_field(signed))
                button.quiet type="submit" { "Sign out" }
            }
        }
    }
}

/// A levada as a map shows it: water between two banks, along the contour of the hill.
pub(crate) fn logo() -> Markup {
    html! {
        svg.logo viewBox="0 0 32 24" aria-hidden="true" {
            path.bank d="M2 6.5c4.7-5 9.3-5 14 0s9.3 5 14 0" {}
            path.water d="M2 12.5c4.7-5 9.3-5 14 0s9.3 5 14 0" {}
            path.bank d="M2 18.5c4.7-5 9.3-5 14 0s9.3 5 14 0" {}
        }
    }
}

/// The head of a page: its title, and how live it is.
pub(crate) fn title(text: &str, live: Option<&View>, aside: &Markup) -> Markup {
    html! {
        div.title {
            h1 { (text) }
            (aside)
            @if live.is_some() {
                button.live type="button" hidden data-live-toggle="" aria-pressed="true" {
                    span.dot aria-hidden="true" {}
                    span data-live-text="" { "Live" }
                }
            }
        }
    }
}
