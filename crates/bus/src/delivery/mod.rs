//! Delivery of one subscription as a pure machine: offsets and times go in, decisions come
//! out, so that a reference model can drive it through any schedule.
//!
//! ```text
//!            scan              pop                    ack
//!  topic ──────────► lanes ──────────► leased ───────────────► settled
//!                      ▲  │ key taken     │ nack, expiry           ▲
//!                      │  ▼               ▼                        │
//!                      │ key's queue   retry ── due ─► lanes       │
//!                      └── key's turn     └── attempts used up ─► spent: dead letter
//! ```
//!
//! Several messages of an ordering key may be leased, in order and by one consumer. When one fails,
//! those leased behind it go back to the key's queue and follow it again. An acknowledgement counts
//! at once with exactly-once delivery; without it, once nothing before it in the key is open: until
//! then a failure of an earlier message brings the acknowledged one back too.

mod keys;
mod lanes;
mod live;
mod settled;
mod state;

pub(crate) use keys::KeyBounds;
pub(crate) use lanes::{SHARED_LANE, Waiting};
pub(crate) use settled::Settled;
pub(crate) use state::{Lease, Now, Outcome, Progress, Rules, Seen, State};
