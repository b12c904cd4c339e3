//! Reads request bodies within bounds of size, time and memory, once it is known that the caller
//! may make the call at all.

use std::io::Read as _;
use std::ops::Deref;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use bytes::{Buf as _, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt as _;
use levada_core::OwnedHold;
use parking_lot::Mutex;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Code;

use crate::api::{Call, PubsubApi};
use crate::error::ApiError;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Memory is taken in steps of at least this for bodies that go on.
const STEP_BYTES: usize = 64 << 10;

/// Deflate cannot make more of a byte.
const DEFLATE_RATIO: usize = 1_032;
/// What a value in a tree of JSON takes beside its text.
const JSON_VALUE_BYTES: usize = 48;
/// What a field takes when it is decoded, at least: that of a repeated message.
const FIELD_BYTES: usize = 192;
/// Whether a message is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// A body in memory; its bytes are free for others when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBody {
    bytes: Bytes,
    held: OwnedHold,
}

impl HeldBody {
    /// The bytes, and what must be kept as long as they are.
    pub(crate) fn split(self) -> (Bytes, OwnedHold) {
        (self.bytes, self.held)
    }

    /// Replaces the bytes by what they expand to, of at most `most` bytes. The room for it is
    /// taken before.
    pub(crate) fn expand(
        mut self,
        most: usize,
        expand: impl FnOnce(Bytes) -> Result<Bytes, ApiError>,
    ) -> Result<Self, ApiError> {
        let before = self.held.bytes();
        self.held.grow(self.bytes.len().saturating_mul(DEFLATE_RATIO).min(most))?;
        self.bytes = expand(self.bytes)?;
        self.held.shrink_to(before + self.bytes.len());
        Ok(self)
    }

    /// Takes room for what reading JSON makes of it: a value may be far larger than its text.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, UNAVAILABLE.
    pub(crate) fn weigh_json(&mut self) -> Result<(), ApiError> {
        let values = self.bytes.iter().filter(|byte| b",[{".contains(byte)).count();
        Ok(self.held.grow(values.saturating_mul(JSON_VALUE_BYTES))?)
    }

    /// The message of a gRPC request in its frame, expanded, with room for what decoding makes
    /// of it: a repeated message takes two bytes on the wire.
    ///
    /// # Errors
    /// As [`PubsubApi::read_body`].
    pub(crate) fn unpack(self, headers: &HeaderMap, most: usize) -> Result<Self, ApiError> {
        let gzip = headers.get(ENCODING).is_some_and(|encoding| encoding == "gzip");
        let mut body = match (self.bytes.first(), gzip) {
            (Some(1), true) if self.bytes.len() >= FRAME_BYTES => {
                self.expand(most, |frame| inflate(&frame, most))?
            }
            _ => self,
        };
        let fields = body.bytes.get(FRAME_BYTES..).map_or(0, top_level_fields);
        body.held.grow(fields.saturating_mul(FIELD_BYTES))?;
        Ok(body)
    }
}

/// A frame whose message is no longer compressed.
fn inflate(frame: &[u8], most: usize) -> Result<Bytes, ApiError> {
    let mut out = vec![0; FRAME_BYTES];
    let mut bounded = MultiGzDecoder::new(&frame[FRAME_BYTES..]).take(most as u64 + 1);
    bounded
        .read_to_end(&mut out)
        .map_err(|error| ApiError::invalid(format!("The compressed request cannot be expanded: {error}.")))?;
    let length = out.len() - FRAME_BYTES;
    if length > most {
        return Err(ApiError::new(
            Code::ResourceExhausted,
            format!("The compressed request expands to more than {most} bytes."),
        ));
    }
    out[1..FRAME_BYTES].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    Ok(out.into())
}

/// Fields of a message of Protocol Buffers, not of those inside it. What cannot be read is left
/// to the decoder.
fn top_level_fields(message: &[u8]) -> usize {
    let (mut rest, mut fields) = (message, 0);
    while rest.has_remaining() {
        let Ok((_, kind)) = decode_key(&mut rest) else { break };
        let skip = match kind {
            WireType::Varint => decode_varint(&mut rest).map(|_| 0),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::LengthDelimited => decode_varint(&mut rest),
            WireType::StartGroup | WireType::EndGroup => Ok(0),
        };
        let skip = skip.ok().and_then(|skip| usize::try_from(skip).ok()).filter(|skip| *skip <= rest.len());
        let Some(skip) = skip else { break };
        rest.advance(skip);
        fields += 1;
    }
    fields
}

/// What has come of a body. Most come in one piece, which is not copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    all: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&piece);
    }

    fn join(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

impl Deref for HeldBody {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl PubsubApi {
    /// Reads a whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for one that is too large or breaks off, DEADLINE_EXCEEDED for one that
    /// does not come in time, RESOURCE_EXHAUSTED and UNAVAILABLE where there is no memory for it.
    pub(crate) async fn read_body(
        &self,
        call: &Call,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<HeldBody, ApiError> {
        let read = self.read_all(call, headers, body, limit);
        let in_time = tokio::time::timeout(self.guards.body_timeout, read);
        in_time.await.unwrap_or_else(|_| {
            Err(ApiError::new(Code::DeadlineExceeded, "The body of the request did not come in time."))
        })
    }

    async fn read_all(
        &self,
        call: &Call,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<HeldBody, ApiError> {
        let too_large = || {
            ApiError::invalid(format!(
                "Request payload size exceeds the limit: {limit} bytes, or it broke off."
            ))
        };
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        let mut held = self.guards.bodies.take(&call.owner(), 0)?;
        let (mut body, mut whole) = (body, Pieces::default());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| too_large())?.into_data() else { continue };
            let length = whole.len() + data.len();
            if length > limit {
                return Err(too_large());
            }
            if length > held.bytes() {
                let most = declared.unwrap_or(limit).max(length);
                let wanted =
                    if held.bytes() == 0 { length } else { (held.bytes() + STEP_BYTES).clamp(length, most) };
                held.grow(wanted - held.bytes())?;
            }
            whole.push(data);
        }
        Ok(HeldBody { bytes: whole.join(), held })
    }

    /// A body that is read message by message, as streams are: what has come and is not yet part
    /// of a message that was taken counts against the caller's memory. Call the returned function
    /// when a message was taken.
    pub(crate) fn count_body(&self, call: &Call, body: Body) -> Result<(Body, impl Fn() + use<>), ApiError> {
        let held = Arc::new(Mutex::new(self.guards.bodies.take(&call.owner(), 0)?));
        let counted = held.clone();
        let frames = body.into_data_stream().map(move |data| {
            let data = data?;
            counted
                .lock()
                .grow(data.len())
                .map_err(|problem| axum::Error::new(tonic::Status::from(ApiError::from(problem))))?;
            Ok::<_, axum::Error>(data)
        });
        Ok((Body::from_stream(frames), move || held.lock().shrink_to(0)))
    }
}

impl Call {
    /// Whether the roles of the caller allow a call at all, whatever it is about: asked before
    /// its body is read.
    ///
    /// # Errors
    /// PERMISSION_DENIED with the roles that would do.
    pub(crate) fn may(&self, path: &str) -> Result<(), ApiError> {
        let method = path.rsplit('/').next().unwrap_or(path);
        match method {
            "Publish" => self.require(self.may_publish(), "engineer, service or client"),
            "Pull" | "StreamingPull" | "Acknowledge" | "ModifyAckDeadline" => {
                self.require(self.may_consume(), "engineer, service or client")
            }
            _ if ["Get", "List", "Test", "Validate"].iter().any(|open| method.starts_with(open)) => Ok(()),
            _ => self.require(self.may_operate(), "engineer or admin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_without_decoding_them() {
        let message = |data: &[u8]| crate::messages::pb::PubsubMessage {
            data: bytes::Bytes::copy_from_slice(data),
            ..Default::default()
        };
        let request = crate::messages::pb::PublishRequest {
            topic: "projects/p/topics/t".into(),
            messages: vec![message(b""), message(b"abc"), message(&[0; 300])],
        };
        let wire = prost::Message::encode_to_vec(&request);
        assert_eq!(top_level_fields(&wire), 4);
        assert_eq!(top_level_fields(&b"\x12\0".repeat(1_000)), 1_000);
        for broken in [&b"\x12\xff\xff\xff\xff\x0f"[..], b"\x12", b"\x07", b"\xff"] {
            assert_eq!(top_level_fields(broken), 0, "{broken:?}");
        }
    }

    #[test]
    fn every_call_that_changes_something_asks_for_a_role() {
        let open: Vec<&str> = crate::dispatch::PATHS
            .iter()
            .filter_map(|path| path.rsplit('/').next())
            .filter(|m| ["Get", "List", "Test", "Validate"].iter().any(|open| m.starts_with(open)))
            .collect();
        let reads = [
            "GetTopic",
            "ListTopics",
            "ListTopicSubscriptions",
            "ListTopicSnapshots",
            "GetSubscription",
            "ListSubscriptions",
            "GetSnapshot",
            "ListSnapshots",
            "GetSchema",
            "ListSchemas",
            "ListSchemaRevisions",
            "ValidateSchema",
            "ValidateMessage",
            "GetIamPolicy",
            "TestIamPermissions",
        ];
        assert_eq!(open, reads);
    }
}
