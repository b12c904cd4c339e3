//! Development commands: `cargo xtask tidy`, `cargo xtask services`, `cargo xtask bench`.

mod bench;
mod services;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, real servers and benchmarks for the developers of Levada")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the rules of the workspace that the compiler does not
    Tidy,
    /// Start real servers on free ports and stop them at the end of input
    Services(services::Args),
    /// Run a named benchmark of the release binary and print one JSON line a figure
    Bench(bench::Args),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Tidy => tidy::run(),
        Command::Services(args) => services::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
