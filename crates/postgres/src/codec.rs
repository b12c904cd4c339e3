//! Messages on the socket: pgwire's encoding, with a bound on what a client may send.

use std::io;

use bytes::BytesMut;
use pgwire::error::PgWireError;
use pgwire::messages::{DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};
use tokio_util::codec::{Decoder, Encoder};

/// How far the connection is: it decides how the next bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// An encryption request, or what `Startup` reads.
    Negotiation,
    /// A startup message or a cancel request.
    Startup,
    Ready,
}

#[derive(Debug)]
pub(crate) struct Codec {
    context: DecodeContext,
    phase: Phase,
    max_message_bytes: usize,
}

impl Codec {
    pub fn new(max_message_bytes: usize) -> Self {
        let mut codec = Self {
            context: DecodeContext::new(ProtocolVersion::PROTOCOL3_0),
            phase: Phase::Negotiation,
            max_message_bytes,
        };
        codec.enter(Phase::Negotiation);
        codec
    }

    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.context.awaiting_frontend_ssl = phase == Phase::Negotiation;
        self.context.awaiting_frontend_startup = phase != Phase::Ready;
    }

    pub fn speak(&mut self, version: ProtocolVersion) {
        self.context.protocol_version = version;
    }
}

impl Decoder for Codec {
    type Item = PgWireFrontendMessage;
    type Error = PgWireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, PgWireError> {
        // Before the login pgwire allows 10,000 bytes; after it a gibibyte, which is too much.
        if self.phase == Phase::Ready
            && let Some(length) = src.get(1..5)
        {
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            if length > self.max_message_bytes {
                return Err(PgWireError::MessageTooLarge(self.max_message_bytes, length));
            }
        }
        PgWireFrontendMessage::decode(src, &self.context)
    }
}

impl Encoder<PgWireBackendMessage> for Codec {
    type Error = PgWireError;

    fn encode(&mut self, item: PgWireBackendMessage, dst: &mut BytesMut) -> Result<(), PgWireError> {
        item.encode(dst).map_err(|e| PgWireError::IoError(io::Error::other(e)))
    }
}
