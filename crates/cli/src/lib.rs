//! The command line: what a person types, and the commands that talk to a running server.
//!
//! `check`, `up` and `demo` need the engines and are carried out by the binary; everything else
//! here is a client of the HTTP API or works on a folder alone.

mod args;
mod client;
mod commands;
mod output;

pub use args::{CheckArgs, Cli, Command, DemoArgs, Global, LogFormat, UpArgs};
pub use client::Connection;
pub use commands::project::report_check;
pub use output::{Failure, Output, exit};

/// The file in a data folder that its running server holds locked.
pub const DATA_LOCK: &str = "levada.lock";

/// Carries out a command that needs no server of its own.
///
/// # Errors
/// A [`Failure`] with the exit code and what to print.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let output = Output::new(global);
    match command {
        Command::Init(args) => commands::project::init(&output, &args),
        Command::Publish(args) => commands::publish::publish(&output, global, args).await,
        Command::Tail(args) => commands::tail::tail(&output, global, args).await,
        Command::Sql(args) => commands::sql::sql(&output, global, args).await,
        Command::Keys(args) => commands::keys::keys(&output, global, args).await,
        Command::Quotas => commands::quotas::quotas(&output, global).await,
        Command::Deadletters(args) => commands::deadletters::deadletters(&output, global, args).await,
        Command::Subscriptions(args) => commands::subscriptions::subscriptions(&output, global, args).await,
        Command::Topics(args) => commands::topics::topics(&output, global, args).await,
        Command::Work(args) => commands::work::work(&output, global, args).await,
        Command::Log(args) => commands::log::log(&output, args),
        Command::Completions(args) => {
            commands::completions(args.shell);
            Ok(())
        }
        Command::Check(_) | Command::Up(_) | Command::Demo(_) => {
            Err(Failure::new(exit::FAILED, "this command needs the engines, which this program lacks"))
        }
    }
}
