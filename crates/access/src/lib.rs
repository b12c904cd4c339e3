//! Who may come in, and how fast: API keys and per-tenant rate limits.
//!
//! [`KeyRing`] is the embedded [`levada_core::Authenticator`]. It keeps no secret, only a
//! keyed hash of each; what it answers to an unknown, an expired and a revoked key is the
//! same. [`RateLimiter`] holds one token bucket a tenant. Neither knows HTTP: the edges
//! turn their answers into headers and status codes.

mod key;
mod limiter;
mod ring;
mod secret;

pub use key::{KeyInfo, KeyState, NewKey};
pub use limiter::{Rate, RateLimiter, exceeded};
pub use ring::{AccessError, KeyRing, MAX_KEYS};
pub use secret::Secret;
