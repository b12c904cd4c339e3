//! End to end: the built binary, driven from outside as users drive it. Nothing here sees the
//! platform's code; what must come out is counted from the inputs by other means.

mod bad_input;
mod command_line;
mod crashes;
mod demo;
mod dice;
mod enrichment;
mod inputs;
mod isolation;
mod lifecycle;
mod operating;
mod pubsub;
mod pubsub_clients;
mod pubsub_crashes;
mod real_inputs;
mod second_project;
mod solutions;
mod telemetry;
mod trust;
mod weather_service;
mod world;
