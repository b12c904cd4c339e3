//! Compressed request bodies: gzip, as Google's front ends take it.
//!
//! A body is expanded after it was read, and no further than what it could have been without
//! compression: a bomb is refused when it passes that, not when it has filled the memory.

use std::io::Read as _;

use axum::body::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, header};

use crate::error::ApiError;
use crate::names::shown;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    /// As the headers tell.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, to be answered as 415, for any other encoding and for several.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut encoding = Self::Plain;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let names = value.to_str().unwrap_or("?");
            for name in names.split(',').map(str::trim) {
                let is = |known: &str| name.eq_ignore_ascii_case(known);
                if name.is_empty() || is("identity") {
                    continue;
                }
                if encoding == Self::Gzip || !(is("gzip") || is("x-gzip")) {
                    return Err(ApiError::invalid(format!(
                        "The content encoding `{}` is not supported: send the body as it is, or with gzip.",
                        shown(names)
                    )));
                }
                encoding = Self::Gzip;
            }
        }
        Ok(encoding)
    }

    /// The body itself, of at most `max` bytes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is not gzip, breaks off, or holds more.
    pub(super) fn expand(self, bytes: Bytes, max: usize) -> Result<Bytes, ApiError> {
        if self == Self::Plain || bytes.is_empty() {
            return Ok(bytes);
        }
        let mut out = Vec::new();
        let mut bounded = MultiGzDecoder::new(&*bytes).take(max as u64 + 1);
        bounded.read_to_end(&mut out).map_err(|error| {
            ApiError::invalid(format!("Invalid gzip payload received. The body cannot be expanded: {error}."))
        })?;
        if out.len() > max {
            return Err(ApiError::invalid(format!(
                "Request payload size exceeds the limit: {max} bytes after it was expanded."
            )));
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http::HeaderValue;

    use super::*;

    fn gzip(content: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory").into()
    }

    #[test]
    fn encodings_are_known_by_their_names_alone() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Encoding::of(&headers).ok()
        };
        for plain in [&[][..], &["identity"], &[""], &["Identity, identity"]] {
            assert_eq!(of(plain), Some(Encoding::Plain), "{plain:?}");
        }
        for packed in [&["gzip"][..], &["GZIP"], &["x-gzip"], &["identity, gzip"]] {
            assert_eq!(of(packed), Some(Encoding::Gzip), "{packed:?}");
        }
        for other in [&["br"][..], &["deflate"], &["zstd"], &["gzip, gzip"], &["gzip", "gzip"], &["gzip;q=1"]]
        {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_body_is_expanded_up_to_its_bound() {
        let expand = |bytes: Bytes, max| Encoding::Gzip.expand(bytes, max).map_err(|error| error.message);
        assert_eq!(expand(gzip(b"{\"a\":1}"), 7).as_deref(), Ok(&b"{\"a\":1}"[..]));
        let two = [gzip(b"{\"a\""), gzip(b":1}")].concat();
        assert_eq!(expand(two.into(), 7).as_deref(), Ok(&b"{\"a\":1}"[..]), "two members are one body");
        assert_eq!(expand(Bytes::new(), 7), Ok(Bytes::new()));
        assert!(expand(gzip(b"{\"a\":12}"), 7).expect_err("large").contains("exceeds the limit: 7 bytes"));
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 100 << 10);
        assert!(expand(bomb, 1 << 20).expect_err("a bomb").contains("exceeds the limit"));
        let whole = gzip(b"{\"messages\":[]}");
        for bad in [Bytes::from_static(b"{}"), whole.slice(..whole.len() - 1), whole.slice(..5)] {
            assert!(expand(bad, 1_000).expect_err("broken").contains("Invalid gzip payload"));
        }
        assert_eq!(Encoding::Plain.expand(Bytes::from_static(b"{}"), 1), Ok(Bytes::from_static(b"{}")));
    }
}
