//! The arguments of `levada subscriptions`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct SubscriptionsArgs {
    #[command(subcommand)]
    pub command: SubscriptionsCommand,
}

/// A subscription as a person names it.
#[derive(Debug, Clone, Args)]
pub struct SubscriptionName {
    /// PROJECT/ID, projects/PROJECT/subscriptions/ID, or the ID alone
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The Pub/Sub project of an ID alone [default: the name of the project in --project]
    #[arg(long, value_name = "ID")]
    pub pubsub_project: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SubscriptionsCommand {
    /// List subscriptions with backlog and delivery
    List,
    /// Show one subscription: settings, figures, delivery by tenant
    Show {
        #[command(flatten)]
        subscription: SubscriptionName,
    },
    /// List the ordering keys whose messages wait, the longest blocked first
    Blocked {
        #[command(flatten)]
        subscription: SubscriptionName,
        /// At most this many keys
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        limit: u16,
    },
    /// Look at the newest messages without consuming any
    Messages(MessagesArgs),
    /// Acknowledge the message that blocks an ordering key
    Skip(UnblockArgs),
    /// Move the message that blocks an ordering key, and what waits behind it, to the dead letter
    Park(UnblockArgs),
    /// Set tenants' shares in delivery: TENANT=WEIGHT, or TENANT=- to take a weight away
    Weigh {
        #[command(flatten)]
        subscription: SubscriptionName,
        /// Such as acme=5 globex=1 initech=-; a weight is 1 to 1000, a tenant without one counts 1
        #[arg(required = true, value_name = "TENANT=WEIGHT")]
        weights: Vec<Weight>,
    },
    /// Bound how many messages a second a subscription delivers
    Rate {
        #[command(flatten)]
        subscription: SubscriptionName,
        /// Messages a second, 1 to 1000000, or - for no bound
        #[arg(value_name = "RATE")]
        rate: Rate,
    },
    /// Make a subscription that delivers once more what this one got
    Replay(ReplayArgs),
    /// Send the messages of a dead-letter topic's subscription back to where they came from
    Redrive(RedriveArgs),
    /// Edit one dead letter and send it back to where it came from
    Resend(ResendArgs),
}

/// A tenant's share in delivery, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    pub tenant: String,
    /// `None`: none of its own.
    pub weight: Option<u32>,
}

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, weight) = text.split_once('=').ok_or("write TENANT=WEIGHT, such as acme=5")?;
        if tenant.is_empty() {
            return Err("the tenant is missing before `=`".to_owned());
        }
        let weight = match weight {
            "-" => None,
            number => {
                let weight = number.parse().ok().filter(|weight| (1..=1_000).contains(weight));
                Some(weight.ok_or("a weight is a whole number of 1 to 1000, or - to take it away")?)
            }
        };
        Ok(Self { tenant: tenant.to_owned(), weight })
    }
}

#[derive(Debug, Args)]
pub struct MessagesArgs {
    #[command(flatten)]
    pub subscription: SubscriptionName,
    /// Only messages that it matches, such as 'attributes.type = "order"'
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Go on after this message, towards older ones
    #[arg(long, value_name = "MESSAGE")]
    pub before: Option<u64>,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    pub subscription: SubscriptionName,
    /// Only messages that it matches, such as 'attributes.type = "order"'
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// At most this many messages [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Messages a second, at most [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
}

/// A bound on messages a second; `None`: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u32>);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self(None)),
            number => match number.parse() {
                Ok(rate @ 1..=1_000_000) => Ok(Self(Some(rate))),
                _ => Err("a rate is a whole number of 1 to 1000000, or - for no bound"),
            },
        }
    }
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub subscription: SubscriptionName,
    /// The name of the replay, a subscription in the same Pub/Sub project
    #[arg(long = "name", value_name = "ID")]
    pub id: String,
    /// Where to begin: `earliest`, or a time such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME", required_unless_present = "from_snapshot")]
    pub from: Option<String>,
    /// Begin at the state that a snapshot remembers: its id, or PROJECT/ID
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "from")]
    pub from_snapshot: Option<String>,
    /// Messages a second, at most [default: as fast as its consumers take them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
}

#[derive(Debug, Args)]
pub struct ResendArgs {
    #[command(flatten)]
    pub subscription: SubscriptionName,
    /// The dead letter's id, as `messages` shows it
    #[arg(value_name = "MESSAGE")]
    pub message_id: u64,
    /// The new body: a file, or `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "edit")]
    pub data: Option<PathBuf>,
    /// Open the body in $VISUAL or $EDITOR
    #[arg(long)]
    pub edit: bool,
    /// Set an attribute
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    pub set: Vec<(String, String)>,
    /// Take an attribute away
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
    /// Send it also when it is acknowledged already, or a consumer has it
    #[arg(long)]
    pub even_if_taken: bool,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct UnblockArgs {
    #[command(flatten)]
    pub subscription: SubscriptionName,
    /// The ordering key (`--key` is the API key)
    #[arg(long, value_name = "TEXT")]
    pub ordering_key: String,
    /// The tenant of the key
    #[arg(long)]
    pub tenant: String,
}
