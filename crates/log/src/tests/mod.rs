//! The log by its public face: crashes, faults, upkeep and verification.

mod durability;
mod faults;
mod log;
mod scrub;
mod sim;
mod simulation;
mod upkeep;
mod verify;
mod verify_model;
