//! `levada tail`: follow a topic or dead letters.

use serde_json::Value;

use super::text;
use crate::args::{Global, TailArgs};
use crate::client::{Connection, encode};
use crate::output::{Failure, Output, exit};

const PAGE: u64 = 500;
const WAIT_MS: u64 = 10_000;

pub async fn tail(output: &Output, global: &Global, args: TailArgs) -> Result<(), Failure> {
    let server = Connection::open(global)?;
    let topics = topics(&server, &args).await?;
    if topics.is_empty() {
        output.say("there are no dead letters");
        return Ok(());
    }
    let mut cursors = Vec::new();
    for topic in topics {
        let from = match args.from {
            Some(from) => from,
            None if args.no_follow => 0,
            None => end_of(&server, &topic).await?,
        };
        cursors.push((topic, from));
    }
    follow(output, &server, &args, cursors).await
}

async fn follow(
    output: &Output,
    server: &Connection,
    args: &TailArgs,
    mut cursors: Vec<(String, u64)>,
) -> Result<(), Failure> {
    let mut left = args.count.unwrap_or(u64::MAX);
    // With several topics the wait is shared, so that none is kept from its turn.
    let wait = if args.no_follow { 0 } else { WAIT_MS / (cursors.len() as u64).pow(2) };
    loop {
        let mut any = false;
        for (topic, from) in &mut cursors {
            let limit = PAGE.min(left);
            let path =
                format!("/v1/topics/{}/messages?from={from}&limit={limit}&wait_ms={wait}", encode(topic));
            let page = server.get(&path).await?;
            for message in page["messages"].as_array().into_iter().flatten() {
                print(output, topic, message);
                any = true;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
            *from = page["next"].as_u64().unwrap_or(*from);
        }
        if args.no_follow && !any {
            return Ok(());
        }
    }
}

async fn topics(server: &Connection, args: &TailArgs) -> Result<Vec<String>, Failure> {
    match (&args.topic, args.dead) {
        (Some(topic), false) => Ok(vec![topic.clone()]),
        (Some(topic), true) if topic.ends_with("-dlq") => Ok(vec![topic.clone()]),
        (Some(topic), true) => Ok(vec![format!("{topic}-dlq")]),
        (None, _) => {
            let all = server.get("/v1/topics").await?;
            let names = all["topics"].as_array().into_iter().flatten().map(|t| text(t, "name"));
            Ok(names.filter(|n| n.ends_with("-dlq")).collect())
        }
    }
}

async fn end_of(server: &Connection, topic: &str) -> Result<u64, Failure> {
    let all = server.get("/v1/topics").await?;
    let found = all["topics"].as_array().into_iter().flatten().find(|t| text(t, "name") == topic).cloned();
    match found {
        Some(found) => Ok(found["next"].as_u64().unwrap_or(0)),
        None => Err(Failure::new(exit::FAILED, format!("there is no topic `{topic}`"))
            .hint("a topic exists once a pipeline of the project names it")),
    }
}

fn print(output: &Output, topic: &str, message: &Value) {
    if output.json {
        let mut message = message.clone();
        message["topic"] = Value::String(topic.to_owned());
        output.value(&message);
        return;
    }
    let attributes = &message["attributes"];
    let body = match message.get("payload") {
        Some(payload) => payload.to_string(),
        None => text(message, "payload_base64"),
    };
    let place = format!("{topic}/{}", message["offset"]);
    let line = format!(
        "{}  {place}  {}  {}  {body}",
        text(message, "published_at"),
        text(message, "tenant_id"),
        text(attributes, "event_type"),
    );
    output.line(&line);
    let reason = text(attributes, "levada.dead.reason");
    if !reason.is_empty() {
        let (code, stage) = (text(attributes, "levada.dead.code"), text(attributes, "levada.dead.stage"));
        output.line(&format!("    {code} at {stage}: {reason}"));
    }
}
