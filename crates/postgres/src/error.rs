//! Errors: of the server itself, and those that a client is told, with their SQLSTATE.

use levada_core::Problem;
use pgwire::error::{ErrorInfo, PgWireError};

/// Why the door cannot open or stay open.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("the PostgreSQL listener failed: {0}")]
    Accept(std::io::Error),
}

/// What ends a message's handling.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The client is told, and the connection goes on.
    #[error("{}", .0.message)]
    Statement(Box<ErrorInfo>),
    /// The client is told, and the connection ends.
    #[error("{}", .0.message)]
    Fatal(Box<ErrorInfo>),
    /// The client is gone, or does not speak the protocol.
    #[error(transparent)]
    Wire(PgWireError),
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// The login failed because the key is not good.
    pub(crate) fn is_wrong_key(&self) -> bool {
        matches!(self, Self::Fatal(info) if info.code == "28P01")
    }
}

impl From<PgWireError> for Failure {
    fn from(error: PgWireError) -> Self {
        match error {
            PgWireError::MessageTooLarge(max, actual) => Failure::Fatal(Box::new(with_hint(
                ErrorInfo::new(
                    "FATAL".to_owned(),
                    "54000".to_owned(),
                    format!("a message of {actual} bytes is larger than the {max} that are allowed"),
                ),
                "send less in one statement",
            ))),
            PgWireError::UserError(info) => Failure::Fatal(info),
            other => Failure::Wire(other),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Statement(Box::new(info("ERROR", &problem)))
    }
}

/// An error of the client's own making.
pub(crate) fn refuse(code: &str, message: impl Into<String>) -> Failure {
    Failure::Statement(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

pub(crate) fn refuse_with(code: &str, message: impl Into<String>, hint: &str) -> Failure {
    let info = ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into());
    Failure::Statement(Box::new(with_hint(info, hint)))
}

pub(crate) fn fatal(code: &str, message: impl Into<String>, hint: Option<&str>) -> Failure {
    let mut info = ErrorInfo::new("FATAL".to_owned(), code.to_owned(), message.into());
    info.hint = hint.map(str::to_owned);
    Failure::Fatal(Box::new(info))
}

fn with_hint(mut info: ErrorInfo, hint: &str) -> ErrorInfo {
    info.hint = Some(hint.to_owned());
    info
}

/// A problem in PostgreSQL's terms. The stable code goes along as the detail.
pub(crate) fn info(severity: &str, problem: &Problem) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), sqlstate(problem).to_owned(), problem.detail.clone());
    info.hint.clone_from(&problem.hint);
    info.detail = Some(format!("levada error code: {}", problem.code));
    info
}

/// The SQLSTATE of a problem.
pub(crate) fn sqlstate(problem: &Problem) -> &'static str {
    match problem.code.as_str() {
        "sql-syntax" => "42601",
        "sql-unknown-table" => "42P01",
        "sql-unknown-column" => "42703",
        "sql-ambiguous-column" => "42702",
        "sql-ambiguous-table" => "42P09",
        "sql-duplicate-column" => "42701",
        "sql-unknown-function" => "42883",
        "sql-unsupported" => "0A000",
        "sql-not-allowed" => "25006",
        "sql-timeout" => "57014",
        "sql-memory" => "53200",
        "sql-too-deep" | "sql-too-large" => "54001",
        "sql-execution" if problem.detail.contains("division by zero") => "22012",
        "sql-execution"
            if ["out of range", "overflow"].iter().any(|words| problem.detail.contains(words)) =>
        {
            "22003"
        }
        "sql-execution" => "22000",
        "sql-invalid" => "42000",
        "sql-storage" => "58030",
        "quota-exceeded" => "53400",
        "memory-exhausted" => "53200",
        "unauthenticated" => "28P01",
        "tenant-forbidden" => "3D000",
        _ => match problem.status {
            401 | 403 => "42501",
            408 => "57014",
            429 | 503 => "53000",
            400..=499 => "42000",
            _ => "XX000",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_the_state_that_clients_branch_on() {
        for (status, code, detail, state) in [
            (404, "sql-unknown-table", "", "42P01"),
            (408, "sql-timeout", "", "57014"),
            (400, "sql-too-deep", "", "54001"),
            (422, "sql-execution", "the query failed: division by zero", "22012"),
            (429, "anything", "", "53000"),
            (500, "anything", "", "XX000"),
        ] {
            assert_eq!(sqlstate(&Problem::new(status, code, detail)), state, "{code}");
        }
    }
}
