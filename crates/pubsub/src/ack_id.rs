//! Ack ids as clients see them: opaque texts that belong to one subscription.
//!
//! A text carries the lease's number and a checksum over it and the subscription's name, so
//! that a text of another subscription, or one that was made up, is told from a lease that
//! has ended.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use levada_bus::port::AckId;
use levada_core::ResourceName;

use crate::error::ApiError;
use crate::names::shown;

const VERSION: u8 = 1;

/// Writes and reads the ack ids of one subscription.
#[derive(Debug, Clone, Copy)]
pub struct AckIds {
    salt: u32,
}

impl AckIds {
    pub fn of(subscription: &ResourceName) -> Self {
        Self { salt: crc32c::crc32c(subscription.to_string().as_bytes()) }
    }

    fn sum(self, number: [u8; 8]) -> [u8; 4] {
        crc32c::crc32c_append(self.salt, &number).to_be_bytes()
    }

    pub fn write(self, id: AckId) -> String {
        let number = id.0.to_be_bytes();
        let mut bytes = [VERSION; 13];
        bytes[1..9].copy_from_slice(&number);
        bytes[9..].copy_from_slice(&self.sum(number));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None`: malformed, or of another subscription.
    pub fn read(self, text: &str) -> Option<AckId> {
        let mut bytes = [0u8; 16];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (&version, rest) = bytes[..len].split_first()?;
        let (number, sum) = rest.split_first_chunk::<8>()?;
        (version == VERSION && sum == self.sum(*number)).then(|| AckId(u64::from_be_bytes(*number)))
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// INVALID_ARGUMENT that quotes the first malformed one.
    pub fn read_all(self, texts: &[String]) -> Result<Vec<AckId>, ApiError> {
        texts
            .iter()
            .map(|text| {
                self.read(text).ok_or_else(|| {
                    ApiError::invalid(format!(
                        "You have passed an invalid ack ID to the service (ack_id={}).",
                        shown(text)
                    ))
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_ids_belong_to_their_subscription_and_refuse_every_changed_character() {
        let name = |text: &str| text.parse::<ResourceName>().expect("a name");
        let (ours, other) = (AckIds::of(&name("demo/ours")), AckIds::of(&name("demo/other")));
        for number in [0, 1, 77, u64::MAX] {
            let text = ours.write(AckId(number));
            assert_eq!(ours.read(&text), Some(AckId(number)));
            assert_eq!(other.read(&text), None);
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                assert_eq!(ours.read(&String::from_utf8(changed).expect("ascii")), None, "{text} at {at}");
            }
        }
        for bad in ["", "x", "projects/a", "\u{0}", &"A".repeat(5_000)] {
            assert_eq!(ours.read(bad), None);
        }
        assert!(ours.read_all(&["bad".to_owned()]).expect_err("malformed").message.contains("ack_id=bad"));
    }
}
