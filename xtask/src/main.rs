//! Development commands: `cargo xtask tidy`, `cargo xtask services`, `cargo xtask compare`,
//! `cargo xtask bench`.

mod bench;
mod campaign;
mod compare;
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
    /// Run a long campaign, such as attacks of one tenant beside the work of another
    Campaign(campaign::Args),
    /// Make the same calls of Levada and of another implementation, and list the differences
    Compare(compare::Args),
    /// Run a named benchmark of the release binary and print one JSON line a figure
    Bench(bench::Args),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Tidy => tidy::run(),
        Command::Services(args) => services::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
