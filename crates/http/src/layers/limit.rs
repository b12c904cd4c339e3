//! A rate limit's decision in the words of HTTP.
//!
//! Header names follow the IETF draft "RateLimit header fields for HTTP" in the form that
//! clients know: limit, remaining, and seconds until reset.

use http::{HeaderMap, HeaderValue};
pub use levada_access::exceeded;
use levada_core::Decision;

pub fn write_headers(headers: &mut HeaderMap, decision: &Decision) {
    headers.insert("ratelimit-limit", HeaderValue::from(decision.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(decision.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(seconds(decision)));
}

fn seconds(decision: &Decision) -> u64 {
    decision.reset.as_secs() + u64::from(decision.reset.subsec_nanos() > 0)
}
