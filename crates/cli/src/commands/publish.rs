//! `levada publish`: events from a file or standard input, in batches.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Value, json};

use crate::args::{Global, PublishArgs};
use crate::client::{Connection, encode, refusal};
use crate::output::{Failure, Output, exit};

/// Bytes of a request, at most.
const REQUEST_BYTES: usize = 4 << 20;

#[derive(Default)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    shown: usize,
}

pub async fn publish(output: &Output, global: &Global, args: PublishArgs) -> Result<(), Failure> {
    let server = Connection::open(global)?;
    let input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let open = std::fs::File::open(&args.file);
        Box::new(open.map_err(|e| Failure::new(exit::FAILED, format!("{}: {e}", args.file.display())))?)
    };
    let mut path = "/v1/events".to_owned();
    if let Some(topic) = &args.topic {
        path.push_str(&format!("?topic={}", encode(topic)));
    }
    let bar = output.bar(None, "published");
    let mut tally = Tally::default();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for event in events(BufReader::new(input)) {
        let event = event?;
        let event = match &args.event_type {
            Some(kind) => json!({ "event_type": kind, "payload": event }),
            None => event,
        };
        let line = event.to_string();
        bytes += line.len();
        batch.push(line);
        if batch.len() >= usize::from(args.batch) || bytes >= REQUEST_BYTES {
            send(output, &server, &path, &args, &mut batch, &mut tally).await?;
            bytes = 0;
            bar.set_position(tally.accepted + tally.duplicates);
        }
    }
    send(output, &server, &path, &args, &mut batch, &mut tally).await?;
    bar.finish_and_clear();
    let Tally { accepted, duplicates, rejected, .. } = tally;
    if output.json {
        output.value(&json!({ "accepted": accepted, "duplicates": duplicates, "rejected": rejected }));
    } else {
        output.say(&format!("{accepted} accepted, {duplicates} duplicates, {rejected} rejected"));
    }
    if rejected == 0 { Ok(()) } else { Err(Failure::silent(exit::FAILED)) }
}

/// The values of a JSON text: the items of an array, or a stream of values (one a line).
fn events(mut input: impl BufRead + 'static) -> Box<dyn Iterator<Item = Result<Value, Failure>>> {
    let bad = |e: serde_json::Error| Failure::new(exit::FAILED, format!("the input is not JSON: {e}"));
    let first = loop {
        match input.fill_buf() {
            Err(error) => return Box::new(std::iter::once(Err(error.into()))),
            Ok([]) => break None,
            Ok([byte, ..]) if !byte.is_ascii_whitespace() => break Some(*byte),
            Ok(_) => input.consume(1),
        }
    };
    if first == Some(b'[') {
        return match serde_json::from_reader::<_, Vec<Value>>(input) {
            Ok(items) => Box::new(items.into_iter().map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(bad(error)))),
        };
    }
    let values = serde_json::Deserializer::from_reader(input).into_iter::<Value>();
    Box::new(values.map(move |value| value.map_err(bad)))
}

async fn send(
    output: &Output,
    server: &Connection,
    path: &str,
    args: &PublishArgs,
    batch: &mut Vec<String>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    let body = format!("[{}]", batch.join(","));
    batch.clear();
    let mut request = server.request(reqwest::Method::POST, path).header("content-type", "application/json");
    if let Some(tenant) = &args.tenant {
        request = request.header("x-tenant-id", tenant);
    }
    let response = server.send(request.body(body)).await?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await.map_err(|e| Failure::new(exit::FAILED, e.to_string()))?;
    let answer: Value = serde_json::from_slice(&bytes).map_err(|_| refusal(status, &bytes))?;
    if answer.get("accepted").is_none() && answer.get("results").is_none() {
        return Err(refusal(status, &bytes));
    }
    tally.accepted += answer["accepted"].as_u64().unwrap_or(0);
    tally.duplicates += answer["duplicates"].as_u64().unwrap_or(0);
    tally.rejected += answer["rejected"].as_u64().unwrap_or(0);
    for result in answer["results"].as_array().into_iter().flatten() {
        let refused = result["status"].as_u64().is_some_and(|s| s >= 400);
        if refused && tally.shown < 10 {
            tally.shown += 1;
            output.say(&format!("  refused: {result}"));
        }
    }
    Ok(())
}
