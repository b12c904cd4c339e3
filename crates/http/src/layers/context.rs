//! Request id and W3C trace context: taken over where a client sends valid ones, else made.
//!
//! Source: W3C Recommendation "Trace Context", level 1.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response};
use levada_core::IdSource;

// As names and not as text, which would be parsed again for each request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The identity of one request, in its extensions.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    pub id: String,
    /// This server's own span in the client's trace.
    pub traceparent: String,
    /// What the client sent, where it was valid.
    pub client: Option<String>,
}

impl RequestContext {
    /// Reads or makes both.
    pub(crate) fn new(headers: &HeaderMap, ids: &dyn IdSource) -> Self {
        let sent = |name: HeaderName| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let id = sent(REQUEST_ID).filter(|id| is_request_id(id)).map(str::to_owned);
        let span = ids.uuid();
        let client = sent(TRACEPARENT).filter(|t| Self::is_traceparent(t));
        let traceparent = match client {
            // Same trace and flags, a span of our own. The last 8 bytes of the id are random.
            Some(parent) => {
                format!("00-{}-{}-{}", &parent[3..35], &span.simple().to_string()[16..], &parent[53..55])
            }
            None => format!("00-{}-{}-01", ids.uuid().simple(), &span.simple().to_string()[16..]),
        };
        Self { id: id.unwrap_or_else(|| span.to_string()), traceparent, client: client.map(str::to_owned) }
    }

    /// The context of a request, empty where the frame did not run (only in unit tests).
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Whether a text is a valid `traceparent` of version 00.
    pub fn is_traceparent(text: &str) -> bool {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else { return false };
        let hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        let some = |part: &str| part.bytes().any(|b| b != b'0');
        *version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && some(trace) && some(span)
    }

    pub(crate) fn write<B>(&self, response: &mut Response<B>) {
        for (name, value) in [(REQUEST_ID, &self.id), (TRACEPARENT, &self.traceparent)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Ids go into logs, headers and attributes: visible ASCII without quotes, bounded.
fn is_request_id(id: &str) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
}

#[cfg(test)]
mod tests {
    use levada_core::RandomIds;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn headers(id: &str, traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, id.parse().expect("a value"));
        headers.insert(TRACEPARENT, traceparent.parse().expect("a value"));
        headers
    }

    #[test]
    fn a_valid_context_is_continued_with_an_own_span() {
        let context = RequestContext::new(&headers("req-1", PARENT), &RandomIds);
        assert_eq!(context.id, "req-1");
        assert!(context.traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(context.traceparent.ends_with("-00"), "the sampling flag is kept");
        assert!(!context.traceparent.contains("00f067aa0ba902b7"));
        assert!(RequestContext::is_traceparent(&context.traceparent));
    }

    #[test]
    fn an_invalid_context_is_replaced() {
        let long = "x".repeat(129);
        for (id, parent) in [
            ("", ""),
            ("a b", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"),
            ("a\"b", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            (&long, "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            ("{}", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ] {
            let context = RequestContext::new(&headers(id, parent), &RandomIds);
            assert_ne!(context.id, id);
            assert!(RequestContext::is_traceparent(&context.traceparent), "{}", context.traceparent);
            assert!(!context.traceparent.contains("4bf92f3577b34da6"));
        }
    }
}
