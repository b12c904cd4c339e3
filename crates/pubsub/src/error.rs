//! What a call answers when it refuses: one shape for gRPC (`grpc-status-details-bin`) and
//! REST (`{"error": ...}`), with the texts that users of Google's service know.

use std::collections::BTreeMap;
use std::time::Duration;

use levada_bus::port::{PortError, TooLarge};
use levada_core::{NameError, Problem};
use prost::Message;
use tonic::{Code, Status};

use crate::guards::retry_of;
use crate::messages::rpc;

/// The domain of every [`ErrorInfo`]: what the official clients look for.
const DOMAIN: &str = "pubsub.googleapis.com";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// A machine-readable reason beside the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorInfo {
    pub reason: &'static str,
    pub metadata: BTreeMap<String, String>,
}

/// A field of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its path, as `subscription.ack_deadline_seconds`; empty where the request as a whole is wrong.
    pub field: String,
    pub description: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: Code,
    /// One sentence for a person; the mend follows it where there is one.
    pub message: String,
    pub info: Option<ErrorInfo>,
    /// Told as a `google.rpc.BadRequest`.
    pub violations: Vec<Violation>,
    /// When to try again; told as a `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), info: None, violations: Vec::new(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A field has a value that it cannot have; the message is said of the field as well.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(message).at(field)
    }

    /// Names the field that the message is about.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.violations = vec![Violation { field: field.into(), description: self.message.clone() }];
        self
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
        let text = format!(
            "The value for {field} is too {word}. You passed {given} in the request, but the {kind} value is {limit}."
        );
        Self::invalid_field(field, text)
    }

    /// A field of a resource is larger than it may be.
    fn too_large(field: &TooLarge) -> Self {
        let text = field.to_string();
        Self::invalid_field(field.field, text[..1].to_uppercase() + &text[1..] + ".")
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
        let mut details = Vec::new();
        if !self.violations.is_empty() {
            let violations = self.violations.iter().map(|violation| match violation.field.as_str() {
                "" => serde_json::json!({ "description": violation.description }),
                field => serde_json::json!({ "field": field, "description": violation.description }),
            });
            details.push(serde_json::json!({
                "@type": BAD_REQUEST,
                "fieldViolations": violations.collect::<Vec<_>>(),
            }));
        }
        if let Some(info) = &self.info {
            details.push(serde_json::json!({
                "@type": ERROR_INFO,
                "reason": info.reason,
                "domain": DOMAIN,
                "metadata": info.metadata,
            }));
        }
        if let Some(after) = self.retry_after {
            let delay = format!("{}s", after.as_secs_f64());
            details.push(serde_json::json!({ "@type": RETRY_INFO, "retryDelay": delay }));
        }
        if !details.is_empty() {
            error["details"] = details.into();
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
        let mut details = Vec::new();
        if !error.violations.is_empty() {
            let violations = error.violations.iter().map(|violation| rpc::FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            });
            details.push(any(BAD_REQUEST, &rpc::BadRequest { field_violations: violations.collect() }));
        }
        if let Some(info) = &error.info {
            let info = rpc::ErrorInfo {
                reason: info.reason.to_owned(),
                domain: DOMAIN.to_owned(),
                metadata: info.metadata.clone().into_iter().collect(),
            };
            details.push(any(ERROR_INFO, &info));
        }
        if let Some(after) = error.retry_after {
            let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            let nanos = i32::try_from(after.subsec_nanos()).unwrap_or(0);
            let retry_delay = Some(prost_types::Duration { seconds, nanos });
            details.push(any(RETRY_INFO, &rpc::RetryInfo { retry_delay }));
        }
        if details.is_empty() {
            return Status::new(error.code, error.message);
        }
        let details = rpc::Status { code: error.code as i32, message: error.message.clone(), details };
        Status::with_details(error.code, error.message, details.encode_to_vec().into())
    }
}

fn any(kind: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: kind.to_owned(), value: message.encode_to_vec() }
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
            PortError::TooLarge(field) => Self::too_large(&field),
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
        Self { retry_after: retry_of(&problem), ..Self::new(code, problem.to_string()) }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_at_both_doors() {
        let error = ApiError::out_of_range("ack_deadline_seconds", 9, 10, 600, Bound::Below);
        let text = "The value for ack_deadline_seconds is too small. You passed 9 in the request, but the minimum \
                    value is 10.";
        let expected = serde_json::json!({ "error": {
            "code": 400,
            "message": text,
            "status": "INVALID_ARGUMENT",
            "details": [{
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "field": "ack_deadline_seconds", "description": text }],
            }],
        }});
        assert_eq!(error.to_json(), expected);
        let status = Status::from(error);
        let details = rpc::Status::decode(status.details()).expect("details");
        assert_eq!((details.code, details.message.as_str()), (3, text));
        assert_eq!(details.details[0].type_url, BAD_REQUEST);
        let told = rpc::BadRequest::decode(&*details.details[0].value).expect("a bad request");
        assert_eq!(told.field_violations[0].field, "ack_deadline_seconds");
        assert_eq!(told.field_violations[0].description, text);
    }

    #[test]
    fn what_names_no_field_has_no_details() {
        let error = ApiError::not_found("orders");
        assert!(error.to_json()["error"].get("details").is_none());
        assert!(Status::from(error).details().is_empty());
        let both = ApiError::invalid_field("a", "b").with_info("REASON", BTreeMap::new());
        let both = both.to_json();
        assert_eq!(both["error"]["details"].as_array().map(Vec::len), Some(2));
    }
}
