//! The memory of answers: taken from the caller's part before an answer grows, and given back
//! when its bytes have been written to the socket.
//!
//! An answer whose size depends on data goes one of two ways. A long one is streamed: each piece
//! takes its memory, and where the reader does not read, no further piece is made. What is made
//! as a whole is a [`Whole`], which takes the memory of what is gathered and of what is written.
//! The memory belongs to the bytes, not to the body: the connection takes bytes out of a body
//! before the client reads them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use levada_core::{OwnedHold, Principal, Problem, QuotaOwner};
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::Caller;
use crate::held::{SMALL_BYTES, until_left};
use crate::state::AppState;

/// How long an answer that has not begun waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one under way waits: what it has made so far leaves in this time, or it is cut.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// A credential is asked for so often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Marks a response whose memory is accounted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accounted;

/// Where the answers of one caller take their memory.
#[derive(Clone)]
pub(crate) struct Room {
    state: AppState,
    owner: QuotaOwner,
}

impl Room {
    pub fn of(state: &AppState, caller: &Caller) -> Self {
        Self { state: state.clone(), owner: caller.owner() }
    }

    /// Begins an answer that is streamed: takes what it holds beside its pieces until its end. A
    /// quarter of the part stays for the pieces of those that have begun.
    ///
    /// # Errors
    /// `memory-exhausted` where there is no room within a moment.
    pub async fn seat(&self, bytes: usize) -> Result<Seat, Problem> {
        let quarter = self.quarter();
        let bytes = bytes.min(quarter);
        let mut hold = self.take(bytes + quarter, PATIENCE).await?;
        hold.shrink_to(bytes);
        Ok(Seat { _hold: hold })
    }

    /// Begins an answer that is gathered as a whole, from so many bytes.
    ///
    /// # Errors
    /// As [`Room::seat`].
    pub async fn gather(&self, bytes: usize) -> Result<Draft, Problem> {
        let beside = bytes.min(self.quarter());
        Ok(Draft { bytes: Vec::new(), beside, hold: self.take(beside, PATIENCE).await?, refused: None })
    }

    /// A piece for which nothing is taken yet.
    ///
    /// # Errors
    /// None in practice: no bytes always fit.
    pub fn piece(&self) -> Result<Draft, Problem> {
        let hold = self.state.answers.take(&self.owner, 0)?;
        Ok(Draft { bytes: Vec::new(), beside: 0, hold, refused: None })
    }

    /// A piece in which `bytes` fit. Waits a moment for them, or long where the answer has begun:
    /// what it has sent frees its memory as it is read.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub async fn piece_of(&self, bytes: usize, sent: Sent) -> Result<Draft, Problem> {
        let patience = match sent {
            Sent::Nothing => PATIENCE,
            Sent::Something => LONG_PATIENCE,
        };
        let hold = self.take(bytes, patience).await?;
        Ok(Draft { bytes: Vec::with_capacity(bytes), beside: 0, hold, refused: None })
    }

    /// Where little memory is for all, reading and gathering must still be possible.
    fn quarter(&self) -> usize {
        self.state.answers.per_owner() / 4
    }

    async fn take(&self, bytes: usize, patience: Duration) -> Result<OwnedHold, Problem> {
        let answers = &self.state.answers;
        if let Ok(hold) = answers.take(&self.owner, bytes) {
            return Ok(hold);
        }
        match timeout(patience, answers.take_when_free(&self.owner, bytes)).await {
            Ok(taken) => taken,
            Err(_) => answers.take(&self.owner, bytes),
        }
    }
}

/// Whether the reader of an answer has got some of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    Something,
}

/// What a streamed answer holds until its end.
#[derive(Debug)]
pub(crate) struct Seat {
    _hold: OwnedHold,
}

/// Bytes of an answer that are being written, with their memory.
pub(crate) struct Draft {
    bytes: Vec<u8>,
    /// Held for what the bytes are made from.
    beside: usize,
    hold: OwnedHold,
    /// Why the last write failed.
    refused: Option<Problem>,
}

impl Draft {
    /// It grows by so much at least, and for no more than this by as much as it has.
    const LEAST_BYTES: usize = 4 << 10;
    const STEP_BYTES: usize = 1 << 20;
    /// More than this that is not used is given back before the bytes leave.
    const SPARE_BYTES: usize = 16 << 10;

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the memory for `more` bytes behind those that are written.
    ///
    /// # Errors
    /// `memory-exhausted`; nothing has changed then.
    pub fn reserve(&mut self, more: usize) -> Result<(), Problem> {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        let Some(missing) = len.saturating_add(more).checked_sub(capacity).filter(|n| *n > 0) else {
            return Ok(());
        };
        let step = capacity.clamp(Self::LEAST_BYTES, Self::STEP_BYTES);
        let wanted = capacity.saturating_add(missing.max(step));
        self.hold_at_least(self.beside.saturating_add(wanted))?;
        self.bytes.reserve_exact(wanted - len);
        Ok(())
    }

    /// Where to write what room was made for.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Holds at least so much beside the bytes.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub fn hold_beside(&mut self, bytes: usize) -> Result<(), Problem> {
        let beside = self.beside.max(bytes);
        self.hold_at_least(beside.saturating_add(self.bytes.capacity()))?;
        self.beside = beside;
        Ok(())
    }

    fn hold_at_least(&mut self, bytes: usize) -> Result<(), Problem> {
        match bytes.checked_sub(self.hold.bytes()).filter(|n| *n > 0) {
            Some(more) => self.hold.grow(more),
            None => Ok(()),
        }
    }

    /// Keeps what is held beside until the bytes of a response have left, which was made without
    /// this draft.
    pub fn hold_for(self, response: Response) -> Response {
        accounted(until_left(response, self.hold))
    }

    /// The bytes on their way out. Their memory is free again when the last copy is dropped.
    pub fn into_bytes(mut self) -> Bytes {
        if self.bytes.capacity() - self.bytes.len() > Self::SPARE_BYTES {
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() as u64 <= SMALL_BYTES {
            return Bytes::from(self.bytes);
        }
        self.hold.shrink_to(self.bytes.capacity());
        Bytes::from_owner(Written { bytes: self.bytes, _hold: self.hold })
    }
}

impl io::Write for Draft {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if let Err(problem) = self.reserve(more.len()) {
            self.refused = Some(problem);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Written {
    bytes: Vec<u8>,
    _hold: OwnedHold,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer that is gathered and written as a whole.
pub(crate) struct Whole(Draft);

impl Whole {
    /// What a list of things in memory takes while it is gathered.
    pub const LIST_BYTES: usize = 1 << 20;

    /// Takes what gathering it needs.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub async fn begin(state: &AppState, caller: &Caller, gathered: usize) -> Result<Self, Problem> {
        Ok(Self(Room::of(state, caller).gather(gathered).await?))
    }

    /// Says what was gathered, once that is known.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub fn gathered(&mut self, bytes: usize) -> Result<(), Problem> {
        self.0.hold_beside(bytes)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// `memory-exhausted`.
    pub fn json(self, value: &impl Serialize) -> Result<Response, Problem> {
        let mut draft = self.0;
        if let Err(error) = serde_json::to_writer(&mut draft, value) {
            return Err(draft.refused.take().unwrap_or_else(|| {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Problem::new(500, "internal", "the server failed while answering")
            }));
        }
        Ok(whole_json(draft))
    }
}

/// A JSON document that is complete.
pub(crate) fn whole_json(draft: Draft) -> Response {
    let json = HeaderValue::from_static("application/json");
    accounted(([(header::CONTENT_TYPE, json)], draft.into_bytes()).into_response())
}

/// Says that the memory of a response is accounted for.
pub(crate) fn accounted(mut response: Response) -> Response {
    response.extensions_mut().insert(Accounted);
    response
}

/// Reads from the disk beside the request threads. Only a few do so at the same time: what a
/// read brings is known, and accounted for, when it is there.
///
/// # Errors
/// `internal`: the work panicked.
pub(crate) async fn read<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let failed = || Problem::new(500, "internal", "the read failed");
    let turn = Arc::clone(&state.reads).acquire_owned().await.map_err(|_| failed())?;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|_| failed())
}

/// Asks once a second whether a caller still may have what it asked for.
#[derive(Clone)]
pub(crate) struct Watch {
    state: AppState,
    principal: Arc<Principal>,
    asked: Instant,
}

impl Watch {
    pub fn of(state: &AppState, caller: &Caller) -> Self {
        Self { state: state.clone(), principal: caller.principal.clone(), asked: Instant::now() }
    }

    /// # Errors
    /// `unauthenticated` once the credential is revoked or expired.
    pub fn look(&mut self) -> Result<(), Problem> {
        if self.asked.elapsed() < LOOK_AGAIN {
            return Ok(());
        }
        self.asked = Instant::now();
        self.state.still_valid(&self.principal)
    }

    /// Does a part of the work, for as long as the caller may have it.
    ///
    /// # Errors
    /// As [`Watch::look`].
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Problem> {
        let mut work = std::pin::pin!(work);
        loop {
            self.look()?;
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = sleep_until(self.asked + LOOK_AGAIN) => {}
            }
        }
    }
}
