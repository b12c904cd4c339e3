//! The commands that need no server of their own, as a program that builds in seconds:
//!
//! ```text
//! cargo run -p levada-cli --example client -- work --help
//! ```

use std::process::ExitCode;

use clap::Parser;
use levada_cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.global, cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("error: {}", failure.message);
            }
            if let Some(hint) = &failure.hint {
                eprintln!("  mend: {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}
