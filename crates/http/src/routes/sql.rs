//! `POST /v1/sql`: one read-only query, answered as JSON rows or CSV.
//!
//! The answer is streamed, so its size does not matter to the server's memory: the query goes on
//! when its reader has read. Its first part is held back until it is long enough or complete: most
//! errors of execution show by then and are answered as problems. One that comes later breaks the
//! answer off, which no client can mistake for a complete one. So does a credential that is
//! revoked meanwhile.

use std::sync::Arc;

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

use super::rows::{Format, Rows, Wrote, write_csv};
use crate::answers::{Draft, Room, Seat, Sent, Watch, accounted};
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::ApiProblem;
use crate::state::AppState;

const MAX_SQL_BYTES: usize = 256 << 10;
const MAX_PARAMS: usize = 1_000;
/// So much of an answer is held back before the first byte leaves.
const HEAD_BYTES: usize = 1 << 20;
/// So much of it is made at a time then, unless a single row is larger.
const PIECE_BYTES: usize = 128 << 10;

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
    // Where there is no room for an answer, no query runs for it.
    let room = Room::of(&state, &caller);
    let seat = room.seat(PIECE_BYTES).await?;
    let mut watch = Watch::of(&state, &caller);
    let output = watch.during(session.query(&request.sql, params, limits)).await??;
    let answer =
        Answer { output, format, stage: Stage::Head, batch: None, rows: 0, room, watch, _seat: seat };
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
    /// Of which rows are still to be written.
    batch: Option<Rows>,
    rows: u64,
    room: Room,
    watch: Watch,
    _seat: Seat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Rows,
    Done,
}

impl Answer {
    async fn respond(mut self, max_rows: usize) -> Result<Response, Problem> {
        let mut head = self.room.piece()?;
        while self.stage != Stage::Done && head.len() < HEAD_BYTES {
            let Some(wanted) = self.fill(&mut head, HEAD_BYTES).await? else { continue };
            if self.rows > 0 {
                break;
            }
            // A row so wide that the answer begins with it alone.
            let mut wider = self.room.piece_of(head.len() + wanted, Sent::Nothing).await?;
            wider.out().extend_from_slice(head.out());
            head = wider;
        }
        let mut headers = HeaderMap::new();
        let content_type = match self.format {
            Format::Json => "application/json",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(HeaderName::from_static("levada-max-rows"), HeaderValue::from(max_rows));
        let head_bytes = head.into_bytes();
        if self.stage == Stage::Done {
            let truncated = if self.output.truncated() { "true" } else { "false" };
            headers.insert(HeaderName::from_static("levada-truncated"), HeaderValue::from_static(truncated));
            return Ok(accounted((headers, head_bytes).into_response()));
        }
        let rest = stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            match answer.piece().await {
                Ok(piece) => {
                    let is_over = answer.stage == Stage::Done;
                    Some((Ok(piece), (!is_over).then_some(answer)))
                }
                Err(problem) => {
                    tracing::warn!(%problem, "a query failed after its answer had begun");
                    Some((Err(std::io::Error::other(problem.to_string())), None))
                }
            }
        });
        let whole = stream::once(std::future::ready(Ok(head_bytes))).chain(rest);
        Ok(accounted((headers, Body::from_stream(whole)).into_response()))
    }

    /// The next piece of an answer that has begun. It is made when the connection asks for it,
    /// which is when what was made before is on its way.
    async fn piece(&mut self) -> Result<Bytes, Problem> {
        self.watch.look()?;
        let mut draft = self.room.piece()?;
        loop {
            let wanted = self.fill(&mut draft, PIECE_BYTES).await?;
            if draft.len() > 0 || self.stage == Stage::Done {
                return Ok(draft.into_bytes());
            }
            if let Some(bytes) = wanted {
                drop(draft);
                draft = self.room.piece_of(bytes, Sent::Something).await?;
            }
        }
    }

    /// Appends what is at hand, up to about `enough` bytes. Says how much room the next row needs
    /// where it is too wide for what there is.
    async fn fill(&mut self, out: &mut Draft, enough: usize) -> Result<Option<usize>, Problem> {
        match self.stage {
            Stage::Done => return Ok(None),
            Stage::Head => {
                self.write_head(out)?;
                self.stage = Stage::Rows;
                return Ok(None);
            }
            Stage::Rows => {}
        }
        if let Some(batch) = &mut self.batch {
            match batch.write(out, self.format, enough, &mut self.rows)? {
                Wrote::All => self.batch = None,
                Wrote::Enough => {}
                Wrote::Wants(bytes) => return Ok(Some(bytes)),
            }
            return Ok(None);
        }
        match self.watch.during(self.output.stream.next()).await? {
            Some(batch) => self.batch = Some(Rows::new(batch?)),
            None => {
                self.write_tail(out)?;
                self.stage = Stage::Done;
            }
        }
        Ok(None)
    }

    fn write_head(&self, out: &mut Draft) -> Result<(), Problem> {
        let schema = &self.output.schema;
        let mut head = Vec::new();
        match self.format {
            Format::Csv => write_csv(&mut head, &RecordBatch::new_empty(Arc::clone(schema)), true)?,
            Format::Json => {
                let columns: Vec<Value> = schema
                    .fields()
                    .iter()
                    .map(|f| value!({ "name": f.name(), "type": f.data_type().to_string() }))
                    .collect();
                head.extend_from_slice(b"{\"columns\":");
                head.extend_from_slice(Value::from(columns).to_string().as_bytes());
                head.extend_from_slice(b",\"rows\":[");
            }
        }
        out.reserve(head.len())?;
        out.out().extend_from_slice(&head);
        Ok(())
    }

    fn write_tail(&self, out: &mut Draft) -> Result<(), Problem> {
        if self.format == Format::Csv {
            return Ok(());
        }
        let tail = value!({ "as_of": self.output.as_of, "truncated": self.output.truncated() }).to_string();
        out.reserve(tail.len() + 2)?;
        out.out().extend_from_slice(b"],");
        out.out().extend_from_slice(tail.trim_start_matches('{').as_bytes());
        Ok(())
    }
}
