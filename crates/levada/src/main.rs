//! Levada: one binary that turns a project folder into a running event and data platform.
//!
//! This crate is the composition: the only place where adapters are chosen and parts meet.

mod archive;
mod census;
mod check;
mod console_data;
mod data_dir;
mod demo;
mod logging;
mod maintenance;
mod meter;
mod operations;
mod pubsub;
mod sampler;
mod server;
mod shared;
mod telemetry;
mod topics;
mod up;

use std::process::ExitCode;

use clap::Parser;
use levada_cli::{Cli, Command, Failure, exit};

fn main() -> ExitCode {
    levada_allocator::set_up();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(exit::FAILED, format!("cannot start threads: {error}"))),
    };
    let result = runtime.block_on(run(cli));
    // Work that ignores a shutdown must not hold the program back.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Check(args) => check::run(&cli.global, args).await,
        Command::Up(args) => up::run(&cli.global, args).await,
        Command::Demo(args) => demo::run(&cli.global, args).await,
        other => levada_cli::run(&cli.global, other).await,
    }
}

fn fail(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        eprintln!("error: {}", failure.message);
    }
    if let Some(hint) = &failure.hint {
        eprintln!("  mend: {hint}");
    }
    ExitCode::from(failure.code)
}
