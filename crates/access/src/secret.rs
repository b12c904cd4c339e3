//! The secret half of an API key: made once, shown once, never stored.
//!
//! Written `lvd_<key id>_<secret>`: the prefix lets secret scanners find a leaked key, the
//! id finds the entry without a search, and the rest is 256 random bits in base64url. The
//! id holds no underscore, so the first two underscores part the three pieces even though
//! base64url has underscores of its own.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::ring::AccessError;

const PREFIX: &str = "lvd_";
/// Letters and digits that are hard to confuse when read aloud.
const ID_ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
const ID_LEN: usize = 12;
const SECRET_BYTES: usize = 32;
/// No presented credential longer than this is even hashed.
pub(crate) const MAX_PRESENTED_BYTES: usize = 256;

/// A text that must not reach a log. `Debug` and `Display` show only the key's id.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Draws a new key id and secret from the operating system's randomness.
    pub(crate) fn draw() -> Result<(String, Self), AccessError> {
        let mut id_bytes = [0u8; ID_LEN];
        let mut bytes = [0u8; SECRET_BYTES];
        fill_random(&mut id_bytes)?;
        fill_random(&mut bytes)?;
        let id: String = id_bytes.iter().map(|b| char::from(ID_ALPHABET[usize::from(b & 31)])).collect();
        let secret = Self(format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(bytes)));
        Ok((id, secret))
    }

    /// The text itself, for the one moment in which it is handed over.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({PREFIX}{}_…)", key_id(&self.0).unwrap_or("?"))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The key id inside a presented credential, where it has the shape of one.
pub(crate) fn key_id(presented: &str) -> Option<&str> {
    let (id, secret) = presented.strip_prefix(PREFIX)?.split_once('_')?;
    let shaped = id.len() == ID_LEN && !secret.is_empty() && presented.len() <= MAX_PRESENTED_BYTES;
    shaped.then_some(id)
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), AccessError> {
    SysRng.try_fill_bytes(bytes).map_err(|e| AccessError::Randomness(e.to_string()))
}
