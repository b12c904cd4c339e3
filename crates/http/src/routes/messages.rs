//! `GET /v1/topics/{topic}/messages`.
//!
//! A shared topic has one lane a tenant: a caller sees the messages of its own lanes. Offsets are
//! of the topic, so a caller that does not see every lane sees gaps.
//!
//! Messages are read and written a piece at a time. An answer of one piece goes out as a whole; a
//! longer one is streamed, and the next piece is read once the one before is on its way.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use levada_bus::{BusError, Delivered};
use levada_core::{Problem, Quota, TenantId, TopicName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::topics::visible_topic;
use super::visible::{MessageView, time, written_bytes};
use crate::answers::{Draft, Room, Seat, Sent, Watch, accounted, read, whole_json};
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::{ApiProblem, bus_problem};
use crate::state::AppState;

const MAX_LIMIT: usize = 1_000;
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 256 << 10;
/// What a read holds beside the piece that is written from it.
const SEAT_BYTES: usize = 512 << 10;
/// A piece ends beyond this.
const PIECE_BYTES: usize = 128 << 10;
/// Reads for one piece; where others' messages lie between, a piece may be empty.
const PIECE_READS: usize = 64;
/// An answer stops growing here, even below its limit of messages.
const ANSWER_BYTES: usize = 8 << 20;
/// One call looks at this many records at most, whosever they are.
const SCAN_RECORDS: usize = 100_000;
/// A call that waits asks so often whether its credential is still good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const BEGIN: &[u8] = b"{\"messages\":[";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuery {
    /// An offset, `start` or `end`.
    from: Option<String>,
    limit: Option<usize>,
    wait_ms: Option<u64>,
}

#[derive(Serialize)]
struct Positioned<'a> {
    offset: u64,
    tenant_id: &'a TenantId,
    published_at: String,
    #[serde(flatten)]
    message: MessageView<'a>,
}

pub async fn messages(
    State(state): State<AppState>,
    caller: Caller,
    Path(topic): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let topic = visible_topic(&state, &caller, &topic)?;
    let bounds = state.bus.bounds(&topic)?;
    let from = match query.from.as_deref() {
        None | Some("start") => bounds.first,
        Some("end") => bounds.next,
        Some(text) => text
            .parse()
            .map_err(|_| Problem::new(400, "query-invalid", "`from` must be an offset, `start` or `end`"))?,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(state.config.max_wait);
    // Only who has to wait takes a place among those that wait.
    let _waits = match wait.is_zero() {
        true => None,
        false => Some(caller.wait(&state, Quota::WaitingReads)?),
    };
    let mut answer = Answer {
        room: Room::of(&state, &caller),
        watch: Watch::of(&state, &caller),
        scan: Scan { topic, next: from, left: limit, found: 0, found_bytes: 0, looked_at: 0 },
        seat: None,
        state,
        caller,
    };
    let (draft, is_whole) = answer.begin(Instant::now() + wait).await?;
    Ok(if is_whole { whole_json(draft) } else { answer.stream(draft) })
}

struct Answer {
    state: AppState,
    caller: Caller,
    room: Room,
    watch: Watch,
    /// `None` while it waits for messages.
    seat: Option<Seat>,
    scan: Scan,
}

impl Answer {
    /// Reads on until a message of the caller's lanes came, the time is over or the server stops.
    /// Gives the first piece, and whether it is the whole answer.
    async fn begin(&mut self, deadline: Instant) -> Result<(Draft, bool), Problem> {
        let mut end = self.state.bus.end(&self.scan.topic).map_err(|e| bus_problem(&e))?;
        loop {
            self.scan.looked_at = 0;
            self.seat = Some(self.room.seat(SEAT_BYTES).await?);
            let mut draft = self.room.piece()?;
            draft.reserve(BEGIN.len())?;
            draft.out().extend_from_slice(BEGIN);
            let is_whole = loop {
                let (came, piece) = self.piece(draft).await?;
                draft = came;
                match piece {
                    Piece::Last => break true,
                    Piece::Wants(bytes) => {
                        drop(draft);
                        draft = self.room.piece_of(BEGIN.len() + bytes, Sent::Nothing).await?;
                        draft.out().extend_from_slice(BEGIN);
                    }
                    Piece::More if self.scan.found > 0 => break false,
                    Piece::More => {}
                }
            };
            self.state.still_valid(&self.caller.principal)?;
            if self.scan.found == 0 {
                // Who waits holds no memory.
                (_, self.seat) = (draft, None);
                let came = moved(&self.state, &self.caller, &mut end, self.scan.next, deadline).await?;
                if came && Instant::now() < deadline {
                    continue;
                }
                draft = self.room.piece()?;
                draft.reserve(BEGIN.len())?;
                draft.out().extend_from_slice(BEGIN);
            }
            if is_whole {
                self.scan.end(&mut draft)?;
            }
            return Ok((draft, is_whole));
        }
    }

    /// Reading touches the disk, so it runs beside the request threads.
    async fn piece(&mut self, mut draft: Draft) -> Result<(Draft, Piece), Problem> {
        let (state, caller, mut scan) = (self.state.clone(), self.caller.clone(), self.scan.clone());
        let (scan, draft, piece) = read(&self.state, move || {
            let piece = scan.piece(&state, &caller, &mut draft);
            (scan, draft, piece)
        })
        .await?;
        self.scan = scan;
        Ok((draft, piece?))
    }

    async fn next(&mut self) -> Result<(Bytes, bool), Problem> {
        let mut draft = self.room.piece()?;
        loop {
            let (came, piece) = self.piece(draft).await?;
            draft = came;
            match piece {
                Piece::Last => {
                    self.scan.end(&mut draft)?;
                    return Ok((draft.into_bytes(), true));
                }
                Piece::Wants(bytes) => {
                    drop(draft);
                    draft = self.room.piece_of(bytes, Sent::Something).await?;
                }
                Piece::More if draft.len() > 0 => return Ok((draft.into_bytes(), false)),
                Piece::More => {}
            }
        }
    }

    /// The rest of an answer whose first piece is there. An error breaks it off.
    fn stream(self, first: Draft) -> Response {
        let rest = stream::unfold((Some(self), Some(first.into_bytes())), |(answer, first)| async move {
            if let Some(bytes) = first {
                return Some((Ok(bytes), (answer, None)));
            }
            let mut answer = answer?;
            let mut watch = answer.watch.clone();
            let next = watch.during(answer.next()).await.and_then(|next| next);
            answer.watch = watch;
            match next {
                Ok((bytes, is_last)) => Some((Ok(bytes), ((!is_last).then_some(answer), None))),
                Err(problem) => {
                    tracing::warn!(%problem, "an answer with messages breaks off");
                    Some((Err(std::io::Error::other(problem.to_string())), (None, None)))
                }
            }
        });
        let json = HeaderValue::from_static("application/json");
        accounted(([(header::CONTENT_TYPE, json)], Body::from_stream(rest)).into_response())
    }
}

/// How an attempt to write a piece ended.
enum Piece {
    /// There may be more.
    More,
    Last,
    /// The next message alone needs so many bytes; nothing was written.
    Wants(usize),
}

/// How far a call has looked.
#[derive(Debug, Clone)]
struct Scan {
    topic: TopicName,
    next: u64,
    /// Messages that may still come.
    left: usize,
    found: usize,
    found_bytes: usize,
    looked_at: usize,
}

impl Scan {
    fn is_over(&self) -> bool {
        self.left == 0 || self.looked_at >= SCAN_RECORDS || self.found_bytes >= ANSWER_BYTES
    }

    fn piece(&mut self, state: &AppState, caller: &Caller, draft: &mut Draft) -> Result<Piece, Problem> {
        let before = self.found;
        for _ in 0..PIECE_READS {
            if self.is_over() {
                return Ok(Piece::Last);
            }
            let want = if caller.is_platform() { self.left } else { READ_RECORDS };
            let read = state.bus.read(&self.topic, self.next, want, READ_BYTES);
            let records = read.map_err(|error: BusError| bus_problem(&error))?;
            let Some(last) = records.last().map(|record| record.offset) else { return Ok(Piece::Last) };
            self.looked_at += records.len();
            for record in records {
                if self.left == 0 || self.found_bytes >= ANSWER_BYTES {
                    return Ok(Piece::Last);
                }
                if caller.sees(&record.message.tenant) {
                    let bytes = written_bytes(&record.message);
                    if draft.reserve(bytes).is_err() {
                        let is_empty = self.found == before;
                        return Ok(if is_empty { Piece::Wants(bytes) } else { Piece::More });
                    }
                    self.write(&record, draft)?;
                }
                self.next = record.offset + 1;
            }
            self.next = self.next.max(last + 1);
            if draft.len() >= PIECE_BYTES {
                return Ok(Piece::More);
            }
        }
        Ok(Piece::More)
    }

    fn write(&mut self, record: &Delivered, draft: &mut Draft) -> Result<(), Problem> {
        if self.found > 0 {
            draft.out().push(b',');
        }
        let positioned = Positioned {
            offset: record.offset,
            tenant_id: &record.message.tenant,
            published_at: time(record.published_at_ms),
            message: MessageView::new(&record.message),
        };
        serde_json::to_writer(draft.out(), &positioned).map_err(|error| {
            tracing::error!(%error, "a message cannot be written as JSON");
            Problem::new(500, "internal", "the server failed while answering")
        })?;
        self.found += 1;
        self.left -= 1;
        self.found_bytes += record.message.body.len();
        Ok(())
    }

    /// Where to read on from.
    fn end(&self, draft: &mut Draft) -> Result<(), Problem> {
        let end = format!("],\"next\":{}}}", self.next);
        draft.reserve(end.len())?;
        draft.out().extend_from_slice(end.as_bytes());
        Ok(())
    }
}

/// Waits until the topic goes beyond an offset; false when the time is over or the server stops.
async fn moved(
    state: &AppState,
    caller: &Caller,
    end: &mut watch::Receiver<u64>,
    at: u64,
    deadline: Instant,
) -> Result<bool, Problem> {
    loop {
        tokio::select! {
            came = end.wait_for(|end| *end > at) => return Ok(came.is_ok()),
            () = tokio::time::sleep_until(deadline) => return Ok(false),
            () = state.drained() => return Ok(false),
            () = tokio::time::sleep(LOOK_AGAIN) => state.still_valid(&caller.principal)?,
        }
    }
}
