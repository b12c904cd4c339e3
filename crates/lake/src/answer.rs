//! What SQL answers when it says no: stable codes, one sentence, a mend. Nothing of the
//! machine (paths, files, other tenants) is repeated.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use levada_core::{Problem, TextPosition};
use tokio::task::JoinError;

use crate::blocks::DAMAGED;
use crate::error::LakeError;

/// How many names a hint lists.
const LISTED: usize = 20;

pub(crate) fn timeout(limit: Duration) -> Problem {
    Problem::new(408, "sql-timeout", format!("the query ran longer than {} s", limit.as_secs_f64()))
        .hint("narrow it with a filter or a smaller time range, or ask for a longer timeout")
}

pub(crate) fn not_allowed(what: &str) -> Problem {
    Problem::new(403, "sql-not-allowed", format!("{what} is not allowed here"))
        .hint("this door is read-only: use SELECT, WITH, EXPLAIN, SHOW TABLES or DESCRIBE")
}

pub(crate) fn syntax(message: impl Into<String>) -> Problem {
    Problem::new(400, "sql-syntax", message)
}

/// A statement that nests deeper than any stack should have to follow.
pub(crate) fn too_deep(what: &str) -> Problem {
    Problem::new(400, "sql-too-deep", format!("the statement is too deep: {what}"))
        .hint("write long lists as IN (...) or VALUES, or divide the statement")
}

/// A statement that comes to more than can be planned, however short its text.
pub(crate) fn too_large(what: &str) -> Problem {
    Problem::new(400, "sql-too-large", format!("the statement is too large: {what}"))
        .hint("name each common table once or twice only, or make a part of it a model")
}

/// One answer for tables that do not exist and tables that the caller may not see.
pub(crate) fn unknown_table(name: &str, visible: &[String]) -> Problem {
    let problem = Problem::new(404, "sql-unknown-table", format!("there is no table `{name}`"));
    match visible.len() {
        0 => problem.hint("no table is visible to this key yet"),
        n if n > LISTED => problem.hint(format!(
            "among {n} visible tables: {}; SHOW TABLES lists all",
            visible[..LISTED].join(", ")
        )),
        _ => problem.hint(format!("visible tables: {}", visible.join(", "))),
    }
}

pub(crate) fn ambiguous_table(name: &str, owners: &[String]) -> Problem {
    let mut shown = owners.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if owners.len() > LISTED {
        shown.push_str(", ...");
    }
    Problem::new(400, "sql-ambiguous-table", format!("several tenants have a table `{name}`"))
        .hint(format!("name the tenant: {shown}"))
}

/// The answer to an error of planning or running a query, with its place where that is known.
pub(crate) fn problem(error: &DataFusionError) -> Problem {
    let place = match error {
        DataFusionError::Diagnostic(diagnostic, _) => {
            diagnostic.span.and_then(|span| text_position(span.start.line, span.start.column))
        }
        DataFusionError::SQL(parse, _) => parser_position(&parse.to_string()),
        _ => None,
    };
    unplaced_problem(error).at(place)
}

fn text_position(line: u64, column: u64) -> Option<TextPosition> {
    let (line, column) = (u32::try_from(line).ok()?, u32::try_from(column).ok()?);
    // The engine's places of things that it made itself are at line 0.
    (line > 0 && column > 0).then_some(TextPosition { line, column })
}

/// The parser's errors end in their place, such as `at Line: 1, Column: 8`.
fn parser_position(text: &str) -> Option<TextPosition> {
    let (line, column) = text.rsplit_once("at Line: ")?.1.split_once(", Column: ")?;
    let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
    text_position(line.parse().ok()?, column[..digits].parse().ok()?)
}

fn unplaced_problem(error: &DataFusionError) -> Problem {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => problem(inner),
        DataFusionError::Shared(inner) => problem(inner),
        DataFusionError::Collection(all) => all.first().map_or_else(|| internal(error), problem),
        DataFusionError::SQL(parse, _) if **parse == ParserError::RecursionLimitExceeded => {
            too_deep("its parentheses and subqueries nest too deep")
        }
        DataFusionError::SQL(parse, _) => syntax(parse.to_string()),
        DataFusionError::SchemaError(schema, _) => schema_problem(schema),
        DataFusionError::Plan(text) => plan_problem(text),
        DataFusionError::NotImplemented(text) => {
            Problem::new(400, "sql-unsupported", format!("not supported: {text}"))
        }
        DataFusionError::Configuration(text) => Problem::new(400, "sql-invalid", text.clone()),
        DataFusionError::ResourcesExhausted(text) => {
            Problem::new(422, "sql-memory", format!("the query needs more memory than it may have: {text}"))
                .hint("aggregate earlier, select fewer columns, or add a filter")
        }
        DataFusionError::Execution(text) => execution(text),
        // The engine takes it for a fault of its own; it is one of the statement.
        DataFusionError::Internal(text) if text.contains("Failed to coerce types") => plan_problem(text),
        DataFusionError::ArrowError(arrow, _) => arrow_problem(arrow, error),
        DataFusionError::External(inner) => external(inner.as_ref(), error),
        _ => internal(error),
    }
}

fn external(inner: &(dyn std::error::Error + Send + Sync + 'static), error: &DataFusionError) -> Problem {
    if let Some(problem) = inner.downcast_ref::<Problem>() {
        return problem.clone();
    }
    if let Some(inner) = inner.downcast_ref::<DataFusionError>() {
        return problem(inner);
    }
    // The errors of a pattern come as they are.
    let text = inner.to_string();
    match text.starts_with("Compiled regex exceeds") || text.starts_with("regex parse error") {
        true => execution(&text),
        false => internal(error),
    }
}

fn arrow_problem(arrow: &ArrowError, error: &DataFusionError) -> Problem {
    match arrow {
        ArrowError::ExternalError(inner) => external(inner.as_ref(), error),
        ArrowError::DivideByZero => execution("division by zero"),
        ArrowError::ComputeError(text)
        | ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ArithmeticOverflow(text)
        | ArrowError::InvalidArgumentError(text) => execution(text),
        _ => internal(error),
    }
}

fn execution(text: &str) -> Problem {
    Problem::new(422, "sql-execution", format!("the query failed: {text}"))
}

fn plan_problem(text: &str) -> Problem {
    // Functions are found while planning; their errors have no kind of their own.
    if text.starts_with("Invalid function") || text.contains("No function matches") {
        return Problem::new(400, "sql-unknown-function", first_line(text));
    }
    Problem::new(400, "sql-invalid", first_line(text))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn schema_problem(error: &SchemaError) -> Problem {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
            names.dedup();
            names.truncate(LISTED * 3);
            let problem = Problem::new(
                400,
                "sql-unknown-column",
                format!("there is no column `{}`", field.flat_name()),
            );
            if names.is_empty() { problem } else { problem.hint(format!("columns: {}", names.join(", "))) }
        }
        SchemaError::AmbiguousReference { field } => {
            Problem::new(400, "sql-ambiguous-column", format!("column `{}` is ambiguous", field.name))
                .hint("put the table's name or alias before it")
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            Problem::new(400, "sql-duplicate-column", format!("column `{name}` appears twice"))
                .hint("give one of them another name with AS")
        }
    }
}

/// The answer where the bytes of a file are not those that were written, wherever in the chain of
/// errors that stands. It names table and file, not whose folder they lie in.
fn damaged(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((path, reason)) = text.split_once(&format!(": {DAMAGED}")) {
            let path = path.rsplit_once("tenant=").map_or(path, |(_, below)| below);
            let (zone, name, file) = crate::spec::place_of(path)?;
            let detail = format!("the file {file} of {zone}.{name} is damaged: {reason}");
            tracing::error!(%path, reason, "a file of the lake is damaged");
            let hint =
                "tell the operator: the file must come back from a backup, or its rows from their source";
            return Some(Problem::new(500, "data-damaged", detail).hint(hint));
        }
        next = error.source();
    }
    None
}

/// Something that the caller can neither cause nor mend: details go to the log.
fn internal(error: &DataFusionError) -> Problem {
    if let Some(problem) = damaged(error) {
        return problem;
    }
    tracing::error!(%error, "query failed inside");
    Problem::new(500, "sql-internal", "the query failed inside the engine")
        .hint("the server's log has the details")
}

/// A query whose task ended without an answer: a panic, or the end of the process.
pub(crate) fn broken(error: &JoinError) -> Problem {
    broken_off(&error.to_string())
}

/// The same for work that is no task.
pub(crate) fn broken_off(error: &str) -> Problem {
    tracing::error!(%error, "a query broke off");
    Problem::new(500, "sql-internal", "the query failed inside the engine")
        .hint("the server's log has the details")
}

/// A query for which the system gave no thread.
pub(crate) fn no_thread(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "no thread for a query");
    Problem::new(503, "overloaded", "the system has no thread for another query")
        .hint("send the query again in a moment")
        .retry_after_s(1)
}

/// A storage error met by a query.
pub(crate) fn storage(error: &LakeError) -> Problem {
    if let LakeError::Sql(problem) = error {
        return problem.clone();
    }
    if let Some(problem) = damaged(error) {
        return problem;
    }
    tracing::error!(%error, "a query could not read the lake");
    Problem::new(503, "sql-storage", "the lake could not be read").hint("the server's log has the details")
}

/// Carries a storage error through the engine.
pub(crate) fn carry(error: &LakeError) -> DataFusionError {
    DataFusionError::External(Box::new(storage(error)))
}
