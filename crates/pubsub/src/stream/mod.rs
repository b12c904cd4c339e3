//! StreamingPull: one task a stream, which reads requests, pulls, and writes responses.
//!
//! The task never waits for one of the three alone. Acknowledgements that arrive while some
//! are being made durable are taken together next, so a busy stream pays one wait for many.
//! Messages are pulled only while flow control leaves room and the client takes what was
//! written before.

mod ledger;
mod session;

use std::task::Poll;

use futures::stream::{BoxStream, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::Status;

pub(crate) use ledger::Streams;

use crate::api::{Call, PubsubApi};
use crate::error::ApiError;
use crate::messages::pb;

/// Responses that wait for the transport; beyond them the stream stops pulling.
const QUEUED_RESPONSES: usize = 2;

/// What a stream answers with.
pub(crate) type Answer = Result<pb::StreamingPullResponse, ApiError>;

/// Opens a stream. It ends when the client or the server wants it to, and when the returned
/// stream is dropped.
pub(crate) fn open(
    api: PubsubApi,
    call: Call,
    requests: BoxStream<'static, Result<pb::StreamingPullRequest, Status>>,
) -> impl Stream<Item = Answer> {
    let (answers, mut answered) = mpsc::channel(QUEUED_RESPONSES);
    // Asked again when a response leaves: it may have waited for its reader.
    let (gate, caller) = (api.clone(), call.clone());
    tokio::spawn(async move {
        let gone = answers.clone();
        let ended = tokio::select! {
            ended = session::run(api, call, requests.fuse(), &answers) => ended,
            () = gone.closed() => return,
        };
        if let Err(error) = ended {
            // Nobody listens when this fails.
            let _ = answers.send(Err(error)).await;
        }
    });
    let mut ended = false;
    futures::stream::poll_fn(move |cx| {
        if ended {
            return Poll::Ready(None);
        }
        let next = answered.poll_recv(cx);
        if let Poll::Ready(Some(Ok(_))) = &next
            && let Err(error) = gate.valid(&caller)
        {
            ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        next
    })
}

#[cfg(test)]
mod tests;
