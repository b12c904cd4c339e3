//! The head of a log record: what the bus stores beside the body.
//!
//! Version 1: `u8` version, `u16` little-endian length of the ordering key, the key, then the
//! packed attributes. The version byte leads, so that an old head stays readable for good.

use bytes::{BufMut, Bytes, BytesMut};
use levada_core::{Attributes, Message};

const VERSION: u8 = 1;

/// Why a head cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("record head has version {0}, this program reads version 1: use a newer program")]
    Version(u8),
    #[error("record head is malformed")]
    Malformed,
}

pub(crate) fn encode(message: &Message) -> Bytes {
    let key = message.ordering_key.as_deref().unwrap_or("");
    let key = &key[..key.floor_char_boundary(usize::from(u16::MAX))];
    let attributes = message.attributes.packed();
    let mut head = BytesMut::with_capacity(3 + key.len() + attributes.len());
    head.put_u8(VERSION);
    head.put_u16_le(key.len() as u16);
    head.put_slice(key.as_bytes());
    head.put_slice(attributes);
    head.freeze()
}

pub(crate) fn decode(head: &Bytes) -> Result<(Option<Box<str>>, Attributes), HeadError> {
    let (&version, rest) = head.split_first().ok_or(HeadError::Malformed)?;
    if version != VERSION {
        return Err(HeadError::Version(version));
    }
    let (len, rest) = rest.split_first_chunk::<2>().ok_or(HeadError::Malformed)?;
    let len = usize::from(u16::from_le_bytes(*len));
    let key = rest.get(..len).ok_or(HeadError::Malformed)?;
    let key = std::str::from_utf8(key).map_err(|_| HeadError::Malformed)?;
    let attributes = Attributes::from_packed(head.slice(3 + len..)).map_err(|_| HeadError::Malformed)?;
    Ok(((!key.is_empty()).then(|| key.into()), attributes))
}

#[cfg(test)]
mod tests {
    use levada_core::TenantId;

    use super::*;

    fn message() -> Message {
        Message {
            tenant: TenantId::default_tenant(),
            attributes: [("event_type", "user.login"), ("event_id", "7")].into_iter().collect(),
            ordering_key: Some("user-7".into()),
            body: Bytes::new(),
        }
    }

    #[test]
    fn heads_of_version_1_stay_readable() {
        // Golden: written once by version 1, never regenerated.
        let golden: &[u8] = b"\x01\x06\x00user-7\x0a\x00\x0a\x00\x00\x00event_typeuser.login\
            \x08\x00\x01\x00\x00\x00event_id7";
        assert_eq!(&encode(&message())[..], golden);
        let (key, attributes) = decode(&Bytes::from_static(golden)).expect("golden head");
        assert_eq!(key, message().ordering_key);
        assert_eq!(attributes, message().attributes);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let head = encode(&message());
        for cut in 0..head.len() {
            let short = decode(&head.slice(..cut));
            assert!(short.is_err() || short.is_ok_and(|(_, a)| a.len() < 2), "cut at {cut}");
        }
        assert_eq!(decode(&Bytes::from_static(b"\x02\x00\x00")), Err(HeadError::Version(2)));
    }
}
