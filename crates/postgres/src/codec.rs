//! Messages on the socket: pgwire's encoding, with bounds on what a client may send.
//!
//! A message is cut out of the stream by its length and its form is checked before pgwire reads
//! it: pgwire trusts counts and lengths inside a message, and what it leaves over would be taken
//! for the next one.

use std::io;

use bytes::{Buf, BytesMut};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::{DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};
use tokio_util::codec::{Decoder, Encoder};

use crate::form;

/// As PostgreSQL bounds a startup message.
const MAX_STARTUP_BYTES: usize = 10_000;
/// A length and a code.
const MIN_STARTUP_BYTES: usize = 8;
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// How far the connection is: it decides how the next bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// An encryption request, or what `Startup` reads.
    Negotiation,
    /// A startup message or a cancel request.
    Startup,
    /// The password of who has not logged in yet, with the bound of a startup message.
    Password,
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
        self.context.awaiting_frontend_startup = matches!(phase, Phase::Negotiation | Phase::Startup);
    }

    pub fn speak(&mut self, version: ProtocolVersion) {
        self.context.protocol_version = version;
    }

    /// Cuts the next whole message out; `None` until all of it has come.
    fn cut(&self, src: &mut BytesMut) -> Result<Option<BytesMut>, PgWireError> {
        let (prefix, least, most) = match self.phase {
            Phase::Ready => (1, 4, self.max_message_bytes),
            Phase::Password => (1, 4, MAX_STARTUP_BYTES),
            Phase::Negotiation | Phase::Startup => (0, MIN_STARTUP_BYTES, MAX_STARTUP_BYTES),
        };
        if let (1, Some(kind)) = (prefix, src.first())
            && !form::is_known(*kind)
        {
            return Err(PgWireError::InvalidMessageType(*kind));
        }
        let Some(length) = number(src, prefix) else { return Ok(None) };
        let length = length as usize;
        if length < least {
            return Err(malformed("invalid message length"));
        }
        if length > most {
            return Err(PgWireError::MessageTooLarge(most, length));
        }
        Ok((src.len() >= prefix + length).then(|| src.split_to(prefix + length)))
    }
}

/// The number of four bytes at a place, where they have come.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|mut four| four.get_u32())
}

/// What is not the protocol: the connection ends, as nothing after it can be trusted.
pub(crate) fn malformed(what: &str) -> PgWireError {
    broken("08P01", what)
}

fn broken(code: &str, what: &str) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), code.to_owned(), what.to_owned())))
}

impl Decoder for Codec {
    type Item = PgWireFrontendMessage;
    type Error = PgWireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, PgWireError> {
        if self.phase == Phase::Negotiation {
            // What is no encryption request stays where it is, for the next phase.
            return match (number(src, 0), number(src, 4)) {
                (Some(length), Some(code)) if ENCRYPTION_REQUESTS.contains(&code) && length != 8 => {
                    Err(malformed("invalid length of an encryption request"))
                }
                _ => PgWireFrontendMessage::decode(src, &self.context),
            };
        }
        let Some(mut message) = self.cut(src)? else { return Ok(None) };
        if self.phase != Phase::Startup {
            match form::check(message[0], &message[5..]) {
                Ok(()) => {}
                Err(form::Fault::Layout) => return Err(malformed("invalid message format")),
                Err(form::Fault::Utf8) => {
                    return Err(broken("22021", "invalid byte sequence for encoding \"UTF8\""));
                }
            }
        }
        let read = PgWireFrontendMessage::decode(&mut message, &self.context)?;
        match read {
            Some(read) if message.is_empty() => Ok(Some(read)),
            _ => Err(malformed("invalid message format")),
        }
    }
}

impl Encoder<PgWireBackendMessage> for Codec {
    type Error = PgWireError;

    fn encode(&mut self, item: PgWireBackendMessage, dst: &mut BytesMut) -> Result<(), PgWireError> {
        item.encode(dst).map_err(|e| PgWireError::IoError(io::Error::other(e)))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    /// Reads on until more bytes are wanted or it fails; how many messages there were.
    fn read_all(codec: &mut Codec, src: &mut BytesMut) -> Result<usize, PgWireError> {
        let mut messages = 0;
        while let Some(message) = codec.decode(src)? {
            if codec.phase == Phase::Negotiation {
                codec.enter(Phase::Startup);
            }
            drop(message);
            messages += 1;
        }
        Ok(messages)
    }

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&[kind][..]);
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn no_bytes_panic_or_take_more_than_they_are() {
        let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
        println!("SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..60_000_u32 {
            let mut codec = Codec::new(4_096);
            codec.enter([Phase::Negotiation, Phase::Startup, Phase::Ready][round as usize % 3]);
            let length = random.random_range(0..200_usize);
            let mut bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
            // Mostly right frames around wrong bodies, else the first byte ends it.
            if round % 4 != 0 && codec.phase == Phase::Ready {
                let kind = b"QPBCDEHSXpdfc"[random.random_range(0..13_usize)];
                bytes.iter_mut().filter(|b| **b > 140).for_each(|b| *b = 0);
                bytes = framed(kind, &bytes).to_vec();
            }
            let mut src = BytesMut::from(&bytes[..]);
            let _ = read_all(&mut codec, &mut src);
            assert!(src.capacity() <= 1_024, "round {round}: {} bytes for {length}", src.capacity());
        }
    }

    #[test]
    fn every_cut_of_a_good_message_waits_and_every_wrong_length_is_refused() {
        let parse = framed(b'P', b"s\0SELECT 1\0\0\x01\0\0\0\x17");
        for end in 0..parse.len() {
            let mut codec = Codec::new(4_096);
            codec.enter(Phase::Ready);
            assert!(matches!(read_all(&mut codec, &mut BytesMut::from(&parse[..end])), Ok(0)), "{end}");
        }
        for (length, good) in
            [(0_u32, false), (3, false), (4, false), (20, false), (21, true), (22, false), (u32::MAX, false)]
        {
            let mut bytes = parse.to_vec();
            bytes[1..5].copy_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&framed(b'S', b""));
            let mut codec = Codec::new(4_096);
            codec.enter(Phase::Ready);
            let read = read_all(&mut codec, &mut BytesMut::from(&bytes[..]));
            assert_eq!(read.is_ok(), good, "{length}: {read:?}");
        }
    }
}
