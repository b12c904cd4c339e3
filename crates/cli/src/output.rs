//! What a command prints: data to standard output, talk to standard error.

use std::io::{IsTerminal, Write};

use levada_core::Problem;

use crate::args::{ColorWhen, Global};

/// Exit codes, as `--help` lists them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const PROJECT: u8 = 3;
    pub const UNREACHABLE: u8 = 4;
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Nothing left to say: the command has printed it.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let message = format!("{} [{}]", problem.detail, problem.code);
        Self { code: exit::FAILED, message, hint: problem.hint }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(exit::FAILED, error.to_string())
    }
}

/// Where and how to print.
#[derive(Debug, Clone)]
pub struct Output {
    pub json: bool,
    pub color: bool,
    /// Standard error is a terminal: progress may be drawn.
    pub progress: bool,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let color = match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => !no_color && std::io::stdout().is_terminal(),
        };
        Self { json: global.json, color, progress: std::io::stderr().is_terminal() }
    }

    /// A line of data. A closed pipe ends the program quietly, as `head` expects.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).is_err() {
            std::process::exit(0);
        }
    }

    /// One JSON value on a line.
    pub fn value(&self, value: &serde_json::Value) {
        self.line(&value.to_string());
    }

    /// A line of talk.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A table with a header; the columns named in `right` hold numbers.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(header.iter().copied());
        table.add_rows(rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        for (index, line) in table.to_string().lines().enumerate() {
            let line = line.trim_end();
            if index == 0 && self.color {
                let bold = anstyle::Style::new().bold();
                self.line(&format!("{bold}{line}{bold:#}"));
            } else {
                self.line(line);
            }
        }
    }

    /// As [`Output::bar`] for bytes.
    pub fn byte_bar(&self, total: u64, what: &str) -> indicatif::ProgressBar {
        let bar = self.bar(Some(total), what);
        let template = "{prefix:>12} {bar:32} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar
    }

    /// A progress bar on standard error, drawn only on a terminal.
    pub fn bar(&self, total: Option<u64>, what: &str) -> indicatif::ProgressBar {
        let bar = match total {
            Some(total) => indicatif::ProgressBar::new(total),
            None => indicatif::ProgressBar::new_spinner(),
        };
        if !self.progress {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let template = match total {
            Some(_) => "{prefix:>12} {bar:32} {human_pos}/{human_len} {per_sec}, {eta} left",
            None => "{prefix:>12} {spinner} {human_pos} {per_sec}",
        };
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(what.to_owned());
        bar
    }
}
