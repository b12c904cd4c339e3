//! A finding about the project: where, what, and how to mend it.
//!
//! A diagnostic holds the line it talks about, so that it renders without the files. A
//! diagnostic about the secrets file never does.

use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use crate::codes::{self, Code};
use crate::source::{SourceFile, Span};

/// Findings kept of one run; the rest is counted.
const MAX_DIAGNOSTICS: usize = 1_000;
/// A longer line is not shown.
const MAX_SHOWN_LINE_BYTES: usize = 4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable, such as `E0010`; see `docs/errors/config.md`.
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    /// Relative to the project root.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The offending line, where it may be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_line: Option<String>,
    /// Bytes of `source_line` that are underlined.
    #[serde(skip)]
    pub underline: (usize, usize),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    /// About a place in a file.
    pub(crate) fn at(
        file: &SourceFile,
        code: &'static Code,
        span: &Span,
        message: impl Into<String>,
    ) -> Self {
        let (line, column) = file.position(span.start);
        let (text, range) = file.line_around(span);
        let shown = text.len() <= MAX_SHOWN_LINE_BYTES;
        Self {
            line,
            column,
            source_line: shown.then(|| text.to_owned()),
            underline: if shown { (range.start, range.end) } else { (0, 0) },
            ..Self::about(file.path.clone(), code, message)
        }
    }

    /// About a file as a whole.
    pub(crate) fn about(file: PathBuf, code: &'static Code, message: impl Into<String>) -> Self {
        Self {
            code: code.id,
            severity: if code.is_error() { Severity::Error } else { Severity::Warning },
            message: message.into(),
            file,
            line: 1,
            column: 1,
            source_line: None,
            underline: (0, 0),
            hint: None,
        }
    }

    pub(crate) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding as text of several lines, with the offending line underlined.
    pub fn render(&self, style: Style) -> String {
        let path = self.file.to_string_lossy().replace('\\', "/");
        let level = if self.is_error() { Level::ERROR } else { Level::WARNING };
        let mut group = level.clone().primary_title(self.message.as_str()).id(self.code).element(match &self
            .source_line
        {
            Some(line) => annotate_snippets::Element::from(
                Snippet::source(line.as_str())
                    .line_start(self.line as usize)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(self.underline.0..self.underline.1)),
            ),
            None => Origin::path(path).line(self.line as usize).char_column(self.column as usize).into(),
        });
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Colour => Renderer::styled(),
        };
        renderer.render(&[group])
    }
}

/// How diagnostics are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// With ANSI colours.
    Colour,
}

/// All findings as text, an empty line between them.
pub fn render_all(diagnostics: &[Diagnostic], style: Style) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(style));
        out.push_str("\n\n");
    }
    out
}

/// By file, line and column.
pub(crate) fn sort(found: &mut [Diagnostic]) {
    found.sort_by(|a, b| (&a.file, a.line, a.column, a.code).cmp(&(&b.file, b.line, b.column, b.code)));
}

/// Collects findings, bounded.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    found: Vec<Diagnostic>,
    left_off: usize,
    /// Takes what is left off, so that a caller can always add a hint.
    spare: Option<Diagnostic>,
    errors: usize,
}

impl Sink {
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.errors += usize::from(diagnostic.is_error());
        if self.found.len() >= MAX_DIAGNOSTICS {
            self.left_off += 1;
            return self.spare.insert(diagnostic);
        }
        self.found.push(diagnostic);
        self.found.last_mut().expect("one was just pushed")
    }

    /// Whether another finding would only be counted: then nobody needs to word it.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_DIAGNOSTICS
    }

    /// Counts a finding that is not worded.
    pub fn count(&mut self, code: &'static Code) {
        self.errors += usize::from(code.is_error());
        self.left_off += 1;
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The findings by file, line and column.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        sort(&mut self.found);
        if self.left_off > 0 {
            let message = format!("{} more findings are not shown", self.left_off);
            self.found.push(Diagnostic::about(PathBuf::from("levada.yaml"), codes::MORE, message));
        }
        self.found
    }
}
