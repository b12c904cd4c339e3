//! Extractors that answer with a problem instead of plain text.

use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use http::request::Parts;
use levada_core::Problem;
use serde::de::DeserializeOwned;

use crate::auth::Caller;
use crate::body::read_body;
use crate::problem::ApiProblem;
use crate::state::AppState;

/// The query string, every parameter known.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiProblem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|q| Self(q.0)).map_err(|rejection| {
            Problem::new(400, "query-invalid", rejection.body_text())
                .hint("the parameters of every route are listed at /openapi.json")
                .into()
        })
    }
}

/// Parts of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiProblem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|p| Self(p.0))
            .map_err(|rejection| Problem::new(400, "path-invalid", rejection.body_text()).into())
    }
}

/// A JSON body, every field known.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T>
where
    AppState: FromRef<S>,
{
    type Rejection = ApiProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiProblem> {
        let (parts, body) = request.into_parts();
        let content_type =
            parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        let is_patch = parts.method == http::Method::PATCH
            && essence.eq_ignore_ascii_case("application/merge-patch+json");
        if !is_patch && !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(415, "content-type-unsupported", "this address reads application/json")
                .hint("send the header `Content-Type: application/json`")
                .into());
        }
        let state = AppState::from_ref(state);
        let caller = match parts.extensions.get::<Caller>() {
            Some(caller) => caller.clone(),
            None => Caller::authenticate(&state, &parts)?,
        };
        let body = read_body(&state, &caller.owner(), &parts.headers, body).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            if error.is_data() {
                return Problem::new(422, "body-invalid", error.to_string())
                    .hint("the fields of every request are listed at /openapi.json")
                    .into();
            }
            Problem::new(400, "json-invalid", format!("no valid JSON: {error}")).into()
        })
    }
}
