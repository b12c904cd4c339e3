//! SQL statements as data: files of them, what a server answers to them through psql, and golden
//! files of the answers of PostgreSQL.
//!
//! `<theme>.sql` holds a statement a line. `<theme>.golden` holds each statement again, followed
//! by its rows as `= a|b`, or by `! ` where it is an error. The tables that the statements read
//! are CSV files beside them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

const NULL: &str = "<null>";
const MARK: &str = "@@answered ";

/// What a server answered to one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Rows as psql shows them without alignment.
    Rows(Vec<String>),
    Error,
}

impl Answer {
    /// The answer on one line.
    pub fn line(&self) -> String {
        match self {
            Self::Rows(rows) if rows.is_empty() => "no rows".to_owned(),
            Self::Rows(rows) => rows.join(" / "),
            Self::Error => "an error".to_owned(),
        }
    }
}

/// Statements with their answers, in the order of the file.
pub type Answers = Vec<(String, Answer)>;

/// The names of the themes in a folder, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn themes(folder: &Path) -> Result<Vec<String>> {
    let mut themes = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        themes.extend(name.strip_suffix(".sql").map(str::to_owned));
    }
    themes.sort();
    Ok(themes)
}

/// The statements of a theme.
///
/// # Errors
/// When the file cannot be read.
pub fn statements(folder: &Path, theme: &str) -> Result<Vec<String>> {
    let path = folder.join(format!("{theme}.sql"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().map(|line| line.trim_end().trim_end_matches(';').to_owned());
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with("--")).collect())
}

/// Asks a server all statements in one session of psql.
///
/// # Errors
/// When psql cannot be run, or the session breaks off.
pub fn ask(url: &str, password: &str, statements: &[String]) -> Result<Answers> {
    let mut script = String::new();
    for statement in statements {
        script.push_str(&format!("{statement}\n;\n\\echo {MARK}:ERROR\n"));
    }
    let null = format!("null={NULL}");
    let mut psql = Command::new("psql")
        .args([url, "-X", "-q", "-A", "-t", "-P", &null, "-f", "-"])
        .env("PGPASSWORD", password)
        .env("PGTZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("psql is not installed: apt-get install postgresql-client")?;
    let mut input = psql.stdin.take().context("psql has no input")?;
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = psql.wait_with_output()?;
    let written = writer.join().ok().and_then(Result::ok);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut answers = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some(failed) = line.strip_prefix(MARK) else {
            rows.push(line.to_owned());
            continue;
        };
        let Some(statement) = statements.get(answers.len()) else { bail!("more answers than statements") };
        let rows = std::mem::take(&mut rows);
        let answer = if failed == "true" { Answer::Error } else { Answer::Rows(rows) };
        answers.push((statement.clone(), answer));
    }
    if answers.len() != statements.len() || written.is_none() {
        let next = statements.get(answers.len()).map_or("", String::as_str);
        bail!("psql broke off after {} of {} statements, at: {next}", answers.len(), statements.len());
    }
    Ok(answers)
}

/// Reads the golden answers of a theme.
///
/// # Errors
/// When there is no such file, or it is not of this form.
pub fn golden(folder: &Path, theme: &str) -> Result<Answers> {
    let path = folder.join(format!("{theme}.golden"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut answers: Answers = Vec::new();
    for line in text.lines() {
        if let Some(row) = line.strip_prefix("= ") {
            let Some((_, Answer::Rows(rows))) = answers.last_mut() else {
                bail!("a row without statement: {line}")
            };
            rows.push(row.to_owned());
        } else if line == "!" {
            let Some((_, answer)) = answers.last_mut() else { bail!("an error without statement") };
            *answer = Answer::Error;
        } else {
            answers.push((line.to_owned(), Answer::Rows(Vec::new())));
        }
    }
    Ok(answers)
}

/// Writes the golden answers of a theme.
///
/// # Errors
/// When the file cannot be written.
pub fn write_golden(folder: &Path, theme: &str, answers: &Answers) -> Result<()> {
    let mut text = String::new();
    for (statement, answer) in answers {
        text.push_str(statement);
        text.push('\n');
        match answer {
            Answer::Rows(rows) => rows.iter().for_each(|row| text.push_str(&format!("= {row}\n"))),
            Answer::Error => text.push_str("!\n"),
        }
    }
    fs::write(folder.join(format!("{theme}.golden")), text)?;
    Ok(())
}

/// A difference that is meant: in a page of Markdown, a statement in a block of SQL with both
/// answers beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub statement: String,
    pub postgres: String,
    pub levada: String,
}

/// The differences that a page lists.
///
/// # Errors
/// When the page cannot be read, or an entry has one answer only.
pub fn listed(page: &Path) -> Result<Vec<Listed>> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let mut found: Vec<Listed> = Vec::new();
    let mut is_in_block = false;
    for line in text.lines() {
        // Spaces at the end of an answer are part of it.
        match line {
            "```sql" => is_in_block = true,
            "```" => is_in_block = false,
            line if !is_in_block || line.is_empty() => {}
            line => match (
                line.strip_prefix("-- PostgreSQL: "),
                line.strip_prefix("-- Levada: "),
                found.last_mut(),
            ) {
                (Some(answer), _, Some(last)) => answer.clone_into(&mut last.postgres),
                (_, Some(answer), Some(last)) => answer.clone_into(&mut last.levada),
                _ => found.push(Listed {
                    statement: line.trim_end_matches(';').to_owned(),
                    postgres: String::new(),
                    levada: String::new(),
                }),
            },
        }
    }
    match found.iter().find(|one| one.postgres.is_empty() || one.levada.is_empty()) {
        Some(half) => bail!("`{}` is listed without both answers", half.statement),
        None => Ok(found),
    }
}
