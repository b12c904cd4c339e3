//! A body that holds something until it has been sent or its reader has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Smaller answers go out at once: holding on to something for them is not worth the cost.
pub(crate) const SMALL_BYTES: u64 = 64 << 10;

struct Held<T> {
    body: Body,
    held: Option<T>,
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.held = None;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that is in memory as a whole; `None` of one that comes piece by piece.
pub(crate) fn size(response: &Response) -> Option<u64> {
    HttpBody::size_hint(response.body()).exact()
}

/// Keeps `held` until a large or open-ended answer has been sent; of a small one it is dropped
/// at once.
pub(crate) fn until_sent<T: Send + Unpin + 'static>(response: Response, held: T) -> Response {
    if size(&response).is_some_and(|bytes| bytes <= SMALL_BYTES) {
        return response;
    }
    response.map(|body| Body::new(Held { body, held: Some(held) }))
}

/// Keeps `held` until the bytes of an answer have left, also those that the connection has taken
/// out of the body and not sent yet.
pub(crate) fn until_left<T: Send + Sync + 'static>(response: Response, held: T) -> Response {
    response.map(|body| Body::new(Owning { body, held: Arc::new(held) }))
}

struct Owning<T> {
    body: Body,
    held: Arc<T>,
}

impl<T: Send + Sync + 'static> HttpBody for Owning<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        let owned = |bytes| Bytes::from_owner(Owned { bytes, _held: self.held.clone() });
        next.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(owned))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Owned<T> {
    bytes: Bytes,
    _held: Arc<T>,
}

impl<T> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_is_held_lives_as_long_as_a_large_body_is_read() {
        let held = Arc::new(());
        let small = until_sent(Response::new(Body::from("ok")), held.clone());
        assert_eq!(Arc::strong_count(&held), 1);
        let large = until_sent(Response::new(Body::from(vec![0; 65 << 10])), held.clone());
        assert_eq!((size(&large), Arc::strong_count(&held)), (Some(65 << 10), 2));
        drop(large.into_body().collect().await);
        assert_eq!(Arc::strong_count(&held), 1);
        let open = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        let open = until_sent(Response::new(open), held.clone());
        assert_eq!(Arc::strong_count(&held), 2);
        drop((open, small));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_belongs_to_the_bytes_lives_longer_than_their_body() {
        let held = Arc::new(());
        let response = until_left(Response::new(Body::from("some")), held.clone());
        assert_eq!(size(&response), Some(4));
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!((Arc::strong_count(&held), &bytes[..]), (2, &b"some"[..]));
        drop(bytes);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
