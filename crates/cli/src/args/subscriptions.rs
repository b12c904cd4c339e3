//! The arguments of `levada subscriptions`.

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
    /// Send the messages of a dead-letter topic's subscription back to where they came from
    Redrive(RedriveArgs),
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
