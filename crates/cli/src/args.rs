//! The arguments, with the help that `--help` prints.

mod subscriptions;
mod topics;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use subscriptions::{
    MessagesArgs, RedriveArgs, ReplayArgs, ResendArgs, SubscriptionName, SubscriptionsArgs,
    SubscriptionsCommand, UnblockArgs, Weight,
};

pub use topics::{SetTopicArgs, TopicName, TopicsArgs, TopicsCommand};

const AFTER_HELP: &str = "\
Start here:
  levada demo            see events enter, be checked, enriched, kept and served
  levada init my-project write a working starter project
  levada up my-project   run it

Exit codes: 0 done, 1 the server or a file said no, 2 wrong usage, 3 the project has errors,
4 no server answers.";

/// One binary turns a folder of YAML, JSON and SQL into a running event and data platform.
#[derive(Debug, Parser)]
#[command(name = "levada", version, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the server [default: that of the project's running server]
    #[arg(long, global = true, env = "LEVADA_URL", value_name = "URL")]
    pub url: Option<String>,
    /// API key [default: the project's admin key, where this user may read it]
    #[arg(long, global = true, env = "LEVADA_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Project or data folder whose running server is meant
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    pub project: PathBuf,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour (NO_COLOR is honoured)
    #[arg(long, global = true, value_enum, default_value_t = ColorWhen::Auto, value_name = "WHEN")]
    pub color: ColorWhen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a working starter project
    Init(InitArgs),
    /// Check a project: every error of the folder in one run, and what runs
    Check(CheckArgs),
    /// Run a project: gateway, pipelines, lake, SQL and console
    Up(UpArgs),
    /// Run a starter project on generated events and show what happens
    Demo(DemoArgs),
    /// Publish events from a file or standard input (JSON, a JSON array or one JSON a line)
    Publish(PublishArgs),
    /// Follow a topic or the dead letters
    Tail(TailArgs),
    /// Ask a question in SQL
    Sql(SqlArgs),
    /// Create, list and revoke API keys
    Keys(KeysArgs),
    /// List quotas and what is held of them
    Quotas,
    /// List dead letters and send them again
    Deadletters(DeadlettersArgs),
    /// List Pub/Sub subscriptions, look at one, free its blocked ordering keys
    Subscriptions(SubscriptionsArgs),
    /// List Pub/Sub topics, set their durability and deduplication
    Topics(TopicsArgs),
    /// Run a program on the messages of a Pub/Sub subscription
    Work(WorkArgs),
    /// Look after the message log of a stopped server
    Log(LogArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder to write; it must be empty or new
    pub dir: PathBuf,
    /// The project's name [default: the folder's]
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The project folder
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// The project folder
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Where state lives [default: the project's `data_dir`, or DIR/.levada]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of gateway and console, such as 127.0.0.1:8080; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address of the PostgreSQL door, or `off`
    #[arg(long, value_name = "ADDR")]
    pub postgres: Option<String>,
    /// Run although parts of the project are only parsed so far
    #[arg(long)]
    pub allow_inactive: bool,
    /// For development: serve the Pub/Sub API without credentials, on loopback only; every
    /// project exists, and tenants need not be declared (`tenant_id` names any, `default` without)
    #[arg(long)]
    pub dev: bool,
    /// Send traces and metrics to this OpenTelemetry collector (OTLP over HTTP), such as
    /// http://127.0.0.1:4318; `off` sends none [default: OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How to log to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub log: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise
    Auto,
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Run on real inputs laid out as `weather/*.csv` and `webhooks/*/*.json` instead of generated ones
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Stop after the result
    #[arg(long)]
    pub exit: bool,
    /// How many events to generate
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(10..=5_000_000))]
    pub events: u64,
    /// Seed of the generated events
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Address of gateway and console (loopback only); the next free port is taken if it is in use
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: String,
    /// Address of the PostgreSQL door (loopback only)
    #[arg(long, default_value = "127.0.0.1:5433", value_name = "ADDR")]
    pub postgres: String,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// A file, or `-` for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// The topic [default: by event type]
    #[arg(long)]
    pub topic: Option<String>,
    /// The tenant, where the key holds several
    #[arg(long)]
    pub tenant: Option<String>,
    /// Wrap each value as the payload of an event of this type
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    pub event_type: Option<String>,
    /// Events a request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch: u16,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// The topic
    #[arg(required_unless_present = "dead")]
    pub topic: Option<String>,
    /// Follow dead letters, of the topic or of all
    #[arg(long)]
    pub dead: bool,
    /// First offset; without it only what comes from now on
    #[arg(long)]
    pub from: Option<u64>,
    /// Stop after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop at the end of the topic instead of waiting for more
    #[arg(long)]
    pub no_follow: bool,
}

#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The question, or `-` to read it from standard input
    pub query: String,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = SqlFormat::Table)]
    pub format: SqlFormat,
    /// At most this many rows
    #[arg(long)]
    pub max_rows: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SqlFormat {
    Table,
    Csv,
    Json,
}

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a key; its secret is printed once and kept nowhere
    Create {
        /// What the key is for
        #[arg(long)]
        name: String,
        /// Tenants it may act for, or `*` for all
        #[arg(long = "tenant", required = true, value_name = "TENANT")]
        tenants: Vec<String>,
        /// Roles: admin, engineer, analyst, steward, security, service, client
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        /// Days until it expires [default: never]
        #[arg(long, value_name = "DAYS")]
        expires_days: Option<u32>,
    },
    /// List keys, never secrets
    List,
    /// Revoke a key at once
    Revoke {
        /// The key's id
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct DeadlettersArgs {
    #[command(subcommand)]
    pub command: DeadlettersCommand,
}

#[derive(Debug, Subcommand)]
pub enum DeadlettersCommand {
    /// List dead letters, newest first
    List {
        /// Only of this topic
        #[arg(long)]
        topic: Option<String>,
        /// Only with this reason code
        #[arg(long)]
        code: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Send dead letters again to the topic they came from
    Resend {
        /// The topic or its dead-letter topic
        topic: String,
        /// Offsets in the dead-letter topic
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        offsets: Vec<u64>,
        /// All that were not sent yet
        #[arg(long)]
        all: bool,
    },
}

const WORK_HELP: &str = "\
The program reads one JSON line a message on standard input: messageId, publishTime, orderingKey,
attributes, deliveryAttempt, maxDeliveryAttempts, data (base64) and, where the data is JSON, json.
LEVADA_URL and LEVADA_SUBSCRIPTION are in its environment.

Its exit code decides for all its messages:
  0      done: acknowledged
  65     they can never be processed (EX_DATAERR): dead letter
  other  to be delivered again, by the subscription's retry policy (75, EX_TEMPFAIL, says so best)
A JSON line on its standard output decides for one message and goes before the exit code:
  {\"messageId\": \"...\", \"verdict\": \"ack\"|\"retry\"|\"dead_letter\", \"reason\": \"...\"}
Other output is passed on to standard error.

A dead letter is published to the topic of the subscription's dead-letter policy, with its
attributes, the reason in levada.dead.reason (delivered by subscriptions with the label
levada-dead-letter-details=true) and Pub/Sub's CloudPubSubDeadLetterSource* attributes, and then
acknowledged: a crash between the two leaves it there twice, never not at all. Without a
dead-letter policy the message is given back, with a warning.

Messages of one ordering key run one after another. Leases are renewed while the program runs.
SIGTERM and SIGINT drain: nothing more is pulled, what runs may finish within --grace-s, the rest is
given back; a second signal ends what runs. While nothing comes, nothing runs: one request waits.";

#[derive(Debug, Args)]
#[command(after_help = WORK_HELP)]
pub struct WorkArgs {
    /// The subscription: its name, or projects/PROJECT/subscriptions/NAME
    #[arg(long, value_name = "NAME")]
    pub subscription: String,
    /// The subscription's Pub/Sub project [default: the name of the project in --project]
    #[arg(long, value_name = "ID")]
    pub pubsub_project: Option<String>,
    /// Messages a run, at most
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub batch: u16,
    /// How long a batch that is not full waits for more messages
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub linger_ms: u64,
    /// Runs at the same time, at most
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// How long a run may take; then it is ended and its messages are delivered again
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_s: u64,
    /// How long runs may go on after SIGTERM
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub grace_s: u64,
    /// Stop after so long without a message [default: never]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub exit_idle_s: Option<u64>,
    /// What programs are told as maxDeliveryAttempts where the subscription has no dead-letter policy
    #[arg(long, value_name = "N")]
    pub max_attempts_hint: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

const VERIFY_HELP: &str = "\
Reads every file of the log: the commit log, each record of each segment, the indexes, the checkpoint
and the registry of names. Writes nothing, and refuses a folder whose server runs: that one checks its
old messages by itself.

Exit codes: 0 no damage, 1 damage was found, 2 nothing was checked (wrong usage, no log there, or its
server runs).";

#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    pub command: LogCommand,
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Check every message on disk for damage, and say how to mend it
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The data folder (the one with `levada.lock` and `log`), or the log's own folder
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}
