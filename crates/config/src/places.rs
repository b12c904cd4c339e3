//! Where steps and models are written, for findings that only the query engine can make.
//!
//! The project check reads a query no further than its tokens. What plans the project (see
//! `levada_flow::plan`) names the step or model, and where in the query the fault lies; here
//! that becomes a diagnostic with file, line and column.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_core::{SourceName, TextPosition};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::draft::{ModelDraft, PipelineDraft};
use crate::model::Owner;
use crate::source::{SourceFile, Span};

/// A step or a model that cannot run as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub place: Place,
    pub owner: Owner,
    /// Of the pipeline or model.
    pub name: SourceName,
    /// One sentence.
    pub reason: String,
    /// What mends it.
    pub hint: Option<String>,
    /// Where in the query the fault lies.
    pub at: Option<TextPosition>,
}

/// Which part of a pipeline or model a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The step of a pipeline with this index, and its query where it is a SQL step.
    Step {
        index: usize,
        query: Option<String>,
    },
    /// The pipeline as a whole.
    Pipeline,
    Model {
        query: String,
    },
}

#[derive(Debug)]
struct Written {
    file: Arc<SourceFile>,
    name: Span,
    steps: Vec<Span>,
}

/// Where the parts of a project are written.
#[derive(Debug, Default)]
pub struct Places {
    pipelines: BTreeMap<(Owner, SourceName), Written>,
    models: BTreeMap<(Owner, SourceName), (Arc<SourceFile>, Span)>,
}

impl Places {
    pub(crate) fn of(pipelines: &[PipelineDraft], models: &[ModelDraft]) -> Self {
        let mut places = Self::default();
        for draft in pipelines {
            let key = (draft.owner.clone(), draft.name.clone());
            // Of two with one name the project runs neither.
            places.pipelines.entry(key.clone()).or_insert_with(|| Written {
                file: Arc::clone(&draft.file),
                name: draft.name_span.clone(),
                steps: draft.step_spans.clone(),
            });
            if let Some(gold) = &draft.gold {
                places.models.entry(key).or_insert_with(|| (Arc::clone(&draft.file), gold.span.clone()));
            }
        }
        for draft in models {
            let key = (draft.model.owner.clone(), draft.model.name.clone());
            let whole = 0..draft.file.text.len();
            places.models.entry(key).or_insert_with(|| (Arc::clone(&draft.file), whole));
        }
        places
    }

    /// A warning about a pipeline as a whole.
    pub(crate) fn warning(
        &self,
        code: &'static codes::Code,
        owner: &Owner,
        name: &SourceName,
        message: &str,
    ) -> Diagnostic {
        let written = self.pipelines.get(&(owner.clone(), name.clone()));
        let mut diagnostic = match written {
            Some(written) => Diagnostic::at(&written.file, code, &written.name, message),
            None => Diagnostic::about("levada.yaml".into(), code, format!("`{name}`: {message}")),
        };
        diagnostic.hint(code.mend);
        diagnostic
    }

    /// The finding at its place in the project's files.
    pub(crate) fn diagnostic(&self, refused: &Refused) -> Diagnostic {
        let key = (refused.owner.clone(), refused.name.clone());
        let (code, written, query) = match &refused.place {
            Place::Model { query } => {
                let place = self.models.get(&key).map(|(file, span)| (file, span.clone()));
                (codes::PLAN_MODEL, place, Some(query))
            }
            place => {
                let written = self.pipelines.get(&key);
                let (span, query) = match place {
                    Place::Step { index, query } => {
                        (written.and_then(|w| w.steps.get(*index)), query.as_ref())
                    }
                    _ => (None, None),
                };
                let span = span.or(written.map(|w| &w.name)).cloned();
                (codes::PLAN_STEP, written.map(|w| &w.file).zip(span), query)
            }
        };
        let message = refused.reason.as_str();
        let mut diagnostic = match written {
            Some((file, span)) => {
                let exact = query.and_then(|query| within(file, &span, query, refused));
                let span = exact.unwrap_or_else(|| first_line(file, span));
                Diagnostic::at(file, code, &span, message)
            }
            None => Diagnostic::about("levada.yaml".into(), code, format!("`{}`: {message}", refused.name)),
        };
        diagnostic.hint(refused.hint.as_deref().unwrap_or(code.mend));
        diagnostic
    }
}

/// The place in the file of what the engine named in the query. A query in YAML is indented,
/// folded or quoted, so its lines are looked up in the file one after the other.
fn within(file: &SourceFile, span: &Span, query: &str, refused: &Refused) -> Option<Span> {
    let (line, column) = match refused.at {
        Some(at) => (at.line as usize, at.column as usize),
        None => named(query, &refused.reason)?,
    };
    let mut from = span.start;
    for (at, text) in (1..).zip(query.lines()) {
        let body = text.trim();
        if at < line && body.is_empty() {
            continue;
        }
        let begin = from + file.text.get(from..span.end)?.find(body)?;
        if at < line {
            from = begin + body.len();
            continue;
        }
        let indent = text.chars().take_while(|c| c.is_whitespace()).count();
        let skipped: usize = body.chars().take(column.saturating_sub(1 + indent)).map(char::len_utf8).sum();
        let rest = &body[skipped..];
        return Some(begin + skipped..begin + skipped + word(rest));
    }
    None
}

/// Bytes of the word that a text begins with; one character where that is none.
fn word(text: &str) -> usize {
    let letters = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"')));
    match letters.unwrap_or(text.len()) {
        0 => text.chars().next().map_or(0, char::len_utf8),
        length => length,
    }
}

/// Line and column, from 1, of the first name in quotes of the reason that the query has.
fn named(query: &str, reason: &str) -> Option<(usize, usize)> {
    let mut quoted = reason.split(['`', '\'', '"']).skip(1).step_by(2);
    let at = quoted.find_map(|name| {
        // The engine qualifies what the query may have written bare.
        let bare = name.rsplit('.').next().unwrap_or(name);
        [name, bare].into_iter().filter(|n| !n.is_empty()).find_map(|n| query.find(n))
    })?;
    let before = &query[..at];
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((before.matches('\n').count() + 1, column))
}

/// A span over several lines, cut to the first that says something.
fn first_line(file: &SourceFile, span: Span) -> Span {
    let Some(text) = file.text.get(span.clone()) else { return span };
    let begin = span.start + (text.len() - text.trim_start().len());
    let lines = file.text.get(begin..span.end).unwrap_or_default();
    begin..begin + lines.lines().next().unwrap_or_default().len()
}
