//! The API by its public face, over a bus in memory.

mod details;
pub(crate) mod memory;
mod schemas;
mod shares;
mod tenancy;
