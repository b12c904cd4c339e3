//! `cargo xtask bench NAME [--quick]`: benchmarks of the release binary as a process of its own.
//!
//! Each prints one JSON line a figure (`name`, `value`, `unit`) on standard output and what
//! happens meanwhile on standard error. A figure counts only after what came out downstream
//! has been compared with what went in.

mod gateway;
mod grpc;
mod load;
pub mod machine;
mod peers;
pub mod project;
mod pubsub;
mod pubsub_scale;
mod restart;
mod silver;
mod startup;
mod template;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use levada_testkit::program;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    name: Name,
    /// Smaller amounts: done within 60 seconds
    #[arg(long)]
    quick: bool,
    /// Where data folders are made; it must lie on a real disk
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the data folders
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Events accepted a second: 1 KiB, batches of 100, keys on
    Gateway,
    /// The same, one event a request over 256 connections
    GatewaySingle,
    /// Pub/Sub over gRPC: 1 KiB, batches of 100, beside NATS JetStream and Redis Streams; and
    /// draining it all through one stream
    Pubsub,
    /// The same, one message a request, 256 under way
    PubsubSingle,
    /// From publish to arrival on a stream, at 5,000 messages a second
    PubsubLatency,
    /// What a message costs with 10,000 tenants instead of one, with 2,000 topics instead of one,
    /// and with many messages kept
    PubsubScale,
    /// The first part of that: 10,000 tenants beside one
    PubsubTenants,
    /// How long a small tenant waits while another has a backlog of a million messages
    PubsubFairness,
    /// Publish to queryable silver: 12 columns, validation and deduplication, 100 tenants
    Silver,
    /// Time until ready and idle memory, on an empty and on a large project
    Startup,
    /// Time until ready after a crash, by size of the log
    Restart,
}

/// What a benchmark may use.
pub struct Bench {
    quick: bool,
    folder: PathBuf,
}

impl Bench {
    /// A folder of that name, made anew.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Removes everything that was written so far; nothing may run any more.
    fn clear(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder)?;
        Ok(fs::create_dir_all(&self.folder)?)
    }

    /// The quick or the full amount.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Prints a figure.
fn figure(name: &str, value: f64, unit: &str) {
    let rounded = if value.abs() >= 100.0 { value.round() } else { (value * 1000.0).round() / 1000.0 };
    println!("{}", json!({ "name": name, "value": rounded, "unit": unit }));
}

/// Prints a figure beside that of a peer, where the peer ran.
fn figure_beside(name: &str, value: f64, unit: &str, peer: &str, beside: Option<f64>) {
    let Some(beside) = beside else { return figure(name, value, unit) };
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    let (value, beside, ratio) = (rounded(value), rounded(beside), rounded(value / beside));
    println!(
        "{}",
        json!({ "name": name, "value": value, "unit": unit, "peer": peer, "peer_value": beside, "ratio": ratio })
    );
}

/// Says what happens, beside the figures.
fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

pub fn run(args: &Args) -> Result<()> {
    let binary = program::binary()?;
    let target = program::workspace().join("target/bench");
    let parent = args.dir.clone().unwrap_or(target);
    fs::create_dir_all(&parent)?;
    machine::refuse_memory_disk(&parent)?;
    let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&parent)?;
    note(format_args!("{}", machine::describe()));
    note(format_args!("binary {}, data in {}", binary.display(), folder.path().display()));
    figure("fdatasync_p50", machine::fdatasync_p50(folder.path())?, "us");
    let bench = Bench { quick: args.quick, folder: folder.path().to_owned() };
    match args.name {
        Name::Gateway => gateway::batches(&bench),
        Name::GatewaySingle => gateway::singles(&bench),
        Name::Pubsub => pubsub::batches(&bench),
        Name::PubsubSingle => pubsub::singles(&bench),
        Name::PubsubLatency => pubsub::latency(&bench),
        Name::PubsubScale => pubsub_scale::cost(&bench),
        Name::PubsubTenants => pubsub_scale::tenants(&bench),
        Name::PubsubFairness => pubsub_scale::fairness(&bench),
        Name::Silver => silver::run(&bench),
        Name::Startup => startup::run(&bench),
        Name::Restart => restart::run(&bench),
    }
    .with_context(|| format!("benchmark {:?}", args.name))?;
    if args.keep {
        note(format_args!("kept: {}", folder.keep().display()));
    }
    Ok(())
}
