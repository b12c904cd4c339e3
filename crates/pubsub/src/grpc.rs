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
    let call = match api.call(request.headers()) {
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
        .send_compressed(CompressionEncoding::Gzip)
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
            let service = Method { api: self.api, call: self.call, path, method };
            codec::<A, Q>().unary(service, self.request).await.map(Body::new)
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
    A: Send + 'static,
{
    type Response = A;
    type Future = BoxFuture<'static, Result<tonic::Response<A>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let (path, deadline) = (self.path, self.call.deadline);
        let work = (self.method)(self.api.clone(), self.call.clone(), request.into_inner());
        Box::pin(async move { Ok(tonic::Response::new(timed(path, "grpc", deadline, work).await?)) })
    }
}

async fn streaming_pull(api: PubsubApi, call: Call, request: Request) -> Response<Body> {
    codec().streaming(StreamingPull { api, call }, request).await.map(Body::new)
}

struct StreamingPull {
    api: PubsubApi,
    call: Call,
}

impl StreamingService<pb::StreamingPullRequest> for StreamingPull {
    type Response = pb::StreamingPullResponse;
    type ResponseStream = BoxStream<'static, Result<Self::Response, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<pb::StreamingPullRequest>>) -> Self::Future {
        let (api, call) = (self.api.clone(), self.call.clone());
        Box::pin(async move {
            let requests = request.into_inner().boxed();
            let responses = crate::stream::open(api, call, requests);
            Ok(tonic::Response::new(responses.map(|item| item.map_err(Status::from)).boxed()))
        })
    }
}
