//! `levada deadletters`: list and send again.

use serde_json::{Value, json};

use super::text;
use crate::args::{DeadlettersArgs, DeadlettersCommand, Global};
use crate::client::{Connection, encode};
use crate::output::{Failure, Output, exit};

pub async fn deadletters(output: &Output, global: &Global, args: DeadlettersArgs) -> Result<(), Failure> {
    let server = Connection::open(global)?;
    match args.command {
        DeadlettersCommand::List { topic, code, limit } => {
            let mut path = format!("/v1/dead-letters?limit={limit}");
            for (name, value) in [("topic", topic), ("code", code)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", encode(&value)));
                }
            }
            list(output, &server.get(&path).await?);
            Ok(())
        }
        DeadlettersCommand::Resend { topic, offsets, all } => {
            resend(output, &server, &topic, if all { None } else { Some(offsets) }).await
        }
    }
}

fn list(output: &Output, answer: &Value) {
    let letters = answer["dead_letters"].as_array().cloned().unwrap_or_default();
    if output.json {
        output.value(&Value::Array(letters));
        return;
    }
    if letters.is_empty() {
        output.say("there are no dead letters");
        return;
    }
    let columns =
        ["topic", "offset", "failed_at", "tenant_id", "stage", "code", "position", "resent", "reason"];
    let rows = letters.iter().map(|letter| columns.iter().map(|c| text(letter, c)).collect()).collect();
    let header = ["TOPIC", "OFFSET", "TIME", "TENANT", "STAGE", "CODE", "POSITION", "RESENT", "REASON"];
    output.table(&header, rows, &[1]);
}

async fn resend(
    output: &Output,
    server: &Connection,
    topic: &str,
    offsets: Option<Vec<u64>>,
) -> Result<(), Failure> {
    let topic = if topic.ends_with("-dlq") { topic.to_owned() } else { format!("{topic}-dlq") };
    let mut refused = Vec::new();
    let (mut sent, mut already) = (0, 0);
    loop {
        let body = match &offsets {
            Some(offsets) => json!({ "topic": topic, "offsets": offsets }),
            None => json!({ "topic": topic, "all": true }),
        };
        let answer = server.post("/v1/dead-letters/resend", &body).await?;
        let now = answer["sent"].as_u64().unwrap_or(0);
        sent += now;
        already += answer["already"].as_u64().unwrap_or(0);
        refused.extend(answer["refused"].as_array().cloned().unwrap_or_default());
        if offsets.is_some() || now == 0 || answer["more"].as_bool() != Some(true) {
            break;
        }
    }
    if output.json {
        output.value(&json!({ "sent": sent, "already": already, "refused": refused }));
    } else {
        output.say(&format!("{sent} sent again, {already} were before, {} refused", refused.len()));
        for item in refused.iter().take(10) {
            output.say(&format!("  {item}"));
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::silent(exit::FAILED)) }
}
