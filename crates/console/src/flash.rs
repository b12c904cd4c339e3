//! A message that survives one redirect: what became of a form that was sent.

use maud::{Markup, html};

use crate::shown::Shown;

/// Shown once, at the top of the next page.
#[derive(Debug, Clone)]
pub(crate) enum Flash {
    Done(String),
    Failed { detail: String, hint: Option<String> },
}

impl Flash {
    pub fn failed(problem: &levada_core::Problem) -> Self {
        let hint = problem.hint.as_ref().map(|hint| Shown::cell(hint).to_string());
        Self::Failed { detail: Shown::cell(&problem.detail).to_string(), hint }
    }

    pub fn render(&self) -> Markup {
        html! {
            @match self {
                Flash::Done(text) => div.notice.good role="status" { p { (text) } },
                Flash::Failed { detail, hint } => div.notice.bad role="alert" {
                    p { strong { (detail) } }
                    @if let Some(hint) = hint { p { (hint) } }
                },
            }
        }
    }
}
