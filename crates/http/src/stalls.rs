//! Readers that take nothing: a connection that makes no progress for a while is closed.
//!
//! An answer waits in the memory of the server until its reader takes it. On a socket the
//! progress shows in what the system accepts. A stream of HTTP/2 has a window of its own, which
//! its reader may leave closed while the socket moves, so there each large answer is looked at.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};

use crate::connections::Activity;

/// A frame of a body has at most so many bytes, so that a slow reader shows as one that moves.
const FRAME_BYTES: usize = 32 << 10;

/// A socket whose writes fail once the peer has taken nothing for `patience`.
pub(crate) struct Impatient<S> {
    socket: S,
    patience: Duration,
    /// Since when a write waits, as the time at which it fails.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub fn new(socket: S, patience: Duration) -> Self {
        Self { socket, patience, until: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// How far the reader of one answer is. Held by the body and by every frame of it.
#[derive(Debug)]
struct Progress {
    frames: AtomicU64,
    /// The next frame is asked for and not made yet: the reader is not the one that waits.
    making: AtomicBool,
    /// Dropped with the last frame.
    _alive: oneshot::Sender<()>,
}

/// Closes the connection where the reader of this answer takes nothing for `patience`.
pub(crate) fn watched(response: Response, activity: Arc<Activity>, patience: Duration) -> Response {
    let (alive, gone) = oneshot::channel();
    let progress =
        Arc::new(Progress { frames: AtomicU64::new(0), making: AtomicBool::new(false), _alive: alive });
    tokio::spawn(watch(Arc::downgrade(&progress), gone, activity, patience));
    response.map(|body| Body::new(Watched { body, rest: Bytes::new(), progress }))
}

async fn watch(
    progress: Weak<Progress>,
    mut gone: oneshot::Receiver<()>,
    activity: Arc<Activity>,
    patience: Duration,
) {
    let mut seen = 0;
    while timeout(patience, &mut gone).await.is_err() {
        let Some(progress) = progress.upgrade() else { return };
        let frames = progress.frames.load(Ordering::Relaxed);
        if frames == seen && !progress.making.load(Ordering::Relaxed) {
            activity.evict();
            return;
        }
        seen = frames;
    }
}

struct Watched {
    body: Body,
    /// Of the last frame.
    rest: Bytes,
    progress: Arc<Progress>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            let next = Pin::new(&mut self.body).poll_frame(cx);
            self.progress.making.store(next.is_pending(), Ordering::Relaxed);
            match std::task::ready!(next) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        self.progress.frames.fetch_add(1, Ordering::Relaxed);
        let len = self.rest.len().min(FRAME_BYTES);
        let bytes = self.rest.split_to(len);
        let frame = Bytes::from_owner(WatchedFrame { bytes, _progress: self.progress.clone() });
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

struct WatchedFrame {
    bytes: Bytes,
    _progress: Arc<Progress>,
}

impl AsRef<[u8]> for WatchedFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
