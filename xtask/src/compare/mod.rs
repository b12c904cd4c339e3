//! `cargo xtask compare pubsub`: the same calls to Levada and to Google's emulator, and where
//! their answers differ.
//!
//! Calls are generated from a seed, right and wrong ones, over REST. They come in short scripts,
//! each in a project of its own, so that a call whose outcome differs does not make the answers
//! of all that follow it differ as well: a script ends there. Differences that are meant are
//! listed with their reasons in `known.json`; any other ends the command with an error.

mod answer;
mod calls;
mod emulator;
mod known;
mod messages;
mod random;
mod schemas;
mod sql;
mod subscriptions;
mod topics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use levada_testkit::{Connection, Levada, Options, Request};

use answer::{Answer, Difference};
use calls::{Call, Script};
use emulator::Emulator;
use known::Known;
use random::Random;

/// A call that has no answer by then gets none.
const PATIENCE: Duration = Duration::from_secs(3);
const CALLS_A_SCRIPT: usize = 16;

#[derive(clap::Args)]
pub struct Args {
    what: What,
    /// The emulator's jar, if it lies elsewhere than its package puts it
    #[arg(long, value_name = "PATH")]
    emulator: Option<PathBuf>,
    /// A server in development mode that runs already, instead of one that is started
    #[arg(long, value_name = "HOST:PORT")]
    levada: Option<String>,
    /// The same seed makes the same calls
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 3_000)]
    calls: usize,
    /// Print every call with both answers
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The Pub/Sub API, with Google's emulator (package google-cloud-cli-pubsub-emulator)
    Pubsub,
    /// SQL, with PostgreSQL 15 (package postgresql): writes its answers to the golden files
    Sql,
}

pub fn run(args: &Args) -> Result<()> {
    match args.what {
        What::Pubsub => pubsub(args),
        What::Sql => sql::run(),
    }
}

/// One of the two servers.
struct Side {
    address: String,
    connection: Option<Connection>,
    /// Ids of the messages that the last pull of a script leased.
    leased: Vec<String>,
}

impl Side {
    fn new(address: String) -> Self {
        Self { address, connection: None, leased: Vec::new() }
    }

    fn send(&mut self, call: &Call) -> Answer {
        let mut answer = self.once(&call.request(&self.leased));
        // What was published a moment ago may not have arrived yet.
        for _ in 0..20 {
            if !call.awaits_messages || answer.is_error() || answer.has_messages() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            answer = self.once(&call.request(&self.leased));
        }
        if let Some(leased) = answer.leased() {
            self.leased = leased;
        }
        answer
    }

    fn once(&mut self, request: &Request) -> Answer {
        let mut sent = || -> Result<_> {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open_within(&self.address, PATIENCE)?,
            };
            let answer = connection.send(request)?;
            Ok((connection, answer))
        };
        match sent() {
            Ok((connection, answer)) => {
                self.connection = Some(connection);
                Answer::read(&answer)
            }
            Err(_) => Answer::none(),
        }
    }
}

/// Differences of one kind, and the first of them.
struct Found {
    count: usize,
    example: String,
}

fn pubsub(args: &Args) -> Result<()> {
    let known = Known::read()?;
    let Some(jar) = args.emulator.clone().or_else(emulator::installed) else {
        bail!(
            "Google's Pub/Sub emulator is not installed: install the package google-cloud-cli-pubsub-emulator, or \
             name its jar with --emulator PATH"
        );
    };
    let folder = tempfile::tempdir()?;
    let started = match args.levada {
        Some(_) => None,
        None => Some(start(folder.path())?),
    };
    let levada = args.levada.as_deref().or(started.as_ref().map(|levada| levada.http.as_str()));
    let levada = levada.context("there is no Levada")?.to_owned();
    let emulator = Emulator::start(&jar, folder.path())?;
    println!("seed {}, Levada at {levada}, the emulator at {}", args.seed, emulator.address);
    let mut sides = [Side::new(levada), Side::new(emulator.address.clone())];
    let mut report = Report { known: known.count(), ..Report::default() };
    let mut random = Random::new(args.seed);
    for number in 0.. {
        if report.calls >= args.calls {
            break;
        }
        script(&mut sides, Script::new(number), &mut random, &known, &mut report, args)?;
    }
    report.print(&known)
}

/// Levada on a project without pipelines.
fn start(folder: &Path) -> Result<Levada> {
    let project = folder.join("project");
    std::fs::create_dir_all(&project)?;
    std::fs::write(project.join("levada.yaml"), "name: compare\n")?;
    let mut options = Options::new(&project, &folder.join("data"));
    options.postgres = false;
    options.args = vec!["--dev".into()];
    Levada::start(&options)
}

/// Runs one script until its end, or until the two servers no longer hold the same.
fn script(
    sides: &mut [Side; 2],
    mut script: Script,
    random: &mut Random,
    known: &Known,
    report: &mut Report,
    args: &Args,
) -> Result<()> {
    for side in sides.iter_mut() {
        side.leased.clear();
    }
    for step in 0..CALLS_A_SCRIPT {
        if report.calls >= args.calls {
            break;
        }
        let call = script.next(step, random);
        let [ours, theirs] = sides.each_mut().map(|side| side.send(&call));
        report.calls += 1;
        if args.verbose {
            println!("{call}\n    levada   {ours}\n    emulator {theirs}");
        }
        let differences = answer::compare(&ours, &theirs);
        if differences.is_empty() {
            report.same += 1;
        }
        for difference in &differences {
            match known.reason(&call, difference) {
                Some(index) => report.known[index] += 1,
                None => report.unlisted(&call, difference, &ours, &theirs),
            }
        }
        if differences.iter().any(Difference::parts_state) {
            break;
        }
        if !ours.is_error() {
            script.done(&call);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Report {
    calls: usize,
    same: usize,
    /// How often each known difference was met.
    known: Vec<usize>,
    unlisted: BTreeMap<String, Found>,
}

impl Report {
    fn unlisted(&mut self, call: &Call, difference: &Difference, ours: &Answer, theirs: &Answer) {
        let kind = format!("{} [{}]: {difference}", call.name, call.traits.join(", "));
        let found = self.unlisted.entry(kind).or_insert_with(|| Found {
            count: 0,
            example: format!("{call}\n    levada   {ours}\n    emulator {theirs}"),
        });
        found.count += 1;
    }

    fn print(&self, known: &Known) -> Result<()> {
        println!("{} calls, {} with the same answer", self.calls, self.same);
        for (count, reason) in self.known.iter().zip(known.reasons()).filter(|(count, _)| **count > 0) {
            println!("{count:>6}  known: {reason}");
        }
        for (kind, found) in &self.unlisted {
            println!("{:>6}  {kind}\n  {}", found.count, found.example);
        }
        match self.unlisted.len() {
            0 => Ok(()),
            n => bail!(
                "{n} kinds of differences are neither mended nor listed in xtask/src/compare/known.json"
            ),
        }
    }
}
