//! Every refusal as `application/problem+json` (RFC 9457).
//!
//! `type` is a link to the page of the stable `code`. The request id is filled in by the
//! frame around all routes, so that no handler can forget it.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use levada_bus::BusError;
use levada_core::Problem;
use serde_json::{Map, Value, json};

const TYPE_BASE: &str = "https://levada.dev/errors/";

/// A [`Problem`] on its way to a client, with further members where a code has some.
#[derive(Debug, Clone)]
pub struct ApiProblem {
    pub problem: Problem,
    extra: Option<(&'static str, Value)>,
}

/// Rides in the extensions of a response until the frame renders it.
#[derive(Debug, Clone)]
pub(crate) struct Pending(pub ApiProblem);

impl From<Problem> for ApiProblem {
    fn from(problem: Problem) -> Self {
        Self { problem, extra: None }
    }
}

impl From<BusError> for ApiProblem {
    fn from(error: BusError) -> Self {
        bus_problem(&error).into()
    }
}

impl From<levada_access::AccessError> for ApiProblem {
    fn from(error: levada_access::AccessError) -> Self {
        let problem = Problem::from(error);
        problem.into()
    }
}

impl ApiProblem {
    pub(crate) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.extra = Some((name, value));
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The document.
    pub(crate) fn body(&self, request_id: &str) -> Value {
        let problem = &self.problem;
        let mut body = Map::new();
        body.insert("type".into(), json!(format!("{TYPE_BASE}{}", problem.code)));
        body.insert("code".into(), json!(problem.code));
        body.insert("title".into(), json!(self.status().canonical_reason().unwrap_or("Problem")));
        body.insert("status".into(), json!(problem.status));
        body.insert("detail".into(), json!(problem.detail));
        if let Some(hint) = &problem.hint {
            body.insert("hint".into(), json!(hint));
        }
        if let Some(seconds) = problem.retry_after_s {
            body.insert("retry_after_s".into(), json!(seconds));
        }
        if let Some((name, value)) = &self.extra {
            body.insert((*name).into(), value.clone());
        }
        body.insert("request_id".into(), json!(request_id));
        Value::Object(body)
    }

    /// Writes the document into a response that carries it.
    pub(crate) fn render(&self, response: &mut Response, request_id: &str) {
        let body = Bytes::from(self.body(request_id).to_string());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.remove(header::CONTENT_LENGTH);
        if let Some(seconds) = self.problem.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.problem.status == 401 {
            let scheme = HeaderValue::from_static("Bearer realm=\"levada\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        *response.body_mut() = axum::body::Body::from(body);
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Pending(self));
        response
    }
}

/// The problem of a bare status, for answers that something else made without a body.
pub(crate) fn of_status(status: StatusCode) -> Problem {
    let (code, detail) = match status.as_u16() {
        400 => ("bad-request", "the request cannot be understood"),
        404 => ("not-found", "there is nothing at this address"),
        405 => ("method-not-allowed", "this address does not know that method"),
        408 => ("request-timeout", "the request took too long to arrive"),
        413 => ("body-too-large", "the request is too large"),
        415 => ("content-type-unsupported", "the content type is not supported"),
        500 => ("internal", "the server failed while answering"),
        _ => ("refused", "the request was refused"),
    };
    Problem::new(status.as_u16(), code, detail)
}

/// What a failure of the bus is to a client. Causes go to the log, not to the client.
pub(crate) fn bus_problem(error: &BusError) -> Problem {
    match error {
        BusError::UnknownTopic(name) => topic_unknown(name.as_str()),
        BusError::TooManyTopics(_) => Problem::new(503, "topics-exhausted", error.to_string()),
        BusError::Log(cause) => {
            tracing::error!(%cause, "the log refused");
            Problem::new(503, "log-unavailable", "the log accepts no events at the moment; nothing was kept")
                .hint("send the events again later; the server's log names the cause")
                .retry_after_s(5)
        }
        BusError::Closed => Problem::new(503, "shutting-down", "the server is stopping; nothing was kept")
            .hint("send the request again")
            .retry_after_s(1),
        BusError::Store(_) | BusError::Record { .. } => {
            tracing::error!(cause = %error, "the bus failed");
            Problem::new(500, "internal", "the server failed while reading or writing its state")
                .hint("the server's log names the cause")
        }
    }
}

/// One and the same for a topic that does not exist and one of another tenant.
pub(crate) fn topic_unknown(name: &str) -> Problem {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    Problem::new(404, "topic-unknown", format!("there is no topic `{shown}`"))
        .hint("GET /v1/topics lists the topics that this credential can see")
}

/// Appends a text as a JSON string.
pub(crate) fn quote(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}
