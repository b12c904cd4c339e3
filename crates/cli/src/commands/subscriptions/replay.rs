//! `levada subscriptions replay` and `rate`: what a subscription got, once more, and how fast.

use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::client::Connection;
use crate::commands::text;
use crate::output::{Failure, Output};

pub async fn replay(
    output: &Output,
    server: &Connection,
    path: &str,
    args: &ReplayArgs,
) -> Result<(), Failure> {
    let made = server.post(&format!("{path}/replays"), &request(args)).await?;
    if output.json {
        output.value(&made);
        return Ok(());
    }
    let name = text(&made, "name");
    let left = text(&made["stats"], "backlog_messages");
    output.say(&format!("{name} delivers once more what {} got", text(&made["replay"], "source")));
    output.say(&match made["stats"]["backlog_is_exact"] == true {
        true => format!("{left} messages; `levada subscriptions show {name}` tells how it goes"),
        false => format!("up to {left} messages; `levada subscriptions show {name}` tells how it goes"),
    });
    Ok(())
}

fn request(args: &ReplayArgs) -> Value {
    let from = match (&args.from, &args.from_snapshot) {
        (_, Some(snapshot)) => json!({ "snapshot": snapshot }),
        (from, None) => json!(from),
    };
    let mut request = json!({ "name": args.id, "from": from });
    if let Some(rate) = args.rate {
        request["rate_per_s"] = json!(rate);
    }
    request
}

pub async fn rate(
    output: &Output,
    server: &Connection,
    path: &str,
    rate: Option<u32>,
) -> Result<(), Failure> {
    let changed = server.patch(path, &json!({ "max_rate_per_s": rate })).await?;
    if output.json {
        output.value(&changed);
        return Ok(());
    }
    let bound = bound(&changed);
    output.say(match bound.is_empty() {
        true => "it delivers as fast as its consumers take",
        false => &bound,
    });
    Ok(())
}

/// Empty for none.
pub fn bound(shown: &Value) -> String {
    let rate = shown["max_rate_per_s"].as_u64();
    rate.map(|rate| format!("at most {rate} messages a second")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{SubscriptionsArgs, SubscriptionsCommand};

    fn typed(line: &str) -> Result<SubscriptionsCommand, String> {
        let line = format!("levada subscriptions {line}");
        let cli = crate::Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.command {
            crate::Command::Subscriptions(SubscriptionsArgs { command }) => Ok(command),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_replay_is_asked_for_as_it_was_typed() {
        for (line, expected) in [
            (
                "replay p/sub --name again --from earliest --rate 500",
                json!({"name": "again", "from": "earliest", "rate_per_s": 500}),
            ),
            (
                "replay p/sub --name again --from-snapshot p/snap",
                json!({"name": "again", "from": {"snapshot": "p/snap"}}),
            ),
        ] {
            let Ok(SubscriptionsCommand::Replay(args)) = typed(line) else { panic!("{line}") };
            assert_eq!(request(&args), expected, "{line}");
        }
        for bad in [
            "replay p/sub --from earliest",
            "replay p/sub --name again",
            "replay p/sub --name again --from earliest --from-snapshot s",
            "replay p/sub --name again --from earliest --rate 0",
            "rate p/sub 0",
            "rate p/sub fast",
        ] {
            assert!(typed(bad).is_err(), "{bad}");
        }
        let Ok(SubscriptionsCommand::Rate { rate, .. }) = typed("rate p/sub -") else { panic!("no rate") };
        assert_eq!(rate.0, None);
    }
}
