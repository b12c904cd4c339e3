//! Reads a request body within bounds of size, time and memory.
//!
//! A declared length that is too large is refused before a byte is read; an undeclared one
//! as soon as it is exceeded. Memory is charged as bytes arrive, against the share of request
//! bodies and the caller's part of it, so that slow senders cannot reserve what they never send
//! and one caller's bodies leave room for the others'.

use std::ops::Deref;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use levada_core::{OwnedHold, Problem, QuotaOwner};

use crate::state::AppState;

/// More than this is not reserved on the word of a Content-Length alone.
const RESERVE_BYTES: usize = 256 << 10;
/// After a refusal this much is still read and dropped, so that a client that is busy
/// sending gets to read the answer instead of a reset connection.
const LINGER_BYTES: usize = 32 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// A body in memory; its share of the budget is free again when it is dropped.
pub struct HeldBody {
    bytes: Bytes,
    _held: OwnedHold,
}

impl Deref for HeldBody {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Reads the whole body.
///
/// # Errors
/// `body-too-large` (413), `body-timeout` (408), `body-broken` (400), `memory-exhausted` (429
/// where it is the caller's part that is held, else 503).
pub async fn read_body(
    state: &AppState,
    owner: &QuotaOwner,
    headers: &HeaderMap,
    body: Body,
) -> Result<HeldBody, Problem> {
    let mut body = body;
    let result = {
        let mut reading = pin!(read(state, owner, headers, &mut body));
        // Mostly it came with its head, and needs no clock.
        match futures::poll!(&mut reading) {
            Poll::Ready(read) => Ok(read),
            Poll::Pending => tokio::time::timeout(state.config.body_timeout, reading).await,
        }
    };
    let problem = match result {
        Ok(Ok(held)) => return Ok(held),
        Ok(Err(problem)) => problem,
        Err(_) => {
            return Err(Problem::new(408, "body-timeout", "the request body did not arrive in time")
                .hint("send smaller batches, or over a faster connection"));
        }
    };
    let _ = tokio::time::timeout(LINGER, discard(body)).await;
    Err(problem)
}

async fn read(
    state: &AppState,
    owner: &QuotaOwner,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<HeldBody, Problem> {
    let limit = state.config.max_body_bytes;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|n| n > limit) {
        return Err(too_large(limit));
    }
    let mut held = state.bodies.take(owner, 0)?;
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(400, "body-broken", "the request body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        charge(&mut held, length, declared.unwrap_or(limit))?;
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(before) => {
                whole.reserve(declared.unwrap_or(length).clamp(length, length.max(RESERVE_BYTES)));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(HeldBody { bytes: first.unwrap_or_else(|| whole.freeze()), _held: held })
}

/// Charges the budget up to `length` bytes, in steps of at least 64 KiB for long bodies, but
/// no further than the body can grow.
fn charge(held: &mut OwnedHold, length: usize, whole: usize) -> Result<(), Problem> {
    let charged = held.bytes();
    if length <= charged {
        return Ok(());
    }
    let step = if charged == 0 { length } else { length.max((charged + (64 << 10)).min(whole)) };
    held.grow(step - charged)
}

async fn discard(mut body: Body) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = body.frame().await {
        dropped += frame.data_ref().map_or(0, Bytes::len);
        if dropped > LINGER_BYTES {
            return;
        }
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(413, "body-too-large", format!("a request body holds at most {limit} bytes"))
        .hint("split the batch, or store large payloads as objects and publish a reference")
}
