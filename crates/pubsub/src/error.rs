//! What a call answers when it refuses: one shape for gRPC (`grpc-status-details-bin`) and
//! REST (`{"error": ...}`), with the texts that users of Google's service know.

use std::collections::BTreeMap;

use levada_bus::port::PortError;
use levada_core::{NameError, Problem};
use prost::Message;
use tonic::{Code, Status};

use crate::messages::rpc;

/// The domain of every [`ErrorInfo`]: what the official clients look for.
const DOMAIN: &str = "pubsub.googleapis.com";

/// A machine-readable reason beside the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorInfo {
    pub reason: &'static str,
    pub metadata: BTreeMap<String, String>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: Code,
    /// One sentence for a person; the mend follows it where there is one.
    pub message: String,
    pub info: Option<ErrorInfo>,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), info: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The one answer for what is missing and for what the caller may not see.
    pub fn not_found(resource: &str) -> Self {
        Self::new(Code::NotFound, format!("Resource not found (resource={resource})."))
    }

    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// The one answer for a project that is missing or foreign.
    pub fn project_not_found(project: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("Requested project not found or user does not have access to it (project={project})."),
        )
    }

    /// A value outside its bounds.
    pub fn out_of_range(
        field: &str,
        given: impl std::fmt::Display,
        min: i64,
        max: i64,
        small: Bound,
    ) -> Self {
        let (word, kind, limit) = match small {
            Bound::Below => ("small", "minimum", min),
            Bound::Above => ("large", "maximum", max),
        };
        Self::invalid(format!(
            "The value for {field} is too {word}. You passed {given} in the request, but the {kind} value is {limit}."
        ))
    }

    #[must_use]
    pub fn with_info(mut self, reason: &'static str, metadata: BTreeMap<String, String>) -> Self {
        self.info = Some(ErrorInfo { reason, metadata });
        self
    }

    /// The name of the code as in `google.rpc.Code`.
    pub fn status_name(&self) -> &'static str {
        match self.code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The HTTP status that `google.rpc.Code` documents for the code.
    pub fn http_status(&self) -> u16 {
        match self.code {
            Code::Ok => 200,
            Code::Cancelled => 499,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::DeadlineExceeded => 504,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::PermissionDenied => 403,
            Code::Unauthenticated => 401,
            Code::ResourceExhausted => 429,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }

    /// The body of a REST answer.
    pub fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({
            "code": self.http_status(),
            "message": self.message,
            "status": self.status_name(),
        });
        if let Some(info) = &self.info {
            error["details"] = serde_json::json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": info.reason,
                "domain": DOMAIN,
                "metadata": info.metadata,
            }]);
        }
        serde_json::json!({ "error": error })
    }
}

/// On which side of its bounds a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Below,
    Above,
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let Some(info) = &error.info else { return Status::new(error.code, error.message) };
        let info = rpc::ErrorInfo {
            reason: info.reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: info.metadata.clone().into_iter().collect(),
        };
        let details = rpc::Status {
            code: error.code as i32,
            message: error.message.clone(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        Status::with_details(error.code, error.message, details.encode_to_vec().into())
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::NotFound { name, .. } => Self::not_found(last_part(&name)),
            PortError::AlreadyExists { name, .. } => Self::new(
                Code::AlreadyExists,
                format!("Resource already exists in the project (resource={}).", last_part(&name)),
            ),
            PortError::InvalidArgument(text) => Self::invalid(text),
            PortError::FailedPrecondition(text) => Self::new(Code::FailedPrecondition, text),
            PortError::PermissionDenied(text) => Self::denied(text),
            PortError::ResourceExhausted(text) => Self::new(Code::ResourceExhausted, text),
            PortError::Unavailable(text) => Self::unavailable(text),
            PortError::Internal(text) => Self::new(Code::Internal, text),
        }
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        let code = match problem.status {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::FailedPrecondition,
            400..=499 if problem.status != 429 => Code::InvalidArgument,
            429 => Code::ResourceExhausted,
            503 | 504 => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, problem.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}
