//! The gRPC door: four services on the paths of their names, over axum's HTTP/2.
//!
//! The messages' crate has clients but no servers; these few lines are all that a server
//! needs, and they keep tonic's own transport, with its second HTTP stack, out.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::routing::post;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{Response, header};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::api::{Call, PubsubApi, timed};
use crate::dispatch::{Visitor, dispatch};
use crate::error::ApiError;
use crate::limits::MAX_WIRE_BYTES;
use crate::messages::pb;
use crate::names::shown;

/// What an answer may hold: a pull's messages, with what frames them.
const MAX_ANSWER_BYTES: usize = 2 * MAX_WIRE_BYTES;

/// What one request of a stream may hold: the clients keep to an eighth of it.
const MAX_STREAM_REQUEST_BYTES: usize = 4 << 20;

/// Shorter answers are not compressed: to set the compressor up costs more than the whole call.
const MIN_COMPRESSED_BYTES: usize = 4 << 10;

/// The routes of the four services.
pub(crate) fn router(api: PubsubApi) -> Router {
    let mut router = Router::new();
    for service in [
        "google.pubsub.v1.Publisher",
        "google.pubsub.v1.Subscriber",
        "google.pubsub.v1.SchemaService",
        "google.iam.v1.IAMPolicy",
    ] {
        let handler = move |state: State<PubsubApi>, Path(method): Path<String>, request: Request| {
            answer(state.0, service, method, request)
        };
        router = router.route(&format!("/{service}/{{method}}"), post(handler));
    }
    router.with_state(api)
}

async fn answer(api: PubsubApi, service: &'static str, method: String, request: Request) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/grpc"));
    if !is_grpc {
        let mut response =
            Response::new(Body::from("send gRPC here, or use the REST API below /v1/projects\n"));
        *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let call = api.call_of(request.headers(), request.extensions());
    let call = match call.and_then(|call| call.may(&method).map(|()| call)) {
        Ok(call) => call,
        Err(error) => return Status::from(error).into_http(),
    };
    if service == "google.pubsub.v1.Subscriber" && method == "StreamingPull" {
        return streaming_pull(api, call, request).await;
    }
    match dispatch(&format!("{service}/{method}"), Unary { api, call, request }) {
        Some(response) => response.await,
        None => {
            let text = format!("There is no method {service}/{}.", shown(&method));
            Status::from(ApiError::unimplemented(text)).into_http()
        }
    }
}

fn codec<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    A: Message + 'static,
    Q: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_WIRE_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES)
}

/// Answers a unary call.
struct Unary {
    api: PubsubApi,
    call: Call,
    request: Request,
}

impl Visitor for Unary {
    type Output = Response<Body>;

    fn visit<Q, A, F>(self, path: &'static str, method: F) -> BoxFuture<'static, Response<Body>>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Fn(PubsubApi, Call, Q) -> BoxFuture<'static, Result<A, ApiError>> + Clone + Send + Sync + 'static,
    {
        Box::pin(async move {
            let (parts, body) = self.request.into_parts();
            let read = self.api.read_body(&self.call, &parts.headers, body, MAX_WIRE_BYTES).await;
            let (bytes, _held) = match read.and_then(|body| body.unpack(&parts.headers, MAX_WIRE_BYTES)) {
                Ok(body) => body.split(),
                Err(error) => return Status::from(error).into_http(),
            };
            let request = Request::from_parts(parts, Body::from(bytes));
            let service = Method { api: self.api, call: self.call, path, method };
            let mut codec = codec::<A, Q>().send_compressed(CompressionEncoding::Gzip);
            codec.unary(service, request).await.map(Body::new)
        })
    }
}

struct Method<F> {
    api: PubsubApi,
    call: Call,
    path: &'static str,
    method: F,
}

impl<Q, A, F> UnaryService<Q> for Method<F>
where
    F: Fn(PubsubApi, Call, Q) -> BoxFuture<'static, Result<A, ApiError>> + Clone + Send + Sync + 'static,
    Q: Send + 'static,
    A: Message + 'static,
{
    type Response = A;
    type Future = BoxFuture<'static, Result<tonic::Response<A>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let (path, deadline) = (self.path, self.call.deadline);
        let work = (self.method)(self.api.clone(), self.call.clone(), request.into_inner());
        Box::pin(async move {
            let mut answer = tonic::Response::new(timed(path, "grpc", deadline, work).await?);
            if answer.get_ref().encoded_len() < MIN_COMPRESSED_BYTES {
                answer.disable_compression();
            }
            Ok(answer)
        })
    }
}

async fn streaming_pull(api: PubsubApi, call: Call, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (body, taken) = match api.count_body(&call, body) {
        Ok(counted) => counted,
        Err(error) => return Status::from(error).into_http(),
    };
    let request = Request::from_parts(parts, body);
    // Not compressed: a client that cancels has some responses still in its decompressor, and
    // Node's takes them for messages after the end then, which ends the program.
    let mut codec = codec().max_decoding_message_size(MAX_STREAM_REQUEST_BYTES);
    codec.streaming(StreamingPull { api, call, taken: Some(taken) }, request).await.map(Body::new)
}

struct StreamingPull<F> {
    api: PubsubApi,
    call: Call,
    /// Called for each request that was taken out of the body.
    taken: Option<F>,
}

impl<F: Fn() + Send + Sync + 'static> StreamingService<pb::StreamingPullRequest> for StreamingPull<F> {
    type Response = pb::StreamingPullResponse;
    type ResponseStream = BoxStream<'static, Result<Self::Response, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<pb::StreamingPullRequest>>) -> Self::Future {
        let (api, call, taken) = (self.api.clone(), self.call.clone(), self.taken.take());
        Box::pin(async move {
            let told = move |_: &Result<pb::StreamingPullRequest, Status>| {
                if let Some(taken) = &taken {
                    taken();
                }
            };
            let requests = request.into_inner().inspect(told).boxed();
            let responses = crate::stream::open(api, call, requests);
            Ok(tonic::Response::new(responses.map(|item| item.map_err(Status::from)).boxed()))
        })
    }
}
