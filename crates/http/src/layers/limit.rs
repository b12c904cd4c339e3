//! A rate limit's decision in the words of HTTP.
//!
//! Header names follow the IETF draft "RateLimit header fields for HTTP" in the form that
//! clients know: limit, remaining, and seconds until reset.

use http::{HeaderMap, HeaderValue};
use levada_core::{Decision, Problem};

pub fn write_headers(headers: &mut HeaderMap, decision: &Decision) {
    headers.insert("ratelimit-limit", HeaderValue::from(decision.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(decision.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(seconds(decision)));
}

pub fn exceeded(decision: &Decision) -> Problem {
    let wait = seconds(decision).max(1);
    Problem::new(429, "rate-limited", format!("the tenant's limit of {} is used up", decision.limit))
        .hint("wait as long as Retry-After says; spread the load, or ask for a higher limit in levada.yaml")
        .retry_after_s(wait)
}

fn seconds(decision: &Decision) -> u64 {
    decision.reset.as_secs() + u64::from(decision.reset.subsec_nanos() > 0)
}
