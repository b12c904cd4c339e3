//! `POST /v1/sql`: one read-only query, answered as JSON rows or CSV.
//!
//! The answer is streamed, so its size does not matter to the server's memory. Its first
//! part is held back until it is long enough or complete: most errors of execution show by
//! then and are answered as problems. One that comes later breaks the answer off, which no
//! client can mistake for a complete one.

use std::sync::Arc;

use arrow::csv::WriterBuilder;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use arrow::record_batch::RecordBatch;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use levada_core::Problem;
use levada_lake::{Param, QueryLimits, QueryOutput};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json as value};

use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::ApiProblem;
use crate::routes::reals::Reals;
use crate::state::AppState;

const MAX_SQL_BYTES: usize = 256 << 10;
const MAX_PARAMS: usize = 1_000;
/// So much of an answer is held back before the first byte leaves.
const HEAD_BYTES: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    sql: String,
    /// `$1` upwards: texts, numbers, booleans, nulls.
    #[serde(default)]
    params: Vec<Box<RawValue>>,
    /// Cut the result here; never above the server's own limit.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

pub async fn query(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<SqlRequest>,
) -> Result<Response, ApiProblem> {
    let format = accepted(&headers)?;
    if request.sql.len() > MAX_SQL_BYTES || request.params.len() > MAX_PARAMS {
        return Err(
            Problem::new(413, "sql-too-long", "the query or its list of parameters is too long").into()
        );
    }
    let params =
        request.params.iter().enumerate().map(|(n, p)| param(n, p)).collect::<Result<Vec<_>, _>>()?;
    let config = &state.config.query;
    let limits = QueryLimits {
        memory_bytes: config.memory_bytes,
        timeout: config.timeout,
        max_rows: request.max_rows.unwrap_or(config.max_rows).min(config.max_rows),
    };
    let session = state.lake.session(&caller.principal, None)?;
    let output = session.query(&request.sql, params, limits).await?;
    let answer = Answer { output, format, stage: Stage::Head, rows: 0 };
    Ok(answer.respond(limits.max_rows).await?)
}

fn accepted(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Format::Json) };
    let accept = accept.to_str().unwrap_or("").to_ascii_lowercase();
    for kind in accept.split(',').map(|k| k.split(';').next().unwrap_or("").trim()) {
        match kind {
            "application/json" | "application/*" | "*/*" => return Ok(Format::Json),
            "text/csv" | "text/*" => return Ok(Format::Csv),
            _ => {}
        }
    }
    Err(Problem::new(406, "not-acceptable", "results are written as application/json or text/csv"))
}

/// A number is passed on as its text: a double in between would lose digits of a decimal.
fn param(index: usize, param: &RawValue) -> Result<Param, Problem> {
    let text = param.get().trim();
    let read = match text.as_bytes().first() {
        Some(b'n') => Some(Param::Null),
        Some(b't' | b'f') => Some(Param::Bool(text == "true")),
        Some(b'"') => serde_json::from_str(text).ok().map(Param::Text),
        Some(b'-' | b'0'..=b'9') => Some(match text.parse() {
            Ok(whole) => Param::Int(whole),
            Err(_) => Param::Decimal(text.to_owned()),
        }),
        _ => None,
    };
    read.ok_or_else(|| bad_param(index))
}

fn bad_param(index: usize) -> Problem {
    Problem::new(
        422,
        "sql-param",
        format!("parameter ${} must be a text, number, boolean or null", index + 1),
    )
    .hint("pass a list as several parameters")
}

/// A result on its way out.
struct Answer {
    output: QueryOutput,
    format: Format,
    stage: Stage,
    rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Rows,
    Done,
}

impl Answer {
    async fn respond(mut self, max_rows: usize) -> Result<Response, Problem> {
        let mut head = Vec::new();
        while head.len() < HEAD_BYTES && self.chunk(&mut head).await? {}
        let mut headers = HeaderMap::new();
        let content_type = match self.format {
            Format::Json => "application/json",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(HeaderName::from_static("levada-max-rows"), HeaderValue::from(max_rows));
        if self.stage == Stage::Done {
            let truncated = if self.output.truncated() { "true" } else { "false" };
            headers.insert(HeaderName::from_static("levada-truncated"), HeaderValue::from_static(truncated));
            return Ok((headers, Bytes::from(head)).into_response());
        }
        let rest = stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            let mut chunk = Vec::new();
            match answer.chunk(&mut chunk).await {
                Ok(true) => Some((Ok(Bytes::from(chunk)), Some(answer))),
                Ok(false) => (!chunk.is_empty()).then(|| (Ok(Bytes::from(chunk)), None)),
                Err(problem) => {
                    tracing::warn!(%problem, "a query failed after its answer had begun");
                    Some((Err(std::io::Error::other(problem.to_string())), None))
                }
            }
        });
        let whole = stream::once(std::future::ready(Ok(Bytes::from(head)))).chain(rest);
        Ok((headers, Body::from_stream(whole)).into_response())
    }

    /// Appends the next piece; false when the answer is complete with it.
    async fn chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, Problem> {
        match self.stage {
            Stage::Done => return Ok(false),
            Stage::Head => {
                self.write_head(out)?;
                self.stage = Stage::Rows;
                return Ok(true);
            }
            Stage::Rows => {}
        }
        if let Some(batch) = self.output.stream.next().await {
            let batch = batch?;
            match self.format {
                Format::Json => write_rows(out, &batch, self.rows > 0)?,
                Format::Csv => write_csv(out, &batch, false)?,
            }
            self.rows += batch.num_rows() as u64;
            return Ok(true);
        }
        self.stage = Stage::Done;
        if self.format == Format::Json {
            let tail = value!({ "as_of": self.output.as_of, "truncated": self.output.truncated() });
            out.extend_from_slice(b"],");
            out.extend_from_slice(tail.to_string().trim_start_matches('{').as_bytes());
        }
        Ok(false)
    }

    fn write_head(&self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let schema = &self.output.schema;
        match self.format {
            Format::Csv => write_csv(out, &RecordBatch::new_empty(Arc::clone(schema)), true),
            Format::Json => {
                let columns: Vec<Value> = schema
                    .fields()
                    .iter()
                    .map(|f| value!({ "name": f.name(), "type": f.data_type().to_string() }))
                    .collect();
                out.extend_from_slice(b"{\"columns\":");
                out.extend_from_slice(Value::from(columns).to_string().as_bytes());
                out.extend_from_slice(b",\"rows\":[");
                Ok(())
            }
        }
    }
}

/// Rows as JSON lists, in the order of the columns.
fn write_rows(out: &mut Vec<u8>, batch: &RecordBatch, after_others: bool) -> Result<(), Problem> {
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Reals));
    let schema = batch.schema();
    let mut columns: Vec<NullableEncoder<'_>> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| make_encoder(field, column.as_ref(), &options))
        .collect::<Result<_, _>>()
        .map_err(|e| unwritable(&e))?;
    for row in 0..batch.num_rows() {
        if after_others || row > 0 {
            out.push(b',');
        }
        out.push(b'[');
        for (n, column) in columns.iter_mut().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            if column.is_null(row) {
                out.extend_from_slice(b"null");
            } else {
                column.encode(row, out);
            }
        }
        out.push(b']');
    }
    Ok(())
}

fn write_csv(out: &mut Vec<u8>, batch: &RecordBatch, header: bool) -> Result<(), Problem> {
    let mut writer = WriterBuilder::new().with_header(header).build(out);
    writer.write(batch).map_err(|e| unwritable(&e))
}

fn unwritable(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(422, "result-unwritable", format!("a column of the result cannot be written: {error}"))
        .hint("cast it to a text or select its parts")
}
