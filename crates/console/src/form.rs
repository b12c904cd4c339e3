//! Form bodies with repeated fields, which serde's form decoder cannot hold.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// A form must be complete within this time.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The fields of an `application/x-www-form-urlencoded` body, in order.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(body: &[u8]) -> Self {
        let fields = body
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
                (decode(&pair[..at]), decode(pair.get(at + 1..).unwrap_or_default()))
            })
            .collect();
        Self(fields)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

fn decode(part: &[u8]) -> String {
    let spaced: Vec<u8> = part.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode(&spaced).into();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let reading = tokio::time::timeout(READ_WITHIN, Bytes::from_request(request, state));
        let late = |_| (StatusCode::REQUEST_TIMEOUT, "the form did not come in time").into_response();
        let body = reading.await.map_err(late)?.map_err(|rejection| {
            let status = rejection.status();
            let text = if status == StatusCode::PAYLOAD_TOO_LARGE {
                "the form is too large"
            } else {
                "the form was cut off"
            };
            (status, text).into_response()
        })?;
        Ok(Self::parse(&body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_repeated_and_odd_fields() {
        let f = Fields::parse(b"a=1+2&b=%C3%A9%26&a=3&c&=x&d=%zz");
        assert_eq!(f.get("a"), Some("1 2"));
        assert_eq!(f.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!(f.get("b"), Some("é&"));
        assert_eq!(f.get("c"), Some(""));
        assert_eq!(f.get("d"), Some("%zz"));
    }
}
