//! What a service may answer, and how far it is believed.

use levada_schema::{Cell, Coercion, Extractor, Row};
use reqwest::{Response, StatusCode};

/// An answer worth remembering.
#[derive(Debug)]
pub enum Answer {
    /// One cell for each output column.
    Found(Vec<Cell<'static>>),
    NotFound,
}

/// Why a call gave no answer.
#[derive(Debug)]
pub enum CallError {
    /// The service is down, slow or overloaded: another attempt may succeed.
    Transient(String),
    /// It answered with something else than it should: another attempt would too.
    Wrong(String),
    /// It refuses this request.
    Refused(String),
    /// The rules of egress do not allow the call.
    Forbidden(String),
}

/// Judges a response: its status, its size and the types of what it says.
pub async fn read(response: Response, fields: &Extractor, max_bytes: usize) -> Result<Answer, CallError> {
    let status = response.status();
    match status {
        StatusCode::NOT_FOUND => return Ok(Answer::NotFound),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            return Err(CallError::Transient(format!("the service answered {status}")));
        }
        _ if status.is_server_error() => {
            return Err(CallError::Transient(format!("the service answered {status}")));
        }
        _ if status.is_redirection() => {
            return Err(CallError::Wrong(format!(
                "the service answered {status}; redirects are not followed"
            )));
        }
        _ if status.is_client_error() => {
            return Err(CallError::Refused(format!("the service answered {status}")));
        }
        StatusCode::OK => {}
        _ => return Err(CallError::Wrong(format!("the service answered {status} where 200 was due"))),
    }
    let body = bounded(response, max_bytes).await?;
    cells(&body, fields).map(Answer::Found).map_err(CallError::Wrong)
}

async fn bounded(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() <= max_bytes => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                return Err(CallError::Wrong(format!("the answer is longer than {max_bytes} bytes")));
            }
            Err(e) => return Err(CallError::Transient(describe(&e))),
        }
    }
}

fn cells(body: &[u8], fields: &Extractor) -> Result<Vec<Cell<'static>>, String> {
    let mut row = Row::default();
    fields.scan(body, &mut row).map_err(|e| format!("the answer is not what it should be: {e}"))?;
    let cell = |(at, field): (usize, &levada_config::model::Field)| {
        let cell =
            fields.cell(&row, at, Coercion::Strict).map_err(|e| format!("in the answer {}", e.reason))?;
        match cell.is_null() && field.required {
            true => Err(format!("the answer lacks `{}`", field.name)),
            false => Ok(cell.into_owned()),
        }
    };
    fields.fields().iter().enumerate().map(cell).collect()
}

/// The error and its causes, without the URL, which the dead letter's reason names already.
pub fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "the service did not answer in time".to_owned();
    }
    let mut text = if error.is_connect() { "cannot connect" } else { "the call failed" }.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
