//! The arguments of `levada topics`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// A topic as a person names it.
#[derive(Debug, Clone, Args)]
pub struct TopicName {
    /// PROJECT/ID, projects/PROJECT/topics/ID, or the ID alone
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The Pub/Sub project of an ID alone [default: the name of the project in --project]
    #[arg(long, value_name = "ID")]
    pub pubsub_project: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// List the topics of a Pub/Sub project with durability, deduplication and ordering
    List {
        /// The Pub/Sub project [default: the name of the project in --project]
        #[arg(long, value_name = "ID")]
        pubsub_project: Option<String>,
    },
    /// Show one topic
    Show {
        #[command(flatten)]
        topic: TopicName,
    },
    /// Set durability, deduplication or ordering of a topic
    Set(SetTopicArgs),
}

#[derive(Debug, Args)]
#[group(id = "setting", required = true, multiple = true, args = ["durability", "deduplicate", "window", "no_deduplication", "ordering"])]
pub struct SetTopicArgs {
    #[command(flatten)]
    pub topic: TopicName,
    /// When a publish is answered
    #[arg(long, value_enum)]
    pub durability: Option<DurabilityClass>,
    /// Take messages of a tenant with the same value of this attribute for one
    #[arg(long, value_name = "ATTRIBUTE")]
    pub deduplicate: Option<String>,
    /// For how long, such as 90s, 15min, 6h or 7d; 7 days at most
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub window: Option<Duration>,
    /// End deduplication
    #[arg(long, conflicts_with_all = ["deduplicate", "window"])]
    pub no_deduplication: bool,
    /// Among which messages an ordering key keeps the order
    #[arg(long, value_enum)]
    pub ordering: Option<KeyScope>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyScope {
    /// Those of one tenant: tenants take turns
    Tenant,
    /// Those of all tenants: messages with a key come in the order of the topic
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityClass {
    /// After the fsync of the message: nothing that was answered is lost
    Fsync,
    /// Once written: a power loss may take the last moments
    Interval,
    /// Once in memory: a crash of the server may take the last moments
    Memory,
}

/// A time as a person writes it: a whole number and a unit.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    let time = time.filter(|time| *time > 0);
    time.map(Duration::from_secs)
        .ok_or_else(|| "write a whole number and a unit: 90s, 15min, 6h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("15min", 900), ("2m", 120), ("6h", 21_600), ("7d", 604_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "s", "0s", "1.5h", "-1s", "1w", "99999999999999999999s", "999999999999999999d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
