//! One request to a collector, and what its answer means.
//!
//! Source: OpenTelemetry protocol specification 1.x, "OTLP/HTTP".

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use prost::Message;

use crate::config::{ConfigError, Target};
use crate::proto::ExportServiceResponse;

/// What is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// What is told of an answer.
const MAX_TOLD_CHARS: usize = 200;

/// A collector that names a longer pause than this is taken to mean this one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Taken but for so many spans or points.
    Taken { rejected: u64, message: String },
    /// Worth another try, not before that time where the collector names one.
    Retry { after: Option<Duration>, why: String },
    /// Never worth another try.
    Refused { why: String },
}

/// Sends to one target. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exporter {
    client: reqwest::Client,
    target: Target,
}

impl Exporter {
    /// # Errors
    /// [`ConfigError`] where the certificate or the TLS of the system cannot be used.
    pub fn new(target: Target) -> Result<Self, ConfigError> {
        let wrong =
            |reason: String| ConfigError { variable: "OTEL_EXPORTER_OTLP_CERTIFICATE".into(), reason };
        let mut builder = reqwest::Client::builder()
            // A redirect would carry the headers, and with them a token, somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(target.timeout)
            .connect_timeout(target.timeout.min(Duration::from_secs(5)))
            .pool_max_idle_per_host(1)
            .user_agent(concat!("levada/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &target.certificate {
            let all = reqwest::Certificate::from_pem_bundle(pem);
            let all = all.ok().filter(|all| !all.is_empty());
            let all = all.ok_or_else(|| wrong("the file holds no certificate in PEM".to_owned()))?;
            builder = builder.tls_certs_merge(all);
        }
        let client = builder.build().map_err(|e| wrong(format!("no connection can be made: {e}")))?;
        Ok(Self { client, target })
    }

    /// Where it goes, without what may be secret.
    pub fn place(&self) -> String {
        self.target.place()
    }

    /// Sends one message. `now_ms`: for a Retry-After that is a date.
    pub async fn send(&self, message: &impl Message, now_ms: i64) -> Sent {
        let mut body = message.encode_to_vec();
        let mut request = self.client.post(self.target.url.clone()).headers(self.target.headers.clone());
        if self.target.gzip
            && let Some(packed) = gzip(&body)
        {
            body = packed;
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        match request.header(CONTENT_TYPE, "application/x-protobuf").body(body).send().await {
            Ok(response) => judge(response, now_ms).await,
            // Without the address: it may hold a password.
            Err(error) => Sent::Retry { after: None, why: describe(error.without_url()) },
        }
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// An error with what is behind it, since its own text says only that something was wrong.
fn describe(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    told(&text)
}

fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TOLD_CHARS).collect()
}

async fn judge(response: reqwest::Response, now_ms: i64) -> Sent {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    let after = after.and_then(|text| retry_after(text, now_ms));
    let body = read(response).await;
    if status.is_success() {
        let answer = ExportServiceResponse::decode(body).unwrap_or_default();
        let part = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(part.rejected).unwrap_or(0);
        return Sent::Taken { rejected, message: told(&part.error_message) };
    }
    match status.as_u16() {
        code @ (429 | 502 | 503 | 504) => {
            Sent::Retry { after, why: format!("the collector answered {code}") }
        }
        code => {
            let mend = match code {
                401 | 403 => ": set a valid credential in OTEL_EXPORTER_OTLP_HEADERS",
                404 | 405 => ": the endpoint is no OTLP/HTTP receiver; its port is usually 4318",
                413 => ": it takes no request of this size; lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                415 => ": it does not take protobuf",
                300..=399 => ": redirects are not followed; set the address that it names",
                _ => "",
            };
            Sent::Refused { why: format!("the collector answered {code}{mend}") }
        }
    }
}

async fn read(mut response: reqwest::Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Bytes::new();
        }
        body.extend_from_slice(&chunk);
    }
    body.into()
}

/// Seconds, or a date as mail has it; [`MAX_RETRY_AFTER`] at most.
fn retry_after(text: &str, now_ms: i64) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds: long, whatever they say.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        let wait_ms = at.timestamp_millis().saturating_sub(now_ms);
        Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_says_when_to_come_again() {
        let now_ms = 1_445_412_420_000;
        assert_eq!(retry_after("7", now_ms), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now_ms), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:26:00 GMT", now_ms), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now_ms), None);
        assert_eq!(retry_after("", now_ms), None);
        for long in
            ["301", "18446744073709551615", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(retry_after(long, now_ms), Some(MAX_RETRY_AFTER), "{long}");
        }
    }
}
