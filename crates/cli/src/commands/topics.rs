//! `levada topics`: settings of Pub/Sub topics that Google's API has no field for.

use clap::ValueEnum;
use levada_core::ResourceName;
use serde_json::{Value, json};

use super::text;
use super::work::{project_of, resource_name};
use crate::args::{Global, SetTopicArgs, TopicName, TopicsArgs, TopicsCommand};
use crate::client::{Connection, encode};
use crate::output::{Failure, Output};

/// Topics of one request.
const PAGE: u32 = 500;

pub async fn topics(output: &Output, global: &Global, args: TopicsArgs) -> Result<(), Failure> {
    match args.command {
        TopicsCommand::List { pubsub_project } => {
            let project = project_of("the topics", pubsub_project.as_deref(), &global.project)?;
            let path = format!("/v1/pubsub/topics/{}", encode(project.as_str()));
            let all = every(&Connection::open(global)?, &path).await?;
            list(output, all);
        }
        TopicsCommand::Show { topic } => {
            let path = address(&topic, global)?;
            show(output, &Connection::open(global)?.get(&path).await?);
        }
        TopicsCommand::Set(args) => {
            let path = address(&args.topic, global)?;
            show(output, &Connection::open(global)?.patch(&path, &change(&args)).await?);
        }
    }
    Ok(())
}

fn address(topic: &TopicName, global: &Global) -> Result<String, Failure> {
    let TopicName { name, pubsub_project } = topic;
    let name: ResourceName = match name.parse() {
        Ok(name) => name,
        Err(_) => resource_name(name, "topics", pubsub_project.as_deref(), &global.project)?,
    };
    Ok(format!("/v1/pubsub/topics/{}/{}", encode(name.project.as_str()), encode(name.id.as_str())))
}

/// What was typed, as a merge patch.
fn change(args: &SetTopicArgs) -> Value {
    let mut patch = json!({});
    if let Some(name) = args.durability.as_ref().and_then(ValueEnum::to_possible_value) {
        patch["durability"] = json!(name.get_name());
    }
    if let Some(name) = args.ordering.as_ref().and_then(ValueEnum::to_possible_value) {
        patch["ordering"] = json!(name.get_name());
    }
    if args.no_deduplication {
        patch["deduplication"] = Value::Null;
    }
    if let Some(attribute) = &args.deduplicate {
        patch["deduplication"]["attribute"] = json!(attribute);
    }
    if let Some(window) = args.window {
        patch["deduplication"]["window_s"] = json!(window.as_secs());
    }
    patch
}

async fn every(server: &Connection, path: &str) -> Result<Vec<Value>, Failure> {
    let mut all: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let answer = server.get(&format!("{path}?limit={PAGE}{after}")).await?;
        all.extend(answer["topics"].as_array().cloned().unwrap_or_default());
        match answer["after"].as_str() {
            Some(name) => after = format!("&after={}", encode(name)),
            None => return Ok(all),
        }
    }
}

fn list(output: &Output, all: Vec<Value>) {
    if output.json {
        output.value(&Value::Array(all));
        return;
    }
    if all.is_empty() {
        output.say("there are no topics in that project, or the key does not see it");
        return;
    }
    let row = |topic: &Value| {
        vec![
            text(topic, "name"),
            text(topic, "tenant_id"),
            text(topic, "durability"),
            text(topic, "ordering"),
            deduplication(topic),
        ]
    };
    output.table(
        &["NAME", "TENANT", "DURABILITY", "ORDERING", "DEDUPLICATION"],
        all.iter().map(row).collect(),
        &[],
    );
}

/// Such as `by order_id within 3600 s`; empty for none.
fn deduplication(topic: &Value) -> String {
    match topic["deduplication"].as_object() {
        Some(of) => format!(
            "by {} within {} s",
            of["attribute"].as_str().unwrap_or("?"),
            of["window_s"].as_f64().unwrap_or_default()
        ),
        None => String::new(),
    }
}

fn show(output: &Output, topic: &Value) {
    if output.json {
        output.value(topic);
        return;
    }
    let retention = topic["retention_s"].as_f64().map(|s| format!("{s} s")).unwrap_or_default();
    let duplicates = match deduplication(topic) {
        none if none.is_empty() => "none".to_owned(),
        some => some,
    };
    for (label, value) in [
        ("name", text(topic, "name")),
        ("tenant", text(topic, "tenant_id")),
        ("durability", text(topic, "durability")),
        ("deduplication", duplicates),
        ("ordering", text(topic, "ordering")),
        ("retention", retention),
        ("schema", text(topic, "schema")),
    ] {
        if !value.is_empty() {
            output.line(&format!("{label:<16}{value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn typed(line: &str) -> Result<SetTopicArgs, String> {
        let line = format!("levada topics set p/orders {line}");
        let cli = crate::Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match cli.command {
            crate::Command::Topics(TopicsArgs { command: TopicsCommand::Set(args) }) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn settings_are_sent_as_they_were_typed() {
        for (line, patch) in [
            ("--durability memory", json!({"durability": "memory"})),
            (
                "--deduplicate order --window 1h",
                json!({"deduplication": {"attribute": "order", "window_s": 3600}}),
            ),
            ("--window 2d", json!({"deduplication": {"window_s": 172_800}})),
            ("--no-deduplication", json!({"deduplication": null})),
            ("--ordering global", json!({"ordering": "global"})),
        ] {
            assert_eq!(typed(line).map(|args| change(&args)), Ok(patch), "{line}");
        }
        for bad in ["", "--durability maybe", "--ordering all", "--no-deduplication --window 1h"] {
            assert!(typed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deduplication_reads_as_a_sentence() {
        let topic = json!({"deduplication": {"attribute": "order", "window_s": 3600.0}});
        assert_eq!(deduplication(&topic), "by order within 3600 s");
        assert_eq!(deduplication(&json!({"deduplication": null})), "");
    }
}
