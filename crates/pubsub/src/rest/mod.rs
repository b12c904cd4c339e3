//! The REST door: `/v1/projects/...`, transcoded to the same calls as gRPC.

mod bindings;
mod encoding;
mod fields;
mod json;
mod schema;
mod system;

use std::collections::HashSet;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::routing::any;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use prost::Message;
use serde_json::{Map, Value};
use tonic::Code;

use crate::api::{Call, PubsubApi, timed};
use crate::dispatch::{Visitor, dispatch};
use crate::error::ApiError;
use crate::limits::MAX_WIRE_BYTES;
use crate::names::shown;
use bindings::{Binding, Target};
use encoding::Encoding;
use schema::{Field, Kind, Shape};
use system::System;

/// A request of the largest size in base64, with what frames it.
const MAX_BODY_BYTES: usize = MAX_WIRE_BYTES / 3 * 4 + (1 << 20);

/// The route of all resources.
pub(crate) fn router(api: PubsubApi) -> Router {
    Router::new().route("/v1/projects/{*resource}", any(answer)).with_state(api)
}

async fn answer(State(api): State<PubsubApi>, request: Request) -> Response<Body> {
    let encoding = match Encoding::of(request.headers()) {
        Ok(encoding) => encoding,
        Err(error) => return refused_encoding(&error),
    };
    match transcode(api, request, encoding).await {
        Ok(text) => json(StatusCode::OK, text),
        Err(error) => {
            let status =
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = json(status, error.to_json().to_string());
            if error.code == Code::Unauthenticated {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

/// The one refusal whose status no code of the API stands for.
fn refused_encoding(error: &ApiError) -> Response<Body> {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let mut body = error.to_json();
    body["error"]["code"] = Value::from(status.as_u16());
    let mut response = json(status, body.to_string());
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn transcode(api: PubsubApi, request: Request, encoding: Encoding) -> Result<String, ApiError> {
    let (parts, body) = request.into_parts();
    let call = api.call_of(&parts.headers, &parts.extensions)?;
    let path = parts.uri.path().trim_start_matches("/v1/");
    let found = Target::parse(path).ok_or(false).and_then(|target| {
        let binding = target.binding(&parts.method)?;
        Ok((target, binding))
    });
    let (target, binding) = found.map_err(|other_methods| {
        let path = shown(parts.uri.path());
        let text = match other_methods {
            true => format!("The method {} is not one of {path}.", parts.method),
            false => format!("There is nothing at {path} in the Pub/Sub API."),
        };
        ApiError::new(Code::NotFound, text)
    })?;
    call.may(binding.call)?;
    let (system, asked) = query(binding, &parts.headers, parts.uri.query().unwrap_or(""))?;
    let mut _held = None;
    let mut question = Map::new();
    if !matches!(binding.body, bindings::Body::Nothing) {
        let body = api.read_body(&call, &parts.headers, body, MAX_BODY_BYTES).await?;
        let mut body = match encoding {
            Encoding::Plain => body,
            Encoding::Gzip => body.expand(MAX_BODY_BYTES, |bytes| encoding.expand(bytes, MAX_BODY_BYTES))?,
        };
        body.weigh_json()?;
        question = read(&body)?;
        _held = Some(body);
    }
    if let bindings::Body::Field(name) = binding.body {
        question = Map::from_iter([(name.to_owned(), Value::Object(question))]);
    }
    for (name, value) in asked {
        set(binding.question, &mut question, &name, Value::String(value))?;
    }
    set(binding.question, &mut question, binding.field, Value::String(target.resource))?;
    let wire = json::to_wire(binding.question, &Value::Object(question))?;
    let work = dispatch(binding.call, Transcoded { api, call, wire: wire.into() })
        .ok_or_else(|| ApiError::new(Code::Internal, "the rule of this path names no call"))?;
    let answer = work.await?;
    let answer = json::from_wire(binding.answer, answer, system.enums)
        .map_err(|error| ApiError::new(Code::Internal, format!("the answer cannot be written: {error}")))?;
    Ok(system.write(answer))
}

/// The body as a JSON object; none is an empty one.
fn read(bytes: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => {
            Err(ApiError::invalid_field("", "Invalid JSON payload received. The request must be an object."))
        }
        Err(error) => Err(ApiError::invalid_field("", format!("Invalid JSON payload received. {error}"))),
    }
}

/// How the answer is to be written, and the fields of the request that the query names.
fn query(
    binding: &Binding,
    headers: &HeaderMap,
    query: &str,
) -> Result<(System, Vec<(String, String)>), ApiError> {
    let mut system = System::of(headers, binding.answer)?;
    let (mut asked, mut seen) = (Vec::new(), HashSet::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_encoding::percent_decode_str(&text).decode_utf8();
            text.map(String::from).map_err(|_| ApiError::invalid("The query is not valid UTF-8."))
        };
        let (name, value) = (decode(name)?, decode(value)?);
        if system.take(&name, &value, binding.answer)? {
            continue;
        }
        if !seen.insert(schema::snake(&name)) && !repeats(binding.question, &name) {
            let text = format!("Invalid JSON payload received. '{}' is given twice.", shown(&name));
            return Err(ApiError::invalid_field(shown(&name), text));
        }
        asked.push((name, value));
    }
    Ok((system, asked))
}

/// Whether a parameter may stand in a query more than once.
fn repeats(shape: &Shape, path: &str) -> bool {
    match (path.split_once('.'), shape.field(path.split('.').next().unwrap_or(path))) {
        (Some((_, rest)), Some(Field { kind: Kind::Message(shape), .. })) => repeats(shape, rest),
        (None, Some(field)) => field.repeated,
        _ => false,
    }
}

/// Sets a field by its path; text becomes what the field holds.
fn set(shape: &Shape, into: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), ApiError> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let unknown = || {
        let text = format!(
            "Invalid JSON payload received. Unknown name \"{}\": Cannot bind query parameter.",
            shown(path)
        );
        ApiError::invalid_field("", text)
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
