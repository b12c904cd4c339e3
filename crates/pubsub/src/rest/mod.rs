//! The REST door: `/v1/projects/...`, transcoded to the same calls as gRPC.

mod bindings;
mod json;
mod schema;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::routing::any;
use futures::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use prost::Message;
use serde_json::{Map, Value};
use tonic::Code;

use crate::api::{Call, PubsubApi, timed};
use crate::dispatch::{Visitor, dispatch};
use crate::error::ApiError;
use crate::limits::MAX_WIRE_BYTES;
use crate::names::shown;
use bindings::{Binding, Target};
use schema::{Kind, Shape};

/// A request of the largest size in base64, with what frames it.
const MAX_BODY_BYTES: usize = MAX_WIRE_BYTES / 3 * 4 + (1 << 20);

/// Query parameters that every Google API has; none of them changes an answer here.
const SYSTEM_PARAMETERS: [&str; 11] = [
    "alt",
    "$alt",
    "fields",
    "$fields",
    "prettyPrint",
    "$prettyPrint",
    "quotaUser",
    "$.xgafv",
    "$userProject",
    "uploadType",
    "upload_protocol",
];

/// The route of all resources.
pub(crate) fn router(api: PubsubApi) -> Router {
    Router::new().route("/v1/projects/{*resource}", any(answer)).with_state(api)
}

async fn answer(State(api): State<PubsubApi>, request: Request) -> Response<Body> {
    match transcode(api, request).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => {
            let status =
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = json(status, &error.to_json());
            if error.code == Code::Unauthenticated {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn transcode(api: PubsubApi, request: Request) -> Result<Value, ApiError> {
    let (parts, body) = request.into_parts();
    let call = api.call(&parts.headers)?;
    let path = parts.uri.path().trim_start_matches("/v1/");
    let found = Target::parse(path).ok_or(false).and_then(|target| {
        let binding = target.binding(&parts.method)?;
        Ok((target, binding))
    });
    let (target, binding) = found.map_err(|other_methods| {
        let path = shown(parts.uri.path());
        match other_methods {
            true => ApiError::unimplemented(format!("The method {} is not one of {path}.", parts.method)),
            false => ApiError::new(Code::NotFound, format!("There is nothing at {path} in the Pub/Sub API.")),
        }
    })?;
    let mut question = match binding.body {
        bindings::Body::Nothing => Map::new(),
        bindings::Body::Whole => read(body).await?,
        bindings::Body::Field(name) => Map::from_iter([(name.to_owned(), Value::Object(read(body).await?))]),
    };
    query(binding, parts.uri.query().unwrap_or(""), &mut question)?;
    set(binding.question, &mut question, binding.field, Value::String(target.resource))?;
    let wire = json::to_wire(binding.question, &Value::Object(question))?;
    let work = dispatch(binding.call, Transcoded { api, call, wire: wire.into() })
        .ok_or_else(|| ApiError::new(Code::Internal, "the rule of this path names no call"))?;
    let answer = work.await?;
    json::from_wire(binding.answer, answer)
        .map_err(|error| ApiError::new(Code::Internal, format!("the answer cannot be written: {error}")))
}

/// The body as a JSON object; none is an empty one.
async fn read(body: Body) -> Result<Map<String, Value>, ApiError> {
    let bytes = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|_| {
        ApiError::invalid(format!(
            "Request payload size exceeds the limit: {MAX_BODY_BYTES} bytes, or it broke off."
        ))
    })?;
    let bytes = bytes.to_bytes();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::invalid("Invalid JSON payload received. The request must be an object.")),
        Err(error) => Err(ApiError::invalid(format!("Invalid JSON payload received. {error}"))),
    }
}

/// Adds the parameters of the query to the request.
fn query(binding: &Binding, query: &str, into: &mut Map<String, Value>) -> Result<(), ApiError> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_encoding::percent_decode_str(&text).decode_utf8();
            text.map(String::from).map_err(|_| ApiError::invalid("The query is not valid UTF-8."))
        };
        let (name, value) = (decode(name)?, decode(value)?);
        if SYSTEM_PARAMETERS.contains(&name.as_str()) {
            continue;
        }
        set(binding.question, into, &name, Value::String(value))?;
    }
    Ok(())
}

/// Sets a field by its path; text becomes what the field holds.
fn set(shape: &Shape, into: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), ApiError> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let unknown = || {
        ApiError::invalid(format!(
            "Invalid JSON payload received. Unknown name \"{}\": Cannot bind query parameter.",
            shown(path)
        ))
    };
    let field = shape.field(name).ok_or_else(unknown)?;
    // The body may have used the other spelling; there must be one.
    let key = schema::camel(field.name);
    if key != field.name
        && let Some(given) = into.remove(field.name)
    {
        into.insert(key.clone(), given);
    }
    match (rest, field.kind) {
        (Some(rest), Kind::Message(shape)) => {
            let inner = into.entry(key).or_insert_with(|| Value::Object(Map::new()));
            let inner = inner.as_object_mut().ok_or_else(unknown)?;
            set(shape, inner, rest, value)
        }
        (Some(_), _) => Err(unknown()),
        (None, Kind::Bool) => {
            let flag = match value.as_str() {
                Some("true") => true,
                Some("false") => false,
                _ => return Err(unknown()),
            };
            into.insert(key, Value::Bool(flag));
            Ok(())
        }
        (None, _) if field.repeated => {
            let items = into.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            items.as_array_mut().ok_or_else(unknown)?.push(value);
            Ok(())
        }
        (None, _) => {
            into.insert(key, value);
            Ok(())
        }
    }
}

/// Makes a call of wire bytes and answers with wire bytes.
struct Transcoded {
    api: PubsubApi,
    call: Call,
    wire: Bytes,
}

impl Visitor for Transcoded {
    type Output = Result<Bytes, ApiError>;

    fn visit<Q, A, F>(self, path: &'static str, method: F) -> BoxFuture<'static, Self::Output>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Fn(PubsubApi, Call, Q) -> BoxFuture<'static, Result<A, ApiError>> + Clone + Send + Sync + 'static,
    {
        Box::pin(async move {
            let question = Q::decode(self.wire)
                .map_err(|error| ApiError::invalid(format!("Invalid JSON payload received. {error}")))?;
            let deadline = self.call.deadline;
            let work = method(self.api, self.call, question);
            Ok(timed(path, "rest", deadline, work).await?.encode_to_vec().into())
        })
    }
}
