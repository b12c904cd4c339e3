//! Delivery of one subscription as a pure machine: offsets and times go in, decisions come
//! out, so that a reference model can drive it through any schedule.
//!
//! ```text
//!            scan              pop                    ack
//!  topic ──────────► lanes ──────────► leased ───────────────► settled
//!                      ▲  │ key taken     │ nack, expiry           ▲
//!                      │  ▼               ▼                        │
//!                      │ key's queue   retry ── due ─► lanes       │
//!                      └──── key free     └── attempts used up ─► spent: dead letter
//! ```

mod keys;
mod lanes;
mod live;
mod settled;
mod state;

pub(crate) use lanes::Waiting;
pub(crate) use settled::Settled;
pub(crate) use state::{Lease, Now, Outcome, Progress, Rules, Seen, State};
